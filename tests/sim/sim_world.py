"""One schedule: services, clients and faults in a simulation, and what must hold at its end.

The services are the real ones with all their actors; only their connection to NATS is simulated.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
from nats import errors as nats_errors
from sim_connection import SimClient
from sim_loop import Process, SimLoop, simulated
from sim_nats import Rates, SimServer

from natalog.actors.config import ServiceConfig
from natalog.actors.log import BranchLog, PlacedBlock, Position
from natalog.actors.names import Names
from natalog.actors.nats_port import NatsPort
from natalog.actors.runtime import Runtime
from natalog.actors.segments.places import Places
from natalog.actors.service import Service, system_clock
from natalog.actors.state import BranchState
from natalog.core import errors
from natalog.core.codec import pack, unpack
from natalog.core.errors import NatalogError, Unavailable, error_from_wire
from natalog.core.limits import TX_BASE
from natalog.core.record import (
    ENTRY_COMMIT,
    ENTRY_REJECTION,
    Entry,
    Rejection,
    TxRecord,
    decode_block,
    encode_block,
)
from natalog.core.values import Keyword

DATABASE = "sim"
NAMES = Names()
ANSWER_S = 3.0
GIVE_UP_S = 40.0
QUIET_S = 8.0
REFUSALS = (errors.TransactError, errors.EntityError, errors.BadRequest)
SCHEMA = [
    {
        "db/ident": Keyword(name),
        "db/valueType": Keyword(f"db.type/{kind}"),
        "db/cardinality": Keyword(f"db.cardinality/{many}"),
        **({"db/unique": Keyword(f"db.unique/{unique}")} if unique else {}),
    }
    for name, kind, many, unique in (
        ("list/name", "string", "one", "identity"),
        ("note/text", "string", "one", ""),
        ("register/value", "long", "one", ""),
        ("seat/number", "long", "one", "value"),
    )
]


@dataclass(frozen=True, slots=True)
class Told:
    """What a client was told of a transaction."""

    ident: str | None
    mark: str
    outcome: str
    tx: int | None = None


@dataclass(slots=True)
class Result:
    """What a schedule showed; ``failures`` is empty when everything held."""

    seed: int
    failures: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    blocks: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    trace: int = 0


class _Alarms(logging.Handler):
    """Everything that a service logs as its own defect, or as a corrupt log."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.found = found

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if record.exc_info:
            self.found.append(f"{record.name}: {said}: {self.format(record)[-1500:]}")
        elif "cannot go on" in said or "hole" in said or "was acknowledged" in said:
            self.found.append(f"{record.name}: {said}")


class Member:
    """A service in a process of its own, started again whenever it has ended."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"s{number}"
        self.starts = 0
        self.service: Service | None = None
        self.clients: list[SimClient] = []
        self.process = Process(self.name)
        self.ready = asyncio.Event()
        self.waiting: dict[str, str] = {}
        self.restart()

    def restart(self) -> None:
        self.starts += 1
        self.process = Process(f"{self.name}.{self.starts}")
        self.service = None
        self.ready = asyncio.Event()
        self.waiting = {}
        self.end = asyncio.Event()
        self.task = self.world.loop.spawn(self.process, self._live())
        self.world.tasks.append(self.task)

    def kill(self) -> None:
        self.process.killed = True
        self.ready.clear()
        for client in self.clients:
            client.drop(again=False)

    async def stop(self) -> None:
        self.ready.clear()
        self.end.set()
        await asyncio.wait([self.task])

    async def _live(self) -> None:
        while True:
            try:
                await self._serve()
                return
            except (NatalogError, nats_errors.Error, OSError) as error:
                self.world.note(f"{self.process.name} starts again: {error}")
            except BaseExceptionGroup as group:
                unexpected = group.split(NatalogError)[1]
                if unexpected is not None:
                    self.world.failures.append(f"{self.process.name} ended: {unexpected!r}")
                    self.world.whole.cancel()
                    return
            await anyio.sleep(0.3)

    async def _serve(self) -> None:
        world = self.world
        self.clients = []
        ports = [self._port(""), self._port("-requests")]
        config = ServiceConfig(
            nats="nats://simulated", branch_idle_s=3600, gc_interval_s=1e6, snapshot_interval_s=2.0
        )
        try:
            async with anyio.create_task_group() as tasks:
                runtime = Runtime(tasks)
                service = Service(config, *ports, "simulated", system_clock, runtime, world.places)
                service.snapshots.settle = None  # erasures are not simulated
                try:
                    await service.start()
                    self.service = service
                    self.ready.set()
                    await self.end.wait()
                finally:
                    self.ready.clear()
                    with anyio.CancelScope(shield=True):
                        await service.stop()
                    tasks.cancel_scope.cancel()
        finally:
            for port in ports:
                await port.close()

    def _port(self, use: str) -> NatsPort:
        client = SimClient(self.world.server, self.process, f"{self.process.name}{use}")
        client.connect()
        self.clients.append(client)
        port = NatsPort(client)  # type: ignore[arg-type]
        client.on_disconnect, client.on_reconnect = port._on_disconnect, port._on_reconnect
        client.on_message = self._on_message
        client.on_send = self._on_send
        return port

    # a transaction that came in while nobody else could answer is to be answered here

    def _on_message(self, subject: str, reply: str) -> None:
        service = self.service
        if reply and subject.endswith(".transact") and service is not None:
            lease = service.lease
            if lease is not None and lease.valid():
                self.waiting[reply] = subject
        holders = [member.name for member in self.world.members if member.may_write()]
        if len(holders) > 1:
            self.world.failures.append(f"{holders} hold the lease at the same time")

    def may_write(self) -> bool:
        """Whether this process would answer now as the one that takes transactions."""
        process, service = self.process, self.service
        if process.killed or process.paused or service is None or service.lease is None:
            return False
        return bool(process.context.copy().run(service.lease.valid))

    def _on_send(self, subject: str) -> None:
        self.waiting.pop(subject, None)


class World:
    """The simulation of one seed."""

    def __init__(self, loop: SimLoop, seed: int, alarms: list[str]) -> None:
        self.loop = loop
        self.seed = seed
        self.chance = random.Random(seed * 7 + 1)
        self.failures = alarms
        self.notes: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.server = SimServer(loop, random.Random(seed * 7 + 2), Rates())
        self.told: list[Told] = []
        self.members: list[Member] = []
        self._marks = itertools.count(1)
        self.places = Places("memory", None, NAMES)  # type: ignore[arg-type]
        self.forced: set[str] = set()

    def note(self, said: str) -> None:
        self.notes.append(f"{self.loop.now - 10_000:9.4f} {said}")

    # --- clients -----------------------------------------------------------------------------

    async def ask(
        self, client: SimClient, endpoint: str, body: Any, timeout_s: float = ANSWER_S
    ) -> Any:
        """One request; raises the error that it is answered with."""
        headers = {
            "Content-Type": "application/msgpack",
            "Natalog-Timeout-Ms": str(int(timeout_s * 1000)),
        }
        try:
            message = await client.request(endpoint, pack(body), timeout_s, headers)
        except nats_errors.NoRespondersError:
            raise Unavailable("nobody listens") from None
        except nats_errors.TimeoutError:
            raise errors.DeadlineExceeded("no answer") from None
        if (message.headers or {}).get("Nats-Service-Error-Code"):
            raise error_from_wire(unpack(message.data))
        return unpack(message.data)

    async def outside(self, name: str) -> SimClient:
        client = SimClient(self.server, None, name)
        while not self.server.up:
            await anyio.sleep(0.1)
        client.connect()
        return client

    async def begin(self, members: int) -> None:
        """Start the services and make the database; nothing goes wrong yet."""
        self.members = [Member(self, number) for number in range(members)]
        for member in self.members:
            await member.ready.wait()
        self.admin = await self.outside("admin")
        await self.ask(
            self.admin,
            NAMES.subject("_", "_", "create"),
            {"database": DATABASE, "initial_tx": SCHEMA},
            10,
        )
        report = await self.transact(
            self.admin,
            [
                {"db/id": "list", "list/name": "list"},
                {"db/id": "register", "list/name": "register", "register/value": 0},
            ],
            "begin",
        )
        self.entities = {str(name): int(e) for name, e in report["tempids"].items()}

    async def transact(self, client: SimClient, data: Any, ident: str | None) -> Any:
        body: dict[str, Any] = {"tx_data": data}
        if ident is not None:
            body["id"] = ident
        return await self.ask(client, NAMES.subject(DATABASE, "db", "transact"), body)

    async def work(self, number: int, until: asyncio.Event) -> None:
        """A client: transactions with and without ids, sent again until there is an outcome."""
        chance = random.Random(self.seed * 100 + number)
        client = await self.outside(f"c{number}")
        for turn in itertools.count():
            if until.is_set():
                return
            mark = f"{number}-{turn}"
            data = self._wish(chance, mark)
            kind = chance.random()
            if kind < 0.2:
                self.told.append(await self._hand_in(client, mark, data))
            elif kind < 0.45:
                self.told.append(await self._once(client, mark, data))
            else:
                double = chance.random() < 0.15
                tries = [self._insist(client, mark, data) for _ in range(1 + double)]
                told = await asyncio.gather(*tries)
                if double and len({one.outcome for one in told}) > 1:
                    # a refusal is not remembered: what it says holds for one of the two
                    told = [one for one in told if one.outcome != "refused"]
                self.told.extend(told)
            if chance.random() < 0.5:
                await anyio.sleep(chance.random() * 0.5)

    def _wish(self, chance: random.Random, mark: str) -> list[Any]:
        data: list[Any] = [{"note/text": mark}]  # a new entity each time it is applied
        kind = chance.random()
        if kind < 0.2:
            data.append({"seat/number": chance.randrange(30)})
        elif kind < 0.3:
            register = self.entities["register"]
            old = chance.randrange(3)
            data.append(["db/cas", register, "register/value", old, chance.randrange(3)])
        elif kind < 0.35:
            data.append(["db/add", self.entities["list"], "nobody/knows", 1])
        elif kind < 0.4:
            data = [{"note/text": mark + "." + "x" * 20_000}]
        return data

    async def _insist(self, client: SimClient, mark: str, data: Any) -> Told:
        began = self.loop.now
        while self.loop.now - began < GIVE_UP_S:
            try:
                report = await self.transact(client, data, mark)
                return Told(mark, mark, "acknowledged", report["tx"])
            except REFUSALS:
                return Told(mark, mark, "refused")
            except NatalogError as error:
                self._check_typed(error)
                await anyio.sleep(0.05 + self.chance.random() * 0.2)
        return Told(mark, mark, "unknown")

    async def _once(self, client: SimClient, mark: str, data: Any) -> Told:
        try:
            report = await self.transact(client, data, None)
            return Told(None, mark, "acknowledged", report["tx"])
        except REFUSALS:
            return Told(None, mark, "refused")
        except (errors.Fenced, errors.Busy):
            return Told(None, mark, "refused")  # both say that nothing was done
        except NatalogError as error:
            self._check_typed(error)
            return Told(None, mark, "unknown")

    async def _hand_in(self, client: SimClient, mark: str, data: Any) -> Told:
        """Publish into the ingest stream until it is stored."""
        began = self.loop.now
        headers = {"Content-Type": "application/msgpack", "Nats-Msg-Id": mark}
        payload = pack({"tx_data": data})
        while self.loop.now - began < GIVE_UP_S:
            try:
                subject = NAMES.ingest(DATABASE, "db")
                message = await client.request(subject, payload, ANSWER_S, headers)
            except nats_errors.Error:
                await anyio.sleep(0.2)
                continue
            if "seq" in json.loads(message.data):
                return Told(mark, mark, "handed in")
        return Told(mark, mark, "unknown")

    def _check_typed(self, error: NatalogError) -> None:
        if isinstance(error, (errors.Internal, errors.LogCorrupt)):
            self.failures.append(f"a client was told {error!r}")

    # --- faults ------------------------------------------------------------------------------

    async def break_things(self, seconds: float) -> None:
        """One fault after the other."""
        ends = self.loop.now + seconds
        able = [
            *(self._kill, self._pause, self._cut, self._cut, self._server, self._stop),
            *(self._skew, self._intrude, self._rates, self._rates),
        ]
        while self.loop.now < ends:
            await anyio.sleep(self.chance.random() * 1.5)
            await self.chance.choice(able)()
        self.server.rates = Rates()

    def _any(self) -> Member:
        return self.chance.choice(self.members)

    async def _kill(self) -> None:
        member = self._any()
        if member.process.paused:
            return
        self.server.faults["service_killed"] += 1
        self.note(f"kill {member.process.name}")
        member.kill()
        await anyio.sleep(self.chance.random() * 2)
        member.restart()

    async def _stop(self) -> None:
        member = self._any()
        if not member.ready.is_set():
            return
        self.server.faults["service_stopped"] += 1
        self.note(f"stop {member.process.name}")
        await member.stop()
        member.restart()

    async def _pause(self) -> None:
        member = self._any()
        self.server.faults["service_paused"] += 1
        self.note(f"pause {member.process.name}")
        member.process.paused = True
        await anyio.sleep(self.chance.choice((0.3, 2.0, 6.0)) * self.chance.random())
        self.loop.go_on(member.process)
        self.note(f"{member.process.name} goes on")

    async def _cut(self) -> None:
        clients = [client for member in self.members for client in member.clients]
        clients += self.server.clients
        if not clients:  # nobody is connected at the moment
            return
        client = self.chance.choice(clients)
        self.server.faults["connection_lost"] += 1
        self.note(f"cut {client.name}")
        client.drop()

    async def _server(self) -> None:
        self.note("server killed")
        self.server.crash(self.chance.random() * 2)

    async def _skew(self) -> None:
        """A clock goes backwards, or forwards again, by up to an hour."""
        self.server.faults["clock_set"] += 1
        self._any().process.skew_s += (self.chance.random() - 0.7) * 3600

    async def _rates(self) -> None:
        chance = self.chance

        def rate(highest: float) -> float:
            return chance.random() * highest if chance.random() < 0.4 else 0.0

        self.server.rates = Rates(
            receipt_lost=rate(0.3),
            append_lost=rate(0.3),
            append_twice=rate(0.3),
            api_lost=rate(0.1),
            stall=rate(0.02),
            delivery_lost=rate(0.1),
            delivery_twice=rate(0.2),
            delay_s=chance.choice((0.0005, 0.002, 0.05)),
            stall_s=chance.choice((0.5, 5.0)),
        )

    async def _intrude(self) -> None:
        """Somebody else appends a valid block to the log, as a second transactor would."""
        stream = self.server.streams[NAMES.log_stream(DATABASE)]
        client = await self.outside(f"i{next(self._marks)}")
        last = stream.messages[stream.last_seq]
        found = _entries(stream)
        record = next(TxRecord.decode(e.data) for _, e in reversed(found) if e.type == ENTRY_COMMIT)
        head = next(e.commit_id for _, e in reversed(found) if e.type == ENTRY_COMMIT)
        mark = f"forced-{next(self._marks)}"
        made = replace(
            record,
            kind="transaction",
            tx=record.tx + 1,
            parents=(head,),
            datoms=(),
            purges=(),
            tempids={},
            tx_meta={},
            id=mark,
            purged=0,
            config=None,
        )
        position = Position(last.seq, decode_block(last.data, None).hash)
        block = encode_block(position.hash, [Entry(ENTRY_COMMIT, made.encode())])
        try:
            branch_log = BranchLog(NatsPort(client), NAMES, DATABASE, "db")  # type: ignore[arg-type]
            await branch_log.append(position, block)
            self.forced.add(mark)
            self.server.faults["second_writer"] += 1
            self.note(f"forced block {last.seq + 1}")
        except NatalogError as error:
            self.note(f"a forced block was refused: {error}")
        finally:
            await client.close()

    # --- the end -----------------------------------------------------------------------------

    async def run(self) -> None:
        """The whole schedule; it ends early when a service ends by a defect."""
        self.whole = asyncio.current_task()
        await self.begin(self.chance.choice((1, 2, 2, 2)))
        stopping = asyncio.Event()
        clients = [
            self.loop.create_task(self.work(number, stopping))
            for number in range(self.chance.randint(2, 5))
        ]
        await self.break_things(self.chance.random() * 7 + 1.5)
        for member in self.members:
            if not member.process.killed:
                await asyncio.wait_for(member.ready.wait(), 60)
        stopping.set()
        done, late = await asyncio.wait(clients, timeout=GIVE_UP_S + 20)
        for task in done:
            task.result()
        if late:
            self.failures.append(f"{len(late)} clients do not end")
        await anyio.sleep(QUIET_S)
        for number in range(3):
            try:
                data = [{"note/text": f"last-{number}"}]
                report = await self.transact(self.admin, data, f"last-{number}")
                self.told.append(
                    Told(f"last-{number}", f"last-{number}", "acknowledged", report["tx"])
                )
            except NatalogError as error:
                self.failures.append(f"after the faults a transaction fails: {error!r}")
        self.told.append(
            await self._hand_in(self.admin, "last-in", self._wish(self.chance, "last-in"))
        )
        await anyio.sleep(3)
        self.check()

    def check(self) -> None:
        """What must hold; what does not goes to ``failures``."""
        stream = self.server.streams[NAMES.log_stream(DATABASE)]
        fail = self.failures.append
        try:
            entries = _entries(stream)
        except NatalogError as error:
            fail(f"the log does not verify: {error!r}")
            return
        committed: list[TxRecord] = []
        rejected: Counter[str] = Counter()
        for _, entry in entries:
            if entry.type == ENTRY_REJECTION:
                rejected[str(Rejection.decode(entry.data).id)] += 1
            else:
                committed.append(TxRecord.decode(entry.data))
        txs = [record.tx for record in committed[1:]]
        if txs != list(range(TX_BASE + 1, TX_BASE + 1 + len(txs))):
            fail(f"transaction numbers have holes or repeat: {txs}")
        instants = [r.instant_ms for r in committed if r.instant_ms is not None]
        if instants != sorted(instants):
            fail("transaction instants go backwards")
        ids = Counter(record.id for record in committed if record.id is not None)
        for ident, count in (ids + rejected).items():
            if count > 1:
                fail(f"the id {ident} stands {count} times in the log")
        by_mark: dict[str, list[int]] = {}
        for record in committed:
            for datom in record.datoms:
                if str(datom.a) == ":note/text" and datom.added:
                    by_mark.setdefault(str(datom.v).partition(".")[0], []).append(record.tx)
        for told in self.told:
            found = by_mark.get(told.mark, [])
            wanted = {"acknowledged": [told.tx], "refused": []}.get(told.outcome, found)
            if found != wanted:
                fail(f"{told} but the log has it at {found}")
            elif told.outcome == "handed in" and len(found) + rejected[told.mark] != 1:
                fail(f"{told} but the log has it at {found}, refused {rejected[told.mark]} times")
            elif len(found) > 1:
                fail(f"{told} is in the log {len(found)} times")
        for mark in self.forced:
            if ids[mark] != 1:
                fail(f"the forced block {mark} is in the log {ids[mark]} times")
        self._check_states(stream)
        for member in self.members:
            if member.waiting:
                fail(f"{member.process.name} has not answered {len(member.waiting)} requests")
        if self.server.unknown:
            fail(f"the simulated server does not know {self.server.unknown[:3]}")

    def _check_states(self, stream: Any) -> None:
        """Every service holds the value that a replay of the log makes."""
        replay = BranchState(DATABASE, "db")
        for seq in range(1, stream.last_seq + 1):
            data = stream.messages[seq].data
            block = decode_block(data, replay.position.hash)
            replay.fold(PlacedBlock(seq, block, len(data)))
        wanted = replay.db.datoms("eavt")
        for member in self.members:
            service = member.service
            state = None if service is None else service.hub.state(DATABASE, "db")
            if state is None:
                self.failures.append(f"{member.process.name} does not serve the database")
            elif state.position != replay.position:
                self.failures.append(
                    f"{member.process.name} stands at block {state.position.seq} of "
                    f"{replay.position.seq}"
                )
            elif state.db.datoms("eavt") != wanted or state.db.max_tx != replay.db.max_tx:
                self.failures.append(f"the value of {member.process.name} is not the replay")


def _entries(stream: Any) -> list[tuple[int, Entry]]:
    """All entries of a log, its chain verified."""
    found = []
    previous = Position().hash
    for seq in range(1, stream.last_seq + 1):
        block = decode_block(stream.messages[seq].data, previous)
        found.extend((seq, entry) for entry in block.entries)
        previous = block.hash
    return found


def simulate(seed: int, *, notes: bool = False) -> Result:
    """Run the schedule of a seed."""
    found: list[str] = []
    handler = _Alarms(found)
    logger = logging.getLogger("natalog")
    level = logger.level
    logger.addHandler(handler)
    result = Result(seed, found)
    propagate, logger.propagate = logger.propagate, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with simulated(random.Random(seed)) as loop:
                asyncio.set_event_loop(loop)
                world = World(loop, seed, found)
                try:
                    loop.run_until_complete(world.run())
                except asyncio.CancelledError:
                    assert found
                except Exception as error:
                    found.append(f"{type(error).__name__}: {error}")
                result.steps, result.virtual_s = loop.steps, loop.now - 10_000
                result.trace = loop.trace
                result.faults = world.server.faults
                result.told = Counter(told.outcome for told in world.told)
                log_stream = world.server.streams.get(NAMES.log_stream(DATABASE))
                result.blocks = 0 if log_stream is None else log_stream.last_seq
                if notes:
                    print("\n".join(world.notes))
                _end(loop, world)
        finally:
            asyncio.set_event_loop(None)
            logger.removeHandler(handler)
            logger.propagate = propagate
            logger.setLevel(level)
    return result


def _end(loop: SimLoop, world: World) -> None:
    """Let go of everything; nothing of it matters any more."""
    logging.getLogger("natalog").setLevel(logging.CRITICAL + 1)
    kept = list(world.failures)
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.set_exception_handler(lambda *_: None)
    world.failures[:] = kept

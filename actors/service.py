"""The service: one process with its connection, its actors and, if it has one, its nats-server.

::

    async with running(ServiceConfig(data=Path("data"), listen="127.0.0.1:0")) as service:
        print(service.url)
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import anyio
from anyio import to_thread

from natalog.actors.admin import VERSIONING, AdminActor, Inspector, database_name
from natalog.actors.alertness import Alertness
from natalog.actors.branches import Branches
from natalog.actors.catalog import CHANGED, OPENED, Catalog, Process
from natalog.actors.collection import Collector
from natalog.actors.config import ServiceConfig
from natalog.actors.console import Console
from natalog.actors.erasure import ERASED, HANDED, Eraser
from natalog.actors.functions import registered
from natalog.actors.gc import GcActor
from natalog.actors.heads import Heads
from natalog.actors.http import HttpServer, application
from natalog.actors.hub import Hub
from natalog.actors.intake import IN_THREAD_BYTES, Intake, check_tokens
from natalog.actors.keeper import Keeper
from natalog.actors.lease import Lease
from natalog.actors.merges import Merger, is_planned
from natalog.actors.metrics import Metrics, State
from natalog.actors.names import MAIN_BRANCH, NOBODY, Names, check_name
from natalog.actors.nats_port import Message, NatsPort
from natalog.actors.nats_server import NatsServer
from natalog.actors.parts import Parts
from natalog.actors.payload import field_name, fields_of
from natalog.actors.query import QueryActor
from natalog.actors.requests import Request
from natalog.actors.runtime import Actor, Runtime, as_natalog
from natalog.actors.sampler import Sampler
from natalog.actors.segments.places import Places
from natalog.actors.segments.wire import Wire
from natalog.actors.services_api import ServicesApi
from natalog.actors.snapshots import Snapshots
from natalog.actors.snapshotter import Snapshotter
from natalog.actors.transactor import Transactor, told
from natalog.actors.turn import Turn
from natalog.actors.views import Views
from natalog.actors.workers import Workers
from natalog.connection.access import shown_url
from natalog.core.errors import (
    BranchNotFound,
    Busy,
    DatabaseNotFound,
    InvalidName,
    NatalogError,
    Unavailable,
)
from natalog.core.index.residency import Residency
from natalog.core.schema_conflict import SchemaConflict
from natalog.core.transact import process, schema_conflicts

log = logging.getLogger("natalog.service")

WRITES = ("transact", "create", "delete", "merge", "snapshot", *VERSIONING)
"""What only the process that holds the lease serves."""
STOP_S = 3.0
"""How long a stop waits for transactions that have come in to be committed."""
READY_TIMEOUT_S = 30.0
"""Servers of a cluster that start at the same time have to choose their leader first."""
COUNT_AFTER_S = 0.2
"""After a change of its branches a database has the time for more before they are counted."""

Clock = Callable[[], int]
Take = Callable[[Request], None]


def system_clock() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Service:
    """A running service; made by `running`.

    ``inlet``: the connection that requests come in by.  ``url``: of the NATS server.
    ``metrics_port``: of HTTP, None without.  ``console_url``: of the web console, None without.
    """

    def __init__(
        self,
        config: ServiceConfig,
        port: NatsPort,
        inlet: NatsPort,
        url: str,
        clock: Clock,
        runtime: Runtime,
        places: Places,
        server: NatsServer | None = None,
    ) -> None:
        self.config = config
        self.url = url
        self.metrics_port: int | None = None
        self.metrics = Metrics()
        self.id = uuid4().hex[:22]
        self.port = port
        self.inlet = inlet
        self.names = Names(config.prefix)
        self.intake = Intake(self.names)
        self.parts = Parts(port)
        self.runtime = runtime
        self.server = server
        self._subscriptions: list[Any] = []
        self.turn: Turn | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._opening: dict[tuple[str, str], int] = {}
        self._counting: set[str] = set()
        self._ready = False
        query_functions, transact_functions = registered()

        def transact(db: Any, tx_data: Any, tx_meta: Any) -> Any:
            return process(db, tx_data, tx_meta, now_ms=clock(), functions=transact_functions)

        def speculate(db: Any, tx_data: Any, tx_meta: Any) -> Any:
            return transact(db.scratch(), tx_data, tx_meta)

        def conflicts(db: Any, tx_data: Any, limit: int) -> list[SchemaConflict]:
            return schema_conflicts(
                db.scratch(), tx_data, now_ms=clock(), functions=transact_functions, limit=limit
            )

        writes = config.role in ("all", "transactor")
        self._process: Process | None = transact if writes else None
        self.lease: Lease | None = None
        if writes:
            self.lease = Lease(port, self.names, self.id, replicas=config.replicas)
        self._clock = clock
        self.catalog = Catalog(port, self.names, clock, replicas=config.replicas)
        residency = Residency(config.segment_cache_bytes)
        self.snapshots = Snapshots(places, residency, self.metrics)
        self.hub = Hub(
            port,
            self.names,
            self.catalog,
            runtime,
            self.metrics,
            self._process,
            self.snapshots,
            Heads(port, self.names, replicas=config.replicas),
            self.lease,
            mailbox_size=config.mailbox_messages,
            branch_idle_s=config.branch_idle_s,
            audit=config.audit,
        )
        self.views = Views(self.hub, speculate)
        self.query = QueryActor(
            self.hub,
            self.views,
            self.metrics,
            speculate,
            query_functions,
            conflicts,
            threads=config.query_threads,
        )
        self.sampler = Sampler(
            port,
            inlet,
            self.names,
            self.hub,
            self.query,
            runtime,
            self.metrics,
            server=server,
            monitoring=config.nats_monitoring,
        )
        self.metrics.source = self._states
        self.workers: Workers | None = None
        self._merger = Merger(self.hub)
        self.inspector = Inspector(self.catalog, self.hub, self.metrics)
        self.snapshotter = Snapshotter(
            self.hub,
            self.snapshots,
            datoms=config.snapshot_datoms,
            interval_s=config.snapshot_interval_s,
        )
        self.admin: AdminActor | None = None
        self.gc: GcActor | None = None
        endpoints = self._endpoints()
        self._served = {"cancel", "more", *(name for name, _, _ in endpoints)}
        self.api = ServicesApi(port, self.id, endpoints)
        self._http: HttpServer | None = None
        self._console: Console | None = None
        if config.metrics_port is not None and config.serves_console:
            self._console = Console(
                port,
                self.names,
                query_functions,
                write=config.console_write,
                hosts=config.console_hosts or (),
                ready=lambda: self.ready,
            )

    @property
    def console_url(self) -> str | None:
        if self._console is None or self.metrics_port is None:
            return None
        host = self.config.metrics_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.metrics_port}/"

    # --- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open what exists, then answer requests."""
        role = self.config.role
        if role in ("all", "gc"):
            collector = Collector(
                self.port,
                self.names,
                self.catalog,
                self.hub.archive,
                replicas=self.config.replicas,
            )
            eraser = Eraser(
                self.port,
                self.names,
                self.catalog,
                self.hub,
                collector,
                self.snapshots,
                self.metrics,
                self._clock,
                data=None if self.server is None else self.config.data,
                replicas=self.config.replicas,
            )
            self.gc = GcActor(
                self.catalog,
                collector,
                eraser,
                Keeper(self.config.retention, eraser, self.metrics, self._clock),
                self.snapshots,
                self.metrics,
                # of several processes one is enough
                lambda: self.lease is None or self.lease.held,
                interval_s=self.config.gc_interval_s,
                grace_s=self.config.segment_grace_s,
            )
            self.runtime.spawn(self.gc)
            self.runtime.spawn_task(self.gc.schedule, "gc schedule")
        if self.lease is not None:
            assert self._process is not None
            branches = Branches(self.port, self.catalog, self.hub, self._process, self._clock)
            self.admin = AdminActor(
                self.catalog, self.hub, branches, self.metrics, self._process, self.lease
            )
            self.runtime.spawn(self.admin)
            self.runtime.spawn_task(self.snapshotter.run, "snapshots")
            await self.lease.start()
            self.runtime.spawn_task(self.lease.run, "lease")
            self.turn = Turn(self.inlet, self.hub, self.lease, self._writing)
        if role != "gc":
            await self.hub.open_all()
            subject = self.names.subject(NOBODY, NOBODY, CHANGED)
            self._subscriptions.append(await self.inlet.subscribe(subject, self._on_changed))
        for name, subject, queue in self._endpoints():
            if name not in WRITES:
                handler = self._handler(self._takers()[name])
                self._subscriptions.append(
                    await self.inlet.subscribe(subject, handler, queue=queue)
                )
        if self.turn is not None:
            await self.turn.begin()
        await self.parts.start()
        # whichever process runs the read or sends its answer: all of them hear it
        for name, take in (("cancel", self._cancel), ("more", self._more)):
            subject = self.names.any_branch(name)
            self._subscriptions.append(await self.inlet.subscribe(subject, self._handler(take)))
        await self.api.start()
        if self.config.metrics_port is not None:
            routes = []
            if self._console is not None:
                await self._console.start()
                routes = self._console.routes()
            app = application(self._respond, routes)
            self._http = HttpServer(self.config.metrics_host, self.config.metrics_port, app)
            await self._http.start()
            self.metrics_port = self._http.port
            self.measure()
        self.port.on_reconnect.append(self._look_for_erasures)
        # a subscription counts once the server has read it; the answer to a request proves that
        await self.inlet.api("INFO", timeout_s=READY_TIMEOUT_S)
        for subscription in self._standing():
            self.inlet.check_subscription(subscription)
        if self.config.query_workers and role in ("all", "query"):
            clock = self._clock
            pinned = None if clock is system_clock else clock()
            restarted = self.metrics.actor_restarts.labels("query-worker").inc
            url = self.config.nats if self.server is None else self.server.url
            measured = self._http is not None
            self.workers = Workers(self.config, str(url), pinned, restarted, measured=measured)
            self.metrics.workers = self.workers.samples
            self.runtime.spawn_task(self.workers.run, "query workers")
            await self.workers.ready()
        if self.turn is not None:
            self.runtime.spawn_task(self.turn.follow, "lease changes")
            self.runtime.spawn_task(self.turn.publish_heads, "heads")
        self._ready = True

    def measure(self) -> None:
        """Look again and again at what metrics need and nobody here knows."""
        self.runtime.spawn_task(self.sampler.run, "sampler")
        self.runtime.spawn_task(self.sampler.probe, "event loop probe")

    async def stop(self) -> None:
        """Take no more requests, answer those that wait, then end the actors."""
        self._ready = False
        if self.workers is not None:
            await self.workers.stop()
        self.snapshots.stop()
        if self._console is not None:
            await self._console.stop()
        if self._http is not None:
            await self._http.stop()
        await self.api.stop()
        await self.inlet.drain(self._standing())
        await self.intake.refusals.stop()
        with anyio.move_on_after(STOP_S):
            async with anyio.create_task_group() as tasks:
                for actor in self.runtime.actors():
                    if isinstance(actor, (Transactor, AdminActor)):
                        tasks.start_soon(actor.idle)
        if self.turn is not None:
            await self.turn.end()
        await self.query.stop()
        await self.runtime.stop()
        await self.parts.stop()
        if self.lease is not None:
            await self.lease.release()
        if self._answering:
            await asyncio.wait(self._answering, timeout=1)

    def _standing(self) -> list[Any]:
        """All subscriptions for requests."""
        return [*self._subscriptions, *(() if self.turn is None else self.turn.subscriptions)]

    def _writing(self) -> dict[str, Callable[[Message], None]]:
        """What only the process serves that holds the lease, by subject."""
        found = {
            subject: self._handler(self._takers()[name], writes=True)
            for name, subject, _ in self._endpoints()
            if name in WRITES
        }
        # who hands a transaction over asks nobody; a branch that sleeps hears of it so
        found[self.names.any_branch("tx")] = self._on_ingest
        return found

    # --- requests ----------------------------------------------------------------------------

    def _takers(self) -> dict[str, Take]:
        takers: dict[str, Take] = dict.fromkeys(self.query.endpoints, self.query.take)
        takers |= dict.fromkeys(("list", "info", "branches"), self._inspect)
        takers["transact"] = self._transact
        if self.admin is not None:
            takers |= dict.fromkeys(("create", "delete", *VERSIONING), self.admin.tell)
            takers["merge"] = self._merge
            takers["snapshot"] = self._snapshot
        if self.gc is not None:
            takers |= dict.fromkeys(("gc", "erase"), self.gc.tell)
        return takers

    def _endpoints(self) -> list[tuple[str, str, str]]:
        """Name, subject and queue group of what this role serves.

        One subscription serves an endpoint for all databases: it also answers for databases that
        do not exist, so that there is always exactly one answer.
        """
        # with workers this process leaves reads to them, so that no read holds up a transaction
        reads = [] if self.config.query_workers else list(self.query.endpoints)
        served = {
            "query": [*reads, "info", "branches", "list"],
            "transactor": list(WRITES),
            "gc": ["gc", "erase"],
        }
        role = self.config.role
        wanted = [name for part in served.values() for name in part]
        if role != "all":
            wanted = served[role]
        group = f"{self.config.prefix}-{{}}".replace(".", "-")
        found = []
        for name in wanted:
            part = next(part for part, names in served.items() if name in names)
            if name in ("create", "delete", "list"):
                subject = self.names.subject(NOBODY, NOBODY, name)
            elif name in (*VERSIONING, "merge", "gc", "erase", "branches", "snapshot"):
                subject = f"{self.config.prefix}.*.{NOBODY}.{name}"
            else:
                subject = self.names.any_branch(name)
            found.append((name, subject, "" if part == "transactor" else group.format(part)))
        return found

    def settled(self, endpoint: str, seconds: float, error: NatalogError | None) -> None:
        """A request has its answer."""
        self.api.count(endpoint, seconds, error)

    def _handler(self, take: Take, *, writes: bool = False) -> Callable[[Message], None]:
        lease = self.lease if writes else None

        def handle(message: Message) -> None:
            place = self.intake.place(message, self._served)
            if place is None:
                return
            request = Request(self.port, message, *place, self)
            if lease is not None and not lease.valid():
                request.mine, request.claim = False, lease.claim()
            try:
                check_tokens(request.database, request.branch)
                request.enter()
                take(request)
            except Busy as error:
                self.intake.refusals.say(request, error)
            except NatalogError as error:
                request.fail(error)
            except Exception as error:
                log.exception("%s failed", message.subject)
                request.fail(as_natalog(error))

        return handle

    def _cancel(self, request: Request) -> None:
        self.query.cancel(request, self.parts.cancel)

    def _more(self, request: Request) -> None:
        self.parts.more(fields_of(request.body(), ("id", "part"), "more").get("id"))
        request.answered = True

    def _inspect(self, request: Request) -> None:
        self._spawn(self.inspector.serve(request))

    def _snapshot(self, request: Request) -> None:
        self._spawn(self.snapshotter.serve(request))

    def _merge(self, request: Request) -> None:
        """A merge is a transaction of the branch that its body names."""
        if len(request.message.data) < IN_THREAD_BYTES:
            self._merge_decoded(request)
        else:
            self._spawn(self._merge_later(request))

    async def _merge_later(self, request: Request) -> None:
        try:
            await request.prepare()
            self._merge_decoded(request)
        except Exception as error:
            await request.refuse(error)

    def _merge_decoded(self, request: Request) -> None:
        body = request.body()
        named = None
        if isinstance(body, dict):
            named = next((v for k, v in body.items() if field_name(k) == "branch"), None)
        branch = check_name(database_name(named or MAIN_BRANCH), "branch")
        if is_planned(body):
            self._spawn(self._merger.serve(request, branch))
        else:
            self._to_transactor(request, (request.database, branch))

    def _transact(self, request: Request) -> None:
        self._to_transactor(request, (request.database, request.branch))

    def _to_transactor(self, request: Request, key: tuple[str, str]) -> None:
        found = self.hub.opened(*key)
        if found is not None and isinstance(found[1], Transactor) and key not in self._opening:
            found[1].tell(request)
            return
        # those that came first are still on their way to the mailbox; order is kept
        self._opening[key] = self._opening.get(key, 0) + 1
        self._spawn(self._transact_later(request, key))

    async def _transact_later(self, request: Request, key: tuple[str, str]) -> None:
        """A transaction for a branch that is not open: open it first."""
        try:
            with anyio.move_on_after(request.remaining_s):
                (await self.hub.writer(*key)).tell(request)
                return
            raise Unavailable(
                f"{key[0]}.{key[1]} is still being read from its log.",
                database=key[0],
                branch=key[1],
            )
        except Exception as error:
            await request.refuse(told(error))
        finally:
            self._opening[key] -= 1
            if not self._opening[key]:
                del self._opening[key]

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def _on_changed(self, message: Message) -> None:
        event, _, place = message.data.decode("utf-8", "replace").partition(" ")
        database, *branch = place.split(" ")
        try:
            for token in (database, *branch):
                check_name(token)
        except InvalidName:
            return
        if event in (OPENED, "created") and self.lease is not None and not self.lease.held:
            self._spawn(self._shadow(database, *branch[:1]))
        if event in (ERASED, HANDED):
            self._spawn(self._let_go(event, database, *branch[:1]))
        if event in (OPENED, ERASED, HANDED):
            return
        if database not in self._counting:
            self._counting.add(database)
            self._spawn(self._count_branches(database))
        if event in ("deleted", "changed"):
            self._spawn(self._check(database, *branch[:1]))

    def _look_for_erasures(self) -> None:
        """What was announced while the connection was down is not heard of any more."""
        for database in {state.database for state in self.hub.states()}:
            self._spawn(self._let_go(ERASED, database))

    async def _let_go(self, event: str, database: str, branch: str = MAIN_BRANCH) -> None:
        """Keep nothing that was erased; read the ingest stream that took over from another."""
        try:
            if event == ERASED:
                await self.catalog.redactions.index(database)
                await self.hub.erased(database)
                return
            found = self.hub.opened(database, branch)
            if found is not None and isinstance(found[1], Transactor):
                await found[1].follow_ingest()
        except NatalogError as error:
            log.warning("%s %s: %s", event, database, error.message)

    async def _shadow(self, database: str, branch: str = MAIN_BRANCH) -> None:
        """Follow a branch that another process takes the transactions of, to be quick later."""
        try:
            await self.hub.open(database, branch)
        except NatalogError as error:
            log.info("%s.%s is not followed: %s", database, branch, error.message)

    async def _count_branches(self, database: str) -> None:
        """Keep the number of branches for `/metrics`; many changes are counted at once."""
        await anyio.sleep(COUNT_AFTER_S)
        self._counting.discard(database)
        try:
            self.metrics.branches[database] = len(await self.catalog.branches(database))
        except DatabaseNotFound:
            self.metrics.forget_database(database)
        except NatalogError as error:
            log.warning("the branches of %s were not counted: %s", database, error.message)

    async def _check(self, database: str, branch: str = "") -> None:
        try:
            await self.hub.check(database, branch)
        except NatalogError as error:
            log.warning("%s could not be looked at: %s", database, error.message)

    def _on_ingest(self, message: Message) -> None:
        place = self.intake.place(message, ("tx",))
        if place is None:
            return
        key = place[:2]
        if self.hub.opened(*key) is None:
            self._spawn(self._wake(*key, message.reply))

    async def _wake(self, database: str, branch: str, reply: str) -> None:
        """Open a branch that was handed a transaction.

        Where there is none, no stream has taken it: the sender hears so in JetStream's words.
        """
        try:
            await self.hub.open(database, branch)
        except (BranchNotFound, DatabaseNotFound, InvalidName) as error:
            if reply and not await self.port.stream_names(self.names.ingest(database, branch)):
                said = {"error": {"code": 404, "description": error.message}}
                await self.port.publish(reply, json.dumps(said).encode())
        except NatalogError as error:
            log.info("%s.%s is not opened: %s", database, branch, error.message)

    # --- health ------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self._ready and self.port.is_connected and self.inlet.is_connected

    def _respond(self, path: str) -> tuple[int, str, bytes]:
        match path:
            case "/metrics":
                return 200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.text()
            case "/healthz/live":
                return 200, "text/plain", b"ok\n"
            case "/healthz/ready":
                return (
                    (200, "text/plain", b"ok\n")
                    if self.ready
                    else (
                        503,
                        "text/plain",
                        b"not connected to NATS\n",
                    )
                )
        return 404, "text/plain", b"there are /metrics, /healthz/live and /healthz/ready\n"

    def _states(self) -> Iterator[State]:
        yield "natalog_service_ready", (self.config.role,), self.ready
        if self.lease is not None:
            yield "natalog_lease_held", (), self.lease.held
            yield "natalog_takeovers_total", (), self.lease.taken
        yield from self.sampler.source()


@asynccontextmanager
async def running(config: ServiceConfig, clock: Clock | None = None) -> AsyncIterator[Service]:
    """Run a service for the length of the block.

    ``clock`` gives milliseconds since 1970, the system's by default.  Raises `PortInUse`,
    `DataDirectoryInUse`, `ServerFailed`, `Unavailable` or `InvalidConfig` when it cannot start.
    """
    server: NatsServer | None = None
    port: NatsPort | None = None
    inlet: NatsPort | None = None
    places: Places | None = None
    if config.nats is None:
        host, number = config.address()
        server = NatsServer(
            config.data,
            host=host,
            port=number,
            max_payload=config.max_payload_bytes,
            sync_interval=config.sync_interval,
            include=config.server_config,
        )
        await server.start()
        if config.sync_interval != "always":
            log.warning(
                "sync_interval is %s: a power cut loses acknowledged transactions",
                config.sync_interval,
            )
    else:
        log.warning(
            "the NATS server at %s is not ours: see that its JetStream has sync_interval always, "
            "or a power cut loses acknowledged transactions",
            shown_url(config.nats),
        )
    url = server.url if server is not None else str(config.nats)
    try:
        async with anyio.create_task_group() as tasks:
            if server is not None:
                tasks.start_soon(server.watch, name="nats-server")
            replicated = config.replicas > 1
            port = await NatsPort.connect(
                url, name=f"natalog-{config.role}", access=config.access, replicated=replicated
            )
            port.alertness = Alertness(config.busy_poll_us)
            # what the log acknowledges must not wait behind a flood of requests
            inlet = await NatsPort.connect(
                url, name=f"natalog-{config.role}-requests", access=config.access
            )
            runtime = Runtime(tasks)
            names = Names(config.prefix)
            wire = Wire(url, access=config.access, replicated=replicated)
            places = Places(config.segment_store, wire, names, replicas=config.replicas)
            service = Service(
                config, port, inlet, shown_url(url), clock or system_clock, runtime, places, server
            )
            runtime.on_restart = _restarted(service)
            try:
                await service.start()
                for connection in (port, inlet):
                    tasks.start_soon(_watch_connection, connection, name="nats connection")
                yield service
            finally:
                with anyio.CancelScope(shield=True):
                    await service.stop()
                tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise _single(group) from None
    finally:
        with anyio.CancelScope(shield=True):
            if places is not None:
                await to_thread.run_sync(places.close)
            for made in (inlet, port):
                if made is not None:
                    await made.close()
            if server is not None:
                await server.stop()


async def _watch_connection(port: NatsPort) -> None:
    """A connection that nats-py has closed for good ends the service, visibly."""
    await port.closed.wait()
    raise Unavailable("The connection to NATS was closed for good.")


def _restarted(service: Service) -> Callable[[Actor], None]:
    def note(actor: Actor) -> None:
        service.metrics.actor_restarts.labels(actor.name.partition(":")[0]).inc()

    return note


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The only exception of a group, for who does not know of the task group inside."""
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    return inner

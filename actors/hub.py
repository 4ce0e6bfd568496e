"""The branches that this process serves: their states and who keeps them up to date.

The process that holds the lease feeds a branch's state from its transactor; any other process
follows the log.  Branches are opened when they are first asked for.  When the lease changes hands,
states stay and only their actors change.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from natalog.actors.archive import Archive
from natalog.actors.catalog import OPENED, Catalog, Process
from natalog.actors.heads import Heads, check_head
from natalog.actors.lease import Lease, LeaseLost
from natalog.actors.lines import Line
from natalog.actors.log import BranchLog, LogRedacted, no_log
from natalog.actors.metrics import Metrics
from natalog.actors.names import MAIN_BRANCH, SPENT, Names, check_name
from natalog.actors.nats_port import NatsPort
from natalog.actors.runtime import RETRY_AFTER_MS, STOPPING, Actor, Runtime, as_natalog
from natalog.actors.snapshots import Snapshots
from natalog.actors.state import BranchState, LineEnded
from natalog.actors.transactor import Transactor, catch_up, fold
from natalog.core.database import Database
from natalog.core.errors import (
    Busy,
    DeadlineExceeded,
    LogCorrupt,
    NatalogError,
    Unavailable,
)

log = logging.getLogger("natalog.hub")

CATCH_UP_TIMEOUT_S = 5.0
READS_PARKED_MAX = 1024
"""Reads that wait for a transaction that is not there; the others must have room beside them."""
REFRESH_TIMEOUT_S = 1.0
"""A transactor that asks for its own branch gets no answer; it must not wait for long."""
REFRESH_PAUSE_S = 0.005
FOLLOW_PAUSE_S = 0.005
"""Between two batches of blocks, of a log that is followed and written to all the time."""
REST_INTERVAL_MAX_S = 30.0
"""Between two looks for branches that nobody uses."""
MOVE_PAUSE_S = 0.02
"""Between two looks for the log that a branch was moved to."""
CORRUPT_REMEMBERED_S = 10.0
"""A corrupt log is not read again for every request."""


Open = tuple[BranchState, Actor]


class Follower(Actor):
    """Keeps the state of one branch up to date from its log; takes no messages."""

    def __init__(
        self,
        state: BranchState,
        branch_log: BranchLog,
        archive: Archive,
        heads: Heads,
        metrics: Metrics,
    ) -> None:
        self.name = f"follower:{state.database}.{state.branch}"
        super().__init__()
        self.state = state
        metrics.labels.branch(state.database, state.branch)
        self._log = branch_log
        self._archive = archive
        self._heads = heads

    def tell(self, message: Any) -> None:
        raise LeaseLost

    async def on_start(self) -> None:
        try:
            await self._follow()
        except LineEnded as ended:
            # an end like any other: nothing to be alarmed at, and nothing to go on with
            self.failure = ended
            self._scope.cancel()
            await anyio.sleep(0)

    async def _follow(self) -> None:
        head = await self._heads.read(self.state.database, self.state.lane)
        await catch_up(self.state, self._log, self._archive)
        await check_head(head, self.state, self._log)
        table = await self._archive.prepare(self.state, self._log)
        self._ready.set()
        following = self._log.blocks(
            self.state.position, follow=True, table=table, pause=self._pause
        )
        async with aclosing(following) as batches:
            async for batch in batches:
                await fold(self.state, batch)

    async def _pause(self) -> bool:
        """Let some blocks come together, unless somebody waits, or has waited, for the next one."""
        with anyio.move_on_after(FOLLOW_PAUSE_S):
            await self.state.awaited()
            return True
        return False


@dataclass(slots=True)
class Opening:
    """A branch that is being opened, or must not be for the moment."""

    done: anyio.Event = field(default_factory=anyio.Event)
    error: NatalogError | None = None


class Hub:
    """Opens, finds and closes branches."""

    def __init__(
        self,
        port: NatsPort,
        names: Names,
        catalog: Catalog,
        runtime: Runtime,
        metrics: Metrics,
        process: Process | None,
        snapshots: Snapshots,
        heads: Heads,
        lease: Lease | None,
        *,
        mailbox_size: int,
        branch_idle_s: float,
        audit: bool = False,
    ) -> None:
        """``process`` and ``lease`` None: transactions are never taken here."""
        self._port = port
        self._names = names
        self._idle_s = branch_idle_s
        self._catalog = catalog
        self._runtime = runtime
        self._metrics = metrics
        self._process = process
        self._heads = heads
        self._lease = lease
        self._mailbox_size = mailbox_size
        self._parked = 0
        self._audit = audit
        self._open: dict[tuple[str, str], Open] = {}
        self._opening: dict[tuple[str, str], Opening] = {}
        self._resting: dict[tuple[str, str], BranchState] = {}
        self._used: dict[tuple[str, str], tuple[float, int]] = {}
        self.snapshots = snapshots
        snapshots.states = self.states
        snapshots.values = self._values
        snapshots.opened = self._open_lane
        snapshots.reopen = self.reopen
        self.archive = Archive(port, names, catalog.lines, self.states, self._refresh, snapshots)
        snapshots.settle = self.archive.settle
        self._losing: set[str] = set()
        self._corrupt: dict[tuple[str, str], tuple[LogCorrupt, float]] = {}

    def opened(self, database: str, branch: str) -> Open | None:
        """A branch that is open and well, without waiting."""
        found = self._open.get((database, branch))
        if found is None or found[1].ended or found[0].ended is not None:
            return None
        found[0].used = True
        return found

    def state(self, database: str, branch: str) -> BranchState | None:
        """The state of an open branch."""
        found = self.opened(database, branch)
        return None if found is None else found[0]

    @property
    def writes(self) -> bool:
        """Whether branches are opened with a transactor."""
        return self._lease is not None and self._lease.held

    def corrupt(self) -> list[tuple[str, str]]:
        """Branches that are not served because their log is damaged."""
        open_ = list(self._open.items())
        ended = (key for key, (_, actor) in open_ if isinstance(actor.failure, LogCorrupt))
        return list({*self._corrupt, *ended})

    def states(self) -> list[BranchState]:
        open_ = list(self._open.values())
        return [state for state, actor in open_ if not actor.ended and state.ended is None]

    async def writer(self, database: str, branch: str) -> Transactor:
        """The transactor of a branch; `LeaseLost` when another process has it."""
        while self.writes:
            actor = (await self.open(database, branch))[1]
            if isinstance(actor, Transactor):
                return actor
        raise LeaseLost

    async def open(self, database: str, branch: str) -> Open:
        """A branch that is up to date with its log, with the actor that it is to have now.

        Raises `InvalidName`, `DatabaseNotFound`, `BranchNotFound`, `LogCorrupt`, `Unavailable`.
        """
        key = (database, branch)
        while True:
            found = self.opened(database, branch)
            if found is not None and isinstance(found[1], Transactor) == self.writes:
                return found
            opening = self._opening.get(key)
            if opening is None:
                former = self._open.pop(key, None)
                opening = self._opening[key] = Opening()
                # in a task of its own: who asked first may not wait for as long as it takes
                self._runtime.tasks.start_soon(self._run_start, key, former, opening)
            await opening.done.wait()
            moved = isinstance(opening.error, LineEnded) and opening.error.successor is not None
            if opening.error is not None and not moved and not _changed_hands(opening.error):
                raise opening.error
            if moved:
                await anyio.sleep(MOVE_PAUSE_S)

    async def _run_start(self, key: tuple[str, str], former: Open | None, opening: Opening) -> None:
        opening.error = Unavailable(STOPPING)
        try:
            if former is not None and former[0].ended is None:
                state, actor = former
                if not actor.ended or _changed_hands(actor.failure):
                    await actor.stop()
                    state.announce()  # a follower may have been stopped before it could
                    self._resting[key] = state
            await self._start(*key)
            opening.error = None
        except Exception as error:
            opening.error = as_natalog(error)
            if opening.error is not error:
                log.exception("%s.%s cannot be opened", *key)
        finally:
            del self._opening[key]
            opening.done.set()

    async def _start(self, database: str, branch: str) -> None:
        check_name(database)
        check_name(branch, "branch")
        lines = self._catalog.lines
        line = await lines.live(database, branch)
        if line is None:
            # its name may be on the way from one log to another
            await lines.settle(database, branch)
            line = await lines.live(database, branch)
        if line is None:
            if branch != MAIN_BRANCH and not await self._catalog.has_branch(database, MAIN_BRANCH):
                raise no_log(database, MAIN_BRANCH)
            raise no_log(database, branch)
        corrupt = self._corrupt.get((database, branch))
        if corrupt is not None and anyio.current_time() < corrupt[1]:
            raise corrupt[0]
        state = await self._rested(line) or BranchState(database, branch, line.lane)
        state.lost = partial(self.lost, database)
        if branch == MAIN_BRANCH:  # the others' logs are short: what is needed is read again
            state.wanted = {
                other.base.commit
                for other in await lines.all(database)
                if other.base is not None and other.base.lane == line.lane
            }
        branch_log = lines.log(line)
        actor: Actor
        if self._process is None or self._lease is None or not self._lease.held:
            actor = Follower(state, branch_log, self.archive, self._heads, self._metrics)
        else:
            actor = Transactor(
                self._port,
                self._names,
                state,
                branch_log,
                self._catalog,
                self.archive,
                self._process,
                self._metrics,
                self._heads,
                self._lease,
                mailbox_size=self._mailbox_size,
                audit=self._audit,
            )
        self._runtime.spawn(actor)
        await actor.ready()
        if isinstance(actor, Transactor) and not self.writes:
            actor.failure = LeaseLost()
            await actor.stop()
        if _changed_hands(actor.failure):
            self._resting[database, branch] = state
            raise LeaseLost
        if actor.failure is not None:
            state.fail(actor.failure)
            self._metrics.forget_branch(database, branch)
            if isinstance(actor.failure, LineEnded):
                await lines.settle(database, branch)
                raise actor.failure
            if isinstance(actor.failure, LogCorrupt):
                until = anyio.current_time() + CORRUPT_REMEMBERED_S
                self._corrupt[database, branch] = (actor.failure, until)
            raise actor.failure
        self._open[database, branch] = (state, actor)
        self._corrupt.pop((database, branch), None)
        if isinstance(actor, Transactor) and branch != MAIN_BRANCH:
            await self._catalog.announce(OPENED, database, branch)

    def _values(self, database: str) -> Iterator[Database]:
        """The values of a database that may be asked for again."""
        states = [*self.states(), *self._resting.values()]
        for state in states:
            if state.database == database:
                yield from state.values()
        yield from self.archive.values(database)

    async def _open_lane(self, database: str, lane: int) -> BranchState | None:
        """The state of a living branch by its lane, up to date with its log."""
        line = await self._catalog.lines.of_lane(database, lane)
        if line is None or line.phase != "live":
            return None
        state, actor = await self.open(database, line.branch)
        if isinstance(actor, Transactor):
            await actor.ask("catch up", CATCH_UP_TIMEOUT_S)
        with anyio.fail_after(CATCH_UP_TIMEOUT_S):
            while state.position.seq < line.last_seq and state.failure is None:
                await anyio.sleep(REFRESH_PAUSE_S)
        return state if state.lane == lane and state.failure is None else None

    # --- values that lack segments -----------------------------------------------------------

    def lost(self, database: str) -> None:
        """Have everything of a database read again: a segment that a value needs is nowhere."""
        if database not in self._losing:
            self._losing.add(database)
            self._runtime.tasks.start_soon(self._lose, database)

    async def _lose(self, database: str) -> None:
        try:
            await self.reopen(database)
        finally:
            self._losing.discard(database)

    async def reopen(self, database: str) -> None:
        """Let go of all values of a database; they are read again when they are asked for."""
        log.error("%s lacks segments and is read again", database)
        for key, (state, actor) in list(self._open.items()):
            if key[0] == database and self._open.get(key) == (state, actor):
                del self._open[key]
                state.fail(Unavailable(f"{database}.{key[1]} is being read again.", branch=key[1]))
                await actor.stop()
        self._forget(database)

    def _forget(self, database: str) -> None:
        for key in [key for key in self._resting if key[0] == database]:
            del self._resting[key]
        self.archive.forget(database)

    # --- published heads -----------------------------------------------------------------------

    async def publish_heads(self, *, limit: int | None = None) -> None:
        """Write down how far the logs have gone that this process writes."""
        writers = [state for state, actor in self._open.values() if isinstance(actor, Transactor)]
        await self._heads.publish(writers, limit=limit)

    # --- branches that nobody uses -----------------------------------------------------------

    async def rest(self) -> None:
        """Stop the actors of branches that nobody has used for a while, again and again.

        The main branch stays, and so does one that somebody waits for.  The states of the others
        are kept: waking one costs what was appended meanwhile.
        """
        while True:
            await anyio.sleep(min(REST_INTERVAL_MAX_S, self._idle_s / 4))
            now = anyio.current_time()
            for key, (state, actor) in list(self._open.items()):
                used, seq = self._used.get(key, (now, -1))
                busy = actor.busy or actor.depth or state.waiting
                if state.used or busy or state.position.seq != seq:
                    state.used = False
                    self._used[key] = (now, state.position.seq)
                elif key[1] != MAIN_BRANCH and now - used >= self._idle_s:
                    await self._put_to_rest(key)

    async def _put_to_rest(self, key: tuple[str, str]) -> None:
        if key in self._opening:
            return
        async with self.frozen(*key):
            found = self._open.pop(key, None)
            self._used.pop(key, None)
            if found is None or found[1].ended or found[0].ended is not None:
                return
            await found[1].stop()
            main = self._open.get((key[0], MAIN_BRANCH))
            found[0].rest(found[0].db if main is None else main[0].db)
            self._resting[key] = found[0]
            self._metrics.forget_branch(*key)
            log.info("%s.%s rests", *key)

    async def _rested(self, line: Line) -> BranchState | None:
        """The state of a branch that rested, if this is still its log."""
        state = self._resting.pop((line.database, line.branch), None)
        if state is None or state.lane != line.lane or state.ended is not None:
            return None
        first = await self._catalog.lines.log(line).first_hash()
        return state if first == state.first_hash else None

    # --- values ------------------------------------------------------------------------------

    async def value(
        self, database: str, branch: str, basis: int | None, timeout_s: float
    ) -> Database:
        """The value of a branch, once it contains transaction ``basis``."""
        deadline = anyio.current_time() + timeout_s
        while True:
            left = deadline - anyio.current_time()
            try:
                return await self._value(database, branch, basis, left)
            except LineEnded as ended:
                if ended.successor is None or left <= 0:
                    raise ended.answer() from None
                await anyio.sleep(MOVE_PAUSE_S)

    async def _value(
        self, database: str, branch: str, basis: int | None, timeout_s: float
    ) -> Database:
        found = self._open.get((database, branch))
        if found is None or found[1].ended or found[0].ended is not None:
            with anyio.move_on_after(max(timeout_s, 0.05)) as waiting:
                found = await self.open(database, branch)
            if waiting.cancelled_caught or found is None:
                raise Unavailable(
                    f"{database}.{branch} is still being read from its log.",
                    database=database,
                    branch=branch,
                )
        state, actor = found
        state.used = True
        behind = basis is not None and state.db.max_tx < basis and state.awaits(basis)
        if not behind:
            return await state.value(basis, timeout_s)
        if self._parked >= READS_PARKED_MAX:
            raise Busy("Too many reads wait for transactions.", retry_after_ms=RETRY_AFTER_MS)
        self._parked += 1
        try:
            if isinstance(actor, Transactor):
                # somebody else may have appended: only the log knows
                limit = min(timeout_s, CATCH_UP_TIMEOUT_S)
                with anyio.move_on_after(limit) as waiting:
                    await actor.look.run()
                if waiting.cancelled_caught:
                    raise DeadlineExceeded("The log did not answer in time.", basis=basis)
            return await state.value(basis, timeout_s)
        finally:
            self._parked -= 1

    async def line(self, database: str, branch: str) -> Line:
        """The log of a living branch; `BranchNotFound`, `DatabaseNotFound`."""
        found = await self._catalog.lines.live(database, branch)
        if found is None:
            raise no_log(database, branch)
        return found

    async def _refresh(self, state: BranchState) -> None:
        """Bring a transactor up to date with a log that somebody else has appended to."""
        found = self._open.get((state.database, state.branch))
        if found is not None and found[0] is state and isinstance(found[1], Transactor):
            await found[1].ask("catch up", REFRESH_TIMEOUT_S)

    @asynccontextmanager
    async def frozen(self, database: str, branch: str) -> AsyncIterator[None]:
        """Meanwhile nobody here opens the branch: its name is on the way."""
        key = (database, branch)
        while (busy := self._opening.get(key)) is not None:
            await busy.done.wait()
        opening = self._opening[key] = Opening()
        try:
            yield
        finally:
            del self._opening[key]
            opening.done.set()

    async def settle(self, database: str) -> None:
        """See that branches that are known here to have ended have lost their names."""
        ended = [
            key
            for key, (state, _) in self._open.items()
            if key[0] == database and state.ended is not None and key not in self._opening
        ]
        if ended:
            await self._catalog.lines.settle(database)
            for key in ended:
                self._open.pop(key, None)
                self._metrics.forget_branch(*key)

    async def erased(self, database: str) -> None:
        """See that no open branch keeps what was erased."""
        for key, (state, actor) in list(self._open.items()):
            if key[0] != database or actor.ended or state.ended is not None:
                continue
            try:
                await self.archive.settle(state)
            except LogRedacted:
                if isinstance(actor, Transactor):
                    await actor.ask("catch up", CATCH_UP_TIMEOUT_S)
                else:
                    await self.drop(*key)
        for key, state in self._resting.items():
            if key[0] == database:
                state.forks.clear()

    async def drop(self, database: str, branch: str) -> None:
        """Stop serving a branch whose log has ended."""
        self._resting.pop((database, branch), None)
        found = self._open.pop((database, branch), None)
        if found is not None:
            await found[1].stop()
            self._metrics.forget_branch(database, branch)

    async def close(self, database: str) -> None:
        """Stop serving a database that is gone."""
        for key, (state, actor) in list(self._open.items()):
            if key[0] == database and self._open.pop(key, None) is not None:
                state.fail(no_log(*key))
                await actor.stop()
                self._metrics.forget_branch(*key)
        self._forget(database)
        self.snapshots.forget(database)

    async def check(self, database: str, branch: str = "") -> None:
        """Stop serving branches, or one, whose log is not the one that was followed."""
        for key, (state, _) in list(self._open.items()):
            if key[0] != database or branch not in ("", key[1]):
                continue
            line = await self._catalog.lines.live(*key)
            same = line is not None and line.lane == state.lane
            if line is not None and same:
                same = await self._catalog.lines.log(line).first_hash() == state.first_hash
            if same:
                continue
            if key[1] == MAIN_BRANCH and state.lane == 0 and state.ended is None:
                await self.close(database)
                return
            state.fail(LineEnded(*key, None if line is None else line.lane))
            await self.drop(*key)

    async def open_all(self) -> None:
        """Open the main branch of every database, and those that ingested something meanwhile.

        What cannot be opened is logged.
        """
        self._runtime.spawn_task(self.rest, "resting branches")
        await self.take_over()

    async def take_over(self) -> None:
        """What `open_all` opens, with the actors that it is to have now."""
        wanted: list[tuple[str, str]] = []
        for entry in await self._catalog.databases():
            self._metrics.branches[entry.name] = len(entry.branches)
            if self.writes:
                await self._catalog.lines.settle(entry.name)
            wanted.append((entry.name, MAIN_BRANCH))
        if self.writes:
            for pattern in (self._names.any_branch("tx"), f"{self._names.any_branch(SPENT)}.*"):
                for stream in await self._port.streams(pattern):
                    if stream["state"]["messages"]:
                        subject = str(stream["config"]["subjects"][0])
                        database, branch = self._names.owner(subject)
                        wanted.append((database, branch))
        for key in wanted:
            try:
                await self.open(*key)
            except NatalogError as error:
                log.error("%s.%s cannot be served: %s", *key, error.message)

    async def hand_over(self) -> None:
        """Another process takes the transactions: go on as a follower of what is open."""
        writers = [
            (key, actor) for key, (_, actor) in self._open.items() if isinstance(actor, Transactor)
        ]
        async with anyio.create_task_group() as tasks:
            for _, actor in writers:
                actor.failure = LeaseLost()
                tasks.start_soon(actor.stop)
        for key, _ in writers:
            try:
                await self.open(*key)
            except NatalogError as error:
                log.warning("%s.%s is not followed: %s", *key, error.message)


def _changed_hands(error: NatalogError | None) -> bool:
    return isinstance(error, LeaseLost)

"""The branches that this process serves: their states and who keeps them up to date.

A process with a transactor feeds a branch's state from it; any other process follows the log.
Branches are opened when they are first asked for.
"""

from __future__ import annotations

import logging
from contextlib import aclosing

import anyio

from natalog.actors.catalog import Catalog, Process
from natalog.actors.log import BranchLog, no_log
from natalog.actors.metrics import Metrics
from natalog.actors.names import MAIN_BRANCH, Names, check_name
from natalog.actors.nats_port import JetStreamError, NatsPort
from natalog.actors.runtime import Actor, Runtime
from natalog.actors.state import BranchState
from natalog.actors.transactor import Transactor, catch_up, fold
from natalog.core.database import Database
from natalog.core.errors import LogCorrupt, NatalogError, ServiceError, Unavailable

log = logging.getLogger("natalog.hub")

CATCH_UP_TIMEOUT_S = 5.0
CORRUPT_REMEMBERED_S = 10.0
"""A corrupt log is not read again for every request."""


class Follower(Actor):
    """Keeps the state of one branch up to date from its log; takes no messages."""

    def __init__(self, port: NatsPort, names: Names, state: BranchState, metrics: Metrics) -> None:
        self.name = f"follower:{state.database}.{state.branch}"
        super().__init__()
        self.state = state
        self._log = BranchLog(port, names, state.database, state.branch)
        self._metrics = metrics

    async def on_start(self) -> None:
        await catch_up(self.state, self._log)
        self._ready.set()
        labels = (self.state.database, self.state.branch)
        async with aclosing(self._log.blocks(self.state.position, follow=True)) as batches:
            async for batch in batches:
                await fold(self.state, batch)
                self._metrics.log_sequence.labels(*labels).set(self.state.position.seq)
                self._metrics.index_datoms.labels(*labels).set(len(self.state.db))


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
        *,
        mailbox_size: int,
    ) -> None:
        self._port = port
        self._names = names
        self._catalog = catalog
        self._runtime = runtime
        self._metrics = metrics
        self._process = process
        self._mailbox_size = mailbox_size
        self._open: dict[tuple[str, str], tuple[BranchState, Actor]] = {}
        self._opening: dict[tuple[str, str], anyio.Event] = {}
        self._corrupt: dict[tuple[str, str], tuple[LogCorrupt, float]] = {}

    def opened(self, database: str, branch: str) -> tuple[BranchState, Actor] | None:
        """A branch that is open and well, without waiting."""
        found = self._open.get((database, branch))
        return None if found is None or found[1].ended else found

    def state(self, database: str, branch: str) -> BranchState | None:
        """The state of an open branch."""
        found = self.opened(database, branch)
        return None if found is None else found[0]

    def states(self) -> list[BranchState]:
        return [state for state, actor in self._open.values() if not actor.ended]

    async def open(self, database: str, branch: str) -> tuple[BranchState, Actor]:
        """A branch that is up to date with its log.

        Raises `InvalidName`, `DatabaseNotFound`, `BranchNotFound`, `LogCorrupt`, `Unavailable`.
        """
        key = (database, branch)
        while True:
            found = self.opened(database, branch)
            if found is not None:
                return found
            busy = self._opening.get(key)
            if busy is None:
                break
            await busy.wait()
        done = self._opening[key] = anyio.Event()
        try:
            return await self._start(database, branch)
        finally:
            del self._opening[key]
            done.set()

    async def _start(self, database: str, branch: str) -> tuple[BranchState, Actor]:
        check_name(database)
        check_name(branch, "branch")
        if not await self._catalog.has_branch(database, branch):
            if branch != MAIN_BRANCH and not await self._catalog.has_branch(database, MAIN_BRANCH):
                raise no_log(database, MAIN_BRANCH)
            raise no_log(database, branch)
        corrupt = self._corrupt.get((database, branch))
        if corrupt is not None and anyio.current_time() < corrupt[1]:
            raise corrupt[0]
        state = BranchState(database, branch)
        actor: Actor
        if self._process is None:
            actor = Follower(self._port, self._names, state, self._metrics)
        else:
            actor = Transactor(
                self._port,
                self._names,
                state,
                self._catalog,
                self._process,
                self._metrics,
                mailbox_size=self._mailbox_size,
            )
        self._runtime.spawn(actor)
        await actor.ready()
        if actor.failure is not None:
            state.fail(actor.failure)
            if isinstance(actor.failure, LogCorrupt):
                until = anyio.current_time() + CORRUPT_REMEMBERED_S
                self._corrupt[database, branch] = (actor.failure, until)
            raise actor.failure
        self._open[database, branch] = (state, actor)
        return state, actor

    async def value(
        self, database: str, branch: str, basis: int | None, timeout_s: float
    ) -> Database:
        """The value of a branch, once it contains transaction ``basis``."""
        found = self._open.get((database, branch))
        if found is None or found[1].ended:
            with anyio.move_on_after(max(timeout_s, 0.05)) as waiting:
                found = await self.open(database, branch)
            if waiting.cancelled_caught or found is None:
                raise Unavailable(
                    f"{database}.{branch} is still being read from its log.",
                    database=database,
                    branch=branch,
                )
        state, actor = found
        if basis is not None and state.db.max_tx < basis and isinstance(actor, Transactor):
            # somebody else may have appended: only the log knows
            await actor.ask("catch up", min(timeout_s, CATCH_UP_TIMEOUT_S))
        return await state.value(basis, timeout_s)

    async def close(self, database: str) -> None:
        """Stop serving a database that is gone."""
        for key, (state, actor) in list(self._open.items()):
            if key[0] == database:
                del self._open[key]
                state.fail(no_log(*key))
                await actor.stop()
                self._metrics.forget_branch(*key)

    async def check(self, database: str) -> None:
        """Stop serving branches of a database whose log is not the one that was followed."""
        for key, (state, _) in list(self._open.items()):
            if key[0] != database:
                continue
            try:
                message = await self._port.read(self._names.log_stream(*key), seq=1)
            except (ServiceError, JetStreamError):
                message = None
            first = None if message is None else (message.headers or {}).get("Nats-Msg-Id")
            if first is None or first.partition(".")[0] != state.first_hash:
                await self.close(database)
                return

    async def open_all(self) -> None:
        """Open the main branch of every database; one that cannot be opened is logged."""
        for entry in await self._catalog.databases():
            try:
                await self.open(entry.name, MAIN_BRANCH)
            except NatalogError as error:
                log.error("database %s cannot be served: %s", entry.name, error.message)

"""Looking at all logs of a database: what can be wrong with them, and whether it is.

Nothing here asks a service; streams are read as they are.  Every log is read from its beginning
and folded, those of deleted branches too, since others begin in them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from anyio import to_thread

from natalog.actors.archive import Archive
from natalog.actors.collected import read_collected
from natalog.actors.heads import Heads, check_head
from natalog.actors.inlets import Inlets
from natalog.actors.lines import Line, Lines
from natalog.actors.log import BranchLog, LogRedacted, PlacedBlock, no_log
from natalog.actors.names import MAIN_BRANCH, Names, check_name
from natalog.actors.nats_port import NatsPort
from natalog.actors.state import BranchState
from natalog.core.errors import LogCorrupt, NatalogError

log = logging.getLogger("natalog.checks")

ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that was looked at: what it is, whether it is as it must be, and details."""

    name: str
    good: bool
    detail: str


@dataclass(slots=True)
class _Known:
    """What was found in the logs so far."""

    commits: set[UUID] = field(default_factory=set)
    foreign: list[tuple[str, UUID]] = field(default_factory=list)


class LogChecks:
    """Checks the logs of one database."""

    def __init__(self, port: NatsPort, names: Names, database: str) -> None:
        self._port = port
        self._names = names
        self._database = check_name(database)
        self._lines = Lines(port, names)
        self._archive = Archive(port, names, self._lines, tuple)
        self._heads = Heads(port, names)
        self._inlets = Inlets(port, names)

    async def run(self) -> AsyncIterator[Seen]:
        """Everything, as it is found; raises `DatabaseNotFound`."""
        await self._port.notice_copies(self._names.log_stream(self._database))
        lines = await self._lines.all(self._database)
        if not any(line.lane == 0 and line.last_seq for line in lines):
            raise no_log(self._database, MAIN_BRANCH)
        yield self._catalog(lines)
        known = _Known()
        for line in lines:
            if not line.last_seq:
                yield Seen(_named(line), True, "empty: a creation is under way or was cut short")
                continue
            for attempt in range(ATTEMPTS):
                try:
                    yield await self._log(line, known)
                    break
                except LogRedacted:
                    if attempt + 1 == ATTEMPTS:
                        raise
        yield await self._parents(known)

    # --- names -------------------------------------------------------------------------------

    def _catalog(self, lines: Sequence[Line]) -> Seen:
        """Names and lanes: each log begins in one that is there, and each name has one log."""
        wrong = []
        lanes = {line.lane for line in lines}
        live = [line.branch for line in lines if line.phase == "live" and line.last_seq]
        if MAIN_BRANCH not in live:
            wrong.append(f"no log has the name {MAIN_BRANCH}")
        for line in lines:
            if line.base is not None and line.base.lane not in lanes:
                wrong.append(f"{_named(line)} begins in lane {line.base.lane}, which is gone")
        said = f"{len(live)} branches, {len(lines)} logs"
        return Seen("catalog", not wrong, "; ".join(wrong) or said)

    # --- logs --------------------------------------------------------------------------------

    async def _log(self, line: Line, known: _Known) -> Seen:
        state = BranchState(line.database, line.branch, line.lane)
        branch_log = self._lines.log(line)
        recovered: list[str] = []
        try:
            head = await self._heads.read(line.database, line.lane)
            await self._fold(state, branch_log, known, recovered)
            await check_head(head, state, branch_log)
            await to_thread.run_sync(state.db._check)
            if line.phase == "live":
                await self._ingest(line, state)
        except LogRedacted:
            raise
        except NatalogError as error:
            return Seen(_named(line), False, error.message)
        except AssertionError as error:
            return Seen(_named(line), False, str(error) or "an invariant does not hold")
        said = f"{state.position.seq} blocks, {len(state.commits)} commits, {len(state.db)} datoms"
        if head is not None:
            said += f", acknowledged up to block {head.seq}"
        return Seen(_named(line), True, "; ".join([said, *recovered]))

    async def _fold(
        self, state: BranchState, branch_log: BranchLog, known: _Known, recovered: list[str]
    ) -> None:
        index = await self._lines.redactions.index(state.database)
        await self._archive.begin(state, branch_log, index)
        table = await self._lines.redactions.table(index, state.lane)

        def fold(batch: list[PlacedBlock]) -> None:
            for placed in batch:
                for applied in state.fold(placed):
                    record = applied.record
                    if record.is_commit:
                        known.commits.add(applied.commit)
                        others = record.parents if record.kind == "force" else record.parents[1:]
                        known.foreign += [(state.branch, parent) for parent in others]
                    if record.kind == "recovered":
                        first, last = (record.config or {}).get("lost", (0, 0))
                        recovered.append(f"the loss of blocks {first} to {last} was accepted")

        async with aclosing(branch_log.blocks(table=table)) as batches:
            async for batch in batches:
                await to_thread.run_sync(fold, batch)

    async def _ingest(self, line: Line, state: BranchState) -> None:
        """The ingest stream is this branch's and goes on where the log is."""
        live = await self._inlets.live(line.database, line.branch)
        if live is None or state.ended is not None:
            return  # made when the branch is opened
        if live.incarnation == state.incarnation and live.last_seq < state.ingest_seq:
            raise LogCorrupt(
                f"The ingest stream of {line.branch} ends with message {live.last_seq}, but the "
                f"log has answered message {state.ingest_seq}."
            )

    # --- the graph ---------------------------------------------------------------------------

    async def _parents(self, known: _Known) -> Seen:
        """Every parent that a merge or a forced branch names is somewhere, or was collected."""
        collected = await read_collected(self._port, self._names, self._database)
        lacking = [(b, parent) for b, parent in known.foreign if parent not in known.commits]
        good = not lacking or bool(collected.epoch)
        said = f"{len(known.commits)} commits, {len(known.foreign)} parents in other logs"
        if lacking:
            branch, parent = lacking[0]
            said = f"{branch} names the commit {parent}, which is in no log"
            if collected.epoch:
                said = f"{len(known.commits)} commits; {len(lacking)} parents were collected"
        return Seen("commit graph", good, said)


def _named(line: Line) -> str:
    phase = "" if line.phase == "live" else f", {line.phase}"
    return f"log of {line.branch} (lane {line.lane}{phase})"


__all__ = ["LogChecks", "Seen"]

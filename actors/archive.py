"""Commits of databases, wherever they stand: which there are, their parents, their values.

A commit stands in the log of one lane.  What is open in this process answers from memory; other
logs are read when they are needed, and what was read is kept for a while.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import anyio
from anyio import to_thread

from natalog.actors.collected import Collected, read_collected
from natalog.actors.lines import Line, Lines
from natalog.actors.log import BranchLog, LogRedacted, PlacedBlock, Position, no_log
from natalog.actors.names import Names, check_name
from natalog.actors.nats_port import NatsPort
from natalog.actors.redactions import Index, Redactions
from natalog.actors.snapshots import Snapshots
from natalog.actors.state import BranchState
from natalog.actors.tables import Commits
from natalog.core.beginning import Base, base_of
from natalog.core.database import Database
from natalog.core.erasures import Table as ErasedTable
from natalog.core.errors import (
    BadRequest,
    BranchNotFound,
    CommitNotFound,
    Erased,
    InvalidTimePoint,
    LogCorrupt,
    NatalogError,
    SegmentCorrupt,
    SegmentMissing,
    Unavailable,
)
from natalog.core.limits import LANE_BITS, TX_BASE
from natalog.core.record import ENTRY_COMMIT, TxRecord
from natalog.core.values import Keyword, Symbol, instant_text, ms_instant
from natalog.core.versioning import CommitNode, Graph, history

log = logging.getLogger("natalog.archive")

HISTORY_ATTEMPTS: Final = 5
CATCH_UP_ATTEMPTS: Final = 8
CATCH_UP_PAUSE_S: Final = 0.005
"""How often the commits of an open log are looked at before the log is read."""
KEPT_VALUES_MAX: Final = 32
"""Old values that were folded from a log and may be asked for again."""
PINNED_VALUES_MAX: Final = 1024
"""Values at which branches began that nobody has opened yet."""
KEPT_TABLES_MAX: Final = 4096
"""Tables of commits of logs that are not open."""


@dataclass(frozen=True, slots=True)
class Place:
    """A commit: its lane and its place in the lane's log."""

    lane: int
    spot: int


@dataclass(slots=True)
class Table:
    """The commits of a log that is not open, as far as it was read."""

    commits: Commits
    began: Base | None = None
    position: Position = field(default_factory=Position)
    created_s: float = 0.0


class CommitGraph(Mapping[UUID, CommitNode]):
    """The commits of several logs as one graph.  Swept commits are not in it.

    Walking from a commit to its parents costs O(1) a step; finding one out of the blue is O(n).
    """

    def __init__(
        self, tables: Mapping[int, Commits], collected: Collected, branches: Mapping[int, str]
    ) -> None:
        self._tables = tables
        self._collected = collected
        self._branches = branches
        self._hints: dict[UUID, Place] = {}

    def place(self, commit: UUID) -> Place | None:
        """Where a commit stands, swept or not."""
        hint = self._hints.get(commit)
        if hint is not None:
            return hint
        for lane, table in self._tables.items():
            spot = table.find(commit)
            if spot is not None:
                return Place(lane, spot)
        return None

    def __getitem__(self, commit: UUID) -> CommitNode:
        place = self.place(commit)
        if place is None or self._collected.has(place.lane, place.spot):
            raise KeyError(commit)
        table = self._tables[place.lane]
        parents = table.parents(place.spot)
        self._hints.pop(commit, None)
        if place.spot:
            self._hints[parents[0]] = Place(place.lane, place.spot - 1)
        return CommitNode(
            commit,
            parents,
            table.tx(place.spot),
            table.instant_ms(place.spot),
            self._branches.get(place.lane, ""),
        )

    def __iter__(self) -> Iterator[UUID]:
        for lane, table in self._tables.items():
            for spot in range(len(table)):
                if not self._collected.has(lane, spot):
                    yield table.id(spot)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Archive:
    """Finds commits and their values in all logs of a database."""

    def __init__(
        self,
        port: NatsPort,
        names: Names,
        lines: Lines,
        states: Callable[[], Iterable[BranchState]],
        refresh: Callable[[BranchState], Awaitable[None]] | None = None,
        snapshots: Snapshots | None = None,
    ) -> None:
        """``states``: of open branches; ``refresh`` brings one up to date with its log."""
        self._snapshots = snapshots
        self._port = port
        self._names = names
        self._lines = lines
        self._states = states
        self._refresh = refresh
        self.redactions: Redactions = lines.redactions
        self.redactions.on_erased.append(self._on_erased)
        self._kept: OrderedDict[tuple[str, int, UUID], tuple[int, Database]] = OrderedDict()
        self._pinned: OrderedDict[tuple[str, int, UUID], tuple[int, Database]] = OrderedDict()
        self._tables: OrderedDict[str, Table] = OrderedDict()
        self._folding = anyio.Lock()

    def forget(self, database: str) -> None:
        """Drop what was read of a database that is gone."""
        for stream in list(self._tables):
            if self._names.lane_of(database, stream) is not None:
                del self._tables[stream]
        for values in (self._kept, self._pinned):
            for key in [key for key in values if key[0] == database]:
                del values[key]

    def values(self, database: str) -> list[Database]:
        """The values of a database that are kept."""
        kept = (*self._kept.items(), *self._pinned.items())
        return [value for key, (_, value) in kept if key[0] == database]

    async def collected(self, database: str) -> Collected:
        """What was swept."""
        return await read_collected(self._port, self._names, database)

    # --- tables of commits -------------------------------------------------------------------

    def _open(self, database: str, lane: int) -> BranchState | None:
        for state in self._states():
            if state.database == database and state.lane == lane and not state.empty:
                return state
        return None

    async def table(self, line: Line) -> Table:
        """The commits of a log, up to its present end."""
        for attempt in range(CATCH_UP_ATTEMPTS):
            state = self._open(line.database, line.lane)
            if state is None:
                break
            if state.position.seq >= line.last_seq:
                return Table(state.commits, state.began, state.position)
            # an append is noted a moment after it; somebody else's only when one looks
            await anyio.sleep(CATCH_UP_PAUSE_S * attempt)
            if attempt > 1 and self._refresh is not None:
                try:
                    await self._refresh(state)
                except NatalogError:
                    break
        table = self._tables.get(line.stream)
        if table is None or table.created_s != line.created_s:
            table = self._tables[line.stream] = Table(Commits(), created_s=line.created_s)
        self._tables.move_to_end(line.stream)
        while len(self._tables) > KEPT_TABLES_MAX:
            self._tables.popitem(last=False)
        async with self._folding:
            while table.position.seq < line.last_seq:
                try:
                    async with aclosing(self._lines.log(line).blocks(table.position)) as batches:
                        async for batch in batches:
                            await to_thread.run_sync(_read_commits, table, batch)
                except LogRedacted:
                    continue  # commits are what they were
                break
        return table

    async def tables(self, lines: Iterable[Line]) -> dict[int, Table]:
        """The commits of several logs, by lane; logs that vanish meanwhile are left out."""
        found: dict[int, Table] = {}
        for line in lines:
            try:
                found[line.lane] = await self.table(line)
            except (BranchNotFound, LogCorrupt):
                if await self._lines.of_lane(line.database, line.lane) is not None:
                    raise
        return found

    async def head(self, line: Line) -> tuple[UUID, Base]:
        """The newest commit of a log, and the same with the lane in which it stands."""
        table = await self.table(line)
        spot = len(table.commits) - 1
        if spot >= 0:
            commit = table.commits.id(spot)
            return commit, Base(line.lane, commit, table.commits.tx(spot))
        if table.began is None:
            raise no_log(line.database, line.branch)
        return table.began.commit, table.began

    # --- the graph ---------------------------------------------------------------------------

    async def graph(self, database: str, lines: Sequence[Line] | None = None) -> CommitGraph:
        """Every commit of a database."""
        lines = await self._lines.all(database) if lines is None else lines
        tables = await self.tables(line for line in lines if line.last_seq)
        return CommitGraph(
            {lane: table.commits for lane, table in tables.items()},
            await self.collected(database),
            {line.lane: line.branch for line in lines},
        )

    async def ancestry(
        self, database: str, lane: int, table: Table, other: Base | None = None
    ) -> CommitGraph:
        """The commits of a log, of that of ``other``, and of those they descend from."""
        found: dict[int, Commits] = {lane: table.commits}
        rest: deque[Line] | None = None
        todo = deque([table])
        if other is not None and other.lane != lane:
            line = await self._lines.of_lane(database, other.lane)
            if line is not None:
                second = await self.table(line)
                # after that: whatever the other side has of this log is then in this log's table
                own = await self._lines.of_lane(database, lane)
                if own is not None:
                    table = await self.table(own)
                found = {lane: table.commits, line.lane: second.commits}
                todo = deque([table, second])
        while todo:
            one = todo.popleft()
            wanted = [] if one.began is None else [one.began.commit]
            for commit in [*wanted, *one.commits.foreign]:
                while all(known.find(commit) is None for known in found.values()):
                    if rest is None:
                        lines = await self._lines.all(database)
                        rest = deque(line for line in lines if line.last_seq)
                    if one.began is not None and commit == one.began.commit:
                        # the log it stands in is known by its lane
                        at = one.began.lane
                        rest = deque(sorted(rest, key=lambda line: line.lane != at))
                    while rest and rest[0].lane in found:
                        rest.popleft()
                    if not rest:
                        break
                    line = rest.popleft()
                    more = (await self.tables([line])).get(line.lane)
                    if more is not None:
                        found[line.lane] = more.commits
                        todo.append(more)
        return CommitGraph(found, await self.collected(database), {})

    async def history(
        self, database: str, branch: str, head: Database, limit: int | None
    ) -> list[CommitNode]:
        """The commits that the value ``head`` of a branch descends from, breadth first."""
        assert head.commit_id is not None
        if limit == 0:
            return []
        if not head.config.commit_graph:
            limit = 1 if limit is None else min(limit, 1)
        for _ in range(HISTORY_ATTEMPTS):
            states = (s for s in self._states() if (s.database, s.branch) == (database, branch))
            state = next(states, None)
            if state is None:
                break
            table = Table(state.commits, state.began, state.position)
            graph: Graph = await self.ancestry(database, state.lane, table)
            found = await to_thread.run_sync(history, graph, head.commit_id, limit)
            if found:
                return found
            head = state.db  # the branch was moved, and what it was collected
            assert head.commit_id is not None
        raise no_log(database, branch)

    async def parents_of(self, state: BranchState) -> tuple[UUID, ...]:
        """The parents of the head of a branch."""
        commits, began = state.commits, state.began
        if len(commits) or began is None:
            return commits.parents(len(commits) - 1)
        line = await self._lines.of_lane(state.database, began.lane)
        table = None if line is None else await self.table(line)
        spot = None if table is None else table.commits.find(began.commit)
        return () if table is None or spot is None else table.commits.parents(spot)

    # --- finding -----------------------------------------------------------------------------

    async def find(self, database: str, commit: UUID) -> Base:
        """A commit that may be read; `CommitNotFound` without one or a swept one; `Erased`."""
        for state in self._states():
            if state.database == database and not state.empty:
                spot = state.commits.find(commit)
                if spot is not None:
                    return await self._allowed(database, state.lane, spot, state.commits)
        for line in await self._lines.all(database):
            if not line.last_seq:
                continue
            table = (await self.tables([line])).get(line.lane)
            spot = None if table is None else table.commits.find(commit)
            if table is not None and spot is not None:
                return await self._allowed(database, line.lane, spot, table.commits)
        raise _no_commit(commit)

    async def _allowed(self, database: str, lane: int, spot: int, commits: Commits) -> Base:
        commit = commits.id(spot)
        if (await self.collected(database)).has(lane, spot):
            raise _no_commit(commit)
        index = await self.redactions.index(database)
        if not (await self.redactions.table(index, lane)).tells(commits.tx(spot)):
            raise Erased(
                f"The value of commit {commit} held facts that were erased since.",
                commit=str(commit),
            )
        main = next((s for s in self._states() if s.database == database and not s.empty), None)
        if main is not None and not main.db.config.commit_graph:
            heads = [
                (await self.head(line))[0]
                for line in await self._lines.all(database)
                if line.phase == "live" and line.last_seq
            ]
            if commit not in heads:
                raise _no_commit(commit)
        return Base(lane, commit, commits.tx(spot))

    async def allowed(self, database: str, base: Base) -> None:
        """Raise `CommitNotFound` or `Erased` when a commit was swept or erased since it was found.

        A branch may not begin where an erasure is about to happen: `Unavailable`.
        """
        await self.find(database, base.commit)
        if (await self.redactions.index(database)).barred(base.lane, base.tx):
            raise Unavailable("An erasure is about to happen there; ask again.", retry=True)

    async def find_tx(self, database: str, tx: int) -> Base:
        """The commit of a transaction on whatever branch; `InvalidTimePoint`."""
        home = (tx - TX_BASE) >> LANE_BITS
        lines = [line for line in await self._lines.all(database) if line.last_seq]
        for line in sorted(lines, key=lambda line: (line.lane != home, line.lane)):
            table = (await self.tables([line])).get(line.lane)
            spot = None if table is None else table.commits.find_tx(tx)
            if table is not None and spot is not None:
                return await self._allowed(database, line.lane, spot, table.commits)
        raise InvalidTimePoint(f"There is no transaction {tx}.", tx=tx)

    async def find_instant(self, line: Line, ms: int) -> Base:
        """The newest commit of a line of descent that is not younger than an instant."""
        table = await self.table(line)
        while True:
            spot = table.commits.find_instant(ms)
            if spot is not None:
                return await self._allowed(line.database, line.lane, spot, table.commits)
            began = table.began
            below = None if began is None else await self._lines.of_lane(line.database, began.lane)
            if began is None or below is None:
                instant = instant_text(ms_instant(ms))
                raise InvalidTimePoint(f"There is no commit at or before {instant}.", point=ms)
            line, table = below, await self.table(below)

    async def resolve(self, database: str, reference: Any) -> Base:
        """The commit that a branch name or a commit id means.

        Raises `BranchNotFound` or `CommitNotFound`; text may be either.
        """
        if isinstance(reference, UUID):
            return await self.find(database, reference)
        name = reference.text if isinstance(reference, (Keyword, Symbol)) else reference
        if not isinstance(name, str):
            raise BadRequest(
                f"A commit is named by a branch or a UUID, not {reference!r}.",
                reference=repr(reference)[:80],
            )
        line = await self._lines.live(database, check_name(name, "branch"))
        if line is None and isinstance(reference, str):
            try:
                commit = UUID(reference)
            except ValueError:
                pass
            else:
                return await self.find(database, commit)
        if line is None:
            raise BranchNotFound(
                f"The database {database} has no branch {name}.", database=database, branch=name
            )
        return (await self.head(line))[1]

    async def resolve_commit(self, database: str, commit: Any) -> Base:
        """The commit of an id; `BadRequest` for what is none."""
        if not isinstance(commit, UUID):
            try:
                commit = UUID(commit)
            except (TypeError, ValueError, AttributeError):
                raise BadRequest(
                    f"A commit is named by a UUID, not {commit!r}.", commit=repr(commit)[:80]
                ) from None
        return await self.find(database, commit)

    async def find_at(self, line: Line, tx: int) -> Base:
        """The commit of a transaction on a line of descent; `CommitNotFound`."""
        database = line.database
        while True:
            table = await self.table(line)
            spot = table.commits.find_tx(tx)
            if spot is not None:
                return await self._allowed(database, line.lane, spot, table.commits)
            began = table.began
            below = None if began is None else await self._lines.of_lane(database, began.lane)
            if began is None or below is None or tx > began.tx:
                raise CommitNotFound(f"There is no transaction {tx} on this branch.", tx=tx)
            line = below

    async def parents(self, database: str, given: Any, own: UUID | None) -> tuple[UUID, ...]:
        """Commit ids of parents, each once and without ``own``; all are known to exist."""
        if isinstance(given, (str, Keyword, Symbol, UUID)):
            given = [given]
        if given is not None and not isinstance(given, (list, tuple, set, frozenset)):
            raise BadRequest("parents is a list of branches and commit ids.", field="parents")
        found: list[UUID] = []
        for reference in given or ():
            commit = (await self.resolve(database, reference)).commit
            if commit != own and commit not in found:
                found.append(commit)
        return tuple(found)

    # --- values ------------------------------------------------------------------------------

    async def at_hand(self, database: str, base: Base, index: Index) -> Database | None:
        """The value of a commit, if it need not be read.

        A value that an erasure has taken something from counts only when it was folded since.
        """
        told = (await self.redactions.table(index, base.lane)).tells(base.tx)
        for state in self._states():
            if state.database != database or state.lane != base.lane:
                continue
            if not told and state.epoch != index.epoch:
                continue
            if state.db.commit_id == base.commit:
                return state.db
            fork = state.forks.get(base.commit)
            if fork is not None:
                return fork
            held = state.held(base.tx)
            if held is not None and held.commit_id == base.commit:
                return held
        key = (database, base.lane, base.commit)
        for kept in (self._pinned, self._kept):
            if key in kept and (told or kept[key][0] == index.epoch):
                kept.move_to_end(key)
                return kept[key][1]
        return None

    async def pin(self, database: str, base: Base) -> None:
        """Keep a value that is at hand: a branch begins there."""
        index = await self.redactions.index(database)
        value = await self.at_hand(database, base, index)
        if value is not None:
            self._pinned[database, base.lane, base.commit] = (index.epoch, value)
            if len(self._pinned) > PINNED_VALUES_MAX:
                self._pinned.popitem(last=False)

    async def value(self, database: str, base: Base, index: Index | None = None) -> Database:
        """The value of a commit: from memory, or folded from the snapshot before it.

        ``index``: what was erased, as the caller knows it.  What was erased is in none of the
        values, also where `find` would answer `Erased`.  Raises `LogRedacted` when something was
        erased meanwhile and an index is given.
        """
        if index is not None:
            return await self._value(database, base, index)
        while True:
            try:
                return await self._value(database, base, await self.redactions.index(database))
            except LogRedacted:
                continue

    async def _value(self, database: str, base: Base, index: Index) -> Database:
        found = await self.at_hand(database, base, index)
        if found is not None:
            return found
        line = await self._lines.of_lane(database, base.lane)
        if line is None:
            raise _no_commit(base.commit)
        try:
            found = await self._folded(line, base, index)
        except (SegmentMissing, SegmentCorrupt) as error:
            log.warning("%s is read again: %s", database, error.message)
            found = await self._folded(line, base, index)  # what is missing is known by now
        if found is None:
            raise _no_commit(base.commit)
        self._kept[database, base.lane, base.commit] = (index.epoch, found)
        if len(self._kept) > KEPT_VALUES_MAX:
            self._kept.popitem(last=False)
        return found

    async def _folded(self, line: Line, base: Base, index: Index) -> Database | None:
        """The value of a commit of a log; None when it is not there."""
        scratch = BranchState(line.database, line.branch, line.lane)
        branch_log = self._lines.log(line)
        await self.begin(scratch, branch_log, index, base.tx)
        if scratch.db.commit_id == base.commit:
            return scratch.db
        table = await self.redactions.table(index, base.lane)
        async with aclosing(branch_log.blocks(scratch.position, table=table)) as batches:
            async for batch in batches:
                found = await to_thread.run_sync(_fold_to, scratch, batch, base.commit)
                if found is not None:
                    return found
        return None

    async def begin(
        self, state: BranchState, branch_log: BranchLog, index: Index, tx: int | None = None
    ) -> None:
        """Prepare a state that has read nothing yet for its log.

        It is brought to the newest snapshot (that holds nothing after transaction ``tx``), or given
        the value that its log begins with.
        """
        if state.position.seq or state.base is not None:
            return
        if self._snapshots is not None:
            found = BranchState(state.database, state.branch, state.lane)
            table = await self.redactions.table(index, state.lane)
            restored = await self._snapshots.restore(found, branch_log, tx=tx)
            # one that holds what was erased since is about to be removed
            if restored and await self._continues(found, index, table):
                found.erased(index.epoch, table.digested)
                state.adopt(found)
                return
        if state.lane == 0:
            return
        block = await branch_log.read_block(1)
        record = TxRecord.decode(block.entries[0].data)
        if record.kind in ("branch", "force"):
            state.base = await self._value(state.database, base_of(record), index)

    # --- erasures ----------------------------------------------------------------------------

    async def prepare(self, state: BranchState, branch_log: BranchLog) -> ErasedTable:
        """Make a state ready to read on in its log; what was erased from that.

        A state that stands where something was erased is not continued: it begins again.
        """
        index = await self.redactions.index(state.database)
        table = await self.redactions.table(index, state.lane)
        if state.epoch != index.epoch:
            if state.position.seq and not await self._continues(state, index, table):
                fresh = BranchState(state.database, state.branch, state.lane)
                fresh.wanted = state.wanted
                fresh.epoch = index.epoch
                await self.begin(fresh, branch_log, index)
                async with aclosing(branch_log.blocks(fresh.position, table=table)) as batches:
                    async for batch in batches:
                        await to_thread.run_sync(_fold_all, fresh, batch)
                state.adopt(fresh)
            state.base = None
            state.erased(index.epoch, table.digested)
        await self.begin(state, branch_log, index)
        return table

    async def _continues(self, state: BranchState, index: Index, table: ErasedTable) -> bool:
        """Whether the value of a state is that of the log without what was erased."""
        if len(state.commits) or state.began is None:
            return table.tells(state.db.max_tx)
        below = await self.redactions.table(index, state.began.lane)
        return below.tells(state.began.tx)

    async def settle(self, state: BranchState) -> None:
        """See that an open state is free of what was erased; `LogRedacted` when it is not."""
        index = await self.redactions.index(state.database)
        if state.epoch == index.epoch:
            return
        table = await self.redactions.table(index, state.lane)
        if not await self._continues(state, index, table):
            raise LogRedacted(
                f"{state.database}.{state.branch} is behind an erasure.",
                database=state.database,
                branch=state.branch,
            )
        state.erased(index.epoch, table.digested)

    def _on_erased(self, index: Index) -> None:
        """Give up values that may hold what was erased."""
        for values in (self._kept, self._pinned):
            for key in [key for key in values if key[0] == index.database]:
                del values[key]


def _read_commits(table: Table, batch: Sequence[PlacedBlock]) -> None:
    for placed in batch:
        for entry in placed.block.entries:
            if entry.type != ENTRY_COMMIT:
                continue
            record = TxRecord.decode(entry.data)
            if record.kind in ("branch", "force"):
                table.began = base_of(record)
            if record.is_commit:
                instant = placed.time_ms if record.instant_ms is None else record.instant_ms
                table.commits.add(entry.commit_id, record.tx, record.parents, instant)
        table.position = placed.position


def _fold_to(scratch: BranchState, batch: Sequence[PlacedBlock], commit: UUID) -> Database | None:
    """Fold blocks; the value of ``commit`` once it is reached."""
    for placed in batch:
        for applied in scratch.fold(placed):
            if applied.commit == commit:
                return applied.after
    return None


def _fold_all(scratch: BranchState, batch: Sequence[PlacedBlock]) -> None:
    for placed in batch:
        scratch.fold(placed)


def _no_commit(commit: UUID) -> CommitNotFound:
    return CommitNotFound(f"There is no commit {commit}.", commit=str(commit))


__all__ = ["Archive", "CommitGraph", "Place", "Table"]

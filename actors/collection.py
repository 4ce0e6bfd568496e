"""Collections: which commits and logs nothing reaches any more, and letting them go.

First the sweep is appended to the database's collections: from then on swept commits are not found.
Only then logs of deleted branches are removed whose commits are all swept and which no other log
begins in.  A branch that is made meanwhile has put its log there before it looks whether its base
was swept, so one of the two always sees the other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from anyio import to_thread

from natalog.actors.archive import Archive, CommitGraph, Table
from natalog.actors.catalog import Catalog
from natalog.actors.collected import Collected, Ranges, ranges_of, write_collected
from natalog.actors.lines import Line
from natalog.actors.names import Names
from natalog.actors.nats_port import NatsPort
from natalog.core.errors import DatabaseNotFound
from natalog.core.versioning import kept_commits

log = logging.getLogger("natalog.collection")

PREPARED_GRACE_S: Final = 3600.0
"""A prepared log that took over no name in this time was given up by whoever made it."""
NAMED_MAX: Final = 10_000
"""Commits that a collection names; it counts all."""


@dataclass(slots=True)
class Swept:
    """What a collection freed, or would free: ``commits`` newest first, at most `NAMED_MAX`."""

    removed: int = 0
    commits: list[UUID] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    bytes: int = 0


class Collector:
    """Collects one database at a time."""

    def __init__(
        self, port: NatsPort, names: Names, catalog: Catalog, archive: Archive, *, replicas: int
    ) -> None:
        self._port = port
        self._names = names
        self._catalog = catalog
        self._archive = archive
        self._replicas = replicas

    async def collect(
        self, database: str, before_ms: int | None = None, *, dry_run: bool = False
    ) -> Swept:
        """Sweep what no kept commit reaches and, with a date, commits older than that.

        Heads stay, and on each line of descent the newest commit before the date.  Raises
        `DatabaseNotFound`; `JetStreamError` when another collection came first.
        """
        if not dry_run:
            await self._catalog.lines.settle(database)
        lines = await self._catalog.lines.all(database)
        if not any(line.lane == 0 and line.last_seq for line in lines):
            raise DatabaseNotFound(f"There is no database {database}.", database=database)
        if before_ms is None and all(line.phase == "live" for line in lines):
            return Swept()  # every commit has its head
        before = await self._archive.collected(database)
        sweep, doomed = await self._look(database, lines, before, before_ms)
        written = before
        settled = dry_run or not (sweep.count or doomed)
        while not settled:
            highest = max([before.lanes, *(line.lane for line in lines)])
            after = Collected(written.epoch, highest, sweep.ranges)
            await write_collected(self._port, self._names, database, after, replicas=self._replicas)
            written = await self._archive.collected(database)
            # A branch that was made meanwhile has put its log there before it looked for its
            # base: whoever comes later sees the sweep, whoever came earlier is seen here.
            lines = await self._catalog.lines.all(database)
            sweep, doomed = await self._look(database, lines, before, before_ms)
            settled = sweep.ranges == written.swept
        if not dry_run:
            for line in doomed:
                await self._catalog.lines.remove(line)
        found = Swept(
            removed=sweep.count,
            commits=sweep.newest,
            streams=[line.stream for line in doomed],
            bytes=sum(line.bytes for line in doomed),
        )
        log.info(
            "collected %s: %d commits, %d logs, %d bytes",
            database,
            found.removed,
            len(found.streams),
            found.bytes,
        )
        return found

    async def _look(
        self, database: str, lines: list[Line], before: Collected, before_ms: int | None
    ) -> tuple[_Sweep, list[Line]]:
        """What a collection would sweep after ``before``, and the logs that would go with it."""
        tables = await self._archive.tables(line for line in lines if line.last_seq)
        # the tables of open branches grow meanwhile: what comes later is not looked at
        counts = {lane: len(table.commits) for lane, table in tables.items()}
        heads = []
        for line in lines:
            lives = line.phase == "live" or (line.phase == "prepared" and _young(line))
            if lives and line.lane in tables:
                heads.append(_head(tables[line.lane], counts[line.lane]))
            elif lives and line.base is not None:
                heads.append(line.base.commit)  # a branch that is being made
        entry = await self._catalog.get(database)
        if entry is None or entry.config.commit_graph:
            graph = CommitGraph(
                {lane: table.commits for lane, table in tables.items()},
                before,
                {line.lane: line.branch for line in lines},
            )
            kept = await to_thread.run_sync(kept_commits, graph, heads, before_ms)
        else:
            kept = set(heads)
        sweep = await to_thread.run_sync(_sweep, tables, counts, kept, before)
        return sweep, _doomed(lines, counts, sweep.ranges)


@dataclass(frozen=True, slots=True)
class _Sweep:
    ranges: dict[int, Ranges]
    count: int
    newest: list[UUID]


def _head(table: Table, count: int) -> UUID:
    if count:
        return table.commits.id(count - 1)
    assert table.began is not None
    return table.began.commit


def _young(line: Line) -> bool:
    return time.time() - line.created_s < PREPARED_GRACE_S


def _sweep(
    tables: dict[int, Table], counts: dict[int, int], kept: set[UUID], before: Collected
) -> _Sweep:
    """The swept places of every lane after a collection, and what is new among them."""
    ranges: dict[int, Ranges] = {}
    fresh: list[tuple[int, UUID]] = []
    for lane, table in tables.items():
        commits = table.commits
        gone = []
        for spot in range(counts[lane]):
            if before.has(lane, spot):
                gone.append(spot)
                continue
            commit = commits.id(spot)
            if commit not in kept:
                gone.append(spot)
                fresh.append((commits.tx(spot), commit))
        if gone:
            ranges[lane] = ranges_of(gone)
    fresh.sort(key=lambda pair: pair[0], reverse=True)
    return _Sweep(ranges, len(fresh), [commit for _, commit in fresh[:NAMED_MAX]])


def _doomed(lines: Iterable[Line], counts: dict[int, int], ranges: dict[int, Ranges]) -> list[Line]:
    """Logs that can go: nothing in them is kept, and no log that stays begins in them."""
    by_lane = {line.lane: line for line in lines}

    def empty(line: Line) -> bool:
        if line.phase == "live" or line.lane == 0:
            return False
        if line.phase == "prepared" and _young(line):
            return False
        swept = sum(b - a + 1 for a, b in ranges.get(line.lane, ()))
        return swept >= counts.get(line.lane, 0)

    needed: set[int] = set()
    for line in by_lane.values():
        at: Line | None = None if empty(line) else line
        while at is not None and at.lane not in needed:
            needed.add(at.lane)
            at = None if at.base is None else by_lane.get(at.base.lane)
    return [line for lane, line in by_lane.items() if lane not in needed]

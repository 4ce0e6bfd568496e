"""What an erasure would do to the logs of a database, and the redacted copies for it.

Reads every log three times (see `natalog.core.redaction`); the folding is done in threads.  Nothing
counts before somebody puts the tables of a `Rewriting` into the index.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from anyio import to_thread

from natalog.actors.lines import Line, Lines
from natalog.actors.log import PlacedBlock
from natalog.actors.redactions import Index, Redactions
from natalog.core.erasures import Copy, Ranges, Table, joined, ranges_of
from natalog.core.redacted import RedactedBlock, encode_redacted
from natalog.core.redaction import Counts, Redactor, Survey, Trace, Wanted

log = logging.getLogger("natalog.rewriting")

COPIES_BYTES: Final = 4 * 1024 * 1024
"""So many bytes of copies are stored at once."""
PREPARED_GRACE_S: Final = 3600.0
"""A prepared log that took over no name in this time was given up by whoever made it."""


@dataclass(slots=True)
class Examined:
    """What was found in one log.  ``kept``: facts that were purged elsewhere and live on here."""

    line: Line
    living: bool
    blocks: int = 0
    counts: Counts = field(default_factory=Counts)
    commits: int = 0
    kept: int = 0


@dataclass(slots=True)
class Rewriting:
    """What an erasure would do.

    ``tables``: of the logs that change, complete.  ``untold``: by lane, the transactions whose
    commits can no longer be told, those of earlier erasures not among them.  ``seconds``: how long
    the three readings took.
    """

    index: Index
    examined: dict[int, Examined] = field(default_factory=dict)
    tables: dict[int, Table] = field(default_factory=dict)
    untold: dict[int, Ranges] = field(default_factory=dict)
    records: int = 0
    seconds: list[float] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.tables)

    @property
    def lanes(self) -> set[int]:
        return set(self.examined)


def lives(line: Line) -> bool:
    """Whether the history of a log is that of a branch, or of one that is being made."""
    if line.phase == "prepared":
        return time.time() - line.created_s < PREPARED_GRACE_S
    return line.phase == "live"


class Rewriter:
    """Reads the logs of one database and makes redacted copies."""

    def __init__(self, lines: Lines, redactions: Redactions) -> None:
        self._lines = lines
        self._redactions = redactions

    async def rewrite(
        self,
        index: Index,
        lines: list[Line],
        wanted: Wanted | None,
        *,
        store: bool,
        yielding: Container[str] = (),
    ) -> Rewriting:
        """What an erasure would do to ``lines``, all logs of the database in ascending order.

        ``store``: copies are stored; otherwise this is only a look, at what would be if the
        branches ``yielding`` had purged what is wanted.  Raises `ErasureRefused`, and `LogRedacted`
        when another erasure happened meanwhile.
        """
        found = Rewriting(index)
        old = {
            line.lane: await self._redactions.table(index, line.lane)
            for line in lines
            if line.last_seq
        }
        for line in lines:
            found.examined[line.lane] = Examined(line, lives(line))
        survey = Survey(wanted)
        for line in lines:
            if not line.last_seq and line.base is not None:
                survey.bases.add(line.base.commit)
        began = time.monotonic()
        for line in lines:
            found.examined[line.lane].blocks = await self._each(line, old, _surveying(survey))
        survey.finish()
        found.records = survey.records
        began = _lap(found, began)
        if not survey.needed:
            return found
        trace = Trace(survey)
        for line in lines:
            if not line.last_seq:
                if lives(line) and line.base is not None:
                    trace.begins_here(line.lane, line.base.commit)
                continue
            trace.lane(line.lane, None if line.base is None else line.base.commit)
            await self._each(line, old, _tracing(trace))
            trace.end(living=lives(line))
        lanes = {line.lane for line in lines if line.phase == "live" and line.branch in yielding}
        await to_thread.run_sync(trace.finish, lanes)
        for lane, kept in trace.kept.items():
            found.examined[lane].kept = kept
        began = _lap(found, began)
        redactor = Redactor(survey, trace)
        if redactor.idle:
            return found
        for line in lines:
            if line.last_seq:
                await self._redact(found, redactor, line, old, store=store)
        _lap(found, began)
        return found

    async def _each(
        self,
        line: Line,
        tables: Mapping[int, Table],
        take: Callable[[list[PlacedBlock]], None],
    ) -> int:
        """Read a log from its beginning to where it ended when it was looked for."""
        if not line.last_seq:
            return 0
        count = 0
        blocks = self._lines.log(line).blocks(until=line.last_seq, table=tables[line.lane])
        async with aclosing(blocks) as batches:
            async for batch in batches:
                await to_thread.run_sync(take, batch)
                count += len(batch)
        return count

    async def _redact(
        self,
        found: Rewriting,
        redactor: Redactor,
        line: Line,
        old: Mapping[int, Table],
        *,
        store: bool,
    ) -> None:
        lane, table = line.lane, old[line.lane]
        copies: dict[int, Copy] = {}
        waiting: list[tuple[int, RedactedBlock]] = []
        changed = False

        async def flush() -> None:
            many, waiting[:] = list(waiting), []
            if not store:
                return
            data = [encode_redacted(redacted) for _, redacted in many]
            pieces = await self._redactions.put(line.database, data)
            for (seq, redacted), names in zip(many, pieces, strict=True):
                copies[seq] = Copy(redacted.block.hash, names)

        redactor.lane(lane, None if line.base is None else line.base.commit)
        size = 0
        blocks = self._lines.log(line).blocks(until=line.last_seq, table=table)
        async with aclosing(blocks) as batches:
            async for batch in batches:
                made = await to_thread.run_sync(_redacted, redactor, batch)
                waiting += made
                changed = changed or bool(made)
                size += sum(placed.size for placed in batch) if made else 0
                if size >= COPIES_BYTES:
                    await flush()
                    size = 0
        await flush()
        await to_thread.run_sync(lambda: redactor.end(living=store and lives(line)))
        one = found.examined[lane]
        one.counts = redactor.counts[lane]
        one.commits = len(redactor.untold[lane])
        if not changed:
            return
        untold = ranges_of(redactor.untold[lane])
        if untold:
            found.untold[lane] = untold
        digested = tuple(dict.fromkeys((*table.digested, *redactor.digested[lane])))
        found.tables[lane] = Table(
            {**table.copies, **copies}, joined(table.untold, untold), digested
        )


def _lap(found: Rewriting, began: float) -> float:
    now = time.monotonic()
    found.seconds.append(now - began)
    return now


def _surveying(survey: Survey) -> Callable[[list[PlacedBlock]], None]:
    def take(batch: list[PlacedBlock]) -> None:
        for placed in batch:
            survey.read(placed.block)

    return take


def _tracing(trace: Trace) -> Callable[[list[PlacedBlock]], None]:
    def take(batch: list[PlacedBlock]) -> None:
        for placed in batch:
            trace.read(placed.block)

    return take


def _redacted(redactor: Redactor, batch: list[PlacedBlock]) -> list[tuple[int, RedactedBlock]]:
    made = []
    for placed in batch:
        redacted = redactor.read(placed.seq, placed.block, placed.time_ms)
        if redacted is not None:
            made.append((placed.seq, redacted))
    return made


__all__ = ["Examined", "Rewriter", "Rewriting", "lives"]

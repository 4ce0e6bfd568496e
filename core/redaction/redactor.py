"""The third reading: two folds side by side, the log as it is and without what is erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import numpy as np

from natalog.core.beginning import after_step, ground
from natalog.core.changes import Purge
from natalog.core.database import Database
from natalog.core.errors import ErasureRefused
from natalog.core.index.pool import ValuePool
from natalog.core.materialise import materialised
from natalog.core.record import (
    ENTRY_REJECTION,
    Block,
    Entry,
    PurgeRef,
    Rejection,
    TxRecord,
    purge_refs,
)
from natalog.core.redacted import RedactedBlock, redacted_block
from natalog.core.redaction.fold import Fact, Fold, Step, alike, fact_of, rows_of
from natalog.core.redaction.survey import Survey
from natalog.core.redaction.trace import Trace
from natalog.core.scrub import Scrub, meta_of, texts
from natalog.core.values import value_key


@dataclass(slots=True)
class Counts:
    """What a redaction changes."""

    blocks: int = 0
    records: int = 0
    facts: int = 0
    tx_meta: int = 0
    names: int = 0
    ids: int = 0

    def __bool__(self) -> bool:
        return bool(self.blocks)


@dataclass(slots=True)
class _Line:
    """One lane, as it is and redacted."""

    lane: int
    old: Fold
    new: Fold
    differing: set[Fact] = field(default_factory=set)
    """Facts that the two values do not have alike at this point."""
    untold: list[int] = field(default_factory=list)
    """Transactions of the commits whose values the redacted log no longer tells."""
    digested: list[tuple[int, int]] = field(default_factory=list)
    """Block and entry where an id was erased."""


class Redactor:
    """Makes the blocks without what is erased, and proves that every living head stays as it is."""

    def __init__(self, survey: Survey, trace: Trace) -> None:
        self._bases = survey.bases
        self._trace = trace
        self._scrub = Scrub(trace.values, survey.wanted.text)
        self.counts: dict[int, Counts] = {}
        self.untold: dict[int, list[int]] = {}
        self.digested: dict[int, list[tuple[int, int]]] = {}
        self._forks: dict[UUID, tuple[Database, Database, set[Fact]]] = {}
        self._pool = ValuePool()
        self._line: _Line | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing would change, without reading once more."""
        return not self._scrub and not self._trace.values

    def lane(self, lane: int, base: UUID | None) -> None:
        """A lane begins to be read, as for `Trace.lane`."""
        fork = None if base is None else self._forks.get(base)
        old, new, differing = (None, None, set[Fact]()) if fork is None else fork
        cells = self._trace.verdict.cells
        self._line = _Line(
            lane, Fold(cells, self._pool, old), Fold(cells, self._pool, new), set(differing)
        )
        self.counts[lane] = Counts()

    def read(self, seq: int, block: Block, time_ms: int | None) -> RedactedBlock | None:
        """Fold one block; what it becomes, None when nothing in it changes."""
        line = self._line
        assert line is not None
        entries = []
        for spot, entry in enumerate(block.entries):
            left = self._entry(line, entry)
            if left is not entry and _ident_changed(entry, left):
                line.digested.append((seq, spot))
            entries.append(left)
        if all(left is entry for left, entry in zip(entries, block.entries, strict=True)):
            return None
        self.counts[line.lane].blocks += 1
        return redacted_block(block, entries, time_ms)

    def end(self, *, living: bool) -> None:
        """The lane was read; `ErasureRefused` if its head would not be what it is."""
        line = self._line
        assert line is not None
        if living and (line.differing or not alike(line.old.settle(), line.new.settle())):
            raise ErasureRefused(
                f"The log of lane {line.lane} without what is to be erased would fold to another "
                f"value; nothing was erased.",
                lane=line.lane,
            )
        self.untold[line.lane] = line.untold
        self.digested[line.lane] = line.digested

    # --- entries -------------------------------------------------------------------------------

    def _entry(self, line: _Line, entry: Entry) -> Entry:
        counts = self.counts[line.lane]
        if entry.type == ENTRY_REJECTION:
            refused = Rejection.decode(entry.data)
            ident = self._scrub.ident(refused.id)
            if ident == refused.id:
                return entry
            counts.ids += 1
            return replace(entry, data=replace(refused, id=ident).encode())
        record = TxRecord.decode(entry.data)
        gone = 0
        match record.kind:
            case "genesis":
                line.old.genesis(record)
                line.new.genesis(record)
                made = record
            case "deleted":
                return entry
            case "branch" | "force":
                made, gone = self._beginning(line, record)
            case _:
                made, gone = self._transaction(line, record)
        commit = entry.commit_id
        if record.is_commit and line.differing:
            line.untold.append(record.tx)
        if commit in self._bases and commit not in self._forks:
            self._forks[commit] = (line.old.settle(), line.new.settle(), set(line.differing))
        if made is record:
            return entry
        counts.records += 1
        counts.facts += gone
        return replace(entry, data=made.encode(), original=commit, erased=entry.erased + gone)

    def _transaction(self, line: _Line, record: TxRecord) -> tuple[TxRecord, int]:
        old = line.old.take(record)
        purges = [] if old is None else old.purges
        if any(ref.closed_before_ms is not None for ref in record.purges):
            line.new.settle()
        made, gone = self._redacted(line.new.db, record, purges)
        line.new.take(made)
        if old is not None:
            self._compare(line, old)
        return made, gone

    def _beginning(self, line: _Line, record: TxRecord) -> tuple[TxRecord, int]:
        """The first record of a branch: what was tried on its way is redacted like any other."""
        old, new = line.old.ground(), line.new.ground()
        steps: list[Any] = []
        gone = 0
        changed = False
        for step in (record.config or {}).get("steps") or ():
            word, argument = step
            if word != "with":
                old = after_step(old, step, record.lane)
                new = after_step(new, step, record.lane)
                steps.append(list(step))
                continue
            old, new = ground(old, record.lane), ground(new, record.lane)
            nested = TxRecord.decode(argument)
            applied = line.old.applied(old, nested)
            purges = [] if applied is None else applied.purges
            left, count = self._redacted(new, nested, purges)
            again = line.new.applied(new, left)
            old = old if applied is None else applied.after
            new = new if again is None else again.after
            gone += count
            changed = changed or left is not nested
            steps.append([word, argument if left is nested else left.encode()])
        made = record
        if changed:
            made = replace(made, config={**(record.config or {}), "steps": steps})
        if record.kind == "force":
            old, new = materialised(old), materialised(new)
        line.old.begin(old, record)
        line.new.begin(new, made)
        if line.old.db.max_eid > line.new.db.max_eid:
            made = replace(made, max_eid=line.old.db.max_eid)
            line.new.begin(new, made)
        if record.kind == "force":
            line.differing = {
                fact
                for fact, value in self._trace.verdict.targets.items()
                if not _same_rows(line.old.db, line.new.db, fact, value)
            }
        return made, gone

    def _compare(self, line: _Line, step: Step) -> None:
        targets = self._trace.verdict.targets
        touched = [(p.e, p.attr, value_key(p.value)) for p in step.purges]
        touched += [fact_of(d) for d in step.datoms if (d.e, d.a) in self._trace.verdict.cells]
        for fact in touched:
            if fact not in targets:
                continue
            if _same_rows(line.old.db, line.new.db, fact, targets[fact]):
                line.differing.discard(fact)
            else:
                line.differing.add(fact)

    # --- records -------------------------------------------------------------------------------

    def _redacted(
        self, before: Database, record: TxRecord, purges: Sequence[Purge]
    ) -> tuple[TxRecord, int]:
        """A record without its erased facts, to follow ``before``, and how many datoms are gone.

        ``purges``: what its purges meant as they were written.
        """
        kept, gone = self._trace.verdict.split(before, record.tx, record.datoms, purges)
        refs: Sequence[PurgeRef] = purge_refs(before, kept, purges) if purges else record.purges
        values = [datom.v for datom in gone]
        tempids = self._scrub.tempids(record.tempids, all_names=bool(gone))
        ident = self._scrub.ident(record.id, texts(values))
        meta = record.tx_meta
        told = [datom.v for datom in kept if datom.e == record.tx] if meta else []
        if self._scrub.meta_tells(meta, told) or any(datom.e == record.tx for datom in gone):
            meta = meta_of(record.tx, kept)
            if meta == record.tx_meta:
                meta = record.tx_meta
        same = (
            not gone
            and list(refs) == list(record.purges)
            and tempids is record.tempids
            and ident == record.id
            and meta is record.tx_meta
        )
        if same:
            return record, 0
        assert self._line is not None
        counts = self.counts[self._line.lane]
        counts.tx_meta += meta is not record.tx_meta
        counts.names += len(record.tempids) - len(tempids)
        counts.ids += ident != record.id
        made = replace(
            record,
            datoms=kept,
            purges=refs,
            tempids=tempids,
            tx_meta=meta,
            id=ident,
            purged=max(record.purged, len(record.purges)),
        )
        return made, len(gone)


def _ident_changed(before: Entry, after: Entry) -> bool:
    if before.type == ENTRY_REJECTION:
        return True
    return TxRecord.decode(before.data).id != TxRecord.decode(after.data).id


def _same_rows(old: Database, new: Database, fact: Fact, value: Any) -> bool:
    return np.array_equal(rows_of(old, fact, value)[2:], rows_of(new, fact, value)[2:])

"""The logs of a database's branches as plain data, written and folded as a service does it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from natalog.core.apply import apply_changes
from natalog.core.beginning import (
    Base,
    after_step,
    base_of,
    begun,
    branch_record,
    force_record,
    ground,
    tried,
)
from natalog.core.chain import FIRST_HASH
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.record import (
    ENTRY_COMMIT,
    ENTRY_REJECTION,
    Block,
    Entry,
    Rejection,
    TxRecord,
    decode_block,
    encode_block,
    purge_refs,
)
from natalog.core.redacted import RedactedBlock, decode_redacted, encode_redacted
from natalog.core.redaction import Redactor, Survey, Trace, Wanted
from natalog.core.schema import TX_INSTANT
from natalog.core.transact import process
from natalog.core.values import value_key


@dataclass
class Lane:
    """One log: its blocks, redacted ones included, and the value its transactor has."""

    number: int
    base: Base | None
    db: Database
    living: bool = True
    blocks: list[Block] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    commits: list[UUID] = field(default_factory=list)


class Logs:
    """Every log of one database."""

    def __init__(self, **config: Any) -> None:
        self.config = DatabaseConfig(**config)
        genesis = TxRecord("genesis", Database.empty().tx0, 0, config=self.config.to_mapping())
        main = Lane(0, None, Database.empty(self.config))
        self.lanes = [main]
        self.values: dict[UUID, Database] = {}
        self.untold: dict[int, set[int]] = {}
        self.clock = 0
        self._append(main, [genesis], main.db)

    def _append(self, lane: Lane, records: list[TxRecord], value: Database) -> None:
        entries = [Entry(ENTRY_COMMIT, record.encode()) for record in records]
        entries.append(Entry(ENTRY_REJECTION, Rejection(f"no {self.clock}", "Code", None).encode()))
        previous = lane.blocks[-1].hash if lane.blocks else FIRST_HASH
        data = encode_block(previous, entries)
        lane.blocks.append(decode_block(data, previous))
        lane.data.append(data)
        commit = entries[0].commit_id if records[-1].is_commit else records[-1].parents[0]
        lane.db = replace(value, commit_id=commit)
        if records[-1].is_commit:
            lane.commits.append(commit)
            self.values[commit] = lane.db

    def transact(self, lane: Lane, data: Any, meta: Any = None, ident: str | None = None) -> None:
        """What a transactor does; raises what refuses the transaction."""
        self.clock += 10
        before = lane.db
        report = process(before, data, meta, now_ms=self.clock)
        assert before.commit_id is not None
        record = TxRecord(
            kind="transaction",
            tx=report.tx,
            instant_ms=report.instant_ms,
            lane=before.lane,
            max_eid=report.changes.max_eid,
            parents=(before.commit_id,),
            datoms=report.datoms,
            purges=purge_refs(before, report.datoms, report.changes.purges),
            tempids=report.tempids,
            tx_meta={k: v for k, v in report.tx_meta.items() if k is not TX_INSTANT},
            id=ident,
            purged=report.purged,
        )
        self._append(lane, [record], report.db_after)

    def place(self, commit: UUID) -> Base:
        """Where a commit stands."""
        for lane in self.lanes:
            if commit in lane.commits:
                return Base(lane.number, commit, self.values[commit].max_tx)
        raise AssertionError(commit)

    def branch(self, commit: UUID) -> Lane:
        """A branch at a commit."""
        base = self.place(commit)
        record = branch_record("b", len(self.lanes), base, self.clock)
        lane = Lane(record.lane, base, self.values[commit])
        self.lanes.append(lane)
        self._append(lane, [record], begun(record, self.values[commit]))
        return lane

    def force(self, commit: UUID, words: list[Any]) -> Lane:
        """A branch at a value made from a commit."""
        base, number = self.place(commit), len(self.lanes)
        value, steps = self.values[commit], []
        for word, argument in words:
            step = [word, argument]
            if word == "with":
                self.clock += 10
                before = ground(value, number)
                made = process(before, argument, None, now_ms=self.clock)
                value, step = made.db_after, tried(made.changes, before)
            else:
                value = after_step(value, step, number)
            steps.append(step)
        value = ground(value, number)
        record = force_record("b", value, base, steps, [commit], self.clock)
        lane = Lane(number, base, value)
        self.lanes.append(lane)
        self._append(lane, [record], value)
        return lane

    # --- folding -------------------------------------------------------------------------------

    def fold(self) -> dict[int, list[tuple[UUID, Database]]]:
        """The value of every commit, by lane, from the bytes of the logs; chains are checked."""
        found: dict[int, list[tuple[UUID, Database]]] = {}
        everywhere: dict[UUID, Database] = {}
        for lane in self.lanes:
            db = Database.empty()
            values: list[tuple[UUID, Database]] = []
            previous = FIRST_HASH
            for data in lane.data:
                block = _read(data, previous)
                previous = block.hash
                for entry in block.entries:
                    if entry.type == ENTRY_REJECTION:
                        continue
                    record = TxRecord.decode(entry.data)
                    commit = entry.commit_id if record.is_commit else record.parents[0]
                    if record.kind == "genesis":
                        db = Database.empty(DatabaseConfig.from_mapping(record.config or {}))
                    elif record.kind in ("branch", "force"):
                        db = begun(record, everywhere[base_of(record).commit])
                        assert db.max_tx == record.tx
                    else:
                        assert record.parents[0] == db.commit_id
                        db = apply_changes(db, record.changes(db))
                    db = replace(db, commit_id=commit)
                    if record.is_commit:
                        values.append((commit, db))
                        everywhere.setdefault(commit, db)
            found[lane.number] = values
            if not values:
                found[lane.number] = [(UUID(int=0), db)]
            previous = FIRST_HASH
        return found

    def records(self) -> Iterator[tuple[Lane, Entry, TxRecord]]:
        """Every record as it is in the logs now."""
        for lane in self.lanes:
            for block in lane.blocks:
                for entry in block.entries:
                    if entry.type == ENTRY_COMMIT:
                        yield lane, entry, TxRecord.decode(entry.data)

    # --- erasing -------------------------------------------------------------------------------

    def erase(self, wanted: Wanted | None = None) -> Redactor | None:
        """Redact all logs; None when there was nothing to do."""
        survey = Survey(wanted)
        for lane in self.lanes:
            for block in lane.blocks:
                survey.read(block)
        survey.finish()
        if not survey.needed:
            return None
        trace = Trace(survey)
        for lane in self.lanes:
            trace.lane(lane.number, lane.base and lane.base.commit)
            for block in lane.blocks:
                trace.read(block)
            trace.end(living=lane.living)
        trace.finish()
        redactor = Redactor(survey, trace)
        if redactor.idle:
            return None
        made: list[tuple[Lane, int, RedactedBlock]] = []
        for lane in self.lanes:
            redactor.lane(lane.number, lane.base and lane.base.commit)
            for at, block in enumerate(lane.blocks):
                redacted = redactor.read(at + 1, block, at)
                if redacted is not None:
                    made.append((lane, at, redacted))
            redactor.end(living=lane.living)
        for lane, at, redacted in made:
            lane.data[at] = encode_redacted(redacted)
            lane.blocks[at] = decode_redacted(lane.data[at]).block
        for number, spots in redactor.untold.items():
            self.untold.setdefault(number, set()).update(spots)
        return redactor


def _read(data: bytes, previous: bytes) -> Block:
    """A block, redacted or not."""
    if data[1] == 1:
        return decode_block(data, previous)
    return decode_redacted(data, previous).block


def events(db: Database) -> list[Any]:
    """Everything that ever happened in a value, and what else makes it up."""
    history = db.history() if db.config.keep_history else db
    rows = [(d.e, d.a.text, repr(value_key(d.v)), d.tx, d.added) for d in history.datoms("eavt")]
    return [sorted(rows), db.schema.read_out(), db.max_tx, db.max_eid, db.purge_horizon]

"""A lane of the log folded as far as some cells go.

That is exact: applying a record treats each cell (entity and attribute) by itself.  Facts that the
schema follows and the instants of transactions are folded always.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from natalog.core.apply import apply_changes
from natalog.core.changes import Changes, Purge
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.errors import LogCorrupt
from natalog.core.index.attribute import AttributeIndex
from natalog.core.index.encoding import decode, find
from natalog.core.index.pool import Ints, ValuePool
from natalog.core.index.residency import Kept
from natalog.core.index.tree import OPEN
from natalog.core.record import TxRecord, purge_values
from natalog.core.schema import PROPERTIES, TX_INSTANT
from natalog.core.values import Datom, Keyword, value_key
from natalog.core.versioning import forked

Cell = tuple[int, Keyword]
"""Entity and attribute."""
Fact = tuple[int, Keyword, Any]
"""Entity, attribute and `value_key`."""

_NONE: Final[Ints] = np.empty((4, 0), dtype=np.int64)


class Step(NamedTuple):
    """What one record did to the cells of a fold."""

    before: Database
    after: Database
    datoms: list[Datom]
    purges: list[Purge]


class Fold:
    """A lane folded as far as some cells go.  `db` is what it has come to."""

    def __init__(self, cells: set[Cell], pool: ValuePool, base: Database | None) -> None:
        """``base``: the value that the lane begins with, None for the first lane."""
        self._cells = cells
        self._pool = pool
        self.base = base
        self.db = Database.empty(DatabaseConfig())
        self._stamps: list[tuple[int, int]] = []
        self._last_tx = 0

    def genesis(self, record: TxRecord) -> None:
        """Begin with nothing."""
        empty = Database.empty(DatabaseConfig.from_mapping(record.config or {}), lane=record.lane)
        self.db = replace(empty, pool=self._pool)

    def begin(self, value: Database, record: TxRecord) -> None:
        """Begin with a value; `LogCorrupt` where a record begins with nothing that was read."""
        self.db = forked(value, record.lane)
        if record.max_eid is not None:
            self.db = replace(self.db, max_eid=max(self.db.max_eid, record.max_eid))

    def ground(self) -> Database:
        """The value that the lane begins with."""
        if self.base is None:
            raise LogCorrupt("A log begins at a commit that no log holds.")
        return self.base

    def take(self, record: TxRecord) -> Step | None:
        """Advance by the record of a transaction; None when it touches none of the cells."""
        self._last_tx = record.tx
        if record.instant_ms is not None:
            self._stamps.append((record.tx, record.instant_ms))
        if any(ref.closed_before_ms is not None for ref in record.purges):
            self.settle()
        step = self.applied(self.db, record)
        if step is not None:
            self.db = step.after
        return step

    def applied(self, before: Database, record: TxRecord) -> Step | None:
        """What a record makes of a value."""
        cells = self._cells
        datoms = [d for d in record.datoms if (d.e, d.a) in cells or d.a in PROPERTIES]
        if not datoms and not record.purges and not record.purged:
            return None
        purges = purge_values(before, record.datoms, record.purges)
        changes = Changes(record.tx, None, datoms, purges, purged=record.purged)
        return Step(before, apply_changes(before, changes), datoms, purges)

    def settle(self) -> Database:
        """The value with the instants of all transactions that were taken."""
        stamps, self._stamps = self._stamps, []
        db = self.db
        if self._last_tx > db.max_tx:
            db = self.db = replace(db, max_tx=self._last_tx)
        if not stamps:
            return db
        rows = np.empty((4, len(stamps)), dtype=np.int64)
        rows[0] = rows[2] = [tx for tx, _ in stamps]
        rows[1] = [ms for _, ms in stamps]
        rows[3] = OPEN
        index = db.indexes.get(TX_INSTANT) or AttributeIndex.empty("instant", True)
        assert index.avet is not None
        grown = AttributeIndex(
            index.kind, index.aevt.apply(rows), index.avet.apply(rows[[1, 0, 2, 3]])
        )
        latest, monotonic = db.latest_ms, db.monotonic
        for _, ms in stamps:
            monotonic = monotonic and (latest is None or ms >= latest)
            latest = ms if latest is None else max(latest, ms)
        self.db = replace(
            db,
            indexes={**db.indexes, TX_INSTANT: grown},
            instant_ms=stamps[-1][1],
            latest_ms=latest,
            monotonic=monotonic,
            _cache=Kept(),
        )
        return self.db


def fact_of(datom: Datom) -> Fact:
    return (datom.e, datom.a, value_key(datom.v))


def rows_of(db: Database, fact: Fact, value: Any) -> Ints:
    """The intervals of a fact, ``e v added retracted``."""
    index = db.indexes.get(fact[1])
    entry = None if index is None else find(value, index.kind, db.pool)
    if index is None or entry is None:
        return _NONE
    return index.aevt.with_both(fact[0], entry)


def alike(old: Database, new: Database) -> bool:
    """Whether two folds came to the same value, as far as they go."""
    if (old.max_tx, old.purge_horizon) != (new.max_tx, new.purge_horizon):
        return False
    if old.schema.read_out() != new.schema.read_out():
        return False
    attrs = {**old.indexes, **new.indexes}
    return all(_facts(old, attr) == _facts(new, attr) for attr in attrs)


def _facts(db: Database, attr: Keyword) -> list[Any]:
    """All intervals of an attribute in an order of their own."""
    index = db.indexes.get(attr)
    if index is None:
        return []
    e, v, added, ended = index.aevt.flat()
    keys = [value_key(value) for value in decode(v, index.kind, db.pool)]
    rows = zip(e.tolist(), keys, added.tolist(), ended.tolist(), strict=True)
    return sorted(rows, key=lambda row: (row[0], row[2], row[3], repr(row[1])))

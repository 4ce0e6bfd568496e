"""Applying a transaction to a database value: the only way a value comes from another.

`apply_changes` is deterministic, so that a transactor, its followers and a replay of the log
arrive at equal values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import numpy as np

from natalog.core.changes import Changes, Purge
from natalog.core.database import Database, made
from natalog.core.index.attribute import AttributeIndex
from natalog.core.index.encoding import (
    Kind,
    decode,
    encode,
    encode_list,
    encode_many,
    find,
    kind_of,
)
from natalog.core.index.pool import Ints, ValuePool
from natalog.core.index.tree import OPEN, Fence, Row, RowTree
from natalog.core.index.window import CURRENT
from natalog.core.schema import PROPERTIES, TX_INSTANT, Schema
from natalog.core.values import Datom, Keyword

_BULK: Final = 64
"""Assertions of one attribute from which columns beat single rows."""


def apply_changes(db: Database, changes: Changes, commit_id: UUID | None = None) -> Database:
    """The value after a transaction; ``db`` stays as it is.

    A microsecond or two a fact and table: few facts are noted, many go in as columns.
    """
    groups = _by_attribute(changes.datoms)
    schema = db.schema
    if changes.purges or not PROPERTIES.isdisjoint(groups):
        schema = schema.after(changes.datoms, db, changes.purges)
    indexes = dict(db.indexes)
    if schema is not db.schema:
        _reshape(indexes, db.schema, schema, db.pool)
    entities = db.entities
    for purge in changes.purges:  # first, so that a transaction may assert again what it purged
        entities = _purge(indexes, entities, purge, db)
    if groups:
        adding = _Adding(db, indexes, entities, schema, changes)
        for attr, group in groups.items():
            adding.add(attr, group)
        entities = adding.directory()
    instant = changes.instant_ms
    latest = db.latest_ms
    monotonic = db.monotonic
    if instant is not None:
        monotonic = monotonic and (latest is None or instant >= latest)
        latest = instant if latest is None else max(latest, instant)
    return made(
        config=db.config,
        pool=db.pool,
        schema=schema,
        indexes=indexes,
        entities=entities,
        lane=db.lane,
        max_tx=changes.tx,
        max_eid=db.max_eid if changes.max_eid is None else max(db.max_eid, changes.max_eid),
        instant_ms=db.instant_ms if instant is None else instant,
        latest_ms=latest,
        monotonic=monotonic,
        commit_id=commit_id,
        purge_horizon=changes.tx if changes.purges or changes.purged else db.purge_horizon,
        window=CURRENT,
    )


def _by_attribute(datoms: list[Datom]) -> dict[Keyword, list[Datom]]:
    groups: defaultdict[Keyword, list[Datom]] = defaultdict(list)
    for datom in datoms:
        groups[datom[1]].append(datom)
    return groups


def _shape(schema: Schema, attr: Keyword) -> tuple[Kind, bool, bool]:
    """Encoding, whether by value too, and whether ended facts are dropped."""
    declared = schema.get(attr)
    if declared is None:
        return "code", False, False
    return kind_of(declared.value_type), declared.has_avet, declared.no_history


class _Adding:
    """The facts of one transaction on their way into the indexes, attribute by attribute."""

    __slots__ = (
        *("_blocks", "_entities", "_fresh", "_indexes", "_instant", "_keep_history", "_known"),
        *("_pool", "_schema", "_stale", "_tx"),
    )

    def __init__(
        self,
        db: Database,
        indexes: dict[Keyword, AttributeIndex],
        entities: RowTree,
        schema: Schema,
        changes: Changes,
    ) -> None:
        self._indexes = indexes
        self._entities = entities
        self._schema = schema
        self._pool = db.pool
        self._keep_history = db.config.keep_history
        self._tx = changes.tx
        self._instant = changes.instant_ms
        self._fresh: list[Row] = []
        """Entities with an attribute that they never had."""
        self._blocks: list[Ints] = []
        """The same as columns."""
        self._stale: list[tuple[Keyword, int]] = []
        """Where a fact vanished, perhaps the last one."""
        self._known: dict[int, bool] = {}
        """Whether an entity has, or had, any fact."""

    def add(self, attr: Keyword, group: list[Datom]) -> None:
        """Apply all that the transaction says about an attribute."""
        index = self._indexes.get(attr)
        declared = self._schema.get(attr)
        if index is None:
            kind, indexed, _ = _shape(self._schema, attr)
            index = AttributeIndex.empty(kind, indexed)
        drop = not self._keep_history or (declared is not None and declared.no_history)
        if len(group) == 1:  # as most transactions have
            self._one(attr, index, group[0], drop=drop)
            return
        if len(group) == 2 and self._replaced(attr, index, *group, drop=drop):
            return
        entities, _, values, _, flags = zip(*group, strict=True)
        if not all(flags):
            self._several(attr, index, group, drop=drop)
        elif len(group) < _BULK:
            self._assertions(attr, index, entities, values)
        else:
            self._columns(attr, index, entities, values)

    def directory(self) -> RowTree:
        """The directory of entities after all that was added."""
        entities, fresh = self._entities, self._fresh
        if len(fresh) == 1:
            entities = entities.with_row(fresh[0])
        elif fresh:
            entities = entities.with_rows(fresh)
        if self._blocks:
            entities = entities.apply(np.concatenate(self._blocks, axis=1))
        for attr, e in self._stale:
            entities = _forget(self._indexes, entities, attr, e, self._pool)
        return entities

    def _one(self, attr: Keyword, index: AttributeIndex, datom: Datom, *, drop: bool) -> None:
        kind, aevt, avet = index
        e, _, value, _, added = datom
        tx = self._tx
        entry = self._instant if e == tx and attr is TX_INSTANT else None
        if entry is None:
            entry = encode(value, kind, self._pool)
        if added:
            if not aevt.has_first(e):
                self._fresh.append((e, self._pool.code(attr)))
            aevt = aevt.with_row((e, entry, tx, OPEN))
            avet = None if avet is None else avet.with_row((entry, e, tx, OPEN))
        elif aevt.is_open(e, entry):
            aevt = aevt.with_end(e, entry, tx, drop=drop)
            avet = None if avet is None else avet.with_end(entry, e, tx, drop=drop)
            if drop:
                self._stale.append((attr, e))
        self._indexes[attr] = AttributeIndex(kind, aevt, avet)

    def _replaced(
        self, attr: Keyword, index: AttributeIndex, old: Datom, new: Datom, *, drop: bool
    ) -> bool:
        """Put a value in the place of another, as most updates do; False for anything else."""
        e = old[0]
        if old[4] or not new[4] or new[0] != e:
            return False
        kind, aevt, avet = index
        tx = self._tx
        before, entry = encode_list((old[2], new[2]), kind, self._pool)
        if before == entry or not aevt.is_open(e, before):
            return False
        aevt = aevt.with_other((e, before), (e, entry, tx, OPEN), drop=drop)
        if avet is not None:
            avet = avet.with_other((before, e), (entry, e, tx, OPEN), drop=drop)
        self._indexes[attr] = AttributeIndex(kind, aevt, avet)
        return True

    def _assertions(
        self, attr: Keyword, index: AttributeIndex, entities: Sequence[int], values: Sequence[Any]
    ) -> None:
        kind, aevt, avet = index
        tx = self._tx
        self._note_fresh(attr, aevt, entities)
        entries = encode_list(values, kind, self._pool)
        if avet is not None:
            avet = avet.with_rows(
                [(v, e, tx, OPEN) for e, v in zip(entities, entries, strict=True)]
            )
        aevt = aevt.with_rows([(e, v, tx, OPEN) for e, v in zip(entities, entries, strict=True)])
        self._indexes[attr] = AttributeIndex(kind, aevt, avet)

    def _several(
        self, attr: Keyword, index: AttributeIndex, group: list[Datom], *, drop: bool
    ) -> None:
        kind, aevt, avet = index
        tx = self._tx
        inserts, closes = _fold(group, kind, self._pool, tx, drop=drop)
        closes = [key for key in closes if aevt.is_open(*key)]
        self._note_fresh(attr, aevt, [row[0] for row in inserts])
        if avet is not None:
            flipped = [(v, e, since, end) for e, v, since, end in inserts]
            avet = avet.apply(flipped, [(v, e) for e, v in closes], tx, drop=drop, sure=True)
        aevt = aevt.apply(inserts, closes, tx, drop=drop, sure=True)
        self._indexes[attr] = AttributeIndex(kind, aevt, avet)
        if drop:
            self._stale.extend((attr, e) for e, _ in closes)

    def _columns(
        self, attr: Keyword, index: AttributeIndex, entities: Sequence[int], values: Sequence[Any]
    ) -> None:
        kind, aevt, avet = index
        block = np.empty((4, len(entities)), dtype=np.int64)
        block[0] = entities
        block[1] = encode_many(values, kind, self._pool)
        block[2] = self._tx
        block[3] = OPEN
        if avet is not None:
            avet = avet.apply(block[[1, 0, 2, 3]])
        newcomers = block[0]
        if not (newcomers[1:] > newcomers[:-1]).all():
            newcomers = np.unique(newcomers)
        last = aevt.last_first()
        if last is not None and newcomers[0] <= last:
            known = [aevt.has_first(e) for e in newcomers.tolist()]
            newcomers = newcomers[~np.array(known, dtype=np.bool_)]
        code = self._pool.code(attr)
        self._blocks.append(np.stack((newcomers, np.full(len(newcomers), code))))
        self._indexes[attr] = AttributeIndex(kind, aevt.apply(block), avet)

    def _note_fresh(self, attr: Keyword, aevt: RowTree, entities: Sequence[int]) -> None:
        code = self._pool.code(attr)
        known = self._known
        for e in dict.fromkeys(entities):
            seen = known.get(e)
            if seen is None:
                seen = known[e] = self._entities.has_first(e)
            if not seen or not aevt.has_first(e):
                self._fresh.append((e, code))


def _fold(
    group: list[Datom], kind: Kind, pool: ValuePool, tx: int, *, drop: bool
) -> tuple[list[Row], list[Fence]]:
    """What a transaction leaves of its own assertions and retractions of one attribute.

    Returns rows of facts that begin (and, unless these are dropped, of those that end in the same
    transaction too), and the keys of facts from earlier that end.
    """
    opened: dict[Fence, None] = {}
    closed: dict[Fence, str] = {}  # "old" began earlier, "new" here, "both" once each
    for e, _, value, _, added in group:
        key = (e, encode(value, kind, pool))
        if added:
            opened[key] = None
        elif key in opened:
            del opened[key]
            closed[key] = "new" if closed.get(key, "new") == "new" else "both"
        else:
            closed[key] = "old"
    inserts: list[Row] = [(e, v, tx, OPEN) for e, v in opened]
    if not drop:
        inserts += [(e, v, tx, tx) for (e, v), origin in closed.items() if origin != "old"]
    return inserts, [key for key, origin in closed.items() if origin != "new"]


def _forget(
    indexes: dict[Keyword, AttributeIndex],
    entities: RowTree,
    attr: Keyword,
    e: int,
    pool: ValuePool,
) -> RowTree:
    """Take ``attr`` out of the directory of ``e`` when no fact of it is left."""
    if indexes[attr].aevt.has_first(e):
        return entities
    return entities.without(e, pool.code(attr))


def _purge(
    indexes: dict[Keyword, AttributeIndex], entities: RowTree, purge: Purge, db: Database
) -> RowTree:
    index = indexes.get(purge.attr)
    if index is None:
        return entities
    entry = find(purge.value, index.kind, db.pool)
    if entry is None:
        return entities
    before = None
    if purge.closed_before_ms is not None:
        stamps = indexes[TX_INSTANT].aevt.current()
        before = stamps[0][stamps[1] < purge.closed_before_ms]
    aevt = index.aevt.without(purge.e, entry, before)
    avet = None if index.avet is None else index.avet.without(entry, purge.e, before)
    indexes[purge.attr] = AttributeIndex(index.kind, aevt, avet)
    return _forget(indexes, entities, purge.attr, purge.e, db.pool)


def _reshape(
    indexes: dict[Keyword, AttributeIndex], before: Schema, after: Schema, pool: ValuePool
) -> None:
    """Bring indexes of changed declarations into shape: encoding and AVET."""
    for attr, index in list(indexes.items()):
        if after.get(attr) is before.get(attr):
            continue
        kind, indexed, _ = _shape(after, attr)
        if kind != index.kind:
            index = _encoded(index, kind, pool)
        indexes[attr] = index.with_avet(indexed)


def _encoded(index: AttributeIndex, kind: Kind, pool: ValuePool) -> AttributeIndex:
    rows = index.aevt.flat().copy()
    values: list[Any] = decode(rows[1], index.kind, pool)
    rows[1] = np.array([encode(value, kind, pool) for value in values], dtype=np.int64)
    return AttributeIndex(kind, RowTree.from_rows(rows), None)

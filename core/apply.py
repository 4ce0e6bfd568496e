"""Applying a transaction to a database value: the only way a value comes from another.

`apply_changes` is deterministic, so that a transactor, its followers and a replay of the log
arrive at equal values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import numpy as np

from natalog.core.changes import Changes, Purge
from natalog.core.database import Database
from natalog.core.index.attribute import AttributeIndex
from natalog.core.index.encoding import Kind, decode, encode, encode_many, find, kind_of
from natalog.core.index.pool import Ints, ValuePool
from natalog.core.index.residency import Kept
from natalog.core.index.tree import OPEN, Fence, Row, RowTree
from natalog.core.index.window import CURRENT
from natalog.core.schema import TX_INSTANT, Schema
from natalog.core.values import Datom, Keyword

_BULK: Final = 16  # assertions of one attribute from which columns beat single rows


def apply_changes(db: Database, changes: Changes, commit_id: UUID | None = None) -> Database:
    """The value after a transaction.  O(log n) per touched leaf; ``db`` stays as it is."""
    schema = db.schema.after(changes.datoms, db, changes.purges)
    indexes = dict(db.indexes)
    if schema is not db.schema:
        _reshape(indexes, db.schema, schema, db.pool)
    entities = db.entities
    for purge in changes.purges:  # first, so that a transaction may assert again what it purged
        entities = _purge(indexes, entities, purge, db)
    if changes.datoms:
        entities = _add(indexes, entities, changes, schema, db)
    instant = changes.instant_ms
    latest = db.latest_ms
    monotonic = db.monotonic
    if instant is not None:
        monotonic = monotonic and (latest is None or instant >= latest)
        latest = instant if latest is None else max(latest, instant)
    return replace(
        db,
        schema=schema,
        indexes=indexes,
        entities=entities,
        max_tx=changes.tx,
        max_eid=db.max_eid if changes.max_eid is None else max(db.max_eid, changes.max_eid),
        instant_ms=db.instant_ms if instant is None else instant,
        latest_ms=latest,
        monotonic=monotonic,
        commit_id=commit_id,
        purge_horizon=changes.tx if changes.purges else db.purge_horizon,
        window=CURRENT,
        _cache=Kept(),
    )


def _shape(schema: Schema, attr: Keyword) -> tuple[Kind, bool, bool]:
    """Encoding, whether by value too, and whether ended facts are dropped."""
    declared = schema.get(attr)
    if declared is None:
        return "code", False, False
    return kind_of(declared.value_type), declared.has_avet, declared.no_history


def _add(
    indexes: dict[Keyword, AttributeIndex],
    entities: RowTree,
    changes: Changes,
    schema: Schema,
    db: Database,
) -> RowTree:
    groups: dict[Keyword, list[Datom]] = {}
    for datom in changes.datoms:
        group = groups.get(datom[1])
        if group is None:
            groups[datom[1]] = [datom]
        else:
            group.append(datom)
    keep_history = db.config.keep_history
    pool = db.pool
    tx = changes.tx
    fresh: list[Row] = []
    blocks: list[Ints] = []
    stale: list[tuple[Keyword, int]] = []
    for attr, group in groups.items():
        kind, indexed, forgets = _shape(schema, attr)
        index = indexes.get(attr) or AttributeIndex.empty(kind, indexed)
        code = pool.code(attr)
        if len(group) >= _BULK and all(datom[4] for datom in group):
            indexes[attr], newcomers = _extended(index, group, tx, pool)
            blocks.append(np.stack((newcomers, np.full(len(newcomers), code))))
            continue
        drop = forgets or not keep_history
        opened, closed = _fold(group, index.kind, pool)
        inserts: list[Row] = [(e, v, tx, OPEN) for e, v in opened]
        if not drop:
            inserts.extend((*key, tx, tx) for key, origin in closed.items() if origin != "old")
        closes: list[Fence] = [key for key, origin in closed.items() if origin != "new"]
        seen: set[int] = set()
        for e, *_ in inserts:
            if e not in seen:
                seen.add(e)
                if not _has_entity(index.aevt, e):
                    fresh.append((e, code))
        avet = index.avet
        if avet is not None:
            flipped: list[Row] = [(v, e, a, r) for e, v, a, r in inserts]
            avet = avet.apply(flipped, [(v, e) for e, v in closes], tx, drop=drop)
        aevt = index.aevt.apply(inserts, closes, tx, drop=drop)
        indexes[attr] = AttributeIndex(index.kind, aevt, avet)
        if drop:
            stale.extend((attr, e) for e, _ in closes)
    if fresh:
        entities = entities.apply(fresh)
    if blocks:
        entities = entities.apply(np.concatenate(blocks, axis=1))
    for attr, e in stale:
        entities = _forget(indexes, entities, attr, e, pool)
    return entities


def _extended(
    index: AttributeIndex, group: list[Datom], tx: int, pool: ValuePool
) -> tuple[AttributeIndex, Ints]:
    """An index with many new facts, and the entities that had none in it before."""
    entities, _, values, *_ = zip(*group, strict=True)
    block = np.empty((4, len(group)), dtype=np.int64)
    block[0] = entities
    block[1] = encode_many(values, index.kind, pool)
    block[2] = tx
    block[3] = OPEN
    avet = None if index.avet is None else index.avet.apply(block[[1, 0, 2, 3]])
    newcomers = np.unique(block[0])
    aevt = index.aevt
    last = aevt.last_first()
    if last is not None and newcomers[0] <= last:
        known = [bool(aevt.with_first(e).shape[1]) for e in newcomers.tolist()]
        newcomers = newcomers[~np.array(known, dtype=np.bool_)]
    return AttributeIndex(index.kind, aevt.apply(block), avet), newcomers


def _has_entity(aevt: RowTree, e: int) -> bool:
    last = aevt.last_first()
    return last is not None and e <= last and bool(aevt.with_first(e).shape[1])


def _fold(
    group: list[Datom], kind: Kind, pool: ValuePool
) -> tuple[dict[Fence, None], dict[Fence, str]]:
    """What a transaction leaves of its own assertions and retractions of one attribute.

    Returns the facts that begin and stay, and the facts that end: ``"old"`` began earlier,
    ``"new"`` in this transaction, ``"both"`` once each.
    """
    opened: dict[Fence, None] = {}
    closed: dict[Fence, str] = {}
    for e, _, value, _, added in group:
        key = (e, encode(value, kind, pool))
        if added:
            opened[key] = None
        elif key in opened:
            del opened[key]
            closed[key] = "new" if closed.get(key, "new") == "new" else "both"
        else:
            closed[key] = "old"
    return opened, closed


def _forget(
    indexes: dict[Keyword, AttributeIndex],
    entities: RowTree,
    attr: Keyword,
    e: int,
    pool: ValuePool,
) -> RowTree:
    """Take ``attr`` out of the directory of ``e`` when no fact of it is left."""
    if indexes[attr].aevt.with_first(e).shape[1]:
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

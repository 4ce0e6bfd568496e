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
from natalog.core.database import Database
from natalog.core.index.attribute import AttributeIndex
from natalog.core.index.encoding import Kind, decode, encode, encode_many, find, kind_of
from natalog.core.index.pool import Ints, ValuePool
from natalog.core.index.tree import OPEN, Fence, Row, RowTree
from natalog.core.schema import PROPERTIES, TX_INSTANT, Schema
from natalog.core.values import Datom, Keyword

_BULK: Final = 16  # assertions of one attribute from which columns beat single rows


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
        entities = _add(indexes, entities, groups, changes.tx, schema, db)
    instant = changes.instant_ms
    latest = db.latest_ms
    monotonic = db.monotonic
    if instant is not None:
        monotonic = monotonic and (latest is None or instant >= latest)
        latest = instant if latest is None else max(latest, instant)
    return Database(
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


def _add(
    indexes: dict[Keyword, AttributeIndex],
    entities: RowTree,
    groups: dict[Keyword, list[Datom]],
    tx: int,
    schema: Schema,
    db: Database,
) -> RowTree:
    keep_history = db.config.keep_history
    pool = db.pool
    fresh: list[Row] = []
    blocks: list[Ints] = []
    stale: list[tuple[Keyword, int]] = []
    for attr, group in groups.items():
        index = indexes.get(attr)
        if index is None or len(group) >= _BULK:
            kind, indexed, forgets = _shape(schema, attr)
            index = index or AttributeIndex.empty(kind, indexed)
        else:
            declared = schema.get(attr)
            forgets = declared is not None and declared.no_history
        code = pool.code(attr)
        if len(group) >= _BULK:
            holders, _, values, _, flags = zip(*group, strict=True)
            if all(flags):
                indexes[attr], newcomers = _extended(index, holders, values, tx, pool)
                blocks.append(np.stack((newcomers, np.full(len(newcomers), code))))
                continue
        kind, aevt, avet = index
        drop = forgets or not keep_history
        if len(group) == 1:  # as most transactions have
            e, _, value, _, added = group[0]
            entry = encode(value, kind, pool)
            if added:
                if not aevt.has_first(e):
                    fresh.append((e, code))
                if avet is not None:
                    avet = avet.with_row((entry, e, tx, OPEN))
                indexes[attr] = AttributeIndex(kind, aevt.with_row((e, entry, tx, OPEN)), avet)
            elif aevt.is_open(e, entry):
                if avet is not None:
                    avet = avet.with_end(entry, e, tx, drop=drop)
                aevt = aevt.with_end(e, entry, tx, drop=drop)
                indexes[attr] = AttributeIndex(kind, aevt, avet)
                if drop:
                    stale.append((attr, e))
            continue
        inserts, closes = _fold(group, kind, pool, tx, drop=drop)
        if closes:
            closes = [key for key in closes if aevt.is_open(*key)]
        if len(inserts) == 1:
            e = inserts[0][0]
            if not aevt.has_first(e):
                fresh.append((e, code))
        elif inserts:
            for e in dict.fromkeys([row[0] for row in inserts]):
                if not aevt.has_first(e):
                    fresh.append((e, code))
        if avet is not None:
            avet = avet.apply(
                [(v, e, since, end) for e, v, since, end in inserts],
                [(v, e) for e, v in closes],
                tx,
                drop=drop,
                sure=True,
            )
        aevt = aevt.apply(inserts, closes, tx, drop=drop, sure=True)
        indexes[attr] = AttributeIndex(kind, aevt, avet)
        if drop:
            stale.extend((attr, e) for e, _ in closes)
    if len(fresh) == 1:
        entities = entities.with_row(fresh[0])
    elif fresh:
        entities = entities.apply(fresh)
    if blocks:
        entities = entities.apply(np.concatenate(blocks, axis=1))
    for attr, e in stale:
        entities = _forget(indexes, entities, attr, e, pool)
    return entities


def _extended(
    index: AttributeIndex, entities: Sequence[int], values: Sequence[Any], tx: int, pool: ValuePool
) -> tuple[AttributeIndex, Ints]:
    """An index with many new facts, and the entities that had none in it before."""
    block = np.empty((4, len(entities)), dtype=np.int64)
    block[0] = entities
    block[1] = encode_many(values, index.kind, pool)
    block[2] = tx
    block[3] = OPEN
    avet = None if index.avet is None else index.avet.apply(block[[1, 0, 2, 3]])
    newcomers = block[0]
    if not (newcomers[1:] > newcomers[:-1]).all():
        newcomers = np.unique(newcomers)
    aevt = index.aevt
    last = aevt.last_first()
    if last is not None and newcomers[0] <= last:
        known = [aevt.has_first(e) for e in newcomers.tolist()]
        newcomers = newcomers[~np.array(known, dtype=np.bool_)]
    return AttributeIndex(index.kind, aevt.apply(block), avet), newcomers


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

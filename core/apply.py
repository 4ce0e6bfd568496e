"""Applying a transaction to a database value: the only way a value comes from another.

`apply_changes` is deterministic, so that a transactor, its followers and a replay of the log
arrive at equal values.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import numpy as np

from natalog.core.adding import Tables, added, forget, shape_of
from natalog.core.changes import Changes, Purge
from natalog.core.database import Database, made
from natalog.core.index.attribute import AttributeIndex
from natalog.core.index.encoding import Kind, decode, encode, find
from natalog.core.index.pool import ValuePool
from natalog.core.index.tree import RowTree
from natalog.core.recent import FEW_MAX, RECENT_MAX, Recent
from natalog.core.schema import PROPERTIES, TX_INSTANT, Schema
from natalog.core.values import Keyword

_ATTRIBUTE: Final = itemgetter(1)


def apply_changes(db: Database, changes: Changes, commit_id: UUID | None = None) -> Database:
    """The value after a transaction; ``db`` stays as it is.

    Few datoms are only noted (`natalog.core.recent`), many go into the indexes as columns.
    """
    datoms = changes.datoms
    schema = db.schema
    facts: Tables | Recent
    if changes.purges or not PROPERTIES.isdisjoint(map(_ATTRIBUTE, datoms)):
        schema = schema.after(datoms, db, changes.purges)
        facts = _changed(db, schema, changes)
    elif changes.blocks or len(datoms) > FEW_MAX:
        facts = added(db.indexes, db.entities, datoms, schema, db.pool, db.config, changes.blocks)
    else:
        facts = (db.recent or Recent(db)).followed(datoms)
        if facts.length > RECENT_MAX:
            facts = facts.tables()
    instant = changes.instant_ms
    latest = db.latest_ms
    monotonic = db.monotonic
    if instant is not None:
        monotonic = monotonic and (latest is None or instant >= latest)
        latest = instant if latest is None else max(latest, instant)
    return made(
        db.config,
        db.pool,
        schema,
        db.lane,
        changes.tx,
        db.max_eid if changes.max_eid is None else max(db.max_eid, changes.max_eid),
        db.instant_ms if instant is None else instant,
        latest,
        monotonic,
        commit_id,
        changes.tx if changes.purges or changes.purged else db.purge_horizon,
        facts,
    )


def _changed(db: Database, schema: Schema, changes: Changes) -> Tables:
    """The tables after a transaction that purges, or that declares attributes."""
    indexes = dict(db.indexes)
    if schema is not db.schema:
        _reshape(indexes, db.schema, schema, db.pool)
    entities = db.entities
    for purge in changes.purges:  # first, so that a transaction may assert again what it purged
        entities = _purge(indexes, entities, purge, db)
    return added(indexes, entities, changes.datoms, schema, db.pool, db.config)


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
    return forget(indexes, entities, purge.attr, purge.e, db.pool)


def _reshape(
    indexes: dict[Keyword, AttributeIndex], before: Schema, after: Schema, pool: ValuePool
) -> None:
    """Bring indexes of changed declarations into shape: encoding and AVET."""
    for attr, index in list(indexes.items()):
        if after.get(attr) is before.get(attr):
            continue
        kind, indexed, _ = shape_of(after, attr)
        if kind != index.kind:
            index = _encoded(index, kind, pool)
        indexes[attr] = index.with_avet(indexed)


def _encoded(index: AttributeIndex, kind: Kind, pool: ValuePool) -> AttributeIndex:
    rows = index.aevt.flat().copy()
    values: list[Any] = decode(rows[1], index.kind, pool)
    rows[1] = np.array([encode(value, kind, pool) for value in values], dtype=np.int64)
    return AttributeIndex(kind, RowTree.from_rows(rows), None)

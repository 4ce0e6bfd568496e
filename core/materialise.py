"""A view as a value of its own: what a speculative transaction on the past starts from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from natalog.core.database import Database
from natalog.core.errors import ViewRefused
from natalog.core.index.attribute import AttributeIndex
from natalog.core.index.residency import Kept
from natalog.core.index.tree import OPEN, RowTree
from natalog.core.index.window import CURRENT, events_in_view
from natalog.core.schema import TX_INSTANT
from natalog.core.values import Keyword


def materialised(db: Database) -> Database:
    """The database as if nothing outside the view had happened.  O(datoms).

    The past inside the view stays readable.  Raises `ViewRefused` for history, which shows events
    and is no state.
    """
    if db.is_current:
        return db
    if db.is_history:
        raise ViewRefused("A transaction needs a state; history shows events.", view="history")
    indexes: dict[Keyword, AttributeIndex] = {}
    pairs: list[np.ndarray[tuple[int, int], np.dtype[np.int64]]] = []
    window, instants = db._effective_window(), db.instants()
    for attr, index in db.indexes.items():
        rows = index.aevt.flat()
        starts, ends = events_in_view(rows, window, instants)
        kept = rows[:, starts].copy()
        kept[3] = np.where(ends[starts], kept[3], OPEN)
        aevt = RowTree.from_rows(kept)
        avet = None if index.avet is None else RowTree.from_rows(kept[[1, 0, 2, 3]])
        indexes[attr] = AttributeIndex(index.kind, aevt, avet)
        entities = np.unique(kept[0])
        pairs.append(np.stack((entities, np.full(len(entities), db.pool.code(attr)))))
    together = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), dtype=np.int64)
    stamps = indexes.get(TX_INSTANT)
    table = None if stamps is None else stamps.aevt.current()
    last = db.tx0 if table is None or not table.shape[1] else int(table[0, -1])
    return replace(
        db,
        indexes=indexes,
        entities=RowTree.from_rows(together),
        max_tx=last,
        instant_ms=None if table is None or not table.shape[1] else int(table[1, -1]),
        latest_ms=None if table is None or not table.shape[1] else int(table[1].max()),
        commit_id=None,
        window=CURRENT,
        _cache=Kept(),
    )

"""Values of many entities at once, attribute by attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from natalog.core.database import Database
from natalog.core.index.encoding import decode, decode_one, in_order, order_of
from natalog.core.index.pool import Ints
from natalog.core.index.window import CURRENT
from natalog.core.values import Keyword

_ORDERED_MAX: Final = 64
"""Values of an attribute that are put in order one by one; more are by their ranks."""
_BULK_ENTITIES_MIN: Final = 4
_ROWS_PER_ENTITY_MAX: Final = 256
"""A scan of an attribute pays when it has at most this many rows for each entity asked for."""

_NONE: Final[tuple[Any, ...]] = ()


class Wanted(list[int]):
    """Entities of one level of a pull; as a column, made once for all attributes that are read."""

    __slots__ = ("_column",)
    _column: Ints

    def column(self) -> Ints:
        try:
            return self._column
        except AttributeError:
            made = self._column = np.array(self, dtype=np.int64)
            return made


def values_of(db: Database, e: int, attr: Keyword) -> Sequence[Any]:
    """The visible values of an attribute of one entity, in index order."""
    index = db.indexes.get(attr)
    if index is None:
        return _NONE
    kind, pool = index.kind, db.pool
    if db.window is CURRENT:
        one = index.aevt.one_of(e)
        if one is not None:
            return [pool.values[one[0]] if kind == "code" else decode_one(one[0], kind, pool)]
    found = db.seen(index.aevt, e)
    if found is None:
        return db.values(e, attr)
    if not found:
        return _NONE
    if len(found) == 1:
        return [decode_one(found[0][0], kind, pool)]
    if len(found) > _ORDERED_MAX and kind == "code":
        return db.values(e, attr)
    return in_order([decode_one(entry, kind, pool) for entry, _ in found], kind)


def values_many(db: Database, eids: Wanted, attr: Keyword) -> list[Sequence[Any]]:
    """For each entity its visible values of an attribute, in index order."""
    index = db.indexes.get(attr)
    if index is None:
        return [_NONE] * len(eids)
    if not _bulk(len(eids), len(index.aevt)):
        return [values_of(db, e, attr) for e in eids]
    facts = db.scan(attr)
    wanted = eids.column()
    starts = facts.e.searchsorted(wanted, "left")
    counts = facts.e.searchsorted(wanted, "right") - starts
    if not counts.any():
        return [_NONE] * len(eids)
    rows = _rows(starts, counts)
    column = facts.v[rows]
    if index.kind == "code" and int(counts.max()) > 1:
        order = order_of(column, index.kind, db.pool)
        # by entity, then by value, as one key: a sort by two takes twice as long
        base = np.repeat(np.arange(len(counts)) * (int(order.max()) + 1), counts)
        column = column[np.argsort(base + order)]
    return _split(decode(column, index.kind, db.pool), counts)


def singles_many(
    db: Database, eids: Wanted, attr: Keyword
) -> tuple[list[int] | None, list[Any]] | None:
    """The positions in ``eids`` of entities with a value (None: all of them), and these values.

    None in place of both unless many entities are asked for and none has several values.
    """
    index = db.indexes.get(attr)
    if index is None or not _bulk(len(eids), len(index.aevt)):
        return None
    places = db.places(attr)
    if not places.single:
        return None
    there, spots = places.of(eids.column())
    values = decode(db.scan(attr).v[spots], index.kind, db.pool)
    return (None if there is None else there.tolist()), values


def holders_many(db: Database, eids: Wanted, attr: Keyword) -> list[Sequence[int]]:
    """For each entity those that visibly refer to it by a reference attribute, ascending."""
    index = db.indexes.get(attr)
    if index is None:
        return [_NONE] * len(eids)
    if not _bulk(len(eids), len(index.aevt)):
        return [db.holders(attr, e) for e in eids]
    facts = db.scan(attr)
    order = np.lexsort((facts.e, facts.v))
    targets = facts.v[order]
    wanted = eids.column()
    starts = targets.searchsorted(wanted, "left")
    counts = targets.searchsorted(wanted, "right") - starts
    return _split(facts.e[order][_rows(starts, counts)].tolist(), counts)


def attributes_many(db: Database, eids: Wanted) -> dict[Keyword, list[int]]:
    """The attributes that entities have or once had, in keyword order, with the positions in
    ``eids`` of these entities."""
    found: dict[int, list[int]] = {}
    if _bulk(len(eids), len(db.entities) // 8):
        rows = db.entities.flat()
        wanted = eids.column()
        starts = rows[0].searchsorted(wanted, "left")
        counts = rows[0].searchsorted(wanted, "right") - starts
        codes = rows[1][_rows(starts, counts)]
        spots = np.repeat(np.arange(len(counts)), counts)
        order = np.argsort(codes, kind="stable")
        codes, spots = codes[order], spots[order]
        distinct, first = np.unique(codes, return_index=True)
        parts = np.split(spots, first[1:]) if len(distinct) else []
        for code, part in zip(distinct.tolist(), parts, strict=True):
            found[code] = part.tolist()
    else:
        for spot, e in enumerate(eids):
            for code in db.entities.seconds_of(e):
                found.setdefault(code, []).append(spot)
    named = [(db.pool.values[code], spots) for code, spots in found.items()]
    named.sort(key=lambda pair: pair[0].sort)
    return dict(named)


def _bulk(entities: int, rows: int) -> bool:
    return entities >= _BULK_ENTITIES_MIN and rows <= entities * _ROWS_PER_ENTITY_MAX


def _rows(starts: Any, counts: Any) -> Any:
    """The row numbers of consecutive runs."""
    ends = counts.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    if total == len(counts) and (counts == 1).all():
        return starts
    return np.repeat(starts - (ends - counts), counts) + np.arange(total)


def _split(values: list[Any], counts: Any) -> list[Sequence[Any]]:
    found: list[Sequence[Any]] = []
    spot = 0
    for count in counts.tolist():
        found.append(values[spot : spot + count] if count else _NONE)
        spot += count
    return found

"""Facts whose past is to be forgotten: those that ended before an instant.

An interval of a fact is named by the instant of its beginning: a purge takes all closed intervals
that began before one.  Intervals of a fact follow each other, so those that ended early also began
early, unless somebody set instants of transactions out of order; then fewer are taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from natalog.core.changes import Purge
from natalog.core.index.encoding import decode_one
from natalog.core.index.tree import OPEN
from natalog.core.values import Keyword

if TYPE_CHECKING:
    from natalog.core.database import Database


def ended_facts(
    db: Database, attr: Keyword, before_ms: int, limit: int | None = None
) -> list[Purge]:
    """Purges of the facts of ``attr``, and of composites that hold it, that ended before (ms).

    At most ``limit`` of them.  O(facts of the attribute).
    """
    composites = [c.ident for c in db.schema.composites.get(attr, ())]
    found: list[Purge] = []
    for name in (attr, *composites):
        found += _ended(db, name, before_ms)
        if limit is not None and len(found) >= limit:
            return found[:limit]
    return found


def _ended(db: Database, attr: Keyword, before_ms: int) -> list[Purge]:
    index = db.indexes.get(attr)
    if index is None:
        return []
    rows = index.aevt.flat()
    rows = rows[:, rows[3] != OPEN]
    if not rows.shape[1]:
        return []
    instants = db.instants()
    began, ended = instants.of(rows[2]), instants.of(rows[3])
    facts: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    columns = (rows[0], rows[1], began, ended < before_ms)
    for e, code, start, early in zip(*(column.tolist() for column in columns), strict=True):
        facts.setdefault((e, code), ([], []))[0 if early else 1].append(start)
    found = []
    for (e, code), (early, late) in facts.items():
        last = min(late, default=OPEN)
        starts = [start for start in early if start < last]
        if starts:
            value = decode_one(code, index.kind, db.pool)
            found.append(Purge(e, attr, value, max(starts) + 1))
    return found


__all__ = ["ended_facts"]

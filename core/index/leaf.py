"""Leaves: small blocks of rows, shared by the versions of a table, in memory or in a segment.

A new leaf has its rows in memory and nowhere else.  One that a snapshot wrote also knows the
segment that holds it; its rows may then leave memory and come back when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from natalog.core.index.pool import Ints
from natalog.core.limits import LONG_MAX

if TYPE_CHECKING:
    from natalog.core.index.residency import Residency


class Summary(NamedTuple):
    """What a table needs to know of a leaf without its rows."""

    rows: int
    distinct: int
    """Distinct values of the first column."""
    last: int
    """The last one of them."""


class LeafSource(Protocol):
    """Where the rows of stored leaves are."""

    @property
    def place(self) -> int:
        """The same number for sources that read from the same place, as long as both exist."""
        ...

    def rows(self, name: str) -> Ints:
        """The rows of the segment ``name``.

        Blocks; raises `SegmentMissing` or `SegmentCorrupt`.
        """
        ...


class Stored(NamedTuple):
    """The segment that holds a leaf, and who reads it and keeps its rows."""

    name: str
    source: LeafSource
    residency: Residency


Plain = tuple[memoryview, int, int, int]
"""The cells of a leaf; what to take from a key for the place of its second column; the number of
rows; the place of the second column of the last row, whose key may go on in the next leaf."""


def _plain(rows: Ints, cells: memoryview) -> Plain | None:
    size = rows.shape[1]
    firsts = rows[0]
    base = int(firsts[0])
    if rows.shape[0] != 4 or int(firsts[-1]) - base != size - 1:
        return None
    if not (firsts[1:] > firsts[:-1]).all():
        return None
    if rows[3].min() != LONG_MAX:  # some row has ended
        return None
    return cells, base - size, size, 2 * size - 1


class Leaf:
    """A block of rows (width x n, n > 0), in order.  The rows never change.

    ``array`` is None while the rows are only in their segment; read it like this, which costs
    nothing where it need not::

        rows = leaf.array
        if rows is None:
            rows = leaf.load()
    """

    __slots__ = ("__weakref__", "array", "cells", "hits", "plain", "stored", "summary")

    def __init__(
        self, array: Ints | None, stored: Stored | None = None, summary: Summary | None = None
    ) -> None:
        self.array = array
        self.cells: memoryview | None = None
        """`points`, once somebody asked; None whenever the rows are not in memory."""
        self.plain: Plain | None = None
        """Set with ``cells`` where each key has one row, which has not ended, and none is left out.

        So it is where every entity has one value, and nothing was changed: the row of a key is
        known without a look at any other.
        """
        self.stored = stored
        self.summary = summary
        self.hits = 0
        """How often the rows were asked for and at hand, more or less."""

    def load(self) -> Ints:
        """The rows, from their segment if need be; they stay in memory for a while."""
        rows = self.array
        if rows is None:
            assert self.stored is not None
            return self.stored.residency.load(self)
        self.hits += 1
        return rows

    def points(self) -> memoryview:
        """The rows as plain integers, one column after the other: ``n`` of the first, and so on.

        For single entries: 20 nanoseconds each, where an array takes 60, and a binary search of
        them 200, where an array takes 600 with all that must be read afterwards.
        """
        found = self.cells
        if found is None:
            rows = self.load()
            found = np.ascontiguousarray(rows).reshape(-1).data
            if self.array is rows:
                self.cells = found
                self.plain = _plain(rows, found)
        return found

    def peek(self) -> Ints:
        """The rows for somebody who needs them once, as scans of whole tables do."""
        rows = self.array
        if rows is None:
            assert self.stored is not None
            return self.stored.residency.read(self)
        return rows

    def evict(self) -> None:
        """Let go of the rows; the segment has them."""
        self.array = self.cells = self.plain = None

    def summed(self) -> Summary:
        """The leaf's `Summary`; made once, from the rows."""
        found = self.summary
        if found is None:
            first = self.peek()[0]
            distinct = int(np.count_nonzero(first[1:] != first[:-1])) + 1
            found = self.summary = Summary(len(first), distinct, int(first[-1]))
        return found

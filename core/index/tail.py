"""What changed in a table lately and is not in its leaves yet.

A row that goes into a leaf costs a copy of the leaf; hundreds that go in together cost little
more.  So small changes are noted first.  `Tail` is a list that only grows, shared by the versions
of a table: each sees as many changes as it has made.  A point read looks at the changes of its key;
every other reader has the table settled first (`natalog.core.index.tree`).

Measured: one row noted 0.3 microseconds, inserted into a leaf of 2,048 rows 5; 256 noted rows
settled in 150.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from threading import Lock
from typing import Final

import numpy as np

from natalog.core.index.leaves import OPEN, Ending, Fence
from natalog.core.index.pool import Ints

Row = tuple[int, ...]

_ENDED: Final = -1
GONE: Final = -2


def ending(k1: int, k2: int, at: int | None) -> Row:
    """The change that ends the open row of a key, or lets it vanish (None)."""
    return (k1, k2, GONE, 0) if at is None else (k1, k2, _ENDED, at)


class Tail:
    """Changes in the order in which they were made: full rows, and `ending` of rows."""

    __slots__ = ("_lock", "changes", "spots")

    def __init__(self) -> None:
        self.changes: list[Row] = []
        self.spots: dict[int, list[int]] = {}
        """By first column, the numbers of the changes that have it."""
        self._lock = Lock()

    def extended(self, length: int, more: Sequence[Row]) -> Tail:
        """A tail of the first ``length`` changes and then ``more``.

        This one, unless another version went on from there already.
        """
        with self._lock:
            if len(self.changes) == length:
                self._add(more)
                return self
            known = self.changes[:length]
        branch = Tail()
        branch._add(known)
        branch._add(more)
        return branch

    def _add(self, more: Sequence[Row]) -> None:
        changes, spots = self.changes, self.spots
        number = len(changes)
        for row in more:
            known = spots.get(row[0])
            if known is None:
                spots[row[0]] = [number]
            else:
                known.append(number)
            number += 1
        changes.extend(more)

    def of(self, k1: int, length: int) -> list[Row]:
        """The changes of a key among the first ``length``."""
        spots = self.spots.get(k1)
        if spots is None:
            return []
        changes = self.changes
        return [changes[spot] for spot in spots if spot < length]

    def open_after(self, found: list[Fence], k1: int, length: int) -> list[Fence]:
        """``k2, added`` of the open rows of a key, from those ``found`` in the leaves."""
        changed = self.of(k1, length)
        if not changed:
            return found
        for _, k2, added, end in changed:
            if added < 0:
                found = [pair for pair in found if pair[0] != k2]
            elif end == OPEN:
                found.append((k2, added))
        found.sort()
        return found

    def is_open(self, k1: int, k2: int, length: int) -> bool | None:
        """Whether a key is open by the changes; None where they do not speak of it."""
        spots = self.spots.get(k1)
        if spots is not None:
            changes = self.changes
            for spot in reversed(spots):
                if spot < length:
                    row = changes[spot]
                    if row[1] == k2:
                        return row[2] >= 0 and row[3] == OPEN
        return None

    def more_rows(self, k1: int, length: int) -> int:
        """How many rows of a key the changes add, those that vanish counted off."""
        changed = self.of(k1, length)
        if changed and len(changed[0]) == 4:
            return sum((row[2] >= 0) - (row[2] == GONE) for row in changed)
        return len(changed)

    def folded(self, length: int, width: int) -> tuple[Ints, list[Ending]]:
        """The rows that the first ``length`` changes add (width x n), and what ends in the leaves.

        A row that begins and ends here is added as it is in the end.
        """
        changes = self.changes[:length]
        rows = columns_of(changes, width)
        if width == 2 or rows[2].min() >= 0:
            return rows, []
        added: list[Row | None] = []
        open_at: dict[Fence, int] = {}
        endings: list[Ending] = []
        for row in changes:
            k1, k2, since, end = row
            if since >= 0:
                if end == OPEN:
                    open_at[k1, k2] = len(added)
                added.append(row)
                continue
            spot = open_at.pop((k1, k2), None)
            if spot is None:
                endings.append((k1, k2, None if since == GONE else end))
            elif since == GONE:
                added[spot] = None
            else:
                own = added[spot]
                assert own is not None
                added[spot] = (k1, k2, own[2], end)
        return columns_of([row for row in added if row is not None], width), endings


def columns_of(rows: Sequence[Row], width: int) -> Ints:
    """Rows as a table (width x n)."""
    count = width * len(rows)
    return np.fromiter(chain.from_iterable(rows), np.int64, count).reshape(-1, width).T

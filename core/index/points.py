"""Reading the rows of one key from leaves, as plain integers.

Arrays answer for many rows at once; for one row, asking them costs more than the answer.  Leaves
give their rows as cells (`natalog.core.index.leaf.Leaf.points`), in which a binary search and the
three entries of a row take half a microsecond.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from natalog.core.index.leaf import Leaf
from natalog.core.index.leaves import OPEN, Fence, last_of

Leaves = Sequence[Leaf]
Fences = Sequence[Fence]


def open_in(leaves: Leaves, fences: Fences, k1: int) -> list[Fence]:
    """``k2, added`` of the rows of facts that have ``k1`` and have not ended, in order."""
    number = bisect_left(fences, (k1,)) - 1  # the leaf before may end with rows of the key
    if number < 0:
        if not fences:
            return []
        number = 0
    leaf = leaves[number]
    cells = leaf.cells
    if cells is None:
        cells = leaf.points()
    size = len(cells) >> 2
    leaf.hits += 1
    spot = k1 - cells[0]  # where keys have no gaps, as entities seldom do
    if not 0 < spot < size or cells[spot] != k1 or cells[spot - 1] == k1:
        spot = bisect_left(cells, k1, 0, size)
    after = spot + 1
    if after < size:
        if cells[spot] != k1:
            return []
        if cells[after] != k1:
            ended = cells[3 * size + spot]
            return [(cells[size + spot], cells[2 * size + spot])] if ended == OPEN else []
    elif spot == size:  # beyond the leaf, as what is new mostly is
        number += 1
        if number == len(fences) or fences[number][0] != k1:
            return []
        cells = leaves[number].points()
        size = len(cells) >> 2
        spot = 0
    found: list[Fence] = []
    while True:  # several rows, perhaps in several leaves
        end = bisect_right(cells, k1, spot, size)
        seconds = cells[size + spot : size + end].tolist()
        added = cells[2 * size + spot : 2 * size + end].tolist()
        ends = cells[3 * size + spot : 3 * size + end].tolist()
        found += [
            (k2, since)
            for k2, since, ended in zip(seconds, added, ends, strict=True)
            if ended == OPEN
        ]
        number += 1
        if number == len(fences) or fences[number][0] != k1:
            return found
        cells = leaves[number].points()
        size = len(cells) >> 2
        spot = 0


def seen_in(leaves: Leaves, fences: Fences, k1: int, after: int, until: int) -> list[Fence]:
    """``k2, added`` of the rows of ``k1`` that began after one transaction and until another, and
    had not ended by then, in order."""
    if not fences:
        return []
    number = max(bisect_left(fences, (k1,)) - 1, 0)
    found: list[Fence] = []
    while True:
        leaf = leaves[number]
        cells = leaf.points()
        size = len(cells) >> 2
        leaf.hits += 1
        spot = k1 - cells[0]
        if not 0 < spot < size or cells[spot] != k1 or cells[spot - 1] == k1:
            spot = bisect_left(cells, k1, 0, size)
        while spot < size and cells[spot] == k1:
            added = cells[2 * size + spot]
            if after < added <= until < cells[3 * size + spot]:
                found.append((cells[size + spot], added))
            spot += 1
        number += 1
        if number == len(fences) or fences[number][0] != k1:
            return found


def is_open_in(leaves: Leaves, fences: Fences, k1: int, k2: int) -> bool:
    """Whether a row has both keys and has not ended."""
    number = bisect_right(fences, (k1, k2)) - 1
    if number < 0:
        return False
    cells = leaves[number].points()
    size = len(cells) >> 2
    spot = last_of(cells, size, k1, k2)
    return spot >= 0 and cells[3 * size + spot] == OPEN


def seconds_in(leaves: Leaves, fences: Fences, k1: int) -> list[int]:
    """The second column of the pairs that begin with ``k1``, in order."""
    found: list[int] = []
    if not fences:
        return found
    number = max(bisect_left(fences, (k1,)) - 1, 0)
    while True:
        cells = leaves[number].points()
        size = len(cells) >> 1
        low = bisect_left(cells, k1, 0, size)
        high = bisect_right(cells, k1, low, size)
        found += cells[size + low : size + high].tolist()
        number += 1
        if number == len(fences) or fences[number][0] > k1:
            return found


def count_in(leaves: Leaves, fences: Fences, k1: int, width: int) -> int:
    """How many rows begin with ``k1``; reads two leaves at most."""
    if not fences:
        return 0
    first = max(bisect_left(fences, (k1,)) - 1, 0)
    last = bisect_left(fences, (k1 + 1,)) - 1
    if last < first:
        return 0
    cells = leaves[first].points()
    size = len(cells) // width
    low = bisect_left(cells, k1, 0, size)
    if last == first:
        return bisect_right(cells, k1, low, size) - low
    inner = sum(leaf.summed().rows for leaf in leaves[first + 1 : last])
    cells = leaves[last].points()
    return size - low + inner + bisect_right(cells, k1, 0, len(cells) // width)


def has_in(leaves: Leaves, fences: Fences, k1: int, width: int) -> bool:
    """Whether a row begins with ``k1``; reads one leaf, the last one for a new entity."""
    number = bisect_left(fences, (k1,)) - 1
    if number < 0:
        return bool(fences) and fences[0][0] == k1
    leaf = leaves[number]
    cells = leaf.cells
    if cells is None:
        cells = leaf.points()
    size = len(cells) // width
    if k1 > cells[size - 1]:  # the next leaf may begin with it
        return number + 1 < len(fences) and fences[number + 1][0] == k1
    return bool(cells[bisect_left(cells, k1, 0, size)] == k1)

"""A persistent sorted table of integer columns: the one structure behind every index.

Rows are ordered by their first two columns (and then by insertion); an index of facts has four:
``k1, k2, added, retracted``, where a fact is the interval ``[added, retracted)`` of transaction
ids and an open one ends at `OPEN`.  Leaves are small arrays shared between versions; a change
copies the leaves it touches and the list of their names.  Two levels suffice: copying a directory
of 50,000 leaves (100 million rows) costs 20 microseconds.

The rows of stored leaves need not be in memory (`natalog.core.index.leaf`); what whole-table scans
of such a table keep is bounded by its `Residency`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from natalog.core.index.leaf import Leaf
from natalog.core.index.places import Places
from natalog.core.index.pool import Ints
from natalog.core.index.residency import Residency
from natalog.core.limits import LEAF_ROWS_MAX

if TYPE_CHECKING:
    from natalog.core.storage.memo import Described

OPEN: Final = 2**63 - 1
"""The end of an interval that has not ended."""

Fence = tuple[int, int]
Key = tuple[int, ...]
"""One or two leading columns."""
Row = tuple[int, ...]
Columns = tuple[Ints, Ints, Ints, Ints]
"""The four columns of a table of facts."""

_BULK: Final = 4  # more rows than this are inserted as a block
_WHOLE_SHARE: Final = 8  # a key with a leaf in so many is read from the whole table


class RowTree:
    """An immutable sorted table.  Point access O(log n); `apply` O(touched leaves)."""

    __slots__ = (
        "__weakref__",
        "_current",
        "_distinct",
        "_flat",
        "_places",
        "count",
        "described",
        "fences",
        "hits",
        "keeper",
        "leaves",
        "open",
        "width",
    )

    def __init__(
        self, width: int, leaves: list[Leaf], fences: list[Fence], count: int, open_: int
    ) -> None:
        self.width = width
        self.leaves = leaves
        self.fences = fences
        self.count = count
        """Rows in all."""
        self.open = open_
        """Rows that have not ended."""
        self._flat: Ints | None = None
        self._current: tuple[Ints, Columns] | None = None
        self._places: Places | None = None
        self._distinct: int | None = None
        self.keeper: Residency | None = None
        """Who bounds what scans keep, once a scan found a leaf that is stored."""
        self.described: Described | None = None
        """The segments that the table is in, once it was stored."""
        self.hits = 0
        """How often kept columns were used; for the `Residency`."""

    @classmethod
    def empty(cls, width: int = 4) -> RowTree:
        """A table without rows; ``width`` 4 for facts, 2 for pairs."""
        return cls(width, [], [], 0, 0)

    @classmethod
    def from_rows(cls, rows: Ints) -> RowTree:
        """The table of ``rows`` (width x n), in any order.  O(n log n)."""
        width = rows.shape[0]
        order = np.lexsort((rows[2], rows[1], rows[0]) if width == 4 else (rows[1], rows[0]))
        rows = np.ascontiguousarray(rows[:, order])
        pieces = list(_pieces(rows, LEAF_ROWS_MAX))
        total = rows.shape[1]
        opened = int(np.count_nonzero(rows[3] == OPEN)) if width == 4 else total
        return cls(width, list(map(Leaf, pieces)), list(map(_fence, pieces)), total, opened)

    def __len__(self) -> int:
        return self.count

    # --- reading ---------------------------------------------------------------------------

    def flat(self) -> Ints:
        """All rows (width x n); kept, since whole-table scans come in series."""
        found = self._flat
        if found is None:
            if len(self.leaves) == 1:
                return self.leaves[0].load()
            found = self._join([leaf.peek() for leaf in self.leaves])
            self._flat = found
            self.count_kept()
        else:
            self.hits += 1
        return found

    def current(self) -> Ints:
        """All rows that have not ended (4 x n); kept."""
        return self._live()[0]

    def columns(self) -> Columns:
        """The columns of `current`; kept, so that they cost nothing to have again."""
        return self._live()[1]

    @property
    def is_scanned(self) -> bool:
        """Whether `current` has its rows at hand."""
        return self._current is not None

    def places(self) -> Places:
        """Where the values of the first column lie in `current`; kept with it."""
        found = self._places
        if found is None:
            found = self._places = Places(self.current()[0])
        return found

    def _live(self) -> tuple[Ints, Columns]:
        found = self._current
        if found is None:
            if self.open == self.count:
                rows = self.flat()
            elif self._flat is None and self._residency() is not None:
                # both tables would be kept; who reads the present seldom needs the past
                rows = self._join([_opened(leaf.peek()) for leaf in self.leaves])
            else:
                rows = _opened(self.flat())
            found = (rows, (rows[0], rows[1], rows[2], rows[3]))
            self._current = found
            self.count_kept()
        else:
            self.hits += 1
        return found

    def _residency(self) -> Residency | None:
        """Who bounds what scans keep: nobody, as long as no leaf is stored."""
        for leaf in self.leaves:
            if leaf.stored is not None:
                return leaf.stored.residency
        return None

    def count_kept(self) -> None:
        """Count what scans kept against the budget, if there is one; let go what is too much."""
        keeper = self.keeper
        if keeper is None:
            keeper = self.keeper = self._residency()
            if keeper is None:
                return
        flat, live = self._flat, self._current
        current = None if live is None or live[0] is flat else live[0]
        sizes = [0 if rows is None else rows.nbytes for rows in (flat, current)]
        if not sum(sizes) or keeper.keep(self, sum(sizes)):
            return
        self._flat = None  # the present is read most
        if current is None or not keeper.keep(self, sizes[1]):
            self._current = self._places = None

    def evict(self) -> None:
        """Give up what scans kept, without telling the residency."""
        self._flat = self._current = self._places = None

    def forget(self) -> None:
        """Give up what whole-table scans kept; the next one makes it again."""
        self.evict()
        if self.keeper is not None:
            self.keeper.discard(self)

    def distinct_first(self) -> int:
        """How many distinct values the first column has; kept.  Exact.

        O(leaves), and O(rows) for those leaves that were never asked before.
        """
        found = self._distinct
        if found is None:
            found = 0
            before = None
            for leaf, fence in zip(self.leaves, self.fences, strict=True):
                summary = leaf.summary or leaf.summed()
                found += summary.distinct - (fence[0] == before)
                before = summary.last
            self._distinct = found
        return found

    def last_first(self) -> int | None:
        """The largest value of the first column, None in an empty table."""
        if not self.leaves:
            return None
        leaf = self.leaves[-1]
        rows = leaf.array
        return int(rows[0, -1]) if rows is not None else leaf.summed().last

    def with_first(self, k1: int) -> Ints:
        """The rows whose first column is ``k1``.  O(log n + rows)."""
        fences = self.fences
        first = bisect_left(fences, (k1,)) - 1  # the leaf before may end with rows of the key
        if first < 0:
            first = 0
        if first + 1 < len(fences) and fences[first + 1][0] <= k1:
            return self._run_of(k1, first)
        if not fences:
            return self._join([])
        leaf = self.leaves[first]
        rows = leaf.array
        if rows is None:
            rows = leaf.load()
        else:
            leaf.hits += 1
        column = rows[0]
        low = column.searchsorted(k1)
        high = low + 1
        size = len(column)
        if low == size or column[low] != k1:
            high = low
        elif high < size and column[high] == k1:
            high = column.searchsorted(k1, "right")
        return rows[:, low:high]

    def open_of(self, k1: int) -> list[Fence]:
        """``k2, added`` of the rows that have ``k1`` and have not ended.  O(log n + rows).

        What point reads are made of: one row, as there mostly is, takes half a microsecond.
        """
        fences = self.fences
        number = bisect_left(fences, (k1,)) - 1  # the leaf before may end with rows of the key
        if number < 0:
            if not fences:
                return []
            number = 0
        leaf = self.leaves[number]
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
        rows = self.with_first(k1)
        if not rows.shape[1]:
            return []
        k2, added, ends = rows[1].tolist(), rows[2].tolist(), rows[3].tolist()
        return [
            (two, since) for two, since, end in zip(k2, added, ends, strict=True) if end == OPEN
        ]

    def seconds_of(self, k1: int) -> list[int]:
        """The second column of the rows of a table of pairs that begin with ``k1``."""
        fences = self.fences
        number = max(bisect_left(fences, (k1,)) - 1, 0)
        if not fences or (number + 1 < len(fences) and fences[number + 1][0] <= k1):
            found: list[int] = self.with_first(k1)[1].tolist()
            return found
        leaf = self.leaves[number]
        cells = leaf.points()
        size = len(cells) >> 1
        leaf.hits += 1
        low = bisect_left(cells, k1, 0, size)
        return cells[size + low : size + bisect_right(cells, k1, low, size)].tolist()

    def count_first(self, k1: int) -> int:
        """How many rows `with_first` gives; reads two leaves at most."""
        fences = self.fences
        first = max(bisect_left(fences, (k1,)) - 1, 0)
        last = bisect_left(fences, (k1 + 1,)) - 1
        if last <= first:
            return int(self.with_first(k1).shape[1])
        found = 0
        for leaf in (self.leaves[first], self.leaves[last]):
            column = leaf.load()[0]
            found += int(column.searchsorted(k1, "right") - column.searchsorted(k1))
        return found + sum(leaf.summed().rows for leaf in self.leaves[first + 1 : last])

    def _run_of(self, k1: int, first: int) -> Ints:
        """The rows of a key that begin in or after leaf ``first`` and fill several leaves.

        A key with a good part of all rows is asked for again: it is cut out of the whole table,
        which is kept, in place of being put together each time.
        """
        rows = self._flat
        if rows is None:
            last = bisect_left(self.fences, (k1 + 1,))
            if (last - first) * _WHOLE_SHARE < len(self.leaves) or self._residency() is not None:
                return self.between((k1,), (k1,))
            rows = self.flat()
        column = rows[0]
        return rows[:, column.searchsorted(k1) : column.searchsorted(k1, "right")]

    def with_both(self, k1: int, k2: int) -> Ints:
        """The rows whose first two columns are ``k1, k2``.  O(log n + rows)."""
        return self.between((k1, k2), (k1, k2))

    def between(self, low: Key, high: Key) -> Ints:
        """The rows from key ``low`` to key ``high``, both inclusive, one or two columns each.

        A key of one column stands for all rows that begin with it.
        """
        fences = self.fences
        first = bisect_left(fences, low) - 1  # the leaf before may end with rows of the key
        if first < 0:
            first = 0
        last = bisect_left(fences, (high[0] + 1,) if len(high) == 1 else (high[0], high[1] + 1))
        leaves = self.leaves[first:last]
        if not leaves:
            return self._join([])
        begin = leaves[0].load()
        if len(leaves) == 1:
            return begin[:, _position(begin, low) : _position(begin, high, "right")]
        end = leaves[-1].load()
        return self._join(
            [
                begin[:, _position(begin, low) :],
                *(leaf.peek() for leaf in leaves[1:-1]),
                end[:, : _position(end, high, "right")],
            ]
        )

    def from_key(self, low: Key) -> Iterator[Ints]:
        """Pieces of the table from key ``low`` to its end, in order."""
        first = max(bisect_left(self.fences, low) - 1, 0)
        for number, leaf in enumerate(self.leaves[first:]):
            if number == 0:
                rows = leaf.load()
                rows = rows[:, _position(rows, low) :]
            else:
                rows = leaf.peek()
            if rows.shape[1]:
                yield rows

    def apart(self, other: RowTree) -> tuple[Ints, Ints]:
        """The rows of either table that are in no leaf of both; all others both have."""
        shared = set(map(id, self.leaves)).intersection(map(id, other.leaves))
        ours, others = (
            [leaf.peek() for leaf in tree.leaves if id(leaf) not in shared]
            for tree in (self, other)
        )
        return self._join(ours), self._join(others)

    def last_until(self, k1: int) -> Row | None:
        """The last row whose first column is ``k1`` or less.  O(log n)."""
        number = bisect_left(self.fences, (k1 + 1,)) - 1
        if number < 0:
            return None
        rows = self.leaves[number].load()
        return tuple(rows[:, rows[0].searchsorted(k1, "right") - 1].tolist())

    def has(self, k1: int, k2: int) -> bool:
        """Whether a row with this key exists."""
        return bool(self.with_both(k1, k2).shape[1])

    def _join(self, parts: Sequence[Ints]) -> Ints:
        if not parts:
            return np.empty((self.width, 0), dtype=np.int64)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    # --- changing ----------------------------------------------------------------------------

    def apply(
        self,
        inserts: list[Row] | Ints,
        closes: Iterable[Fence] = (),
        at: int = 0,
        *,
        drop: bool = False,
    ) -> RowTree:
        """A new table with rows ended and added.

        ``closes``: keys whose open row ends at transaction ``at`` (or vanishes, with ``drop``);
        ``inserts``: full rows, a list of tuples or a block of columns.  A key that is not open is
        ignored.
        """
        leaves = list(self.leaves)
        fences = list(self.fences)
        count, opened = self.count, self.open
        emptied = False
        for key in closes:
            number = max(bisect_right(fences, key) - 1, 0)
            if number >= len(leaves):
                continue
            leaf = leaves[number].load()
            spot = _position(leaf, key, "right") - 1
            if spot < 0 or leaf[0, spot] != key[0] or leaf[1, spot] != key[1]:
                continue
            if leaf[3, spot] != OPEN:
                continue
            opened -= 1
            if drop:
                changed = _without(leaf, spot)
                leaves[number] = Leaf(changed)
                emptied = emptied or leaf.shape[1] == 1
                count -= 1
                if spot == 0 and leaf.shape[1] > 1:
                    fences[number] = _fence(changed)
            else:
                changed = leaf.copy()
                changed[3, spot] = at
                leaves[number] = Leaf(changed)
        if emptied:
            kept = [number for number, box in enumerate(leaves) if not _is_empty(box)]
            leaves = [leaves[number] for number in kept]
            fences = [fences[number] for number in kept]
        if isinstance(inserts, list) and len(inserts) > _BULK:
            inserts = np.array(inserts, dtype=np.int64).T
        if isinstance(inserts, list):
            for row in sorted(inserts):
                _insert_row(leaves, fences, row)
                opened += self.width == 2 or row[3] == OPEN
            count += len(inserts)
        elif inserts.shape[1]:
            _insert(leaves, fences, _sorted(inserts))
            count += inserts.shape[1]
            ended = 0 if self.width == 2 else int(np.count_nonzero(inserts[3] != OPEN))
            opened += inserts.shape[1] - ended
        return RowTree(self.width, leaves, fences, count, opened)

    def without(self, k1: int, k2: int, ended_before: Ints | None = None) -> RowTree:
        """A new table without the rows of key ``k1, k2``.

        With ``ended_before`` (sorted transaction ids) only ended rows that were added by one of
        these transactions go.
        """
        key = (k1, k2)
        first = max(bisect_left(self.fences, key) - 1, 0)
        last = bisect_right(self.fences, key)
        leaves = self.leaves[:first]
        fences = self.fences[:first]
        count, opened = self.count, self.open
        for box in self.leaves[first:last]:
            leaf = box.load()
            low, high = _position(leaf, key), _position(leaf, key, "right")
            gone = np.zeros(leaf.shape[1], dtype=np.bool_)
            gone[low:high] = True
            if ended_before is not None:
                gone[low:high] = (leaf[3, low:high] != OPEN) & np.isin(
                    leaf[2, low:high], ended_before
                )
            count -= int(np.count_nonzero(gone))
            if self.width == 4:
                opened -= int(np.count_nonzero(gone & (leaf[3] == OPEN)))
            if not gone.any():
                leaves.append(box)
                fences.append(_fence(leaf))
                continue
            kept = leaf.compress(~gone, axis=1)
            if kept.shape[1]:
                leaves.append(Leaf(kept))
                fences.append(_fence(kept))
        leaves.extend(self.leaves[last:])
        fences.extend(self.fences[last:])
        return RowTree(self.width, leaves, fences, count, opened if self.width == 4 else count)

    # --- invariants ----------------------------------------------------------------------------

    def _check(self) -> None:
        """Raise AssertionError unless every invariant of the structure holds."""
        assert len(self.leaves) == len(self.fences)
        blocks = [leaf.peek() for leaf in self.leaves]
        assert self.count == sum(block.shape[1] for block in blocks)
        for leaf, block, fence in zip(self.leaves, blocks, self.fences, strict=True):
            assert block.shape[0] == self.width
            assert 0 < block.shape[1] <= LEAF_ROWS_MAX
            assert _fence(block) == fence
            assert leaf.array is not None or leaf.stored is not None
            assert leaf.summary is None or leaf.summary == Leaf(block).summed()
        whole = self._join(blocks)
        rows = list(zip(*whole.tolist(), strict=True))
        assert all(a <= b for a, b in pairwise(rows)), "rows are out of order"
        if self.width == 4:
            assert self.open == sum(1 for row in rows if row[3] == OPEN)
            assert all(row[2] <= row[3] for row in rows)
            ends = [row[:2] for row in rows if row[3] == OPEN]
            assert len(ends) == len(set(ends)), "a fact is open twice"
        assert self.distinct_first() == len(np.unique(whole[0]))
        flat, current = self._flat, self._current
        assert flat is None or np.array_equal(flat, whole)
        assert current is None or np.array_equal(current[0], _opened(whole))


def _opened(rows: Ints) -> Ints:
    """The rows that have not ended."""
    return rows.compress(rows[3] == OPEN, axis=1)


def _is_empty(leaf: Leaf) -> bool:
    return leaf.array is not None and not leaf.array.shape[1]


def _fence(leaf: Ints) -> Fence:
    return (int(leaf[0, 0]), int(leaf[1, 0]))


def _position(leaf: Ints, key: Key, side: Literal["left", "right"] = "left") -> int:
    """Where ``key`` (one or two columns) goes in a leaf: before or after the rows that equal it."""
    column = leaf[0]
    if len(key) == 1:
        return int(column.searchsorted(key[0], side))
    low = int(column.searchsorted(key[0]))
    if low == len(column) or column[low] != key[0]:
        return low
    high = int(column.searchsorted(key[0], "right"))
    return low + int(leaf[1, low:high].searchsorted(key[1], side))


def _without(leaf: Ints, spot: int) -> Ints:
    return np.concatenate((leaf[:, :spot], leaf[:, spot + 1 :]), axis=1)


def _pieces(rows: Ints, size: int) -> Iterator[Ints]:
    """Cut a table into leaves of at most ``size`` rows."""
    for start in range(0, rows.shape[1], size):
        yield rows[:, start : start + size].copy()


def _sorted(rows: Ints) -> Ints:
    """A block of rows in order."""
    keys = (rows[1], rows[0]) if rows.shape[0] == 2 else (rows[3], rows[2], rows[1], rows[0])
    return rows[:, np.lexsort(keys)]


def _insert_row(leaves: list[Leaf], fences: list[Fence], row: Row) -> None:
    """`_insert` for one row, which is what most transactions have for a table.  In place."""
    key = row[:2]
    number = bisect_right(fences, key) - 1
    if number < 0:
        number = 0
    rows = leaves[number].load() if leaves else None
    if rows is None or rows.shape[1] >= LEAF_ROWS_MAX:
        _insert(leaves, fences, np.array(row, dtype=np.int64)[:, None])
        return
    width, size = rows.shape
    spot = _position(rows, key, "right")
    grown = np.empty((width, size + 1), dtype=np.int64)
    grown[:, :spot] = rows[:, :spot]
    grown[:, spot] = row
    grown[:, spot + 1 :] = rows[:, spot:]
    leaves[number] = Leaf(grown)
    if spot == 0:
        fences[number] = (row[0], row[1])


def _insert(leaves: list[Leaf], fences: list[Fence], rows: Ints) -> None:
    """Merge a sorted block into ``leaves``, splitting what grows too large.  In place."""
    if not leaves:
        for piece in _pieces(rows, LEAF_ROWS_MAX):
            leaves.append(Leaf(piece))
            fences.append(_fence(piece))
        return
    # Right to left, so that splits do not move the leaves still to be visited.
    end = rows.shape[1]
    while end:
        last = (int(rows[0, end - 1]), int(rows[1, end - 1]))
        number = max(bisect_right(fences, last) - 1, 0)
        # Rows that equal the fence of this leaf belong here, those below to an earlier leaf.
        start = 0 if number == 0 else _position(rows[:, :end], fences[number])
        group = rows[:, start:end]
        end = start
        leaf = leaves[number].load()
        merged = _merge(leaf, group)
        if merged.shape[1] <= LEAF_ROWS_MAX:
            leaves[number] = Leaf(merged)
            fences[number] = _fence(merged)
            continue
        beyond = _fence(group) >= (int(leaf[0, -1]), int(leaf[1, -1]))
        # Appending leaves full leaves behind, inserting leaves half-full ones.
        appending = beyond and number == len(leaves) - 1
        size = LEAF_ROWS_MAX if appending else max(LEAF_ROWS_MAX // 2, 1)
        parts = list(_pieces(merged, size))
        leaves[number : number + 1] = map(Leaf, parts)
        fences[number : number + 1] = map(_fence, parts)


def _merge(leaf: Ints, group: Ints) -> Ints:
    """The rows of a leaf and of a sorted block, in order."""
    width, size = leaf.shape
    added = group.shape[1]
    spot = _position(leaf, _fence(group), "right")
    last = (int(group[0, -1]), int(group[1, -1]))
    if spot == size or (int(leaf[0, spot]), int(leaf[1, spot])) > last:
        grown = np.empty((width, size + added), dtype=np.int64)
        grown[:, :spot] = leaf[:, :spot]
        grown[:, spot : spot + added] = group
        grown[:, spot + added :] = leaf[:, spot:]
        return grown
    low = leaf[0].searchsorted(group[0])
    spots = leaf[0].searchsorted(group[0], "right")
    # Within the rows of one first column the second decides; mostly the new one is the largest.
    inside = np.flatnonzero((spots > low) & (leaf[1][spots - 1] > group[1]))
    for number in inside.tolist():
        first, end = int(low[number]), int(spots[number])
        spots[number] = first + leaf[1, first:end].searchsorted(group[1, number], "right")
    places = spots + np.arange(added)
    kept = np.ones(size + added, dtype=np.bool_)
    kept[places] = False
    grown = np.empty((width, size + added), dtype=np.int64)
    grown[:, places] = group
    grown[:, kept] = leaf
    return grown

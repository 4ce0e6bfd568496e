"""Rows of an answer, from the columns of its relation.

Most of the time of a query for many rows is here: 35 nanoseconds a row at least, to make a tuple
and its integers and to drop them again.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from natalog.core.index.pool import Ints
from natalog.core.limits import SHARED_ROWS_MAX
from natalog.core.query.column import Column
from natalog.core.query.context import Context
from natalog.core.query.keys import Bools, ascends

Row = tuple[Any, ...]
Values = list[Any] | memoryview
"""The Python values of a column, to go through; integers are made while one does."""

_CHUNK_ROWS: Final = 65_536  # rows between two looks at the deadline
_PAGE_BITS: Final = 16
_PAGE: Final = 1 << _PAGE_BITS
_SHARED_MIN: Final = 512  # fewer rows are made as fast as they are looked up
_SHARED_MAX: Final = SHARED_ROWS_MAX // 4  # more rows would soon push out all others
_SPREAD_MAX: Final = 16  # integers in the range of a column for each one in it
_REST_ROWS: Final = 8 * SHARED_ROWS_MAX


def values_of(column: Column) -> Values:
    """What `rows_of` takes for a column."""
    # a list of 25,000 integers takes 180 microseconds, and then has to be gone through as well
    return column.data.data if column.kind == "long" else column.values()


def single_rows(ctx: Context, column: Column) -> list[Row]:
    """A column as rows, each of its values different."""
    if column.kind == "long":
        rows = SHARED.of(column.data)
        if rows is not None:
            ctx.tick(len(rows))
            return rows
    return rows_of(ctx, [values_of(column)])


def rows_of(ctx: Context, columns: list[Values]) -> list[Row]:
    """Columns as rows; the deadline is looked at every now and then."""
    count = len(columns[0])
    ctx.tick(count)
    if count <= _CHUNK_ROWS:
        return list(zip(*columns, strict=True))
    rows: list[Row] = []
    for start in range(0, count, _CHUNK_ROWS):
        rows.extend(zip(*(column[start : start + _CHUNK_ROWS] for column in columns), strict=True))
        ctx.tick(0)
    return rows


class _Page:
    """The rows of integers that lie next to each other, as far as they were made."""

    __slots__ = ("made", "rows")

    def __init__(self) -> None:
        self.rows: NDArray[np.object_] = np.empty(_PAGE, dtype=object)
        self.made: Bools = np.zeros(_PAGE, dtype=np.bool_)


class SharedRows:
    """Rows of one integer each, made once for each integer.

    Answers that have entities and nothing else consist of the same rows again and again,
    ``(17,)`` for entity 17 whatever the query and the database.  A tuple cannot change, so answers
    share it, as they share strings.  25,000 rows take 0.13 milliseconds so, 0.37 when they are
    made, and 0.76 when they are made and noted.

    Keeps `SHARED_ROWS_MAX` rows at most, 90 bytes each where integers lie close together as ids
    do.  When there are more, everything is let go, and the next `_REST_ROWS` rows are not shared:
    where answers have ever new entities, noting these is rare.  Several threads may ask.
    """

    def __init__(self) -> None:
        self._pages: dict[int, _Page] = {}
        self._count = 0
        self._rest = 0

    def of(self, numbers: Ints) -> list[Row] | None:
        """The row of each of ``numbers``; None where sharing does not pay.

        It does for some thousands that ascend and lie close.
        """
        count = len(numbers)
        if not _SHARED_MIN <= count <= _SHARED_MAX or not ascends(numbers):
            return None
        low, high = int(numbers[0]), int(numbers[-1])
        if high - low > _SPREAD_MAX * count:
            return None
        if self._rest > 0:
            self._rest -= count
            return None
        first, last = low >> _PAGE_BITS, high >> _PAGE_BITS
        if first == last:
            return self._of_page(first, numbers)
        ends = numbers.searchsorted(np.arange(first + 1, last + 1) << _PAGE_BITS).tolist()
        rows: list[Row] = []
        begin = 0
        for page, end in zip(range(first, last + 1), [*ends, count], strict=True):
            rows += self._of_page(page, numbers[begin:end])
            begin = end
        return rows

    def _of_page(self, number: int, numbers: Ints) -> list[Row]:
        page = self._pages.get(number)
        if page is None:
            page = self._pages.setdefault(number, _Page())
        spots = numbers - (number << _PAGE_BITS)
        made = page.made.take(spots)
        if not made.all():
            missing = numbers[~made]
            if self._count + len(missing) > SHARED_ROWS_MAX:
                self._pages, self._count, self._rest = {}, 0, _REST_ROWS
                return list(zip(numbers.data, strict=True))
            self._count += len(missing)
            places = spots[~made]
            page.rows[places] = np.fromiter(zip(missing.data), np.object_, len(missing))
            page.made[places] = True
        rows: list[Row] = page.rows.take(spots).tolist()
        return rows


SHARED: Final = SharedRows()

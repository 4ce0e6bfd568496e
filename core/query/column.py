"""Columns of a relation: 64-bit entries of one encoding, and the joins between them.

A column holds longs, order-preserving bits of doubles, booleans, milliseconds, or codes of a
`ValuePool`: that of a database, or the query's own for inputs and computed values.  Two columns
join by comparing entries once they speak the same encoding (`aligned`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from natalog.core.errors import QueryLimit
from natalog.core.index.encoding import Kind, decode, encode, find, order_of
from natalog.core.index.pool import Ints, ValuePool
from natalog.core.limits import LONG_MAX, LONG_MIN, QUERY_ROWS_MAX
from natalog.core.values import Keyword


class Column(NamedTuple):
    """Entries of one variable; ``pool`` gives the values of a ``code`` column."""

    kind: Kind
    pool: ValuePool
    data: Ints

    def take(self, rows: Any) -> Column:
        """The entries at some rows (indices or a mask)."""
        return Column(self.kind, self.pool, self.data[rows])

    def values(self) -> list[Any]:
        """The entries as Python values."""
        return decode(self.data, self.kind, self.pool)

    def order(self) -> Ints:
        """Numbers that order like the values do."""
        return order_of(self.data, self.kind, self.pool)


def column_of(values: Sequence[Any], pool: ValuePool) -> Column:
    """A column of Python values: typed when they all have one class, else codes of ``pool``."""
    kinds = set(map(type, values))
    if len(kinds) == 1:
        kind = _simple_kind(next(iter(kinds)))
        if kind == "long" and all(LONG_MIN <= value <= LONG_MAX for value in values):
            return Column("long", pool, np.array(values, dtype=np.int64))
        if kind not in (None, "long"):
            entries = [encode(value, kind, pool) for value in values]
            return Column(kind, pool, np.array(entries, dtype=np.int64))
    code = pool.code
    return Column("code", pool, np.array([code(value) for value in values], dtype=np.int64))


def constant(value: Any, count: int, pool: ValuePool) -> Column:
    """A column that repeats one value."""
    one = column_of([value], pool)
    return Column(one.kind, pool, np.repeat(one.data, count))


def _simple_kind(cls: type) -> Kind | None:
    if cls is int:
        return "long"
    if cls is float:
        return "double"
    if cls is bool:
        return "boolean"
    return "instant" if cls is datetime else None


def recoded(column: Column, pool: ValuePool) -> Column:
    """The same values as codes of ``pool``, which takes in those it lacks."""
    if column.kind == "code" and column.pool is pool:
        return column
    distinct, inverse = np.unique(column.data, return_inverse=True)
    values = decode(distinct, column.kind, column.pool)
    codes = np.array([pool.code(value) for value in values], dtype=np.int64)
    return Column("code", pool, codes[inverse] if len(codes) else column.data)


def aligned(left: Column, right: Column) -> tuple[Ints, Ints]:
    """Entries of two columns that are equal exactly where the values are the same.

    What one side has and the other cannot have becomes an entry that the other lacks.
    """
    if left.kind == right.kind and (left.kind != "code" or left.pool is right.pool):
        return left.data, right.data
    if left.kind != "code" and right.kind != "code":
        return np.full(len(left.data), _absent(right.data)), right.data
    if right.kind == "code" and (left.kind != "code" or len(left.data) > len(right.data)):
        return left.data, _translated(right, left)
    return _translated(left, right), right.data


def _translated(column: Column, into: Column) -> Ints:
    """The entries of a code column in the encoding of another."""
    distinct, inverse = np.unique(column.data, return_inverse=True)
    absent = _absent(into.data)
    found = [
        find(value, into.kind, into.pool) for value in decode(distinct, column.kind, column.pool)
    ]
    entries = [absent if entry is None else entry for entry in found]
    table = np.array(entries, dtype=np.int64)
    return table[inverse] if entries else column.data


def _absent(data: Ints) -> int:
    """An entry that does not occur in a column."""
    if not len(data):
        return 0
    top = int(data.max())
    if top < LONG_MAX:
        return top + 1
    bottom = int(data.min())
    return bottom - 1 if bottom > LONG_MIN else int(np.setdiff1d(np.arange(len(data) + 1), data)[0])


def united(columns: Sequence[Column], pool: ValuePool) -> Column:
    """One column after the other; of different encodings, as codes of ``pool``."""
    first = columns[0]
    if all(c.kind == first.kind and (c.kind != "code" or c.pool is first.pool) for c in columns):
        return Column(first.kind, first.pool, np.concatenate([c.data for c in columns]))
    return Column("code", pool, np.concatenate([recoded(c, pool).data for c in columns]))


# --- keys of several columns ---------------------------------------------------------------------


def packed(columns: Sequence[Ints]) -> Ints:
    """One number a row, equal exactly for equal rows.  O(rows), or a sort where ranges are wide."""
    key = columns[0]
    for column in columns[1:]:
        if not len(key):
            return key
        low, high = int(column.min()), int(column.max())
        span = high - low + 1
        key_low, key_high = int(key.min()), int(key.max())
        if (key_high - key_low + 1) * span >= LONG_MAX:
            key = np.unique(key, return_inverse=True)[1].astype(np.int64)
            key_low, key_high = 0, int(key.max())
            if (key_high + 1) * span >= LONG_MAX:
                column = np.unique(column, return_inverse=True)[1].astype(np.int64)
                low, span = 0, int(column.max()) + 1
        key = (key - key_low) * span + (column - low)
    return key


def packed_pair(left: Sequence[Ints], right: Sequence[Ints]) -> tuple[Ints, Ints]:
    """`packed` for two tables whose keys are to be compared with each other."""
    if len(left) == 1:
        return left[0], right[0]
    count = len(left[0])
    both = packed([np.concatenate(pair) for pair in zip(left, right, strict=True)])
    return both[:count], both[count:]


def largest(data: Ints) -> int:
    """The largest magnitude of integers, 0 of none; exact also for the smallest integer."""
    return max(int(data.max()), -int(data.min())) if len(data) else 0


def first_of_each(key: Ints) -> Ints:
    """Ascending row numbers of the first row of every distinct key."""
    if len(key) > 1 and bool((key[1:] > key[:-1]).all()):
        return np.arange(len(key))
    spots = np.unique(key, return_index=True)[1]
    spots.sort()
    return spots


def check_rows(count: int) -> None:
    """Raise `QueryLimit` when a join is about to make more rows than any query may have."""
    if count > QUERY_ROWS_MAX:
        raise QueryLimit(
            f"A step of the query makes {count} rows; {QUERY_ROWS_MAX} are allowed.",
            rows=count,
            rows_max=QUERY_ROWS_MAX,
        )


def matches(left: Ints, right: Ints, *, right_sorted: bool = False) -> tuple[Ints, Ints]:
    """Row numbers of all pairs with equal keys, in the order of ``left``.

    Raises `QueryLimit` for too many, before they take memory.
    """
    order: Ints | None = None
    if not right_sorted:
        order = np.argsort(right, kind="stable")
        right = right[order]
    low = right.searchsorted(left, "left")
    high = right.searchsorted(left, "right")
    counts = high - low
    total = int(counts.sum())
    check_rows(total)
    rows = np.repeat(np.arange(len(left)), counts)
    if total == 0:
        return rows, rows
    starts = np.repeat(low - (np.cumsum(counts) - counts), counts)
    spots = starts + np.arange(total)
    return rows, spots if order is None else order[spots]


def member(left: Ints, right: Ints) -> NDArray[np.bool_]:
    """Which keys of ``left`` occur in ``right``."""
    if not len(right):
        return np.zeros(len(left), dtype=np.bool_)
    return np.isin(left, right)


def may_be_refs(column: Column) -> bool:
    """Whether a column may hold lookup refs or idents, which patterns keep as they are written."""
    if column.kind != "code":
        return False
    distinct = column.take(first_of_each(column.data)).values()
    return any(isinstance(value, (tuple, Keyword)) for value in distinct)

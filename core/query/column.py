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

from natalog.core.index.encoding import Kind, decode, encode, find, order_of
from natalog.core.index.pool import Ints, ValuePool
from natalog.core.limits import LONG_MAX, LONG_MIN
from natalog.core.query.keys import first_of_each, numbered
from natalog.core.values import Keyword


class Column(NamedTuple):
    """Entries of one variable; ``pool`` gives the values of a ``code`` column."""

    kind: Kind
    pool: ValuePool
    data: Ints

    def take(self, rows: Any) -> Column:
        """The entries at some rows (indices or a mask)."""
        data = self.data
        return Column(
            self.kind, self.pool, data[rows] if rows.dtype == np.bool_ else data.take(rows)
        )

    def values(self) -> list[Any]:
        """The entries as Python values."""
        return decode(self.data, self.kind, self.pool)

    def order(self) -> Ints:
        """Numbers that order like the values do."""
        return order_of(self.data, self.kind, self.pool)


def column_of(values: Sequence[Any], pool: ValuePool, known: ValuePool | None = None) -> Column:
    """A column of Python values: typed when they all have one class, else codes.

    Codes are those of the pool ``known`` where it knows all values, as it does of most inputs that
    match anything: its own columns need no translation then.  Else they are codes of ``pool``.
    """
    kinds = set(map(type, values))
    if len(kinds) == 1:
        kind = _simple_kind(next(iter(kinds)))
        if kind == "long" and min(values) >= LONG_MIN and max(values) <= LONG_MAX:
            return Column("long", pool, np.array(values, dtype=np.int64))
        if kind not in (None, "long"):
            entries = [encode(value, kind, pool) for value in values]
            return Column(kind, pool, np.array(entries, dtype=np.int64))
    if known is not None:
        codes = [known.find(value) for value in values]
        if -1 not in codes:
            return Column("code", known, np.array(codes, dtype=np.int64))
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
    rows, numbers = numbered(column.data)
    codes = pool.codes(column.take(rows).values())
    return Column("code", pool, codes[numbers] if len(codes) else column.data)


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
    rows, numbers = numbered(column.data)
    absent = _absent(into.data)
    found = [find(value, into.kind, into.pool) for value in column.take(rows).values()]
    entries = [absent if entry is None else entry for entry in found]
    table = np.array(entries, dtype=np.int64)
    return table[numbers] if entries else column.data


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


def may_be_refs(column: Column) -> bool:
    """Whether a column may hold lookup refs or idents, which patterns keep as they are written."""
    if column.kind != "code":
        return False
    first = first_of_each(column.data)
    distinct = column if first is None else column.take(first)
    return any(isinstance(value, (tuple, Keyword)) for value in distinct.values())

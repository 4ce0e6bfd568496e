"""Relations: rows of variables as columns, joined, filtered, projected and united.

All operations return new relations.  Rows form a set: dropping a variable may leave equal rows,
which `Relation.project` removes, unless the variables that are left are known to tell rows apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from natalog.core.index.pool import Ints, ValuePool
from natalog.core.query.column import Column, aligned, united
from natalog.core.query.keys import check_rows, first_of_each, matches, member, packed, packed_pair

Names = frozenset[str]


class Relation:
    """``columns``: variable name to `Column`; ``count``: rows (1 for the relation of no column).

    ``key``: variables that no two rows agree on; None where rows may repeat.  It is what spares a
    search for equal rows: the entity of a fact of cardinality one, say, tells all rows apart.
    """

    __slots__ = ("columns", "count", "key")

    def __init__(self, columns: dict[str, Column], count: int, key: Names | None = None) -> None:
        self.columns = columns
        self.count = count
        self.key = key

    def take(self, rows: Any) -> Relation:
        """Some rows, each at most once: a mask or row numbers."""
        if rows.dtype == np.bool_:  # numbers are found once, a mask is read for every column
            rows = rows.nonzero()[0]
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return Relation(columns, len(rows), self.key)

    def with_column(self, name: str, column: Column) -> Relation:
        """The same rows with one more variable."""
        return Relation({**self.columns, name: column}, self.count, self.key)

    def none(self) -> Relation:
        """The same variables without rows."""
        columns = {
            name: Column(column.kind, column.pool, column.data[:0])
            for name, column in self.columns.items()
        }
        return Relation(columns, 0, _NO_NAMES)

    def project(self, names: Iterable[str], *, distinct: bool = True) -> Relation:
        """Only some variables, equal rows once."""
        columns = {name: self.columns[name] for name in names}
        if not columns:
            return UNIT if self.count else NOTHING
        if self.key is not None and self.key <= columns.keys():
            return Relation(columns, self.count, self.key)
        slim = Relation(columns, self.count)
        return slim.distinct() if distinct else slim

    def distinct(self) -> Relation:
        """Equal rows once."""
        if self.key is not None:
            return self
        if not self.columns:
            return UNIT if self.count else NOTHING
        first = first_of_each(packed([column.data for column in self.columns.values()]))
        found = self if first is None else self.take(first)
        return Relation(found.columns, found.count, frozenset(self.columns))

    def join(self, other: Relation) -> Relation:
        """Natural join; the product where no variable is shared."""
        shared = [name for name in self.columns if name in other.columns]
        if not shared:
            return self.product(other)
        left, right = self._keys(other, shared)
        rows: Ints | None
        spots: Ints | None
        if len(left) < len(right):
            spots, rows = matches(right, left)
        else:
            rows, spots = matches(left, right)
        return self._combined(other, rows, spots, frozenset(shared))

    def product(self, other: Relation) -> Relation:
        """Every row with every row."""
        if not self.columns and self.count:
            return other
        if not other.columns and other.count:
            return self
        for one, many in ((other, self), (self, other)):
            if one.count == 1:  # a scalar input, say: its values stand beside every row
                beside = {
                    name: Column(c.kind, c.pool, np.broadcast_to(c.data, (many.count,)))
                    for name, c in one.columns.items()
                }
                return Relation({**many.columns, **beside}, many.count, many.key)
        check_rows(self.count * other.count)
        rows = np.repeat(np.arange(self.count), other.count)
        spots = np.tile(np.arange(other.count), self.count)
        return self._combined(other, rows, spots, _NO_NAMES)

    def without(self, other: Relation) -> Relation:
        """The rows that agree with no row of ``other`` on the variables of ``other``."""
        if not other.count:
            return self
        if not other.columns:
            return self.none()
        left, right = self._keys(other, list(other.columns))
        return self.take(~member(left, right))

    def matching(self, other: Relation) -> Relation:
        """The rows that agree with some row of ``other`` on the variables of ``other``."""
        if not other.columns:
            return self if other.count else self.none()
        left, right = self._keys(other, list(other.columns))
        return self.take(member(left, right))

    def _keys(self, other: Relation, shared: Sequence[str]) -> tuple[Ints, Ints]:
        pairs = [aligned(self.columns[name], other.columns[name]) for name in shared]
        return packed_pair([pair[0] for pair in pairs], [pair[1] for pair in pairs])

    def _combined(
        self, other: Relation, rows: Ints | None, spots: Ints | None, shared: Names
    ) -> Relation:
        """Pairs of rows of both sides; None are all rows of a side."""
        columns = (
            dict(self.columns)
            if rows is None
            else {name: column.take(rows) for name, column in self.columns.items()}
        )
        for name, column in other.columns.items():
            if name not in columns:
                columns[name] = column if spots is None else column.take(spots)
        count = self.count if rows is None else len(rows)
        key: Names | None = None
        if self.key is not None and other.key is not None:
            if other.key <= shared:  # no row of this side met more than one of the other
                key = self.key
            else:
                key = other.key if self.key <= shared else self.key | other.key
        return Relation(columns, count, key)


_NO_NAMES: Names = frozenset()

UNIT = Relation({}, 1, _NO_NAMES)
"""The relation of no variable and one row: the start of every query."""

NOTHING = Relation({}, 0, _NO_NAMES)
"""The relation of no variable and no row: what failed."""


def union(parts: Sequence[Relation], names: Sequence[str], pool: ValuePool) -> Relation:
    """The rows of several relations over the same variables, equal rows once."""
    filled = [part for part in parts if part.count]
    if not filled:
        return empty(names, pool)
    if not names:
        return UNIT
    if len(filled) == 1:
        return filled[0].project(names)
    columns = {name: united([part.columns[name] for part in filled], pool) for name in names}
    return Relation(columns, sum(part.count for part in filled)).distinct()


def empty(names: Iterable[str], pool: ValuePool) -> Relation:
    """A relation without rows."""
    return Relation({name: Column("code", pool, _NONE) for name in names}, 0, _NO_NAMES)


_NONE = np.empty(0, dtype=np.int64)

"""Relations: rows of variables as columns, joined, filtered, projected and united.

All operations return new relations.  Rows form a set: dropping a variable may leave equal rows,
which `Relation.project` removes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from natalog.core.index.pool import Ints, ValuePool
from natalog.core.query.column import (
    Column,
    aligned,
    check_rows,
    first_of_each,
    matches,
    member,
    packed,
    packed_pair,
    united,
)


class Relation:
    """``columns``: variable name to `Column`; ``count``: rows (1 for the relation of no column)."""

    __slots__ = ("columns", "count")

    def __init__(self, columns: Mapping[str, Column], count: int) -> None:
        self.columns = dict(columns)
        self.count = count

    def take(self, rows: Any) -> Relation:
        """Some rows: a mask or row numbers."""
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        count = len(rows) if rows.dtype != np.bool_ else int(np.count_nonzero(rows))
        return Relation(columns, count)

    def with_column(self, name: str, column: Column) -> Relation:
        """The same rows with one more variable."""
        return Relation({**self.columns, name: column}, self.count)

    def project(self, names: Iterable[str], *, distinct: bool = True) -> Relation:
        """Only some variables, equal rows once."""
        columns = {name: self.columns[name] for name in names}
        if not columns:
            return Relation({}, min(self.count, 1))
        slim = Relation(columns, self.count)
        if not distinct or len(columns) == len(self.columns):
            return slim
        return slim.distinct()

    def distinct(self) -> Relation:
        """Equal rows once."""
        if self.count < 2:
            return self
        if not self.columns:
            return UNIT
        rows = first_of_each(self.key())
        return self if len(rows) == self.count else self.take(rows)

    def key(self) -> Ints:
        """One number a row, equal exactly for equal rows."""
        return packed([column.data for column in self.columns.values()])

    def join(self, other: Relation) -> Relation:
        """Natural join; the product where no variable is shared."""
        shared = [name for name in self.columns if name in other.columns]
        if not shared:
            return self.product(other)
        left, right = self._keys(other, shared)
        if len(left) > len(right):
            spots, rows = matches(right, left)
        else:
            rows, spots = matches(left, right)
        return self._combined(other, rows, spots)

    def product(self, other: Relation) -> Relation:
        """Every row with every row."""
        if not self.columns and self.count:
            return other
        if not other.columns and other.count:
            return self
        check_rows(self.count * other.count)
        rows = np.repeat(np.arange(self.count), other.count)
        spots = np.tile(np.arange(other.count), self.count)
        return self._combined(other, rows, spots)

    def without(self, other: Relation) -> Relation:
        """The rows that agree with no row of ``other`` on the variables of ``other``."""
        if not other.count:
            return self
        if not other.columns:
            return self.take(np.zeros(self.count, dtype=np.bool_))
        left, right = self._keys(other, list(other.columns))
        return self.take(~member(left, right))

    def matching(self, other: Relation) -> Relation:
        """The rows that agree with some row of ``other`` on the variables of ``other``."""
        if not other.columns:
            return self if other.count else self.take(np.zeros(self.count, dtype=np.bool_))
        left, right = self._keys(other, list(other.columns))
        return self.take(member(left, right))

    def _keys(self, other: Relation, shared: Sequence[str]) -> tuple[Ints, Ints]:
        pairs = [aligned(self.columns[name], other.columns[name]) for name in shared]
        return packed_pair([pair[0] for pair in pairs], [pair[1] for pair in pairs])

    def _combined(self, other: Relation, rows: Ints, spots: Ints) -> Relation:
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        for name, column in other.columns.items():
            if name not in columns:
                columns[name] = column.take(spots)
        return Relation(columns, len(rows))


UNIT = Relation({}, 1)
"""The relation of no variable and one row: the start of every query."""

NOTHING = Relation({}, 0)
"""The relation of no variable and no row: what failed."""


def union(parts: Sequence[Relation], names: Sequence[str], pool: ValuePool) -> Relation:
    """The rows of several relations over the same variables, equal rows once."""
    filled = [part for part in parts if part.count]
    if not filled:
        return empty(names, pool)
    if not names:
        return UNIT
    if len(filled) == 1:
        return filled[0].project(names, distinct=False).distinct()
    columns = {name: united([part.columns[name] for part in filled], pool) for name in names}
    return Relation(columns, sum(part.count for part in filled)).distinct()


def empty(names: Sequence[str], pool: ValuePool) -> Relation:
    """A relation without rows."""
    none = np.empty(0, dtype=np.int64)
    return Relation({name: Column("code", pool, none) for name in names}, 0)

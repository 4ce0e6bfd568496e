"""Aggregates of whole columns of numbers, where they give what `AGGREGATES` gives value by value.

Doubles are added in another order than one by one, which may change the last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from natalog.core.index.encoding import doubles
from natalog.core.index.pool import Ints
from natalog.core.query.column import Column
from natalog.core.query.keys import largest

_EXACT: Final = 2**53
"""Longs and their sums below it are exact as doubles."""
_SUM_MAX: Final = 2**62

Numbers = NDArray[Any]


class Groups:
    """``of``: the group of every row, 0 to ``count`` - 1; every group has rows."""

    __slots__ = ("_sizes", "count", "of")

    def __init__(self, of: Ints, count: int) -> None:
        self.of = of
        self.count = count
        self._sizes: Ints | None = None

    @property
    def sizes(self) -> Ints:
        """Rows of each group."""
        if self._sizes is None:
            self._sizes = np.bincount(self.of, minlength=self.count)
        return self._sizes

    def totals(self, data: Numbers) -> Numbers:
        """The sum of each group, in doubles."""
        if self.count == 1:
            return np.array([data.sum(dtype=np.float64)])
        return np.bincount(self.of, weights=data, minlength=self.count)


def fast_aggregate(name: str, column: Column, groups: Groups) -> list[Any] | None:
    """The aggregate of each group; None where it takes the values one by one."""
    if name == "count":
        return _listed(groups.sizes)
    compute = _COMPUTE.get(name)
    if compute is None or column.kind not in ("long", "double"):
        return None
    if column.kind == "long":
        data: Numbers = column.data
        if largest(data) * max(len(data), 1) >= (_SUM_MAX if name == "sum" else _EXACT):
            return None
    else:
        data = doubles(column.data)
        if not np.isfinite(data).all():
            return None
    return _listed(compute(data, groups))


def _listed(found: Any) -> list[Any]:
    listed: list[Any] = found.tolist()
    return listed


def _sum(data: Numbers, groups: Groups) -> Numbers:
    if data.dtype != np.int64:
        return groups.totals(data)
    if groups.count == 1:
        whole: Numbers = data.sum(keepdims=True)
        return whole
    if largest(data) * len(data) < _EXACT:
        return groups.totals(data).astype(np.int64)
    totals = np.zeros(groups.count, dtype=np.int64)
    np.add.at(totals, groups.of, data)
    return totals


def _mean(data: Numbers, groups: Groups) -> Numbers:
    return groups.totals(data) / groups.sizes


def _variance(data: Numbers, groups: Groups) -> Numbers:
    deviations = data - _mean(data, groups)[groups.of]
    return groups.totals(deviations * deviations) / groups.sizes


def _deviation(data: Numbers, groups: Groups) -> Numbers:
    return np.sqrt(_variance(data, groups))


def _median(data: Numbers, groups: Groups) -> Numbers:
    if groups.count == 1:
        ordered = np.sort(data)
        starts = np.zeros(1, dtype=np.int64)
    else:
        ordered = data[np.lexsort((data, groups.of))]
        starts = np.cumsum(groups.sizes) - groups.sizes
    upper = ordered[starts + groups.sizes // 2].astype(np.float64)
    lower = ordered[starts + (groups.sizes - 1) // 2].astype(np.float64)
    middle: Numbers = np.where(lower == upper, upper, (lower + upper) / 2)
    return middle


def _least(data: Numbers, groups: Groups) -> Numbers:
    return _extreme(data, groups, np.minimum)


def _greatest(data: Numbers, groups: Groups) -> Numbers:
    return _extreme(data, groups, np.maximum)


def _extreme(data: Numbers, groups: Groups, better: np.ufunc) -> Numbers:
    if groups.count == 1:
        found: Numbers = better.reduce(data, keepdims=True)
        return found
    best: Numbers = data[np.unique(groups.of, return_index=True)[1]].copy()
    better.at(best, groups.of, data)
    return best


_COMPUTE: Final[dict[str, Callable[[Numbers, Groups], Numbers]]] = {
    "sum": _sum,
    "avg": _mean,
    "variance": _variance,
    "stddev": _deviation,
    "median": _median,
    "min": _least,
    "max": _greatest,
}

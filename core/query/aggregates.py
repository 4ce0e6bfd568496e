"""The aggregates of ``:find``, one group at a time.

Sums, minima and maxima keep the class of their values; ``avg``, ``median``, ``variance`` and
``stddev`` of numbers are doubles; the variance is that of the whole population.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any, Final

from natalog.core.errors import QueryFunction
from natalog.core.forms import frozen_set
from natalog.core.query.functions_compare import greatest, least, sort_values
from natalog.core.query.mismatch import TypeMismatch
from natalog.core.query.numbers import add, is_integer, is_number, to_float
from natalog.core.values import value_key


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate: ``compute(values, *params)`` of the values of a group, at least one.

    ``min_params`` and ``max_params`` count what is written between its name and its variable.
    """

    name: str
    compute: Callable[..., Any]
    min_params: int = 0
    max_params: int = 0

    def check(self, params: Sequence[Any]) -> None:
        """Raise `QueryFunction` for a wrong number of parameters."""
        if not self.min_params <= len(params) <= self.max_params:
            raise QueryFunction(
                f"The aggregate {self.name} does not take {len(params)} parameters",
                function=self.name,
                arguments=list(params),
            )

    def apply(self, values: list[Any], *params: Any) -> Any:
        """The value of the aggregate.

        Raises `QueryFunction` for values of the wrong class and a wrong number of parameters.
        """
        self.check(params)
        try:
            return self.compute(values, *params)
        except TypeMismatch as mismatch:
            raise mismatch.as_error() from None


def total(values: list[Any]) -> Any:
    """``sum``.

    >>> total([1, 2.5]), total([1, 2])
    (3.5, 3)
    """
    return reduce(add, values, 0)


def average(values: list[Any]) -> float:
    """``avg``: the mean, a double."""
    return _mean(values, "avg")


def _mean(values: list[Any], function: str) -> float:
    _require_numbers(values, function)
    if any(isinstance(value, float) for value in values):
        return math.fsum(map(to_float, values)) / len(values) if _finite(values) else _plain(values)
    if all(map(is_integer, values)):
        return _quotient(sum(values), len(values))
    exact = sum((Fraction(value) for value in values), Fraction(0))
    return to_float(exact / len(values))


def _quotient(numerator: int, denominator: int) -> float:
    try:
        return numerator / denominator
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf


def _finite(values: list[Any]) -> bool:
    return all(math.isfinite(to_float(value)) for value in values)


def _plain(values: list[Any]) -> float:
    return sum(map(to_float, values)) / len(values)


def _require_numbers(values: list[Any], function: str) -> None:
    for value in values:
        if not is_number(value):
            raise TypeMismatch(function, value)


def median(values: list[Any]) -> Any:
    """``median``: the middle value, of numbers a double; of an even count the mean of the two."""
    ordered = sort_values(values, "median")
    middle = len(ordered) // 2
    if len(ordered) % 2 == 0:
        return _mean(ordered[middle - 1 : middle + 1], "median")
    found = ordered[middle]
    return to_float(found) if is_number(found) else found


def variance(values: list[Any]) -> float:
    """``variance`` of the population; 0.0 of a single value."""
    mean = _mean(values, "variance")
    if not math.isfinite(mean):
        return math.nan
    try:
        return math.fsum((to_float(value) - mean) ** 2 for value in values) / len(values)
    except OverflowError:
        return math.inf


def deviation(values: list[Any]) -> float:
    """``stddev``: the square root of the variance."""
    return math.sqrt(variance(values))


def distinct(values: list[Any]) -> Set[Any]:
    """``distinct``: the set of the values."""
    return frozen_set(values)


def count_distinct(values: list[Any]) -> int:
    """``count-distinct``: how many different values there are."""
    return len(set(map(value_key, values)))


def minimum(values: list[Any], *params: Any) -> Any:
    """``(min ?x)``: the smallest; ``(min n ?x)``: a vector of the n smallest, ascending."""
    if not params:
        return least(values, "min")
    return tuple(sort_values(values, "min")[: _size("min", params[0])])


def maximum(values: list[Any], *params: Any) -> Any:
    """``(max ?x)``: the largest; ``(max n ?x)``: a vector of the n largest, ascending."""
    if not params:
        return greatest(values, "max")
    size = _size("max", params[0])
    return tuple(sort_values(values, "max")[max(0, len(values) - size) :])


def _size(function: str, value: Any) -> int:
    if not is_integer(value) or value < 0:
        raise TypeMismatch(function, value)
    return int(value)


AGGREGATES: Final[dict[str, Aggregate]] = {
    "count": Aggregate("count", len),
    "count-distinct": Aggregate("count-distinct", count_distinct),
    "sum": Aggregate("sum", total),
    "avg": Aggregate("avg", average),
    "median": Aggregate("median", median),
    "variance": Aggregate("variance", variance),
    "stddev": Aggregate("stddev", deviation),
    "distinct": Aggregate("distinct", distinct),
    "min": Aggregate("min", minimum, 0, 1),
    "max": Aggregate("max", maximum, 0, 1),
}
"""Every aggregate by its name.  ``rand`` and ``sample`` are left out, as they are not
deterministic."""

"""Aggregates of one group of values."""

from __future__ import annotations

import math
import statistics
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natalog.core.database import Database
from natalog.core.errors import QueryFunction, QueryWhere
from natalog.core.limits import LONG_MAX
from natalog.core.query import q
from natalog.core.query.aggregates import AGGREGATES
from natalog.core.values import kw, same_value


def apply(name: str, values: list[Any], *params: Any) -> Any:
    return AGGREGATES[name].apply(values, *params)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("count", [1, 1, 2], 3),
        ("count-distinct", [1, 1.0, "1", kw("1"), True, 1], 5),
        ("sum", [1, 2, 3], 6),
        ("sum", [0.5, 1], 1.5),
        ("sum", [Decimal("1.10"), Decimal("2.90")], Decimal("4.00")),
        ("sum", [Fraction(1, 2), Fraction(1, 2)], 1),
        ("sum", [10**20, -1], 10**20 - 1),
        ("avg", [1, 2], 1.5),
        ("avg", [5, 5], 5.0),
        ("avg", [Decimal("1.5"), Decimal("1.85")], 1.675),
        ("avg", [Decimal(1), Decimal(1), Decimal(2)], 4 / 3),
        ("avg", [LONG_MAX, LONG_MAX], float(LONG_MAX)),
        ("median", [3, 1, 2], 2.0),
        ("median", [4, 1, 2, 3], 2.5),
        ("median", [7], 7.0),
        ("variance", [5], 0.0),
        ("variance", [10, 15, 20], 50 / 3),
        ("stddev", [10, 15, 20], math.sqrt(50 / 3)),
        ("min", ["b", "B", "a"], "B"),
        ("max", [1, 0.5], 1),
        ("min", [True, False], False),
        ("max", [kw("b"), kw("a/a")], kw("a/a")),
        ("max", [(1, "a"), (1, "b")], (1, "b")),
        ("distinct", [1, 2, 1], frozenset({1, 2})),
    ],
)
def test_values_and_classes(name: str, values: list[Any], expected: Any) -> None:
    found = apply(name, values)
    assert type(found) is type(expected)
    if isinstance(expected, float):
        assert found == pytest.approx(expected)
    else:
        assert same_value(found, expected)


def test_the_n_smallest_and_largest_ascend() -> None:
    assert apply("min", [3, 1, 2, 1], 3) == (1, 1, 2)
    assert apply("max", [3, 1, 2], 2) == (2, 3)
    assert apply("max", [3, 1], 5) == (1, 3)
    assert apply("min", [3, 1], 0) == ()
    assert apply("max", [3, 1], 0) == ()


def test_the_median_of_instants_is_an_instant() -> None:
    days = [datetime(2024, 1, day, tzinfo=UTC) for day in (3, 1, 2)]
    assert apply("median", days) == days[2]
    with pytest.raises(QueryFunction):
        apply("median", days[:2])


def test_distinct_tells_classes_apart() -> None:
    assert len(apply("distinct", [1, 1.0, True])) == 3
    hash(apply("distinct", [1, 1.0]))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sum", ["a"]),
        ("sum", [1, True]),
        ("avg", ["a", "b"]),
        ("variance", [kw("a")]),
        ("stddev", [None]),
        ("min", [1, "a"]),
        ("max", ["a", kw("a")]),
        ("median", [1, "a"]),
    ],
)
def test_values_of_the_wrong_class_are_an_error(name: str, values: list[Any]) -> None:
    with pytest.raises(QueryFunction):
        apply(name, values)


def test_wrong_parameters_are_an_error() -> None:
    for name, params in (("sum", (1,)), ("min", ("a",)), ("min", (-1,)), ("max", (1, 2))):
        with pytest.raises(QueryFunction):
            apply(name, [1, 2], *params)


@pytest.mark.parametrize(
    ("find", "error"), [("(foo ?e)", QueryWhere), ("(median 1 ?e)", QueryFunction)]
)
def test_aggregates_are_checked_where_nothing_is_found(find: str, error: type[Exception]) -> None:
    db = Database.empty()
    assert not db.datoms("eavt")
    with pytest.raises(error):
        q(f"[:find {find} :where [?e :db/ident ?v]]", db)


def test_a_sum_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(QueryFunction, match="64-bit"):
        apply("sum", [LONG_MAX, 1])


def test_infinities_and_nan_flow_through() -> None:
    assert apply("avg", [math.inf, 1.0]) == math.inf
    assert math.isnan(apply("avg", [math.inf, -math.inf]))
    assert math.isnan(apply("variance", [math.nan, 1.0]))


def test_aggregates_that_are_not_deterministic_do_not_exist() -> None:
    assert "rand" not in AGGREGATES and "sample" not in AGGREGATES


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1))
def test_statistics_agree_with_the_standard_library(values: list[int]) -> None:
    assert apply("avg", values) == pytest.approx(statistics.fmean(values))
    assert apply("median", values) == pytest.approx(statistics.median(values))
    assert apply("variance", values) == pytest.approx(statistics.pvariance(values), rel=1e-9)
    assert apply("min", values, 3) == tuple(sorted(values)[:3])

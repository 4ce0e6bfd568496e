"""Aggregates of whole columns equal those of single values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natalog.core.index.pool import ValuePool
from natalog.core.query.aggregates import AGGREGATES
from natalog.core.query.column import column_of
from natalog.core.query.fast_aggregates import Groups, fast_aggregate

NAMES = ("count", "sum", "avg", "variance", "stddev", "median", "min", "max")
LONGS = st.integers(-(2**63), 2**63 - 1) | st.integers(-50, 50)
DOUBLES = st.floats(-1e6, 1e6) | st.sampled_from([math.inf, -math.inf, 0.0])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), LONGS), min_size=1, max_size=30)
    | st.lists(st.tuples(st.integers(0, 3), DOUBLES), min_size=1, max_size=30)
)
def test_columns_aggregate_like_single_values(rows: list[tuple[int, float]]) -> None:
    _, of = np.unique([group for group, _ in rows], return_inverse=True)
    values = [value for _, value in rows]
    count = int(of.max()) + 1
    column = column_of(values, ValuePool())
    for name in NAMES:
        fast = fast_aggregate(name, column, Groups(of, count))
        if fast is None:
            continue
        for group in range(count):
            own = [value for value, number in zip(values, of, strict=True) if number == group]
            slow = AGGREGATES[name].apply(own)
            assert type(fast[group]) is type(slow)
            assert fast[group] == pytest.approx(slow, rel=1e-9, abs=1e-6)


def test_columns_without_an_exact_sum_are_left_to_single_values() -> None:
    huge = column_of([2**62, 2**62, 1], ValuePool())
    assert fast_aggregate("sum", huge, Groups(np.zeros(3, np.int64), 1)) is None
    text = column_of(["a", "b"], ValuePool())
    assert fast_aggregate("min", text, Groups(np.zeros(2, np.int64), 1)) is None
    assert fast_aggregate("count", text, Groups(np.zeros(2, np.int64), 1)) == [2]

"""Arithmetic, comparison and tests of numbers in queries."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natalog.core.errors import QueryFunction, QueryLimit
from natalog.core.limits import LONG_MAX, LONG_MIN, RANGE_ITEMS_MAX
from natalog.core.query.functions import FUNCTIONS
from natalog.core.query.mismatch import TypeMismatch
from natalog.core.values import same_value, value_key


def call(name: str, *args: Any) -> Any:
    builtin = FUNCTIONS[name]
    assert builtin.accepts(len(args))
    return builtin.call(*args)


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("+", (), 0),
        ("+", (4,), 4),
        ("+", (4, 1, 2, 3), 10),
        ("+", (1, 0.5), 1.5),
        ("+", (Decimal("0.2"), Decimal("0.1")), Decimal("0.3")),
        ("+", (Decimal("1.50"), 1), Decimal("2.50")),
        ("+", (Decimal("1.5"), 1.5), 3.0),
        ("+", (Fraction(1, 2), 1), Fraction(3, 2)),
        ("+", (Fraction(1, 2), Fraction(1, 2)), 1),
        ("+", (Fraction(1, 2), Decimal("0.5")), Decimal("1.0")),
        ("+", (10**19, 1), 10**19 + 1),
        ("-", (3,), -3),
        ("-", (-0.5,), 0.5),
        ("-", (10, 1, 1), 8),
        ("-", (1.0, 1), 0.0),
        ("*", (), 1),
        ("*", (7, 2, 5), 70),
        ("*", (2**62, 1.0), float(2**62)),
        ("*", (1e308, 10.0), math.inf),
        ("*", (10**19, -2), -2 * 10**19),
        ("/", (8, 2), 4),
        ("/", (7, 2), Fraction(7, 2)),
        ("/", (7, 2.0), 3.5),
        ("/", (2,), Fraction(1, 2)),
        ("/", (1.0,), 1.0),
        ("/", (Decimal(1), 8), Decimal("0.125")),
        ("/", (12, 2, 3), 2),
        ("quot", (7, 2), 3),
        ("quot", (-7, 2), -3),
        ("quot", (7, -2), -3),
        ("quot", (7.5, 2), 3.0),
        ("quot", (Fraction(7, 2), 1), 3),
        ("rem", (7, -2), 1),
        ("rem", (-7, 2), -1),
        ("rem", (7.5, 2), 1.5),
        ("mod", (-7, 2), 1),
        ("mod", (7, -2), -1),
        ("mod", (-7, -2), -1),
        ("mod", (6, 3), 0),
        ("mod", (-1.5, 2), 0.5),
        ("mod", (Decimal("-1.5"), 2), Decimal("0.5")),
        ("inc", (-1,), 0),
        ("dec", (0.5,), -0.5),
        ("zero?", (0.0,), True),
        ("pos?", (Decimal("0.1"),), True),
        ("neg?", (Fraction(-1, 3),), True),
        ("even?", (-4,), True),
        ("odd?", (-3,), True),
        ("range", (3,), (0, 1, 2)),
        ("range", (2, 5), (2, 3, 4)),
        ("range", (5, 0, -2), (5, 3, 1)),
        ("range", (0,), ()),
        ("range", (0, 1, 0.5), (0, 0.5)),
        ("range", (1.5,), (0, 1)),
    ],
)
def test_arithmetic(name: str, args: tuple[Any, ...], expected: Any) -> None:
    found = call(name, *args)
    assert same_value(found, expected), found


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("+", (LONG_MAX, 1)),
        ("-", (LONG_MIN, 1)),
        ("-", (LONG_MIN,)),
        ("*", (2**62, 2)),
        ("inc", (LONG_MAX,)),
        ("dec", (LONG_MIN,)),
        ("quot", (LONG_MIN, -1)),
    ],
)
def test_64_bits_do_not_wrap(name: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(QueryFunction, match="64-bit"):
        call(name, *args)


@pytest.mark.parametrize("name", ["/", "quot", "rem", "mod"])
@pytest.mark.parametrize("zero", [0, 0.0, Decimal(0)])
def test_division_by_zero(name: str, zero: Any) -> None:
    for dividend in (5, 5.0, Decimal(5), Fraction(1, 2)):
        with pytest.raises(QueryFunction, match="zero"):
            call(name, dividend, zero)


def test_a_decimal_that_does_not_end_is_an_error() -> None:
    with pytest.raises(QueryFunction, match="exact"):
        call("/", Decimal(1), 3)
    with pytest.raises(QueryFunction, match="exact"):
        call("+", Decimal(1), Fraction(1, 3))


def test_results_are_bounded() -> None:
    huge = 2**20_000
    with pytest.raises(QueryLimit):
        call("*", huge, huge)
    with pytest.raises(QueryLimit):
        call("range", RANGE_ITEMS_MAX + 1)
    with pytest.raises(QueryLimit):
        call("range", 0, 1, 0)
    with pytest.raises(QueryLimit):
        call("range", 0.0, 1, 1e-9)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("+", (1, "1")),
        ("+", ("a",)),
        ("-", (":a",)),
        ("inc", (True,)),
        ("*", (None, 1)),
        ("quot", ("7", 2)),
        ("zero?", ("0",)),
        ("pos?", (True,)),
        ("even?", (2.0,)),
        ("odd?", (None,)),
        ("range", ("3",)),
        ("==", (1, "1")),
        ("==", ("a",)),
    ],
)
def test_other_classes_do_not_match(name: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(TypeMismatch) as raised:
        call(name, *args)
    assert isinstance(raised.value.as_error(), QueryFunction)


numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9),
    st.fractions(max_denominator=1000),
)  # fmt: skip


@given(numbers, numbers)
def test_numbers_of_all_classes_are_in_one_order(left: Any, right: Any) -> None:
    exact_left, exact_right = Fraction(left), Fraction(right)
    assert call("<", left, right) == (exact_left < exact_right)
    assert call(">=", left, right) == (exact_left >= exact_right)
    assert call("==", left, right) == (exact_left == exact_right)
    assert call("compare", left, right) == (exact_left > exact_right) - (exact_left < exact_right)


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6).filter(bool))
def test_quotient_and_remainder_make_the_whole(left: int, right: int) -> None:
    quotient, remainder = call("quot", left, right), call("rem", left, right)
    assert quotient * right + remainder == left
    assert abs(remainder) < abs(right)
    assert call("mod", left, right) == left % right


def test_nan_compares_with_nothing() -> None:
    for name in ("<", "<=", ">", ">=", "=="):
        assert call(name, math.nan, 1) is False
        assert call(name, 1, math.nan) is False
    assert call("=", math.nan, math.nan) is True


def test_equality_tells_classes_apart() -> None:
    values = [1, 1.0, Decimal(1), True, "1"]
    for left in values:
        for right in values:
            assert call("=", left, right) == (left is right)
            assert call("not=", left, right) == (left is not right)
    assert call("=", Decimal("1.50"), Decimal("1.5"))
    assert call("==", 1, 1.0, Decimal(1), Fraction(1))
    assert value_key(call("/", 4, 2)) == value_key(2)

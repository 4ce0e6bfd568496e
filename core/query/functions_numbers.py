"""Arithmetic and tests of numbers: ``+ - * / quot rem mod inc dec zero? pos? even?`` and others."""

from __future__ import annotations

from functools import reduce
from typing import Any

from natalog.core.errors import QueryLimit
from natalog.core.limits import RANGE_ITEMS_MAX
from natalog.core.query.mismatch import TypeMismatch
from natalog.core.query.numbers import (
    add,
    divide,
    equal,
    is_integer,
    is_number,
    less,
    mod,
    multiply,
    negate,
    quot,
    rem,
    subtract,
)

__all__ = ["mod", "quot", "rem"]


def plus(*args: Any) -> Any:
    """The sum of the arguments; 0 of none."""
    return reduce(add, args, 0) if len(args) != 1 else _number("+", args[0])


def times(*args: Any) -> Any:
    """The product of the arguments; 1 of none."""
    return reduce(multiply, args, 1) if len(args) != 1 else _number("*", args[0])


def minus(first: Any, *rest: Any) -> Any:
    """The first argument less the others; of one its negative."""
    return reduce(subtract, rest, first) if rest else negate(_number("-", first))


def over(first: Any, *rest: Any) -> Any:
    """The first argument divided by the others; of one its inverse."""
    return reduce(divide, rest, first) if rest else divide(1, first)


def inc(value: Any) -> Any:
    return add(value, 1)


def dec(value: Any) -> Any:
    return subtract(value, 1)


def _number(function: str, value: Any) -> Any:
    if not is_number(value):
        raise TypeMismatch(function, value)
    return value


def is_zero(value: Any) -> bool:
    return equal(_number("zero?", value), 0)


def is_positive(value: Any) -> bool:
    return less(0, _number("pos?", value))


def is_negative(value: Any) -> bool:
    return less(_number("neg?", value), 0)


def _integer(function: str, value: Any) -> int:
    if not is_integer(value):
        raise TypeMismatch(function, value)
    return int(value)


def is_even(value: Any) -> bool:
    return _integer("even?", value) % 2 == 0


def is_odd(value: Any) -> bool:
    return _integer("odd?", value) % 2 == 1


def number_range(*args: Any) -> tuple[Any, ...]:
    """``(range end)``, ``(range start end)`` or ``(range start end step)``: the end is left out.

    Raises `QueryLimit` for more than ``RANGE_ITEMS_MAX`` numbers, as of a step of zero.
    """
    start, end, step = {1: (0, *args, 1), 2: (*args, 1)}.get(len(args), args)
    for value in args:
        _number("range", value)
    if is_integer(start) and is_integer(end) and is_integer(step) and step != 0:
        numbers = range(start, end, step)
        if numbers and (numbers[-1] - start) // step >= RANGE_ITEMS_MAX:
            raise _too_long(args)
        return tuple(numbers)
    if equal(step, 0) and not equal(start, end):
        raise _too_long(args)
    found: list[Any] = []
    upwards = less(0, step)
    while less(start, end) if upwards else less(end, start):
        if len(found) >= RANGE_ITEMS_MAX:
            raise _too_long(args)
        found.append(start)
        start = add(start, step)
    return tuple(found)


def _too_long(args: tuple[Any, ...]) -> QueryLimit:
    return QueryLimit(
        f"range makes more than {RANGE_ITEMS_MAX} numbers",
        arguments=list(args),
        limit=RANGE_ITEMS_MAX,
    )

"""Exact arithmetic over the numbers of a database: integers, ratios, decimals and doubles.

The result of an operation has the widest class of its arguments: double over decimal over ratio
over integer.  Integers of 64 bits stay within them (a sum that does not fit is an error); once an
argument is larger, integers are as large as they need to be.  A whole ratio is an integer.
Booleans are no numbers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from decimal import Context, Decimal, DecimalException, DivisionByZero, Inexact, InvalidOperation
from decimal import Overflow as DecimalOverflow
from fractions import Fraction
from typing import Any, Final

from natalog.core.errors import QueryFunction, QueryLimit
from natalog.core.limits import LONG_MAX, LONG_MIN, NUMBER_BITS_MAX
from natalog.core.query.mismatch import TypeMismatch

Number = int | float | Decimal | Fraction

EXACT: Final = Context(
    prec=10_000,
    Emax=999_999,
    Emin=-999_999,
    traps=[Inexact, InvalidOperation, DivisionByZero, DecimalOverflow],
)
"""Decimals never round: what cannot be written exactly is an error."""


def is_number(value: Any) -> bool:
    """Whether a value is a number; booleans are not."""
    return isinstance(value, (int, float, Decimal, Fraction)) and not isinstance(value, bool)


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def fits_long(value: int) -> bool:
    """Whether an integer fits 64 bits."""
    return LONG_MIN <= value <= LONG_MAX


def overflow(function: str, *args: Any) -> QueryFunction:
    """The error of an integer result that does not fit 64 bits."""
    return QueryFunction(
        f"The result of {function} does not fit a 64-bit integer",
        function=function,
        arguments=list(args),
    )


def divide_by_zero(function: str, *args: Any) -> QueryFunction:
    return QueryFunction(f"Divide by zero in {function}", function=function, arguments=list(args))


def _bounded(value: Any, function: str) -> Any:
    if isinstance(value, int):
        bits = value.bit_length()
    elif isinstance(value, Fraction):
        bits = value.numerator.bit_length() + value.denominator.bit_length()
    else:
        return value
    if bits > NUMBER_BITS_MAX:
        raise QueryLimit(
            f"The result of {function} has more than {NUMBER_BITS_MAX} bits",
            function=function,
            limit=NUMBER_BITS_MAX,
        )
    return value


def to_float(value: Number) -> float:
    """The nearest double; infinite when there is none."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def whole(value: Fraction) -> int | Fraction:
    """A ratio as an integer where it is whole."""
    return value.numerator if value.denominator == 1 else value


def to_decimal(value: Number, function: str) -> Decimal:
    """An integer, decimal or ratio as a decimal of the same value; `QueryFunction` if none is."""
    if isinstance(value, Decimal):
        return value
    try:
        if isinstance(value, Fraction):
            return EXACT.divide(Decimal(value.numerator), Decimal(value.denominator))
        return Decimal(value)
    except DecimalException as error:
        raise QueryFunction(
            f"{value} has no exact decimal in {function}", function=function
        ) from error


def widen(left: Any, right: Any, function: str) -> tuple[Any, Any]:
    """Both arguments in the wider of their classes.  Raises `TypeMismatch` for other values."""
    if not is_number(left) or not is_number(right):
        raise TypeMismatch(function, left, right)
    if isinstance(left, float) or isinstance(right, float):
        return to_float(left), to_float(right)
    if isinstance(left, Decimal) or isinstance(right, Decimal):
        return to_decimal(left, function), to_decimal(right, function)
    return left, right


def _decimal(function: str, compute: Callable[[Decimal, Decimal], Decimal]) -> Any:
    def run(left: Decimal, right: Decimal) -> Decimal:
        try:
            return compute(left, right)
        except DecimalException as error:
            raise QueryFunction(
                f"The result of {function} has no exact decimal",
                function=function,
                arguments=[left, right],
            ) from error

    return run


_DECIMALS: Final[dict[str, Callable[[Decimal, Decimal], Decimal]]] = {
    "+": _decimal("+", EXACT.add),
    "-": _decimal("-", EXACT.subtract),
    "*": _decimal("*", EXACT.multiply),
    "/": _decimal("/", EXACT.divide),
    "quot": _decimal("quot", EXACT.divide_int),
    "rem": _decimal("rem", EXACT.remainder),
}


def _combine(function: str, plain: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    if type(left) is int and type(right) is int:
        result = plain(left, right)
        if LONG_MIN <= result <= LONG_MAX:
            return result
        if fits_long(left) and fits_long(right):
            raise overflow(function, left, right)
        return _bounded(result, function)
    left, right = widen(left, right, function)
    if isinstance(left, float):
        return plain(left, right)
    if isinstance(left, Decimal):
        return _DECIMALS[function](left, right)
    result = plain(left, right)
    if isinstance(result, Fraction):
        return _bounded(whole(result), function)
    if not fits_long(result) and fits_long(int(left)) and fits_long(int(right)):
        raise overflow(function, left, right)
    return _bounded(result, function)


def add(left: Any, right: Any) -> Any:
    """The sum.  Raises `QueryFunction` on overflow and `TypeMismatch` for other values.

    >>> add(1, 0.5), add(Decimal("1.50"), 1), add(Fraction(1, 2), Fraction(1, 2))
    (1.5, Decimal('2.50'), 1)
    """
    return _combine("+", operator.add, left, right)


def subtract(left: Any, right: Any) -> Any:
    return _combine("-", operator.sub, left, right)


def multiply(left: Any, right: Any) -> Any:
    return _combine("*", operator.mul, left, right)


def divide(left: Any, right: Any) -> Any:
    """The quotient: an integer when two integers divide, else their ratio.

    >>> divide(8, 2), divide(7, 2), divide(7, 2.0)
    (4, Fraction(7, 2), 3.5)
    """
    left, right = widen(left, right, "/")
    if isinstance(left, float):
        if left != left or right != right:
            return math.nan
        if right == 0:
            raise divide_by_zero("/", left, right)
        return left / right
    if right == 0:
        raise divide_by_zero("/", left, right)
    if isinstance(left, Decimal):
        return _DECIMALS["/"](left, right)
    return _bounded(whole(Fraction(left) / Fraction(right)), "/")


def quot(left: Any, right: Any) -> Any:
    """The quotient without its fraction, towards zero."""
    left, right = widen(left, right, "quot")
    if right == 0:
        raise divide_by_zero("quot", left, right)
    if isinstance(left, float):
        return _trunc(left / right, "quot", left, right)
    if isinstance(left, Decimal):
        return _DECIMALS["quot"](left, right)
    result = abs(left) // abs(right)
    if (left < 0) != (right < 0):
        result = -result
    if not fits_long(result) and fits_long(int(left)) and fits_long(int(right)):
        raise overflow("quot", left, right)
    return int(result)


def _trunc(value: float, function: str, *args: Any) -> float:
    if not math.isfinite(value):
        raise QueryFunction(
            f"The result of {function} is no number", function=function, arguments=list(args)
        )
    return float(math.trunc(value))


def rem(left: Any, right: Any) -> Any:
    """The remainder of `quot`: it has the sign of ``left``."""
    left, right = widen(left, right, "rem")
    if right == 0:
        raise divide_by_zero("rem", left, right)
    if isinstance(left, float):
        return left - right * _trunc(left / right, "rem", left, right)
    if isinstance(left, Decimal):
        return _DECIMALS["rem"](left, right)
    result = abs(left) % abs(right)
    result = -result if left < 0 else result
    return whole(result) if isinstance(result, Fraction) else result


def mod(left: Any, right: Any) -> Any:
    """The remainder of the quotient rounded down: it has the sign of ``right``.

    >>> quot(-7, 2), rem(-7, 2), mod(-7, 2)
    (-3, -1, 1)
    """
    result = rem(left, right)
    if result == 0 or (left > 0) == (right > 0):
        return result
    return add(result, right)


def negate(value: Any) -> Any:
    return subtract(0, value) if not isinstance(value, float) else -value


def less(left: Any, right: Any) -> bool:
    """Whether a number is smaller than another of any class, exactly; never with NaN."""
    if isinstance(left, Fraction) and isinstance(right, Decimal):
        right = Fraction(right)
    elif isinstance(left, Decimal) and isinstance(right, Fraction):
        left = Fraction(left)
    if left != left or right != right:
        return False
    return bool(left < right)


def equal(left: Any, right: Any) -> bool:
    """Whether two numbers of any class have the same value; never with NaN."""
    if isinstance(left, Fraction) and isinstance(right, Decimal):
        right = Fraction(right)
    elif isinstance(left, Decimal) and isinstance(right, Fraction):
        left = Fraction(left)
    return bool(left == right)

"""Equality and order as queries see them: ``= == not= < <= > >= compare min max`` and others.

``=`` tells 1, 1.0, 1M and true apart; ``==`` compares numbers by size.  Order is defined between
numbers of any class, and within strings, keywords, symbols, booleans, instants, uuids and vectors;
between other classes it raises `TypeMismatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cmp_to_key
from itertools import pairwise
from typing import Any
from uuid import UUID

from natalog.core.query.mismatch import TypeMismatch
from natalog.core.query.numbers import equal, is_number, less
from natalog.core.values import Keyword, Symbol, same_value, sort_key, utf16, value_key

_NATIVE = (int, float)


def order(left: Any, right: Any, function: str = "compare") -> int:
    """-1, 0 or 1.  Raises `TypeMismatch` where the classes have no common order.

    >>> order(1, 1.5), order("b", "a"), order((1, 2), (1,))
    (-1, 1, 1)
    """
    kind = type(left)
    if kind is type(right) and kind in _NATIVE:
        return -1 if left < right else int(left > right)
    if is_number(left) and is_number(right):
        return -1 if less(left, right) else int(less(right, left))
    if isinstance(left, tuple | list) and isinstance(right, tuple | list):
        return _order_vectors(left, right, function)
    if kind is not type(right) or kind not in _ORDERED:
        raise TypeMismatch(function, left, right)
    a, b = sort_key(left), sort_key(right)
    return -1 if a < b else int(a > b)


_ORDERED = frozenset({str, Keyword, Symbol, bool, datetime, UUID, bytes})


def _order_vectors(left: Sequence[Any], right: Sequence[Any], function: str) -> int:
    if len(left) != len(right):
        return -1 if len(left) < len(right) else 1
    for a, b in zip(left, right, strict=True):
        if a is None or b is None:
            found = (a is not None) - (b is not None)
        else:
            found = order(a, b, function)
        if found:
            return found
    return 0


def is_less(left: Any, right: Any, function: str = "<") -> bool:
    """Whether ``left`` comes before ``right``; never with NaN."""
    kind = type(left)
    if kind is type(right):
        if kind in _NATIVE:
            return bool(left < right)
        if kind is str and left.isascii() and right.isascii():
            return bool(left < right)
    if is_number(left) and is_number(right):
        return less(left, right)
    return order(left, right, function) < 0


def is_at_most(left: Any, right: Any, function: str = "<=") -> bool:
    """Whether ``left`` does not come after ``right``; never with NaN."""
    if is_number(left) and is_number(right):
        return less(left, right) or equal(left, right)
    return order(left, right, function) <= 0


def _chain(test: Callable[[Any, Any, str], bool], function: str) -> Callable[..., bool]:
    def run(*args: Any) -> bool:
        holds = True
        for left, right in pairwise(args):
            # compare all neighbours: a later one of another class makes the whole a mismatch
            holds = test(left, right, function) and holds
        return holds

    return run


def _swapped(test: Callable[[Any, Any, str], bool]) -> Callable[[Any, Any, str], bool]:
    return lambda left, right, function: test(right, left, function)


lesser = _chain(is_less, "<")
lesser_equal = _chain(is_at_most, "<=")
greater = _chain(_swapped(is_less), ">")
greater_equal = _chain(_swapped(is_at_most), ">=")


def same(first: Any, *rest: Any) -> bool:
    """``=``: all arguments are the same value of the same class."""
    if len(rest) == 1:
        return same_value(first, rest[0])
    key = value_key(first)
    return all(value_key(item) == key for item in rest)


def not_same(first: Any, *rest: Any) -> bool:
    """``not=``: not all arguments are the same value."""
    return not same(first, *rest)


def same_number(first: Any, *rest: Any) -> bool:
    """``==``: numbers of any class with the same value.

    >>> same_number(1, 1.0), same(1, 1.0)
    (True, False)
    """
    for item in (first, *rest):
        if not is_number(item):
            raise TypeMismatch("==", first, *rest)
    return all(equal(left, right) for left, right in pairwise((first, *rest)))


def compare(left: Any, right: Any) -> int:
    """``compare``: negative, 0 or positive; nil comes first.

    The size of the number is Java's: for strings, keywords and symbols how far their first
    different characters, or their lengths, are apart.
    """
    if left is None or right is None:
        return (left is not None) - (right is not None)
    if type(left) is str and type(right) is str:
        return _distance(left, right)
    if isinstance(left, (Keyword, Symbol)) and type(left) is type(right):
        return _compare_names(left, right)
    return order(left, right)


def _distance(left: str, right: str) -> int:
    a, b = utf16(left), utf16(right)
    for spot in range(0, min(len(a), len(b)), 2):
        if a[spot : spot + 2] != b[spot : spot + 2]:
            units = (int.from_bytes(text[spot : spot + 2], "big") for text in (a, b))
            return next(units) - next(units)
    return (len(a) - len(b)) // 2


def _compare_names(left: Keyword | Symbol, right: Keyword | Symbol) -> int:
    if left == right:
        return 0
    if left.namespace is None or right.namespace is None:
        if left.namespace is not right.namespace:
            return -1 if left.namespace is None else 1
    elif left.namespace != right.namespace:
        return _distance(left.namespace, right.namespace)
    return _distance(left.name, right.name)


def differ(*args: Any) -> bool:
    """``-differ?``: whether the first half of the arguments differs from the second."""
    half = -(-len(args) // 2)
    return not same_value(args[:half], args[half:])


def sort_values(values: Sequence[Any], function: str) -> list[Any]:
    """The values in order, equal ones as they came.  Raises `TypeMismatch`."""
    kinds = {type(value) for value in values}
    if len(kinds) == 1 and kinds <= {int, str, Keyword, bool, datetime}:
        return sorted(values, key=sort_key if str in kinds else None)
    return sorted(values, key=cmp_to_key(lambda left, right: order(left, right, function)))


def least(values: Sequence[Any], function: str = "min") -> Any:
    """The first of the smallest values.  Raises `TypeMismatch` for classes without an order."""
    found = values[0]
    for value in values[1:]:
        if order(value, found, function) < 0:
            found = value
    return found


def greatest(values: Sequence[Any], function: str = "max") -> Any:
    """The first of the largest values."""
    found = values[0]
    for value in values[1:]:
        if order(value, found, function) > 0:
            found = value
    return found

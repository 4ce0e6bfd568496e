"""Collections and logic: ``vector set hash-map count contains? not and or`` and others.

Results are hashable: vectors are tuples, maps are `FrozenMap`, sets are frozen.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from natalog.core.errors import QueryFunction
from natalog.core.forms import frozen_set
from natalog.core.printing import pr_str
from natalog.core.query.functions_compare import greatest, least, sort_values
from natalog.core.query.functions_strings import units
from natalog.core.query.mismatch import TypeMismatch
from natalog.core.query.numbers import is_integer
from natalog.core.values import EdnList, FrozenMap, same_value, value_key


def truthy(value: Any) -> bool:
    """Whether a value counts as true: everything but nil and false."""
    return value is not None and value is not False


def items(value: Any, function: str) -> Sequence[Any]:
    """The items of a collection: of a map its entries, of a string its characters, of nil none.

    Raises `TypeMismatch` for what is no collection.
    """
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple, EdnList):
        return value
    if value is None:
        return ()
    if isinstance(value, dict):
        return tuple(value.items())
    if isinstance(value, Set):
        return tuple(value)
    if isinstance(value, str):
        return tuple(value)
    raise TypeMismatch(function, value)


def vector(*args: Any) -> tuple[Any, ...]:
    return args


def edn_list(*args: Any) -> EdnList:
    return EdnList(args)


def to_set(value: Any) -> Set[Any]:
    """``set``: the different items of a collection."""
    return frozen_set(items(value, "set"))


def hash_map(*args: Any) -> FrozenMap:
    """``hash-map``: of keys and values in turn."""
    if len(args) % 2:
        raise TypeMismatch("hash-map", *args)
    return FrozenMap(zip(args[::2], args[1::2], strict=True))


def count(value: Any) -> int:
    """``count``: the number of items, or of the UTF-16 units of a string; 0 of nil."""
    if isinstance(value, str):
        return units(value)
    if isinstance(value, (list, tuple, dict, Set, bytes)):
        return len(value)
    if value is None:
        return 0
    raise QueryFunction(f"{pr_str(value)} cannot be counted", function="count", arguments=[value])


def is_empty(value: Any) -> bool:
    """``empty?``: whether a collection or string has nothing in it; nil has nothing.

    >>> is_empty(""), is_empty((1,)), is_empty(None)
    (True, False, True)
    """
    return not items(value, "empty?")


def not_empty(value: Any) -> Any:
    """``not-empty``: the collection itself, nil when there is nothing in it."""
    return value if items(value, "not-empty") else None


def contains(collection: Any, key: Any) -> bool:
    """``contains?``: whether a map has a key, a set a member, a vector or string a position."""
    if collection is None:
        return False
    if isinstance(collection, EdnList):
        raise TypeMismatch("contains?", collection, key)
    if isinstance(collection, (list, tuple)):
        return is_integer(key) and 0 <= key < len(collection)
    if isinstance(collection, str):
        if not is_integer(key):
            raise TypeMismatch("contains?", collection, key)
        return bool(0 <= key < units(collection))
    if isinstance(collection, (dict, Set)):
        return _member(collection, key)
    raise TypeMismatch("contains?", collection, key)


def _member(collection: dict[Any, Any] | Set[Any], key: Any) -> bool:
    if isinstance(collection, (frozenset, set, dict)) and isinstance(key, str):
        return key in collection
    wanted = value_key(key)
    return any(value_key(item) == wanted for item in collection)


def identity(value: Any) -> Any:
    return value


def identical(left: Any, right: Any) -> bool:
    return same_value(left, right)


# --- logic --------------------------------------------------------------------------------------


def is_true(value: Any) -> bool:
    return value is True


def is_false(value: Any) -> bool:
    return value is False


def is_nil(value: Any) -> bool:
    return value is None


def is_some(value: Any) -> bool:
    return value is not None


def negation(value: Any) -> bool:
    return not truthy(value)


def conjunction(*args: Any) -> Any:
    """``and``: the first argument that does not count as true, or the last; true of none."""
    found: Any = True
    for found in args:
        if not truthy(found):
            break
    return found


def disjunction(*args: Any) -> Any:
    """``or``: the first argument that counts as true, or the last; nil of none."""
    found: Any = None
    for found in args:
        if truthy(found):
            break
    return found


# --- the smallest and the largest ---------------------------------------------------------------


def minimum(*args: Any) -> Any:
    """``(min coll)``: the smallest item; ``(min n coll)``: a vector of the n smallest."""
    if len(args) == 1:
        found = items(args[0], "min")
        return least(found) if found else None
    return tuple(sort_values(items(args[1], "min"), "min")[: _size("min", args[0])])


def maximum(*args: Any) -> Any:
    """``(max coll)``: the largest item; ``(max n coll)``: a vector of the n largest, ascending."""
    if len(args) == 1:
        found = items(args[0], "max")
        return greatest(found) if found else None
    ordered = sort_values(items(args[1], "max"), "max")
    return tuple(ordered[max(0, len(ordered) - _size("max", args[0])) :])


def _size(function: str, value: Any) -> int:
    if not is_integer(value) or value < 0:
        raise TypeMismatch(function, value)
    return int(value)

"""From the values that callers write to the values that are stored; strict about classes.

Classes never mix: an integer is no double, text is no number.  Two liberties exist for callers
without keywords: ``":male"`` is a keyword where the attribute holds keywords, and under an
attribute that was itself written as a string (JSON, Python) text becomes the uuid, instant, symbol
or decimal that the attribute declares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final
from uuid import UUID

from natalog.core.errors import TransactMaxLength, TransactSchema, TransactSyntax
from natalog.core.limits import TUPLE_LENGTH_MAX
from natalog.core.shown import brief, shown
from natalog.core.transact.plans import EXACT, Caps, Plan
from natalog.core.values import (
    Doubles,
    EdnList,
    Float32,
    Floats,
    FrozenMap,
    Int32,
    Keyword,
    Symbol,
    instant_ms,
    is_long,
    ms_instant,
    sort_key,
)

_MISMATCH: Final = object()
_STORABLE: Final = (
    str,
    int,
    float,
    Keyword,
    Symbol,
    UUID,
    Decimal,
    Fraction,
    bytes,
    tuple,
    Set,
)
"""What an undeclared attribute takes (bool is an int, Regex and Tagged are tuples)."""


ARRAYS: Final[dict[str, type[Doubles] | type[Floats]]] = {
    "double-array": Doubles,
    "float-array": Floats,
}
"""The classes of array values by their type."""


def stored_value(
    plan: Plan, value: Any, text: bool, caps: Caps, resolve: Callable[[Any], int] | None = None
) -> Any:
    """The value to store for a scalar or tuple attribute (references are resolved elsewhere).

    ``resolve`` turns what names an entity inside a tuple into its id.  Raises `TransactSchema` for
    another class than declared, `TransactSyntax` for nil and for tuples of another shape,
    `TransactMaxLength`.
    """
    if value is None:
        raise TransactSyntax(
            f"Attribute {plan.ident} was given nil, which is no value.", attribute=plan.ident
        )
    kind = plan.value_type
    if kind is None:
        found = _MISMATCH
        declared = plan.attribute.declared_type
        if text and type(value) is str and declared is not None:
            found = _of_kind(value, declared, True)
        found = plain(value) if found is _MISMATCH else found
        if plan.attribute.max_length is not None and isinstance(found, str | bytes):
            _check_length(plan, found, None)
        return found
    if kind == "tuple":
        return _tuple_value(plan, value, text, caps, resolve)
    found = _of_kind(value, kind, text, bare=plan.schema)
    if found is _MISMATCH:
        raise TransactSchema(
            f"Value {shown(value)} of {plan.ident} is no {kind}.",
            attribute=plan.ident,
            value=brief(value),
            value_type=kind,
        )
    if kind == "string":
        _check_length(plan, found, caps.string)
    elif kind == "bytes" or kind in ARRAYS:
        _check_length(plan, found, caps.bytes)
    return found


def _array(value: Any, kind: str) -> Any:
    """The array of a Python sequence of numbers, or ``_MISMATCH``."""
    if not all(type(number) in (int, float) for number in value):
        return _MISMATCH
    return ARRAYS[kind](value)


def _check_length(plan: Plan, value: Any, cap: int | None) -> None:
    bound = plan.attribute.max_length
    if cap is not None and (bound is None or cap < bound):
        bound = cap
    if bound is not None and len(value) > bound:
        raise TransactMaxLength(
            f"A value of {plan.ident} is {len(value)} long; at most {bound} is allowed.",
            attribute=plan.ident,
            length=len(value),
            max_length=bound,
        )


def _of_kind(value: Any, kind: str, text: bool, *, bare: bool = False) -> Any:
    """``value`` as a stored value of the type ``kind``, or ``_MISMATCH``.

    ``bare``: text names a keyword also without a colon, as in a declaration written in strings.
    """
    if type(value) is EXACT.get(kind):
        return value if kind != "long" or is_long(value) else _MISMATCH
    if kind == "instant":
        if isinstance(value, datetime) and value.tzinfo is not None:
            return _milliseconds(value)
    elif kind == "float":
        if isinstance(value, float):
            return float(value)
    elif kind == "number":
        if isinstance(value, bool):
            return _MISMATCH
        if isinstance(value, Float32):
            return float(value)
        if isinstance(value, Int32):
            return int(value)
        if isinstance(value, int | float | Decimal | Fraction):
            return value
    elif kind == "bigint":
        if isinstance(value, Int32):
            return int(value)
    elif kind in ARRAYS:
        if type(value) is ARRAYS[kind]:
            return value
        if text and isinstance(value, (list, tuple)):
            return _array(value, kind)
    elif kind == "bytes":
        if isinstance(value, bytearray | memoryview):
            return bytes(value)
    elif kind == "uuid":
        if isinstance(value, UUID):
            return value
    elif kind == "keyword" and type(value) is str and len(value) > 1 and value[0] == ":":
        return Keyword(value)
    if text and type(value) is str:
        if kind == "keyword" and bare and value not in ("", ":"):
            return Keyword(value)
        return _from_text(value, kind)
    return _MISMATCH


def _from_text(value: str, kind: str) -> Any:
    try:
        if kind == "uuid":
            return UUID(value)
        if kind == "instant":
            at = datetime.fromisoformat(value)
            return _milliseconds(at if at.tzinfo is not None else at.replace(tzinfo=UTC))
        if kind == "symbol":
            return Symbol(value)
        if kind == "bigdec":
            return Decimal(value)
    except (ValueError, InvalidOperation):
        pass
    return _MISMATCH


def _milliseconds(at: datetime) -> datetime:
    if at.tzinfo is UTC and at.microsecond % 1000 == 0:
        return at
    return ms_instant(instant_ms(at))


def _tuple_value(
    plan: Plan, value: Any, text: bool, caps: Caps, resolve: Callable[[Any], int] | None
) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise TransactSyntax(
            f"Value {shown(value)} of {plan.ident} is no tuple with elements.",
            attribute=plan.ident,
            value=brief(value),
        )
    if isinstance(value, EdnList):
        raise TransactSchema(
            f"Value {shown(value)} of {plan.ident} is a list, not a vector.",
            attribute=plan.ident,
            value=brief(value),
        )
    attribute = plan.attribute
    if attribute.tuple_types is not None:
        if len(value) != len(attribute.tuple_types):
            raise TransactSyntax(
                f"A tuple of {plan.ident} has {len(attribute.tuple_types)} elements, "
                f"not {len(value)}: {shown(value)}.",
                attribute=plan.ident,
                value=brief(value),
            )
        kinds = attribute.tuple_types
        return tuple(
            _slot(plan, slot, kind, text, caps, resolve)
            for slot, kind in zip(value, kinds, strict=True)
        )
    one = attribute.tuple_type
    if len(value) > TUPLE_LENGTH_MAX and not plan.schema:
        raise TransactSyntax(
            f"A tuple of {plan.ident} has at most {TUPLE_LENGTH_MAX} elements, not {len(value)}.",
            attribute=plan.ident,
            value=brief(value),
        )
    if one is None:
        return tuple(plain(slot) for slot in value)
    return tuple(_slot(plan, slot, one, text, caps, resolve) for slot in value)


def _slot(
    plan: Plan,
    slot: Any,
    kind: str,
    text: bool,
    caps: Caps,
    resolve: Callable[[Any], int] | None,
) -> Any:
    if kind == "ref" and resolve is not None and slot is not None:
        return resolve(slot)
    found = _MISMATCH
    if slot is not None:
        found = _of_kind(slot, "long" if kind == "ref" else kind, text, bare=plan.schema)
    if found is _MISMATCH:
        raise TransactSyntax(
            f"Element {shown(slot)} of a tuple of {plan.ident} is no {kind}.",
            attribute=plan.ident,
            value=brief(slot),
            value_type=kind,
        )
    if caps.slot is not None and isinstance(found, str | bytes) and len(found) > caps.slot:
        raise TransactMaxLength(
            f"An element of a tuple of {plan.ident} is {len(found)} long; "
            f"at most {caps.slot} is allowed.",
            attribute=plan.ident,
            length=len(found),
            max_length=caps.slot,
        )
    return found


def plain(value: Any) -> Any:
    """A value of an undeclared attribute as it is stored: immutable, instants in milliseconds."""
    kind = type(value)
    if kind is datetime and value.tzinfo is not None:
        return _milliseconds(value)
    if kind is Float32:
        return float(value)
    if kind is Int32:
        return int(value)
    if kind is Doubles or kind is Floats:
        return value
    if kind is list or kind is tuple:
        return tuple(map(plain, value))
    if isinstance(value, dict):
        return FrozenMap((plain(k), plain(v)) for k, v in value.items())
    if kind is bytearray or kind is memoryview:
        return bytes(value)
    if kind is set:
        return frozenset(value)
    if isinstance(value, _STORABLE):
        return value
    raise TransactSchema(
        f"Value {shown(value)} is of no class that can be stored.", value=repr(value)
    )


def is_collection(value: Any) -> bool:
    """Whether a map's value under a many-valued attribute stands for several values."""
    return isinstance(value, list | tuple | Set) and not _is_record(value)


def members(values: Any) -> Iterable[Any]:
    """The elements of a collection; those of a set in index order, so that new ids are the same."""
    return sorted(values, key=sort_key) if isinstance(values, Set) else values


def _is_record(value: Any) -> bool:
    return hasattr(value, "_fields")

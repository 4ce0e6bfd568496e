"""How values become 64-bit integers in a column, and back.

Every value column of an index is an ``int64`` array.  Longs, refs, instants (milliseconds) and
booleans stand for themselves; doubles are stored as order-preserving bits; everything else is a
code of the database's `ValuePool`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from natalog.core.index.pool import Ints, ValuePool
from natalog.core.limits import LONG_MAX, LONG_MIN
from natalog.core.values import instant_ms, ms_instant, sort_key

Kind = Literal["long", "double", "boolean", "instant", "code"]
"""The encoding of a value column."""

_KINDS: Final[dict[str | None, Kind]] = {
    "long": "long",
    "ref": "long",
    "double": "double",
    "float": "double",
    "boolean": "boolean",
    "instant": "instant",
}
_SIGN_FOLD: Final = 0x7FFF_FFFF_FFFF_FFFF
_NAN_BITS: Final = LONG_MAX
_EPOCH: Final = ms_instant(0)
_MS: Final = timedelta(milliseconds=1)


def kind_of(value_type: str | None) -> Kind:
    """The encoding of an attribute's value type; undeclared attributes use codes."""
    return _KINDS.get(value_type, "code")


def double_bits(number: float) -> int:
    """Order-preserving bits of a double; -0.0 is 0.0, NaN the largest."""
    if number != number:
        return _NAN_BITS
    if number == 0.0:
        return 0
    bits: int = struct.unpack("<q", struct.pack("<d", number))[0]
    return bits if bits >= 0 else bits ^ _SIGN_FOLD


def bits_double(bits: int) -> float:
    """The double of `double_bits`."""
    raw = bits if bits >= 0 else bits ^ _SIGN_FOLD
    number: float = struct.unpack("<d", struct.pack("<q", raw))[0]
    return number


def doubles(bits: Ints) -> NDArray[np.float64]:
    """The doubles of a column of order-preserving bits."""
    return np.where(bits < 0, bits ^ _SIGN_FOLD, bits).view(np.float64)


def double_column(numbers: NDArray[np.float64]) -> Ints:
    """Order-preserving bits of a column of doubles."""
    clean = np.where(numbers == 0.0, 0.0, numbers)
    bits = clean.view(np.int64)
    folded = np.where(bits < 0, bits ^ _SIGN_FOLD, bits)
    return np.where(np.isnan(clean), _NAN_BITS, folded)


def encode(value: Any, kind: Kind, pool: ValuePool) -> int:
    """The column entry of a value that has the class of ``kind``."""
    if kind == "code":
        return pool.code(value)
    if kind == "instant":
        return instant_ms(value)
    if kind == "double":
        return double_bits(value)
    return int(value)


def encode_many(values: Sequence[Any], kind: Kind, pool: ValuePool) -> Ints:
    """The column of values that all have the class of ``kind``."""
    if kind == "code":
        return pool.codes(values)
    if kind == "double":
        return double_column(np.array(values, dtype=np.float64))
    if kind == "instant":
        return np.array([instant_ms(value) for value in values], dtype=np.int64)
    return np.array(values, dtype=np.int64)


def encode_list(values: Sequence[Any], kind: Kind, pool: ValuePool) -> list[int]:
    """`encode_many` as plain integers, for some values."""
    if kind == "code":
        return pool.code_list(values)
    if kind == "double":
        return list(map(double_bits, values))
    return list(map(instant_ms if kind == "instant" else int, values))


def find(value: Any, kind: Kind, pool: ValuePool) -> int | None:
    """The column entry of a value, or None when no fact of this kind can have it."""
    if kind == "code":
        code = pool.find(value)
        return None if code < 0 else code
    if kind == "long":
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value) if LONG_MIN <= value <= LONG_MAX else None
        return None
    if kind == "double":
        return double_bits(value) if isinstance(value, float) else None
    if kind == "boolean":
        return int(value) if isinstance(value, bool) else None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return instant_ms(value)
    return None


def decode_one(entry: int, kind: Kind, pool: ValuePool) -> Any:
    """The value of one column entry."""
    if kind == "code":
        return pool.values[entry]
    if kind == "long":
        return entry
    if kind == "double":
        return bits_double(entry)
    if kind == "boolean":
        return bool(entry)
    return ms_instant(entry)


def decode(column: Ints, kind: Kind, pool: ValuePool) -> list[Any]:
    """The values of a column, as Python objects."""
    values: list[Any]
    if kind == "code":
        values = pool.decode(column).tolist()
    elif kind == "long":
        values = column.tolist()
    elif kind == "double":
        values = doubles(column).tolist()
    elif kind == "boolean":
        values = (column != 0).tolist()
    else:
        values = [_EPOCH + ms * _MS for ms in column.tolist()]
    return values


def in_order(values: list[Any], kind: Kind) -> list[Any]:
    """A few values of an attribute in index order, from the order of their column entries."""
    if kind == "code" and len(values) > 1:
        if all(type(value) is str and value.isascii() for value in values):
            values.sort()
        else:
            values.sort(key=sort_key)
    return values


def order_of(column: Ints, kind: Kind, pool: ValuePool) -> Ints:
    """Numbers that order like the values of a column do."""
    return pool.ranks(column) if kind == "code" else column

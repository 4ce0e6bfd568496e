"""Interned values: a column stores a 64-bit code, the pool the value behind it.

Codes are handed out in order of first use and never change, so that equal values have equal codes
in every version and branch of one database.  Codes say nothing about order: `ValuePool.ranks`
does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from natalog.core.values import PLAIN_CLASSES, Keyword, sort_key, value_key

Ints = NDArray[np.int64]

_ORDERS_MAX: Final = 256
_ORDER_LENGTH_MAX: Final = 128
"""Sets of attributes whose order is kept, and the size of such a set."""


class _Unused:
    """Stands in a pool for a code whose value is not known, as no fact has it."""

    def __repr__(self) -> str:
        return "unused"


_UNUSED: Final = _Unused()


class ValuePool:
    """Values by code and codes by value.  Grows only; safe to read while another thread adds."""

    __slots__ = (
        *("_codes", "_column", "_epoch", "_in_column", "_lock", "_orders", "_rank_cache"),
        *("_values", "agreed", "values"),
    )

    values: Sequence[Any]
    """The value of each code, for reading one: 10 nanoseconds, where an array takes 60."""

    def __init__(self) -> None:
        self._codes: dict[Any, int] = {}
        self._values: list[Any] = []
        self.values = self._values
        self._column: NDArray[np.object_] = np.empty(64, dtype=object)
        """The first ``_in_column`` values, for reading many."""
        self._in_column = 0
        self._lock = Lock()
        self._epoch = 0
        self._rank_cache: tuple[tuple[int, int], Ints] | None = None
        self._orders: dict[tuple[int, ...], tuple[Keyword, ...]] = {}
        self.agreed: set[str] = set()
        """Names of stored parts of dictionaries that say of their codes what this pool says."""

    @property
    def root(self) -> ValuePool:
        """The pool that says what codes mean in leaves which several values share."""
        return self

    def __len__(self) -> int:
        return len(self._values)

    def code(self, value: Any) -> int:
        """The code of ``value``, new if the pool has not seen it."""
        key = value if type(value) in PLAIN_CLASSES else value_key(value)
        found = self._codes.get(key)
        if found is not None:
            return found
        with self._lock:
            found = self._codes.get(key)
            if found is not None:
                return found
            code = len(self._values)
            self._values.append(tuple(value) if isinstance(value, list) else value)
            self._codes[key] = code
            return code

    def adopt(self, codes: Ints, values: Sequence[Any]) -> bool:
        """Take over values with the codes they have elsewhere (ascending).

        False, and nothing is changed, where this pool has another value for a code or another code
        for a value.  Codes in between stay unused, for ever if nobody brings their values.
        """
        if not len(codes):
            return True
        keys = [value if type(value) is str else value_key(value) for value in values]
        numbers: list[int] = codes.tolist()
        with self._lock:
            known = self._codes
            size = len(self._values)
            missing = []
            for spot, (key, code) in enumerate(zip(keys, numbers, strict=True)):
                found = known.get(key)
                if found is None:
                    if code < size and self._values[code] is not _UNUSED:
                        return False
                    missing.append(spot)
                elif found != code:
                    return False
            if not missing:
                return True
            self._values.extend([_UNUSED] * (numbers[-1] + 1 - size))
            for spot in missing:
                value = values[spot]
                self._values[numbers[spot]] = tuple(value) if isinstance(value, list) else value
            self._in_column = min(self._in_column, numbers[missing[0]])
            for spot in missing:
                known[keys[spot]] = numbers[spot]
            self._epoch += 1
        return True

    def codes(self, values: Iterable[Any]) -> Ints:
        """The codes of several values, new ones for those the pool has not seen."""
        return np.array(self.code_list(values), dtype=np.int64)

    def code_list(self, values: Iterable[Any]) -> list[int]:
        """`codes` as plain integers."""
        values = values if isinstance(values, (list, tuple)) else list(values)
        code = self.code
        if not PLAIN_CLASSES.issuperset(map(type, values)):  # some are not their own key
            return [code(value) for value in values]
        found = list(map(self._codes.get, values))
        if None not in found:
            return found  # type: ignore[return-value]
        return [
            code(value) if one is None else one for one, value in zip(found, values, strict=True)
        ]

    def find(self, value: Any) -> int:
        """The code of ``value``, or -1 when no fact ever had it."""
        key = value if type(value) in PLAIN_CLASSES else value_key(value)
        return self._codes.get(key, -1)

    def in_order(self, codes: tuple[int, ...]) -> tuple[Keyword, ...]:
        """The keywords of some codes, in order.

        Kept, since entities have one of a few sets of attributes: sorting these again takes as
        long as reading the values does.
        """
        found = self._orders.get(codes)
        if found is None:
            found = tuple(sorted(map(self.values.__getitem__, codes), key=_order_of))
            if len(self._orders) >= _ORDERS_MAX:
                self._orders.clear()
            if len(codes) <= _ORDER_LENGTH_MAX:
                self._orders[codes] = found
        return found

    def decode(self, codes: Ints) -> NDArray[np.object_]:
        """The values of many codes."""
        if self._in_column < len(self._values):
            self._complete()
        return self._column.take(codes)

    def _complete(self) -> None:
        """Bring the column up to date."""
        with self._lock:
            done, size = self._in_column, len(self._values)
            column = self._column
            if size > len(column):
                column = np.empty(max(2 * len(column), size), dtype=object)
                column[:done] = self._column[:done]
            column[done:size] = np.fromiter(self._values[done:size], object, size - done)
            self._column = column
            self._in_column = size

    def ranks(self, codes: Ints) -> Ints:
        """Numbers that order like the values of ``codes`` do (see `natalog.core.values`).

        O(d log d) for d distinct codes; the ranks of a whole pool are kept until it grows.
        """
        cache = self._rank_cache
        size = len(self._values)
        state = (size, self._epoch)
        if cache is not None and cache[0] == state:
            return cache[1][codes]
        distinct, inverse = np.unique(codes, return_inverse=True)
        if 2 * len(distinct) >= size:
            order = sorted(range(size), key=lambda code: sort_key(self._values[code]))
            table = np.empty(size, dtype=np.int64)
            table[order] = np.arange(size)
            self._rank_cache = (state, table)
            return table[codes]
        keys = [sort_key(value) for value in self.decode(distinct).tolist()]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        local = np.empty(len(keys), dtype=np.int64)
        local[order] = np.arange(len(keys))
        return local[inverse]


def _order_of(attr: Keyword) -> tuple[bool, bytes, bytes]:
    return attr.sort


class _Both(Sequence[Any]):
    """The values of a `ScratchPool`: those of its base, and its own."""

    __slots__ = ("_base", "_own")

    def __init__(self, base: Sequence[Any], own: Sequence[Any]) -> None:
        self._base = base
        self._own = own

    def __len__(self) -> int:
        return ScratchPool.FIRST + len(self._own)

    def __getitem__(self, code: Any) -> Any:
        first = ScratchPool.FIRST
        return self._base[code] if code < first else self._own[code - first]


class ScratchPool(ValuePool):
    """A pool for values that nobody keeps, as speculation makes them.

    It knows what ``base`` knew when it was made, and takes everything else in itself, under codes
    that ``base`` never reaches: what is tried out and thrown away leaves no trace.
    """

    __slots__ = ("_base",)

    FIRST: Final = 1 << 48
    """The first code of its own."""

    def __init__(self, base: ValuePool) -> None:
        super().__init__()
        self._base = base
        self.values = _Both(base.values, self._values)

    @property
    def root(self) -> ValuePool:
        return self._base.root

    def code(self, value: Any) -> int:
        # its own come first: the base may have learnt the value since
        key = value_key(value)
        if key not in self._codes:
            found = self._base.find(value)
            if found >= 0:
                return found
        return self.FIRST + super().code(value)

    def code_list(self, values: Iterable[Any]) -> list[int]:
        return list(map(self.code, values))

    def find(self, value: Any) -> int:
        found = super().find(value)
        return self._base.find(value) if found < 0 else self.FIRST + found

    def decode(self, codes: Ints) -> NDArray[np.object_]:
        mine = codes >= self.FIRST
        if not mine.any():
            return self._base.decode(codes)
        found = np.empty(codes.shape, dtype=object)
        found[~mine] = self._base.decode(codes[~mine])
        found[mine] = super().decode(codes[mine] - self.FIRST)
        return found

    def ranks(self, codes: Ints) -> Ints:
        if not (codes >= self.FIRST).any():
            return self._base.ranks(codes)
        distinct, inverse = np.unique(codes, return_inverse=True)
        keys = [sort_key(value) for value in self.decode(distinct).tolist()]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        local = np.empty(len(keys), dtype=np.int64)
        local[order] = np.arange(len(keys))
        return local[inverse]

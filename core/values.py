"""The values a database stores: keywords, symbols, datoms, value classes, equality and order.

Python lets ``1 == 1.0 == True`` and gives them one hash.  A database must not: long, double,
boolean and big decimal are different values.  `value_key` is the identity of a value wherever it
is hashed or compared for equality; `sort_key` is its place in an index.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterable, Iterator, Set
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from threading import RLock
from typing import Any, ClassVar, Final, NamedTuple
from uuid import UUID, SafeUUID
from weakref import WeakValueDictionary

from natalog.core.limits import (
    KEYWORD_KEPT_LENGTH_MAX,
    KEYWORDS_KEPT_MAX,
    LONG_MAX,
    LONG_MIN,
    SAME_HASH_MAX,
)

_SINGLE: Final = struct.Struct("<f")


class Keyword:
    """An interned name such as ``:person/name``; two equal keywords are the same object.

    >>> Keyword("person/name")
    :person/name
    >>> Keyword("person/name") is Keyword(":person/name")
    True
    >>> Keyword("person/name").namespace, Keyword("person/name").name
    ('person', 'name')
    """

    __slots__ = ("__weakref__", "name", "namespace", "sort", "text")
    _recent: ClassVar[dict[str, Keyword]] = {}
    text: str
    """``"ns/name"``, without the colon."""
    namespace: str | None
    name: str
    sort: tuple[bool, bytes, bytes]
    """Order: without a namespace first, then by namespace and name in UTF-16 units."""

    def __new__(cls, text: str) -> Keyword:
        found = cls._recent.get(text)
        return _interned(text) if found is None else found

    def __reduce__(self) -> tuple[type[Keyword], tuple[str]]:
        return (Keyword, (self.text,))

    def __copy__(self) -> Keyword:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Keyword:
        return self

    # equality and hash are those of the object: a name has one object, and C is fast

    def __lt__(self, other: Keyword) -> bool:
        return self.sort < other.sort

    def __str__(self) -> str:
        return ":" + self.text

    __repr__ = __str__


# Every keyword that lives is in `_living`, so that a name has one object; who sends us a million
# names does not make us keep them.  `Keyword._recent` finds the usual ones in one step; it keeps a
# bounded number of them, short ones, by any spelling.
_living: Final[WeakValueDictionary[str, Keyword]] = WeakValueDictionary()
_naming: Final = RLock()  # a finalizer may run anywhere, and name something


def _interned(text: str) -> Keyword:
    """The keyword of this name, a new one if none lives."""
    bare = text[1:] if text.startswith(":") else text
    with _naming:
        found = _living.get(bare)
        if found is None:
            if not bare:
                raise ValueError("a keyword needs a name")
            made = object.__new__(Keyword)
            space, slash, name = bare.partition("/")
            if not slash or not space or not name:
                space, name = "", bare
            made.text = bare
            made.namespace = space or None
            made.name = name
            made.sort = (bool(space), utf16(space), utf16(name))
            found = _living.setdefault(bare, made)
        recent = Keyword._recent
        if len(text) <= KEYWORD_KEPT_LENGTH_MAX:
            if len(recent) >= KEYWORDS_KEPT_MAX:
                recent.clear()
            recent[text] = found
    return found


def as_keyword(value: Any) -> Any:
    """Text as the keyword that it names; everything else, and text without a name, as it is."""
    return Keyword(value) if isinstance(value, str) and value not in ("", ":") else value


class Symbol:
    """A bare EDN name such as ``?e``, ``count`` or ``my.ns/f``; compared by its text.

    >>> Symbol("?e") == Symbol("?e")
    True
    """

    __slots__ = ("text",)
    text: str

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("a symbol needs a name")
        self.text = text

    @property
    def namespace(self) -> str | None:
        space, slash, name = self.text.partition("/")
        return space if slash and space and name else None

    @property
    def name(self) -> str:
        space, slash, name = self.text.partition("/")
        return name if slash and space and name else self.text

    def __hash__(self) -> int:
        return hash(("'", self.text))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Symbol) and other.text == self.text

    def __lt__(self, other: Symbol) -> bool:
        return _name_sort(self.text) < _name_sort(other.text)

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


class Float32(float):
    """A double that was written as a single-precision number; ``:db.type/float`` asks for it."""

    __slots__ = ()


class Int32(int):
    """An integer that was written as a 32-bit number; not a long, but a ``:db.type/number``."""

    __slots__ = ()


class EdnList(tuple[Any, ...]):
    """An EDN list ``(...)``; vectors are Python lists (read) or tuples (values)."""

    __slots__ = ()


class Regex(NamedTuple):
    """A regular expression in RE2 syntax, written ``#"..."`` in EDN."""

    pattern: str


class FrozenMap(dict[Any, Any]):
    """A map that can be a member of a set or a key of a map."""

    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(value_key(self))


class TypedSet(Set[Any]):
    """A set whose members differ although Python calls them equal, such as ``#{1 1.0 true}``."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._items = {value_key(item): item for item in items}

    def __contains__(self, item: object) -> bool:
        return value_key(item) in self._items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items))

    def __repr__(self) -> str:
        return f"TypedSet({list(self._items.values())!r})"


def make_set(items: Iterable[Any]) -> Set[Any]:
    """A ``set`` of hashable values; a `TypedSet` where Python's equality would lose a member.

    >>> make_set([1, 2, 1]) == {1, 2}
    True
    >>> len(make_set([1, 1.0, True]))
    3
    """
    kept = list(items)
    plain = set(kept)
    if len(plain) == len(kept):
        return plain
    typed = TypedSet(kept)
    return plain if len(plain) == len(typed) else typed


def is_crowded(keys: Collection[Any]) -> bool:
    """Whether so many of ``keys`` share their hash value that a table of them would be a list.

    Raises TypeError for what cannot be hashed.

    >>> is_crowded(range(1000)), is_crowded([n * (2**61 - 1) for n in range(1, 1000)])
    (False, True)
    """
    if len(keys) < 8 * SAME_HASH_MAX:
        return False
    return len(set(map(hash, keys))) * SAME_HASH_MAX < len(keys)


def _single(number: float) -> float:
    """The nearest single-precision number; beyond their range infinity."""
    try:
        rounded: float = _SINGLE.unpack(_SINGLE.pack(number))[0]
    except OverflowError:
        return math.copysign(math.inf, number)
    return rounded


class Doubles(tuple[float, ...]):
    """An array of double-precision numbers, a value of ``:db.type/double-array``.

    >>> Doubles([1, 2.5])
    Doubles([1.0, 2.5])
    """

    __slots__ = ()

    def __new__(cls, numbers: Iterable[float] = ()) -> Doubles:
        return super().__new__(cls, map(float, numbers))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


class Floats(tuple[float, ...]):
    """An array of single-precision numbers, a value of ``:db.type/float-array``.

    >>> Floats([0.1]) == Floats([0.1000000001])
    True
    """

    __slots__ = ()

    def __new__(cls, numbers: Iterable[float] = ()) -> Floats:
        return super().__new__(cls, map(_single, numbers))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


class Tagged(NamedTuple):
    """An EDN literal ``#tag value`` that the reader does not know."""

    tag: str
    value: Any


class Datom(NamedTuple):
    """One fact: entity ``e`` has value ``v`` for attribute ``a`` since (or until) ``tx``."""

    e: int
    a: Keyword
    v: Any
    tx: int
    added: bool = True


def kw(text: str) -> Keyword:
    """The keyword of ``"ns/name"`` or ``":ns/name"``."""
    return Keyword(text)


# --- instants ------------------------------------------------------------------------------------

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def instant_ms(instant: datetime) -> int:
    """Milliseconds since 1970 of an aware datetime; parts of a millisecond are cut off."""
    if instant.tzinfo is None:
        raise ValueError(f"an instant needs a time zone: {instant!r}")
    return (instant - _EPOCH) // _MS


def ms_instant(ms: int) -> datetime:
    """The aware UTC datetime ``ms`` milliseconds after 1970."""
    return _EPOCH + timedelta(milliseconds=ms)


def instant_text(instant: datetime) -> str:
    """RFC 3339 text in UTC with milliseconds, as EDN's ``#inst`` prints it."""
    at = instant.astimezone(UTC)
    return f"{at.year:04}-{at:%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}-00:00"


# --- UUIDs ---------------------------------------------------------------------------------------


_new: Final = object.__new__
_set_number: Final = UUID.__dict__["int"].__set__
_set_safe: Final = UUID.__dict__["is_safe"].__set__


def numbered_uuid(number: int) -> UUID:
    """The UUID of 128 bits; its class spends most of its time on the ways there are to give them.

    >>> numbered_uuid(1)
    UUID('00000000-0000-0000-0000-000000000001')
    """
    made = _new(UUID)
    _set_number(made, number)
    _set_safe(made, SafeUUID.unknown)
    return made


# --- equality ------------------------------------------------------------------------------------

NAN_KEY: Final = ("d", "nan")
PLAIN_CLASSES: Final = frozenset({str, int, Keyword, UUID, bytes, Symbol, type(None)})
"""Classes whose values are their own `value_key`."""


def value_key(value: Any) -> Any:
    """A hashable that two values share exactly if they are the same value of the same class.

    Integers (long and bigint) share a class; doubles, decimals, ratios and booleans have their
    own; -0.0 is 0.0; NaN is NaN; sequences compare element by element.

    >>> value_key(1) == value_key(1.0), value_key(1) == value_key(True)
    (False, False)
    >>> value_key([1, 2]) == value_key((1, 2))
    True
    """
    kind = type(value)
    if kind in PLAIN_CLASSES:
        return value
    if kind is float or kind is Float32:
        return NAN_KEY if value != value else ("d", float(value))
    if kind is bool:
        return ("b", value)
    if kind is datetime:
        return ("i", instant_ms(value))
    if kind is Decimal:
        return ("m", value.normalize() if value.is_finite() else str(value))
    if kind is Fraction:
        return ("r", value)
    if kind is Doubles or kind is Floats:
        return ("D" if kind is Doubles else "F", *map(value_key, value))
    if isinstance(value, (list, tuple)):
        return ("v", *map(value_key, value))
    if isinstance(value, Set):
        return ("s", frozenset(map(value_key, value)))
    if isinstance(value, dict):
        return ("h", frozenset((value_key(k), value_key(v)) for k, v in value.items()))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    return ("o", value)


def same_value(left: Any, right: Any) -> bool:
    """Whether two values are the same value of the same class (see `value_key`)."""
    return bool(value_key(left) == value_key(right))


# --- order ---------------------------------------------------------------------------------------


def utf16(text: str) -> bytes:
    """Bytes that order like the UTF-16 code units of ``text``."""
    return text.encode("utf-16-be", "surrogatepass")


def _name_sort(text: str) -> tuple[bool, bytes, bytes]:
    space, slash, name = text.partition("/")
    if not slash or not space or not name:
        space, name = "", text
    return (bool(space), utf16(space), utf16(name))


def _number_key(value: Any) -> Any:
    """NaN above every number; a decimal as an exact ratio, comparable with all the others."""
    if isinstance(value, Decimal):
        if value.is_finite():
            return (0, Fraction(value))
        return (1, 0) if value.is_nan() else (0, math.inf if value > 0 else -math.inf)
    return (1, 0) if value != value else (0, value)


# Ranks order values of different classes where an attribute mixes them: nil first, then by the
# class names that Datahike compares (bytes, keyword, vector, symbol, boolean, number, ...).
_RANKS: Final[dict[type, int]] = {
    type(None): 0,
    bytes: 1,
    Doubles: 3,
    Floats: 3,
    Keyword: 2,
    tuple: 3,
    list: 3,
    Symbol: 4,
    bool: 5,
    int: 6,
    float: 6,
    Float32: 6,
    Int32: 6,
    Decimal: 6,
    Fraction: 6,
    str: 7,
    datetime: 8,
    UUID: 9,
}


def sort_key(value: Any) -> Any:
    """The place of a value in an index, comparable with that of every other value.

    Numbers by size, strings by UTF-16 unit, keywords without a namespace first, false before true,
    shorter vectors first; values of different classes by class.
    """
    kind = type(value)
    rank = _RANKS.get(kind)
    if rank == 7:
        return (7, value.encode("utf-16-be", "surrogatepass"))
    if rank == 6:
        return (6, _number_key(value))
    if rank == 2:
        return (2, value.sort)
    if rank == 3:
        return (3, len(value), tuple(map(sort_key, value)))
    if rank == 4:
        return (4, _name_sort(value.text))
    if rank == 8:
        return (8, instant_ms(value))
    if rank == 9:
        # the reference compares the two halves as signed 64-bit numbers
        return (9, _signed(value.int >> 64), _signed(value.int & (2**64 - 1)))
    if rank == 0:
        return (0,)
    if rank is not None:
        return (rank, value)
    if isinstance(value, Set):
        return (10, len(value), tuple(sorted(map(sort_key, value))))
    if isinstance(value, dict):
        pairs = sorted((sort_key(k), sort_key(v)) for k, v in value.items())
        return (11, len(value), tuple(pairs))
    return (12, type(value).__name__, repr(value))


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def sorted_values(values: Iterable[Any]) -> list[Any]:
    """The values in index order."""
    return sorted(values, key=sort_key)


def compare(left: Any, right: Any) -> int:
    """-1, 0 or 1: how two values order (see `sort_key`)."""
    a, b = sort_key(left), sort_key(right)
    return -1 if a < b else (1 if a > b else 0)


# --- classes -------------------------------------------------------------------------------------

VALUE_TYPES: Final = frozenset(
    {
        "bigdec",
        "bigint",
        "boolean",
        "bytes",
        "double",
        "double-array",
        "float",
        "float-array",
        "instant",
        "keyword",
        "long",
        "number",
        "ref",
        "string",
        "symbol",
        "tuple",
        "uuid",
    }
)
"""Names of ``:db.type/...`` that attributes may declare."""


def is_long(value: Any) -> bool:
    """An integer that fits 64 bits and is neither a boolean nor written as 32-bit."""
    return type(value) is int and LONG_MIN <= value <= LONG_MAX

"""Bytes of values: msgpack with numbered extension types.

``docs/wire.md`` specifies them.  The extension numbers are fixed for ever; they are in the log.
JSON and the choice of a form are in `natalog.core.codec_json`, re-exported here.
Equal values have equal bytes (members of a set are ordered by their bytes), except that maps keep
the order in which they were made.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Set
from datetime import datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import partial
from typing import Any, Final, NoReturn
from uuid import UUID

import msgpack

from natalog.core.codec_json import content_kind, from_json, to_json
from natalog.core.errors import CodecError, LimitExceeded
from natalog.core.limits import (
    COLLECTIONS_READ_MAX,
    DECIMAL_EXPONENT_MAX,
    ENCODED_DEPTH_MAX,
    INTEGER_DIGITS_MAX,
    KEYWORD_KEPT_LENGTH_MAX,
    KEYWORDS_KEPT_MAX,
    NESTING_DEPTH_MAX,
    SAME_HASH_MAX,
)
from natalog.core.values import (
    Doubles,
    EdnList,
    Float32,
    Floats,
    FrozenMap,
    Int32,
    Keyword,
    Regex,
    Symbol,
    Tagged,
    instant_ms,
    is_crowded,
    make_set,
    ms_instant,
    numbered_uuid,
)

__all__ = ["content_kind", "from_json", "pack", "to_json", "unpack", "unpack_own"]

EXT_KEYWORD: Final = 1
EXT_SYMBOL: Final = 2
EXT_UUID: Final = 3
EXT_INSTANT: Final = 4
EXT_BIGINT: Final = 5
EXT_DECIMAL: Final = 6
EXT_RATIO: Final = 7
EXT_SET: Final = 8
EXT_LIST: Final = 9
EXT_TAGGED: Final = 10
EXT_FLOAT32: Final = 11
EXT_INT32: Final = 12
EXT_REGEX: Final = 13
EXT_DOUBLES: Final = 14
EXT_FLOATS: Final = 15

_INTEGER_BYTES_MAX: Final = INTEGER_DIGITS_MAX * 10 // 24
"""10 bits are about 3 digits."""
_NOT_CONTAINERS: Final = bytes(
    code
    for code in range(256)
    if not (0x80 <= code <= 0x9F or 0xDC <= code <= 0xDF or 0xC7 <= code <= 0xC9)
    and not 0xD4 <= code <= 0xD8
)
_MANY: Final = 8 * SAME_HASH_MAX
"""Keys of a map that are worth a look at their hash values."""
_PACKER_BYTES_MAX: Final = 256 * 1024
"""A packer that has packed more has a buffer that is not kept."""
_CONTAINERS: Final = (list, tuple, dict, Set)

Ext = msgpack.ExtType


# --- msgpack: writing --------------------------------------------------------------------------


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _bigint_bytes(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    if size > _INTEGER_BYTES_MAX:
        raise LimitExceeded(f"an integer of {size} bytes; at most {_INTEGER_BYTES_MAX} are encoded")
    return value.to_bytes(size, "big", signed=True)


def _bigint(value: int) -> Any:
    return Ext(EXT_BIGINT, _bigint_bytes(value))


def _decimal(value: Decimal) -> Any:
    if not value.is_finite():
        raise CodecError(f"{value} has no encoding", value=str(value))
    return Ext(EXT_DECIMAL, str(_decimal_checked(value)).encode())


def _decimal_checked(value: Decimal) -> Decimal:
    # an integer compared with a decimal is expanded to all the digits of its exponent
    digits = len(value.as_tuple().digits)
    if digits > INTEGER_DIGITS_MAX or abs(value.adjusted()) > DECIMAL_EXPONENT_MAX:
        raise LimitExceeded(f"a decimal of more than {INTEGER_DIGITS_MAX} digits")
    return value


_last_instant: tuple[datetime | None, Any] = (None, None)
"""A report of a transaction says its instant several times."""


def _instant(value: datetime) -> Any:
    global _last_instant
    known, made = _last_instant
    if value is known:
        return made
    if value.tzinfo is None:
        raise CodecError(f"an instant needs a time zone: {value!r}")
    made = Ext(EXT_INSTANT, struct.pack(">q", instant_ms(value)))
    _last_instant = (value, made)
    return made


_KEYWORDS: Final[dict[Keyword, Any]] = {}
"""Encoded keywords, a bounded number of short ones."""


def _keyword(value: Keyword) -> Any:
    made = _KEYWORDS.get(value)
    if made is None:
        made = Ext(EXT_KEYWORD, _utf8(value.text))
        if len(value.text) <= KEYWORD_KEPT_LENGTH_MAX:
            if len(_KEYWORDS) >= KEYWORDS_KEPT_MAX:
                _KEYWORDS.clear()
            _KEYWORDS[value] = made
    return made


_ENCODERS: Final[dict[type, Callable[[Any], Any]]] = {
    Keyword: _keyword,
    tuple: list,
    Symbol: lambda value: Ext(EXT_SYMBOL, _utf8(value.text)),
    UUID: lambda value: Ext(EXT_UUID, value.bytes),
    datetime: _instant,
    int: _bigint,
    Decimal: _decimal,
    Fraction: lambda value: Ext(EXT_RATIO, _pack([value.numerator, value.denominator], 0)),
    Float32: lambda value: Ext(EXT_FLOAT32, struct.pack(">d", value)),
    Int32: lambda value: Ext(EXT_INT32, struct.pack(">i", value)),
    Regex: lambda value: Ext(EXT_REGEX, _utf8(value.pattern)),
    FrozenMap: dict,
    Doubles: lambda value: Ext(EXT_DOUBLES, struct.pack(f">{len(value)}d", *value)),
    Floats: lambda value: Ext(EXT_FLOATS, struct.pack(f">{len(value)}f", *value)),
}


def _encoder(depth: int) -> Callable[[Any], Any]:
    """What msgpack calls for a value it does not know; ``depth`` as in `_decode`."""

    def encode(value: Any) -> Any:
        kind = type(value)
        if kind is Keyword and (kept := _KEYWORDS.get(value)) is not None:
            return kept
        simple = _ENCODERS.get(kind)
        if simple is not None:
            return simple(value)
        if isinstance(value, (Set, EdnList, Tagged)):
            if depth >= ENCODED_DEPTH_MAX:
                raise LimitExceeded(f"lists and sets nested deeper than {ENCODED_DEPTH_MAX} levels")
            if isinstance(value, EdnList):
                return Ext(EXT_LIST, _pack(list(value), depth + 1))
            if isinstance(value, Tagged):
                return Ext(EXT_TAGGED, _pack([value.tag, value.value], depth + 1))
            members = sorted(_pack(member, depth + 1) for member in value)
            head = msgpack.Packer().pack_array_header(len(members))
            return Ext(EXT_SET, head + b"".join(members))
        if isinstance(value, tuple):
            return list(value)
        if isinstance(value, Mapping):
            return dict(value)
        raise CodecError(f"a {type(value).__name__} has no encoding: {value!r}")

    return encode


_ENCODER_AT: Final = tuple(_encoder(depth) for depth in range(ENCODED_DEPTH_MAX + 1))


def _packer(depth: int) -> msgpack.Packer:
    return msgpack.Packer(
        default=_ENCODER_AT[depth], strict_types=True, unicode_errors="surrogatepass"
    )


_packers: Final[list[msgpack.Packer]] = []
"""For depth 0, as many as were in use at a time: to make one takes as long as to use it."""


def _pack(value: Any, depth: int) -> bytes:
    if depth:
        inner: bytes = _packer(depth).pack(value)
        return inner
    try:
        packer = _packers.pop()
    except IndexError:
        packer = _packer(0)
    made: bytes = packer.pack(value)  # one that failed is not used again
    if len(made) <= _PACKER_BYTES_MAX:
        _packers.append(packer)
    return made


def pack(value: Any) -> bytes:
    """The msgpack bytes of a value; tuples become arrays.

    Raises `CodecError` for what has no encoding, `LimitExceeded` for what is nested too deeply.

    >>> unpack(pack({"a": [Keyword("x"), 2**70, {1}]}))
    {'a': [:x, 1180591620717411303424, {1}]}
    """
    try:
        return _pack(value, 0)
    except (CodecError, LimitExceeded):
        raise
    except RecursionError:
        raise LimitExceeded(f"nested deeper than {NESTING_DEPTH_MAX} levels") from None
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        if "recursion" in str(error):  # msgpack's own limit is one below ours
            raise LimitExceeded(f"nested deeper than {NESTING_DEPTH_MAX} levels") from None
        raise CodecError(f"a value that cannot be encoded: {error}") from None


# --- msgpack: reading --------------------------------------------------------------------------


def _freeze(value: Any) -> Any:
    """The hashable twin of a decoded value, for map keys and members of sets."""
    kind = type(value)
    if kind is list:
        return tuple(map(_freeze, value))
    if kind is dict:
        return FrozenMap((key, _freeze(item)) for key, item in value.items())
    if kind is set:
        return frozenset(value)
    if kind is EdnList:
        return EdnList(map(_freeze, value))
    if kind is Tagged:
        return Tagged(value.tag, _freeze(value.value))
    return value


def _pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    try:
        if len(pairs) >= _MANY and is_crowded([key for key, _ in pairs]):
            _refuse_crowd("keys of a map")
        made = dict(pairs)
    except TypeError:
        frozen = [(_freeze(key), item) for key, item in pairs]
        if is_crowded([key for key, _ in frozen]):
            _refuse_crowd("keys of a map")
        made = dict(frozen)
    if len(made) != len(pairs):
        raise CodecError("a map holds a key twice")
    return made


def _refuse_crowd(what: str) -> NoReturn:
    raise LimitExceeded(f"most of the {what} share one hash value")


def _bad(what: str) -> NoReturn:
    raise CodecError(f"malformed bytes: {what}")


def _exact(data: bytes, size: int, what: str) -> bytes:
    if len(data) != size:
        _bad(f"{what} of {len(data)} bytes instead of {size}")
    return data


def _text(data: bytes) -> str:
    text = data.decode("utf-8", "surrogatepass")
    if not text:
        _bad("an empty name")
    return text


def _read_bigint(data: bytes) -> int:
    if not 0 < len(data) <= _INTEGER_BYTES_MAX:
        raise LimitExceeded(f"an integer of {len(data)} bytes")
    return int.from_bytes(data, "big", signed=True)


def _read_decimal(data: bytes) -> Decimal:
    if len(data) > 2 * INTEGER_DIGITS_MAX:
        raise LimitExceeded(f"a decimal of {len(data)} digits")
    try:
        made = Decimal(data.decode("ascii"))
    except InvalidOperation:
        _bad("not a decimal")
    return _decimal_checked(made) if made.is_finite() else _bad("a decimal that is no number")


_last_read: tuple[bytes, datetime] = (bytes(8), ms_instant(0))


def _read_instant(data: bytes) -> datetime:
    global _last_read
    known, made = _last_read
    if data == known:
        return made
    try:
        made = ms_instant(struct.unpack(">q", _exact(data, 8, "instant"))[0])
    except OverflowError:
        _bad("an instant outside the years 1 to 9999")
    _last_read = (data, made)
    return made


def _read_uuid(data: bytes) -> UUID:
    return numbered_uuid(int.from_bytes(_exact(data, 16, "UUID"), "big"))


def _read_ratio(inner: Any) -> Any:
    match inner:
        case [int() as over, int() as under] if type(over) is type(under) is int and under != 0:
            ratio = Fraction(over, under)
            return ratio.numerator if ratio.denominator == 1 else ratio
    _bad("not a ratio")


def _read_set(inner: Any) -> Set[Any]:
    if type(inner) is not list:
        _bad("not a set")
    members = list(map(_freeze, inner))
    if is_crowded(members):
        _refuse_crowd("members of a set")
    made = make_set(members)
    if len(made) != len(inner):
        _bad("a set that holds a member twice")
    return made


def _read_list(inner: Any) -> EdnList:
    return EdnList(inner) if type(inner) is list else _bad("not a list")


def _read_tagged(inner: Any) -> Tagged:
    match inner:
        case [str() as tag, value] if tag:
            return Tagged(tag, value)
    _bad("not a tagged value")


_KEYWORDS_READ: Final[dict[bytes, Keyword]] = {}
"""Keywords by their bytes, a bounded number of short ones."""


def _read_keyword(data: bytes) -> Keyword:
    found = _KEYWORDS_READ.get(data)
    if found is None:
        found = Keyword(":" + _text(data))
        if len(data) <= KEYWORD_KEPT_LENGTH_MAX:
            if len(_KEYWORDS_READ) >= KEYWORDS_KEPT_MAX:
                _KEYWORDS_READ.clear()
            _KEYWORDS_READ[data] = found
    return found


def _numbers(data: bytes, letter: str, size: int) -> tuple[float, ...]:
    if len(data) % size:
        raise CodecError(f"an array of numbers of {size} bytes has {len(data)} bytes")
    return struct.unpack(f">{len(data) // size}{letter}", data)


_DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {
    EXT_KEYWORD: _read_keyword,
    EXT_SYMBOL: lambda data: Symbol(_text(data)),
    EXT_UUID: _read_uuid,
    EXT_INSTANT: _read_instant,
    EXT_BIGINT: _read_bigint,
    EXT_DECIMAL: _read_decimal,
    EXT_FLOAT32: lambda data: Float32(struct.unpack(">d", _exact(data, 8, "float"))[0]),
    EXT_INT32: lambda data: Int32(struct.unpack(">i", _exact(data, 4, "32-bit integer"))[0]),
    EXT_REGEX: lambda data: Regex(data.decode("utf-8", "surrogatepass")),
    EXT_DOUBLES: lambda data: Doubles(_numbers(data, "d", 8)),
    EXT_FLOATS: lambda data: Floats(_numbers(data, "f", 4)),
}
_NESTED: Final[dict[int, Callable[[Any], Any]]] = {
    EXT_RATIO: _read_ratio,
    EXT_SET: _read_set,
    EXT_LIST: _read_list,
    EXT_TAGGED: _read_tagged,
}


class _Count:
    """How many collections may still come."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = COLLECTIONS_READ_MAX

    def one(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise LimitExceeded(f"more than {COLLECTIONS_READ_MAX} collections")

    def of_list(self, made: list[Any]) -> list[Any]:
        self.one()
        return made

    def of_map(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self.one()
        return _pairs(pairs)


def _decode(data: bytes, depth: int, count: _Count | None) -> Any:
    """One value; ``depth`` counts extension types inside each other.

    ``count``: None where too few bytes could begin a collection to be too many.
    """
    return msgpack.unpackb(
        data,
        ext_hook=partial(_extension, depth, count),
        object_pairs_hook=_pairs if count is None else count.of_map,
        list_hook=None if count is None else count.of_list,
        strict_map_key=False,
        unicode_errors="surrogatepass",
        timestamp=3,
        max_map_len=min(len(data), COLLECTIONS_READ_MAX),
    )


def _extension(depth: int, count: _Count | None, code: int, inner: bytes) -> Any:
    """A value of an extension type; the rest as in `_decode`."""
    if code == EXT_KEYWORD and (kept := _KEYWORDS_READ.get(inner)) is not None:
        return kept
    decode = _DECODERS.get(code)
    if decode is not None:
        return decode(inner)
    nested = _NESTED.get(code)
    if nested is None:
        _bad(f"extension type {code} is not known")
    if depth >= ENCODED_DEPTH_MAX:
        raise LimitExceeded(f"lists and sets nested deeper than {ENCODED_DEPTH_MAX} levels")
    return nested(_decode(inner, depth + 1, count))


_own_extension: Final = partial(_extension, 0, None)


def unpack_own(data: bytes) -> Any:
    """`unpack` for what `pack` has made: that a map holds a key twice is not noticed."""
    try:
        return msgpack.unpackb(
            data,
            ext_hook=_own_extension,
            strict_map_key=False,
            unicode_errors="surrogatepass",
            timestamp=3,
        )
    except Exception:
        return unpack(data)  # a key that is a list; or else it says what is wrong


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > NESTING_DEPTH_MAX + 1:
            raise LimitExceeded(f"nested deeper than {NESTING_DEPTH_MAX} levels")
        level = [
            item
            for container in level
            if isinstance(container, _CONTAINERS)
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, _CONTAINERS)
        ]


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """The value of msgpack bytes; arrays become lists, maps dicts.

    Raises `CodecError` for everything that is malformed, also for bytes after the value, and
    `LimitExceeded` for what is nested deeper than `NESTING_DEPTH_MAX`, has more collections than
    `COLLECTIONS_READ_MAX`, or keys and members that were chosen to collide.
    """
    raw = bytes(data)
    # only bytes that could start so many containers are worth a count or a walk
    possible = len(raw.translate(None, _NOT_CONTAINERS))
    try:
        value = _decode(raw, 0, _Count() if possible > COLLECTIONS_READ_MAX else None)
        if possible > NESTING_DEPTH_MAX:
            _check_depth(value)
    except (CodecError, LimitExceeded):
        raise
    except (msgpack.exceptions.StackError, RecursionError, MemoryError):
        raise LimitExceeded(f"nested deeper than {NESTING_DEPTH_MAX} levels") from None
    except msgpack.exceptions.ExtraData:
        raise CodecError("malformed bytes: more bytes follow the value") from None
    except Exception as error:
        # whatever the decoder trips over, it is the bytes that are wrong
        detail = str(error) or type(error).__name__
        raise CodecError(f"malformed bytes: {detail}") from None
    return value

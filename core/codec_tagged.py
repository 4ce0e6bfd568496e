"""JSON of values that loses nothing, for readers such as browsers that have no msgpack.

What JSON lacks is an object with one key: ``{"#kw": "person/name"}``.  ``docs/console.md`` lists
the tags.  `natalog.core.codec_json` is the other JSON: easier to read, but a string, a UUID and an
instant look alike in it, and JavaScript rounds its integers beyond 2**53.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Set
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final
from uuid import UUID

from natalog.core import edn
from natalog.core.codec_json import from_json
from natalog.core.errors import CodecError, LimitExceeded
from natalog.core.limits import INTEGER_DIGITS_MAX, NESTING_DEPTH_MAX
from natalog.core.values import (
    Doubles,
    EdnList,
    Float32,
    Floats,
    Int32,
    Keyword,
    Regex,
    Symbol,
    Tagged,
    instant_text,
)

EDN_TAG: Final = "#edn"
SAFE_INTEGER_MAX: Final = 2**53 - 1
"""The largest integer up to which JavaScript's numbers tell neighbours apart."""


def _integer(value: int) -> Any:
    if -SAFE_INTEGER_MAX <= value <= SAFE_INTEGER_MAX:
        return value
    if value.bit_length() > INTEGER_DIGITS_MAX * 10 // 3:
        raise LimitExceeded(f"an integer of more than {INTEGER_DIGITS_MAX} digits")
    return {"#int": str(value)}


def _double_text(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(float(value))


def _double(value: float) -> Any:
    # JavaScript would not tell 1.0 from 1
    return value if value % 1.0 > 0 else {"#double": _double_text(value)}


def _instant(value: datetime) -> Any:
    if value.tzinfo is None:
        raise CodecError(f"an instant needs a time zone: {value!r}")
    return {"#inst": instant_text(value).replace("-00:00", "Z")}


def _same(value: Any) -> Any:
    return value


_SIMPLE: Final[dict[type, Callable[[Any], Any]]] = {
    type(None): _same,
    bool: _same,
    str: _same,
    int: _integer,
    float: _double,
    Keyword: lambda value: {"#kw": value.text},
    Symbol: lambda value: {"#sym": value.text},
    UUID: lambda value: {"#uuid": str(value)},
    datetime: _instant,
    Decimal: lambda value: {"#dec": str(value)},
    Fraction: lambda value: {"#ratio": str(value)},
    bytes: lambda value: {"#bytes": value.hex()},
    Float32: lambda value: {"#float": _double_text(value)},
    Int32: lambda value: {"#int32": int(value)},
    Regex: lambda value: {"#regex": value.pattern},
    Doubles: lambda value: {"#doubles": list(map(_double_text, value))},
    Floats: lambda value: {"#floats": list(map(_double_text, value))},
}


def _plain(value: Any, depth: int) -> Any:
    simple = _SIMPLE.get(type(value))
    if simple is not None:
        return simple(value)
    if depth >= NESTING_DEPTH_MAX:
        raise LimitExceeded(f"nested deeper than {NESTING_DEPTH_MAX} levels")
    depth += 1
    if isinstance(value, Tagged):
        return {"#tag": [value.tag, _plain(value.value, depth)]}
    if isinstance(value, Mapping):
        return _plain_map(value, depth)
    if isinstance(value, (list, tuple, Set)):
        items = []
        for item in value:
            items.append(_plain(item, depth))
        if isinstance(value, EdnList):
            return {"#list": items}
        return {"#set": items} if isinstance(value, Set) else items
    raise CodecError(f"a {type(value).__name__} has no JSON form: {value!r}")


def _plain_map(value: Mapping[Any, Any], depth: int) -> Any:
    """An object where every key is text that cannot be taken for a tag."""
    if all(type(key) is str and not key.startswith("#") for key in value):
        made = {}
        for key, item in value.items():
            made[key] = _plain(item, depth)
        return made
    pairs = []
    for key, item in value.items():
        pairs.append([_plain(key, depth), _plain(item, depth)])
    return {"#map": pairs}


def to_tagged_json(value: Any) -> str:
    """The JSON text of a value, from which every value can be told apart.

    Raises `CodecError` for what has no JSON form, `LimitExceeded`.

    >>> to_tagged_json([Keyword("name"), "name", 1, 1.0, 2**60, {Keyword("a"): 1}])
    '[{"#kw":"name"},"name",1,{"#double":"1.0"},{"#int":"1152921504606846976"},\
{"#map":[[{"#kw":"a"},1]]}]'
    """
    try:
        return json.dumps(_plain(value, 0), allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise LimitExceeded(f"nested deeper than {NESTING_DEPTH_MAX} levels") from None


def from_json_with_edn(text: str | bytes) -> Any:
    """The value of JSON text as `from_json` reads it, with ``{"#edn": TEXT}`` read as EDN.

    Raises `CodecError`, `EdnSyntax` or `LimitExceeded`.

    >>> from_json_with_edn('{"args": [{"#edn": "[2.5M x]"}], "at": ":a"}')
    {'args': [[Decimal('2.5'), x]], 'at': :a}
    """
    return _with_edn(from_json(text))


def _with_edn(value: Any) -> Any:
    if type(value) is dict:
        text = value.get(EDN_TAG) if len(value) == 1 else None
        if type(text) is str:
            return edn.read(text)
        if type(text) is Keyword:  # JSON's reader has taken it for what it is in EDN too
            return text
        for key, item in value.items():
            if type(item) in (dict, list):
                value[key] = _with_edn(item)
        return value
    if type(value) is list:
        for at, item in enumerate(value):
            if type(item) in (dict, list):
                value[at] = _with_edn(item)
    return value

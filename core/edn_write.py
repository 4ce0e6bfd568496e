"""Writing EDN; everything written here reads back as the same value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final
from uuid import UUID

from natalog.core.edn_read import KEYWORD_TEXT, SYMBOL_TEXT
from natalog.core.errors import CodecError, LimitExceeded
from natalog.core.limits import INTEGER_DIGITS_MAX, LONG_MAX, LONG_MIN, NESTING_DEPTH_MAX
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
    sort_key,
)

_UNSAFE: Final = re.compile('[\x00-\x1f"\\\\\x7f-\x9f\ud800-\udfff]')
_ESCAPED: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_PLAIN_PATTERN: Final = re.compile(r'(?:[^"\\]|\\[^"])*')


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    return _ESCAPED.get(char) or f"\\u{ord(char):04x}"


def _string(value: str) -> str:
    return f'"{_UNSAFE.sub(_escape, value)}"'


def _integer(value: int) -> str:
    # 10 bits are about 3 digits; Python itself refuses to print more than 4,300 digits
    if value.bit_length() > INTEGER_DIGITS_MAX * 10 // 3:
        raise LimitExceeded(
            f"an integer of more than {INTEGER_DIGITS_MAX} digits cannot be written"
        )
    return str(int(value)) if LONG_MIN <= value <= LONG_MAX else f"{int(value)}N"


def _double(value: float) -> str:
    if value != value:
        return "##NaN"
    if value in (float("inf"), float("-inf")):
        return "##Inf" if value > 0 else "##-Inf"
    return float.__repr__(value)


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise CodecError(f"{value} has no EDN form", value=str(value))
    return f"{value}M"


def _instant(value: datetime) -> str:
    if value.tzinfo is None:
        raise CodecError(f"an instant needs a time zone: {value!r}")
    return f'#inst "{instant_text(value)}"'


def _keyword(value: Keyword) -> str:
    text = value.text
    return f":{text}" if KEYWORD_TEXT.fullmatch(text) else f"#natalog/keyword {_string(text)}"


def _symbol(value: Symbol) -> str:
    text = value.text
    return text if SYMBOL_TEXT.fullmatch(text) else f"#natalog/symbol {_string(text)}"


def _regex(value: Regex) -> str:
    plain = _PLAIN_PATTERN.fullmatch(value.pattern)
    return f'#"{value.pattern}"' if plain else f"#natalog/regex {_string(value.pattern)}"


_ATOMS: Final[dict[type, Callable[[Any], str]]] = {
    type(None): lambda _: "nil",
    bool: lambda value: "true" if value else "false",
    int: _integer,
    float: _double,
    str: _string,
    Keyword: _keyword,
    Symbol: _symbol,
    UUID: lambda value: f'#uuid "{value}"',
    datetime: _instant,
    Decimal: _decimal,
    Fraction: str,
    bytes: lambda value: f'#natalog/bytes "{value.hex()}"',
    bytearray: lambda value: f'#natalog/bytes "{value.hex()}"',
    Float32: lambda value: f"#natalog/float {_double(value)}",
    Int32: lambda value: f"#natalog/int {int(value)}",
    Regex: _regex,
    Doubles: lambda value: f"#natalog/doubles [{' '.join(map(_double, value))}]",
    Floats: lambda value: f"#natalog/floats [{' '.join(map(_double, value))}]",
}


def _write(value: Any, out: list[str], depth: int, ordered: bool) -> None:
    atom = _ATOMS.get(type(value))
    if atom is not None:
        out.append(atom(value))
        return
    if depth >= NESTING_DEPTH_MAX:
        raise LimitExceeded(f"nested deeper than {NESTING_DEPTH_MAX} levels")
    depth += 1
    if type(value) is Tagged:
        out.append(f"#{value.tag} ")
        _write(value.value, out, depth, ordered)
    elif isinstance(value, Mapping):
        items = value.items()
        gap = "{"
        for key, item in sorted(items, key=lambda pair: sort_key(pair[0])) if ordered else items:
            out.append(gap)
            _write(key, out, depth, ordered)
            out.append(" ")
            _write(item, out, depth, ordered)
            gap = ", "
        out.append("}" if value else "{}")
    elif isinstance(value, (list, tuple, Set)):
        is_set, is_list = isinstance(value, Set), type(value) is EdnList
        gap = "#{" if is_set else ("(" if is_list else "[")
        if not value:
            out.append(gap)
        for item in sorted(value, key=sort_key) if ordered and is_set else value:
            out.append(gap)
            _write(item, out, depth, ordered)
            gap = " "
        out.append("}" if is_set else (")" if is_list else "]"))
    else:
        raise CodecError(f"a {type(value).__name__} has no EDN form: {value!r}")


def write(value: Any, *, ordered: bool = False) -> str:
    """The EDN text of a value; ``ordered`` sorts sets and maps, so that equal values print alike.

    Lists and tuples are vectors, `EdnList` a list; bytes are ``#natalog/bytes "00ff"``,
    single-precision numbers ``#natalog/float 1.5``, 32-bit integers ``#natalog/int 5``.
    Raises `CodecError` for what has no EDN form, `LimitExceeded`.

    >>> write([1, "a", None, Keyword("k"), {"x": {True}}])
    '[1 "a" nil :k {"x" #{true}}]'
    """
    out: list[str] = []
    _write(value, out, 0, ordered)
    return "".join(out)


def write_pretty(value: Any, *, width: int = 88) -> str:
    """EDN text for people: sorted, containers wider than ``width`` characters one item a line."""
    return _pretty(value, 0, width, 0)


def _pretty(value: Any, indent: int, width: int, depth: int) -> str:
    flat = write(value, ordered=True)
    if indent + len(flat) <= width or type(value) in _ATOMS or depth >= 64:
        return flat
    if type(value) is Tagged:
        lead = f"#{value.tag} "
        return lead + _pretty(value.value, indent + len(lead), width, depth + 1)
    if isinstance(value, Mapping):
        rows = []
        for key, item in sorted(value.items(), key=lambda pair: sort_key(pair[0])):
            name = write(key, ordered=True)
            rows.append(f"{name} {_pretty(item, indent + len(name) + 2, width, depth + 1)}")
        lead, tail = "{", "}"
    else:
        is_set, is_list = isinstance(value, Set), type(value) is EdnList
        lead, tail = ("#{", "}") if is_set else (("(", ")") if is_list else ("[", "]"))
        inner = indent + len(lead)
        members = sorted(value, key=sort_key) if is_set else value
        rows = [_pretty(item, inner, width, depth + 1) for item in members]
    return lead + ("\n" + " " * (indent + len(lead))).join(rows) + tail

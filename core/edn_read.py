"""Reading EDN: one compiled tokenizer, an explicit stack, linear time.

The text is cut into tokens by one regular expression (possessive, so it cannot backtrack);
positions are worked out only for an error message.  Containers are collected on a stack of our
own, so depth is a checked limit and never Python's recursion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from operator import itemgetter
from typing import Any, Final, NoReturn
from uuid import UUID

from natalog.core.errors import EdnSyntax, LimitExceeded, NatalogError
from natalog.core.limits import (
    COLLECTIONS_READ_MAX,
    DECIMAL_EXPONENT_MAX,
    INTEGER_DIGITS_MAX,
    KEY_DEPTH_MAX,
    NESTING_DEPTH_MAX,
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
    is_crowded,
    make_set,
)

TagHandlers = Mapping[str, Callable[[Any], Any]]
"""Tag without its ``#`` -> function of the value that follows it."""

_END: Final = r"""\s,;()\[\]{}"\\"""

_TOKEN: Final = re.compile(
    rf"""
    (?: [\s,]++ | ;[^\n]*+ )*+              # space, commas and comments
    (
        [()\[\]{{}}]
      | [^{_END}\#][^{_END}]*+              # number, keyword, symbol
      | "[^"\\]*+(?:\\.[^"\\]*+)*+"         # string
      | \#(?:
            [{{_]
          | "[^"\\]*+(?:\\.[^"\\]*+)*+"     # regular expression
          | [^{_END}_][^{_END}]*+           # tag, or ##NaN
        )
      | \\.[^{_END}]*+                      # character
      | .                                   # anything else is an error
      | \Z
    )
    """,
    re.VERBOSE | re.DOTALL,
)
_INTEGER: Final = re.compile(r"[+-]?(?:0|[1-9][0-9]*+)N?")
_DECIMAL: Final = re.compile(r"([+-]?(?:0|[1-9][0-9]*+)(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]++)?)(M?)")
_RATIO: Final = re.compile(r"([+-]?(?:0|[1-9][0-9]*+))/([0-9]++)")
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_INSTANT: Final = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?)?)?)?"
    r"(Z|[+-]\d\d:\d\d)?",
    re.ASCII,
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_NAME: Final = r"""[^\s,;()\[\]{}"\\/:]"""
KEYWORD_TEXT: Final = re.compile(
    rf"/|{_NAME}[^{_END}/]*+(?:/(?:/|[^{_END}/][^{_END}]*+(?<!/)))?+(?<!:)"
)
"""Names that ``:name`` can be written with."""
SYMBOL_TEXT: Final = re.compile(
    r"(?![+-]?[0-9]|[#'@^`~]|(?:nil|true|false)\Z)" + f"(?:{KEYWORD_TEXT.pattern})"
)
"""Names that a bare symbol can be written with."""

_CHARACTERS: Final = {
    "newline": "\n",
    "return": "\r",
    "space": " ",
    "tab": "\t",
    "formfeed": "\f",
    "backspace": "\b",
}
_ESCAPES: Final = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    '"': '"',
    "\\": "\\",
}
_SPECIAL: Final = {"##NaN": float("nan"), "##Inf": float("inf"), "##-Inf": float("-inf")}
_DIGITS: Final = frozenset("0123456789")
_CLOSERS: Final = {"(": ")", "[": "]", "{": "}", "#{": "}"}
_STRUCTURE: Final = frozenset({"(", "[", "{", "#{", ")", "]", "}", "#_", ""})
_MISSING: Final = object()
_KNOWN_MAX: Final = 10_000
"""Different tokens of one text whose values are remembered."""
_DISCARD: Final = "#_"
_TOP: Final = "top"


class _Fault(Exception):
    """A message and the index of the token at fault; becomes an `EdnSyntax` with its position."""

    def __init__(self, message: str, index: int, *, limit: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.index = index
        self.limit = limit


# --- atoms -------------------------------------------------------------------------------------


def parse_instant(text: str) -> datetime:
    """The instant that RFC 3339 text, or a leading part of it, names; cut to milliseconds.

    ``"2020"``, ``"2020-03"``, ``"2020-03-01T10:20Z"`` ...; without an offset it is UTC.
    Raises ValueError.
    """
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an instant")
    year, month, day, hour, minute, second, part, offset = match.groups()
    at = datetime(
        int(year),
        int(month or 1),
        int(day or 1),
        int(hour or 0),
        int(minute or 0),
        int(second or 0),
        int((part or "0")[:3].ljust(3, "0")) * 1000,
        UTC,
    )
    if offset is not None and offset != "Z":
        hours, minutes = int(offset[1:3]), int(offset[4:])
        shift = timedelta(hours=hours, minutes=minutes)
        zone = timezone(-shift if offset[0] == "-" else shift)
        try:
            at = at.replace(tzinfo=zone).astimezone(UTC)
        except OverflowError:
            raise ValueError(f"{text!r} lies outside the years 1 to 9999") from None
    return at


def _read_instant(value: Any) -> datetime:
    if type(value) is not str:
        raise ValueError("#inst needs a string")
    return parse_instant(value)


def _read_uuid(value: Any) -> UUID:
    # UUID() alone also takes braces, "urn:uuid:" and missing hyphens
    if type(value) is not str or not re.fullmatch(
        r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-.{12}", value
    ):
        raise ValueError(f"{value!r} is not a UUID")
    return UUID(value)


def _read_bytes(value: Any) -> bytes:
    if type(value) is not str or not re.fullmatch(r"(?:[0-9a-fA-F]{2})*", value):
        raise ValueError("#natalog/bytes needs a string of hexadecimal digit pairs")
    return bytes.fromhex(value)


def _read_float(value: Any) -> Float32:
    if type(value) not in (float, int):
        raise ValueError("#natalog/float needs a number")
    return Float32(value)


def _read_int32(value: Any) -> Int32:
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise ValueError("#natalog/int needs an integer of 32 bits")
    return Int32(value)


def _read_numbers(value: Any) -> list[float]:
    if type(value) is not list or not all(type(number) in (int, float) for number in value):
        raise ValueError("an array needs a vector of numbers")
    return value


def _named(make: Callable[[str], Any]) -> Callable[[Any], Any]:
    def read_named(value: Any) -> Any:
        if type(value) is not str:
            raise ValueError(f"{value!r} is not a string")
        return make(value)

    return read_named


_TAGS: Final[dict[str, Callable[[Any], Any]]] = {
    "inst": _read_instant,
    "uuid": _read_uuid,
    "natalog/bytes": _read_bytes,
    "natalog/float": _read_float,
    "natalog/int": _read_int32,
    "natalog/doubles": lambda value: Doubles(_read_numbers(value)),
    "natalog/floats": lambda value: Floats(_read_numbers(value)),
    "natalog/keyword": _named(Keyword),
    "natalog/symbol": _named(Symbol),
    "natalog/regex": _named(Regex),
}


def _digits_checked(text: str, index: int) -> str:
    if len(text) > INTEGER_DIGITS_MAX:
        raise _Fault(
            f"a number of {len(text)} characters; at most {INTEGER_DIGITS_MAX} are read",
            index,
            limit=True,
        )
    return text


def _number(token: str, index: int) -> Any:
    if _INTEGER.fullmatch(token):
        return int(_digits_checked(token.rstrip("N"), index))
    match = _DECIMAL.fullmatch(token)
    if match:
        text = _digits_checked(match[1], index)
        if not match[2]:
            return float(text)
        exponent = text.lower().partition("e")[2]
        # comparing a decimal with an integer expands the exponent, so it is bounded like digits
        if len(exponent) > 6 or abs(Decimal(text).adjusted()) > DECIMAL_EXPONENT_MAX:
            raise _Fault(f"the exponent of {token[:40]} is too large", index, limit=True)
        return Decimal(text)
    match = _RATIO.fullmatch(token)
    if match:
        over, under = int(_digits_checked(match[1], index)), int(_digits_checked(match[2], index))
        if under == 0:
            raise _Fault(f"{token} divides by zero", index)
        ratio = Fraction(over, under)
        return ratio.numerator if ratio.denominator == 1 else ratio
    raise _Fault(f"{token[:40]} is not a number", index)


def _unescape(text: str, index: int) -> str:
    def one(match: re.Match[str]) -> str:
        escape = match[1]
        if len(escape) == 5:
            return chr(int(escape[1:], 16))
        plain = _ESCAPES.get(escape)
        if plain is None:
            raise _Fault(f"\\{escape} is not an escape in a string", index)
        return plain

    plain = _ESCAPE.sub(one, text)
    if _SURROGATE.search(plain):
        # two escapes may spell one character beyond 16 bits
        plain = plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return plain


def _character(token: str, index: int) -> str:
    name = token[1:]
    if len(name) == 1 and not name.isspace():
        return name
    known = _CHARACTERS.get(name)
    if known is not None:
        return known
    if re.fullmatch(r"u[0-9a-fA-F]{4}", name):
        return chr(int(name[1:], 16))
    if re.fullmatch(r"o[0-3]?[0-7]{1,2}", name):
        return chr(int(name[1:], 8))
    raise _Fault(f"{token[:40]} is not a character", index)


def _atom(token: str, index: int) -> Any:
    """The value of a token that is neither structure nor a tag."""
    first = token[0]
    if first == ":":
        if KEYWORD_TEXT.fullmatch(token, 1):
            return Keyword(token)
        raise _Fault(f"{token[:40]} is not a keyword", index)
    if first in _DIGITS or (first in "+-" and token[1:2] in _DIGITS):
        return _number(token, index)
    if first == '"':
        if len(token) == 1:
            raise _Fault("a string is not closed", index)
        return token[1:-1] if "\\" not in token else _unescape(token[1:-1], index)
    if first == "\\":
        return _character(token, index)
    if first == "#":
        if token[1:2] == '"' and len(token) > 2:
            return Regex(token[2:-1])
        special = _SPECIAL.get(token)
        if special is not None:
            return special
        raise _Fault(f"{token[:40]} cannot be read", index)
    if SYMBOL_TEXT.fullmatch(token):
        return Symbol(token)
    raise _Fault(f"{token[:40]} cannot be read", index)


# --- containers --------------------------------------------------------------------------------


def _make_map(items: list[Any], frozen: bool, index: int) -> dict[Any, Any]:
    if len(items) % 2:
        raise _Fault("a map needs an even number of forms", index)
    try:
        if is_crowded(items[::2]):
            raise _Fault("most of the keys of a map share one hash value", index, limit=True)
        made: dict[Any, Any] = dict(zip(items[::2], items[1::2], strict=True))
    except TypeError as error:  # a tag handler's value
        raise _Fault(f"not a map key: {error}", index) from None
    if len(made) * 2 != len(items):
        seen = set()
        for key in items[::2]:
            if key in seen:
                raise _Fault(f"a map holds the key {key!r} twice", index)
            seen.add(key)
    return FrozenMap(made) if frozen else made


def _make_set(items: list[Any], frozen: bool, index: int) -> Any:
    try:
        if is_crowded(items):
            raise _Fault("most of the members of a set share one hash value", index, limit=True)
        made = make_set(items)
    except TypeError as error:
        raise _Fault(f"not a member of a set: {error}", index) from None
    if len(made) != len(items):
        raise _Fault("a set holds a member twice", index)
    return frozenset(made) if frozen and type(made) is set else made


def _close(opener: str, items: list[Any], frozen: bool, index: int) -> Any:
    if opener == "[":
        return tuple(items) if frozen else items
    if opener == "{":
        return _make_map(items, frozen, index)
    if opener == "(":
        return EdnList(items)
    return _make_set(items, frozen, index)


def _with_namespace(tag: str, value: Any, index: int) -> dict[Any, Any]:
    """``#:person{:name 1}`` is ``{:person/name 1}``; ``:_/name`` stays ``:name``."""
    if not isinstance(value, dict) or not KEYWORD_TEXT.fullmatch(tag, 1) or "/" in tag:
        raise _Fault(f"#{tag} needs a map", index)
    made = {}
    for key, item in value.items():
        if type(key) is Keyword:
            space, name = key.namespace, key.name
            key = Keyword(
                f"{tag[1:]}/{name}" if space is None else (name if space == "_" else str(key))
            )
        made[key] = item
    if len(made) != len(value):
        raise _Fault("a map holds a key twice", index)
    return FrozenMap(made) if type(value) is FrozenMap else made


def _tagged(tag: str, value: Any, tags: TagHandlers | None, index: int) -> Any:
    handler = tags.get(tag) if tags is not None else None
    if handler is None:
        handler = _TAGS.get(tag)
    if handler is None:
        if tag[0] == ":":
            return _with_namespace(tag, value, index)
        if not tag[0].isalpha():
            raise _Fault(f"#{tag} is not a tag", index)
        return Tagged(tag, value)
    try:
        return handler(value)
    except NatalogError:
        raise
    except (ValueError, TypeError, ArithmeticError) as error:
        raise _Fault(f"#{tag}: {error}", index) from None


def _parse(tokens: Iterator[str], tags: TagHandlers | None) -> list[Any]:
    """All forms of a token stream.

    The stack holds one row ``(items, opener, frozen, keys, index)`` for each container that is
    open; ``frozen`` says that it lies inside a set or a map key and must be hashable.  A tag or
    ``#_`` is a container that closes itself after one form.
    """
    known: dict[str, Any] = {"nil": None, "true": True, "false": False}
    known_get = known.get
    structure = _STRUCTURE
    items: list[Any] = []
    opener, frozen, keys, start = _TOP, False, 0, 0
    prefix = False
    stack: list[tuple[list[Any], str, bool, int, int]] = []
    left = COLLECTIONS_READ_MAX
    for index, token in enumerate(tokens):
        if token not in structure:
            value = known_get(token, _MISSING)
            if value is _MISSING:
                if token[0] == '"' and "\\" not in token and len(token) > 1:
                    value = token[1:-1]
                elif token[0] == "#" and token not in _SPECIAL and token[1:2] not in ('"', "#", ""):
                    opened = token
                else:
                    value = _atom(token, index)
                    if len(known) < _KNOWN_MAX:
                        known[token] = value
        elif token in _CLOSERS or token == _DISCARD:
            opened, value = token, _MISSING
        elif token:
            if _CLOSERS.get(opener) != token:
                if prefix:
                    raise _Fault(f"{opener} is followed by no form", start)
                what = "closes nothing" if opener == _TOP else f"cannot close {opener}"
                raise _Fault(f"{token} {what}", index)
            value = _close(opener, items, frozen, start)
            items, opener, frozen, keys, start = stack.pop()
            prefix = opener[0] == "#" and opener != "#{"
        else:
            break
        if value is _MISSING:
            if len(stack) >= NESTING_DEPTH_MAX:
                raise _Fault(f"nested deeper than {NESTING_DEPTH_MAX} levels", index, limit=True)
            left -= 1
            if left < 0:
                raise _Fault(f"more than {COLLECTIONS_READ_MAX} collections", index, limit=True)
            stack.append((items, opener, frozen, keys, start))
            if opener == "#{" or (opener == "{" and len(items) % 2 == 0):
                frozen = True
                keys += 1
                if keys > KEY_DEPTH_MAX:
                    raise _Fault(
                        f"map keys and sets nested deeper than {KEY_DEPTH_MAX} levels",
                        index,
                        limit=True,
                    )
            items, opener, start = [], opened, index
            prefix = opener[0] == "#" and opener != "#{"
            continue
        while prefix:
            tag, at = opener, start
            items, opener, frozen, keys, start = stack.pop()
            prefix = opener[0] == "#" and opener != "#{"
            if tag == _DISCARD:
                break
            value = _tagged(tag[1:], value, tags, at)
        else:
            items.append(value)
    if stack:
        what = "is followed by no form" if prefix else "is not closed"
        raise _Fault(f"{opener} {what}", start)
    return items


def _fail(text: str, fault: _Fault) -> NoReturn:
    offset = 0
    for index, match in enumerate(_TOKEN.finditer(text)):
        offset = match.start(1)
        if index == fault.index:
            break
    line = text.count("\n", 0, offset) + 1
    column = offset - text.rfind("\n", 0, offset)
    kind = LimitExceeded if fault.limit else EdnSyntax
    raise kind(f"{fault.message} (line {line}, column {column})", line=line, column=column)


def read_all(text: str, tags: TagHandlers | None = None) -> list[Any]:
    """Every form of an EDN text.

    ``tags`` maps tags (without ``#``) to functions of the value that follows; it goes before the
    built-in ``inst``, ``uuid`` and ``natalog/...``.  Other tags become `Tagged`.
    Raises `EdnSyntax` with line and column, `LimitExceeded`.

    >>> read_all("1 :a ; comment")
    [1, :a]
    """
    tokens = map(itemgetter(1), _TOKEN.finditer(text))
    try:
        return _parse(tokens, tags)
    except _Fault as fault:
        _fail(text, fault)


def read(text: str, tags: TagHandlers | None = None) -> Any:
    """The one form of an EDN text; no form, or more than one, is an error (see `read_all`).

    Vectors are lists, lists `EdnList`, maps dicts, sets as `make_set` makes them; inside sets and
    map keys the hashable twins tuple, `FrozenMap` and frozenset.  Time is linear in the text.

    >>> read('{:name "Ivan", :ids #{1 2}}')
    {:name: 'Ivan', :ids: {1, 2}}
    """
    forms = read_all(text, tags)
    if len(forms) == 1:
        return forms[0]
    if not forms:
        raise EdnSyntax("an EDN text without a form", line=1, column=1)
    raise EdnSyntax(f"one form was expected, {len(forms)} were found", forms=len(forms))

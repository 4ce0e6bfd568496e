"""JSON of values, and which form a payload has.  ``docs/wire.md`` specifies the mapping.

JSON has fewer kinds of value than a database: keywords and strings keep apart (a string that
starts with ``:`` is written with one more), everything else that JSON lacks becomes text.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Set
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Literal
from uuid import UUID

from natalog.core.edn import write
from natalog.core.edn_read import KEYWORD_TEXT
from natalog.core.errors import CodecError, LimitExceeded
from natalog.core.limits import COLLECTIONS_READ_MAX, INTEGER_DIGITS_MAX, NESTING_DEPTH_MAX
from natalog.core.values import Keyword, Regex, Symbol, Tagged, instant_text

ContentKind = Literal["msgpack", "edn", "json"]


_JSON_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def _string(text: str) -> str:
    return ":" + text if text.startswith(":") else text


def _key(value: Any) -> str:
    if type(value) is str:
        return _string(value)
    if isinstance(value, (list, tuple, Mapping, Set)):
        return write(value)
    plain = _plain(value, 0)
    return plain if isinstance(plain, str) else write(value)


def _plain(value: Any, depth: int) -> Any:
    """The value in terms of JSON: dict with text keys, list, str, int, float, bool, None."""
    if value is None or isinstance(value, (bool, int)):
        if type(value) is int and value.bit_length() > INTEGER_DIGITS_MAX * 10 // 3:
            raise LimitExceeded(f"an integer of more than {INTEGER_DIGITS_MAX} digits")
        return value
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, float):
        if value - value == 0.0:
            return float(value)
        return "NaN" if value != value else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, (Keyword, Symbol, UUID, Decimal, Fraction)):
        return str(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise CodecError(f"an instant needs a time zone: {value!r}")
        return instant_text(value).replace("-00:00", "Z")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Regex):
        return value.pattern
    if depth >= NESTING_DEPTH_MAX:
        raise LimitExceeded(f"nested deeper than {NESTING_DEPTH_MAX} levels")
    depth += 1
    if isinstance(value, Tagged):
        return {"tag": value.tag, "value": _plain(value.value, depth)}
    if isinstance(value, Mapping):
        made = {}
        for key, item in value.items():
            text = _key(key)
            if text in made:
                raise CodecError(f"two keys of a map are both {text!r} in JSON", key=text)
            made[text] = _plain(item, depth)
        return made
    if isinstance(value, (list, tuple, Set)):
        made_list = []
        for item in value:
            made_list.append(_plain(item, depth))
        return made_list
    raise CodecError(f"a {type(value).__name__} has no JSON form: {value!r}")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """The JSON text of a value.

    Raises `CodecError` for what has no JSON form, `LimitExceeded`.

    >>> to_json({Keyword("name"): ":-)", "n": [1, Decimal("1.50")]})
    '{":name": "::-)", "n": [1, "1.50"]}'
    """
    plain = _plain(value, 0)
    try:
        return json.dumps(plain, indent=indent, allow_nan=False)
    except RecursionError:
        raise LimitExceeded(f"nested deeper than {NESTING_DEPTH_MAX} levels") from None


def _read_string(text: str) -> Any:
    if not text.startswith(":"):
        return text
    if text.startswith("::"):
        return text[1:]
    return Keyword(text) if KEYWORD_TEXT.fullmatch(text, 1) else text


def _read_value(value: Any) -> Any:
    return _read_string(value) if type(value) is str else value


def _read_pairs(pairs: list[tuple[str, Any]]) -> dict[Any, Any]:
    made = {_read_string(key): _read_value(value) for key, value in pairs}
    if len(made) != len(pairs):
        raise CodecError("a map holds a key twice")
    return made


def _read_integer(text: str) -> int:
    if len(text) > INTEGER_DIGITS_MAX:
        raise LimitExceeded(f"an integer of {len(text)} digits; at most {INTEGER_DIGITS_MAX}")
    return int(text)


def _read_constant(text: str) -> Any:
    raise CodecError(f"{text} is not JSON")


def _lists_read(value: Any) -> Any:
    """Strings inside lists become keywords too; checks the depth.  Lists are changed in place."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > NESTING_DEPTH_MAX + 1:
            raise LimitExceeded(f"nested deeper than {NESTING_DEPTH_MAX} levels")
        inner: list[Any] = []
        for item in level:
            if type(item) is list:
                item[:] = map(_read_value, item)
                inner.extend(child for child in item if type(child) in (list, dict))
            elif type(item) is dict:
                inner.extend(child for child in item.values() if type(child) in (list, dict))
        level = inner
    return value


def _check_collections(text: str | bytes) -> None:
    """Raise `LimitExceeded` for text with too many arrays and objects."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if data.count(b"[") + data.count(b"{") <= COLLECTIONS_READ_MAX:
        return
    bare = _JSON_STRING.sub(b"", data)
    if bare.count(b"[") + bare.count(b"{") > COLLECTIONS_READ_MAX:
        raise LimitExceeded(f"more than {COLLECTIONS_READ_MAX} collections")


def from_json(text: str | bytes) -> Any:
    """The value of JSON text.

    A string ``":ns/name"`` is a keyword, ``"::..."`` a string that starts with one colon; all
    other strings stay strings.  Raises `CodecError` for malformed text, `LimitExceeded`.

    >>> from_json('{":age": 3, "tags": [":a", "::b", "c"]}')
    {:age: 3, 'tags': [:a, ':b', 'c']}
    """
    _check_collections(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_read_pairs,
            parse_int=_read_integer,
            parse_constant=_read_constant,
        )
    except RecursionError:
        raise LimitExceeded(f"nested deeper than {NESTING_DEPTH_MAX} levels") from None
    except (ValueError, TypeError) as error:
        raise CodecError(f"malformed JSON: {error}") from None
    return _lists_read(_read_value(value))


# --- which form --------------------------------------------------------------------------------

_JSON_OBJECT: Final = re.compile(rb'\s*\{\s*"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*:[\s"\[{0-9-]', re.DOTALL)
"""An object whose first colon no EDN text could hold."""


def content_kind(content_type: str | None, payload: bytes) -> ContentKind:
    """The form of a payload: by its ``Content-Type`` header where it is known, else by its bytes.

    Text that starts with ``[``, ``{``, ``(`` (or ``"``, ``#``, ``;``) is EDN, unless it can only
    be a JSON object; everything else is msgpack.

    >>> content_kind(None, b'[:find ?e ...]'), content_kind(None, b'{"a": 1}')
    ('edn', 'json')
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind in ("application/edn", "text/edn", "application/x-edn"):
        return "edn"
    if kind in ("application/json", "text/json"):
        return "json"
    if kind in ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack"):
        return "msgpack"
    start = payload[:64].lstrip(b" \t\r\n,")[:1]
    if start == b"{" and _JSON_OBJECT.match(payload):
        return "json"
    # these bytes alone are small integers in msgpack, which no request is
    return "edn" if start in (b"[", b"{", b"(", b'"', b"#", b";") else "msgpack"

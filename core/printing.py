"""How Clojure prints values: ``str``, ``pr-str`` and ``print-str``.

Sets and maps have no order of their own; they print in the order of their values, so that equal
values always print alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Set
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from natalog.core.errors import LimitExceeded
from natalog.core.limits import CONSTANT_NESTING_MAX, LONG_MAX, LONG_MIN
from natalog.core.values import EdnList, Keyword, Regex, Symbol, Tagged, instant_text, sort_key

_ESCAPES = str.maketrans(
    {
        '"': '\\"',
        "\\": "\\\\",
        "\n": "\\n",
        "\t": "\\t",
        "\r": "\\r",
        "\f": "\\f",
        "\b": "\\b",
    }
)


def clj_str(value: Any) -> str:
    """What ``(str value)`` makes: nil is empty, a string is itself, 1e10 is ``1.0E10``.

    >>> clj_str(None), clj_str(2.0), clj_str((1, "a"))
    ('', '2.0', '[1 "a"]')
    """
    if value is None:
        return ""
    if type(value) is str:
        return value
    if isinstance(value, float):
        return double_text(value)
    if type(value) is int or isinstance(value, Decimal):
        return str(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, Regex):
        return value.pattern
    return _render(value, True, 0)


def pr_str(value: Any) -> str:
    """What ``(pr-str value)`` makes: text that reads back as the value.

    >>> pr_str("a"), pr_str(None), pr_str({1: (2,)})
    ('"a"', 'nil', '{1 [2]}')
    """
    return _render(value, True, 0)


def print_str(value: Any) -> str:
    """What ``(print-str value)`` makes: as `pr_str`, strings without quotation marks."""
    return _render(value, False, 0)


def double_text(value: float) -> str:
    """A double as Java prints it.

    >>> double_text(1e10), double_text(0.001), double_text(1e-5), double_text(123456.0)
    ('1.0E10', '0.001', '1.0E-5', '123456.0')
    """
    if value != value:
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    size = abs(value)
    if value == 0 or 1e-3 <= size < 1e7:
        text = repr(float(value))
        return text if "e" not in text else f"{Decimal(text):f}"
    sign, digits, exponent = Decimal(repr(float(value))).normalize().as_tuple()
    point = len(digits) - 1 + int(exponent)
    tail = "".join(map(str, digits[1:])) or "0"
    return f"{'-' if sign else ''}{digits[0]}.{tail}E{point}"


def _render(value: Any, readable: bool, depth: int) -> str:
    if value is None:
        return "nil"
    if value is True:
        return "true"
    if value is False:
        return "false"
    kind = type(value)
    if kind is str:
        return f'"{value.translate(_ESCAPES)}"' if readable else value
    if kind in (Keyword, Symbol):
        return str(value)
    if isinstance(value, int):
        return str(value) if LONG_MIN <= value <= LONG_MAX else f"{value}N"
    if isinstance(value, float):
        if math.isfinite(value):
            return double_text(value)
        return "##NaN" if value != value else ("##Inf" if value > 0 else "##-Inf")
    if kind is Fraction:
        return f"{value.numerator}/{value.denominator}"
    if kind is Decimal:
        return f"{value}M"
    if isinstance(value, UUID):
        return f'#uuid "{value}"'
    if isinstance(value, datetime):
        return f'#inst "{instant_text(value)}"'
    if kind is Regex:
        return f'#"{value.pattern}"'
    if isinstance(value, (bytes, bytearray)):
        return f'#bytes "{bytes(value).hex()}"'
    if depth >= CONSTANT_NESTING_MAX:
        raise LimitExceeded(
            f"A value nests deeper than {CONSTANT_NESTING_MAX} levels", limit=CONSTANT_NESTING_MAX
        )
    if kind is Tagged:
        return f"#{value.tag} {_render(value.value, readable, depth + 1)}"
    if isinstance(value, EdnList):
        return f"({_items(value, readable, depth)})"
    if isinstance(value, (list, tuple)):
        return f"[{_items(value, readable, depth)}]"
    if isinstance(value, Set):
        return f"#{{{_items(sorted(value, key=sort_key), readable, depth)}}}"
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: sort_key(pair[0]))
        return f"{{{', '.join(_items(pair, readable, depth) for pair in pairs)}}}"
    return f"#<{kind.__name__}>"


def _items(items: Iterable[Any], readable: bool, depth: int) -> str:
    return " ".join(_render(item, readable, depth + 1) for item in items)

"""Strings and names: ``str subs name namespace pr-str re-find re-matches re-seq`` and others.

Positions in strings count UTF-16 units, as the order of strings does.  Regular expressions are
RE2's: matching takes time linear in the text, whatever the pattern.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2

from natalog.core.errors import QueryFunction, QueryLimit
from natalog.core.limits import (
    REGEX_LENGTH_MAX,
    REGEX_MEMORY_BYTES_MAX,
    REGEXES_KEPT_MAX,
    STRING_LENGTH_MAX,
)
from natalog.core.printing import clj_str, pr_str, print_str
from natalog.core.query.mismatch import TypeMismatch
from natalog.core.query.numbers import is_integer
from natalog.core.values import Keyword, Regex, Symbol, utf16


def text(*args: Any) -> str:
    """``str``: the arguments as text, one after the other; nil is empty."""
    if len(args) == 1:
        return clj_str(args[0])
    return _bounded("".join(map(clj_str, args)), "str")


def _bounded(found: str, function: str) -> str:
    if len(found) > STRING_LENGTH_MAX:
        raise QueryLimit(
            f"The result of {function} is longer than {STRING_LENGTH_MAX} characters",
            function=function,
            limit=STRING_LENGTH_MAX,
        )
    return found


def printed(*args: Any) -> str:
    """``pr-str``: the arguments as EDN, separated by spaces."""
    return _bounded(" ".join(map(pr_str, args)), "pr-str")


def printed_line(*args: Any) -> str:
    """``prn-str``: `printed` and a newline."""
    return printed(*args) + "\n"


def shown(*args: Any) -> str:
    """``print-str``: as `printed`, strings without quotation marks."""
    return _bounded(" ".join(map(print_str, args)), "print-str")


def shown_line(*args: Any) -> str:
    """``println-str``: `shown` and a newline."""
    return shown(*args) + "\n"


def is_narrow(value: str) -> bool:
    """Whether every character is one UTF-16 unit."""
    return value.isascii() or max(value) <= "\uffff"


def units(value: str) -> int:
    """The length of a string in UTF-16 units."""
    return len(value) if is_narrow(value) else len(utf16(value)) // 2


def substring(value: Any, start: Any, end: Any = None) -> str:
    """``subs``: the string from ``start`` to before ``end``, in UTF-16 units.

    Raises `QueryFunction` for positions outside the string or within a character.
    """
    if not isinstance(value, str) or not is_integer(start):
        raise TypeMismatch("subs", value, start)
    length = units(value)
    if end is None:
        end = length
    elif not is_integer(end):
        raise TypeMismatch("subs", value, start, end)
    if not 0 <= start <= end <= length:
        raise QueryFunction(
            f"subs from {start} to {end} of a string of length {length}",
            function="subs",
            arguments=[value, start, end],
        )
    if is_narrow(value):
        return value[start:end]
    try:
        return utf16(value)[2 * start : 2 * end].decode("utf-16-be")
    except UnicodeDecodeError:
        raise QueryFunction(
            f"subs from {start} to {end} cuts a character in two",
            function="subs",
            arguments=[value, start, end],
        ) from None


def name(value: Any) -> str:
    """``name``: of a keyword or symbol without its namespace; a string is its own name."""
    if isinstance(value, (Keyword, Symbol)):
        return value.name
    if isinstance(value, str):
        return value
    raise TypeMismatch("name", value)


def namespace(value: Any) -> str | None:
    """``namespace``: of a keyword or symbol, or nil."""
    if isinstance(value, (Keyword, Symbol)):
        return value.namespace
    raise TypeMismatch("namespace", value)


# --- regular expressions --------------------------------------------------------------------------


@lru_cache(maxsize=REGEXES_KEPT_MAX)
def _compiled(pattern: str) -> Any:
    if len(pattern) > REGEX_LENGTH_MAX:
        raise QueryLimit(
            f"A regular expression is longer than {REGEX_LENGTH_MAX} characters",
            limit=REGEX_LENGTH_MAX,
        )
    options = re2.Options()
    options.max_mem = REGEX_MEMORY_BYTES_MAX
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else b""
        said = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise QueryFunction(
            f"Cannot read the regular expression {pattern!r}: {said}", pattern=pattern
        ) from None


def _pattern(function: str, pattern: Any, value: Any) -> Any:
    if isinstance(pattern, Regex):
        pattern = pattern.pattern
    if not isinstance(pattern, str) or not isinstance(value, str):
        raise TypeMismatch(function, pattern, value)
    return _compiled(pattern)


def _groups(match: Any) -> Any:
    found = match.groups()
    return (match.group(0), *found) if found else match.group(0)


def re_find(pattern: Any, value: Any) -> Any:
    """The first match: a string, or with groups a vector of the match and its groups; or nil."""
    match = _pattern("re-find", pattern, value).search(value)
    return None if match is None else _groups(match)


def re_matches(pattern: Any, value: Any) -> Any:
    """The match of the whole string, in the form of `re_find`; or nil."""
    match = _pattern("re-matches", pattern, value).fullmatch(value)
    return None if match is None else _groups(match)


def re_seq(pattern: Any, value: Any) -> tuple[Any, ...] | None:
    """All matches, in the form of `re_find`; nil when there is none."""
    return tuple(map(_groups, _pattern("re-seq", pattern, value).finditer(value))) or None


def re_pattern(value: Any) -> Regex:
    """``re-pattern``: the regular expression that a string spells."""
    if isinstance(value, Regex):
        return value
    if not isinstance(value, str):
        raise TypeMismatch("re-pattern", value)
    _compiled(value)
    return Regex(value)

"""Offending data in errors: named, but never longer than an error should be."""

from __future__ import annotations

from typing import Any, Final

SHOWN_LENGTH_MAX: Final = 200
"""Characters of an operation or value that an error repeats."""


def shown(data: Any) -> str:
    """The data as text, cut off where it gets long.

    >>> shown([1] * 1000)[-12:]
    ', 1, 1, 1...'
    """
    if isinstance(data, str | bytes) and len(data) > SHOWN_LENGTH_MAX:
        data = data[:SHOWN_LENGTH_MAX]
    try:
        text = repr(data)
    except RecursionError:
        return f"a {type(data).__name__} that is nested too deeply"
    return text if len(text) <= SHOWN_LENGTH_MAX else text[: SHOWN_LENGTH_MAX - 3] + "..."


def brief(value: Any) -> Any:
    """The value itself where it is small, else `shown`."""
    if isinstance(value, str | bytes):
        return value if len(value) <= SHOWN_LENGTH_MAX else shown(value)
    if isinstance(value, list | tuple | dict | set | frozenset):
        text = shown(value)
        return value if len(text) < SHOWN_LENGTH_MAX else text
    return value

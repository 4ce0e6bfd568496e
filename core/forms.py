"""Forms of queries and patterns before they are parsed: variables, sources, lists, vectors.

A form is what the EDN reader makes of query text, or the same in Python data: lists or tuples for
vectors, `EdnList` for lists in parentheses, `Symbol`, `Keyword`, dicts and plain values.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from datetime import datetime
from typing import Any, TypeGuard
from uuid import UUID

from natalog.core.errors import LimitExceeded
from natalog.core.limits import CONSTANT_NESTING_MAX, KEPT_FORM_SIZE_MAX
from natalog.core.values import EdnList, FrozenMap, Keyword, Symbol, make_set, value_key

ELLIPSIS = Symbol("...")
DOT = Symbol(".")
BLANK = Symbol("_")
PERCENT = Symbol("%")
_ATOMS = frozenset({int, str, float, bool, Keyword, Symbol, UUID, datetime, type(None)})


def is_sequence(form: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """A vector or a list; named tuples (regular expressions, tagged values) are neither."""
    return isinstance(form, list) or type(form) in (tuple, EdnList)


def is_list(form: object) -> TypeGuard[EdnList]:
    """A list in parentheses."""
    return isinstance(form, EdnList)


def is_variable(form: object) -> TypeGuard[Symbol]:
    """A symbol whose name starts with a question mark."""
    return isinstance(form, Symbol) and form.name.startswith("?")


def is_source(form: object) -> TypeGuard[Symbol]:
    """A symbol whose name starts with a dollar sign."""
    return isinstance(form, Symbol) and form.name.startswith("$")


def is_plain_symbol(form: object) -> TypeGuard[Symbol]:
    """A symbol that is no variable, no source, neither ``_`` nor ``%``."""
    return (
        isinstance(form, Symbol) and form.name[0] not in "?$" and form != BLANK and form != PERCENT
    )


def freeze(form: Any, depth: int = 0) -> Any:
    """The same constant in hashable types: vectors as tuples, maps as `FrozenMap`.

    Raises `LimitExceeded` where it nests deeper than ``CONSTANT_NESTING_MAX``.
    """
    if isinstance(form, (list, tuple)):
        if type(form) in (list, tuple) and _ATOMS.issuperset(map(type, form)):
            return tuple(form)  # as most inputs are
        if depth >= CONSTANT_NESTING_MAX:
            raise LimitExceeded(
                f"A constant nests deeper than {CONSTANT_NESTING_MAX} levels",
                limit=CONSTANT_NESTING_MAX,
            )
        items = [freeze(item, depth + 1) for item in form]
        if isinstance(form, EdnList):
            return EdnList(items)
        if type(form) in (list, tuple):
            return tuple(items)
        return form
    if isinstance(form, dict):
        if depth >= CONSTANT_NESTING_MAX:
            raise LimitExceeded(
                f"A constant nests deeper than {CONSTANT_NESTING_MAX} levels",
                limit=CONSTANT_NESTING_MAX,
            )
        return FrozenMap(
            (freeze(key, depth + 1), freeze(value, depth + 1)) for key, value in form.items()
        )
    return frozenset(form) if type(form) is set else form


def is_small(form: Any) -> bool:
    """Whether a form is worth keeping: what many large ones would hold, no cache should.

    O(the limit), however large the form is.
    """
    left = KEPT_FORM_SIZE_MAX
    waiting = [form]
    while waiting:
        item = waiting.pop()
        if isinstance(item, (str, bytes)):
            left -= len(item)
        elif isinstance(item, (list, tuple, Set)):
            left -= len(item)
            if left > 0:
                waiting.extend(item)
        elif isinstance(item, dict):
            left -= 2 * len(item)
            if left > 0:
                waiting.extend(item)
                waiting.extend(item.values())
        elif isinstance(item, (Keyword, Symbol)):
            left -= len(item.text)
        elif type(item) is int:
            left -= item.bit_length() >> 5
        else:
            left -= 1
        if left <= 0:
            return False
    return True


class FrozenForm:
    """A frozen form as a key: equal to another of the same values and classes."""

    __slots__ = ("form", "key")

    def __init__(self, form: Any) -> None:
        self.form = form
        self.key = value_key(form)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrozenForm) and self.key == other.key


def frozen_set(values: Iterable[Any]) -> Set[Any]:
    """A set of values that cannot change and can be hashed."""
    found = make_set(values)
    return frozenset(found) if isinstance(found, set) else found


def forward_attribute(attr: Keyword) -> Keyword | None:
    """``:ns/a`` of the reverse attribute ``:ns/_a``; None of any other.

    >>> forward_attribute(Keyword("page/_author")), forward_attribute(Keyword("_a"))
    (:page/author, :a)
    """
    if not attr.name.startswith("_") or len(attr.name) < 2:
        return None
    plain = attr.name[1:]
    return Keyword(plain if attr.namespace is None else f"{attr.namespace}/{plain}")

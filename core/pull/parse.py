"""Pull patterns: from data to a `Pattern`.

    [:name [:age :default 0] {:friend [:name]} {:boss ...} :_friend *]

An attribute is a keyword, or in Python also a string, ``"name"`` or ``":name"``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from natalog.core.errors import PullParse
from natalog.core.forms import (
    ELLIPSIS,
    FrozenForm,
    forward_attribute,
    freeze,
    is_sequence,
    is_small,
)
from natalog.core.limits import PARSED_QUERIES_MAX, PULL_LIMIT_DEFAULT
from natalog.core.printing import pr_str
from natalog.core.values import Keyword, Symbol, sort_key, value_key

DB_ID: Final = Keyword("db/id")
UNBOUNDED: Final = -1
"""The recursion of ``...``."""


class _Missing:
    """The default of an attribute that names none."""


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """What is pulled of one attribute."""

    name: Keyword
    """As written; a reverse attribute with its underscore."""
    attr: Keyword
    """The attribute itself."""
    reverse: bool
    key: Any
    """The key in the result: the name, or what ``:as`` says."""
    limit: int | None = PULL_LIMIT_DEFAULT
    default: Any = MISSING
    sub: Pattern | None = None
    recursion: int | None = None
    """None: not recursive; ``UNBOUNDED`` or a number of levels."""
    xform: str | None = None
    """The name of a registered function that is applied to the result."""


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """A pull pattern.  Patterns are compared by identity; equal forms parse to the same one."""

    wildcard: bool
    specs: tuple[Spec, ...]
    flat: bool = False
    """Whether it only names attributes of the entity itself, or is ``[*]``."""

    @property
    def forward(self) -> dict[Keyword, list[Spec]]:
        """The specs of attributes that are not reversed."""
        found: dict[Keyword, list[Spec]] = {}
        for spec in self.specs:
            if not spec.reverse:
                found.setdefault(spec.attr, []).append(spec)
        return found


WILDCARD: Final = Pattern(True, ())
"""``[*]``: what component entities are expanded with."""


def parse_pull(form: Any) -> Pattern:
    """The pattern that ``form`` describes; equal forms are parsed once.

    Raises `PullParse` for anything that is no pattern, `LimitExceeded` for one that nests too deep.
    """
    if isinstance(form, Pattern):
        return form
    plain = type(form) is list and len(form) <= _NAMED_LENGTH_MAX
    if plain:
        try:
            found = _named.get(tuple(form))
        except TypeError:  # some part of it is a map or a list
            found = None
        if found is not None:
            return found
    if not is_small(form):
        return _pattern(freeze(form))
    made = _cached(FrozenForm(freeze(form)))
    if plain and all(type(item) in _NAMES for item in form):
        if len(_named) >= PARSED_QUERIES_MAX:
            _named.clear()
        _named[tuple(form)] = made
    return made


_NAMES: Final = (Keyword, str, Symbol)
_NAMED_LENGTH_MAX: Final = 32
_named: Final[dict[tuple[Keyword | str | Symbol, ...], Pattern]] = {}
"""Patterns that are short lists of names, as most are, found without a look at what they are."""


@lru_cache(maxsize=PARSED_QUERIES_MAX)
def _cached(form: FrozenForm) -> Pattern:
    return _pattern(form.form)


def _is_pattern(form: Any) -> bool:
    return is_sequence(form) or isinstance(form, Set)


def _pattern(form: Any) -> Pattern:
    if not _is_pattern(form):
        raise PullParse(
            f"Cannot read the pull pattern {pr_str(form)}: expected [attribute+]", form=form
        )
    items: Sequence[Any] = form if is_sequence(form) else sorted(form, key=sort_key)
    wildcard = False
    specs: dict[Any, Spec] = {}
    # map specs come last, so that they override a bare name of the same attribute
    for item in sorted(items, key=lambda item: isinstance(item, dict)):
        if _is_wildcard(item):
            wildcard = True
            continue
        for spec in _specs(item):
            specs[(spec.name, value_key(spec.key))] = spec
    return _made(wildcard, tuple(specs.values()))


def _made(wildcard: bool, specs: tuple[Spec, ...]) -> Pattern:
    flat = not (wildcard and specs) and all(
        not spec.reverse
        and spec.sub is None
        and spec.recursion is None
        and spec.xform is None
        and spec.attr is not DB_ID
        for spec in specs
    )
    return Pattern(wildcard, specs, flat)


def _is_wildcard(form: Any) -> bool:
    return (isinstance(form, (Symbol, Keyword)) and form.text == "*") or form == "*"


def _specs(form: Any) -> Iterator[Spec]:
    if isinstance(form, dict):
        for key, value in form.items():
            yield _nested(key, value)
        return
    name = _name(form)
    if name is not None:
        yield _plain(name)
    elif is_sequence(form):
        yield _with_options(form)
    else:
        raise PullParse(
            f"Cannot read {pr_str(form)} in a pull pattern: expected an attribute, *, a map or "
            "[attribute option value ...]",
            form=form,
        )


def _name(form: Any) -> Keyword | None:
    if isinstance(form, Keyword):
        return form
    if isinstance(form, str) and form.removeprefix(":"):
        return Keyword(form)
    return None


def _plain(name: Keyword) -> Spec:
    forward = forward_attribute(name)
    return Spec(name, forward or name, forward is not None, name)


def _nested(key: Any, value: Any) -> Spec:
    name = _name(key)
    if name is not None and not _is_wildcard(key):
        spec = _plain(name)
    elif is_sequence(key):
        spec = _with_options(key)
    else:
        raise PullParse(
            f"Cannot read the key {pr_str(key)} in a pull pattern: expected an attribute", form=key
        )
    if value == ELLIPSIS or value == "...":
        return replace(spec, recursion=UNBOUNDED)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return replace(spec, recursion=int(value))
    if _is_pattern(value):
        return replace(spec, sub=_pattern(value))
    raise PullParse(
        f"Cannot read {pr_str(value)} after {pr_str(key)}: expected a pattern, a positive number "
        "of levels or ...",
        form=value,
    )


# --- options ------------------------------------------------------------------------------------


def _legacy(form: Sequence[Any]) -> Spec | None:
    """``(limit :a 10)`` and ``(default :a 0)``."""
    if len(form) != 3:
        return None
    head, attr, value = form
    word = head.text if isinstance(head, (Symbol, Keyword)) else head
    if word not in ("limit", "default"):
        return None
    name = _name(attr)
    if name is None:
        raise PullParse(
            f"Cannot read {pr_str(form)}: expected ({word} :attribute value)", form=form
        )
    return _option(_plain(name), word, value, form)


def _with_options(form: Sequence[Any]) -> Spec:
    spec = _legacy(form)
    if spec is not None:
        return spec
    name = _name(form[0]) if form else None
    if name is None or len(form) < 2:
        raise PullParse(
            f"Cannot read {pr_str(form)} in a pull pattern: expected [attribute option value ...]",
            form=form,
        )
    if len(form) % 2 == 0:
        raise PullParse(f"An option in {pr_str(form)} has no value", form=form)
    spec = _plain(name)
    for option, value in zip(form[1::2], form[2::2], strict=True):
        word = option.text if isinstance(option, Keyword) else option
        spec = _option(spec, word, value, form)
    return spec


def _option(spec: Spec, option: Any, value: Any, form: Any) -> Spec:
    match option:
        case "as" | ":as":
            return spec if value is None or value is False else replace(spec, key=value)
        case "default" | ":default":
            return replace(spec, default=value)
        case "limit" | ":limit":
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or value <= 0
            ):
                raise PullParse(
                    f"The limit in {pr_str(form)} is neither a positive number nor nil", form=form
                )
            return replace(spec, limit=value)
        case "xform" | ":xform":
            name = value.text if isinstance(value, (Symbol, Keyword)) else value
            if isinstance(name, str) and name:
                return replace(spec, xform=name)
    raise PullParse(f"{pr_str(option)} in {pr_str(form)} is not an option", form=form)

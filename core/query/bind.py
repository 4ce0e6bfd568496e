"""Binding forms: from a Python value and ``?x``, ``[?x ...]``, ``[?a ?b]``, ``[[?a ?b]]`` to rows.

Inputs and function results bind alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from natalog.core.errors import QueryBinding
from natalog.core.forms import freeze
from natalog.core.index.pool import ValuePool
from natalog.core.query.ast import (
    BindColl,
    BindIgnore,
    Binding,
    BindScalar,
    BindTuple,
)
from natalog.core.query.column import column_of
from natalog.core.query.relation import NOTHING, UNIT, Relation, empty, union


def binding_vars(binding: Binding) -> list[str]:
    """The variables of a binding form, in order."""
    if isinstance(binding, BindScalar):
        return [binding.var.name]
    if isinstance(binding, BindColl):
        return binding_vars(binding.item)
    if isinstance(binding, BindTuple):
        return [name for item in binding.items for name in binding_vars(item)]
    return []


def as_collection(value: Any) -> list[Any]:
    """The members of a collection; a map's are its entries.  Raises `QueryBinding` otherwise."""
    if isinstance(value, Mapping):
        return [tuple(entry) for entry in value.items()]
    if isinstance(value, (list, tuple, Set)):
        return list(value)
    raise QueryBinding(f"A collection is needed to bind, not {value!r}.", value=repr(value)[:200])


def bind(binding: Binding, value: Any, pool: ValuePool, known: ValuePool | None = None) -> Relation:
    """The rows that a value gives the variables of a binding form.

    ``pool`` and ``known``: see `natalog.core.query.column.column_of`.
    """
    if isinstance(binding, BindScalar):
        return Relation({binding.var.name: column_of([freeze(value)], pool, known)}, 1, frozenset())
    if isinstance(binding, BindIgnore):
        return UNIT
    if isinstance(binding, BindTuple):
        return _tuples(binding, [value], pool, known)
    items = as_collection(value)
    inner = binding.item
    if not items:
        return empty(binding_vars(binding), pool)
    if isinstance(inner, BindScalar):
        column = column_of(freeze(items), pool, known)
        return Relation({inner.var.name: column}, len(items)).distinct()
    if isinstance(inner, BindIgnore):
        return UNIT
    if isinstance(inner, BindTuple) and all(
        isinstance(item, (BindScalar, BindIgnore)) for item in inner.items
    ):
        return _tuples(inner, items, pool, known)
    names = list(dict.fromkeys(binding_vars(inner)))
    return union([bind(inner, item, pool) for item in items], names, pool)


def _tuples(
    binding: BindTuple, values: list[Any], pool: ValuePool, known: ValuePool | None
) -> Relation:
    """Rows of a tuple form; every value must be a sequence that is long enough."""
    width = len(binding.items)
    rows = [_sequence(value, width) for value in values]
    found = UNIT
    if all(isinstance(item, (BindScalar, BindIgnore)) for item in binding.items):
        columns: dict[str, Any] = {}
        for spot, item in enumerate(binding.items):
            if isinstance(item, BindScalar):
                columns[item.var.name] = column_of([freeze(row[spot]) for row in rows], pool, known)
        return Relation(columns, len(rows)).distinct() if columns else UNIT
    for spot, item in enumerate(binding.items):
        part = bind(item, rows[0][spot], pool)
        if not part.count:
            return empty(list(dict.fromkeys(binding_vars(binding))), pool)
        found = found.join(part)
    return found if rows else NOTHING


def _sequence(value: Any, width: int) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise QueryBinding(
            f"A sequence of {width} is needed to bind, not {value!r}.", value=repr(value)[:200]
        )
    if len(value) < width:
        raise QueryBinding(
            f"{value!r} is too short to bind {width} variables.", value=repr(value)[:200]
        )
    return list(value)

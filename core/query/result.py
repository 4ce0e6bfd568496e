"""From rows of variables to the answer: grouping, aggregates, pulls, order, limit, shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from natalog.core.errors import QueryFunction, QueryWhere
from natalog.core.garbage import GarbageWaits
from natalog.core.index.pool import Ints
from natalog.core.pull import pull, pull_many
from natalog.core.query.aggregates import AGGREGATES
from natalog.core.query.ast import (
    Const,
    FindAggregate,
    FindElement,
    FindPull,
    FindVar,
    Query,
    Var,
)
from natalog.core.query.column import Column
from natalog.core.query.context import Context
from natalog.core.query.fast_aggregates import Groups, fast_aggregate
from natalog.core.query.keys import numbered, packed
from natalog.core.query.relation import Relation
from natalog.core.query.rows import Values, rows_of, single_rows, values_of
from natalog.core.values import make_set, sort_key


class QueryResult:
    """An answer.

    ``kind``: ``"set"`` (a relation as a set of tuples), ``"rows"`` (a list of tuples),
    ``"collection"`` (a list of values), ``"tuple"`` (one row or None), ``"scalar"`` (one value or
    None) or ``"maps"`` (a list of dicts).  ``rows``: the tuples, of a set each once.
    """

    __slots__ = ("keys", "kind", "rows")

    def __init__(
        self, kind: str, rows: list[tuple[Any, ...]], keys: tuple[Any, ...] | None = None
    ) -> None:
        self.kind = kind
        self.rows = rows
        self.keys = keys

    def python(self) -> Any:
        """The answer as Python values of the shape that ``kind`` says."""
        rows = self.rows
        if self.kind == "set":
            return make_set(rows)
        if self.kind == "rows":
            return rows
        if self.kind == "collection":
            return [row[0] for row in rows]
        if self.kind == "tuple":
            return rows[0] if rows else None
        if self.kind == "scalar":
            return rows[0][0] if rows else None
        assert self.keys is not None
        return [dict(zip(self.keys, row, strict=True)) for row in rows]


def find_vars(query: Query) -> list[str]:
    """The variables that ``:find`` and ``:with`` need, each once."""
    names: list[str] = []
    for element in query.find:
        names.append(element.var.name)
        if isinstance(element, FindAggregate):
            names.extend(param.name for param in element.params if isinstance(param, Var))
        elif isinstance(element, FindPull) and isinstance(element.pattern, Var):
            names.append(element.pattern.name)
    names.extend(var.name for var in query.with_vars)
    return list(dict.fromkeys(names))


def answer(ctx: Context, query: Query, found: Relation) -> QueryResult:
    """The answer of a query whose clauses gave ``found``: rows of `find_vars`, each once."""
    with GarbageWaits():
        return _answer(ctx, query, found)


def _answer(ctx: Context, query: Query, found: Relation) -> QueryResult:
    aggregates = any(isinstance(element, FindAggregate) for element in query.find)
    pulls = any(isinstance(element, FindPull) for element in query.find)
    if not found.count and not pulls:
        ctx.tick(0)
        return shaped(query, [], listed=aggregates or bool(query.with_vars))
    if aggregates:
        rows = rows_of(ctx, _grouped(ctx, query, found))
    elif len(query.find) == 1 and isinstance(query.find[0], FindVar):
        rows = single_rows(ctx, found.columns[query.find[0].var.name])
    else:
        columns: list[Values] = []
        for element in query.find:
            ctx.tick(0)
            columns.append(_element_values(ctx, element, found))
        rows = rows_of(ctx, columns)
    listed = aggregates or pulls or bool(query.with_vars)
    return shaped(query, rows, listed=listed)


def _element_values(ctx: Context, element: FindElement, found: Relation) -> Values:
    if isinstance(element, FindVar):
        return values_of(found.columns[element.var.name])
    assert isinstance(element, FindPull)
    return _pulled(ctx, element, found.columns[element.var.name], found)


def _pulled(ctx: Context, element: FindPull, column: Column, found: Relation) -> list[Any]:
    db = ctx.database(element.source)
    refs = column.values()
    if isinstance(element.pattern, Const):
        pulled: list[Any] = pull_many(db, element.pattern.value, refs, functions=ctx.functions)
        return pulled
    patterns = found.columns[element.pattern.name].values()
    return [
        pull(db, pattern, ref, functions=ctx.functions)
        for pattern, ref in zip(patterns, refs, strict=True)
    ]


# --- aggregates ----------------------------------------------------------------------------------


def _grouped(ctx: Context, query: Query, found: Relation) -> list[Values]:
    """Columns of the find elements, one entry a group; no groups where nothing was found."""
    if not found.count:
        return [[] for _ in query.find]
    keys = [e.var.name for e in query.find if not isinstance(e, FindAggregate)]
    names = list(dict.fromkeys(keys))
    if names:
        key = packed([found.columns[name].data for name in names])
        first, groups = numbered(key)
        count = len(first)
    else:
        first = np.zeros(1, dtype=np.int64)
        groups = np.zeros(found.count, dtype=np.int64)
        count = 1
    grouping = Groups(groups, count)
    leaders = found.take(first)
    columns: list[Values] = []
    split: dict[str, list[list[Any]]] = {}
    for element in query.find:
        if not isinstance(element, FindAggregate):
            columns.append(_element_values(ctx, element, leaders))
            continue
        column = found.columns[element.var.name]
        fast = None if element.params else fast_aggregate(element.name, column, grouping)
        if fast is not None:
            columns.append(fast)
            continue
        lists = split.get(element.var.name)
        if lists is None:
            lists = _split(column.values(), groups, count)
            split[element.var.name] = lists
        params = [_parameter(param, found) for param in element.params]
        apply = _aggregate(ctx, element.name)
        columns.append([apply(values, *params) for values in lists])
    return columns


def _split(values: list[Any], groups: Ints, count: int) -> list[list[Any]]:
    lists: list[list[Any]] = [[] for _ in range(count)]
    for value, group in zip(values, groups.tolist(), strict=True):
        lists[group].append(value)
    return lists


def _parameter(param: Any, found: Relation) -> Any:
    if isinstance(param, Const):
        return param.value
    assert isinstance(param, Var)
    return found.columns[param.name].take(np.zeros(1, dtype=np.int64)).values()[0]


def _aggregate(ctx: Context, name: str) -> Callable[..., Any]:
    known = AGGREGATES.get(name)
    if known is not None:
        return known.apply
    registered = ctx.functions.aggregate(name)
    if registered is None:
        raise QueryWhere(f"There is no aggregate {name}.", aggregate=name)

    def apply(values: list[Any], *params: Any) -> Any:
        try:
            return registered(*params, values)
        except Exception as error:
            raise QueryFunction(f"The aggregate {name} failed: {error}.", function=name) from error

    return apply


# --- order, limit, shape -------------------------------------------------------------------------


def shaped(query: Query, rows: list[tuple[Any, ...]], *, listed: bool) -> QueryResult:
    """Rows in the order, number and shape that a query asks for; ``listed``: never as a set."""
    if query.order_by is not None:
        for key in reversed(query.order_by):
            column = key.column
            rows = _sorted(rows, column, descending=key.descending)
    start = query.offset or 0
    if start:
        rows = rows[start:]
    if query.limit is not None:
        rows = rows[: query.limit]
    if query.return_map is not None:
        return QueryResult("maps", rows, query.return_map.keys)
    if query.kind == "collection":
        return QueryResult("collection", rows)
    if query.kind in ("tuple", "scalar"):
        return QueryResult(query.kind, rows[:1])
    if query.order_by is not None or listed:
        return QueryResult("rows", rows)
    return QueryResult("set", rows)


def _sorted(rows: list[tuple[Any, ...]], column: int, *, descending: bool) -> list[tuple[Any, ...]]:
    """Stable order by one column, nil last in either direction."""
    there = [row for row in rows if row[column] is not None]
    absent = [row for row in rows if row[column] is None]
    values = {type(row[column]) for row in there}
    if len(values) == 1 and values <= {int, bool}:
        there.sort(key=lambda row: row[column], reverse=descending)
    else:
        there.sort(key=lambda row: sort_key(row[column]), reverse=descending)
    return there + absent

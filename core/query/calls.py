"""Predicates and function expressions over relations.

Comparisons and sums of typed columns run on whole columns; every other built-in is called once for
each distinct combination of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from natalog.core.errors import NatalogError, QueryFunction, QueryWhere
from natalog.core.forms import freeze
from natalog.core.index.encoding import double_column, doubles
from natalog.core.index.pool import Ints
from natalog.core.query.ast import BindScalar, Blank, Call, Const, Src, Term, Var
from natalog.core.query.bind import bind, binding_vars
from natalog.core.query.column import Column, aligned, column_of, united
from natalog.core.query.context import Context
from natalog.core.query.functions import FUNCTIONS
from natalog.core.query.keys import largest, numbered, packed
from natalog.core.query.mismatch import TypeMismatch
from natalog.core.query.relation import Relation, empty
from natalog.core.values import Keyword

Bools = NDArray[np.bool_]

_COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
}
_SAFE: Final = 2**53  # longs below it are exact as doubles, and sums of two stay in 64 bits
_SCALARS: Final = (int, float, str, Keyword, UUID)
"""Classes of constants that compare as columns; booleans are integers to Python."""


def call_vars(call: Call) -> list[str]:
    """The variables among the arguments."""
    return list(dict.fromkeys(arg.name for arg in call.args if isinstance(arg, Var)))


def run_call(ctx: Context, call: Call, bound: Relation) -> Relation:
    """``bound`` filtered by a predicate, or extended by what a function binds.

    Every argument variable is a column of ``bound``.
    """
    if call.binding is None:
        mask = _compared(ctx, call, bound)
        if mask is None:
            results, spots = _results(ctx, call, bound, predicate=True)
            mask = np.array([_truth(r) for r in results], dtype=np.bool_)[spots]
        return bound if mask.all() else bound.take(mask)
    column = _computed(ctx, call, bound)
    if column is not None and isinstance(call.binding, BindScalar):
        return _bind_column(bound, call.binding.var.name, column)
    results, spots = _results(ctx, call, bound, predicate=False)
    if isinstance(call.binding, BindScalar):
        kept = np.array([r is not None for r in results], dtype=np.bool_)
        rows = kept[spots]
        values = [freeze(r) for r in results if r is not None]
        if not values:
            return empty([*bound.columns, call.binding.var.name], ctx.pool)
        places = np.cumsum(kept) - 1
        found = column_of(values, ctx.pool).take(places[spots[rows]])
        return _bind_column(bound.take(rows), call.binding.var.name, found)
    return _bind_many(ctx, call, bound, results, spots)


def _truth(result: Any) -> bool:
    """Whether a predicate's result holds: everything but false and nil does."""
    return result is not None and result is not False


def _bind_column(bound: Relation, name: str, column: Column) -> Relation:
    """Add a column, or keep the rows that agree with the one there is."""
    there = bound.columns.get(name)
    if there is None:
        return bound.with_column(name, column)
    left, right = aligned(there, column)
    return bound.take(left == right)


def _bind_many(
    ctx: Context, call: Call, bound: Relation, results: list[Any], spots: Ints
) -> Relation:
    """Bind collections and tuples: one row for each that a result yields."""
    assert call.binding is not None
    names = list(dict.fromkeys(binding_vars(call.binding)))
    parts: list[Relation] = []
    tag = "#result"
    for number, result in enumerate(results):
        if result is None:
            continue
        part = bind(call.binding, result, ctx.pool)
        if part.count:
            own = Column("long", ctx.pool, np.full(part.count, number, dtype=np.int64))
            parts.append(part.with_column(tag, own))
    out = list(dict.fromkeys([*bound.columns, *names]))
    if not parts:
        return empty(out, ctx.pool)
    columns = {
        name: united([part.columns[name] for part in parts], ctx.pool) for name in [tag, *names]
    }
    produced = Relation(columns, sum(part.count for part in parts))
    ctx.tick(produced.count)
    tagged = bound.with_column(tag, Column("long", ctx.pool, spots.astype(np.int64)))
    return tagged.join(produced).project(out, distinct=False)


# --- calling -------------------------------------------------------------------------------------


def _results(
    ctx: Context, call: Call, bound: Relation, *, predicate: bool
) -> tuple[list[Any], Ints]:
    """Results for the distinct argument rows, and for each row of ``bound`` its result."""
    names = call_vars(call)
    if names:
        slim = [bound.columns[name] for name in names]
        if bound.count == 1:
            spots = np.zeros(1, dtype=np.int64)
            rows = [tuple(column.values()[0] for column in slim)]
        else:
            first, spots = numbered(packed([column.data for column in slim]))
            rows = list(zip(*(column.take(first).values() for column in slim), strict=True))
    else:
        spots = np.zeros(bound.count, dtype=np.int64)
        rows = [()] if bound.count else []
    function = _function(ctx, call)
    makers = [_argument(ctx, call, arg, names) for arg in call.args]
    results: list[Any] = []
    for number, row in enumerate(rows):
        if number % 1024 == 0:
            ctx.tick(0)
        args = [value if spot is None else row[spot] for spot, value in makers]
        try:
            results.append(function(*args))
        except TypeMismatch as mismatch:
            if not predicate:
                raise mismatch.as_error() from None
            results.append(False)
        except NatalogError:
            raise
        except (ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise QueryFunction(
                f"({call.function} ...) failed on {_shown(args)}: {error}.",
                function=call.function,
                arguments=_shown(args),
            ) from error
    return results, spots


def _shown(args: list[Any]) -> str:
    text = ", ".join(repr(arg)[:60] for arg in args)
    return text[:300]


def _argument(ctx: Context, call: Call, arg: Term, names: list[str]) -> tuple[int | None, Any]:
    """Where an argument comes from: a spot of the row, or a value of its own."""
    if isinstance(arg, Var):
        return names.index(arg.name), None
    if isinstance(arg, Src):
        return None, ctx.source(arg.name)
    if isinstance(arg, Blank):
        raise QueryWhere(f"_ is no argument of {call.function}.", function=call.function)
    return None, freeze(arg.value)


def _function(ctx: Context, call: Call) -> Callable[..., Any]:
    if call.function == "q":
        from natalog.core.query.engine import nested

        return lambda query, *inputs: nested(ctx, query, inputs)
    builtin = FUNCTIONS.get(call.function)
    if builtin is not None:
        return builtin.call
    registered = ctx.functions.get(call.function)
    if registered is not None:
        return registered
    raise QueryWhere(f"There is no function or predicate {call.function}.", function=call.function)


# --- whole columns -------------------------------------------------------------------------------


def _operand(ctx: Context, arg: Term, bound: Relation) -> Column | None:
    """An argument as a column (of one row, when it is a constant)."""
    if isinstance(arg, Var):
        return bound.columns[arg.name]
    if isinstance(arg, Const) and isinstance(arg.value, _SCALARS):
        return column_of([arg.value], ctx.pool)
    return None


def _compared(ctx: Context, call: Call, bound: Relation) -> Bools | None:
    """The rows where a comparison of two typed columns holds; None where it takes a function."""
    if len(call.args) != 2 or not bound.columns:
        return None
    name = call.function
    if name not in _COMPARE and name not in ("=", "not="):
        return None
    left, right = (_operand(ctx, arg, bound) for arg in call.args)
    if left is None or right is None:
        return None
    if name in _COMPARE:
        numbers = _numbers(left, right)
        if numbers is None:
            return None
        held = _COMPARE[name](*numbers)
    else:
        one, other = aligned(left, right)
        held = one == other if name == "=" else one != other
    mask: Bools = np.broadcast_to(held, (bound.count,))
    return mask


def _numbers(left: Column, right: Column) -> tuple[Any, Any] | None:
    """Two columns as numbers that compare exactly."""
    if left.kind == right.kind == "long":
        return left.data, right.data
    if left.kind not in ("long", "double") or right.kind not in ("long", "double"):
        return None
    pair = []
    for column in (left, right):
        if column.kind == "double":
            pair.append(doubles(column.data))
            continue
        if largest(column.data) > _SAFE:
            return None
        pair.append(column.data.astype(np.float64))
    return pair[0], pair[1]


def _computed(ctx: Context, call: Call, bound: Relation) -> Column | None:
    """Sums and differences of typed columns; None where it takes a function."""
    name = call.function
    if name == "identity" and len(call.args) == 1 and isinstance(call.args[0], Var):
        return bound.columns[call.args[0].name]
    if name not in ("+", "-") or len(call.args) != 2 or not bound.columns:
        return None
    left, right = (_operand(ctx, arg, bound) for arg in call.args)
    if left is None or right is None or left.kind != right.kind:
        return None
    operate: Any = np.add if name == "+" else np.subtract
    if left.kind == "long":
        if largest(left.data) > _SAFE or largest(right.data) > _SAFE:
            return None
        data = np.broadcast_to(operate(left.data, right.data), (bound.count,))
        return Column("long", ctx.pool, data)
    if left.kind == "double":
        total = np.broadcast_to(operate(doubles(left.data), doubles(right.data)), (bound.count,))
        return Column("double", ctx.pool, double_column(total))
    return None

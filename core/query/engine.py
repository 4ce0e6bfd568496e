"""Running a query: parse, check, bind the inputs, solve the clauses, shape the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from natalog.core.database import Database
from natalog.core.errors import QueryBinding, QueryLimit, QueryWhere
from natalog.core.forms import freeze
from natalog.core.index.pool import ValuePool
from natalog.core.limits import QUERY_ROWS_MAX
from natalog.core.query.analysis import Analysis, analysis_of
from natalog.core.query.ast import (
    BindScalar,
    InBinding,
    InRules,
    InSource,
    Query,
)
from natalog.core.query.bind import as_collection, bind
from natalog.core.query.context import Budget, Context, Rows, Source
from natalog.core.query.foreign import check_aggregates, check_registered
from natalog.core.query.parse import parse_query
from natalog.core.query.parse_options import UNSET, with_options
from natalog.core.query.parse_rules import check_rules, parse_rules
from natalog.core.query.plan import Plan
from natalog.core.query.point import UNFIT, point_rows
from natalog.core.query.relation import UNIT, Relation, empty
from natalog.core.query.result import QueryResult, answer, shaped
from natalog.core.query.ruleset import NO_RULES, ruleset_of
from natalog.core.query.show import inputs_text
from natalog.core.query.solve import check_bindable, solve
from natalog.core.registry import EMPTY, Registry

_BINDABLE_MAX = 64
"""Sets of bound variables and rules for which it is kept that a query can run."""


def q(
    query: Any,
    *inputs: Any,
    limit: Any = UNSET,
    offset: Any = UNSET,
    order_by: Any = UNSET,
    functions: Registry = EMPTY,
    expired: Callable[[], bool] | None = None,
    rows_max: int = QUERY_ROWS_MAX,
    fuel: int | None = None,
    plan: Plan | None = None,
) -> QueryResult:
    """The answer of ``query`` (text, vector or map) on ``inputs``, in the order of ``:in``.

    A source is a `Database` or a collection of tuples.  ``limit``, ``offset`` and ``order_by`` are
    the options of the query language; ``expired`` tells when to give up (it may raise
    `QueryCancelled` instead of answering true), ``rows_max`` bounds
    every intermediate result and ``fuel`` all of them together.  ``plan`` takes down the steps.

    Raises `QueryError` of the kind that fits, before anything runs where it can.
    """
    parsed = parse_query(query)
    if limit is not UNSET or offset is not UNSET or order_by is not UNSET:
        parsed = with_options(parsed, limit, offset, order_by)
    budget = Budget(expired, rows_max, fuel, plan)
    if plan is None:
        found = _point(parsed, inputs, budget)
        if found is not None:
            return found
    try:
        result = _run(parsed, inputs, functions, budget)
    except RecursionError:
        raise QueryLimit("The query nests too deeply.", limit="depth") from None
    if plan is not None:
        plan.answer_rows = len(result.rows)
    return result


def _point(query: Query, inputs: Sequence[Any], budget: Budget) -> QueryResult | None:
    """The answer of a query that follows unique values to one row; None of any other."""
    first = inputs[0] if inputs else None
    if not isinstance(first, Database) or len(inputs) != len(query.inputs):
        return None
    plan = analysis_of(query).point(query, first.schema)
    if plan is None:
        return None
    rows = point_rows(plan, inputs)
    if rows is UNFIT:
        return None
    budget.tick(len(plan.steps))
    return shaped(query, rows, listed=bool(query.with_vars))


def explain(query: Any, *inputs: Any, **options: Any) -> Plan:
    """Run a query like `q` does, and tell what it did: clauses in order, estimated and true rows.

    Takes the options of `q`.
    """
    plan = Plan()
    q(query, *inputs, plan=plan, **options)
    return plan


def nested(ctx: Context, query: Any, inputs: Sequence[Any]) -> Any:
    """The answer of a query within a query, as a value."""
    try:
        parsed = parse_query(query)
    except RecursionError:
        raise QueryLimit("The query nests too deeply.", limit="depth") from None
    result = _run(parsed, inputs, ctx.functions, ctx.budget)
    found = result.python()
    if isinstance(found, set):
        return frozenset(found)
    if isinstance(found, list):
        return freeze(found) if found else None
    return found


def _run(query: Query, inputs: Sequence[Any], functions: Registry, budget: Budget) -> QueryResult:
    analysis = analysis_of(query)
    ctx, parts = _prepared(query, analysis, inputs, functions, budget)
    wanted = analysis.wanted
    bound = frozenset(name for part in parts for name in part.columns)
    checked = (bound, ctx.ruleset)
    if checked not in analysis.bindable:
        missing = sorted(wanted - check_bindable(ctx, query.where, bound))
        if missing:
            raise QueryWhere(f"{', '.join(missing)} of :find are not bound.", variables=missing)
        if len(analysis.bindable) >= _BINDABLE_MAX:
            analysis.bindable.clear()
        analysis.bindable.add(checked)
    solved = solve(ctx, query.where, parts, wanted, checked=True)
    return answer(ctx, query, _together(ctx, solved, analysis.names))


def _together(ctx: Context, parts: list[Relation], names: list[str]) -> Relation:
    """The product of what was found, for the variables of ``:find`` and ``:with``."""
    if any(not part.count for part in parts):
        return empty(names, ctx.pool)
    found = UNIT
    for part in parts:
        kept = [name for name in part.columns if name in names]
        if kept:
            slim = part.project(kept)
            ctx.tick(found.count * slim.count)
            found = found.product(slim)
    return found


def _prepared(
    query: Query,
    analysis: Analysis,
    inputs: Sequence[Any],
    functions: Registry,
    budget: Budget,
) -> tuple[Context, list[Relation]]:
    """The context of a run and the relations that its inputs bind."""
    if len(inputs) != len(query.inputs):
        raise QueryBinding(
            f"The query takes {len(query.inputs)} inputs ({inputs_text(query.inputs)}), "
            f"not {len(inputs)}.",
            expected=len(query.inputs),
            given=len(inputs),
        )
    sources: dict[str, Source] = {}
    ruleset = NO_RULES
    known: ValuePool | None = None
    for declared, value in zip(query.inputs, inputs, strict=True):
        if isinstance(declared, InSource):
            source = sources[declared.name] = _source(declared.name, value)
            if known is None and isinstance(source, Database):
                known = source.pool
        elif isinstance(declared, InRules):
            ruleset = ruleset_of(parse_rules(value))
    if analysis.aggregates:
        check_aggregates(analysis.aggregates, functions)
    if analysis.foreign or ruleset.foreign:
        check_registered(analysis.foreign, functions)
        check_registered(ruleset.foreign, functions)
    if analysis.calls_rules:
        names = frozenset(sources)
        if (ruleset, names) not in analysis.checked:
            check_rules(ruleset.bodies, query.where, sources)
            if len(analysis.checked) >= _BINDABLE_MAX:
                analysis.checked.clear()
            analysis.checked.add((ruleset, names))
    ctx = Context(sources, ruleset, functions, budget)
    parts: list[Relation] = []
    for declared, value in zip(query.inputs, inputs, strict=True):
        if not isinstance(declared, InBinding):
            continue
        if isinstance(declared.binding, BindScalar):
            ctx.scalars.add(declared.binding.var.name)
        parts.append(bind(declared.binding, freeze(value), ctx.pool, known))
    return ctx, parts


def _source(name: str, value: Any) -> Source:
    if isinstance(value, Database):
        return value
    if isinstance(value, (str, bytes)) or value is None:
        raise QueryBinding(
            f"The source {name} must be a database or a collection, not {value!r}.", source=name
        )
    rows = []
    for row in as_collection(value):
        if not isinstance(row, (list, tuple)):
            raise QueryBinding(f"A row of the source {name} is no tuple: {row!r}.", source=name)
        rows.append(tuple(freeze(item) for item in row))
    return Rows(rows)

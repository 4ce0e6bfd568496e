"""Solving clauses: which clause comes next, and what it does to the rows so far.

The state is a list of relations that share no variable.  At every step the clause that promises
the fewest rows runs, judged by exact counts of the indexes and the sizes reached so far; variables
that nobody needs any more are dropped at once, which keeps intermediate results small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np

from natalog.core.database import Database
from natalog.core.errors import QueryWhere
from natalog.core.query.ast import Call, Clause, Const, Not, Or, Pattern, RuleCall, Var
from natalog.core.query.bind import binding_vars
from natalog.core.query.calls import call_vars, run_call
from natalog.core.query.column import may_be_refs
from natalog.core.query.context import Context
from natalog.core.query.estimate import estimate
from natalog.core.query.relation import Relation, empty, union
from natalog.core.query.scan import match_pattern, pattern_vars

_LATER = float("inf")
_PRODUCT_MAX = 10_000
"""Rows of a product that are not worth avoiding."""


def clause_vars(clause: Clause) -> frozenset[str]:
    """The variables through which a clause meets the rest of the query."""
    if isinstance(clause, Pattern):
        return frozenset(pattern_vars(clause))
    if isinstance(clause, Call):
        bound = binding_vars(clause.binding) if clause.binding is not None else []
        return frozenset([*call_vars(clause), *bound])
    if isinstance(clause, RuleCall):
        return frozenset(arg.name for arg in clause.args if isinstance(arg, Var))
    if isinstance(clause, Not):
        if clause.vars is not None:
            return frozenset(var.name for var in clause.vars)
        return all_vars(clause.clauses)
    if clause.vars is not None:
        return frozenset(var.name for var in (*clause.required, *clause.vars))
    return frozenset(name for branch in clause.branches for name in all_vars(branch))


def all_vars(clauses: Iterable[Clause]) -> frozenset[str]:
    """The variables of several clauses."""
    return frozenset(name for clause in clauses for name in clause_vars(clause))


def outputs(clause: Clause) -> frozenset[str]:
    """The variables that a clause can bind."""
    if isinstance(clause, Not):
        return frozenset()
    if isinstance(clause, Call):
        return frozenset(binding_vars(clause.binding) if clause.binding is not None else ())
    return clause_vars(clause)


# --- what can run -------------------------------------------------------------------------------


class Todo:
    """A clause that has not run yet, with its variables."""

    __slots__ = ("clause", "outputs", "vars")

    def __init__(self, clause: Clause) -> None:
        self.clause = clause
        self.vars = clause_vars(clause)
        self.outputs = outputs(clause)


def check_bindable(
    ctx: Context, clauses: Iterable[Clause], bound: frozenset[str]
) -> frozenset[str]:
    """The variables bound once all clauses have run in some order.

    Raises `QueryWhere` when some clause can never run: its variables stay unbound.
    """
    return _check_bindable(ctx, [Todo(clause) for clause in clauses], bound)


def _check_bindable(ctx: Context, todos: list[Todo], bound: frozenset[str]) -> frozenset[str]:
    remaining = todos
    while remaining:
        waiting: list[Todo] = []
        for todo in remaining:
            if ready(ctx, todo, bound, remaining):
                bound = bound | todo.outputs
            else:
                waiting.append(todo)
        if len(waiting) == len(remaining):
            raise _insufficient(remaining, bound)
        remaining = waiting
    return bound


def _insufficient(todos: Sequence[Todo], bound: frozenset[str]) -> QueryWhere:
    free = sorted(
        name
        for todo in todos
        for name in (todo.vars - todo.outputs or todo.vars)
        if name not in bound
    )
    names = ", ".join(dict.fromkeys(free)) or "the variables of a clause"
    return QueryWhere(
        f"Cannot resolve any more clauses: insufficient bindings, {names} not bound.",
        variables=list(dict.fromkeys(free)),
    )


def ready(ctx: Context, todo: Todo, bound: frozenset[str], others: Sequence[Todo]) -> bool:
    """Whether a clause can run once ``bound`` is known; ``others`` may still bind more.

    Clauses of ``others`` that have run do no harm: what they bind is in ``bound``.
    """
    clause = todo.clause
    if isinstance(clause, Pattern):
        return True
    if isinstance(clause, Call):
        return all(name in bound for name in call_vars(clause))
    if isinstance(clause, Not):
        if clause.vars is not None:
            return todo.vars <= bound
        if not todo.vars & bound:
            return False
        free = todo.vars - bound
        return not free or not any(free & other.outputs for other in others)
    if isinstance(clause, Or):
        if not all(var.name in bound for var in clause.required):
            return False
        given = todo.vars & bound
        return all(_binds(ctx, branch, given, todo.vars) for branch in clause.branches)
    return _rule_ready(ctx, clause, bound)


def _binds(
    ctx: Context, clauses: Sequence[Clause], bound: frozenset[str], wanted: frozenset[str]
) -> bool:
    try:
        return wanted <= check_bindable(ctx, clauses, bound)
    except QueryWhere:
        return False


def _rule_ready(ctx: Context, call: RuleCall, bound: frozenset[str]) -> bool:
    spots = frozenset(
        spot
        for spot, arg in enumerate(call.args)
        if isinstance(arg, Const) or (isinstance(arg, Var) and arg.name in bound)
    )
    key = (call.name, spots)
    known = ctx.readiness.get(key)
    if known is not None:
        return known
    ctx.readiness[key] = True  # a recursive call inside is as ready as the call itself
    verdict = True
    for rule in ctx.rules.get(call.name, ()):
        params = [var.name for var in rule.params]
        given = frozenset(params[spot] for spot in spots)
        if not all(var.name in given for var in rule.required):
            verdict = False
            break
        if not _binds(ctx, rule.clauses, given, frozenset(params)):
            verdict = False
            break
    ctx.readiness[key] = verdict
    return verdict


# --- running -------------------------------------------------------------------------------------


class _State:
    """Relations that share no variable."""

    def __init__(self, parts: Iterable[Relation]) -> None:
        self.parts = [part for part in parts if part.columns or not part.count]

    @property
    def bound(self) -> frozenset[str]:
        return frozenset(name for part in self.parts for name in part.columns)

    @property
    def dead(self) -> bool:
        return any(not part.count for part in self.parts)

    def size(self, names: frozenset[str]) -> int:
        """The rows that joining the parts with these variables makes."""
        total = 1
        for part in self.parts:
            if not names.isdisjoint(part.columns):
                total *= part.count
        return total

    def take(self, names: frozenset[str]) -> list[Relation]:
        """Take out the parts with these variables."""
        taken = [part for part in self.parts if not names.isdisjoint(part.columns)]
        self.parts = [part for part in self.parts if names.isdisjoint(part.columns)]
        return taken

    def put(self, relation: Relation, needed: frozenset[str]) -> None:
        """Add the outcome of a clause without the variables that nobody needs."""
        kept = [name for name in relation.columns if name in needed]
        if len(kept) < len(relation.columns):
            relation = relation.project(kept)
        if relation.columns or not relation.count:
            self.parts.append(relation)


def solve(
    ctx: Context,
    clauses: Sequence[Clause],
    parts: Iterable[Relation],
    needed: frozenset[str],
) -> list[Relation]:
    """Run all clauses on the relations given; the variables ``needed`` survive.

    Returns relations that share no variable; one without rows means that nothing was found.
    Raises `QueryWhere` when the clauses left cannot run.
    """
    ctx.budget.depth += 1
    try:
        return _solve(ctx, _todos(ctx, clauses), _State(parts), needed)
    finally:
        ctx.budget.depth -= 1


def _todos(ctx: Context, clauses: Sequence[Clause]) -> list[Todo]:
    """Clauses ready to run.  Tuples are parts of the query or its rules and live as long."""
    if type(clauses) is not tuple:
        return [Todo(clause) for clause in clauses]
    found: tuple[Todo, ...] | None = ctx.todos.get(id(clauses))
    if found is None:
        found = ctx.todos[id(clauses)] = tuple(Todo(clause) for clause in clauses)
    return list(found)


def _solve(
    ctx: Context, remaining: list[Todo], state: _State, needed: frozenset[str]
) -> list[Relation]:
    while remaining:
        if state.dead:
            _check_bindable(ctx, remaining, state.bound)
            return [empty(sorted(needed), ctx.pool)]
        spot, price = _next(ctx, remaining, state)
        todo = remaining.pop(spot)
        keep = needed.union(*(other.vars for other in remaining)) if remaining else needed
        bound, others = _start(ctx, todo, state)
        found = run_clause(ctx, todo.clause, bound)
        for other in others:
            found = found.join(other)
            ctx.tick(found.count)
        ctx.record(todo.clause, price, bound.count, found.count)
        state.put(found, keep)
    if state.dead:
        return [empty(sorted(needed), ctx.pool)]
    return state.parts


def _start(ctx: Context, todo: Todo, state: _State) -> tuple[Relation, list[Relation]]:
    """The rows a clause runs on, and those that its outcome is joined with afterwards.

    A clause that meets several relations would need their product; one that can run on a part of
    them does so, and the join finds the rest.
    """
    touched = sorted(state.take(todo.vars), key=lambda part: part.count)
    size = prod(part.count for part in touched)
    if size > _PRODUCT_MAX and len(touched) > 1 and _divisible(ctx, todo, touched):
        return touched[0], touched[1:]
    found = Relation({}, 1)
    for part in touched:
        found = found.product(part)
    return found, []


def _divisible(ctx: Context, todo: Todo, touched: list[Relation]) -> bool:
    """Whether a clause can run on the first of several relations; may change their order."""
    clause = todo.clause
    if isinstance(clause, (Call, Not)):
        return False
    if isinstance(clause, Pattern) and isinstance(clause.terms[0], Var):
        entity = clause.terms[0].name  # entities are found without a scan
        touched.sort(key=lambda part: entity not in part.columns)
    for part in touched[1:]:
        # what is written as a lookup ref joins inside the pattern that resolves it, and only there
        if any(may_be_refs(column) for name, column in part.columns.items() if name in todo.vars):
            return False
    return ready(ctx, todo, frozenset(touched[0].columns), ())


def solved(
    ctx: Context, clauses: Sequence[Clause], seed: Relation, names: Sequence[str]
) -> Relation:
    """Run clauses on one relation; the rows for ``names``, each once."""
    parts = solve(ctx, clauses, [seed] if seed.columns else [], frozenset(names))
    if any(not part.count for part in parts):
        return empty(names, ctx.pool)
    found = Relation({}, 1)
    for part in parts:
        kept = [name for name in part.columns if name in names]
        found = found.product(part.project(kept))
    missing = [name for name in names if name not in found.columns]
    if missing:
        raise QueryWhere(
            f"Insufficient bindings: {', '.join(missing)} not bound.", variables=missing
        )
    return found.distinct()


def run_clause(ctx: Context, clause: Clause, bound: Relation) -> Relation:
    """The rows of ``bound`` joined with one clause."""
    if isinstance(clause, Pattern):
        found = match_pattern(ctx, clause, bound)
    elif isinstance(clause, Call):
        found = run_call(ctx, clause, bound)
    elif isinstance(clause, Not):
        found = _run_not(ctx, clause, bound)
    elif isinstance(clause, Or):
        found = _run_or(ctx, clause, bound)
    else:
        from natalog.core.query.rules import run_rule_call

        found = run_rule_call(ctx, clause, bound)
    ctx.tick(found.count)
    return found


def _run_not(ctx: Context, clause: Not, bound: Relation) -> Relation:
    shared = [name for name in bound.columns if name in clause_vars(clause)]
    seed = bound.project(shared)
    return bound.without(solved(ctx, clause.clauses, seed, shared))


def _run_or(ctx: Context, clause: Or, bound: Relation) -> Relation:
    names = sorted(clause_vars(clause))
    shared = [name for name in names if name in bound.columns]
    seed = bound.project(shared)
    found = union([solved(ctx, branch, seed, names) for branch in clause.branches], names, ctx.pool)
    if not names:
        return bound if found.count else bound.take(np.zeros(bound.count, dtype=np.bool_))
    return bound.join(found)


# --- choosing ------------------------------------------------------------------------------------


def _next(ctx: Context, remaining: list[Todo], state: _State) -> tuple[int, float | None]:
    """The place of the clause that promises the fewest rows; raises when none can run."""
    if len(remaining) == 1 and isinstance(remaining[0].clause, Pattern):
        return 0, None
    bound = state.bound
    best = -1
    cost = _LATER
    for spot, todo in enumerate(remaining):
        if not ready(ctx, todo, bound, remaining):
            continue
        price = _price(ctx, todo.clause, todo.vars, state, bound)
        if price < cost or best < 0:
            best, cost = spot, price
        if price == 0.0 or (spot == 0 and isinstance(todo.clause, Not) and _all_nots(remaining)):
            break
    if best < 0:
        raise _insufficient(remaining, bound)
    return best, cost


def _all_nots(remaining: list[Todo]) -> bool:
    """Whether only filters of equal price are left, so that any may be next."""
    return all(isinstance(todo.clause, Not) for todo in remaining)


def _price(
    ctx: Context, clause: Clause, names: frozenset[str], state: _State, bound: frozenset[str]
) -> float:
    if isinstance(clause, Pattern):
        return estimate(ctx, clause, state.parts)
    rows = state.size(names)
    if isinstance(clause, Call):
        # A filter costs nothing where its rows exist already, and a product where they do not; a
        # function may fail on rows that another clause would have dropped, and waits for it.
        touched = sum(1 for part in state.parts if not names.isdisjoint(part.columns))
        return 0.0 if touched <= 1 and clause.binding is None else float(rows)
    if isinstance(clause, Not):
        return float(rows) + 0.5
    if isinstance(clause, Or):
        total = 0.5
        for branch in clause.branches:
            found = [_price(ctx, part, clause_vars(part), state, bound) for part in branch]
            total += min(found) if found else 1.0
        return total
    return _rule_price(ctx, clause, rows, bound)


def _rule_price(ctx: Context, call: RuleCall, rows: int, bound: frozenset[str]) -> float:
    """Rules run late unless an argument is bound, and then like a join with some fan-out."""
    given = sum(
        1
        for arg in call.args
        if isinstance(arg, Const) or (isinstance(arg, Var) and arg.name in bound)
    )
    if given:
        return rows * 8.0
    source = ctx.sources.get(call.source)
    return float(len(source)) if isinstance(source, Database) else 1e6

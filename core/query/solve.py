"""Solving clauses: which clause comes next, and what it does to the rows so far.

The state is a list of relations that share no variable.  At every step the clause that promises
the fewest rows runs, judged by exact counts of the indexes and the sizes reached so far; variables
that nobody needs any more are dropped at once, which keeps intermediate results small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from natalog.core.database import Database
from natalog.core.errors import QueryWhere
from natalog.core.query.ast import Call, Clause, Const, Not, Or, Pattern, RuleCall, Var
from natalog.core.query.bind import binding_vars
from natalog.core.query.calls import call_vars, run_call
from natalog.core.query.column import may_be_refs
from natalog.core.query.context import Context
from natalog.core.query.estimate import Owners, estimate
from natalog.core.query.kept import Kept
from natalog.core.query.relation import UNIT, Relation, empty, union
from natalog.core.query.scan import is_plain, match_pattern

Names = frozenset[str]

_LATER = float("inf")
_PRODUCT_MAX = 10_000
"""Rows of a product that are not worth avoiding."""


def clause_vars(clause: Clause) -> frozenset[str]:
    """The variables through which a clause meets the rest of the query."""
    if isinstance(clause, Pattern):
        return frozenset(clause.names)
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

    __slots__ = ("clause", "outputs", "pattern", "vars")

    def __init__(self, clause: Clause) -> None:
        self.clause = clause
        self.vars = clause_vars(clause)
        self.outputs = outputs(clause)
        self.pattern = clause if isinstance(clause, Pattern) else None


def _made_todos(clauses: tuple[Clause, ...]) -> tuple[Todo, ...]:
    return tuple(Todo(clause) for clause in clauses)


_kept_todos: Kept[tuple[Clause, ...], tuple[Todo, ...]] = Kept(_made_todos)


def todos_of(clauses: Sequence[Clause]) -> list[Todo]:
    """Clauses ready to run; kept for tuples, which are parts of a parsed query or rule."""
    if isinstance(clauses, tuple):
        return list(_kept_todos(clauses))
    return [Todo(clause) for clause in clauses]


def check_bindable(
    ctx: Context, clauses: Sequence[Clause], bound: frozenset[str]
) -> frozenset[str]:
    """The variables bound once all clauses have run in some order.

    Raises `QueryWhere` when some clause can never run: its variables stay unbound.
    """
    return _check_bindable(ctx, todos_of(clauses), bound)


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
    known = ctx.ruleset.ready.get(key)
    if known is None:
        known = ctx.readiness.get(key)
    if known is not None:
        return known
    outermost = not ctx.readiness
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
    if outermost:  # nothing was supposed but of rules that were looked at on the way
        ctx.readiness.clear()
        ctx.ruleset.ready[key] = verdict
    return verdict


# --- running -------------------------------------------------------------------------------------


class _State:
    """Relations that share no variable."""

    def __init__(self, parts: Iterable[Relation]) -> None:
        self.parts = [part for part in parts if part.columns or not part.count]
        self.dead = any(not part.count for part in self.parts)
        """Whether one of them has no rows."""

    @property
    def bound(self) -> frozenset[str]:
        return frozenset(name for part in self.parts for name in part.columns)

    @property
    def owners(self) -> Owners:
        """The relation of each variable."""
        return {name: part for part in self.parts for name in part.columns}

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
        if needed.issuperset(relation.columns):
            relation = relation.distinct()
        else:
            relation = relation.project([name for name in relation.columns if name in needed])
        if relation.columns:
            self.parts.append(relation)


def solve(
    ctx: Context,
    clauses: Sequence[Clause],
    parts: Iterable[Relation],
    needed: Names,
    *,
    checked: bool = False,
) -> list[Relation]:
    """Run all clauses on the relations given; the variables ``needed`` survive.

    ``checked``: `check_bindable` found that they all can run.

    Returns relations that share no variable; one without rows means that nothing was found.
    Raises `QueryWhere` when the clauses left cannot run.
    """
    ctx.budget.depth += 1
    try:
        return _solve(ctx, todos_of(clauses), _State(parts), needed, checked)
    finally:
        ctx.budget.depth -= 1


def _solve(
    ctx: Context, remaining: list[Todo], state: _State, needed: Names, checked: bool
) -> list[Relation]:
    if state.dead:
        return _nothing(ctx, remaining, state.bound, needed, checked)
    while remaining:
        spot, price = _next(ctx, remaining, state)
        todo = remaining.pop(spot)
        if price == 0.0 and todo.pattern is not None and is_plain(ctx, todo.pattern, state.owners):
            ctx.record(todo.clause, price, 0, 0)
            return _nothing(ctx, remaining, state.bound | todo.outputs, needed, checked)
        keep = needed.union(*(other.vars for other in remaining)) if remaining else needed
        bound, others = _start(ctx, todo, state)
        found = run_clause(ctx, todo, bound)
        for other in others:
            found = found.join(other)
            ctx.tick(found.count)
        ctx.record(todo.clause, price, bound.count, found.count)
        state.put(found, keep)
        if not found.count:
            return _nothing(ctx, remaining, state.bound, needed, checked)
    return state.parts


def _nothing(
    ctx: Context, remaining: list[Todo], bound: Names, needed: Names, checked: bool
) -> list[Relation]:
    """No rows.  What is wrong with the clauses left is said all the same."""
    if not checked:
        _check_bindable(ctx, remaining, bound)
    return [empty(sorted(needed), ctx.pool)]


def _start(ctx: Context, todo: Todo, state: _State) -> tuple[Relation, list[Relation]]:
    """The rows a clause runs on, and those that its outcome is joined with afterwards.

    A clause that meets several relations would need their product; one that can run on a part of
    them does so, and the join finds the rest.
    """
    touched = state.take(todo.vars)
    if len(touched) < 2:
        return touched[0] if touched else UNIT, []
    touched.sort(key=_count)
    size = prod(part.count for part in touched)
    if size > _PRODUCT_MAX and _divisible(ctx, todo, touched):
        return touched[0], touched[1:]
    found = UNIT
    for part in touched:
        found = found.product(part)
    return found, []


def _count(part: Relation) -> int:
    return part.count


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
    found = UNIT
    for part in parts:
        kept = [name for name in part.columns if name in names]
        found = found.product(part.project(kept))
    missing = [name for name in names if name not in found.columns]
    if missing:
        raise QueryWhere(
            f"Insufficient bindings: {', '.join(missing)} not bound.", variables=missing
        )
    return found.distinct()


def run_clause(ctx: Context, todo: Todo, bound: Relation) -> Relation:
    """The rows of ``bound`` joined with one clause."""
    clause = todo.clause
    if isinstance(clause, Pattern):
        found = match_pattern(ctx, clause, bound)
    elif isinstance(clause, Call):
        found = run_call(ctx, clause, bound)
    elif isinstance(clause, Not):
        found = _run_not(ctx, clause, todo.vars, bound)
    elif isinstance(clause, Or):
        found = _run_or(ctx, clause, todo.vars, bound)
    else:
        from natalog.core.query.rules import run_rule_call

        found = run_rule_call(ctx, clause, bound)
    ctx.tick(found.count)
    return found


def _run_not(ctx: Context, clause: Not, names: frozenset[str], bound: Relation) -> Relation:
    shared = [name for name in bound.columns if name in names]
    seed = bound.project(shared)
    return bound.without(solved(ctx, clause.clauses, seed, shared))


def _run_or(ctx: Context, clause: Or, names: frozenset[str], bound: Relation) -> Relation:
    wanted = sorted(names)
    shared = [name for name in wanted if name in bound.columns]
    seed = bound.project(shared)
    found = union(
        [solved(ctx, branch, seed, wanted) for branch in clause.branches], wanted, ctx.pool
    )
    if not wanted:
        return bound if found.count else bound.none()
    return bound.join(found)


# --- choosing ------------------------------------------------------------------------------------


def _next(ctx: Context, remaining: list[Todo], state: _State) -> tuple[int, float | None]:
    """The place of the clause that promises the fewest rows; raises when none can run."""
    if len(remaining) == 1 and remaining[0].pattern is not None:
        return 0, None
    owners = state.owners
    bound = frozenset(owners)
    best = -1
    cost = _LATER
    for spot, todo in enumerate(remaining):
        if todo.pattern is not None:
            price = estimate(ctx, todo.pattern, owners)
        elif ready(ctx, todo, bound, remaining):
            price = _price(ctx, todo, state, owners)
        else:
            continue
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


def _price(ctx: Context, todo: Todo, state: _State, owners: Owners) -> float:
    clause, names = todo.clause, todo.vars
    if isinstance(clause, Pattern):
        return estimate(ctx, clause, owners)
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
            found = [_price(ctx, part, state, owners) for part in todos_of(branch)]
            total += min(found) if found else 1.0
        return total
    return _rule_price(ctx, clause, rows, owners)


def _rule_price(ctx: Context, call: RuleCall, rows: int, bound: Owners) -> float:
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

"""Linear recursion as reachability in a graph.

A rule such as ::

    [(follows ?x ?y) [?x :follows ?y]]
    [(follows ?x ?y) [?x :follows ?t] (follows ?t ?y)]

hands some of its parameters on unchanged (here ``?y``) while the others move (``?x`` to ``?t``).
The clauses around the recursive call are a graph of moves, the bodies without recursion say where a
path may end.  Its answers are the ends of what can be reached, found by walking the graph once
from every start, without the intermediate answers that a fixpoint would keep for every node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np

from natalog.core.errors import QueryWhere
from natalog.core.index.pool import Ints
from natalog.core.query.ast import Clause, Const, Not, Or, Pattern, Rule, RuleCall, Var
from natalog.core.query.bodies import run_bodies
from natalog.core.query.column import Column, constant, may_be_refs, united
from natalog.core.query.context import Context
from natalog.core.query.estimate import estimate
from natalog.core.query.keys import distinct, matches, numbered, packed
from natalog.core.query.relation import UNIT, Relation, empty, union
from natalog.core.query.solve import all_vars, check_bindable, solved

_MOVES_MAX = 1_000_000
"""Moves up to which the whole graph is read; beyond, a bound start should not pay for all of it."""
_KEPT_MAX = 4_000_000
"""Nodes in all that are remembered as reached from others."""
_TOLD_ROWS = 1_024
"""Nodes that are reached between two looks at what the query may still spend."""
_LEVELS_MAX = 12
"""Levels that are explored one by one before the whole graph is read."""

Spots = frozenset[int]


@dataclass(frozen=True, slots=True)
class _Move:
    """A body with recursion: ``rest`` leads from the parameters at the moving spots to ``to``."""

    rule: Rule
    rest: tuple[Clause, ...]
    to: tuple[Var | Const, ...]


@dataclass(frozen=True, slots=True)
class Linear:
    """A rule whose recursion is linear: ``moving`` and ``kept`` spots, moves and ends."""

    moving: tuple[int, ...]
    kept: tuple[int, ...]
    moves: tuple[_Move, ...]
    ends: tuple[Rule, ...]


def linear(rules: Sequence[Rule], group: frozenset[str]) -> Linear | None:
    """The linear form of a rule; None when its recursion has another shape."""
    if len(group) != 1:
        return None
    calls: list[tuple[Rule, int]] = []
    ends: list[Rule] = []
    for rule in rules:
        if rule.required:
            return None
        spots = [n for n, c in enumerate(rule.clauses) if _recurs(c, group)]
        if not spots:
            ends.append(rule)
        elif len(spots) == 1 and isinstance(rule.clauses[spots[0]], RuleCall):
            calls.append((rule, spots[0]))
        else:
            return None
    if not calls or not ends:
        return None
    width = len(rules[0].params)
    kept = set(range(width))
    for rule, spot in calls:
        kept &= _handed_on(rule, spot)
    moving = tuple(n for n in range(width) if n not in kept)
    if not kept or not moving:
        return None
    moves = []
    for rule, spot in calls:
        call = rule.clauses[spot]
        assert isinstance(call, RuleCall)
        to = tuple(call.args[n] for n in moving)
        if call.source != "$" or not all(isinstance(arg, (Var, Const)) for arg in to):
            return None
        rest = tuple(c for n, c in enumerate(rule.clauses) if n != spot)
        moves.append(_Move(rule, rest, to))  # type: ignore[arg-type]
    return Linear(moving, tuple(sorted(kept)), tuple(moves), tuple(ends))


def _recurs(clause: Clause, group: frozenset[str]) -> bool:
    if isinstance(clause, RuleCall):
        return clause.name in group
    if isinstance(clause, Not):
        return any(_recurs(inner, group) for inner in clause.clauses)
    if isinstance(clause, Or):
        return any(_recurs(inner, group) for branch in clause.branches for inner in branch)
    return False


def _handed_on(rule: Rule, spot: int) -> set[int]:
    """The parameters that the recursive call takes over and nothing else looks at."""
    call = rule.clauses[spot]
    assert isinstance(call, RuleCall)
    elsewhere = all_vars(c for n, c in enumerate(rule.clauses) if n != spot)
    names = [arg.name if isinstance(arg, Var) else None for arg in call.args]
    return {
        n
        for n, param in enumerate(rule.params)
        if names[n] == param.name and names.count(param.name) == 1 and param.name not in elsewhere
    }


def linear_closure(ctx: Context, form: Linear, spots: Spots, seed: Relation) -> Relation | None:
    """The answers of a linear rule by position, for the values of its bound arguments.

    None where the bound arguments or the bodies do not fit the form.
    """
    moving, kept = frozenset(form.moving), frozenset(form.kept)
    if spots and not moving <= spots and not kept <= spots:
        return None
    if any(may_be_refs(column) for column in seed.columns.values()):
        return None
    width = len(form.moving) + len(form.kept)
    names = [str(n) for n in range(width)]
    if spots and not seed.count:
        return empty(names, ctx.pool)
    if not spots:
        moves = _all_moves(ctx, form)
        return None if moves is None else _from_starts(ctx, form, moves, None, names)
    if moving <= spots:
        starts = seed.project([str(n) for n in form.moving])
        moves = _moves_from(ctx, form, starts, forward=True)
        return None if moves is None else _from_starts(ctx, form, moves, starts, names)
    ends = run_bodies(ctx, form.ends, seed.project([str(n) for n in form.kept]))
    last = ends.project([str(n) for n in form.moving])
    moves = _moves_from(ctx, form, last, forward=False)
    return None if moves is None else _from_ends(form, moves, ends, names, ctx)


Moves = tuple[list[Column], list[Column]]
"""Columns of where moves lead from, and where to."""


def _columns(form: Linear) -> tuple[list[str], list[str]]:
    return [f"from{n}" for n in form.moving], [f"to{n}" for n in form.moving]


def _as_moves(form: Linear, whole: Relation) -> Moves:
    sources, targets = _columns(form)
    return [whole.columns[name] for name in sources], [whole.columns[name] for name in targets]


def _step(ctx: Context, form: Linear, move: _Move, seed: Relation) -> Relation | None:
    """The moves of one body from (or to) the values of a seed; None where it cannot start there."""
    wanted = [move.rule.params[n].name for n in form.moving]
    names = list(dict.fromkeys([*wanted, *(v.name for v in move.to if isinstance(v, Var))]))
    try:
        if not frozenset(names) <= check_bindable(ctx, move.rest, frozenset(seed.columns)):
            return None
    except QueryWhere:
        return None
    found = solved(ctx, move.rest, seed, names)
    targets = [
        constant(arg.value, found.count, ctx.pool)
        if isinstance(arg, Const)
        else found.columns[arg.name]
        for arg in move.to
    ]
    both = [*(found.columns[name] for name in wanted), *targets]
    names = [name for side in _columns(form) for name in side]
    return Relation(dict(zip(names, both, strict=True)), found.count)


def _all_moves(ctx: Context, form: Linear) -> Moves | None:
    """The whole graph."""
    parts = [_step(ctx, form, move, UNIT) for move in form.moves]
    names = [name for side in _columns(form) for name in side]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return _as_moves(form, union(known, names, ctx.pool))


def _moves_from(ctx: Context, form: Linear, begin: Relation, *, forward: bool) -> Moves | None:
    """The moves that can be made from some nodes on (or back from them).

    Explored level by level, which costs what is reached; after some levels the whole graph is read
    instead, unless it is too large.
    """
    size = max((_size(ctx, move.rest) for move in form.moves), default=0.0)
    bases, targets = _columns(form)
    names = [*bases, *targets]
    ahead = targets if forward else bases
    here = [str(n) for n in form.moving]
    frontier = seen = begin
    parts: list[Relation] = []
    level = 0
    while frontier.count:
        if level == _LEVELS_MAX and size <= _MOVES_MAX:
            whole = _all_moves(ctx, form)
            if whole is not None:
                return whole
        level += 1
        stepped: list[Relation] = []
        for move in form.moves:
            seed = _seed_of(form, move, frontier, forward=forward)
            part = None if seed is None else _step(ctx, form, move, seed)
            if part is None:
                return None
            stepped.append(part)
        found = union(stepped, names, ctx.pool)
        parts.append(found)
        reached = Relation(
            {name: found.columns[column] for name, column in zip(here, ahead, strict=True)},
            found.count,
        )
        frontier = reached.distinct().without(seen)
        seen = union([seen, frontier], here, ctx.pool)
    return _as_moves(form, union(parts, names, ctx.pool))


def _seed_of(form: Linear, move: _Move, frontier: Relation, *, forward: bool) -> Relation | None:
    """The nodes of a frontier as values of the variables that a body starts from."""
    columns: dict[str, Column] = {}
    for spot, n in enumerate(form.moving):
        term = move.rule.params[n] if forward else move.to[spot]
        if not isinstance(term, Var) or term.name in columns:
            return None
        columns[term.name] = frontier.columns[str(n)]
    return Relation(columns, frontier.count)


def _size(ctx: Context, clauses: Sequence[Clause]) -> float:
    """A guess at the rows of the cheapest way into some clauses."""
    sizes = [estimate(ctx, clause, {}) for clause in clauses if isinstance(clause, Pattern)]
    return min(sizes, default=0.0)


def _from_starts(
    ctx: Context,
    form: Linear,
    moves: Moves,
    seed: Relation | None,
    names: list[str],
) -> Relation:
    """Walk from the values at the moving spots (all there are without a seed) to the ends."""
    before = run_bodies(ctx, form.ends, UNIT) if seed is None else None
    if before is not None:
        starts = [before.columns[str(n)] for n in form.moving]
    else:
        assert seed is not None
        starts = [seed.columns[str(n)] for n in form.moving]
    nodes = _Nodes(ctx, [starts, moves[0], moves[1]])
    begin, source, target = nodes.ids
    roots = distinct(np.concatenate((begin, source)) if seed is None else begin)
    graph = _Graph(nodes.count, source, target)
    counts, reached_by = _walk(ctx, [[root] for root in roots.tolist()], graph)
    pairs = (roots.repeat(counts), reached_by)
    if before is None:
        reached = nodes.relation([str(n) for n in form.moving], distinct(pairs[1]))
        before = run_bodies(ctx, form.ends, reached)
        ends = _Nodes(ctx, [*nodes.as_columns(), [before.columns[str(n)] for n in form.moving]])
        nodes, found = ends, ends.ids[-1]
        pairs = (ends.ids[0][pairs[0]], ends.ids[0][pairs[1]])
    else:
        found = begin
    rows, spots = matches(pairs[1], found)
    ctx.tick(len(spots))
    walked = pairs[0] if rows is None else pairs[0][rows]
    columns = nodes.relation([str(n) for n in form.moving], walked).columns
    for n in form.kept:
        columns[str(n)] = before.columns[str(n)].take(spots)
    return Relation({name: columns[name] for name in names}, len(spots)).distinct()


def _from_ends(
    form: Linear, moves: Moves, ends: Relation, names: list[str], ctx: Context
) -> Relation:
    """Walk backwards from where paths with the bound values at the kept spots end."""
    kept = [str(n) for n in form.kept]
    nodes = _Nodes(ctx, [[ends.columns[str(n)] for n in form.moving], moves[0], moves[1]])
    last, source, target = nodes.ids
    key = packed([ends.columns[name].data for name in kept])
    first, origins = numbered(key)
    graph = _Graph(nodes.count, target, source)
    starts: list[list[int]] = [[] for _ in range(len(first))]
    for origin, node in zip(origins.tolist(), last.tolist(), strict=True):
        starts[origin].append(node)
    counts, found = _walk(ctx, starts, graph)
    rows = first.repeat(counts)
    columns = nodes.relation([str(n) for n in form.moving], found).columns
    for name in kept:
        columns[name] = ends.columns[name].take(rows)
    return Relation({name: columns[name] for name in names}, len(found)).distinct()


# --- graphs --------------------------------------------------------------------------------------


class _Nodes:
    """Rows of several tables numbered alike: equal rows have one number."""

    def __init__(self, ctx: Context, tables: Sequence[list[Column]]) -> None:
        width = len(tables[0])
        sizes = [len(table[0].data) for table in tables]
        self._columns = [united([table[n] for table in tables], ctx.pool) for n in range(width)]
        key = packed([column.data for column in self._columns])
        self._first, numbers = numbered(key)
        self.count = len(self._first)
        ends = list(accumulate(sizes))
        self.ids: list[Ints] = [
            numbers[end - size : end] for size, end in zip(sizes, ends, strict=True)
        ]

    def relation(self, names: list[str], ids: Ints) -> Relation:
        """The values of nodes under some names."""
        rows = self._first[ids]
        columns = [column.take(rows) for column in self._columns]
        return Relation(dict(zip(names, columns, strict=True)), len(ids))

    def as_columns(self) -> list[list[Column]]:
        """One table of all nodes in the order of their numbers."""
        return [[column.take(self._first) for column in self._columns]]


class _Graph:
    """Nodes from 0 to ``count`` - 1 and what each leads to: ``targets`` from ``begin[n]`` on."""

    __slots__ = ("begin", "forward", "targets")

    def __init__(self, count: int, source: Ints, target: Ints) -> None:
        sizes = np.bincount(source, minlength=count)
        self.begin: list[int] = [0, *sizes.cumsum().tolist()]
        self.targets: list[int] = target[source.argsort(kind="stable")].tolist()
        self.forward = 2 * int(np.count_nonzero(target > source)) > len(source)
        """Whether numbers mostly grow along the moves."""


def _walk(ctx: Context, starts: list[list[int]], graph: _Graph) -> tuple[list[int], Ints]:
    """What each group of starts reaches, itself included: how many nodes each, and the nodes.

    What one start reaches is a part of what those before it in the graph reach, so those come
    last: the closure of three chains of thirty takes half the time.
    """
    numbers = range(len(starts))
    known: dict[int, set[int]] = {}
    reached: list[set[int]] = [set()] * len(starts)
    total = kept = told = 0
    for number in reversed(numbers) if graph.forward else numbers:
        begin = starts[number]
        found = reached[number] = _reach(begin, graph, known)
        total += len(found)
        if len(begin) == 1 and kept < _KEPT_MAX:
            known[begin[0]] = found
            kept += len(found)
        if total - told > _TOLD_ROWS or total > ctx.budget.rows_max:
            ctx.tick(total - told)
            told = total
            if total > ctx.budget.rows_max:
                ctx.tick(total)
    ctx.tick(total - told)
    nodes = np.fromiter(chain.from_iterable(reached), np.int64, total)
    return list(map(len, reached)), nodes


def _reach(starts: list[int], graph: _Graph, known: dict[int, set[int]]) -> set[int]:
    """All nodes that can be reached; ``known`` has all that some nodes reach."""
    begin, targets = graph.begin, graph.targets
    seen = set(starts)
    order = list(seen)
    for node in order:  # grows while it is read
        for other in targets[begin[node] : begin[node + 1]]:
            if other not in seen:
                beyond = known.get(other)
                if beyond is not None:
                    seen |= beyond
                else:
                    seen.add(other)
                    order.append(other)
    return seen

"""Rules: calls on what is bound, and recursion to a fixpoint.

A rule that does not call itself runs like an ``or`` of its bodies on the distinct values of the
bound arguments.  A recursive group runs bottom-up, semi-naively, restricted to what was asked
for: every call leaves the values of its bound arguments as a *demand*, bodies run for new demands
and again with every new answer in the place of each recursive call (Beeri and Ramakrishnan, "On
the power of magic", 1991, evaluated without rewriting the program).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from natalog.core.errors import QueryWhere
from natalog.core.index.pool import ValuePool
from natalog.core.query.ast import Blank, Call, Clause, Const, Not, Or, Pattern, Rule, RuleCall, Var
from natalog.core.query.bodies import named, numbered, run_bodies
from natalog.core.query.closure import linear, linear_closure
from natalog.core.query.column import Column, aligned, constant, recoded
from natalog.core.query.context import Context
from natalog.core.query.relation import UNIT, Relation, empty
from natalog.core.query.solve import solved

Spots = frozenset[int]


def run_rule_call(ctx: Context, call: RuleCall, bound: Relation) -> Relation:
    """``bound`` joined with what a rule says about the arguments of a call."""
    rules = ctx.rules.get(call.name)
    if rules is None:
        raise QueryWhere(f"There is no rule {call.name}.", rule=call.name)
    width = len(rules[0].params)
    spots, seed = _seed(ctx, call, bound)
    inside = ctx.with_source(call.source)
    fixpoint: Fixpoint | None = ctx.fixpoint
    if fixpoint is not None and call.name in fixpoint.group and _same_source(ctx, call):
        answers = fixpoint.ask(call.name, spots, seed)
    elif _is_recursive(ctx, call.name):
        answers = _closure(inside, call.name, spots, seed)
    else:
        answers = _once(inside, rules, spots, seed)
    return _joined(ctx, call, bound, answers, width)


def _same_source(ctx: Context, call: RuleCall) -> bool:
    return call.source == "$" or ctx.sources.get(call.source) is ctx.sources.get("$")


def _seed(ctx: Context, call: RuleCall, bound: Relation) -> tuple[Spots, Relation]:
    """The positions of a call that are bound, and their distinct values by position."""
    columns: dict[str, Column] = {}
    for spot, arg in enumerate(call.args):
        if isinstance(arg, Const):
            columns[str(spot)] = constant(arg.value, bound.count, ctx.pool)
        elif isinstance(arg, Var) and arg.name in bound.columns:
            columns[str(spot)] = bound.columns[arg.name]
    spots = frozenset(int(name) for name in columns)
    seed = Relation(columns, bound.count).distinct() if columns else UNIT
    return spots, seed


def _joined(
    ctx: Context, call: RuleCall, bound: Relation, answers: Relation, width: int
) -> Relation:
    """Answers by position, as the variables of a call, joined with its rows."""
    columns: dict[str, Column] = {}
    keep: Any = None
    for spot in range(width):
        arg = call.args[spot]
        column = answers.columns[str(spot)]
        if isinstance(arg, Const):
            left, right = aligned(column, constant(arg.value, 1, ctx.pool))
            keep = left == right if keep is None else keep & (left == right)
        elif isinstance(arg, Var):
            other = columns.get(arg.name)
            if other is None:
                columns[arg.name] = column
            else:
                left, right = aligned(other, column)
                keep = left == right if keep is None else keep & (left == right)
        else:
            assert isinstance(arg, Blank)
    found = Relation(columns, answers.count, _renamed(answers.key, call))
    if keep is not None and not keep.all():
        found = found.take(keep)
    if not columns:
        return bound if found.count else bound.none()
    found = found.distinct()
    return bound.join(found) if bound.columns else found


def _renamed(key: frozenset[str] | None, call: RuleCall) -> frozenset[str] | None:
    """A key by position as variables of a call; None where a blank hides a part of it."""
    if key is None:
        return None
    args = [call.args[int(spot)] for spot in key]
    if any(isinstance(arg, Blank) for arg in args):
        return None
    return frozenset(arg.name for arg in args if isinstance(arg, Var))


def _check_required(rule: Rule, spots: Spots) -> None:
    for spot, var in enumerate(rule.required):
        if spot not in spots:
            raise QueryWhere(
                f"The rule {rule.name} needs {var.name} bound.", rule=rule.name, variable=var.name
            )


def _once(ctx: Context, rules: Sequence[Rule], spots: Spots, seed: Relation) -> Relation:
    """The answers of a rule that does not call itself."""
    names = [str(spot) for spot in range(len(rules[0].params))]
    if not seed.count:
        return empty(names, ctx.pool)
    for rule in rules:
        _check_required(rule, spots)
    return run_bodies(ctx, rules, seed)


# --- recursion -----------------------------------------------------------------------------------


def _is_recursive(ctx: Context, name: str) -> bool:
    return name in _group(ctx, name)


def _group(ctx: Context, name: str) -> frozenset[str]:
    """The rules that call ``name`` and are called by it; empty when it does not recur."""
    known = ctx.ruleset.groups.get(name)
    if known is not None:
        return known
    callees: dict[str, set[str]] = {}
    stack = [name]
    while stack:
        rule = stack.pop()
        if rule in callees:
            continue
        callees[rule] = {
            call.name for body in ctx.rules.get(rule, ()) for call in _calls(body.clauses)
        }
        stack.extend(callees[rule])
    below = {rule: _reach(callees, rule) for rule in callees}
    group = frozenset(rule for rule in callees if name in below[rule] and rule in below[name])
    ctx.ruleset.groups[name] = group
    return group


def _reach(callees: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    stack = list(callees[start])
    while stack:
        rule = stack.pop()
        if rule not in seen:
            seen.add(rule)
            stack.extend(callees[rule])
    return seen


def _calls(clauses: Sequence[Clause]) -> list[RuleCall]:
    found: list[RuleCall] = []
    for clause in clauses:
        if isinstance(clause, RuleCall):
            found.append(clause)
        elif isinstance(clause, Not):
            found.extend(_calls(clause.clauses))
        elif isinstance(clause, Or):
            for branch in clause.branches:
                found.extend(_calls(branch))
        else:
            assert isinstance(clause, (Pattern, Call))
    return found


def _closure(ctx: Context, name: str, spots: Spots, seed: Relation) -> Relation:
    """The answers of a recursive rule for the values of its bound arguments."""
    group = _group(ctx, name)
    forms = ctx.ruleset.forms
    if name not in forms:
        forms[name] = linear(ctx.rules[name], group)
    form = forms[name]
    if form is not None:
        found = linear_closure(ctx, form, spots, seed)
        if found is not None:
            return found
    fixpoint = Fixpoint(ctx, group)
    fixpoint.ask(name, spots, seed)
    fixpoint.run()
    return fixpoint.answers[name].all


class Growing:
    """A set of rows by position that grows, and what is new in it since the last round."""

    def __init__(self, names: list[str], pool: ValuePool) -> None:
        self.names = names
        self.pool = pool
        self.all = empty(names, pool)
        self.new = empty(names, pool)
        self._next: list[Relation] = []
        self._seen: set[Any] = set()
        self._kinds: list[Any] | None = None

    def add(self, rows: Relation) -> None:
        """Rows for the next round; those known already do not count."""
        if not rows.count:
            return
        columns = [rows.columns[name] for name in self.names]
        kinds = [(c.kind, c.pool if c.kind == "code" else None) for c in columns]
        if self._kinds is None:
            self._kinds = kinds
        if kinds != self._kinds:
            self._generalise()
            columns = [recoded(column, self.pool) for column in columns]
        fresh: list[int] = []
        seen = self._seen
        keys: list[Any] = (
            columns[0].data.tolist()
            if len(columns) == 1
            else list(zip(*(column.data.tolist() for column in columns), strict=True))
        )
        for number, key in enumerate(keys):
            if key not in seen:
                seen.add(key)
                fresh.append(number)
        if fresh:
            picked = np.array(fresh, dtype=np.int64)
            kept = {
                name: column.take(picked) for name, column in zip(self.names, columns, strict=True)
            }
            self._next.append(Relation(kept, len(fresh)))

    def _generalise(self) -> None:
        """Turn every column into codes of the query's pool, since encodings differ."""
        general = [("code", self.pool)] * len(self.names)
        if self._kinds == general:
            return
        self._kinds = general
        convert = self._recoded
        self.all, self.new = convert(self.all), convert(self.new)
        self._next = [convert(part) for part in self._next]
        self._seen = set()
        for part in (self.all, *self._next):
            columns = [part.columns[name].data.tolist() for name in self.names]
            self._seen.update(columns[0] if len(columns) == 1 else zip(*columns, strict=True))

    def _recoded(self, part: Relation) -> Relation:
        columns = {name: recoded(part.columns[name], self.pool) for name in self.names}
        return Relation(columns, part.count)

    def advance(self) -> bool:
        """Begin a round: what was added becomes new.  False when nothing was."""
        if not self._next:
            self.new = empty(self.names, self.pool)
            return False
        self.new = _stacked(self._next, self.names)
        self.all = self.new if not self.all.count else _stacked([self.all, self.new], self.names)
        self._next = []
        return True


def _stacked(parts: list[Relation], names: list[str]) -> Relation:
    if len(parts) == 1:
        return parts[0]
    columns = {}
    for name in names:
        first = parts[0].columns[name]
        data = np.concatenate([part.columns[name].data for part in parts])
        columns[name] = Column(first.kind, first.pool, data)
    return Relation(columns, sum(part.count for part in parts))


class Fixpoint:
    """One recursive group of rules being solved."""

    def __init__(self, ctx: Context, group: frozenset[str]) -> None:
        self.group = group
        self.ctx = replace(ctx, fixpoint=self)
        self.answers = {
            name: Growing([str(i) for i in range(len(ctx.rules[name][0].params))], ctx.pool)
            for name in sorted(group)
        }
        self.demands: dict[tuple[str, Spots], Growing] = {}
        self.unrestricted: set[str] = set()
        self._without: dict[tuple[int, int], tuple[Clause, ...]] = {}

    def ask(self, name: str, spots: Spots, seed: Relation) -> Relation:
        """Demand the answers for some bound values; returns those known so far."""
        if name not in self.unrestricted:
            for rule in self.ctx.rules[name]:
                _check_required(rule, spots)
            key = (name, spots)
            demand = self.demands.get(key)
            if demand is None:
                demand = Growing([str(spot) for spot in sorted(spots)], self.ctx.pool)
                self.demands[key] = demand
                if not spots:
                    self.unrestricted.add(name)
            if spots:
                demand.add(seed)
        return self.answers[name].all

    def run(self) -> None:
        """Run rounds until nothing new is found."""
        started: set[str] = set()
        while True:
            moved = [demand.advance() for demand in self.demands.values()]
            grown = [answers.advance() for answers in self.answers.values()]
            begun = self.unrestricted - started
            if not any(moved) and not any(grown) and not begun:
                return
            started |= begun
            for (name, spots), demand in list(self.demands.items()):
                for rule in self.ctx.rules[name]:
                    if not spots:
                        if name in begun:
                            self._derive(rule, rule.clauses, UNIT)
                    elif demand.new.count and name not in self.unrestricted:
                        self._derive(rule, rule.clauses, named(demand.new, rule))
                    self._continue(name, spots, demand, rule)

    def _continue(self, name: str, spots: Spots, demand: Growing, rule: Rule) -> None:
        """Run a body with the new answers in the place of each of its recursive calls."""
        if spots and (name in self.unrestricted or not demand.all.count):
            return
        for number, clause in enumerate(rule.clauses):
            if isinstance(clause, Or):
                inner = [call.name for branch in clause.branches for call in _calls(branch)]
                if any(name in self.group and self.answers[name].new.count for name in inner):
                    # recursion inside an "or" runs again with all that is known
                    seed = named(demand.all, rule) if spots else UNIT
                    self._derive(rule, rule.clauses, seed)
                continue
            if not isinstance(clause, RuleCall) or clause.name not in self.group:
                continue
            if not _same_source(self.ctx, clause):
                continue
            new = self.answers[clause.name].new
            if not new.count:
                continue
            start = _joined(self.ctx, clause, UNIT, new, len(clause.args))
            if spots:
                asked = named(demand.all, rule)
                shared = [column for column in asked.columns if column in start.columns]
                if shared:
                    start = start.join(asked)
                else:
                    self._derive(rule, self._rest(rule, number), start, asked)
                    continue
            self._derive(rule, self._rest(rule, number), start)

    def _derive(self, rule: Rule, clauses: Sequence[Clause], *seeds: Relation) -> None:
        if any(not seed.count for seed in seeds):
            return
        params = [var.name for var in rule.params]
        seed = seeds[0]
        for other in seeds[1:]:
            seed = seed.product(other)
        found = solved(self.ctx, clauses, seed, params)
        self.answers[rule.name].add(numbered(found, rule))

    def _rest(self, rule: Rule, number: int) -> tuple[Clause, ...]:
        """The clauses of a body without one."""
        key = (id(rule), number)
        found = self._without.get(key)
        if found is None:
            found = tuple(c for spot, c in enumerate(rule.clauses) if spot != number)
            self._without[key] = found
        return found

"""Rule bodies and the positions of their parameters: rows go in and come out by position."""

from __future__ import annotations

from collections.abc import Sequence

from natalog.core.query.ast import Rule
from natalog.core.query.context import Context
from natalog.core.query.relation import Relation, union
from natalog.core.query.solve import solved


def named(seed: Relation, rule: Rule) -> Relation:
    """Positions renamed to the parameters of a body."""
    params = rule.params
    columns = {params[int(spot)].name: column for spot, column in seed.columns.items()}
    key = seed.key
    named_key = None if key is None else frozenset(params[int(spot)].name for spot in key)
    return Relation(columns, seed.count, named_key)


def numbered(found: Relation, rule: Rule) -> Relation:
    """The parameters of a body renamed to positions."""
    columns = {str(spot): found.columns[var.name] for spot, var in enumerate(rule.params)}
    spots = {var.name: str(spot) for spot, var in enumerate(rule.params)}
    key = found.key
    return Relation(
        columns, found.count, None if key is None else frozenset(spots[name] for name in key)
    )


def run_bodies(ctx: Context, rules: Sequence[Rule], seed: Relation) -> Relation:
    """What bodies that do not recur give for the values of a seed, together, by position."""
    parts = []
    for rule in rules:
        params = [var.name for var in rule.params]
        parts.append(numbered(solved(ctx, rule.clauses, named(seed, rule), params), rule))
    return union(parts, [str(spot) for spot in range(len(rules[0].params))], ctx.pool)

"""How many rows a pattern promises, given what is bound: exact index counts, no statistics kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from natalog.core.database import Database
from natalog.core.index.attribute import AttributeIndex
from natalog.core.index.encoding import find
from natalog.core.query.ast import Const, Pattern, Term, Var
from natalog.core.query.context import Context, Rows
from natalog.core.query.relation import Relation
from natalog.core.values import Keyword

_UNINDEXED_SHARE = 10  # a constant in an attribute without AVET is taken to hit one fact in ten

Owners = Mapping[str, Relation]
"""The relation that each bound variable is a column of."""


def estimate(ctx: Context, pattern: Pattern, owners: Owners) -> float:
    """Rows after joining a pattern with the relations that share its variables.

    0 is never a guess: nothing can match.
    """
    source = ctx.sources.get(pattern.source)
    entity, attr, value, _, _ = pattern.full
    if isinstance(source, Rows):
        bound = _bound_rows(entity, owners)
        return float(len(source.rows)) * (1.0 if bound is None else bound)
    if not isinstance(source, Database):
        return 1.0
    rows = _bound_rows(entity, owners)
    if not isinstance(attr, Const) or not isinstance(attr.value, Keyword):
        if isinstance(entity, Const):
            return 10.0
        return float(max(len(source), 1)) if rows is None else rows * 10.0
    index = source.indexes.get(attr.value)
    if index is None:
        return 0.0
    aevt = index.aevt
    facts = float(
        aevt.open if source.is_current else 2 * aevt.count if source.is_history else aevt.count
    )
    declared = source.schema.get(attr.value)
    many = declared is None or declared.many
    if isinstance(entity, Const):
        return min(facts, 4.0 if many else 1.0)
    promised = facts
    if rows is not None:
        promised = min(facts, rows * (3.0 if many else 1.0))
    if isinstance(value, Const):
        if declared is not None and declared.is_ref and not isinstance(value.value, int):
            return min(promised, 4.0)
        return min(promised, _hits(source, index, find(value.value, index.kind, source.pool)))
    if isinstance(value, Var):
        owner = owners.get(value.name)
        if owner is not None:
            return min(promised, _value_rows(source, index, owner, value.name, declared, facts))
    return promised


def _value_rows(
    db: Database, index: AttributeIndex, owner: Relation, name: str, declared: Any, facts: float
) -> float:
    """Rows for the values of a bound variable; exact for one value."""
    column = owner.columns[name]
    if owner.count == 1 and (declared is None or not declared.is_ref or column.kind == "long"):
        if column.kind == index.kind and (column.kind != "code" or column.pool is db.pool):
            return _hits(db, index, int(column.data[0]))
        return _hits(db, index, find(column.values()[0], index.kind, db.pool))
    if declared is not None and declared.unique is not None:
        return float(owner.count)
    return owner.count * max(facts / _distinct(index), 1.0)


def _hits(db: Database, index: AttributeIndex, entry: int | None) -> float:
    """Facts with one value, ended ones included."""
    if entry is None:
        return 0.0
    if index.avet is None:
        return max(index.aevt.open / _UNINDEXED_SHARE, 1.0)
    return float(index.avet.count_first(entry))


def _distinct(index: AttributeIndex) -> float:
    """Distinct values of an attribute: counted where it is indexed, guessed elsewhere."""
    if index.avet is None:
        return max(index.aevt.count / _UNINDEXED_SHARE, 1.0)
    return float(max(index.avet.distinct_first(), 1))


def _bound_rows(term: Term, owners: Owners) -> float | None:
    if isinstance(term, Var):
        owner = owners.get(term.name)
        if owner is not None:
            return float(owner.count)
    return None

"""How many rows a pattern promises, given what is bound: exact index counts, no statistics kept."""

from __future__ import annotations

from collections.abc import Sequence

from natalog.core.database import Database
from natalog.core.index.attribute import AttributeIndex
from natalog.core.index.encoding import find
from natalog.core.query.ast import Const, Pattern, Term, Var
from natalog.core.query.context import Context, Rows
from natalog.core.query.relation import Relation
from natalog.core.values import Keyword

_UNINDEXED_SHARE = 10  # a constant in an attribute without AVET is taken to hit one fact in ten


def estimate(ctx: Context, pattern: Pattern, parts: Sequence[Relation]) -> float:
    """Rows after joining a pattern with the relations that share its variables."""
    source = ctx.sources.get(pattern.source)
    if isinstance(source, Rows):
        return float(len(source.rows)) * _rows_of(pattern.terms[:1], parts)
    if not isinstance(source, Database):
        return 1.0
    terms = pattern.terms
    entity = terms[0] if terms else None
    attr = terms[1] if len(terms) > 1 else None
    value = terms[2] if len(terms) > 2 else None
    if not isinstance(attr, Const) or not isinstance(attr.value, Keyword):
        total = float(max(len(source), 1))
        if isinstance(entity, Const):
            return 10.0
        bound_rows = _bound_rows(entity, parts)
        return total if bound_rows is None else bound_rows * 10.0
    index = source.indexes.get(attr.value)
    if index is None:
        return 0.0
    facts = float(index.aevt.open if not source.is_history else 2 * index.aevt.count)
    declared = source.schema.get(attr.value)
    many = declared is None or declared.many
    if isinstance(entity, Const):
        return min(facts, 4.0 if many else 1.0)
    promises = []
    rows = _bound_rows(entity, parts)
    if rows is not None:
        promises.append(rows * (3.0 if many else 1.0))
    if isinstance(value, Const):
        hits = _hits(source, index, attr.value, value)
        promises.append(hits if rows is None else min(hits, rows))
    else:
        value_rows = _bound_rows(value, parts)
        if value_rows is not None:
            unique = declared is not None and declared.unique is not None
            fan_out = 1.0 if unique else max(facts / _distinct(index), 1.0)
            promises.append(value_rows * fan_out)
    return min(promises) if promises else facts


def _hits(db: Database, index: AttributeIndex, attr: Keyword, value: Const) -> float:
    declared = db.schema.get(attr)
    if declared is not None and declared.is_ref and not isinstance(value.value, int):
        return 4.0
    entry = find(value.value, index.kind, db.pool)
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


def _bound_rows(term: Term | None, parts: Sequence[Relation]) -> float | None:
    if isinstance(term, Var):
        for part in parts:
            if term.name in part.columns:
                return float(part.count)
    return None


def _rows_of(terms: Sequence[Term], parts: Sequence[Relation]) -> float:
    found = [_bound_rows(term, parts) for term in terms]
    return max((rows for rows in found if rows is not None), default=1.0)

"""Data patterns: from ``[e a v tx op]`` to a relation, by index.

A pattern is evaluated against what is bound already: a constant or a bound variable in the entity
or value position turns a scan into index lookups or a merge with the sorted column.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from natalog.core.database import Database
from natalog.core.errors import EntityError, EntityIdMissing, QueryWhere
from natalog.core.index.encoding import Kind, find
from natalog.core.index.pool import Ints
from natalog.core.index.window import Facts
from natalog.core.limits import LONG_MAX, LONG_MIN
from natalog.core.query.ast import Blank, Const, Pattern, Term, Var
from natalog.core.query.column import (
    Column,
    aligned,
    column_of,
    matches,
    united,
)
from natalog.core.query.context import Context, Rows
from natalog.core.query.relation import NOTHING, UNIT, Relation, empty
from natalog.core.values import Keyword, as_keyword, value_key

_FEW = 32  # distinct entities up to which lookups in the tree beat a merge with the flat column
_BLANK = Blank()
_E, _A, _V, _TX, _OP = range(5)


def pattern_vars(pattern: Pattern) -> list[str]:
    """The variables of a pattern, each once."""
    return list(dict.fromkeys(term.name for term in pattern.terms if isinstance(term, Var)))


def match_pattern(ctx: Context, pattern: Pattern, bound: Relation) -> Relation:
    """The join of ``bound`` with the facts (or rows) that a pattern matches."""
    source = ctx.source(pattern.source)
    if isinstance(source, Rows):
        return bound.join(_match_rows(ctx, source, pattern))
    terms: list[Term] = [*pattern.terms, *([_BLANK] * (5 - len(pattern.terms)))]
    bound, terms, hidden = _resolve_refs(ctx, source, bound, terms)
    if not bound.count:
        kept = [name for name in bound.columns if name not in hidden]
        return empty(list(dict.fromkeys([*kept, *pattern_vars(pattern)])), ctx.pool)
    attrs = _attributes(source, bound, terms)
    if len(attrs) == 1 and not isinstance(terms[_A], Var):
        found = _match_attribute(ctx, source, attrs[0], bound, terms)
    else:
        found = _match_attributes(ctx, source, attrs, bound, terms)
    if hidden:
        found = found.project([n for n in found.columns if n not in hidden], distinct=False)
    ctx.tick(found.count)
    return found


# --- lookup refs and idents in variables ---------------------------------------------------------


def _resolve_refs(
    ctx: Context, db: Database, bound: Relation, terms: list[Term]
) -> tuple[Relation, list[Term], list[str]]:
    """Turn constants and bound values that name entities into ids.

    A variable keeps its value as written; the id goes into a hidden column.
    """
    terms = list(terms)
    hidden: list[str] = []
    attr = terms[_A]
    if isinstance(attr, Const) and isinstance(attr.value, str):
        named = as_keyword(attr.value)
        if not isinstance(named, Keyword):
            raise QueryWhere(f"{attr.value!r} is no attribute.", attribute=attr.value)
        attr = terms[_A] = Const(named)
    elif isinstance(attr, Const) and type(attr.value) is int:
        ident = db.schema.ident_of(attr.value)
        attr = terms[_A] = Const(attr.value if ident is None else ident)
    value_is_ref = False
    if isinstance(attr, Const) and isinstance(attr.value, Keyword):
        declared = db.schema.get(attr.value)
        value_is_ref = declared is not None and declared.is_ref
    for spot in (_E, _V, _TX):
        if spot == _V and not value_is_ref:
            continue
        term = terms[spot]
        if isinstance(term, Const):
            if not isinstance(term.value, int):
                terms[spot] = Const(_entity_constant(db, term.value))
        elif isinstance(term, Var) and term.name in bound.columns:
            column = bound.columns[term.name]
            if column.kind != "code":
                continue
            keep, ids = _resolve_column(ctx, db, term.name, column)
            if ids is None:
                continue
            bound = bound.take(keep)
            name = f"{term.name}#{spot}"
            bound = bound.with_column(name, Column("long", ctx.pool, ids))
            terms[spot] = Var(name)
            hidden.append(name)
    return bound, terms, hidden


def _entity_constant(db: Database, value: Any) -> Any:
    try:
        return db.entid_strict(value)
    except EntityIdMissing:
        if isinstance(value, Keyword):
            return None
        raise
    except EntityError:
        return None


def _resolve_column(
    ctx: Context, db: Database, name: str, column: Column
) -> tuple[Ints, Ints | None]:
    """Rows that name an entity, and its id; None where nothing needs resolving."""
    distinct, inverse = np.unique(column.data, return_inverse=True)
    values = Column(column.kind, column.pool, distinct).values()
    if not any(isinstance(value, (int, Keyword, list, tuple)) for value in values):
        return distinct, None
    ids: list[int] = []
    for value in values:
        found: int | None = None
        if isinstance(value, (Keyword, list, tuple)):
            try:
                found = db.entid(value)
            except EntityError:
                if name in ctx.scalars:
                    raise
            if found is None and name in ctx.scalars and not isinstance(value, Keyword):
                found = db.entid_strict(value)
        elif type(value) is int:
            found = value
        ids.append(-1 if found is None else found)
    table = np.array(ids, dtype=np.int64)[inverse]
    keep = np.flatnonzero(table != -1)
    return keep, table[keep]


# --- one attribute -------------------------------------------------------------------------------


def _attributes(db: Database, bound: Relation, terms: list[Term]) -> list[Keyword]:
    """The attributes that a pattern can match."""
    attr = terms[_A]
    if isinstance(attr, Const):
        return [attr.value] if isinstance(attr.value, Keyword) else []
    if isinstance(attr, Var) and attr.name in bound.columns:
        column = bound.columns[attr.name]
        seen = column._replace(data=np.unique(column.data)).values()
        return [value for value in seen if isinstance(value, Keyword) and value in db.indexes]
    first = terms[_E]
    entities: list[int] | None = None
    if isinstance(first, Const):
        entities = [first.value] if isinstance(first.value, int) else []
    elif isinstance(first, Var) and first.name in bound.columns:
        column = bound.columns[first.name]
        if column.kind != "long":
            return []
        distinct = np.unique(column.data)
        entities = distinct.tolist() if len(distinct) <= _FEW else None
    if entities is None:
        return list(db.indexes)
    codes = {code for e in entities for code in db.entities.with_first(e)[1].tolist()}
    return [db.pool.value(code) for code in sorted(codes)]


def _match_attribute(
    ctx: Context, db: Database, attr: Keyword, bound: Relation, terms: list[Term]
) -> Relation:
    """Join ``bound`` with the facts of one attribute."""
    index = db.indexes.get(attr)
    nothing = _nothing(ctx, bound, terms)
    if index is None:
        return nothing
    facts, rows = _fetch(db, attr, index.kind, bound, terms)
    if facts is None:
        return nothing
    keep = _constants_hit(db, index.kind, facts, terms)
    if keep is False:
        return nothing
    joined: dict[str, Column] = {}
    if rows is not None:
        joined = {name: column.take(rows) for name, column in bound.columns.items()}
    columns: dict[str, Column] = {}
    for spot, term in enumerate(terms):
        if not isinstance(term, Var) or spot == _A:
            continue
        column = _column_at(db, index.kind, facts, spot)
        other = columns.get(term.name) or joined.get(term.name)
        if other is None:
            columns[term.name] = column
            continue
        left, right = aligned(other, column)
        keep = _and(keep, left == right)
    found = Relation({**joined, **columns}, len(facts.e))
    if isinstance(keep, np.ndarray) and not keep.all():
        found = found.take(keep)
    if rows is not None:
        return found
    if not columns:
        return bound if found.count else bound.take(np.zeros(bound.count, np.bool_))
    return bound.join(found) if bound.columns or not bound.count else found


def _nothing(ctx: Context, bound: Relation, terms: list[Term]) -> Relation:
    """No rows, with the variables that a match would have."""
    names = [term.name for term in terms if isinstance(term, Var)]
    return empty(list(dict.fromkeys([*bound.columns, *names])), ctx.pool)


def _and(mask: Any, hit: Any) -> Any:
    return hit if mask is None else mask & hit


def _constants_hit(db: Database, kind: Kind, facts: Facts, terms: list[Term]) -> Any:
    """A mask of the facts that agree with the constants: None for all of them, False for none."""
    keep: Any = None
    value, tx, op = terms[_V], terms[_TX], terms[_OP]
    if isinstance(value, Const):
        entry = find(value.value, kind, db.pool)
        if entry is None:
            return False
        keep = facts.v == entry
    if isinstance(tx, Const):
        if type(tx.value) is not int or not LONG_MIN <= tx.value <= LONG_MAX:
            return False
        keep = _and(keep, facts.tx == tx.value)
    if isinstance(op, Const):
        if type(op.value) is not bool or (facts.added is None and not op.value):
            return False
        if facts.added is not None:
            keep = _and(keep, facts.added == op.value)
    return keep


def _column_at(db: Database, kind: Kind, facts: Facts, spot: int) -> Column:
    """The facts' entities, values, transactions or operations."""
    if spot == _OP:
        if facts.added is None:
            return Column("boolean", db.pool, np.ones(len(facts.e), np.int64))
        return Column("boolean", db.pool, facts.added.astype(np.int64))
    if spot == _V:
        return Column(kind, db.pool, facts.v)
    return Column("long", db.pool, facts.e if spot == _E else facts.tx)


def _fetch(
    db: Database, attr: Keyword, kind: Any, bound: Relation, terms: list[Term]
) -> tuple[Facts | None, Ints | None]:
    """Facts that may match, and the row of ``bound`` each goes with (None: not joined yet)."""
    first, value = terms[_E], terms[_V]
    if isinstance(first, Const):
        if type(first.value) is not int or not LONG_MIN <= first.value <= LONG_MAX:
            return None, None
        return db.scan_entity(attr, first.value), None
    if isinstance(first, Var) and first.name in bound.columns:
        column = bound.columns[first.name]
        if column.kind == "long":
            return _by_entities(db, attr, column.data)
        return db.scan(attr), None
    if isinstance(value, Const):
        entry = find(value.value, kind, db.pool)
        return (None, None) if entry is None else (db.scan_value(attr, entry), None)
    if isinstance(value, Var) and value.name in bound.columns:
        column = bound.columns[value.name]
        index = db.indexes[attr]
        few = np.unique(column.data) if column.kind == kind else column.data
        if (
            index.avet is not None
            and len(few) <= _FEW
            and column.kind == kind
            and (kind != "code" or column.pool is db.pool)
        ):
            return _concatenated([db.scan_value(attr, entry) for entry in few.tolist()]), None
    return db.scan(attr), None


def _by_entities(db: Database, attr: Keyword, entities: Ints) -> tuple[Facts, Ints]:
    """The facts of many entities, and for each the number of the entity it belongs to."""
    if len(entities) == 1:
        facts = db.scan_entity(attr, int(entities[0]))
        return facts, np.zeros(len(facts.e), dtype=np.int64)
    if len(entities) <= _FEW:
        parts = [db.scan_entity(attr, e) for e in entities.tolist()]
        sizes = [len(part.e) for part in parts]
        return _concatenated(parts), np.repeat(np.arange(len(parts)), sizes)
    facts = db.scan(attr)
    rows, spots = matches(entities, facts.e, right_sorted=True)
    added = None if facts.added is None else facts.added[spots]
    return Facts(facts.e[spots], facts.v[spots], facts.tx[spots], added), rows


def _concatenated(parts: list[Facts]) -> Facts:
    if len(parts) == 1:
        return parts[0]
    none = np.empty(0, dtype=np.int64)
    if not parts:
        return Facts(none, none, none, None)
    flags = None
    if any(part.added is not None for part in parts):
        flags = np.concatenate(
            [np.ones(len(p.e), np.bool_) if p.added is None else p.added for p in parts]
        )
    return Facts(
        np.concatenate([p.e for p in parts]),
        np.concatenate([p.v for p in parts]),
        np.concatenate([p.tx for p in parts]),
        flags,
    )


# --- several attributes --------------------------------------------------------------------------


def _match_attributes(
    ctx: Context, db: Database, attrs: list[Keyword], bound: Relation, terms: list[Term]
) -> Relation:
    """Join ``bound`` with the facts of many attributes, the attribute itself a column."""
    attr = terms[_A]
    parts: list[Relation] = []
    names = [term.name for term in terms if isinstance(term, Var)]
    seed_names = [name for name in dict.fromkeys(names) if name in bound.columns]
    seed = bound.project(seed_names) if seed_names else UNIT
    attr_bound = isinstance(attr, Var) and attr.name in bound.columns
    for keyword in attrs:
        part_seed = seed
        if attr_bound:
            assert isinstance(attr, Var)
            one = Relation({attr.name: column_of([keyword], db.pool)}, 1)
            part_seed = seed.matching(one)
            if not part_seed.count:
                continue
        plain = list(terms)
        plain[_A] = Const(keyword)
        resolved, plain, hidden = _resolve_refs(ctx, db, part_seed, plain)
        part = _match_attribute(ctx, db, keyword, resolved, plain)
        if hidden:
            part = part.project([n for n in part.columns if n not in hidden], distinct=False)
        if not part.count:
            continue
        if isinstance(attr, Var):
            code = db.pool.code(keyword)
            column = Column("code", db.pool, np.full(part.count, code, dtype=np.int64))
            if attr.name in part.columns and not attr_bound:
                left, right = aligned(part.columns[attr.name], column)
                part = part.take(left == right)
            part = part.with_column(attr.name, column)
        parts.append(part)
        ctx.tick(part.count)
    out = list(dict.fromkeys([*seed_names, *names]))
    if not parts:
        return _nothing(ctx, bound, terms)
    if not out:
        return bound
    columns = {name: united([part.columns[name] for part in parts], ctx.pool) for name in out}
    found = Relation(columns, sum(part.count for part in parts)).distinct()
    return bound.join(found) if seed_names or bound.columns else found


# --- collections ---------------------------------------------------------------------------------


def _match_rows(ctx: Context, source: Rows, pattern: Pattern) -> Relation:
    """The rows of a collection that a pattern matches by position."""
    names = pattern_vars(pattern)
    places: dict[str, list[int]] = {}
    constants: list[tuple[int, Any]] = []
    for spot, term in enumerate(pattern.terms):
        if isinstance(term, Var):
            places.setdefault(term.name, []).append(spot)
        elif isinstance(term, Const):
            constants.append((spot, value_key(term.value)))
    found: list[list[Any]] = [[] for _ in names]
    hits = 0
    for row in source.rows:
        size = len(row)
        if any(spot >= size or value_key(row[spot]) != key for spot, key in constants):
            continue
        picked = []
        for name in names:
            spots = places[name]
            value = row[spots[0]] if spots[0] < size else None
            if any(value_key(row[s] if s < size else None) != value_key(value) for s in spots[1:]):
                break
            picked.append(value)
        else:
            hits += 1
            for column, value in zip(found, picked, strict=True):
                column.append(value)
    if not names:
        return UNIT if hits else NOTHING
    ctx.tick(hits)
    columns = {name: column_of(values, ctx.pool) for name, values in zip(names, found, strict=True)}
    return Relation(columns, hits).distinct()

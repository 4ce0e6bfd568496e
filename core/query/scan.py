"""Data patterns: from ``[e a v tx op]`` to a relation, by index.

A pattern is evaluated against what is bound already: a constant or a bound variable in the entity
or value position turns a scan into index lookups or a merge with the sorted column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from natalog.core.database import Database
from natalog.core.errors import EntityError, EntityIdMissing, QueryWhere
from natalog.core.index.encoding import Kind, find
from natalog.core.index.pool import Ints
from natalog.core.index.window import Facts
from natalog.core.limits import LONG_MAX, LONG_MIN
from natalog.core.query.ast import Blank, Const, Pattern, Term, Var
from natalog.core.query.column import Column, aligned, column_of, united
from natalog.core.query.context import Context, Rows
from natalog.core.query.keys import ascends, distinct, first_of_each, matches, numbered
from natalog.core.query.relation import NOTHING, UNIT, Relation, empty
from natalog.core.values import Keyword, as_keyword, value_key

_FEW = 32  # distinct entities up to which lookups in the tree beat a merge with the flat column
_E, _A, _V, _TX, _OP = range(5)
_IDS = (_E, _TX)
_IDS_AND_VALUE = (_E, _V, _TX)

Terms = tuple[Term, ...]
"""Five terms of a pattern."""


def match_pattern(ctx: Context, pattern: Pattern, bound: Relation) -> Relation:
    """The join of ``bound`` with the facts (or rows) that a pattern matches."""
    source = ctx.source(pattern.source)
    if isinstance(source, Rows):
        return bound.join(_match_rows(ctx, source, pattern))
    terms: Terms = pattern.full
    hidden: list[str] = []
    if _names_entities(source, dict.fromkeys(bound.columns, bound), terms):
        bound, terms, hidden = _resolve_refs(ctx, source, bound, terms)
    if not bound.count:
        kept = [name for name in bound.columns if name not in hidden]
        return empty(dict.fromkeys([*kept, *pattern.names]), ctx.pool)
    attr = terms[_A]
    if isinstance(attr, Const) and isinstance(attr.value, Keyword):
        found = _match_attribute(ctx, source, attr.value, bound, terms)
    else:
        found = _match_attributes(ctx, source, bound, terms)
    if hidden:
        found = found.project([n for n in found.columns if n not in hidden], distinct=False)
    return found


# --- lookup refs and idents in variables ---------------------------------------------------------


def is_plain(ctx: Context, pattern: Pattern, owners: Mapping[str, Relation]) -> bool:
    """Whether matching a pattern resolves nothing that could turn out to be missing."""
    source = ctx.sources.get(pattern.source)
    return isinstance(source, Database) and not _names_entities(source, owners, pattern.full)


def _names_entities(db: Database, owners: Mapping[str, Relation], terms: Terms) -> bool:
    """Whether a term may name an entity or attribute by anything but its id or keyword.

    ``owners``: the relation of each bound variable.
    """
    attr = terms[_A]
    spots: tuple[int, ...] = _IDS
    if isinstance(attr, Const):
        if not isinstance(attr.value, Keyword):
            return True
        declared = db.schema.get(attr.value)
        if declared is not None and declared.is_ref:
            spots = _IDS_AND_VALUE
    for spot in spots:
        term = terms[spot]
        if isinstance(term, Const):
            if not isinstance(term.value, int):
                return True
        elif isinstance(term, Var):
            owner = owners.get(term.name)
            if owner is not None and owner.columns[term.name].kind == "code":
                return True
    return False


def _resolve_refs(
    ctx: Context, db: Database, bound: Relation, given: Terms
) -> tuple[Relation, Terms, list[str]]:
    """Turn constants and bound values that name entities into ids.

    A variable keeps its value as written; the id goes into a hidden column.
    """
    terms = list(given)
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
    return bound, tuple(terms), hidden


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
    rows, numbers = numbered(column.data)
    values = column.take(rows).values()
    if not any(isinstance(value, (int, Keyword, list, tuple)) for value in values):
        return rows, None
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
        elif type(value) is int and LONG_MIN <= value <= LONG_MAX:
            found = value
        ids.append(-1 if found is None else found)
    table = np.array(ids, dtype=np.int64)[numbers]
    keep = (table != -1).nonzero()[0]
    return keep, table[keep]


# --- one attribute -------------------------------------------------------------------------------


class _Hits(NamedTuple):
    """Facts that may match.

    ``spots``: which of ``facts`` (None: all).  Where these are ``joined`` with the rows of what is
    bound, ``rows`` has the row for each (None: every row once).  ``single``: whether an entity (of
    a row, when joined) comes at most once; ``valued``: whether they have the constant value.
    """

    facts: Facts
    spots: Ints | None = None
    rows: Ints | None = None
    joined: bool = False
    single: bool = False
    valued: bool = False


def _match_attribute(
    ctx: Context, db: Database, attr: Keyword, bound: Relation, terms: Terms
) -> Relation:
    """Join ``bound`` with the facts of one attribute."""
    index = db.indexes.get(attr)
    hits = None if index is None else _fetch(db, attr, index.kind, bound, terms)
    if index is None or hits is None:
        return _nothing(ctx, bound, terms)
    facts, spots, rows, joined = hits.facts, hits.spots, hits.rows, hits.joined
    keep = _constants_hit(db, index.kind, hits, terms)
    if keep is False:
        return _nothing(ctx, bound, terms)
    fresh: dict[str, int] = {}
    for spot, term in enumerate(terms):
        if not isinstance(term, Var) or spot == _A or (joined and spot == _E):
            continue
        if term.name in fresh:
            other = _column_at(db, index.kind, facts, spots, fresh[term.name])
        elif joined and term.name in bound.columns:
            other = bound.columns[term.name]
            if rows is not None:
                other = other.take(rows)
        else:
            fresh[term.name] = spot
            continue
        left, right = aligned(other, _column_at(db, index.kind, facts, spots, spot))
        keep = _and(keep, left == right)
    if keep is not None and not keep.all():
        picked = keep.nonzero()[0]
        spots = picked if spots is None else spots[picked]
        if joined:
            rows = picked if rows is None else rows[picked]
    columns = {name: _column_at(db, index.kind, facts, spots, spot) for name, spot in fresh.items()}
    count = len(facts.e) if spots is None else len(spots)
    if joined:
        kept = bound.columns
        if rows is not None:
            kept = {name: column.take(rows) for name, column in kept.items()}
        key = bound.key
        if key is not None and not hits.single:
            own = _fact_key(db, terms)
            key = None if own is None else key | own
        return Relation({**kept, **columns}, count, key)
    if not columns:
        return bound if count else bound.none()
    if hits.single and not isinstance(terms[_E], Blank):
        entity = terms[_E]
        found = Relation(
            columns, count, frozenset({entity.name} if isinstance(entity, Var) else ())
        )
    else:
        found = Relation(columns, count, _fact_key(db, terms)).distinct()
    return bound.join(found) if bound.columns else found


def _fact_key(db: Database, terms: Terms) -> frozenset[str] | None:
    """The variables of a pattern that tell facts apart; None where a blank hides what does."""
    deciding = (_E, _V) if db.is_current else (_E, _V, _TX, _OP)
    if any(isinstance(terms[spot], Blank) for spot in deciding):
        return None
    return frozenset(term.name for term in terms if isinstance(term, Var))


def _nothing(ctx: Context, bound: Relation, terms: Terms) -> Relation:
    """No rows, with the variables that a match would have."""
    names = [term.name for term in terms if isinstance(term, Var)]
    return empty(dict.fromkeys([*bound.columns, *names]), ctx.pool)


def _and(mask: Any, hit: Any) -> Any:
    return hit if mask is None else mask & hit


def _constants_hit(db: Database, kind: Kind, hits: _Hits, terms: Terms) -> Any:
    """A mask of the facts that agree with the constants: None for all of them, False for none."""
    keep: Any = None
    facts, spots = hits.facts, hits.spots
    value, tx, op = terms[_V], terms[_TX], terms[_OP]
    if isinstance(value, Const) and not hits.valued:
        entry = find(value.value, kind, db.pool)
        if entry is None:
            return False
        keep = (facts.v if spots is None else facts.v.take(spots)) == entry
    if isinstance(tx, Const):
        if type(tx.value) is not int or not LONG_MIN <= tx.value <= LONG_MAX:
            return False
        keep = _and(keep, (facts.tx if spots is None else facts.tx[spots]) == tx.value)
    if isinstance(op, Const):
        if type(op.value) is not bool or (facts.added is None and not op.value):
            return False
        if facts.added is not None:
            added = facts.added if spots is None else facts.added[spots]
            keep = _and(keep, added == op.value)
    return keep


def _column_at(db: Database, kind: Kind, facts: Facts, spots: Ints | None, spot: int) -> Column:
    """Entities, values, transactions or operations of the facts at ``spots``."""
    if spot == _OP:
        if facts.added is None:
            count = len(facts.e) if spots is None else len(spots)
            return Column("boolean", db.pool, np.ones(count, np.int64))
        data = facts.added.astype(np.int64)
        kind = "boolean"
    elif spot == _V:
        data = facts.v
    else:
        data = facts.e if spot == _E else facts.tx
        kind = "long"
    return Column(kind, db.pool, data if spots is None else data.take(spots))


def _fetch(db: Database, attr: Keyword, kind: Any, bound: Relation, terms: Terms) -> _Hits | None:
    """Facts that may match, by the most selective of what is known; None where none can."""
    first, value = terms[_E], terms[_V]
    if isinstance(first, Const):
        if type(first.value) is not int or not LONG_MIN <= first.value <= LONG_MAX:
            return None
        facts = db.scan_entity(attr, first.value)
        return _Hits(facts, single=len(facts.e) < 2)
    if isinstance(first, Var):
        column = bound.columns.get(first.name)
        if column is not None:
            if column.kind == "long":
                return _by_entities(db, attr, column.data)
            return _all(db, attr)
    if isinstance(value, Const):
        entry = find(value.value, kind, db.pool)
        if entry is None:
            return None
        facts = db.scan_value(attr, entry)
        return _Hits(facts, single=db.is_current or ascends(facts.e), valued=True)
    if isinstance(value, Var):
        column = bound.columns.get(value.name)
        if column is not None and db.indexes[attr].avet is not None:
            few = column
            if len(few.data) > 1:
                first_ones = first_of_each(few.data)
                few = few if first_ones is None else few.take(first_ones)
            if len(few.data) <= _FEW:
                entries = _entries(db, kind, few)
                return _Hits(_concatenated([db.scan_value(attr, entry) for entry in entries]))
    return _all(db, attr)


def _entries(db: Database, kind: Kind, column: Column) -> list[int]:
    """The values of a column as entries of an attribute; those that it cannot have are left out."""
    if column.kind == kind and (kind != "code" or column.pool is db.pool):
        entries: list[int] = column.data.tolist()
        return entries
    found = [find(value, kind, db.pool) for value in column.values()]
    return [entry for entry in found if entry is not None]


def _all(db: Database, attr: Keyword) -> _Hits:
    return _Hits(db.scan(attr), single=db.places(attr).single)


def _by_entities(db: Database, attr: Keyword, entities: Ints) -> _Hits:
    """The facts of many entities, each with the number of the entity that it belongs to."""
    count = len(entities)
    if count <= _FEW and not (count > 1 and db.is_scanned(attr)):
        parts = [db.scan_entity(attr, e) for e in entities.tolist()]
        sizes = [len(part.e) for part in parts]
        rows = None if sizes == [1] * count else np.repeat(np.arange(count), sizes)
        single = max(sizes, default=0) < 2
        return _Hits(_concatenated(parts), None, rows, joined=True, single=single)
    facts = db.scan(attr)
    places = db.places(attr)
    if places.single:
        rows, spots = places.of(entities)
        return _Hits(facts, spots, rows, joined=True, single=True)
    rows, spots = matches(entities, facts.e, right_sorted=True)
    return _Hits(facts, spots, rows, joined=True)


def _concatenated(parts: list[Facts]) -> Facts:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Facts(_NONE, _NONE, _NONE, None)
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


_NONE: Ints = np.empty(0, dtype=np.int64)

# --- several attributes --------------------------------------------------------------------------


def _attributes(db: Database, bound: Relation, terms: Terms) -> list[Keyword]:
    """The attributes that a pattern can match."""
    attr = terms[_A]
    if isinstance(attr, Const):
        return [attr.value] if isinstance(attr.value, Keyword) else []
    if isinstance(attr, Var) and attr.name in bound.columns:
        column = bound.columns[attr.name]
        seen = column._replace(data=distinct(column.data)).values()
        return [value for value in seen if isinstance(value, Keyword) and value in db.indexes]
    first = terms[_E]
    entities: list[int] | None = None
    if isinstance(first, Const):
        entities = [first.value] if isinstance(first.value, int) else []
    elif isinstance(first, Var) and first.name in bound.columns:
        column = bound.columns[first.name]
        if column.kind != "long":
            return []
        found = distinct(column.data)
        entities = found.tolist() if len(found) <= _FEW else None
    if entities is None:
        return list(db.indexes)
    codes = {code for e in entities for code in db.entities.seconds_of(e)}
    return [db.pool.values[code] for code in sorted(codes)]


def _match_attributes(ctx: Context, db: Database, bound: Relation, terms: Terms) -> Relation:
    """Join ``bound`` with the facts of many attributes, the attribute itself a column."""
    attrs = _attributes(db, bound, terms)
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
        plain: Terms = (*terms[:_A], Const(keyword), *terms[_A + 1 :])
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
    names = pattern.names
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

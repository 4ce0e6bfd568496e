"""Raw index access: datoms, seek, reverse seek and index range, on any view.

EAVT is made on demand from the per-attribute indexes and the directory of entities; attributes
order by keyword and values as `natalog.core.values.sort_key` says.  Seeks run to the end of the
index, in pieces, so that a limit costs what it returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from natalog.core.errors import EntityIdSyntax, IndexError_, TransactSchema
from natalog.core.index.encoding import decode, decode_one, find, order_of
from natalog.core.index.leaves import Fence
from natalog.core.index.window import CURRENT, Facts, select
from natalog.core.limits import LONG_MAX
from natalog.core.shown import shown
from natalog.core.values import Datom, Keyword, as_keyword, sort_key

if TYPE_CHECKING:
    from natalog.core.database import Database

_INDEXES = ("eavt", "aevt", "avet")
_new: Final = tuple.__new__


def datoms(
    db: Database, index: str, components: Sequence[Any] = (), limit: int | None = None
) -> list[Datom]:
    """The datoms of ``"eavt"``, ``"aevt"`` or ``"avet"`` that begin with ``components``."""
    shape = type(components)
    if (shape is tuple or shape is list) and len(components) == 2 and limit is None:
        # one fact of an entity, or of a unique value: most reads of an index, a microsecond each
        first, second = components
        if index == "eavt" and type(first) is int and db.window is CURRENT:
            table = db.indexes.get(second) if type(second) is Keyword else None
            if table is not None and db.schema.get(second) is not None:
                kind, one = table.kind, table.aevt.one_of(first)
                if one is None:
                    found = table.aevt.open_of(first)
                    if not found:
                        return []
                    one = found[0] if len(found) == 1 else None
                if one is not None:
                    entry, tx = one
                    value = (
                        db.pool.value(entry) if kind == "code" else decode_one(entry, kind, db.pool)
                    )
                    return [_new(Datom, (first, second, value, tx, True))]
        elif index == "avet" and type(first) is Keyword and db.window is CURRENT:
            entity = _only_holder(db, first, second)
            if entity is not None:
                e, tx = entity
                return [_new(Datom, (e, first, second, tx, True))]
    name, parts = _prepare(db, index, components)
    return _limited(_matching(db, name, parts), limit)


def _only_holder(db: Database, attr: Keyword, value: Any) -> Fence | None:
    """The entity that alone has a value of a class that is stored as it is, and since when."""
    table, declared = db.indexes.get(attr), db.schema.get(attr)
    if table is None or table.avet is None or declared is None:
        return None
    if type(value) is int and table.kind == "long":
        entry = value
    elif type(value) is str and declared.value_type == "string":
        entry = db.pool.find(value)
    else:
        return None
    one = table.avet.one_of(entry)
    if one is None:
        found = table.avet.open_of(entry)
        one = found[0] if len(found) == 1 else None
    return one


def seek_datoms(
    db: Database, index: str, components: Sequence[Any] = (), limit: int | None = None
) -> list[Datom]:
    """The datoms from the position of ``components`` to the end of the index."""
    name, parts = _prepare(db, index, components)
    low = _position_key(name, parts)
    run = _run(db, name, parts)
    return _limited((d for d in run if _key(name, d)[: len(low)] >= low), limit)


def rseek_datoms(
    db: Database, index: str, components: Sequence[Any] = (), limit: int | None = None
) -> list[Datom]:
    """The datoms from the position of ``components`` to the start of the index, descending."""
    name, parts = _prepare(db, index, components)
    high = _position_key(name, parts)
    found = [d for d in _run(db, name, ()) if _key(name, d)[: len(high)] <= high]
    found.reverse()
    return _limited(found, limit)


def index_range(
    db: Database, attr: Any, start: Any = None, end: Any = None, limit: int | None = None
) -> list[Datom]:
    """The datoms of an indexed attribute with values from ``start`` to ``end``, inclusive."""
    keyword = _attribute(db, attr)
    declared = db.schema.get(keyword)
    if declared is None or not declared.has_avet:
        raise IndexError_(
            f"The attribute {keyword} is not indexed; :db/index true makes it so.",
            attribute=str(keyword),
        )
    low = None if start is None else sort_key(_value(db, keyword, start))
    high = None if end is None else sort_key(_value(db, keyword, end))
    found = _attribute_datoms(db, keyword, db.scan(keyword), by_value=True)
    inside = (
        d
        for d in found
        if (low is None or sort_key(d.v) >= low) and (high is None or sort_key(d.v) <= high)
    )
    return _limited(inside, limit)


def _limited(found: Iterable[Datom], limit: int | None) -> list[Datom]:
    if limit is None or limit < 0:
        return list(found)
    return list(islice(found, limit))


# --- components ----------------------------------------------------------------------------------


def _prepare(db: Database, index: str, components: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The index name and the components in its order, ids and attributes resolved."""
    name = str(index).lstrip(":").lower()
    if name not in _INDEXES:
        raise IndexError_(
            f"There is no index {index}; there are {', '.join(_INDEXES)}.", index=str(index)
        )
    if not isinstance(components, (list, tuple)):
        raise IndexError_(f"Components come as a list, not {shown(components)}.")
    given = list(components)
    while given and given[-1] is None:
        given.pop()
    if len(given) > 4:
        raise IndexError_(f"An index has four components, not {len(given)}.", count=len(given))
    if any(part is None for part in given):
        raise IndexError_("Only the last components of an index position may be left out.")
    parts: list[Any] = []
    attr: Keyword | None = None
    for letter, part in zip(name, given, strict=False):
        if letter == "a":
            attr = _attribute(db, part)
            parts.append(attr)
        elif letter == "e":
            parts.append(db.entid_strict(part))
        elif letter == "v":
            parts.append(_value(db, attr, part))
        else:
            if isinstance(part, bool) or not isinstance(part, int):
                raise IndexError_(f"{shown(part)} is no transaction id.", tx=shown(part))
            parts.append(part)
    return name, tuple(parts)


def _attribute(db: Database, name: Any) -> Keyword:
    attr = as_keyword(name)
    if isinstance(attr, int) and not isinstance(attr, bool):
        attr = db.schema.ident_of(attr)
    if not isinstance(attr, Keyword):
        raise EntityIdSyntax(f"{shown(name)} is no attribute.", attribute=shown(name))
    if db.schema.get(attr) is None and db.config.schema_flexibility == "write":
        raise TransactSchema(f"The attribute {attr} is not declared.", attribute=str(attr))
    return attr


def _value(db: Database, attr: Keyword | None, value: Any) -> Any:
    declared = db.schema.get(attr) if attr is not None else None
    if declared is not None and declared.is_ref and not isinstance(value, int):
        return db.entid_strict(value)
    if declared is not None and declared.value_type == "keyword":
        return as_keyword(value)
    return tuple(value) if isinstance(value, list) else value


# --- reading -------------------------------------------------------------------------------------


def _matching(db: Database, name: str, parts: tuple[Any, ...]) -> Iterator[Datom]:
    """The datoms that begin with ``parts``."""
    if name == "eavt":
        if not parts:
            yield from _run(db, name, ())
            return
        e = parts[0]
        attrs = db.attributes_of(e) if len(parts) == 1 else [parts[1]]
        for attr in attrs:
            yield from _filtered(_attribute_datoms(db, attr, db.scan_entity(attr, e)), parts[2:])
        return
    if not parts:
        yield from _run(db, name, ())
        return
    attr = parts[0]
    if name == "aevt":
        facts = db.scan_entity(attr, parts[1]) if len(parts) > 1 else db.scan(attr)
        yield from _filtered(_attribute_datoms(db, attr, facts), parts[2:])
        return
    if not _in_avet(db, attr):
        return
    if len(parts) == 1:
        yield from _attribute_datoms(db, attr, db.scan(attr), by_value=True)
        return
    entry = find(parts[1], db.kind(attr), db.pool)
    if entry is None:
        return
    found = _attribute_datoms(db, attr, db.scan_value(attr, entry), by_value=True)
    for datom in found:
        if len(parts) < 3 or (datom.e == parts[2] and (len(parts) < 4 or datom.tx == parts[3])):
            yield datom


def _filtered(found: Iterable[Datom], rest: tuple[Any, ...]) -> Iterator[Datom]:
    """Those whose value and transaction are ``rest``."""
    if not rest:
        yield from found
        return
    wanted = sort_key(rest[0])
    for datom in found:
        if sort_key(datom.v) == wanted and (len(rest) < 2 or datom.tx == rest[1]):
            yield datom


def _in_avet(db: Database, attr: Keyword) -> bool:
    index = db.indexes.get(attr)
    return index is not None and index.avet is not None


def _run(db: Database, name: str, parts: tuple[Any, ...]) -> Iterator[Datom]:
    """The datoms of an index from the first component of ``parts`` on, in order."""
    if name == "eavt":
        yield from _entities_from(db, parts[0] if parts else None)
        return
    attrs = sorted(db.indexes)
    for attr in attrs:
        if parts and attr.sort < parts[0].sort:
            continue
        if name == "avet":
            if _in_avet(db, attr):
                yield from _attribute_datoms(db, attr, db.scan(attr), by_value=True)
        else:
            yield from _attribute_datoms(db, attr, db.scan(attr))


def _entities_from(db: Database, first: int | None) -> Iterator[Datom]:
    """EAVT from an entity on, a piece of the entity directory at a time."""
    low = -(LONG_MAX) if first is None else first
    for pairs in db.entities.from_key((low,)):
        start, end = int(pairs[0, 0]), int(pairs[0, -1])
        if start < low:  # its attributes of the piece before were read there
            start = low
        if start > end:
            continue
        low = end + 1
        yield from _entity_range(db, start, end)


def _entity_range(db: Database, start: int, end: int) -> list[Datom]:
    codes = np.unique(db.entities.between((start,), (end,))[1])
    attrs = sorted(db.pool.decode(codes).tolist())
    entities, values, txs, flags, attr_ranks, value_ranks = [], [], [], [], [], []
    window = db._effective_window()
    instants = db._instants_for(window)
    for rank, attr in enumerate(attrs):
        index = db.indexes[attr]
        rows = index.aevt.between((start,), (end,))
        facts = db._select(attr, rows) if not db.is_current else select(rows, window, instants)
        count = len(facts.e)
        if not count:
            continue
        entities.append(facts.e)
        txs.append(facts.tx)
        flags.append(np.ones(count, np.bool_) if facts.added is None else facts.added)
        attr_ranks.append(np.full(count, rank))
        value_ranks.append(order_of(facts.v, index.kind, db.pool))
        values.extend(decode(facts.v, index.kind, db.pool))
    if not entities:
        return []
    es, ts, added = np.concatenate(entities), np.concatenate(txs), np.concatenate(flags)
    ranks, orders = np.concatenate(attr_ranks), np.concatenate(value_ranks)
    order = np.lexsort((~added, ts, orders, ranks, es))
    e_list, t_list, f_list = es[order].tolist(), ts[order].tolist(), added[order].tolist()
    r_list = ranks[order].tolist()
    return [
        Datom(e, attrs[r], values[spot], t, f)
        for e, r, spot, t, f in zip(e_list, r_list, order.tolist(), t_list, f_list, strict=True)
    ]


def _attribute_datoms(
    db: Database, attr: Keyword, facts: Facts, *, by_value: bool = False
) -> list[Datom]:
    """Datoms of one attribute in AEVT order, or in AVET order."""
    count = len(facts.e)
    if not count:
        return []
    kind = db.kind(attr)
    if count == 1:
        value = decode_one(int(facts.v[0]), kind, db.pool)
        flag = facts.added is None or bool(facts.added[0])
        return [Datom(int(facts.e[0]), attr, value, int(facts.tx[0]), flag)]
    added = np.ones(count, np.bool_) if facts.added is None else facts.added
    order_v = order_of(facts.v, kind, db.pool)
    keys = (
        (~added, facts.tx, facts.e, order_v) if by_value else (~added, facts.tx, order_v, facts.e)
    )
    order = np.lexsort(keys)
    values = decode(facts.v[order], kind, db.pool)
    return [
        Datom(e, attr, v, t, f)
        for e, v, t, f in zip(
            facts.e[order].tolist(),
            values,
            facts.tx[order].tolist(),
            added[order].tolist(),
            strict=True,
        )
    ]


# --- positions -----------------------------------------------------------------------------------


def _position_key(name: str, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        part.sort if letter == "a" else sort_key(part) if letter == "v" else part
        for letter, part in zip(name, parts, strict=False)
    )


def _key(name: str, datom: Datom) -> tuple[Any, ...]:
    a = datom.a.sort
    if name == "eavt":
        return (datom.e, a, sort_key(datom.v), datom.tx)
    if name == "aevt":
        return (a, datom.e, sort_key(datom.v), datom.tx)
    return (a, sort_key(datom.v), datom.e, datom.tx)

"""Raw index access: datoms, seek, reverse seek and index range, on any view.

EAVT is made on demand from the per-attribute indexes and the directory of entities; attributes
order by keyword and values as `natalog.core.values.sort_key` says.  Seeks run to the end of the
index, in pieces, so that a limit costs what it returns.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat, takewhile
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from natalog.core.errors import EntityIdSyntax, IndexError_, TransactSchema
from natalog.core.index.encoding import decode, decode_one, find, order_of
from natalog.core.index.leaves import Fence
from natalog.core.index.window import CURRENT, Facts, select
from natalog.core.limits import LONG_MAX, LONG_MIN
from natalog.core.shown import shown
from natalog.core.values import Datom, Keyword, as_keyword, sort_key

if TYPE_CHECKING:
    from natalog.core.database import Database
    from natalog.core.index.tree import RowTree

_INDEXES = ("eavt", "aevt", "avet")
_PIECE_ROWS_FIRST: Final = 32
_PIECE_ROWS_MAX: Final = 4_096
_new: Final = tuple.__new__


def datoms(
    db: Database, index: str, components: Sequence[Any] = (), limit: int | None = None
) -> list[Datom]:
    """The datoms of ``"eavt"``, ``"aevt"`` or ``"avet"`` that begin with ``components``."""
    if limit is None and type(components) is tuple and db.window is CURRENT:
        # One fact of an entity or of a unique number, as most reads of an index want.  This is
        # `RowTree.one_of` and what leads there, written out: each call that it spares costs as much
        # as a search does, and together they took a third of the time.
        tree: RowTree | None = None
        try:
            if index == "eavt":
                key, attr = components
                table = db.indexes[attr]
                tree = table.aevt
            elif index == "avet":
                attr, key = components
                table = db.indexes[attr]
                tree = table.avet if table.kind == "long" else None
        except (KeyError, TypeError, ValueError):
            pass
        if tree is not None and type(key) is int and attr in db.schema.known:
            leaves, fences, block, tail, _ = tree._base
            if block is None and (tail is None or key not in tail.spots):
                number = bisect_left(fences.firsts or fences.first_columns(), key) - 1
                if number >= 0:
                    leaf = leaves[number]
                    plain = leaf.plain
                    if plain is not None:
                        cells, shift, size, last = plain
                        spot = key - shift
                        if spot < last:
                            leaf.hits += 1
                            entry, tx = cells[spot], cells[size + spot]
                            if index == "avet":
                                return [_new(Datom, (entry, attr, key, tx, True))]
                            kind = table.kind
                            if kind == "code":
                                entry = db.pool.values[entry]
                            elif kind != "long":
                                entry = decode_one(entry, kind, db.pool)
                            return [_new(Datom, (key, attr, entry, tx, True))]
    if limit is None:
        one = _only_one(db, index, components)
        if one is not None:
            return one
    name, parts = _prepare(db, index, components)
    return _limited(_matching(db, name, parts, limit is not None), limit)


def _only_one(db: Database, index: str, components: Sequence[Any]) -> list[Datom] | None:
    """The one datom of an entity and attribute, or none; or of the only holder of a value.

    None where it takes more to say.
    """
    shape = type(components)
    if (shape is not tuple and shape is not list) or len(components) != 2:
        return None
    first, second = components
    if index == "eavt" and type(first) is int:
        table = db.indexes.get(second) if type(second) is Keyword else None
        if table is not None and second in db.schema.known:
            one = table.aevt.one_of(first) if db.window is CURRENT else None
            if one is None:
                found = db.seen(table.aevt, first)
                if found is None or len(found) > 1:
                    return None
                if not found:
                    return []
                one = found[0]
            entry, tx = one
            return [_new(Datom, (first, second, decode_one(entry, table.kind, db.pool), tx, True))]
    elif index == "avet" and type(first) is Keyword:
        entity = _only_holder(db, first, second)
        if entity is not None:
            return [_new(Datom, (entity[0], first, second, entity[1], True))]
    return None


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
    one = table.avet.one_of(entry) if db.window is CURRENT else None
    if one is None:
        found = db.seen(table.avet, entry)
        one = found[0] if found is not None and len(found) == 1 else None
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
    run = _run(db, name, parts, back=True)
    return _limited((d for d in run if _key(name, d)[: len(high)] <= high), limit)


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
    at = () if start is None else (_value(db, keyword, start),)
    low = sort_key(at[0]) if at else None
    high = None if end is None else sort_key(_value(db, keyword, end))
    run: Iterator[Datom] = _by_value(db, keyword, at)
    if low is not None:
        run = (d for d in run if sort_key(d.v) >= low)
    if high is not None:
        run = takewhile(lambda d: sort_key(d.v) <= high, run)
    return _limited(run, limit)


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


def _matching(db: Database, name: str, parts: tuple[Any, ...], lazily: bool) -> Iterable[Datom]:
    """The datoms that begin with ``parts``; ``lazily``: not all of them will be asked for."""
    if not parts:
        return _run(db, name, ())
    if name == "eavt":
        return _of_entity(db, parts)
    attr = parts[0]
    if name == "aevt":
        if len(parts) > 1:
            found = _attribute_datoms(db, attr, db.scan_entity(attr, parts[1]))
            return _filtered(found, parts[2:])
        return _by_entity(db, attr) if lazily else _attribute_datoms(db, attr, db.scan(attr))
    if not _in_avet(db, attr):
        return ()
    if len(parts) == 1:
        if lazily:
            return _by_value(db, attr, ())
        return _attribute_datoms(db, attr, db.scan(attr), by_value=True)
    entry = find(parts[1], db.kind(attr), db.pool)
    if entry is None:
        return ()
    if lazily and not db._picks_latest(attr):
        same: Iterator[Datom] = _values_between(db, attr, (entry, *parts[2:3]), entry)
    else:
        same = iter(_attribute_datoms(db, attr, db.scan_value(attr, entry), by_value=True))
    if len(parts) == 2:
        return same
    return (d for d in same if d.e == parts[2] and (len(parts) < 4 or d.tx == parts[3]))


def _of_entity(db: Database, parts: tuple[Any, ...]) -> Iterator[Datom]:
    e = parts[0]
    for attr in db.attributes_of(e) if len(parts) == 1 else [parts[1]]:
        yield from _filtered(_attribute_datoms(db, attr, db.scan_entity(attr, e)), parts[2:])


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


def _run(db: Database, name: str, at: tuple[Any, ...], *, back: bool = False) -> Iterator[Datom]:
    """The datoms of an index from about ``at`` to its end, or back to its start, in order.

    At least those that are not before ``at``, read in pieces that begin small.
    """
    if name == "eavt":
        start = _edge(back) if not at else at[:1]
        for low, high in db.entities.spans(1, start, back=back):
            found = _entity_range(db, low[0], high[0])
            yield from reversed(found) if back else found
        return
    for attr in sorted(db.indexes, reverse=back):
        first = bool(at) and attr is at[0]
        if at and not first and (attr.sort < at[0].sort) is not back:
            continue
        inner = at[1:] if first else ()
        if name == "aevt":
            yield from _by_entity(db, attr, inner, back=back)
        elif _in_avet(db, attr):
            yield from _by_value(db, attr, inner, back=back)


def _edge(back: bool) -> tuple[int]:
    """A key before all others, or after them."""
    return (LONG_MAX if back else LONG_MIN,)


def _by_entity(
    db: Database, attr: Keyword, at: tuple[Any, ...] = (), *, back: bool = False
) -> Iterator[Datom]:
    """The datoms of an attribute in AEVT order, from entity ``at[0]`` on."""
    index = db.indexes.get(attr)
    if index is None:
        return
    for low, high in index.aevt.spans(1, at[:1] or _edge(back), back=back):
        found = _attribute_datoms(db, attr, db._select(attr, index.aevt.between(low, high)))
        yield from reversed(found) if back else found


def _by_value(
    db: Database, attr: Keyword, at: tuple[Any, ...] = (), *, back: bool = False
) -> Iterator[Datom]:
    """The datoms of an attribute in AVET order, from about value ``at[0]`` and entity ``at[1]``.

    The entries of a column order as values do, but for codes: these are ordered by their ranks,
    which takes a look at all of them.
    """
    kind = db.kind(attr)
    if kind == "code" or db._picks_latest(attr) or not _in_avet(db, attr):
        yield from _by_rank(db, attr, at, back=back)
        return
    entry = find(at[0], kind, db.pool) if at else None
    start = _edge(back) if entry is None else (entry, *at[1:2])
    yield from _values_between(db, attr, start, None, back=back)


def _values_between(
    db: Database, attr: Keyword, start: tuple[int, ...], end: int | None, *, back: bool = False
) -> Iterator[Datom]:
    """The datoms of AVET from a key of column entries to the last one of entry ``end``."""
    table = db.indexes[attr].avet
    assert table is not None
    window = db._effective_window()
    instants = db._instants_for(window)
    for low, high in table.spans(2, start, back=back):
        if end is not None:
            if low[0] != end:
                return
            high = min(high, (end, LONG_MAX - 1))
        facts = select(table.between(low, high), window, instants, by_value=True)
        found = _attribute_datoms(db, attr, facts, by_value=True)
        yield from reversed(found) if back else found


def _by_rank(
    db: Database, attr: Keyword, at: tuple[Any, ...], *, back: bool = False
) -> Iterator[Datom]:
    """`_by_value` where column entries do not order as their values do."""
    kind, pool = db.kind(attr), db.pool
    facts = db.scan(attr)
    # rows are in the order of entities and events, which equal ranks keep
    order = np.argsort(order_of(facts.v, kind, pool), kind="stable")
    if at:
        side = bisect_right if back else bisect_left
        spot = side(
            order,
            sort_key(at[0]),
            key=lambda row: sort_key(decode_one(int(facts.v[row]), kind, pool)),
        )
        order = order[:spot] if back else order[spot:]
    if back:
        order = order[::-1]
    size, done = _PIECE_ROWS_FIRST, 0
    while done < len(order):
        piece = order[done : done + size]
        added = None if facts.added is None else facts.added[piece]
        yield from _in_this_order(
            db, attr, Facts(facts.e[piece], facts.v[piece], facts.tx[piece], added)
        )
        done += size
        size = min(2 * size, _PIECE_ROWS_MAX)


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
    if facts.added is None and not by_value and (facts.e[1:] > facts.e[:-1]).all():
        return _in_this_order(db, attr, facts)  # nothing is to be ordered by value
    added = np.ones(count, np.bool_) if facts.added is None else facts.added
    order_v = order_of(facts.v, kind, db.pool)
    keys = (
        (~added, facts.tx, facts.e, order_v) if by_value else (~added, facts.tx, order_v, facts.e)
    )
    order = np.lexsort(keys)
    return _in_this_order(
        db, attr, Facts(facts.e[order], facts.v[order], facts.tx[order], added[order])
    )


def _in_this_order(db: Database, attr: Keyword, facts: Facts) -> list[Datom]:
    count = len(facts.e)
    values = decode(facts.v, db.kind(attr), db.pool)
    flags = repeat(True, count) if facts.added is None else facts.added.tolist()
    rows = zip(facts.e.tolist(), repeat(attr, count), values, facts.tx.tolist(), flags, strict=True)
    return list(map(Datom._make, rows))


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

"""Comparing database values, and reading transactions back from one.

`diff` tells which facts one value has and another lacks; `tx_range` lists what transactions did.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from natalog.core.database import Database
from natalog.core.errors import InvalidTimePoint, NoHistory, ViewRefused
from natalog.core.index.encoding import decode
from natalog.core.index.window import Facts, live_facts
from natalog.core.limits import TX_BASE
from natalog.core.query.column import Column, aligned
from natalog.core.query.keys import member, packed_pair
from natalog.core.values import Datom, Keyword, sort_key


class Diff(NamedTuple):
    """Facts that only the right value has (``added``) and only the left one (``removed``).

    A fact is an entity, an attribute and a value; transactions are not compared.  Facts come in
    EAVT order and keep the transaction of the value they come from.
    """

    added: list[Datom]
    removed: list[Datom]


class Transaction(NamedTuple):
    """What one transaction did: its id, its instant in milliseconds, its datoms in EAVT order."""

    tx: int
    instant_ms: int | None
    datoms: list[Datom]


def diff(left: Database, right: Database) -> Diff:
    """What must be added to and removed from ``left`` to get the facts of ``right``.

    Looks only at those leaves of the indexes that the two values do not share, as a branch and its
    origin share most.  Raises `ViewRefused` for history, which has no facts but events.
    """
    if left.is_history or right.is_history:
        raise ViewRefused("History shows events; compare states.", view="history")
    added: list[Datom] = []
    removed: list[Datom] = []
    for attr in {**left.indexes, **right.indexes}:
        if left.window == right.window and _is_shared(left, right, attr):
            continue
        ours, others = _facts(left, right, attr)
        keys, other_keys = _keys(left, right, attr, ours, others)
        removed.extend(_datoms(left, attr, ours, ~member(keys, other_keys)))
        added.extend(_datoms(right, attr, others, ~member(other_keys, keys)))
    return Diff(sorted(added, key=_place), sorted(removed, key=_place))


def _is_shared(left: Database, right: Database, attr: Keyword) -> bool:
    return _are_alike(left, right, attr) and left.indexes[attr].aevt is right.indexes[attr].aevt


def _are_alike(left: Database, right: Database, attr: Keyword) -> bool:
    """Whether a leaf of both holds the same facts for both: one encoding, one meaning of codes."""
    mine, theirs = left.indexes.get(attr), right.indexes.get(attr)
    if mine is None or theirs is None or mine.kind != theirs.kind:
        return False
    return mine.kind != "code" or left.pool.root is right.pool.root


def _facts(left: Database, right: Database, attr: Keyword) -> tuple[Facts, Facts]:
    """Facts of both, without some that both have."""
    if left.is_current and right.is_current and _are_alike(left, right, attr):
        ours, others = left.indexes[attr].aevt.apart(right.indexes[attr].aevt)
        return live_facts(ours), live_facts(others)
    return left.scan(attr), right.scan(attr)


def _keys(left: Database, right: Database, attr: Keyword, one: Facts, two: Facts) -> Any:
    values = aligned(
        Column(left.kind(attr), left.pool, one.v), Column(right.kind(attr), right.pool, two.v)
    )
    return packed_pair([one.e, values[0]], [two.e, values[1]])


def _datoms(db: Database, attr: Keyword, facts: Facts, rows: Any) -> list[Datom]:
    values = decode(facts.v[rows], db.kind(attr), db.pool)
    entities, txs = facts.e[rows].tolist(), facts.tx[rows].tolist()
    return [Datom(e, attr, value, tx) for e, value, tx in zip(entities, values, txs, strict=True)]


def _place(datom: Datom) -> Any:
    return (datom.e, datom.a.sort, sort_key(datom.v), datom.tx, not datom.added)


def tx_range(db: Database, start: int | None = None, end: int | None = None) -> list[Transaction]:
    """The transactions from ``start`` (inclusive) to ``end`` (exclusive), ids or None for open.

    Retractions are included; purged facts are not there any more.  Raises `NoHistory`,
    `InvalidTimePoint`, and `ViewRefused` for a since view, which hides a part.
    """
    if not db.config.keep_history:
        raise NoHistory("tx_range is only allowed on a database that keeps history.")
    if db.window.after_tx is not None or db.window.after_ms is not None:
        raise ViewRefused("A since view hides transactions; name their range.", view="since")
    for point in (start, end):
        if point is not None and (type(point) is not int or point < TX_BASE):
            raise InvalidTimePoint(f"{point!r} is no transaction id.", point=repr(point))
    log = db.history()
    found: dict[int, list[Datom]] = {}
    for attr in log.indexes:
        facts = log.scan(attr)
        inside = np.ones(len(facts.tx), dtype=np.bool_)
        if start is not None:
            inside &= facts.tx >= start
        if end is not None:
            inside &= facts.tx < end
        if not inside.any():
            continue
        assert facts.added is not None
        values = decode(facts.v[inside], log.kind(attr), log.pool)
        rows = zip(
            facts.e[inside].tolist(),
            values,
            facts.tx[inside].tolist(),
            facts.added[inside].tolist(),
            strict=True,
        )
        for e, value, tx, added in rows:
            found.setdefault(tx, []).append(Datom(e, attr, value, tx, added))
    instants = db.instants()
    stamps = dict(zip(instants.txs.tolist(), instants.ms.tolist(), strict=True))
    return [Transaction(tx, stamps.get(tx), sorted(found[tx], key=_place)) for tx in sorted(found)]

"""Random transactions: the system and the list of datoms agree on every view."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from laws_data import (
    ENTITIES,
    FIRST_ENTITY,
    INDEXED,
    MANY,
    REFS,
    SCHEMA,
    START_MS,
    VALUES,
    built,
    histories,
    instant,
    through,
    tx_data,
    views,
)
from naive import INSTANT, Naive

from natalog.core.apply import apply_changes
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.transact import process
from natalog.core.values import Datom, sort_key, value_key


def keys(datoms: Any) -> list[Any]:
    return sorted(repr(value_key(tuple(datom))) for datom in datoms)


@given(histories)
def test_a_transaction_makes_the_datoms_that_its_operations_say(history):
    report = process(Database.empty(DatabaseConfig()), SCHEMA, None, now_ms=START_MS)
    db, naive = report.db_after, Naive(MANY | {INSTANT}).transact(report.datoms)
    start = [(("add", e, next(iter(VALUES)), "base")) for e in ENTITIES]
    for number, operations in enumerate([start, *(operations for operations, _ in history)]):
        report = process(db, tx_data(operations), None, now_ms=START_MS + number)
        mine = naive.expand(operations, report.tx)
        own = [d for d in report.datoms if d.e != report.tx]
        assert keys(net(own)) == keys(net(mine))
        db, naive = report.db_after, naive.transact(report.datoms)


def net(datoms: list[Datom]) -> list[Datom]:
    """The last word of a transaction on each fact, where it changes anything."""
    first: dict[Any, bool] = {}
    last: dict[Any, Datom] = {}
    for datom in datoms:
        key = value_key(tuple(datom[:3]))
        first.setdefault(key, datom.added)
        last[key] = datom
    return [datom for key, datom in last.items() if datom.added == first[key]]


@given(histories, views)
def test_every_view_shows_the_same_datoms(history, steps):
    db, naive = built(history)
    db, naive = through(db, steps, db.tx0), through(naive, steps, db.tx0)
    assert keys(db.datoms("eavt")) == keys(naive.datoms())
    assert keys(db.datoms("aevt")) == keys(naive.datoms())
    assert len(db) == len(naive.datoms())


@given(histories, views)
def test_every_view_answers_points_alike(history, steps):
    db, naive = built(history)
    db, naive = through(db, steps, db.tx0), through(naive, steps, db.tx0)
    for attr, values in VALUES.items():
        for e in ENTITIES:
            mine = naive.values(e, attr)
            assert list(map(value_key, db.values(e, attr))) == list(map(value_key, mine))
        for value in values:
            assert db.holders(attr, value) == naive.holders(attr, value)
    for e in (FIRST_ENTITY - 1, *ENTITIES):
        assert db.has_entity(e) == any(d.e == e for d in naive.datoms())
        mine = {(d.e, d.a) for d in naive.datoms() if d.a in REFS and d.v == e}
        assert set(db.referrers(e)) == mine


@given(histories, views)
def test_indexes_are_in_order(history, steps):
    db, naive = built(history)
    db, naive = through(db, steps, db.tx0), through(naive, steps, db.tx0)
    eavt = db.datoms("eavt")
    assert eavt == sorted(eavt, key=lambda d: (d.e, sort_key(d.a), sort_key(d.v), d.tx))
    for attr in VALUES:
        aevt = db.datoms("aevt", [attr])
        assert aevt == sorted(aevt, key=lambda d: (d.e, sort_key(d.v), d.tx))
        mine = [d for d in naive.datoms() if d.a is attr]
        assert keys(aevt) == keys(mine)
        if attr in INDEXED:
            avet = db.datoms("avet", [attr])
            assert avet == sorted(avet, key=lambda d: (sort_key(d.v), d.e, d.tx))
            assert keys(avet) == keys(mine)


@given(histories)
def test_applying_the_changes_again_gives_the_same_value(history):
    """A follower that replays the changes arrives where the transactor is."""
    leader = follower = Database.empty(DatabaseConfig())
    for number, (operations, step) in enumerate([(None, None), *history]):
        data = SCHEMA if operations is None else tx_data(operations)
        meta = None if step is None else {INSTANT: instant(step)}
        report = process(leader, data, meta, now_ms=START_MS + number)
        leader = report.db_after
        follower = apply_changes(follower, report.changes)
        assert keys(leader.history().datoms("eavt")) == keys(follower.history().datoms("eavt"))
    assert leader.max_eid == follower.max_eid
    assert leader.max_tx == follower.max_tx
    assert leader.instant_ms == follower.instant_ms
    assert leader.schema.read_out() == follower.schema.read_out()


@given(histories)
def test_an_old_value_never_changes(history):
    db, _ = built(history[:1])
    before = keys(db.history().datoms("eavt"))
    for number, (operations, _) in enumerate(history):
        process(db, tx_data(operations), None, now_ms=START_MS + 100 + number)
    assert keys(db.history().datoms("eavt")) == before


@given(histories)
def test_without_history_only_the_current_facts_are_kept(history):
    config = DatabaseConfig(keep_history=False)
    report = process(Database.empty(config), SCHEMA, None, now_ms=START_MS)
    db, naive = report.db_after, Naive(MANY).transact(report.datoms)
    for number, (operations, _) in enumerate(history):
        report = process(db, tx_data(operations), None, now_ms=START_MS + number)
        db, naive = report.db_after, naive.transact(report.datoms)
        assert keys(db.datoms("eavt")) == keys(naive.datoms())

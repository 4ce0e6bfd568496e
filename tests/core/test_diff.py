"""Differences between values, and transactions read back."""

from __future__ import annotations

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.diff import diff, tx_range
from natalog.core.errors import InvalidTimePoint, NoHistory, ViewRefused
from natalog.core.transact import process
from natalog.core.values import Datom, kw
from natalog.core.versioning import forked

A, B = kw("a"), kw("b")


def start() -> Database:
    db = Database.empty(DatabaseConfig(schema_flexibility="read"))
    return process(db, [{A: 1, B: "x"}, {A: 2}], now_ms=1).db_after


def test_a_value_does_not_differ_from_itself() -> None:
    db = start()
    assert diff(db, db) == ([], [])
    assert diff(db, db.as_of(db.max_tx)) == ([], [])


def test_applying_a_difference_leads_from_one_value_to_the_other() -> None:
    db = start()
    ours = process(db, [{kw("db/id"): 1, A: 5}], now_ms=2).db_after
    theirs = process(forked(db, 1), [[kw("db/retract"), 1, B, "x"], {B: "new"}], now_ms=2).db_after
    found = diff(ours, theirs)
    operations = [[kw("db/retract"), d.e, d.a, d.v] for d in found.removed if d.e < 2**40]
    operations += [[kw("db/add"), d.e, d.a, d.v] for d in found.added if d.e < 2**40]
    result = process(ours, operations, now_ms=9).db_after
    left = diff(result, theirs)
    assert all(d.a == kw("db/txInstant") for d in (*left.added, *left.removed))


def test_values_of_different_databases_compare_by_value() -> None:
    one = start()
    other = process(
        Database.empty(DatabaseConfig(schema_flexibility="read")),
        [{B: "x", A: 1}, {B: "y"}],
        now_ms=1,
    ).db_after
    found = diff(one, other)
    assert [(d.e, d.a, d.v) for d in found.removed] == [(2, A, 2)]
    assert [(d.e, d.a, d.v) for d in found.added] == [(2, B, "y")]


def test_history_is_refused() -> None:
    db = start()
    with pytest.raises(ViewRefused):
        diff(db.history(), db)
    with pytest.raises(ViewRefused):
        tx_range(db.since(db.max_tx))


def test_transactions_are_read_back_with_their_retractions() -> None:
    db = start()
    first = db.max_tx
    after = process(db, [{kw("db/id"): 1, A: 5}], now_ms=2).db_after
    found = tx_range(after)
    assert [transaction.tx for transaction in found] == [first, after.max_tx]
    assert [d for d in found[1].datoms if d.e == 1] == [
        Datom(1, A, 1, after.max_tx, False),
        Datom(1, A, 5, after.max_tx, True),
    ]
    assert [t.tx for t in tx_range(after, after.max_tx)] == [after.max_tx]
    assert [t.tx for t in tx_range(after, None, after.max_tx)] == [first]


def test_a_range_needs_history_and_transaction_ids() -> None:
    with pytest.raises(InvalidTimePoint):
        tx_range(start(), 5)
    plain = Database.empty(DatabaseConfig(keep_history=False))
    with pytest.raises(NoHistory):
        tx_range(plain)

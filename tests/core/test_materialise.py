"""Speculative transactions on views of the past."""

from __future__ import annotations

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.errors import ViewRefused
from natalog.core.transact import process
from natalog.core.values import kw

V = kw("v")


def three_versions() -> tuple[Database, list[int]]:
    db = Database.empty(DatabaseConfig(schema_flexibility="read"))
    txs = []
    for number in (1, 2, 3):
        report = process(db, [{kw("db/id"): 7, V: number}], now_ms=number * 1000)
        db = report.db_after
        txs.append(report.tx)
    return db, txs


def test_a_transaction_on_an_as_of_view_starts_from_the_past() -> None:
    db, txs = three_versions()
    report = process(db.as_of(txs[1]), [[kw("db/cas"), 7, V, 2, 9]], now_ms=9000)
    after = report.db_after
    after._check()
    assert after.values(7, V) == [9]
    assert [d.v for d in after.history().datoms("aevt", [V])] == [1, 1, 2, 2, 9]
    assert after.as_of(txs[0]).values(7, V) == [1]
    assert db.values(7, V) == [3]


def test_a_transaction_on_a_since_view_sees_only_what_came_after() -> None:
    db, txs = three_versions()
    report = process(db.since(txs[2]), [{kw("db/id"): 7, V: 4}], now_ms=9000)
    assert [(d.v, d.added) for d in report.datoms if d.a == V] == [(4, True)]


def test_history_is_no_state_to_transact_on() -> None:
    db, _ = three_versions()
    with pytest.raises(ViewRefused):
        process(db.history(), [{V: 1}], now_ms=1)

"""The transaction entity: its instant, its meta data, and that its time is immutable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import NatalogError, TransactSchema, TransactSyntax
from natalog.core.transact import TxReport, next_tx, process
from natalog.core.values import instant_ms, kw

SCHEMA = """
[{:db/ident :note :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
 {:db/ident :reason :db/valueType :db.type/string :db/cardinality :db.cardinality/many}
 {:db/ident :author :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}]
"""
INSTANT = kw("db/txInstant")
DAY = datetime(2030, 5, 1, tzinfo=UTC)


def make(**config: Any) -> Database:
    return process(Database.empty(DatabaseConfig(**config)), read(SCHEMA), now_ms=1000).db_after


DB = make()


def run(db: Database, text: str, meta: Any = None, now_ms: int = 1000) -> TxReport:
    return process(db, read(text), meta, now_ms=now_ms)


def test_the_instant_is_the_clocks_but_later_than_the_one_before() -> None:
    assert run(DB, "[]", now_ms=5000).instant_ms == 5000
    assert run(DB, "[]", now_ms=1000).instant_ms == 1001
    assert run(DB, "[]", now_ms=-7).instant_ms == 1001


def test_the_callers_instant_is_taken_and_only_the_previous_counts() -> None:
    past = run(DB, "[]", {INSTANT: datetime(1960, 1, 1, tzinfo=UTC)}, now_ms=5000)
    assert past.instant_ms == instant_ms(datetime(1960, 1, 1, tzinfo=UTC))
    assert run(past.db_after, "[]", now_ms=5000).instant_ms == 5000
    future = run(DB, "[]", {INSTANT: DAY}).db_after
    assert run(future, "[]", now_ms=5000).instant_ms == instant_ms(DAY) + 1


def test_instants_are_utc_and_have_milliseconds() -> None:
    elsewhere = timezone(timedelta(hours=2))
    meta = {"db/txInstant": datetime(2030, 5, 1, 2, 0, 0, 1999, tzinfo=elsewhere)}
    report = run(DB, "[]", meta)
    assert report.datoms[0].v == DAY + timedelta(milliseconds=1)
    assert report.tx_meta == {INSTANT: DAY + timedelta(milliseconds=1)}


@pytest.mark.parametrize("value", ["2001-01-01", 978307200000, datetime(2001, 1, 1), True])
def test_an_instant_must_be_one(value: Any) -> None:
    with pytest.raises(TransactSchema):
        run(DB, "[]", {INSTANT: value})
    with pytest.raises(TransactSyntax):
        run(DB, "[]", {INSTANT: None})


def test_text_is_an_instant_under_a_key_written_as_text() -> None:
    report = run(DB, "[]", {"db/txInstant": "2030-05-01T00:00:00Z"})
    assert report.instant_ms == instant_ms(DAY)


def test_meta_data_are_facts_of_the_transaction_after_its_instant() -> None:
    meta = {"note": "import", kw("reason"): ["a", "b"], "author": 1}
    report = run(DB, '[{:note "x"}]', meta)
    assert [(d.e == report.tx, d.a.text) for d in report.datoms] == [
        (True, "db/txInstant"),
        (True, "note"),
        (True, "reason"),
        (True, "reason"),
        (True, "author"),
        (False, "note"),
    ]
    assert report.tx_meta[kw("note")] == "import"


@pytest.mark.parametrize("meta", [{"nosuch": 1}, {"note": 5}, {"note": None}, {"db/ident": ":x"}])
def test_meta_data_obey_the_schema(meta: Any) -> None:
    with pytest.raises(NatalogError):
        run(DB, "[]", meta)


def test_meta_data_are_a_map() -> None:
    with pytest.raises(TransactSyntax):
        process(DB, [], [1], now_ms=0)  # type: ignore[arg-type]


def test_without_history_there_is_no_transaction_entity() -> None:
    db = make(keep_history=False)
    report = run(db, '[{:note "x"}]', {INSTANT: "ignored", "nosuch": 1})
    assert [d.a for d in report.datoms] == [kw("note")]
    assert report.instant_ms is None
    assert report.tx_meta == {}
    assert report.tempids == {kw("db/current-tx"): report.tx}


def test_the_current_instant_may_be_said_in_the_data() -> None:
    report = process(DB, [["db/add", "datomic.tx", INSTANT, DAY], {"note": "x"}], now_ms=5)
    assert report.instant_ms == instant_ms(DAY)
    assert [d.v for d in report.datoms if d.a is INSTANT] == [DAY]
    assert report.db_after.instant_ms == instant_ms(DAY)


def test_time_that_has_passed_cannot_be_rewritten() -> None:
    old = DB.max_tx
    at = DB.values(old, INSTANT)[0]
    for operation in (
        ["db/add", old, INSTANT, DAY],
        {"db/id": old, INSTANT: DAY},
        ["db/retract", old, INSTANT, at],
        ["db/retract", old, INSTANT],
        ["db/retractEntity", old],
        ["db.fn/retractAttribute", old, INSTANT],
        ["db/cas", old, INSTANT, at, DAY],
        ["db/add", 50, INSTANT, DAY],
        ["db/purge", old, INSTANT],
        ["db.purge/attribute", old, INSTANT],
        ["db.purge/entity", old],
        ["db/retract", "datomic.tx", INSTANT],
    ):
        with pytest.raises(NatalogError, match="txInstant"):
            process(DB, [operation], now_ms=0)


def test_other_facts_about_old_transactions_may_come_and_go() -> None:
    db = run(DB, f'[[:db/add {DB.max_tx} :note "checked"]]').db_after
    assert db.facts(DB.max_tx, kw("note")) == [("checked", db.max_tx)]
    assert (
        run(db, f"[[:db/retract {DB.max_tx} :note]]").db_after.values(DB.max_tx, kw("note")) == []
    )


def test_each_transaction_has_the_next_id() -> None:
    assert next_tx(DB) == DB.max_tx + 1
    assert run(DB, "[]").tx == DB.max_tx + 1
    assert process(DB, [], now_ms=0, tx=DB.max_tx + 9).tx == DB.max_tx + 9


def test_a_valid_time_window_must_not_be_empty() -> None:
    first, later = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
    ok = run(DB, "[]", {"db.valid/from": first, "db.valid/to": later})
    with pytest.raises(TransactSyntax, match="valid"):
        run(DB, "[]", {"db.valid/from": later, "db.valid/to": first})
    with pytest.raises(TransactSyntax, match="valid"):
        process(ok.db_after, [["db/add", ok.tx, "db.valid/to", first]], now_ms=0)

"""Purges: what they reach, what they leave, what they refuse."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import TransactError, TransactPurge, TransactSyntax
from natalog.core.transact import TxReport, process
from natalog.core.values import instant_ms, kw

SCHEMA = """
[{:db/id 1 :db/ident :mail :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/id 2 :db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/id 3 :db/ident :phone :db/valueType :db.type/string :db/cardinality :db.cardinality/many}
 {:db/id 4 :db/ident :boss :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
 {:db/id 5 :db/ident :part :db/valueType :db.type/ref :db/cardinality :db.cardinality/many
  :db/isComponent true}]
"""


def run(db: Database, text: str, now_ms: int = 0) -> TxReport:
    return process(db, read(text), now_ms=now_ms)


def past(db: Database, attr: str) -> list[tuple[int, Any, bool]]:
    """Everything that ever happened with an attribute."""
    return [(d.e, d.v, d.added) for d in db.history().datoms("aevt", [kw(attr)])]


def make(**config: Any) -> Database:
    db = run(Database.empty(DatabaseConfig(**config)), SCHEMA).db_after
    return run(
        db, '[{:db/id 10 :mail "i@x" :age 40 :phone ["1" "2"]} {:db/id 11 :boss 10}]'
    ).db_after


DB = run(make(), '[{:mail "i@x" :age 41} [:db/retract 10 :phone "1"]]').db_after


def test_purging_a_value_removes_its_past_and_its_retraction() -> None:
    report = run(DB, '[[:db/purge [:mail "i@x"] :phone "1"]]')
    assert past(report.db_after, "phone") == [(10, "2", True)]
    assert report.purged == 1
    assert [d.a.text for d in report.datoms] == ["db/txInstant"]


def test_purging_keeps_the_history_of_other_values() -> None:
    after = run(DB, "[[:db/purge 10 :age 41]]").db_after
    assert past(after, "age") == [(10, 40, True), (10, 40, False)]
    assert after.values(10, kw("age")) == []


def test_purging_without_a_value_removes_them_all() -> None:
    for text in ("[[:db/purge 10 :phone]]", "[[:db/purge 10 :phone nil]]",
                 "[[:db.purge/attribute 10 :phone]]"):  # fmt: skip
        report = run(DB, text)
        assert past(report.db_after, "phone") == []
        assert report.purged == 2


def test_purging_an_entity_takes_references_and_components() -> None:
    db = run(DB, "[{:db/id 10 :part {:db/id 20 :age 7 :part {:db/id 21 :age 8}}}]").db_after
    db = run(db, "[[:db/retract 11 :boss]]").db_after
    after = run(db, '[[:db.purge/entity [:mail "i@x"]]]').db_after
    for attr in ("mail", "age", "phone", "boss", "part"):
        assert past(after, attr) == []


def test_purging_an_attribute_takes_components() -> None:
    db = run(DB, "[{:db/id 10 :part {:db/id 20 :age 7}}]").db_after
    after = run(db, "[[:db.purge/attribute 10 :part]]").db_after
    assert past(after, "age") == [d for d in past(db, "age") if d[0] != 20]
    assert past(run(db, "[[:db/purge 10 :part]]").db_after, "age") == past(db, "age")


def test_a_retracted_entity_is_found_by_its_former_key() -> None:
    db = run(DB, '[[:db/retractEntity [:mail "i@x"]]]').db_after
    assert past(run(db, '[[:db.purge/entity [:mail "i@x"]]]').db_after, "mail") == []


def test_a_key_means_who_has_it_now_else_who_had_it_last() -> None:
    db = run(DB, '[[:db/add 10 :mail "old"] {:db/id 30 :mail "i@x" :age 9}]').db_after
    now = run(db, '[[:db.purge/attribute [:mail "i@x"] :age]]').db_after
    assert [d[0] for d in past(now, "age")] == [10, 10, 10]
    freed = run(db, "[[:db/retract 30 :mail]]").db_after
    last = run(freed, '[[:db.purge/attribute [:mail "i@x"] :age]]').db_after
    assert [d[0] for d in past(last, "age")] == [10, 10, 10]


def test_purging_what_is_not_there_is_no_error_but_a_missing_key_is() -> None:
    for text in ("[:db/purge 10 :age 99]", "[:db/purge 4711 :age 1]", "[:db.purge/entity 4711]",
                 "[:db.purge/attribute 4711 :age]", '[:db/purge 10 :age "x"]'):  # fmt: skip
        report = run(DB, f"[{text}]")
        assert report.purged == 0
        assert past(report.db_after, "age") == past(DB, "age")
    for text in ("[:db/purge {} :age 1]", "[:db.purge/attribute {} :age]", "[:db.purge/entity {}]"):
        for key in ('[:mail "nobody"]', ":no/such", "[:mail nil]"):
            with pytest.raises(TransactPurge):
                run(DB, f"[{text.format(key)}]")


@pytest.mark.parametrize(
    "text",
    [
        "[:db/purge 10]",
        "[:db.purge/attribute 10]",
        "[:db.purge/entity]",
        "[:db.history.purge/before]",
        "[:db.history.purge/before 5]",
        "[:db.history.purge/before nil]",
        "[:db.purge/entity nil]",
        "[:db.purge/entity 10 :age]",
        "[:db.purge/attribute 10 nil]",
        "[:db/purge 10 :_boss 5]",
    ],
)
def test_a_purge_with_a_missing_argument_is_refused(text: str) -> None:
    with pytest.raises(Exception) as caught:
        run(DB, f"[{text}]")
    assert isinstance(caught.value, TransactError) or "entity id" in str(caught.value)


def test_purges_need_history() -> None:
    db = make(keep_history=False)
    for text in (
        "[:db/purge 10 :age 40]",
        "[:db.purge/attribute 10 :age]",
        "[:db.purge/entity 10]",
        '[:db.history.purge/before #inst "2030-01-01"]',
    ):
        with pytest.raises(TransactPurge):
            run(db, f"[{text}]")


# --- in the middle of other operations -----------------------------------------------------------


def test_purge_and_say_again() -> None:
    report = run(DB, '[[:db.purge/entity 10] {:mail "i@x" :age 1}]')
    assert past(report.db_after, "mail") == [(12, "i@x", True)]
    same = run(DB, "[[:db/purge 10 :age] [:db/add 10 :age 41]]")
    assert past(same.db_after, "age") == [(10, 41, True)]


def test_what_was_said_before_a_purge_is_taken_back() -> None:
    report = run(DB, '[{:db/id 10 :age 42 :phone "3"} [:db.purge/entity 10] [:db/add 11 :age 5]]')
    assert [(d.e, d.v) for d in report.datoms if d.a is kw("age")] == [(11, 5)]
    assert past(report.db_after, "phone") == []
    report.db_after._check()


def test_new_facts_of_a_transaction_can_be_purged_by_it() -> None:
    report = run(DB, '[{:db/id "n" :mail "n@x" :age 1} [:db.purge/entity [:mail "n@x"]]]')
    assert [d.a.text for d in report.datoms] == ["db/txInstant"]


def test_an_attribute_in_use_cannot_be_purged() -> None:
    with pytest.raises(TransactError):
        run(DB, "[[:db.purge/entity :age]]")
    unused = run(DB, "[[:db/retract 11 :boss] [:db.purge/attribute 11 :boss]]").db_after
    assert run(unused, "[[:db.purge/entity :boss]]").db_after.schema.get(kw("boss")) is None


# --- old history ---------------------------------------------------------------------------------


def years() -> Database:
    db = run(Database.empty(), SCHEMA, now_ms=0).db_after
    for year, age in ((2001, 1), (2002, 2), (2003, 3)):
        at = instant_ms(datetime(year, 1, 1, tzinfo=UTC))
        db = run(db, f'[{{:mail "m" :age {age}}}]', now_ms=at).db_after
    return db


@pytest.mark.parametrize(
    ("year", "left"),
    [
        ("2000-06-01", [(1, True), (1, False), (2, True), (2, False), (3, True)]),
        ("2001-01-01", [(1, True), (1, False), (2, True), (2, False), (3, True)]),
        ("2001-06-01", [(2, True), (2, False), (3, True)]),
        ("2002-06-01", [(3, True)]),
        ("2030-01-01", [(3, True)]),
    ],
)
def test_old_history_goes_without_orphans_and_current_values_stay(
    year: str, left: list[tuple[int, bool]]
) -> None:
    after = run(years(), f'[[:db.history.purge/before #inst "{year}"]]').db_after
    assert [(v, added) for _, v, added in past(after, "age")] == left
    assert past(after, "mail") == [(6, "m", True)]
    assert len(past(after, "db/txInstant")) == 5


def test_old_history_takes_a_date_as_text_where_the_operation_is_text() -> None:
    report = process(years(), [["db.history.purge/before", "2002-06-01T00:00:00Z"]], now_ms=0)
    assert report.purged == 2
    with pytest.raises(TransactSyntax):
        process(years(), [["db.history.purge/before", "soon"]], now_ms=0)


# --- facts that ended long ago -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cutoff", "left"),
    [
        ("2002-01-01", [(1, True), (1, False), (2, True), (2, False), (3, True)]),
        ("2002-06-01", [(2, True), (2, False), (3, True)]),
        ("2030-01-01", [(3, True)]),
    ],
)
def test_facts_that_ended_before_an_instant_go(cutoff: str, left: list[tuple[int, bool]]) -> None:
    report = run(years(), f'[[:db.history.purge/ended #inst "{cutoff}" :age]]')
    assert [(v, added) for _, v, added in past(report.db_after, "age")] == left
    assert past(report.db_after, "mail") == [(6, "m", True)]
    report.db_after._check()


def test_a_fact_that_began_long_ago_and_ended_late_is_kept() -> None:
    db = run(Database.empty(), SCHEMA, now_ms=0).db_after
    for year, age in ((2001, 1), (2002, 2), (2003, 1), (2010, 3)):
        at = instant_ms(datetime(year, 1, 1, tzinfo=UTC))
        db = run(db, f'[{{:mail "m" :age {age}}}]', now_ms=at).db_after
    after = run(db, '[[:db.history.purge/ended #inst "2005" :age]]').db_after
    assert past(after, "age") == [(6, 1, True), (6, 1, False), (6, 3, True)]
    assert after.as_of(datetime(2004, 1, 1, tzinfo=UTC)).values(6, kw("age")) == [1]
    assert after.as_of(datetime(2002, 6, 1, tzinfo=UTC)).values(6, kw("age")) == []


def test_ended_facts_go_in_portions_and_with_their_composites() -> None:
    db = run(
        years(),
        "[{:db/ident :both :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one"
        " :db/tupleAttrs [:mail :age]}]",
        now_ms=instant_ms(datetime(2004, 1, 1, tzinfo=UTC)),
    ).db_after
    for year, age in ((2005, 5), (2006, 6)):
        at = instant_ms(datetime(year, 1, 1, tzinfo=UTC))
        db = run(db, f'[{{:mail "m" :age {age}}}]', now_ms=at).db_after
    counts = []
    while not counts or counts[-1]:
        report = run(db, '[[:db.history.purge/ended #inst "2030" :age 2]]')
        counts.append(report.purged)
        db = report.db_after
    assert sum(counts) == 5 and max(counts) == 2
    assert past(db, "age") == [(6, 6, True)]
    assert past(db, "both") == [(6, ("m", 6), True)]


@pytest.mark.parametrize(
    "text",
    ["[:db.history.purge/ended]", '[:db.history.purge/ended #inst "2020"]',
     "[:db.history.purge/ended 5 :age]", '[:db.history.purge/ended #inst "2020" :age 0]',
     '[:db.history.purge/ended #inst "2020" :_boss]'],
)  # fmt: skip
def test_a_purge_of_ended_facts_names_instant_and_attribute(text: str) -> None:
    with pytest.raises(TransactError):
        run(DB, f"[{text}]")


def test_a_composite_is_purged_itself_only_where_it_is_past() -> None:
    db = run(
        Database.empty(),
        "[{:db/id 1 :db/ident :a :db/valueType :db.type/string :db/noHistory true"
        "  :db/cardinality :db.cardinality/one}"
        " {:db/id 2 :db/ident :b :db/valueType :db.type/string :db/cardinality :db.cardinality/one}"
        " {:db/id 3 :db/ident :both :db/valueType :db.type/tuple :db/tupleAttrs [:a :b]"
        "  :db/cardinality :db.cardinality/one}]",
    ).db_after
    db = run(db, '[{:db/id 10 :a "old" :b "x"}]').db_after
    db = run(db, '[{:db/id 10 :a "new"}]').db_after
    with pytest.raises(TransactSyntax):
        run(db, '[[:db/purge 10 :both ["new" "x"]]]')
    with pytest.raises(TransactSyntax):
        run(db, "[[:db/purge 10 :both]]")
    after = run(db, '[[:db/purge 10 :both ["old" "x"]]]').db_after
    assert past(after, "both") == [(10, ("new", "x"), True)]

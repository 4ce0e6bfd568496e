"""Facts of another database: ids that are given anew, identities, order, what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import TransactSchema, TransactSyntax, TransactUnique, TransactUpsert
from natalog.core.limits import TX_BASE
from natalog.core.transact import TxReport, process
from natalog.core.values import Datom, Keyword, kw

SCHEMA = """
[{:db/id 1 :db/ident :email :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/id 2 :db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/id 3 :db/ident :tag :db/valueType :db.type/keyword :db/cardinality :db.cardinality/many}
 {:db/id 4 :db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
 {:db/id 5 :db/ident :pair :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one
  :db/tupleTypes [:db.type/ref :db.type/long]}
 {:db/id 6 :db/ident :both :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one
  :db/tupleAttrs [:email :age]}
 {:db/id 10 :email "ann" :age 1}]
"""
ANN = 10
T = 1 << 29


def base() -> Database:
    return process(Database.empty(DatabaseConfig()), read(SCHEMA), now_ms=0).db_after


def loaded(rows: Any, db: Database | None = None) -> TxReport:
    rows = read(rows) if isinstance(rows, str) else rows
    return process(db or base(), [[kw("db/load"), rows]], now_ms=0)


def fact(report: TxReport, old: int, attr: str) -> Any:
    return report.db_after.values(report.tempids[old], kw(attr))


def test_entities_get_new_ids_and_references_follow() -> None:
    report = loaded("[[1 :age 5] [1 :friend 3] [3 :age 7] [2 :pair [3 9]]]")
    assert report.tempids == {kw("db/current-tx"): report.tx, 1: 11, 3: 12, 2: 13}
    assert fact(report, 1, "friend") == [12]
    assert fact(report, 3, "age") == [7]
    assert fact(report, 2, "pair") == [(12, 9)]
    assert report.db_after.values(1, kw("db/ident")) == [kw("email")]


def test_a_reference_to_an_entity_without_facts_keeps_its_place() -> None:
    report = loaded("[[1 :friend 2] [3 :friend 2]]")
    assert fact(report, 1, "friend") == fact(report, 3, "friend") == [report.tempids[2]]


def test_an_identity_that_exists_here_is_that_entity_wherever_it_comes() -> None:
    report = loaded('[[7 :friend 1] [1 :age 5] [1 :tag :new] [1 :email "ann"]]')
    assert report.tempids[1] == ANN
    assert report.db_after.values(ANN, kw("age")) == [5]
    assert fact(report, 7, "friend") == [ANN]
    with pytest.raises(TransactUpsert):
        db = process(base(), read('[{:email "bob"}]'), now_ms=0).db_after
        loaded('[[1 :email "ann" 5] [1 :email "bob" 6]]', db)


def test_an_ident_that_exists_here_is_that_entity() -> None:
    rows = """[[20 :db/ident :age] [20 :db/valueType :db.type/long]
               [20 :db/cardinality :db.cardinality/one] [21 :age 3]]"""
    report = loaded(rows)
    assert report.tempids[20] == 2
    assert [datom.a for datom in report.datoms] == [kw("db/txInstant"), kw("age"), kw("both")]


def test_declarations_come_before_the_facts_that_need_them() -> None:
    rows = """[[1 :title "x"] [9 :db/cardinality :db.cardinality/one] [9 :db/ident :title]
               [9 :db/valueType :db.type/string]]"""
    assert fact(loaded(rows), 1, "title") == ["x"]
    empty = Database.empty(DatabaseConfig())
    assert fact(loaded(rows, empty), 1, "title") == ["x"]


def test_rows_apply_in_the_order_of_their_transactions() -> None:
    rows = f"""[[1 :age 3 {T + 3} true] [1 :age 2 {T + 3} false] [1 :age 2 {T + 2} true]
                [1 :tag :a {T + 1} true] [1 :tag :a {T + 2} false] [1 :tag :b]]"""
    report = loaded(rows)
    assert fact(report, 1, "age") == [3]
    assert fact(report, 1, "tag") == [kw("b")]
    assert {datom.tx for datom in report.datoms} == {report.tx}


def test_a_unique_value_moves_within_a_transaction_of_the_other_database() -> None:
    rows = f"""[[2 :email "x" {T + 1} true] [1 :email "x" {T + 2} true]
                [2 :email "x" {T + 2} false]]"""
    report = loaded(rows)
    assert (fact(report, 1, "email"), fact(report, 2, "email")) == (["x"], [])
    with pytest.raises(TransactUnique):
        loaded('[[2 :email "x"] [1 :email "x"]]')


def test_what_one_transaction_says_twice_about_a_fact_keeps_its_order() -> None:
    said = [f"[1 :tag :a {T + 1} true]", f"[1 :tag :a {T + 1} false]"]
    assert fact(loaded(f"[{' '.join(said)}]"), 1, "tag") == []
    assert fact(loaded(f"[[1 :age 1] {' '.join(reversed(said))}]"), 1, "tag") == [kw("a")]


def test_facts_about_transactions_are_left_out() -> None:
    rows = f"""[[{T + 1} :db/txInstant #inst "2001-01-01" {T + 1} true] [1 :age 5 {T + 1}]
                [{T + 1} :tag :why {T + 1}] [7 :db/txInstant #inst "2001-01-01" 7] [7 :age 1 7]
                [{TX_BASE + 5} :age 9] [1 :friend {T + 1}]]"""
    report = loaded(rows)
    assert set(report.tempids) == {kw("db/current-tx"), 1}
    assert fact(report, 1, "friend") == [report.tx]
    assert report.db_after.attributes_of(report.tx) == [kw("db/txInstant")]


def test_small_transaction_numbers_are_no_entities() -> None:
    assert fact(loaded("[[1 :age 5 1 true] [1 :age 6 2 true]]"), 1, "age") == [6]


def test_composites_follow_their_parts() -> None:
    report = loaded('[[1 :both ["x" 3]] [1 :email "x"] [1 :age 4]]')
    assert fact(report, 1, "both") == [("x", 4)]


def test_all_history_of_a_database_is_loaded_from_its_datoms() -> None:
    source = base()
    for text in (
        '[[:db/add 10 :age 2] {:db/id "b" :email "bob" :friend 10}]',
        "[[:db/retract 10 :age]]",
    ):
        source = process(source, read(text), now_ms=0).db_after
    rows: list[Datom] = source.history().datoms("eavt")
    target = loaded(rows, Database.empty(DatabaseConfig()))
    ids = target.tempids
    assert fact(target, 10, "email") == ["ann"]
    assert fact(target, 10, "age") == []
    bob = source.entid([kw("email"), "bob"])
    assert bob is not None
    assert fact(target, bob, "friend") == [ids[10]]
    again = loaded(rows, target.db_after)
    assert again.tempids.keys() == ids.keys()
    assert all(again.tempids[old] == ids[old] for old in ids if isinstance(old, int))


def test_rows_of_a_query_and_rows_in_strings_are_read() -> None:
    add = kw("db/add")
    report = loaded({(add, 1, kw("age"), 5, T + 1), (add, 2, kw("friend"), 1, T + 1)})
    assert fact(report, 2, "friend") == [report.tempids[1]]
    rows = [["db/add", 1, "tag", ":a"], [":db/add", 1, ":age", 5, T + 9], [1, "tag", ":b", None]]
    report = process(base(), [["db/load", rows]], now_ms=0)
    assert fact(report, 1, "tag") == [kw("a"), kw("b")]
    assert fact(report, 1, "age") == [5]
    retracted = loaded("[[1 :tag :a 1] [:db/retract 1 :tag :a 2] [:db/retract 9 :tag :a]]")
    assert fact(retracted, 1, "tag") == []


@pytest.mark.parametrize(
    "rows",
    [
        "5",
        "nil",
        "{}",
        "[5]",
        "[[]]",
        "[[1 :age]]",
        "[[1 :age 5 1 true 1]]",
        "[[:db/add 1 :age 5 1 true]]",
        "[[:db/cas 1 :age 5 6]]",
        '[["x" :age 5]]',
        "[[-1 :age 5]]",
        "[[0 :age 5]]",
        "[[1 :age nil]]",
        "[[1 5 5]]",
        "[[1 nil 5]]",
        '[[1 :age 5 "x"]]',
        "[[1 :age 5 -1]]",
        "[[1 :age 5 1 1]]",
        "[[1 :_friend 5]]",
    ],
)
def test_malformed_rows_are_refused(rows: str) -> None:
    with pytest.raises(TransactSyntax):
        loaded(rows)


def test_values_and_attributes_are_checked_as_in_additions() -> None:
    for rows in ('[[1 :age "x"]]', "[[1 :unknown 5]]", "[[1 :friend 1.5]]"):
        with pytest.raises(TransactSchema):
            loaded(rows)
    with pytest.raises(TransactSyntax):
        process(base(), read("[[:db/load]]"), now_ms=0)


def test_loads_of_one_transaction_share_their_entities_with_its_temporary_ids() -> None:
    tx_data = read("""[[:db/load [[1 :age 5]]] [:db/load [[2 :friend 1] [3 :email "new"]]]
                       [:db/add "n" :age 8] [:db/add "n" :email "new"]]""")
    report = process(base(), tx_data, now_ms=0)
    assert fact(report, 2, "friend") == [report.tempids[1]]
    assert report.tempids["n"] == report.tempids[3]
    assert fact(report, 3, "age") == [8]
    assert Keyword("age") in report.db_after.attributes_of(report.tempids[1])

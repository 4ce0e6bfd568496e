"""Tuples: composites follow their parts, the others keep their shape."""

from __future__ import annotations

from typing import Any

import pytest

from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import TransactSyntax, TransactUnique, TransactUpsert
from natalog.core.transact import TxReport, process
from natalog.core.values import kw

SCHEMA = """
[{:db/id 1 :db/ident :row :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
 {:db/id 2 :db/ident :no :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/id 3 :db/ident :hall :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
 {:db/id 4 :db/ident :place :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one
  :db/tupleAttrs [:row :no]}
 {:db/id 5 :db/ident :key :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one
  :db/tupleAttrs [:hall :no] :db/unique :db.unique/identity}
 {:db/id 6 :db/ident :days :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one
  :db/tupleType :db.type/long}
 {:db/id 7 :db/ident :leg :db/valueType :db.type/tuple :db/cardinality :db.cardinality/many
  :db/tupleTypes [:db.type/string :db.type/ref]}
 {:db/id 8 :db/ident :note :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]
"""
EMPTY = process(Database.empty(), read(SCHEMA), now_ms=0).db_after


def run(db: Database, text: str) -> TxReport:
    return process(db, read(text), now_ms=0)


def rows(report: TxReport, attr: str) -> list[tuple[int, Any, bool]]:
    return [(d.e, d.v, d.added) for d in report.datoms if d.a is kw(attr)]


SEATED = run(EMPTY, '[{:db/id 50 :row "C" :no 4}]').db_after


# --- composites --------------------------------------------------------------------------------


def test_a_composite_follows_every_change_of_its_parts() -> None:
    assert SEATED.values(50, kw("place")) == [("C", 4)]
    for text, before, after in (
        ("[[:db/add 50 :no 5]]", ("C", 4), ("C", 5)),
        ("[[:db/retract 50 :no 4]]", ("C", 4), ("C", None)),
        ("[[:db/cas 50 :no 4 9]]", ("C", 4), ("C", 9)),
        ('[{:db/id 50 :row "D" :no 1}]', ("C", 4), ("D", 1)),
    ):
        assert rows(run(SEATED, text), "place") == [(50, before, False), (50, after, True)]


def test_a_composite_without_parts_is_gone() -> None:
    assert rows(run(SEATED, "[[:db/retractEntity 50]]"), "place") == [(50, ("C", 4), False)]
    one_by_one = run(SEATED, "[[:db/retract 50 :no] [:db/retract 50 :row]]")
    assert rows(one_by_one, "place") == [
        (50, ("C", 4), False),
        (50, ("C", None), True),
        (50, ("C", None), False),
    ]


def test_a_composite_is_written_after_each_operation() -> None:
    report = run(EMPTY, '[[:db/add "a" :row "A"] [:db/add "a" :no 1]]')
    assert rows(report, "place") == [
        (9, ("A", None), True),
        (9, ("A", None), False),
        (9, ("A", 1), True),
    ]
    assert rows(run(EMPTY, '[{:row "A" :no 1}]'), "place") == [(9, ("A", 1), True)]


def test_parts_of_a_composite_may_be_declared_later() -> None:
    db = run(
        EMPTY,
        "[{:db/ident :pair :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one"
        ' :db/tupleAttrs [:row :later]} {:db/id 50 :row "A"}]',
    ).db_after
    assert db.values(50, kw("pair")) == [("A", None)]
    db = run(
        db,
        "[{:db/ident :later :db/valueType :db.type/long :db/cardinality :db.cardinality/one}"
        " {:db/id 50 :later 5}]",
    ).db_after
    assert db.values(50, kw("pair")) == [("A", 5)]


def test_an_unchanged_part_leaves_the_composite_alone() -> None:
    assert rows(run(SEATED, '[{:db/id 50 :row "C"} [:db/add 50 :no 4]]'), "place") == []


@pytest.mark.parametrize(
    "text",
    [
        '[[:db/add 50 :place ["C" 4]]]',
        '[{:db/id 50 :place ["C" 5]}]',
        '[[:db/retract 50 :place ["C" 4]]]',
        "[[:db/retract 50 :place]]",
        "[[:db.fn/retractAttribute 50 :place]]",
        '[[:db/cas 50 :place ["C" 4] ["C" 5]]]',
        '[[:db/retract 50 :place ["X" 9]]]',
        '[[:db/purge 50 :place ["C" 4]]]',
        "[[:db.purge/attribute 50 :place]]",
    ],
)
def test_a_composite_cannot_be_written(text: str) -> None:
    with pytest.raises(TransactSyntax, match="follows its parts"):
        run(SEATED, text)


def test_rows_of_a_diff_may_repeat_what_a_composite_will_be() -> None:
    tx = SEATED.max_tx
    whole = [kw("db/add"), 50, kw("place"), ("D", 4), tx]
    part = [kw("db/add"), 50, kw("row"), "D", tx]
    for operations in ([whole, part], [part, whole]):
        report = process(SEATED, operations, now_ms=0)
        assert report.db_after.values(50, kw("place")) == [("D", 4)]
    with pytest.raises(TransactSyntax):
        process(SEATED, [whole], now_ms=0)


def test_a_unique_composite_identifies_a_map_with_all_its_parts() -> None:
    db = run(EMPTY, '[{:hall 60 :no 1 :note "a"} {:hall 60 :no 2}]').db_after
    report = run(db, '[{:hall 60 :no 1 :note "b"} {:no 2 :note "other"}]')
    assert rows(report, "note") == [(9, "a", False), (9, "b", True), (11, "other", True)]
    by_ref = run(db, '[[:db/add [:key [60 2]] :note "c"]]')
    assert rows(by_ref, "note") == [(10, "c", True)]


def test_a_unique_composite_identifies_within_one_transaction() -> None:
    report = run(EMPTY, '[{:hall 60 :no 1 :note "a"} {:hall 60 :no 1 :note "b"}]')
    assert report.db_after.values(9, kw("note")) == ["b"]
    assert report.db_after.max_eid == 60 or report.db_after.max_eid == 9


def test_parts_that_name_entities_are_resolved_first() -> None:
    db = run(EMPTY, "[{:db/id 60 :db/ident :hall/a} {:hall :hall/a :no 1}]").db_after
    report = run(db, '[{:hall :hall/a :no 1 :note "x"}]')
    assert rows(report, "note") == [(61, "x", True)]


def test_a_taken_composite_is_refused() -> None:
    db = run(EMPTY, "[{:hall 60 :no 1} {:db/id 70 :hall 60 :no 2}]").db_after
    with pytest.raises(TransactUnique):
        run(db, "[[:db/add 70 :no 1]]")
    with pytest.raises(TransactUnique):
        run(db, '[[:db/add "x" :hall 60] [:db/add "x" :no 1]]')
    with pytest.raises(TransactUpsert):
        run(db, "[{:db/id 99 :hall 60 :no 1}]")


def test_partial_composites_take_part_in_uniqueness() -> None:
    with pytest.raises(TransactUnique):
        run(EMPTY, "[[:db/add 70 :no 3] [:db/add 71 :no 3]]")


def test_purging_a_part_purges_the_composites_that_hold_it() -> None:
    db = run(SEATED, "[[:db/add 50 :no 5]]").db_after
    after = run(db, "[[:db/purge 50 :no 4]]").db_after
    assert [d.v for d in after.history().datoms("aevt", [kw("place")])] == [("C", 5)]
    later = run(db, "[[:db/purge 50 :no 5]]")
    assert rows(later, "place") == [(50, ("C", None), True)]
    assert ("C", 5) not in later.db_after.history().values(50, kw("place"))


# --- other tuples ------------------------------------------------------------------------------


def test_homogeneous_tuples_hold_up_to_eight_values_of_one_type() -> None:
    db = run(EMPTY, "[{:db/id 90 :days [1 2 3 4 5 6 7 8]}]").db_after
    assert db.values(90, kw("days")) == [(1, 2, 3, 4, 5, 6, 7, 8)]
    assert run(db, "[{:db/id 90 :days [5]}]").db_after.values(90, kw("days")) == [(5,)]


@pytest.mark.parametrize(
    "value",
    ["[1 2 3 4 5 6 7 8 9]", '[1 "two"]', "[1 nil]", "[1.5]", "[true]", "[[1]]", "[]", "5", '"ab"'],
)
def test_homogeneous_tuples_refuse_the_rest(value: str) -> None:
    with pytest.raises(TransactSyntax):
        run(EMPTY, f"[{{:db/id 90 :days {value}}}]")


def test_heterogeneous_tuples_have_a_type_for_each_place() -> None:
    db = run(EMPTY, '[[:db/add 95 :leg ["a" 60]] {:db/id 95 :leg [["b" :note] ["c" 7]]}]').db_after
    assert db.values(95, kw("leg")) == [("a", 60), ("b", 8), ("c", 7)]
    gone = run(db, '[[:db/retract 95 :leg ["b" 8]]]').db_after
    assert gone.values(95, kw("leg")) == [("a", 60), ("c", 7)]


@pytest.mark.parametrize("value", ['["a"]', '["a" 1 2]', "[nil nil]", '["a" nil]', "[1 2]", "[]"])
def test_heterogeneous_tuples_refuse_the_rest(value: str) -> None:
    with pytest.raises(TransactSyntax):
        run(EMPTY, f"[[:db/add 95 :leg {value}]]")

"""Temporary ids, lookup refs, upsert and uniqueness."""

from __future__ import annotations

from typing import Any

import pytest

from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import (
    EntityIdMissing,
    LookupRefSyntax,
    LookupRefUnique,
    TransactError,
    TransactSyntax,
    TransactUnique,
    TransactUpsert,
)
from natalog.core.transact import TxReport, process
from natalog.core.values import kw

SCHEMA = """
[{:db/id 1 :db/ident :mail :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/id 2 :db/ident :code :db/valueType :db.type/long :db/cardinality :db.cardinality/one
  :db/unique :db.unique/value}
 {:db/id 3 :db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
 {:db/id 4 :db/ident :boss :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
 {:db/id 5 :db/ident :team :db/valueType :db.type/ref :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/id 6 :db/ident :alias :db/valueType :db.type/keyword :db/cardinality :db.cardinality/many
  :db/unique :db.unique/identity}
 {:db/id 7 :db/ident :at :db/valueType :db.type/instant :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}]
"""
DB = process(
    process(Database.empty(), read(SCHEMA), now_ms=0).db_after,
    read('[{:mail "i@x" :name "Ines" :code 1} {:mail "o@x" :name "Otto"}]'),
    now_ms=0,
).db_after
INES, OTTO, NEXT = 8, 9, 10


def run(db: Database, text: str) -> TxReport:
    return process(db, read(text), now_ms=0)


def facts(report: TxReport) -> set[tuple[int, str, Any]]:
    """What the transaction added, the transaction's own facts aside."""
    return {(d.e, d.a.text, d.v) for d in report.datoms if d.added and d.e != report.tx}


# --- ids ---------------------------------------------------------------------------------------


def test_ids_count_up_and_explicit_ones_raise_the_counter() -> None:
    db = run(DB, '[{:name "a"} {:db/id 500 :name "b"} {:name "c"}]').db_after
    assert [db.values(e, kw("name")) for e in (10, 500, 501)] == [["a"], ["b"], ["c"]]
    assert facts(run(db, '[{:db/id 20 :name "d"} {:name "e"}]')) == {
        (20, "name", "d"),
        (502, "name", "e"),
    }


def test_an_explicit_id_without_facts_raises_the_counter_too() -> None:
    assert facts(run(DB, '[{:db/id 90} {:name "a"}]')) == {(91, "name", "a")}
    assert facts(run(DB, '[[:db/add 10 :boss 90] {:name "a"}]')) == {
        (10, "boss", 90),
        (11, "name", "a"),
    }


def test_ids_are_not_used_again() -> None:
    for gone in ("[[:db/retractEntity 10]]", "[[:db.purge/entity 10]]"):
        db = run(run(DB, '[{:name "a"}]').db_after, gone).db_after
        assert facts(run(db, '[{:name "b"}]')) == {(11, "name", "b")}


def test_a_refused_or_repeated_attempt_spends_no_id() -> None:
    report = run(DB, '[{:name "new" :boss "b"} {:db/id "b" :mail "i@x"} {:name "other"}]')
    assert facts(report) == {(10, "name", "new"), (10, "boss", INES), (11, "name", "other")}
    assert report.db_after.max_eid == 11


def test_a_branch_counts_in_its_own_lane() -> None:
    branch = Database.empty(lane=2)
    db = process(branch, read(SCHEMA), now_ms=0).db_after
    report = run(
        db, '[{:db/id 700 :name "far"} {:name "a"} {:db/id 8589935000 :name "b"} {:name "c"}]'
    )
    first = 2 << 32
    assert facts(report) == {
        (700, "name", "far"),
        (first + 1, "name", "a"),
        (8589935000, "name", "b"),
        (8589935001, "name", "c"),
    }
    assert report.tx == (1 << 52) + first + 2


# --- temporary ids -----------------------------------------------------------------------------


def test_one_temporary_id_is_one_entity_and_is_reported() -> None:
    report = run(DB, '[{:db/id "a" :name "A"} [:db/add -1 :boss "a"] [:db/add -1 :name "B"]]')
    assert facts(report) == {(10, "name", "A"), (11, "boss", 10), (11, "name", "B")}
    assert report.tempids == {"a": 10, -1: 11, kw("db/current-tx"): report.tx}


def test_temporary_ids_may_be_used_before_they_are_described() -> None:
    report = run(DB, '[[:db/add "clerk" :boss "chief"] {:db/id "chief" :name "C"}'
                     ' {:db/id "clerk" :name "D"}]')  # fmt: skip
    assert facts(report) == {(10, "boss", 11), (11, "name", "C"), (10, "name", "D")}


def test_a_number_and_its_text_are_different_temporary_ids() -> None:
    report = run(DB, '[{:db/id -5 :name "a"} {:db/id "-5" :name "b"}]')
    assert (report.tempids[-5], report.tempids["-5"]) == (10, 11)


def test_a_map_with_only_a_temporary_id_allocates_it() -> None:
    report = run(DB, "[{:db/id -9}]")
    assert facts(report) == set()
    assert report.tempids[-9] == 10
    assert report.db_after.max_eid == 10


@pytest.mark.parametrize(
    "text",
    [
        '[[:db/add 50 :boss "nobody"]]',
        "[[:db/add 50 :boss -77]]",
        '[{:name "a" :boss "typo"}]',
        '[{:name "a" :_boss "b"} [:db/add 50 :boss "c"]]',
    ],
)
def test_a_temporary_id_that_is_only_a_value_is_refused(text: str) -> None:
    with pytest.raises(TransactSyntax, match="Temporary id"):
        run(DB, text)


@pytest.mark.parametrize(
    "text",
    [
        '[:db/retract "x" :name "a"]',
        '[:db/retractEntity "x"]',
        "[:db/retractEntity -1]",
        '[:db.fn/retractAttribute "x" :name]',
        '[:db/cas "x" :name nil "a"]',
        '[:db/purge "x" :name]',
        "[:db.purge/entity -1]",
        '[:db.history.purge/before "2020-01-01"]',
    ],
)
def test_temporary_ids_belong_to_additions_only(text: str) -> None:
    with pytest.raises(TransactSyntax):
        run(DB, f"[{text}]")


# --- lookup refs -------------------------------------------------------------------------------


def test_lookup_refs_see_the_operations_before_them() -> None:
    report = run(DB, '[{:mail "r@x"} [:db/add [:mail "r@x"] :name "Runa"]]')
    assert (10, "name", "Runa") in facts(report)
    with pytest.raises(EntityIdMissing):
        run(DB, '[[:db/add [:mail "r@x"] :name "Runa"] {:mail "r@x"}]')
    with pytest.raises(EntityIdMissing):
        run(DB, '[[:db/retract [:mail "i@x"] :mail] [:db/add [:mail "i@x"] :name "x"]]')


def test_lookup_refs_work_for_every_kind_of_unique_value() -> None:
    db = run(DB, '[{:db/id 50 :team 9 :alias [:a :b] :at #inst "2020-01-01"}]').db_after
    for ref in ("[:code 1]", '[:mail "i@x"]', "[:db/ident :mail]"):
        assert run(db, f'[[:db/add {ref} :name "x"]]').db_after
    for ref in ("[:team 9]", '[:team [:mail "o@x"]]', "[:alias :b]", '[:at #inst "2020-01-01"]'):
        assert facts(run(db, f'[[:db/add {ref} :name "x"]]')) == {(50, "name", "x")}


@pytest.mark.parametrize("ref", ["[:mail]", '[:mail "i@x" 3]', "[]", "[5 6]", '["" 6]'])
def test_a_lookup_ref_has_an_attribute_and_a_value(ref: str) -> None:
    with pytest.raises(LookupRefSyntax):
        run(DB, f'[[:db/add {ref} :name "x"]]')


@pytest.mark.parametrize("ref", ['[:name "Ines"]', "[:nosuch 1]", "[:boss 1]", "[:_boss 1]"])
def test_a_lookup_ref_needs_a_unique_attribute(ref: str) -> None:
    with pytest.raises(LookupRefUnique):
        run(DB, f'[[:db/add {ref} :name "x"]]')


def test_a_lookup_ref_of_another_class_matches_nothing() -> None:
    for ref in ("[:code 1.0]", "[:code true]", '[:code "1"]', "[:mail :i@x]"):
        with pytest.raises(EntityIdMissing):
            run(DB, f'[[:db/add {ref} :name "x"]]')


# --- upsert ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[{:mail "i@x" :name "I."}]',
        '[{:db/id "t" :mail "i@x" :name "I."}]',
        '[{:db/id 8 :mail "i@x" :name "I."}]',
        '[{:db/id [:code 1] :mail "i@x" :name "I."}]',
        '[[:db/add "t" :mail "i@x"] [:db/add "t" :name "I."]]',
        '[[:db/add "t" :name "I."] [:db/add "t" :mail "i@x"]]',
        '[{:db/id "t" :name "I."} {:db/id "t" :mail "i@x"}]',
    ],
)
def test_an_identity_names_the_existing_entity(text: str) -> None:
    report = run(DB, text)
    assert facts(report) == {(INES, "name", "I.")}
    if '"t"' in text:
        assert report.tempids["t"] == INES


def test_two_new_maps_with_one_identity_are_one_entity() -> None:
    report = run(DB, '[{:mail "r@x" :name "R"} {:mail "r@x" :name "Runa"}]')
    assert report.db_after.values(NEXT, kw("name")) == ["Runa"]
    assert report.db_after.max_eid == NEXT


def test_temporary_ids_of_one_new_identity_are_one_entity_whatever_the_order() -> None:
    operations = ['[:db/add 50 :boss "a"]', '{:db/id "b" :mail "r@x"}', '{:db/id "a" :mail "r@x"}',
                  '[:db/add 51 :boss "b"]', '{:mail "r@x" :name "Runa"}']  # fmt: skip
    for turn in range(len(operations)):
        order = operations[turn:] + operations[:turn]
        report = run(DB, f"[{' '.join(order)}]")
        runa = report.tempids["a"]
        assert report.tempids["b"] == runa
        assert report.db_after.values(runa, kw("name")) == ["Runa"]
        assert report.db_after.values(50, kw("boss")) == [runa]


def test_identities_may_be_references_instants_and_many() -> None:
    db = run(DB, '[{:db/id 50 :team 9 :at #inst "2020-01-01" :alias [:a :b]}]').db_after
    for identity in (
        ":team 9",
        ':team [:mail "o@x"]',
        ':at #inst "2020-01-01T01:00:00+01:00"',
        ":alias :a",
        ":alias [:c :b]",
    ):
        assert (50, "name", "x") in facts(run(db, f'[{{{identity} :name "x"}}]'))


@pytest.mark.parametrize(
    "text",
    [
        '[{:db/id 9 :mail "i@x"}]',
        '[{:db/id 50 :mail "i@x"}]',
        '[{:mail "i@x" :team 9} {:db/id 50 :team 7} {:mail "i@x" :team 7}]',
        '[[:db/add "t" :mail "i@x"] [:db/add "t" :mail "o@x"]]',
        '[{:db/id "t" :mail "i@x"} {:db/id "t" :mail "o@x"}]',
    ],
)
def test_identities_that_disagree_are_refused(text: str) -> None:
    with pytest.raises(TransactUpsert):
        run(DB, text)


def test_many_late_upserts_take_two_attempts_not_many() -> None:
    people = [{"mail": f"{n}@x", "name": str(n)} for n in range(300)]
    db = process(DB, people, now_ms=0).db_after
    said = [["db/add", -1 - n, "name", f"new {n}"] for n in range(300)]
    known = [["db/add", -1 - n, "mail", f"{n}@x"] for n in range(300)]
    report = process(db, said + known, now_ms=0)
    assert report.db_after.max_eid == db.max_eid
    assert report.db_after.values(report.tempids[-300], kw("name")) == ["new 299"]


# --- uniqueness --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[[:db/add 9 :mail "i@x"]]',
        "[{:code 1}]",
        '[{:db/id "b" :code 1 :name "x"}]',
        "[{:code 5} {:code 5}]",
        '[[:db/add 8 :mail "o@x"] [:db/add 9 :mail "i@x"]]',
    ],
)
def test_a_taken_value_is_refused(text: str) -> None:
    with pytest.raises(TransactUnique) as caught:
        run(DB, text)
    assert {"attribute", "value", "entity", "holder"} <= caught.value.data.keys()


def test_a_unique_value_moves_when_it_is_free() -> None:
    moved = run(DB, '[[:db/retract 8 :mail "i@x"] [:db/add 9 :mail "i@x"]]').db_after
    assert moved.holders(kw("mail"), "i@x") == [OTTO]
    replaced = run(DB, '[[:db/add 8 :mail "new"] [:db/add 9 :mail "i@x"]]').db_after
    assert replaced.holders(kw("mail"), "i@x") == [OTTO]


def test_restating_a_unique_value_is_no_conflict() -> None:
    assert facts(run(DB, "[[:db/add [:code 1] :code 1]]")) == set()


def test_unique_values_of_different_classes_differ() -> None:
    flexible = run(
        process(Database.empty(), read(SCHEMA), now_ms=0).db_after,
        "[{:db/ident :k :db/valueType :db.type/number :db/cardinality :db.cardinality/one"
        " :db/unique :db.unique/value}]",
    ).db_after
    assert len(facts(run(flexible, "[{:k 1} {:k 1.0} {:k 1.0M}]"))) == 3


def test_every_failure_is_of_the_transaction_tree_or_the_entity_tree() -> None:
    with pytest.raises(TransactError):
        run(DB, "[{:code 1}]")

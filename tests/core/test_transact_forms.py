"""The forms of a transaction and the order of its effects."""

from __future__ import annotations

from typing import Any

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import (
    EntityIdMissing,
    EntityIdSyntax,
    NatalogError,
    TransactCas,
    TransactMaxLength,
    TransactSchema,
    TransactSyntax,
    ViewRefused,
)
from natalog.core.limits import TX_BASE
from natalog.core.transact import TxReport, process
from natalog.core.values import Datom, Keyword, kw

SCHEMA = """
[{:db/id 1 :db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/id 2 :db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/id 3 :db/ident :tag :db/valueType :db.type/keyword :db/cardinality :db.cardinality/many}
 {:db/id 4 :db/ident :boss :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
 {:db/id 5 :db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
 {:db/id 6 :db/ident :part :db/valueType :db.type/ref :db/cardinality :db.cardinality/many
  :db/isComponent true}
 {:db/id 7 :db/ident :note :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
 {:db/id 8 :db/ident :weight :db/valueType :db.type/double :db/cardinality :db.cardinality/one}]
"""


def make(**config: Any) -> Database:
    db = Database.empty(DatabaseConfig(**config))
    return process(db, read(SCHEMA), now_ms=0).db_after


def run(db: Database, text: str, meta: str | None = None) -> TxReport:
    return process(db, read(text), None if meta is None else read(meta), now_ms=0)


def rows(report: TxReport) -> list[tuple[int, str, Any, bool]]:
    """The report's facts without the transaction's own."""
    return [(d.e, str(d.a), d.v, d.added) for d in report.datoms if d.e != report.tx]


DB = make()


# --- outer forms -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tx_data",
    [
        [{"name": "Ines"}],
        ({"name": "Ines"},),
        [None, {"name": "Ines"}, None],
        {"tx-data": [{"name": "Ines"}]},
        {"tx_data": [{"name": "Ines"}]},
        {kw("tx-data"): [{"name": "Ines"}], kw("tx-meta"): {kw("note"): "x"}},
        read('([:db/add "a" :name "Ines"])'),
        {(kw("db/add"), "a", kw("name"), "Ines")},
    ],
)
def test_transaction_data_come_in_several_outer_forms(tx_data: Any) -> None:
    assert rows(process(DB, tx_data, now_ms=0)) == [(9, ":name", "Ines", True)]


@pytest.mark.parametrize(
    "tx_data", [5, "text", {"name": "Ines"}, [5], ["text"], [[]], [[9, kw("name"), "x"]], {}]
)
def test_other_outer_forms_are_refused(tx_data: Any) -> None:
    with pytest.raises(TransactSyntax):
        process(DB, tx_data, now_ms=0)


def test_an_empty_transaction_is_a_transaction() -> None:
    for nothing in ("[]", "nil", "[nil nil]", "{:tx-data nil}"):
        report = run(DB, nothing)
        assert report.tx == DB.max_tx + 1
        assert [d.a for d in report.datoms] == [kw("db/txInstant")]


def test_a_view_of_the_past_takes_a_transaction_but_history_does_not() -> None:
    db = run(DB, '[{:name "Ines" :age 1}]').db_after
    later = run(db, '[{:name "Ines" :age 2}]').db_after
    report = run(later.as_of(db.max_tx), '[[:db/cas [:name "Ines"] :age 1 7]]')
    assert report.db_after.values(9, kw("age")) == [7]
    with pytest.raises(ViewRefused):
        run(DB.history(), "[]")


def test_a_refused_transaction_changes_nothing() -> None:
    with pytest.raises(TransactSchema):
        run(DB, '[{:name "Ines"} {:name "Otto" :age "old"}]')
    assert DB.max_tx == TX_BASE + 1
    assert run(DB, '[{:name "Ines"}]').tx == TX_BASE + 2


# --- maps --------------------------------------------------------------------------------------


def test_facts_follow_the_order_of_the_map() -> None:
    assert rows(run(DB, '[{:age 41 :name "Ines" :tag [:b :a]}]')) == [
        (9, ":age", 41, True),
        (9, ":name", "Ines", True),
        (9, ":tag", kw("b"), True),
        (9, ":tag", kw("a"), True),
    ]


def test_a_value_that_is_replaced_is_retracted_first() -> None:
    db = run(DB, '[{:name "Ines" :age 41}]').db_after
    report = run(db, '[{:name "Ines" :age 42}]')
    assert rows(report) == [(9, ":age", 41, False), (9, ":age", 42, True)]


def test_nested_maps_get_ids_after_their_parent_depth_first() -> None:
    report = run(DB, '[{:name "a" :part [{:name "b" :boss {:name "c"}} {:name "d"}]} {:name "e"}]')
    named = {d.v: d.e for d in report.datoms if d.a is kw("name")}
    assert named == {"a": 9, "b": 10, "c": 11, "d": 12, "e": 13}


def test_nested_maps_upsert() -> None:
    db = run(DB, '[{:name "Ines"}]').db_after
    report = run(db, '[{:name "Otto" :boss {:name "Ines" :age 41}}]')
    assert rows(report) == [
        (10, ":name", "Otto", True),
        (9, ":age", 41, True),
        (10, ":boss", 9, True),
    ]


def test_reverse_attributes_point_back() -> None:
    db = run(DB, '[{:name "Ines"} {:name "Otto"}]').db_after
    report = run(db, '[{:name "Runa" :_boss [[:name "Ines"] "o" {:name "Sven"}]}'
                     ' {:db/id "o" :name "Otto"}]')  # fmt: skip
    assert {(d.e, d.v) for d in report.datoms if d.a is kw("boss")} == {(9, 11), (10, 11), (12, 11)}


def test_two_elements_that_begin_with_a_unique_attribute_are_one_lookup_ref() -> None:
    db = run(DB, '[{:name "Ines"} {:db/ident :x} {:db/ident :y}]').db_after
    one = run(db, '[{:db/id 50 :friend [:name "Ines"]}]')
    assert one.db_after.values(50, kw("friend")) == [9]
    two = run(db, "[{:db/id 50 :friend [:x :y]}]")
    assert two.db_after.values(50, kw("friend")) == [10, 11]


def test_empty_collections_and_maps_say_nothing() -> None:
    report = run(DB, '[{} {:name "a" :tag [] :friend {} :part [{}]} {:db/id 70}]')
    assert rows(report) == [(9, ":name", "a", True)]


def test_sets_under_many_valued_attributes_are_several_values() -> None:
    assert run(DB, "[{:tag #{:a :b}}]").db_after.values(9, kw("tag")) == [kw("a"), kw("b")]


@pytest.mark.parametrize(
    "text",
    [
        "[{:name nil}]",
        "[{:tag [nil]}]",
        "[{:boss nil}]",
        "[[:db/add 50 :age nil]]",
        "[[:db/add 50 :age]]",
        "[[:db/add 50]]",
        "[[:db/add]]",
        "[[:db/add 50 :age 1 4503599627370497 true]]",
        '[{:name ["a"] :nosuch 1}]',
        "[{5 1}]",
        "[[:db/add 50 :_boss 51]]",
        '[{:name "a" :_age 5}]',
        "[[:db/add 50 :db/id 51]]",
        "[[:db/nosuch 50 :age 1]]",
        '[["db/nosuch" 50 :age 1]]',
        "[[[:db/add] 50 :age 1]]",
    ],
)
def test_malformed_operations_are_refused(text: str) -> None:
    with pytest.raises((TransactSyntax, TransactSchema)):
        run(DB, text)


def test_a_list_under_one_valued_attributes_is_one_value() -> None:
    with pytest.raises(TransactSchema):
        run(DB, '[{:name ["a"]}]')
    with pytest.raises(TransactSchema):
        run(DB, "[[:db/add 50 :tag [:a :b]]]")


def test_maps_may_nest_deeply_but_not_without_end() -> None:
    def nested(levels: int) -> dict[str, Any]:
        operation: dict[str, Any] = {"name": "end"}
        for _ in range(levels):
            operation = {"boss": operation}
        return operation

    assert len(rows(process(DB, [nested(100)], now_ms=0))) == 101
    with pytest.raises(TransactSyntax, match="nested"):
        process(DB, [nested(5000)], now_ms=0)


# --- vectors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [kw("db/add"), "db/add", ":db/add"])
def test_operations_are_named_by_keywords_or_strings(name: Any) -> None:
    assert rows(process(DB, [[name, 50, kw("age"), 1]], now_ms=0)) == [(50, ":age", 1, True)]


def test_operations_apply_one_after_the_other() -> None:
    report = run(DB, "[[:db/add 60 :age 1] [:db/add 60 :age 2] [:db/add 60 :age 2]]")
    assert rows(report) == [
        (60, ":age", 1, True),
        (60, ":age", 1, False),
        (60, ":age", 2, True),
    ]


def test_a_fact_that_holds_already_is_no_fact_of_the_transaction() -> None:
    db = run(DB, '[{:db/id 50 :name "Ines" :weight 0.0 :tag :a}]').db_after
    report = run(db, '[{:db/id 50 :name "Ines" :weight -0.0 :tag [:a]}]')
    assert rows(report) == []
    assert report.tx == db.max_tx + 1


def test_not_a_number_can_be_replaced() -> None:
    db = run(DB, "[{:db/id 50 :weight ##NaN}]").db_after
    assert rows(run(db, "[{:db/id 50 :weight ##NaN}]")) == []
    assert run(db, "[{:db/id 50 :weight 1.0}]").db_after.values(50, kw("weight")) == [1.0]


def test_a_fifth_element_does_not_write_into_the_past() -> None:
    row = [kw("db/add"), 50, kw("age"), 5, DB.max_tx]
    report = process(DB, [row], now_ms=0)
    assert report.datoms[-1] == Datom(50, kw("age"), 5, report.tx, True)


def test_rows_of_another_branch_are_accepted_with_their_transactions() -> None:
    other = TX_BASE + (3 << 32) + 7
    rows = [
        ["db/add", (3 << 32) + 1, "name", "Ines", other],
        ["db/add", other, "note", "from the branch", other],
    ]
    report = process(DB, rows, now_ms=0)
    assert report.db_after.values((3 << 32) + 1, kw("name")) == ["Ines"]
    assert {d.tx for d in report.datoms} == {report.tx}
    assert report.db_after.max_eid == DB.max_eid


@pytest.mark.parametrize("tx", [3, 0, -1, TX_BASE, TX_BASE + 99, "x", 2.0, True, 2**53])
def test_a_fifth_element_must_be_a_transaction(tx: Any) -> None:
    with pytest.raises(TransactSyntax):
        process(DB, [[kw("db/add"), 50, kw("age"), 5, tx]], now_ms=0)


def test_datoms_are_operations_too() -> None:
    db = run(DB, "[{:db/id 50 :age 1}]").db_after
    kept = Datom(50, kw("tag"), kw("a"), db.max_tx)
    gone = Datom(50, kw("age"), 1, db.max_tx, False)
    assert rows(process(db, [kept, gone], now_ms=0)) == [
        (50, ":tag", kw("a"), True),
        (50, ":age", 1, False),
    ]


# --- entity positions --------------------------------------------------------------------------


@pytest.mark.parametrize("entity", ["nil", "0", "1.5", "true", "#{}", "{}"])
def test_what_is_no_entity_id_is_refused(entity: str) -> None:
    for text in (f"[[:db/add {entity} :age 1]]", f"[[:db/retractEntity {entity}]]"):
        with pytest.raises(EntityIdSyntax):
            run(DB, text)


def test_idents_and_lookup_refs_must_name_something_to_be_added_to() -> None:
    for entity in (":no/such", '[:name "nobody"]', "[:name nil]"):
        with pytest.raises(EntityIdMissing):
            run(DB, f"[[:db/add {entity} :age 1]]")
        with pytest.raises(EntityIdMissing):
            run(DB, f"[{{:db/id {entity} :age 1}}]")
        with pytest.raises(EntityIdMissing):
            run(DB, f"[[:db/add 50 :boss {entity}]]")


def test_what_names_nothing_is_silently_not_retracted() -> None:
    for entity in (":no/such", '[:name "nobody"]', "99999"):
        for op in (":db/retractEntity {}", ":db/retract {} :age 1", ":db/retract {} :age",
                   ":db.fn/retractAttribute {} :age"):  # fmt: skip
            assert rows(run(DB, f"[[{op.format(entity)}]]")) == []


def test_ids_in_the_range_of_transactions_must_be_transactions() -> None:
    known = run(DB, f'[[:db/add {DB.max_tx} :note "checked"]]')
    assert known.db_after.values(DB.max_tx, kw("note")) == ["checked"]
    for unknown in (DB.max_tx + 5, TX_BASE, 2**60):
        with pytest.raises(EntityIdSyntax):
            run(DB, f'[[:db/add {unknown} :note "x"]]')


@pytest.mark.parametrize("value", ["2.5", "true", '#uuid "00000000-0000-0000-0000-000000000000"'])
def test_a_reference_names_an_entity(value: str) -> None:
    with pytest.raises(TransactSchema):
        run(DB, f"[{{:boss {value}}}]")


def test_references_to_unknown_numbers_are_stored() -> None:
    assert run(DB, "[[:db/add 50 :boss 99999]]").db_after.values(50, kw("boss")) == [99999]


@pytest.mark.parametrize(
    "alias", [":db/current-tx", '":db/current-tx"', '"datomic.tx"', '"datahike.tx"', '"natalog.tx"']
)
def test_the_current_transaction_has_names(alias: str) -> None:
    report = run(DB, f'[[:db/add {alias} :note "a"] [:db/add 50 :boss {alias}]]')
    assert report.db_after.values(report.tx, kw("note")) == ["a"]
    assert report.db_after.values(50, kw("boss")) == [report.tx]
    assert run(DB, f'[{{:db/id {alias} :note "a"}}]').tempids[kw("db/current-tx")] == report.tx


# --- retracting --------------------------------------------------------------------------------


def test_retract_without_a_value_retracts_all() -> None:
    db = run(DB, "[{:db/id 50 :tag [:a :b] :age 5}]").db_after
    for text in ("[[:db/retract 50 :tag]]", "[[:db/retract 50 :tag nil]]"):
        assert run(db, text).db_after.values(50, kw("tag")) == []


def test_retracting_what_is_not_there_is_no_fact() -> None:
    db = run(DB, "[{:db/id 50 :age 5 :boss 1}]").db_after
    for operation in (":age 6", ":boss 2", ":boss :age", ':note "x"'):
        assert rows(run(db, f"[[:db/retract 50 {operation}]]")) == []


def test_retracting_a_value_of_another_class_is_refused() -> None:
    db = run(DB, "[{:db/id 50 :age 5}]").db_after
    for value in ("5.0", '"5"', "true"):
        with pytest.raises(TransactSchema):
            run(db, f"[[:db/retract 50 :age {value}]]")
    with pytest.raises(EntityIdMissing):
        run(db, '[[:db/retract 50 :boss [:name "nobody"]]]')


def test_retracting_an_undeclared_attribute_is_refused() -> None:
    with pytest.raises(TransactSchema):
        run(DB, "[[:db/retract 50 :nosuch 1]]")


def test_retract_entity_takes_incoming_references_and_components() -> None:
    db = run(
        DB,
        '[{:db/id 50 :name "a" :part [{:db/id 51 :note "b" :part {:db/id 52 :note "c"}}]}'
        " {:db/id 60 :friend [50 52]} {:db/id 61 :boss 51}]",
    ).db_after
    report = run(db, "[[:db/retractEntity 50]]")
    assert all(not added for *_, added in rows(report))
    for e in (50, 51, 52, 60, 61):
        assert not report.db_after.has_entity(e)


def test_retract_entity_ends_on_cycles_of_components() -> None:
    db = run(DB, "[{:db/id 50 :part 51} {:db/id 51 :part 50 :age 1}]").db_after
    assert len(rows(run(db, "[[:db/retractEntity 50]]"))) == 3


def test_retract_entity_sees_what_the_transaction_said() -> None:
    report = run(
        DB, '[{:db/id "a" :name "a"} {:db/id 60 :boss "a"} [:db/retractEntity [:name "a"]]]'
    )
    assert not report.db_after.has_entity(9)
    assert not report.db_after.has_entity(60)


def test_only_retract_attribute_cascades_to_components() -> None:
    db = run(DB, '[{:db/id 50 :part {:db/id 51 :note "b"}}]').db_after
    assert run(db, "[[:db/retract 50 :part]]").db_after.has_entity(51)
    assert not run(db, "[[:db.fn/retractAttribute 50 :part]]").db_after.has_entity(51)


def test_retract_and_add_again_gives_the_fact_the_new_transaction() -> None:
    db = run(DB, "[{:db/id 50 :age 5}]").db_after
    report = run(db, "[[:db/retract 50 :age 5] [:db/add 50 :age 5]]")
    assert report.db_after.facts(50, kw("age")) == [(5, report.tx)]


# --- compare and set ---------------------------------------------------------------------------


def test_compare_and_set_replaces_what_it_expects() -> None:
    db = run(DB, "[{:db/id 50 :age 5 :boss 1}]").db_after
    assert rows(run(db, "[[:db/cas 50 :age 5 6]]")) == [
        (50, ":age", 5, False),
        (50, ":age", 6, True),
    ]
    assert rows(run(db, "[[:db.fn/cas 50 :age 5 5]]")) == []
    assert run(db, "[[:db/cas 51 :age nil 6]]").db_after.values(51, kw("age")) == [6]
    assert run(db, "[[:db/cas 50 :boss :name :age]]").db_after.values(50, kw("boss")) == [2]


def test_compare_and_set_refuses_what_it_does_not_expect() -> None:
    db = run(DB, "[{:db/id 50 :age 5 :tag [:a]}]").db_after
    for text in ("50 :age 6 7", "50 :age nil 7", "51 :age 5 6", "50 :age 5.0 7", "50 :tag :b :c"):
        with pytest.raises(TransactCas):
            run(db, f"[[:db/cas {text}]]")


def test_compare_and_set_names_what_it_found() -> None:
    db = run(DB, "[{:db/id 50 :age 5}]").db_after
    with pytest.raises(TransactCas, match="is 5, not 6") as caught:
        run(db, "[[:db/cas 50 :age 6 7]]")
    assert caught.value.data["found"] == [5]


@pytest.mark.parametrize(
    "text", ["50 :age 5 nil", '"x" :age nil 5', "-1 :age nil 5", "50 :age 5", '50 :boss nil "x"']
)
def test_compare_and_set_wants_an_entity_and_a_value(text: str) -> None:
    db = run(DB, "[{:db/id 50 :age 5}]").db_after
    with pytest.raises(TransactSyntax):
        run(db, f"[[:db/cas {text}]]")


def test_compare_and_set_only_adds_to_many_values() -> None:
    db = run(DB, "[{:db/id 50 :tag [:a]}]").db_after
    assert rows(run(db, "[[:db/cas 50 :tag :a :b]]")) == [(50, ":tag", kw("b"), True)]


# --- reading flexibility, caps, errors -----------------------------------------------------------


def test_without_declarations_any_value_is_one_value() -> None:
    db = Database.empty(DatabaseConfig(schema_flexibility="read"))
    report = run(db, "[{:a [3 1 2] :b {:x 1} :c #{1 1.0} :d 1} [:db/add 1 :d true]]")
    after = report.db_after
    assert after.values(1, kw("a")) == [(3, 1, 2)]
    assert after.values(1, kw("b")) == [{kw("x"): 1}]
    assert len(after.values(1, kw("c"))[0]) == 2
    assert after.values(1, kw("d")) == [True]


def test_what_has_no_stored_form_is_refused() -> None:
    db = Database.empty(DatabaseConfig(schema_flexibility="read"))
    with pytest.raises(NatalogError):
        process(db, [{"a": object()}], now_ms=0)


def test_lengths_are_bounded_by_database_and_attribute() -> None:
    db = make(max_string_length=5)
    with pytest.raises(TransactMaxLength):
        run(db, '[{:note "123456"}]')
    db = run(DB, "[{:db/ident :note :db/maxLength 3}]").db_after
    run(db, '[{:note "123"}]')
    with pytest.raises(TransactMaxLength) as caught:
        run(db, '[{:note "1234"}]')
    assert caught.value.data == {"attribute": kw("note"), "length": 4, "max_length": 3}


def test_errors_name_what_was_wrong() -> None:
    with pytest.raises(TransactSchema) as caught:
        run(DB, '[{:age "old"}]')
    assert caught.value.data["attribute"] is kw("age")
    assert caught.value.data["value"] == "old"
    with pytest.raises(TransactSchema, match=":nosuch is not declared"):
        run(DB, "[{:nosuch 1}]")


def test_the_caller_keeps_what_it_wrote() -> None:
    operation = {"name": "Ines", "tag": [":a"], "boss": {"name": "Otto"}}
    written = {"name": "Ines", "tag": [":a"], "boss": {"name": "Otto"}}
    process(DB, [operation], {"note": "x"}, now_ms=0)
    assert operation == written
    assert isinstance(next(iter(operation)), str) and not isinstance(next(iter(operation)), Keyword)


def test_errors_stay_short_however_long_the_data() -> None:
    for operation in (
        {"age": "x" * 100_000},
        {"nosuch": list(range(100_000))},
        ["db/add", 50, "age", ["y" * 100_000]],
        ["db/nosuch", *range(100_000)],
    ):
        with pytest.raises(NatalogError) as caught:
            process(DB, [operation], now_ms=0)
        assert len(str(caught.value)) < 1000
        assert len(repr(caught.value.data)) < 1000

"""How a declaration may change: the same rule for every way of writing it."""

from __future__ import annotations

from typing import Any

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import TransactSchema
from natalog.core.limits import CONFLICTS_MAX
from natalog.core.schema import Attribute
from natalog.core.transact import SchemaConflict, process, schema_conflicts
from natalog.core.values import Keyword, kw

BASE = """
[{:db/id 1 :db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/id 2 :db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/id 3 :db/ident :tag :db/valueType :db.type/keyword :db/cardinality :db.cardinality/many}
 {:db/id 4 :db/ident :town :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/index true}
 {:db/id 5 :db/ident :pair :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one
  :db/tupleTypes [:db.type/long :db.type/long]}]
"""
FACTS = '[{:db/id 50 :name "Ines" :age 41 :tag [:a :b] :town "Oslo" :pair [1 2]}]'


def unused(**config: Any) -> Database:
    return process(Database.empty(DatabaseConfig(**config)), read(BASE), now_ms=0).db_after


def after(db: Database, text: str) -> Database:
    return process(db, read(text), now_ms=0).db_after


def used(**config: Any) -> Database:
    return after(unused(**config), FACTS)


def attribute(db: Database, ident: Keyword) -> Attribute:
    found = db.schema.get(ident)
    assert found is not None
    return found


# the same change as a map, as single facts, and with an explicit retraction first
RETYPE = [
    "[{:db/ident :age :db/valueType :db.type/string}]",
    "[[:db/add 2 :db/valueType :db.type/string]]",
    "[[:db/retract 2 :db/valueType :db.type/long] [:db/add 2 :db/valueType :db.type/string]]",
]
RENAME = [
    "[{:db/id 2 :db/ident :years}]",
    "[[:db/add 2 :db/ident :years]]",
    "[[:db/retract 2 :db/ident :age] [:db/add 2 :db/ident :years]]",
]
REMOVE = ["[[:db/retractEntity 2]]", "[[:db/retractEntity :age]]", "[[:db.purge/entity :age]]"]
RESHAPE = [
    "[{:db/ident :pair :db/tupleTypes [:db.type/string :db.type/long]}]",
    "[[:db/add 5 :db/tupleTypes [:db.type/string :db.type/long]]]",
]


@pytest.mark.parametrize("text", RETYPE + RENAME + REMOVE)
def test_type_and_name_of_a_used_attribute_are_fixed(text: str) -> None:
    with pytest.raises(TransactSchema, match=r":age cannot be"):
        after(used(), text)


@pytest.mark.parametrize("text", RETYPE + RENAME + REMOVE)
def test_unused_includes_the_history(text: str) -> None:
    db = after(used(), "[[:db/retract 50 :age]]")
    with pytest.raises(TransactSchema, match="history"):
        after(db, text)


@pytest.mark.parametrize("text", RETYPE + RENAME + REMOVE)
def test_a_use_earlier_in_the_transaction_counts(text: str) -> None:
    with pytest.raises(TransactSchema):
        after(unused(), "[[:db/add 60 :age 5] [:db/retract 60 :age 5] " + text[1:])


@pytest.mark.parametrize("text", RETYPE)
def test_an_unused_attribute_may_get_another_type(text: str) -> None:
    assert attribute(after(unused(), text), kw("age")).value_type == "string"


@pytest.mark.parametrize("text", RENAME)
def test_an_unused_attribute_may_be_renamed(text: str) -> None:
    schema = after(unused(), text).schema
    assert schema.get(kw("age")) is None
    assert schema.get(kw("years")) is not None
    assert kw("age") not in schema.idents


@pytest.mark.parametrize("text", REMOVE)
def test_an_unused_attribute_may_be_removed(text: str) -> None:
    db = after(unused(), text)
    assert db.schema.get(kw("age")) is None
    with pytest.raises(TransactSchema, match=":age is not declared"):
        after(db, "[{:age 5}]")


@pytest.mark.parametrize("text", RESHAPE)
@pytest.mark.parametrize("make", [unused, used])
def test_the_shape_of_a_tuple_never_changes(text: str, make: Any) -> None:
    with pytest.raises(TransactSchema, match="shape"):
        after(make(), text)


def test_purging_every_use_makes_an_attribute_unused() -> None:
    db = after(used(), "[[:db.purge/attribute 50 :age]]")
    assert after(db, "[[:db/retractEntity :age]]").schema.get(kw("age")) is None


def test_without_history_only_present_facts_are_uses() -> None:
    db = after(used(keep_history=False), "[[:db/retract 50 :age]]")
    assert after(db, RENAME[0]).schema.get(kw("years")) is not None


def test_doc_history_components_and_lengths_change_at_any_time() -> None:
    db = after(
        used(),
        '[{:db/ident :town :db/doc "where" :db/noHistory true :db/maxLength 9}'
        " {:db/ident :name :db/isComponent true}]",
    )
    town = attribute(db, kw("town"))
    assert (town.doc, town.no_history, town.max_length) == ("where", True, 9)


# --- cardinality -------------------------------------------------------------------------------


def test_one_value_may_become_many() -> None:
    db = after(
        used(), "[{:db/ident :age :db/cardinality :db.cardinality/many} {:db/id 50 :age 42}]"
    )
    assert db.values(50, kw("age")) == [41, 42]


@pytest.mark.parametrize("make", [unused, used])
def test_a_unique_attribute_keeps_one_value(make: Any) -> None:
    with pytest.raises(TransactSchema, match="unique"):
        after(make(), "[{:db/ident :name :db/cardinality :db.cardinality/many}]")


def test_many_values_may_become_one_where_none_has_two() -> None:
    narrow = "[{:db/ident :tag :db/cardinality :db.cardinality/one}]"
    with pytest.raises(TransactSchema, match="entity 50") as caught:
        after(used(), narrow)
    assert caught.value.data["entity"] == 50
    db = after(used(), "[[:db/retract 50 :tag :a]]")
    assert not attribute(after(db, narrow), kw("tag")).many


def test_narrowing_sees_the_operations_before_it() -> None:
    db = after(
        used(),
        "[[:db/retract 50 :tag :a] [:db/add 3 :db/cardinality :db.cardinality/one]"
        " [:db/add 50 :tag :c]]",
    )
    assert db.values(50, kw("tag")) == [kw("c")]


# --- indexes and uniqueness ----------------------------------------------------------------------

ADD_INDEX = "[{:db/ident :age :db/index true}]"
ADD_UNIQUE = "[{:db/ident :age :db/unique :db.unique/identity}]"


@pytest.mark.parametrize("text", [ADD_INDEX, ADD_UNIQUE])
def test_an_unused_attribute_may_be_indexed_or_unique(text: str) -> None:
    db = after(after(unused(), text), FACTS)
    assert [d.e for d in db.datoms("avet", [kw("age"), 41])] == [50]


@pytest.mark.parametrize("text", [ADD_INDEX, ADD_UNIQUE])
def test_a_used_attribute_needs_backfill_for_that(text: str) -> None:
    with pytest.raises(TransactSchema, match="backfill"):
        after(used(), text)
    db = after(used(allow_index_backfill=True), text)
    assert [d.e for d in db.datoms("avet", [kw("age"), 41])] == [50]


def test_duplicates_forbid_uniqueness() -> None:
    db = after(used(allow_index_backfill=True), '[{:name "Otto" :age 41}]')
    with pytest.raises(TransactSchema, match="41"):
        after(db, ADD_UNIQUE)
    freed = "[[:db/retract 50 :age 41] " + ADD_UNIQUE[1:]
    assert attribute(after(db, freed), kw("age")).unique == "identity"


def test_new_uniqueness_holds_in_the_same_transaction() -> None:
    db = used(allow_index_backfill=True)
    later = after(db, "[[:db/add 60 :age 7] " + ADD_UNIQUE[1:-1] + ' {:age 7 :town "Bergen"}]')
    assert later.values(60, kw("town")) == ["Bergen"]


def test_uniqueness_may_be_taken_away() -> None:
    db = after(used(), "[[:db/retract 1 :db/unique :db.unique/identity]]")
    assert attribute(db, kw("name")).unique is None


def test_the_index_of_a_used_attribute_stays() -> None:
    drop = "[[:db/add 4 :db/index false]]"
    with pytest.raises(TransactSchema, match="index"):
        after(used(), drop)
    assert not attribute(after(unused(), drop), kw("town")).index


def test_parts_of_a_composite_stay_as_they_are() -> None:
    db = after(
        unused(),
        "[{:db/ident :key :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one"
        " :db/tupleAttrs [:age :town]}]",
    )
    for text in (
        "[{:db/ident :age :db/cardinality :db.cardinality/many}]",
        "[[:db/retractEntity :age]]",
        "[{:db/id 2 :db/ident :years}]",
    ):
        with pytest.raises(TransactSchema, match="composite"):
            after(db, text)


def test_a_refused_change_names_the_attribute_and_its_entity() -> None:
    with pytest.raises(TransactSchema) as caught:
        after(used(), RENAME[0])
    assert caught.value.data == {"attribute": kw("age"), "entity": 2, "entities": [50]}


def conflicts(db: Database, text: str, **options: Any) -> list[SchemaConflict]:
    return schema_conflicts(db, read(text), now_ms=0, **options)


def test_a_dry_run_lists_all_entities_in_the_way() -> None:
    db = after(
        used(allow_index_backfill=True),
        '[{:db/id 51 :tag [:a :b :c] :town "Oslo"} {:db/id 52 :town "Rome"}]',
    )
    change = """[{:db/ident :tag :db/cardinality :db.cardinality/one}
                 {:db/ident :town :db/unique :db.unique/value}
                 {:db/ident :age :db/valueType :db.type/string}]"""
    found = {conflict.attribute: conflict for conflict in conflicts(db, change)}
    assert found[kw("tag")].entities == [50, 51]
    assert (found[kw("town")].entities, found[kw("town")].values) == ([50, 51], ["Oslo"])
    assert found[kw("age")].entities == [50]
    assert conflicts(db, change, limit=1)[0].entities == [50]
    with pytest.raises(TransactSchema) as caught:
        after(db, change)
    assert caught.value.message in {conflict.message for conflict in found.values()}
    assert caught.value.data["entities"]


def test_a_dry_run_of_an_allowed_change_finds_nothing() -> None:
    db = used(allow_index_backfill=True)
    before = db.schema.read_out()
    assert conflicts(db, "[{:db/ident :town :db/unique :db.unique/value}]") == []
    assert conflicts(db, '[{:name "Ann" :age 5}]') == []
    assert db.schema.read_out() == before


def test_a_dry_run_sees_what_the_transaction_itself_changes() -> None:
    db = used()
    change = "[{:db/ident :tag :db/cardinality :db.cardinality/one}]"
    assert [conflict.entities for conflict in conflicts(db, change)] == [[50]]
    assert conflicts(db, f"[[:db/retract 50 :tag :a] {change[1:-1]}]") == []


def test_a_dry_run_raises_what_else_is_wrong() -> None:
    with pytest.raises(TransactSchema):
        conflicts(used(), "[{:nonsense 5}]")


def test_an_error_names_a_bounded_number_of_entities() -> None:
    facts = " ".join(f"{{:db/id {e} :tag [:a :b]}}" for e in range(100, 200))
    db = after(unused(), f"[{facts}]")
    with pytest.raises(TransactSchema) as caught:
        after(db, "[{:db/ident :tag :db/cardinality :db.cardinality/one}]")
    assert caught.value.data["entities"] == list(range(100, 100 + CONFLICTS_MAX))

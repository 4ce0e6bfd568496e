"""The schema follows the facts that declare it."""

from __future__ import annotations

from typing import Any

import pytest

from natalog.core.changes import Purge
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import NatalogError, TransactSchema
from natalog.core.schema import SYSTEM, Schema
from natalog.core.transact import process
from natalog.core.values import Datom, kw

PEOPLE = """
[{:db/ident :person/name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity :db/doc "how one is called"}
 {:db/ident :person/age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/ident :person/tag :db/valueType :db.type/keyword :db/cardinality :db.cardinality/many}
 {:db/ident :person/boss :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}]
"""


def empty(**config: Any) -> Database:
    return Database.empty(DatabaseConfig(**config))


def after(db: Database, text: str) -> Database:
    return process(db, read(text), now_ms=0).db_after


def test_an_attribute_is_read_from_its_facts() -> None:
    name = after(empty(), PEOPLE).schema.get(kw("person/name"))
    assert name is not None
    assert (name.eid, name.value_type, name.many, name.unique) == (1, "string", False, "identity")
    assert name.doc == "how one is called"
    assert name.is_unique and name.has_avet and not name.is_ref


def test_refs_uniques_and_indexed_attributes_are_indexed_by_value() -> None:
    schema = after(empty(), PEOPLE).schema
    indexed = [attribute.ident for attribute in schema.attributes() if attribute.has_avet]
    assert indexed == [kw("person/boss"), kw("person/name")]


def test_system_attributes_exist_without_facts() -> None:
    db = empty()
    assert db.datoms("eavt") == []
    assert db.schema.attributes() == []
    for ident, attribute in SYSTEM.items():
        assert db.schema.get(ident) is attribute


def test_any_entity_may_have_an_ident() -> None:
    schema = after(empty(), '[{:db/ident :status/open :db/doc "not done"}]').schema
    assert schema.idents == {kw("status/open"): 1}
    assert schema.ident_of(1) is kw("status/open")
    assert schema.get(kw("status/open")) is None
    assert schema.attributes() == []
    assert schema.read_out()[kw("status/open")] == {
        kw("db/id"): 1,
        kw("db/ident"): kw("status/open"),
        kw("db/doc"): "not done",
    }
    assert schema.reverse_read_out() == {kw("db/ident"): {kw("status/open")}}


def test_facts_that_are_no_schema_leave_the_schema_as_it_is() -> None:
    schema = after(empty(), PEOPLE).schema
    assert schema.after([Datom(9, kw("person/age"), 3, 1)]) is schema


def test_unchanged_attributes_stay_the_same_objects() -> None:
    before = after(empty(), PEOPLE)
    later = after(before, '[{:db/ident :person/age :db/doc "in years"}]')
    assert later.schema.get(kw("person/name")) is before.schema.get(kw("person/name"))
    assert later.schema.get(kw("person/age")) is not before.schema.get(kw("person/age"))


def test_a_purged_declaration_leaves_the_schema() -> None:
    schema = after(empty(), PEOPLE).schema
    facts = [Purge(2, prop, value) for prop, (value,) in schema.props_of(2).items()]
    assert schema.after([], None, facts).get(kw("person/age")) is None


def test_purging_old_wordings_keeps_the_current_one() -> None:
    schema = after(empty(), PEOPLE).schema
    old = Purge(1, kw("db/doc"), "how one is called", closed_before_ms=5)
    assert schema.after([], None, [old]) is schema


def test_the_read_out_lists_properties_as_they_were_said() -> None:
    out = after(empty(), PEOPLE).schema.read_out()
    assert out[kw("person/tag")] == {
        kw("db/id"): 3,
        kw("db/ident"): kw("person/tag"),
        kw("db/valueType"): kw("db.type/keyword"),
        kw("db/cardinality"): kw("db.cardinality/many"),
    }
    assert list(out) == sorted(out)


def test_the_reverse_read_out_groups_attributes_by_property() -> None:
    out = after(empty(), PEOPLE).schema.reverse_read_out()
    assert out[kw("db/index")] == {kw("person/boss"), kw("person/name")}
    assert out[kw("db.type/ref")] == {kw("person/boss")}
    assert out[kw("db.cardinality/many")] == {kw("person/tag")}
    assert kw("db/isComponent") not in out


def test_composites_are_listed_under_their_parts() -> None:
    db = after(
        after(empty(), PEOPLE),
        "[{:db/ident :person/key :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one"
        " :db/tupleAttrs [:person/name :person/age]}]",
    )
    assert [c.ident for c in db.schema.composites[kw("person/age")]] == [kw("person/key")]
    parts = dict(db.schema.reverse_read_out()[kw("db/attrTuples")])
    assert parts[kw("person/age")] == {kw("person/key"): 1}


def test_a_schema_folds_from_the_facts_of_a_database() -> None:
    db = after(empty(), PEOPLE)
    assert Schema.empty().after(db.datoms("eavt")).read_out() == db.schema.read_out()


# --- declarations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "declaration",
    [
        "{:db/ident :a}",
        '{:db/ident :a :db/doc "only an ident"}',
        "{:db/ident :a :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one"
        " :db/tupleTypes [:db.type/long :db.type/string]}",
        "{:db/ident :dbx/a :db/valueType :db.type/bytes :db/cardinality :db.cardinality/one"
        " :db/maxLength 5}",
    ],
)
def test_whole_declarations_are_accepted(declaration: str) -> None:
    after(empty(), f"[{declaration}]")


@pytest.mark.parametrize(
    "declaration",
    [
        "{:db/ident :a :db/valueType :db.type/string}",
        "{:db/ident :a :db/cardinality :db.cardinality/one}",
        "{:db/ident :a :db/index true}",
        "{:db/valueType :db.type/string :db/cardinality :db.cardinality/one}",
        "{:db/ident :a :db/valueType :db.type/nosuch :db/cardinality :db.cardinality/one}",
        "{:db/ident :a :db/valueType :string :db/cardinality :db.cardinality/one}",
        "{:db/ident :a :db/valueType :db.type/string :db/cardinality :db.cardinality/few}",
        "{:db/ident :a :db/valueType :db.type/string :db/cardinality :db.cardinality/one"
        " :db/unique :db.unique/maybe}",
        "{:db/ident :a :db/valueType :db.type/string :db/cardinality :db.cardinality/one"
        " :db/index 1}",
        "{:db/ident :a :db/valueType :db.type/string :db/cardinality :db.cardinality/one"
        " :db/maxLength 0}",
        "{:db/ident :db/a :db/valueType :db.type/string :db/cardinality :db.cardinality/one}",
        "{:db/ident :db.mine/a}",
        "{:db/ident :person/_a :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}",
        "{:db/ident :a :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one}",
        "{:db/ident :a :db/valueType :db.type/long :db/cardinality :db.cardinality/one"
        " :db/tupleType :db.type/long}",
        "{:db/ident :a :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one"
        " :db/tupleType :db.type/tuple}",
        "{:db/ident :a :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one"
        " :db/tupleTypes [:db.type/long :nosuch]}",
        "{:db/ident :a :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one"
        " :db/tupleAttrs [:person/name :pair]}",
        "{:db/ident :a :db/valueType :db.type/tuple :db/cardinality :db.cardinality/many"
        " :db/tupleAttrs [:person/name :person/age]}",
        "{:db/ident :a :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one"
        " :db/tupleAttrs [:person/name :person/tag]}",
    ],
)
def test_broken_declarations_are_refused(declaration: str) -> None:
    pair = (
        "[{:db/ident :pair :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one"
        " :db/tupleType :db.type/long}]"
    )
    with pytest.raises(TransactSchema):
        after(after(after(empty(), PEOPLE), pair), f"[{declaration}]")


def test_a_declaration_may_be_written_fact_by_fact_in_any_order() -> None:
    db = after(
        empty(),
        '[[:db/add "a" :db/cardinality :db.cardinality/one] [:db/add "a" :db/ident :a]'
        ' [:db/add "a" :db/valueType :db.type/long] {:a 5}]',
    )
    assert db.values(2, kw("a")) == [5]


def test_under_reading_flexibility_only_references_and_tuples_are_held_to_their_type() -> None:
    db = after(
        empty(schema_flexibility="read"),
        "[{:db/ident :age :db/valueType :db.type/long}"
        " {:db/ident :boss :db/valueType :db.type/ref}]",
    )
    db = after(db, '[{:db/id 5 :age "old"} {:db/id 6 :age 7 :boss 5}]')
    assert db.values(5, kw("age")) == ["old"]
    assert db.schema.read_out()[kw("age")][kw("db/valueType")] is kw("db.type/long")
    with pytest.raises(TransactSchema):
        after(db, "[{:db/id 6 :boss 2.5}]")


def test_reading_flexibility_needs_no_declaration() -> None:
    db = after(empty(schema_flexibility="read"), "[{:db/ident :tag :db/index true} {:tag 1 :b 2}]")
    assert db.values(2, kw("b")) == [2]


def test_system_attributes_are_checked_under_every_flexibility() -> None:
    for text in ("[{:db/ident 5}]", "[{:db/doc :no-text}]", "[{:db/id 5 :db/txInstant 7}]"):
        with pytest.raises(NatalogError):
            after(empty(schema_flexibility="read"), text)

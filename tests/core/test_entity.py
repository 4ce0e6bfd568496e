"""Entities as lazy maps."""

from __future__ import annotations

from typing import Any

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.entity import Entity, entity
from natalog.core.errors import EntityIdSyntax, LookupRefUnique, ViewRefused
from natalog.core.transact.process import process
from natalog.core.values import FrozenMap, kw

SCHEMA = """
[{:db/ident :p/name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :p/age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/ident :p/on :db/valueType :db.type/boolean :db/cardinality :db.cardinality/one}
 {:db/ident :p/aka :db/valueType :db.type/string :db/cardinality :db.cardinality/many}
 {:db/ident :p/boss :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
 {:db/ident :p/friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
 {:db/ident :p/part :db/valueType :db.type/ref :db/cardinality :db.cardinality/many
  :db/isComponent true}]
"""
PEOPLE = """
[{:db/id 101 :p/name "ann" :p/age 40 :p/aka ["a" "b"] :p/friend [102 103] :p/on false}
 {:db/id 102 :p/name "ben" :p/boss 101}
 {:db/id 103 :p/name "cat" :p/boss 101 :p/part [104]}
 {:db/id 104 :p/name "hat" :p/part [105]}
 {:db/id 105 :p/name "pin"}]
"""


def after(db: Database, tx_data: str) -> Database:
    return process(db, read(tx_data), None, now_ms=0).db_after


@pytest.fixture(scope="module")
def db() -> Database:
    return after(after(Database.empty(DatabaseConfig()), SCHEMA), PEOPLE)


def found(db: Database, ref: Any) -> Entity:
    entity_ = entity(db, ref)
    assert entity_ is not None
    return entity_


def test_which_entity(db: Database) -> None:
    assert found(db, 101).id == 101
    assert found(db, [kw("p/name"), "ben"]).id == 102
    assert found(db, kw("p/age"))["db/ident"] is kw("p/age")
    assert entity(db, None) is None
    assert entity(db, [kw("p/name"), "zoe"]) is None
    assert entity(db, kw("no/ident")) is None
    with pytest.raises(EntityIdSyntax):
        entity(db, "101")
    with pytest.raises(LookupRefUnique):
        entity(db, [kw("p/age"), 40])


def test_any_number_is_an_entity_if_an_empty_one(db: Database) -> None:
    nobody = found(db, 99999)
    assert len(nobody) == 0 and list(nobody) == []
    assert nobody.to_dict() == {kw("db/id"): 99999}


def test_attributes(db: Database) -> None:
    ann = found(db, 101)
    assert ann["p/name"] == ann[":p/name"] == ann[kw("p/name")] == ann("p/name") == "ann"
    assert ann["db/id"] == 101
    assert ann["p/aka"] == {"a", "b"}
    assert ann["p/on"] is False and "p/on" in ann
    assert "p/boss" not in ann and ann.get("p/boss") is None and ann("p/boss", 5) == 5
    assert "no/such" not in ann and 5 not in ann
    with pytest.raises(KeyError):
        ann["p/boss"]
    assert set(ann) == {kw(f"p/{name}") for name in ("name", "age", "aka", "friend", "on")}
    assert len(ann) == 5


def test_navigation(db: Database) -> None:
    ben = found(db, 102)
    assert ben["p/boss"]["p/name"] == "ann"
    assert {friend["p/name"] for friend in ben["p/boss"]["p/friend"]} == {"ben", "cat"}
    assert found(db, 101)["p/_boss"] == {found(db, 102), found(db, 103)}
    assert found(db, 104)["p/_part"] == found(db, 103)
    assert "p/_boss" not in ben and "p/_part" not in ben and "p/_name" not in ben


def test_touch_reads_components_too(db: Database) -> None:
    cat = found(db, 103)
    assert cat.touch() is cat
    (hat,) = cat["p/part"]
    assert hat["p/part"] == {found(db, 105)}


def test_touch_ends_on_cycles_of_components(db: Database) -> None:
    ring = after(db, "[[:db/add 105 :p/part 103]]")
    assert found(ring, 103).touch()["p/name"] == "cat"


def test_equality_is_by_database_value_and_id(db: Database) -> None:
    assert found(db, 101) == found(db, 101) and found(db, 101) != found(db, 102)
    assert len({found(db, 101), found(db, 101)}) == 1
    assert found(db, 101) != found(after(db, "[[:db/add 101 :p/age 41]]"), 101)
    assert found(db, 101) != 101 and found(db, 101).db is db


def test_entities_cannot_be_changed(db: Database) -> None:
    ann: Any = found(db, 101)
    with pytest.raises(TypeError):
        ann["p/age"] = 5
    with pytest.raises(AttributeError):
        ann.id = 5


def test_as_a_map(db: Database) -> None:
    assert found(db, 101).to_dict() == {
        kw("db/id"): 101,
        kw("p/name"): "ann",
        kw("p/age"): 40,
        kw("p/on"): False,
        kw("p/aka"): {"a", "b"},
        kw("p/friend"): {FrozenMap({kw("db/id"): e}) for e in (102, 103)},
    }
    assert found(db, 102).to_dict()[kw("p/boss")] == {kw("db/id"): 101}


def test_views(db: Database) -> None:
    now = after(db, "[[:db/add 101 :p/age 41]]")
    assert found(now.as_of(db.max_tx), 101)["p/age"] == 40
    assert found(now.since(db.max_tx), 101).to_dict() == {kw("db/id"): 101, kw("p/age"): 41}
    assert entity(now.since(db.max_tx), [kw("p/name"), "ann"]) is None
    with pytest.raises(ViewRefused):
        entity(db.history(), 101)


def test_without_a_schema() -> None:
    loose = after(
        Database.empty(DatabaseConfig(schema_flexibility="read")),
        "[{:db/id 1 :n 5 :link 2}]",
    )
    assert found(loose, 1).to_dict() == {kw("db/id"): 1, kw("n"): 5, kw("link"): 2}

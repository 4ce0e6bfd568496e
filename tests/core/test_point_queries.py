"""Queries that follow unique values to one row answer what relations would answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import NatalogError
from natalog.core.query import Plan, q
from natalog.core.query.analysis import analysis_of
from natalog.core.query.parse import parse_query
from natalog.core.transact import process
from natalog.core.values import Keyword

K = Keyword

SCHEMA = """
[{:db/ident :id :db/valueType :db.type/long :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :email :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/value}
 {:db/ident :code :db/valueType :db.type/keyword :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
 {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/ident :tag :db/valueType :db.type/string :db/cardinality :db.cardinality/many}
 {:db/ident :born :db/valueType :db.type/instant :db/cardinality :db.cardinality/one}
 {:db/ident :weight :db/valueType :db.type/double :db/cardinality :db.cardinality/one}
 {:db/ident :boss :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
 {:db/ident :twin :db/valueType :db.type/ref :db/cardinality :db.cardinality/one
  :db/unique :db.unique/value}
 {:db/ident :never :db/valueType :db.type/long :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}]
"""

DATA = """
[{:db/id "a" :id 1 :email "a@x" :code :a :name "Ann" :age 1 :tag ["x" "y"] :weight 1.0
  :born #inst "2020-01-01"}
 {:db/id "b" :id 2 :email "b@x" :code :b :name "Bob" :age 2 :boss "a" :twin "a"}
 {:db/id "c" :id 3 :name "Cat" :age 3 :boss "b" :twin "c"}]
"""

QUERIES = [
    "[:find ?n . :in $ ?id :where [?e :id ?id] [?e :name ?n]]",
    "[:find ?n ?id :in $ ?id :where [?e :name ?n] [?e :id ?id]]",
    "[:find [?n ?a] :in $ ?id :where [?e :id ?id] [?e :name ?n] [?e :age ?a]]",
    "[:find [?n ...] :in $ ?id :where [?e :id ?id] [?e :name ?n]]",
    "[:find ?e ?tx :in $ ?id :where [?e :id ?id ?tx] [?e :name _ ?tx]]",
    "[:find ?e ?tx :in $ ?id :where [?e :id ?id] [?e :name _ ?tx] [?tx :db/txInstant _]]",
    "[:find ?bn :in $ ?id :where [?e :id ?id] [?e :boss ?b] [?b :name ?bn]]",
    "[:find ?t :in $ ?id :where [?e :id ?id] [?t :twin ?e]]",
    "[:find ?e :in $ ?id :where [?e :id ?id] [?e :twin ?e]]",
    "[:find ?e :in $ ?id :where [?e :id ?id] [?e :age ?id]]",
    "[:find ?e :in $ ?id :where [?e :id ?id] [?e :weight ?id]]",
    "[:find ?n :in $ ?e :where [?e :name ?n]]",
    "[:find ?n :in $ ?e :where [?e :name ?n] [?e :age 1]]",
    '[:find ?e :in $ ?x :where [?e :email ?x] [?e :name "Ann"]]',
    "[:find ?e :in $ ?x :where [?e :code ?x]]",
    "[:find ?e ?x :in $ ?x :where [?e :never ?x]]",
    "[:find ?b ?w :in $ ?id :where [?e :id ?id] [?e :born ?b] [?e :weight ?w]]",
    "[:find ?n :keys name :in $ ?id :where [?e :id ?id] [?e :name ?n]]",
    "[:find ?n :with ?e :in $ ?id :where [?e :id ?id] [?e :name ?n]]",
    "[:find ?n :in $ ?x :where [1 :name ?n] [1 :age ?x]]",
    "[:find ?n :in $ ?x :where [[:id 1] :name ?n] [?e :id ?x]]",
    "[:find ?v :in $ ?id :where [?e :id ?id] [?e :tag ?v]]",
    "[:find ?v ?v2 :in $ ?v ?v2 :where [?v :name ?v2]]",
]

INPUTS: list[Any] = [
    *(0, 1, 2, 3, 1.0, True, 2**70, -(2**63), "a@x", "b@x", "Ann", K("a"), K("id"), None),
    *((K("id"), 1), [K("id"), 9], [K("email"), "b@x"], datetime(2020, 1, 1, tzinfo=UTC)),
    datetime(2020, 1, 1, 0, 0, 0, 7, tzinfo=UTC),
]


@pytest.fixture(scope="module")
def db() -> Database:
    made = process(Database.empty(), read(SCHEMA), now_ms=1).db_after
    return process(made, read(DATA), now_ms=2).db_after


def outcome(query: str, *inputs: Any, plan: Plan | None = None) -> Any:
    try:
        return q(query, *inputs, plan=plan).python()
    except NatalogError as error:
        return type(error), error.message


@pytest.mark.parametrize("query", QUERIES)
def test_one_row_is_found_as_relations_find_it(db: Database, query: str) -> None:
    count = query.count("?v2 :where") + 1
    eids = [d.e for d in db.datoms("aevt", [K("id")])]
    for value in [*INPUTS, *eids]:
        inputs = [value] * count
        assert outcome(query, db, *inputs) == outcome(query, db, *inputs, plan=Plan()), value


@pytest.mark.parametrize("query", QUERIES)
def test_views_of_the_past_find_the_same_row(db: Database, query: str) -> None:
    told = [
        '[{:id 1 :name "Eve" :age 5} [:db/retract [:id 2] :email]]',
        '[{:id 2 :email "a@x" :name "Bea"} [:db/retract [:id 1] :age]]',
        '[{:db/id :db/current-tx :db/txInstant #inst "1970-01-01T00:00:00.011Z"} {:id 1 :age 1}]',
    ]
    now = process(db, read("[[:db/retract [:id 1] :email] [:db/add [:id 3] :id 9]]"), now_ms=9)
    changed = now.db_after
    for ms, forms in enumerate(told, 10):
        changed = process(changed, read(forms), now_ms=ms).db_after
    points: list[Any] = [*range(db.max_tx - 1, changed.max_tx + 1)]
    points += [datetime(1970, 1, 1, 0, 0, 0, ms * 1000, tzinfo=UTC) for ms in (0, 2, 9, 11, 12)]
    views = [changed, changed.history()]
    for point in points:
        views += [changed.as_of(point), changed.since(point), changed.as_of(point).history()]
    views += [
        changed.as_of(db.max_tx + 2).since(db.max_tx),
        changed.since(points[2]).as_of(1 << 62),
    ]
    count = query.count("?v2 :where") + 1
    eids = [d.e for d in db.datoms("aevt", [K("id")])]
    for view in views:
        for value in (1, 2, 9, "a@x", "b@x", *eids):
            inputs = [value] * count
            assert outcome(query, view, *inputs) == outcome(query, view, *inputs, plan=Plan())


def test_the_lookup_of_a_unique_value_is_such_a_query(db: Database) -> None:
    query = parse_query(QUERIES[0])
    assert analysis_of(query).point(query, db.schema) is not None
    several = parse_query("[:find ?e :in $ ?n :where [?e :name ?n]]")
    assert analysis_of(several).point(several, db.schema) is None


def test_a_schema_that_says_otherwise_ends_it(db: Database) -> None:
    lookup = QUERIES[0]
    assert q(lookup, db, 1).python() == "Ann"
    more = process(db, read("[[:db/add :name :db/cardinality :db.cardinality/many]]"), now_ms=9)
    two = process(more.db_after, read('[{:id 1 :name "Eve"}]'), now_ms=10).db_after
    assert q("[:find [?n ...] :in $ ?id :where [?e :id ?id] [?e :name ?n]]", two, 1).python() == [
        "Ann",
        "Eve",
    ]

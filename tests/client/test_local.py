"""The database in this process keeps the promises that the client makes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from natalog import kw, local
from natalog.core.errors import (
    BranchNotFound,
    DatabaseExists,
    DatabaseNotFound,
    InvalidConfig,
    InvalidName,
    InvalidTimePoint,
    TransactSchema,
    TransactSyntax,
)
from natalog.core.limits import TX_BASE
from natalog.core.values import Datom

SCHEMA = """[
 {:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}]"""
NAME_AGE = "[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]"


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.ms = 1_577_836_800_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def registry() -> Iterator[local.Registry]:
    yield local.Registry()


@pytest.fixture
def people(registry: local.Registry) -> local.Conn:
    return registry.create_database("people", initial_tx=SCHEMA, clock=Clock())


def test_a_transaction_is_visible_in_the_next_value_only(people: local.Conn) -> None:
    before = people.db()
    report = people.transact([{"name": "Alice", "age": 25}])
    assert report.tx == TX_BASE + 2
    assert isinstance(report.commit_id, UUID)
    assert report.instant == datetime(2020, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
    assert Datom(3, kw("name"), "Alice", report.tx, True) in report.tx_data
    assert before.q(NAME_AGE) == set()
    assert people.db().q(NAME_AGE) == {("Alice", 25)}


def test_the_four_views_of_time(people: local.Conn) -> None:
    first = people.transact([{"name": "Alice", "age": 25}])
    people.transact([{"db/id": ["name", "Alice"], "age": 30}])
    db = people.db()
    assert db.q(NAME_AGE) == {("Alice", 30)}
    assert db.as_of(first).q(NAME_AGE) == {("Alice", 25)}
    assert first.instant is not None
    assert db.as_of(first.instant).q(NAME_AGE) == {("Alice", 25)}
    assert db.history().q(NAME_AGE) == {("Alice", 25), ("Alice", 30)}
    assert db.since(first.tx).q(NAME_AGE) == set()
    joined = "[:find ?n ?a :in $ $since :where [$ ?e :name ?n] [$since ?e :age ?a]]"
    assert db.q(joined, db.since(first.tx)) == {("Alice", 30)}


def test_an_id_is_applied_once(people: local.Conn) -> None:
    first = people.transact([{"name": "Alice"}], id="a")
    again = people.transact([{"name": "Bob"}], id="a")
    assert again.tx == first.tx
    assert again.repeated
    assert not first.repeated
    assert people.db().q("[:find [?n ...] :where [_ :name ?n]]") == ["Alice"]


def test_a_refused_transaction_changes_nothing(people: local.Conn) -> None:
    before = people.info()
    with pytest.raises(TransactSchema) as caught:
        people.transact([{"name": "Alice"}, {"height": 3}])
    assert caught.value.code == "TransactSchema"
    assert people.info() == before


def test_speculation_stores_nothing(people: local.Conn) -> None:
    db = people.db().with_([{"name": "Alice", "age": 25}])
    assert db.q(NAME_AGE) == {("Alice", 25)}
    report = people.db().with_report([{"name": "Alice", "age": 25}])
    assert report.commit_id is None
    assert people.db().q(NAME_AGE) == set()


def test_reads_have_the_shapes_of_the_contract(people: local.Conn) -> None:
    people.transact([{"name": "Alice", "age": 25}, {"name": "Bob", "age": 30}])
    db = people.db()
    assert db.q("[:find [?n ...] :where [_ :name ?n]]", order_by=None) in (
        ["Alice", "Bob"],
        ["Bob", "Alice"],
    )
    assert db.q('[:find ?a . :where [?e :name "Bob"] [?e :age ?a]]') == 30
    assert db.q("[:find [?n ?a] :where [?e :name ?n] [?e :age ?a] [(< ?a 30)]]") == ("Alice", 25)
    assert db.q(NAME_AGE, order_by=["?a", "desc"]) == [("Bob", 30), ("Alice", 25)]
    assert db.q(NAME_AGE, order_by="[?a :desc]", limit=1) == [("Bob", 30)]
    assert db.q('[:find ?n ?a :keys n a :where [?e :name ?n] [?e :age ?a] [?e :name "Bob"]]') == [
        {kw("n"): "Bob", kw("a"): 30}
    ]
    assert db.pull("[:name]", 3) == {kw("name"): "Alice"}
    assert db.pull_many("[:name]", [4, 3]) == [{kw("name"): "Bob"}, {kw("name"): "Alice"}]
    assert db.entity(["name", "Bob"]) == {kw("db/id"): 4, kw("name"): "Bob", kw("age"): 30}
    assert [d.v for d in db.datoms("aevt", "name")] == ["Alice", "Bob"]
    assert [d.v for d in db.index_range("name", "B", None)] == ["Bob"]
    assert kw("name") in db.schema()


def test_reports_are_replayed_from_any_transaction(people: local.Conn) -> None:
    live = people.reports()
    reports = [people.transact([{"name": name}]) for name in ("a", "b", "c")]
    assert list(people.reports(since=reports[0].tx)) == reports[1:]
    assert list(live) == reports
    people.transact([{"name": "d"}])
    assert [next(live).tx] == [reports[-1].tx + 1]


def test_equal_histories_have_equal_commit_ids() -> None:
    heads = []
    for name in ("people", "people", "others"):
        conn = local.Registry().create_database(name, initial_tx=SCHEMA, clock=Clock())
        conn.transact([{"name": "Alice", "age": 25}])
        heads.append(conn.branch_history()[0].commit_id)
    assert heads[0] == heads[1]
    assert heads[0] != heads[2]


def test_the_history_of_commits_is_a_chain(people: local.Conn) -> None:
    people.transact([{"name": "Alice"}])
    commits = people.branch_history()
    assert len(commits) == 3
    assert [c.parents for c in commits] == [
        (commits[1].commit_id,),
        (commits[2].commit_id,),
        (),
    ]
    assert people.info()["commit_id"] == commits[0].commit_id


def test_databases_are_found_by_name(registry: local.Registry) -> None:
    made = registry.create_database("one")
    made.transact("[{:db/ident :a}]")
    assert registry.database("one").info() == made.info()
    assert registry.database_exists("one")
    with pytest.raises(DatabaseExists):
        registry.create_database("one")
    assert [entry["database"] for entry in registry.list_databases()] == ["one"]
    assert registry.delete_database("one")
    assert not registry.delete_database("one")
    with pytest.raises(DatabaseNotFound):
        registry.database("one")


@pytest.mark.parametrize("name", ["", "_x", "a.b", "a b", "x" * 65, "ü"])
def test_names_that_are_no_subject_token_are_refused(registry: local.Registry, name: str) -> None:
    with pytest.raises(InvalidName):
        registry.create_database(name)


def test_unknown_settings_are_refused(registry: local.Registry) -> None:
    with pytest.raises(InvalidConfig):
        registry.create_database("one", keep_histry=False)


def test_what_is_not_served_says_so(people: local.Conn, registry: local.Registry) -> None:
    assert people.branches() == {"db"}
    with pytest.raises(BranchNotFound):
        registry.database("people", branch="foo")


@pytest.mark.parametrize("t", [True, "yesterday", 1.5, datetime(2020, 1, 1)])
def test_time_points_are_ids_or_aware_instants(people: local.Conn, t: object) -> None:
    with pytest.raises(InvalidTimePoint):
        people.db().as_of(t)  # type: ignore[arg-type]


def test_tx_data_may_be_text_or_the_map_form(people: local.Conn) -> None:
    people.transact('[{:name "Alice"}]')
    people.transact({"tx_data": [{"name": "Bob"}], "tx_meta": {"age": 1}})
    assert set(people.db().q("[:find [?n ...] :where [_ :name ?n]]")) == {"Alice", "Bob"}
    assert people.db().q("[:find ?a . :where [?tx :age ?a] [?tx :db/txInstant]]") == 1
    for wrong in ({"name": "Carol"}, 17, None):
        with pytest.raises(TransactSyntax):
            people.transact(wrong)


def test_one_point_zero_true_and_one_stay_apart(registry: local.Registry) -> None:
    conn = registry.create_database("mixed", schema_flexibility="read")
    conn.transact([{"a": 1}, {"a": 1.0}, {"a": True}])
    assert len(conn.db().q("[:find ?v :where [_ :a ?v]]")) == 3

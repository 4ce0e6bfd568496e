"""Facts of another database, loaded through the public API; on a service and in process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from natalog import kw, local, sync
from natalog.core.errors import TransactSyntax

SCHEMA = """
[{:db/ident :email :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}]
"""

Make = Callable[..., Any]


@pytest.fixture(params=["local", "service"])
def made(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make databases: connections of either kind have the same verbs."""
    fresh = request.getfixturevalue("fresh_name")
    if request.param == "local":
        registry = local.Registry()
        yield lambda **settings: registry.create_database(fresh(), **settings)
        return
    with sync.connect(request.getfixturevalue("service_url")) as client:

        def make(**settings: Any) -> Any:
            name = fresh()
            client.create_database(name, **settings)
            return client.database(name)

        yield make


def test_the_history_of_a_database_is_loaded_into_another(made: Make) -> None:
    source = made(initial_tx=SCHEMA)
    source.transact([{"email": "ann", "age": 1}])
    source.transact([{"email": "ann", "age": 2, "friend": {"email": "bob"}}])
    source.transact([["db/retract", ["email", "bob"], "age"]])
    target = made(initial_tx=SCHEMA)
    target.transact([{"email": "carl"}, {"email": "bob", "age": 7}])
    before = target.db()
    bob = before.entity(["email", "bob"])[kw("db/id")]

    report = target.load_entities(source.db().history().datoms("eavt"), {"email": "loader"})
    assert report.tx == before.basis + 1
    names = {old: new for old, new in report.tempids.items() if old != kw("db/current-tx")}
    old = source.db().q('[:find ?e . :where [?e :email "bob"]]')
    assert names[old] == bob
    found = target.db().pull("[:email :age {:friend [:email :age]}]", ["email", "ann"])
    assert found == {
        kw("email"): "ann",
        kw("age"): 2,
        kw("friend"): [{kw("email"): "bob", kw("age"): 7}],
    }
    assert target.db().entity(report.tx)[kw("email")] == "loader"
    assert {datom.tx for datom in report.tx_data} == {report.tx}


def test_rows_are_lists_rows_of_a_query_or_text(made: Make) -> None:
    conn = made(initial_tx=SCHEMA)
    assert set(conn.load_entities([[7, "age", 1], [7, kw("friend"), 8]]).tempids) == {
        kw("db/current-tx"),
        7,
        8,
    }
    rows = conn.db().q("[:find ?e ?a ?v ?t :where [?e ?a ?v ?t] [?e :age]]")
    assert len(rows) == 2
    assert len(conn.load_entities(rows).tx_data) == 3
    assert conn.load_entities("[[:db/add 5 :age 3 1]]", id="once").tempids[5] > 0
    assert conn.load_entities("[[:db/add 5 :age 3 1]]", id="once").repeated
    assert conn.db().with_([["db/load", [[1, "age", 99]]]]).q("[:find ?e . :where [?e :age 99]]")


@pytest.mark.parametrize(
    "rows", [5, "5", {}, [5], [[1, "age"]], [["x", "age", 1]], [[1, "age", None]]]
)
def test_malformed_rows_are_refused(rows: Any, made: Make) -> None:
    conn = made(initial_tx=SCHEMA)
    basis = conn.db().basis
    with pytest.raises(TransactSyntax):
        conn.load_entities(rows)
    assert conn.db().basis == basis

"""What changed: diffs, transactions read back, and the diff query; on a service and in process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from natalog import kw, local, sync
from natalog.cli import app
from natalog.core.errors import InvalidTimePoint, NoHistory, TransactSchema, ViewRefused
from natalog.core.limits import TX_BASE

OPEN: dict[str, Any] = {"schema_flexibility": "read"}
DIFF_QUERY = """[:find ?db-add ?e ?a ?v ?t :in $ $2 ?db-add
                 :where [$ ?e ?a ?v ?t] [(not= :db/txInstant ?a)] (not [$2 ?e ?a ?v ?t])]"""
ADD = kw("db/add")
NAME, AGE = kw("name"), kw("age")

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


def test_a_diff_has_the_facts_of_either_side(made: Make) -> None:
    conn = made(**OPEN)
    conn.transact([{"db/id": 1, "name": "Ann", "age": 1}])
    before = conn.db()
    conn.transact([{"db/id": 1, "age": 2}])
    found = conn.diff(before, conn.db())
    assert [fact for fact in found.added if fact[0] < TX_BASE] == [(1, AGE, 2)]
    assert found.removed == [(1, AGE, 1)]
    assert conn.diff(before, before) == type(found)()
    with pytest.raises(ViewRefused):
        conn.diff(before, conn.db().history())


def test_transactions_are_read_back_in_order_with_their_retractions(made: Make) -> None:
    conn = made(**OPEN)
    reports = [conn.transact([{"db/id": 1, "age": age}]) for age in (1, 2, 3)]
    found = conn.tx_range()
    assert [entry.tx for entry in found] == [report.tx for report in reports]
    assert [entry.instant for entry in found] == [report.instant for report in reports]
    assert all(isinstance(entry.instant, datetime) for entry in found)
    for entry, report in zip(found, reports, strict=True):
        assert set(entry.datoms) == set(report.tx_data)
    assert conn.tx_range(reports[1], reports[2]) == [found[1]]
    assert conn.tx_range(reports[1].tx) == found[1:]
    assert conn.tx_range(None, reports[1].tx) == found[:1]
    assert conn.tx_range(reports[2].tx, reports[0].tx) == []


def test_reading_transactions_back_needs_history_and_ids(made: Make) -> None:
    conn = made(keep_history=False, **OPEN)
    with pytest.raises(NoHistory):
        conn.tx_range()
    for wrong in (5, datetime(2020, 1, 1), "x"):
        with pytest.raises(InvalidTimePoint):
            made(**OPEN).tx_range(wrong)


def test_the_rows_of_the_diff_query_can_be_transacted(made: Make) -> None:
    conn = made(**OPEN)
    conn.transact([{"db/id": 1, "name": "Ann", "age": 1}])
    before = conn.db()
    conn.transact([{"db/id": 1, "age": 2}, {"db/id": 2, "name": "Bob"}])
    after = conn.db()
    rows = after.q(DIFF_QUERY, before, ADD)
    tx = after.basis
    assert rows == {(ADD, 1, AGE, 2, tx), (ADD, 2, NAME, "Bob", tx)}
    assert before.q(DIFF_QUERY, after, ADD) == {(ADD, 1, AGE, 1, before.basis)}
    assert after.q(DIFF_QUERY, after, ADD) == set()

    other = made(**OPEN)
    other.transact([{"db/id": 1, "name": "Ann", "age": 1}])
    other.transact(list(rows))
    people = "[:find ?e ?a ?v :where [?e ?a ?v] [(not= ?a :db/txInstant)]]"
    assert other.db().q(people) == after.q(people)


def test_the_command_line_shows_a_range_of_the_log(
    service_url: str, fresh_name: Callable[[], str]
) -> None:
    name = fresh_name()
    with sync.connect(service_url) as client:
        client.create_database(name, **OPEN)
        conn = client.database(name)
        txs = [conn.transact([{"age": age}]).tx for age in (1, 2, 3)]
    command = ["log", name, "--json", "--nats", service_url]
    ranged = CliRunner().invoke(app, [*command, "--from", str(txs[1]), "--to", str(txs[2])])
    assert [json.loads(line)["tx"] for line in ranged.stdout.splitlines()] == [txs[1]]
    explained = CliRunner().invoke(
        app,
        ["q", name, "[:find ?a :where [?e :age ?a]]", "--explain", "--json", "--nats", service_url],
    )
    assert json.loads(explained.stdout)["stats"]["rows"] == 3


SCHEMA = """[{:db/ident :tag :db/valueType :db.type/string :db/cardinality :db.cardinality/many}
             {:db/ident :town :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]"""
CHANGE = """[{:db/ident :tag :db/cardinality :db.cardinality/one}
             {:db/ident :town :db/unique :db.unique/value}]"""


def test_a_schema_change_can_be_tried_out(made: Make) -> None:
    conn = made(initial_tx=SCHEMA, allow_index_backfill=True)
    conn.transact([{"tag": ["a", "b"], "town": "Oslo"}, {"town": "Oslo"}])
    first, second = conn.db().q("[:find [?e ...] :where [?e :town]]")
    one, two = sorted([first, second])
    crowded, shared = conn.db().schema_conflicts(CHANGE)
    assert (crowded.attribute, crowded.entities, crowded.values) == (kw("tag"), [one], [])
    assert (shared.attribute, shared.entities, shared.values) == (kw("town"), [one, two], ["Oslo"])
    assert conn.db().schema_conflicts('[{:town "Rome"}]', limit=5) == []
    with pytest.raises(TransactSchema) as caught:
        conn.transact(CHANGE)
    assert caught.value.data["entities"] in ([one], [one, two])


def test_the_command_line_shows_what_is_in_the_way(
    service_url: str, fresh_name: Callable[[], str]
) -> None:
    name = fresh_name()
    with sync.connect(service_url) as client:
        client.create_database(name, initial_tx=SCHEMA)
        client.database(name).transact([{"tag": ["a", "b"]}])
    command = ["transact", name, CHANGE, "--dry-run", "--json", "--nats", service_url]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert json.loads(done.stdout)[0]["attribute"] == ":tag"

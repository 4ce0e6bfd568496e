"""Counts of the facts of a database value; on a service and in process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from natalog import kw, local, sync

OPEN: dict[str, Any] = {"schema_flexibility": "read"}

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


def test_metrics_count_what_a_view_shows(made: Make) -> None:
    conn = made(**OPEN)
    first = conn.transact([{"db/id": 1, "name": "Ann", "age": 1}, {"db/id": 2, "name": "Bob"}])
    second = conn.transact([{"db/id": 1, "age": 2}])
    name, age, instant = kw("name"), kw("age"), kw("db/txInstant")
    assert conn.db().metrics() == {
        kw("count"): 5,
        kw("avet-count"): 2,
        kw("per-attr-counts"): {name: 2, age: 1, instant: 2},
        kw("per-entity-counts"): {1: 2, 2: 1, first.tx: 1, second.tx: 1},
        kw("temporal-count"): 7,
        kw("temporal-avet-count"): 2,
    }
    assert conn.db().as_of(first).metrics()[kw("per-attr-counts")] == {name: 2, age: 1, instant: 1}
    assert conn.db().history().metrics()[kw("count")] == 7


def test_metrics_without_history_have_no_temporal_counts(made: Make) -> None:
    conn = made(keep_history=False, **OPEN)
    assert conn.db().metrics() == {
        kw("count"): 0,
        kw("avet-count"): 0,
        kw("per-attr-counts"): {},
        kw("per-entity-counts"): {},
    }

"""Where the past was changed by a purge; on a service and in process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from natalog import local, sync

AGES = "[:find [?a ...] :where [_ :age ?a]]"


@pytest.fixture(params=["local", "service"])
def on_branch(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Any]]:
    """Connections to the branches of a new database."""
    name: str = request.getfixturevalue("fresh_name")()
    if request.param == "local":
        registry = local.Registry()
        registry.create_database(name, schema_flexibility="read")
        yield lambda branch: registry.database(name, branch)
        return
    with sync.connect(request.getfixturevalue("service_url")) as client:
        client.create_database(name, schema_flexibility="read")
        yield lambda branch: client.database(name, branch)


@pytest.fixture
def conn(on_branch: Callable[[str], Any]) -> Any:
    return on_branch("db")


def test_the_latest_purge_is_the_horizon_before_which_views_may_show_less(conn: Any) -> None:
    first = conn.transact([{"db/id": 1, "age": 1}, {"db/id": 2, "age": 5}])
    conn.transact([{"db/id": 1, "age": 2}])
    assert conn.info()["purge_horizon"] is None
    assert sorted(conn.db().as_of(first.tx).q(AGES)) == [1, 5]
    purge = conn.transact([["db/purge", 1, "age", 1]])
    assert purge.purged == 1
    assert conn.info()["purge_horizon"] == purge.tx
    assert conn.db().as_of(first.tx).q(AGES) == [5]
    conn.transact([{"db/id": 1, "age": 3}])
    assert conn.info()["purge_horizon"] == purge.tx


def test_a_purge_of_nothing_moves_no_horizon(conn: Any) -> None:
    conn.transact([{"db/id": 1, "age": 1}])
    conn.transact([["db/purge", 1, "age", 77]])
    assert conn.info()["purge_horizon"] is None


def test_a_branch_takes_the_horizon_of_its_origin_along(
    conn: Any, on_branch: Callable[[str], Any]
) -> None:
    conn.transact([{"db/id": 1, "age": 1}])
    purge = conn.transact([["db.purge/entity", 1]])
    conn.branch("later")
    on_branch("later").transact([{"db/id": 2, "age": 1}])
    assert on_branch("later").info()["purge_horizon"] == purge.tx

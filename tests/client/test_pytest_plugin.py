"""The fixtures that users get."""

from __future__ import annotations

from typing import Any

import natalog


def test_a_test_has_a_database_of_its_own(natalog_db: Any) -> None:
    natalog_db.transact([{"order/number": "A-1"}])
    assert natalog_db.db().q("[:find ?n . :where [_ :order/number ?n]]") == "A-1"


def test_another_test_sees_nothing_of_it(natalog_db: Any, natalog_client: Any) -> None:
    assert natalog_db.db().q("[:find ?n :where [_ :order/number ?n]]") == set()
    assert len(natalog_client.list_databases()) == 1


def test_the_plugin_is_known_by_its_entry_point() -> None:
    from importlib.metadata import entry_points

    assert [one.value for one in entry_points(group="pytest11", name="natalog")] == [
        "natalog.pytest_plugin"
    ]
    assert natalog.__version__

"""The client without ``await`` has the same verbs and answers."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable

import pytest

import natalog.sync
from natalog import client, kw, local
from natalog.core.errors import DatabaseNotFound, Unavailable

NAME_AGE = "[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]"
Names = Callable[[], str]


def _verbs(cls: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(cls) if not name.startswith("_")}


def test_no_verb_is_missing() -> None:
    assert _verbs(client.Conn) - _verbs(natalog.sync.Conn) == set()
    internal = {"run", "touch", "view_words", "as_input"}
    assert _verbs(client.Database) - _verbs(natalog.sync.Database) == internal
    assert _verbs(client.Client) - _verbs(natalog.sync.Client) == {"session", "timeout"}
    assert _verbs(client.Database) - _verbs(local.Database) == internal
    conn = {*_verbs(client.Conn)}
    assert conn - _verbs(local.Conn) - {"database", "branch_name", "publish"} == set()


def test_a_session_without_await(service_url: str, fresh_name: Names) -> None:
    name = fresh_name()
    with natalog.sync.connect(service_url) as connection:
        connection.create_database(name, schema_flexibility="read")
        conn = connection.database(name)
        first = conn.transact([{"name": "Alice", "age": 25}])
        db = conn.db()
        conn.transact([{"db/id": 1, "age": 30}])
        assert db.q(NAME_AGE) == {("Alice", 25)}
        now = conn.db()
        assert now.as_of(first).q(NAME_AGE) == {("Alice", 25)}
        both = "[:find ?x ?y :in $ $2 :where [$ 1 :age ?x] [$2 1 :age ?y]]"
        assert now.q(both, db) == {(30, 25)}
        assert now.pull("[:name]", 1) == {kw("name"): "Alice"}
        assert [d.v for d in now.datoms("eavt", 1)] == [30, "Alice"]
        assert len(conn.branch_history()) == 3
        with conn.reports(since=0) as feed:
            assert [next(feed).tx, next(feed).tx] == [first.tx, first.tx + 1]
        with conn.reports() as feed:
            conn.publish([{"name": "Bob"}], id="b")
            report = next(feed)
            assert isinstance(report, natalog.TxReport)
            assert report.id == "b"
        with pytest.raises(DatabaseNotFound):
            connection.database("nowhere").info()
    with pytest.raises(Unavailable):
        conn.db()


def test_threads_may_share_a_client(service_url: str, fresh_name: Names) -> None:
    name = fresh_name()
    with natalog.sync.connect(service_url) as connection:
        connection.create_database(name, schema_flexibility="read")
        conn = connection.database(name)

        def work(number: int) -> None:
            for step in range(10):
                conn.transact([{"thread": number, "step": step}])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert conn.db().q("[:find (count ?e) . :where [?e :step]]") == 40


def test_nobody_there_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with pytest.raises(Unavailable):
        natalog.sync.connect("nats://127.0.0.1:1")
    assert threading.active_count() == before

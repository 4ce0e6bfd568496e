"""Erasure in a database of this process: old commits and reports forget as a service does."""

from __future__ import annotations

from typing import Any

import pytest

from natalog import kw, local
from natalog.core.errors import BadRequest, BranchNotFound, Erased, ErasureRefused

MARKER = "zebra-4711-marker"
SCHEMA = """
[{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :note :db/valueType :db.type/string :db/cardinality :db.cardinality/many}
 {:db/ident :mood :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/noHistory true}
 {:db/ident :source :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]
"""
NOTES = "[:find [?x ...] :where [_ :note ?x]]"


@pytest.fixture
def conn() -> local.Conn:
    return local.Registry().create_database("people", initial_tx=SCHEMA)


def bytes_of(conn: local.Conn) -> str:
    """All that the database keeps, as text."""
    repository = conn._repository
    kept = [repr([*one.changes.datoms, *one.changes.purges]) for one in repository._stored.values()]
    for value in [*repository._kept.values(), *repository._recent.values()]:
        kept.append(repr((value.history() if conn.config.keep_history else value).datoms("eavt")))
    for branch in repository._branches.values():
        kept.append(repr(branch.reports) + repr(branch.by_id))
    return "\n".join(kept)


def test_commits_and_reports_forget(conn: local.Conn) -> None:
    before = conn.transact([{"name": "Ann"}])
    held = conn.transact(
        [{"db/id": MARKER, "name": "Bob", "note": ["kept", MARKER], "mood": MARKER}],
        {"source": f"form {MARKER}"},
        id=f"id {MARKER}",
    )
    conn.branch("foo")
    foo = conn._repository.branch("foo")
    conn.transact([{"name": "Bob", "mood": "fine"}])
    assert MARKER in bytes_of(conn)
    receipt = conn.erase(containing=MARKER, id="one")
    assert MARKER not in bytes_of(conn)
    assert MARKER not in repr(receipt)
    assert (receipt["facts"], receipt["commits"], receipt["kept"]) == (4, 2, {})
    assert conn.db().q(NOTES) == ["kept"]
    assert foo.value.values(held.resolve(MARKER), kw("note")) == ["kept"]
    with pytest.raises(Erased):
        conn.commit_db(held.commit_id)
    with pytest.raises(Erased):
        conn.branch("never", from_=held.commit_id)
    assert conn.commit_db(before.commit_id).q("[:find ?n . :where [_ :name ?n]]") == "Ann"
    reports = list(conn.reports(since=0))
    assert [report.erased for report in reports] == [0, 0, 3, 1, 0]
    assert reports[2].commit_id == held.commit_id
    assert conn.transact([{"name": "never"}], id=f"id {MARKER}").repeated
    conn.merge("foo")
    assert conn.erase(id="one")["repeated"]
    assert [one["id"] for one in conn.erasures()] == ["one"]
    assert conn.erase(containing=MARKER)["facts"] == 0


def test_what_another_branch_holds_stays(conn: local.Conn) -> None:
    conn.transact([{"name": "Ann", "note": MARKER}])
    conn.branch("foo")
    receipt = conn.erase(facts=[[["name", "Ann"], "note", MARKER]], branches="db")
    assert receipt["kept"] == {"foo": 1}
    assert conn.db().q(NOTES) == []
    assert MARKER in bytes_of(conn)
    assert conn.erase([["db.purge/attribute", ["name", "Ann"], "note"]])["kept"] == {}
    assert MARKER not in bytes_of(conn)


def test_a_forced_branch_forgets_too(conn: local.Conn) -> None:
    conn.transact([{"name": "Ann", "note": MARKER}])
    tried = conn.db().with_([{"name": "Bob", "note": f"{MARKER} 2"}])
    conn.force_branch("forced", tried, parents=["db"])
    conn.branch("early", from_="forced")
    conn.erase(containing=MARKER)
    assert MARKER not in bytes_of(conn)
    conn._repository.value_at(conn._repository.branch("forced").head)._check()


def test_without_history_what_was_superseded_goes() -> None:
    conn = local.Registry().create_database("plain", keep_history=False, schema_flexibility="read")
    e = conn.transact([{"db/id": "x", "note": MARKER}]).resolve("x")
    conn.transact([{"db/id": e, "note": "fine"}])
    assert conn.erase()["facts"] == 2
    assert MARKER not in bytes_of(conn)
    assert conn.db().q(NOTES) == ["fine"]


def test_a_dry_run_changes_nothing(conn: local.Conn) -> None:
    conn.transact([{"name": "Ann", "note": MARKER}])
    conn.erase(containing=MARKER, dry_run=True)
    assert conn.db().q(NOTES) == [MARKER]
    assert conn.erasures() == []


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ({"containing": ""}, BadRequest),
        ({"facts": [[]]}, BadRequest),
        ({"tx_data": [["db/add", 1, "name", MARKER]]}, BadRequest),
        ({"branches": ["nowhere"]}, BranchNotFound),
        ({"tx_data": [["db/purge", kw("name"), "db/ident", kw("name")]]}, ErasureRefused),
    ],
)
def test_what_may_not_be_erased_is_refused(conn: local.Conn, wish: Any, error: Any) -> None:
    conn.transact([{"name": "Ann"}])
    with pytest.raises(error):
        conn.erase(**wish)

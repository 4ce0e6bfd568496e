"""Branches, merges and collection in a database of this process."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from natalog import local
from natalog.core.errors import (
    BadRequest,
    BranchExists,
    BranchNotFound,
    BranchProtected,
    CommitNotFound,
    InvalidName,
    MergeConflict,
    ParentsRequired,
)


@pytest.fixture
def conn() -> Iterator[local.Conn]:
    made = local.create_database("branches", schema_flexibility="read")
    made.transact([{"name": "Al", "age": 1}])
    yield made
    local.delete_database("branches")


def ages(where: local.Conn) -> set[Any]:
    return where.db().q("[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]")


def on(branch: str) -> local.Conn:
    return local.database("branches", branch)


def test_a_branch_shares_the_head_and_then_goes_its_own_way(conn: local.Conn) -> None:
    conn.branch("draft")
    assert conn.branches() == {"db", "draft"}
    assert on("draft").db().commit_id == conn.db().commit_id
    on("draft").transact([{":db/id": 1, "age": 2}])
    conn.transact([{"name": "Bo", "age": 9}])
    assert ages(on("draft")) == {("Al", 2)}
    assert ages(conn) == {("Al", 1), ("Bo", 9)}


def test_a_branch_begins_at_any_commit_or_transaction(conn: local.Conn) -> None:
    first = conn.info()
    second = conn.transact([{":db/id": 1, "age": 2}])
    conn.branch("by-commit", from_=first["commit_id"])
    conn.branch("by-tx", from_=first["max_tx"])
    conn.branch("by-name", from_="by-tx")
    for name in ("by-commit", "by-tx", "by-name"):
        assert ages(on(name)) == {("Al", 1)}
    assert second.tx == conn.db().basis


def test_what_branches_refuse(conn: local.Conn) -> None:
    conn.branch("draft")
    for refused, error in (
        (lambda: conn.branch("draft"), BranchExists),
        (lambda: conn.branch("a b"), InvalidName),
        (lambda: conn.branch("x", from_="nowhere"), BranchNotFound),
        (lambda: conn.delete_branch("db"), BranchProtected),
        (lambda: conn.delete_branch("nowhere"), BranchNotFound),
        (lambda: conn.merge([], [{"age": 1}]), ParentsRequired),
        (lambda: conn.merge("nowhere", [{"age": 1}]), BranchNotFound),
        (lambda: conn.merge(["draft", "db"]), BadRequest),
    ):
        with pytest.raises(error):
            refused()
    before = conn.info()
    assert conn.info() == before


def test_old_commits_can_be_read_until_they_are_collected(conn: local.Conn) -> None:
    old = conn.db().commit_id
    assert old is not None
    for age in range(2, 6):
        conn.transact([{":db/id": 1, "age": age}])
    assert conn.commit_db(old).q("[:find ?a . :where [1 :age ?a]]") == 1
    later = datetime.now(UTC) + timedelta(days=1)
    planned = conn.gc(later, dry_run=True)
    assert old in planned["commits"] and conn.commit_db(old) is not None
    assert conn.gc(later)["commits"] == planned["commits"]
    with pytest.raises(CommitNotFound):
        conn.commit_db(old)
    assert len(conn.branch_history()) == 1
    assert conn.db().history().q("[:find [?a ...] :where [1 :age ?a]]") == [1, 2, 3, 4, 5]
    conn.transact([{":db/id": 1, "age": 6}])
    assert len(conn.branch_history()[0].parents) == 1


def test_the_whole_workflow_leaves_a_working_database(conn: local.Conn) -> None:
    conn.branch("draft")
    on("draft").transact([{":db/id": 1, "age": 7}, {"name": "Cy", "age": 3}])
    conn.transact([{"name": "Bo", "age": 9}])
    merged = conn.merge("draft", policy="fail")
    assert ages(conn) == {("Al", 7), ("Bo", 9), ("Cy", 3)}
    assert len(conn.branch_history()[0].parents) == 2
    conn.delete_branch("draft")
    conn.gc(datetime.now(UTC) + timedelta(days=1))
    after = conn.transact([{"name": "Di", "age": 1}])
    assert conn.branch_history()[0].parents == (merged.commit_id,)
    assert after.tx == merged.tx + 1


def test_a_conflict_is_previewed_and_refused_until_it_is_decided(conn: local.Conn) -> None:
    conn.branch("draft")
    on("draft").transact([{":db/id": 1, "age": 7}])
    conn.transact([{":db/id": 1, "age": 8}])
    (conflict,) = conn.merge_preview("draft")["conflicts"]
    assert (conflict["base"], conflict["ours"], conflict["theirs"]) == ([1], [8], [7])
    with pytest.raises(MergeConflict):
        conn.merge("draft")
    assert ages(conn) == {("Al", 8)}
    decided = [{"entity": 1, "attribute": "age", "value": 10}]
    conn.merge("draft", resolutions=decided)
    assert ages(conn) == {("Al", 10)}


def test_a_forced_branch_holds_a_speculative_value_with_ids_of_its_own(conn: local.Conn) -> None:
    speculative = conn.db().with_([{"name": "Maybe", "age": 0}])
    assert speculative.commit_id is None
    conn.force_branch("what-if", speculative, parents={"db"})
    conn.transact([{"name": "Sure", "age": 1}])
    assert ages(on("what-if")) == {("Al", 1), ("Maybe", 0)}
    mine = conn.db().q('[:find ?e . :where [?e :name "Sure"]]')
    other = on("what-if").db().q('[:find ?e . :where [?e :name "Maybe"]]')
    assert mine != other
    assert on("what-if").branch_history()[0].parents == (conn.branch_history()[1].commit_id,)


def test_many_commits_fold_back_to_any_of_them(conn: local.Conn) -> None:
    commits = [conn.transact([{":db/id": 1, "age": n}]).commit_id for n in range(2, 700)]
    for n in (0, 3, 250, 511, 512, 690):
        commit = commits[n]
        assert commit is not None
        assert conn.commit_db(commit).q("[:find ?a . :where [1 :age ?a]]") == n + 2

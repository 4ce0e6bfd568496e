"""Lanes and the commit graph."""

from __future__ import annotations

from uuid import UUID

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.limits import LANE_BITS, TX_BASE
from natalog.core.transact import process
from natalog.core.values import kw
from natalog.core.versioning import CommitNode, forked, history, kept_commits, merge_bases


def graph_of(**parents: str) -> dict[UUID, CommitNode]:
    """Commits named by letters; the order of the keywords is that of time."""
    return {
        uid(name): CommitNode(uid(name), tuple(map(uid, above)), number, number * 10, "db")
        for number, (name, above) in enumerate(parents.items())
    }


def uid(name: str) -> UUID:
    return UUID(int=ord(name))


def names(found: list[CommitNode]) -> str:
    return "".join(chr(node.id.int) for node in found)


def test_history_walks_breadth_first_and_visits_each_commit_once() -> None:
    graph = graph_of(a="", b="a", c="a", d="bc", e="d")
    assert names(history(graph, uid("e"))) == "edbca"


def test_history_ends_at_a_commit_that_is_gone() -> None:
    graph = graph_of(c="b", d="c")
    assert names(history(graph, uid("d"))) == "dc"


def test_a_collection_without_a_date_keeps_what_a_head_reaches() -> None:
    graph = graph_of(a="", b="a", c="a")
    assert kept_commits(graph, [uid("b")], None) == {uid("a"), uid("b")}


def test_a_collection_with_a_date_keeps_heads_newer_commits_and_the_boundary() -> None:
    graph = graph_of(a="", b="a", c="b", d="c", x="a")
    assert kept_commits(graph, [uid("d")], 25) == {uid("d"), uid("c")}
    assert kept_commits(graph, [uid("d"), uid("x")], 25) == {uid(n) for n in "dcxa"}
    assert kept_commits(graph, [uid("d")], 10**9) == {uid("d")}


def test_merge_bases_of_a_criss_cross_are_both_crossings() -> None:
    graph = graph_of(a="", b="a", c="a", d="bc", e="cb")
    assert set(names(merge_bases(graph, uid("d"), uid("e")))) == {"b", "c"}
    assert names(merge_bases(graph, uid("b"), uid("c"))) == "a"
    assert names(merge_bases(graph, uid("d"), uid("b"))) == "b"


def test_two_branches_never_hand_out_the_same_id() -> None:
    base = Database.empty(DatabaseConfig(schema_flexibility="read"))
    base = process(base, [{kw("v"): 0}], now_ms=1).db_after
    ours = process(base, [{kw("v"): 1}], now_ms=2)
    theirs = process(forked(base, 1), [{kw("v"): 1}], now_ms=2)
    assert ours.tx == TX_BASE + 2 and theirs.tx == TX_BASE + (1 << LANE_BITS) + 1
    assert ours.db_after.max_eid == 2 and theirs.db_after.max_eid == (1 << LANE_BITS) + 1
    assert theirs.db_after.as_of(base.max_tx).values(1, kw("v")) == [0]


def test_a_lane_begins_after_ids_that_were_given_in_its_range() -> None:
    base = Database.empty(DatabaseConfig(schema_flexibility="read"))
    taken = (3 << LANE_BITS) + 9
    base = process(base, [{kw("db/id"): taken, kw("v"): 0}], now_ms=1).db_after
    assert forked(base, 3).max_eid == taken
    assert forked(base, 2).max_eid == 2 << LANE_BITS

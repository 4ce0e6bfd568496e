"""Branches and commits as pure functions: lanes, the commit graph, what a collection keeps.

A commit names its parents, so the commits of a database form a graph without cycles.  A branch is
a name for a commit and a *lane*, a range of entity and transaction ids that no other branch uses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from natalog.core.database import Database
from natalog.core.errors import InvalidConfig
from natalog.core.index.residency import Kept
from natalog.core.limits import LANE_BITS, LANES_MAX


@dataclass(frozen=True, slots=True)
class CommitNode:
    """One commit: ``tx`` is the last transaction it contains, ``instant_ms`` that one's instant."""

    id: UUID
    parents: tuple[UUID, ...]
    tx: int
    instant_ms: int | None
    branch: str


Graph = Mapping[UUID, CommitNode]


def forked(db: Database, lane: int) -> Database:
    """The same value on a lane of its own; its next ids come from there.  O(log n)."""
    if not 0 < lane < LANES_MAX:
        raise InvalidConfig(f"A database has at most {LANES_MAX} lanes.", lane=lane)
    low = lane << LANE_BITS
    taken = db.entities.between((low,), (low + 2**LANE_BITS - 1,))
    highest = int(taken[0, -1]) if taken.shape[1] else low
    return replace(db, lane=lane, max_eid=highest, _cache=Kept())


def history(graph: Graph, head: UUID, limit: int | None = None) -> list[CommitNode]:
    """The commits reachable from ``head``, breadth first, each once; missing ones end the walk."""
    seen = {head}
    queue = deque([head])
    found: list[CommitNode] = []
    while queue and (limit is None or len(found) < limit):
        node = graph.get(queue.popleft())
        if node is None:
            continue
        found.append(node)
        for parent in node.parents:
            if parent not in seen:
                seen.add(parent)
                queue.append(parent)
    return found


def kept_commits(graph: Graph, heads: Iterable[UUID], before_ms: int | None) -> set[UUID]:
    """The commits that a collection keeps.

    Without a date everything that some head reaches.  With one, every head, the commits not older
    than the date, and on each line the first commit that is.
    """
    kept: set[UUID] = set()
    stack = list(heads)
    while stack:
        commit = stack.pop()
        node = graph.get(commit)
        if node is None or commit in kept:
            continue
        kept.add(commit)
        if before_ms is not None and (node.instant_ms is None or node.instant_ms < before_ms):
            continue
        stack.extend(node.parents)
    return kept


def merge_bases(graph: Graph, left: UUID, right: UUID) -> list[CommitNode]:
    """The best common ancestors of two commits: those that no other common ancestor follows.

    Several where histories criss-cross, none where they share nothing.  Newest first.  O(commits).
    """
    others = {node.id for node in history(graph, right)}
    common = {node.id: node for node in history(graph, left) if node.id in others}
    # what descends from a common ancestor and leads to another one is itself common
    followed = {parent for node in common.values() for parent in node.parents}
    best = [node for commit, node in common.items() if commit not in followed]
    return sorted(best, key=lambda node: node.tx, reverse=True)


def next_lane(used: Iterable[int]) -> int:
    """The lane of the next branch."""
    return max(used, default=0) + 1

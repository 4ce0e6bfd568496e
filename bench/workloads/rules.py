"""Rules: closures of graphs, reachability from a bound start, inputs joined sideways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from datasets import CHAIN_NODES, Dataset, shuffled_ids
from measure import Line

from workloads.base import Bench, QueryWorkload, run_queries

GRAPHS = (
    *("wide-3x3", "wide-5x3", "wide-7x3", "wide-4x6"),
    *("long-10x3", "long-30x3", "long-30x5", "rand-100x200"),
)
FOLLOWS = "[[(follows ?x ?y) [?x :follows ?y]] [(follows ?x ?y) [?x :follows ?t] (follows ?t ?y)]]"
DIRECT = "[[(follows ?x ?y) [?x :follows ?y]]]"
REACHES = (
    "[[(reaches ?a ?b) [?r :edge/from ?a] [?r :edge/to ?b]]"
    " [(reaches ?a ?b) [?r :edge/from ?a] [?r :edge/to ?c] (reaches ?c ?b)]]"
)
CLOSURE = "[:find ?e ?e2 :in $ % :where (follows ?e ?e2)]"
START = ("id", 1)
"""The first node of the chain, as an input."""
SIDEWAYS = tuple(shuffled_ids(CHAIN_NODES)[:1_000])
BOTH = frozenset({"datascript-js", "datalevin"})
DATALEVIN_ONLY = frozenset({"datalevin"})


def edges(dataset: Dataset) -> Iterator[tuple[int, int]]:
    for source, _, target in dataset.links:
        yield source, target


def closure(dataset: Dataset) -> Iterator[tuple[int, int]]:
    """Every pair of nodes with a path between."""
    below: dict[int, list[int]] = defaultdict(list)
    for source, target in edges(dataset):
        below[source].append(target)
    for start in list(below):
        seen: set[int] = set()
        waiting = list(below[start])
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += below.get(node, ())
        yield from ((start, node) for node in seen)


def reached(_: Dataset) -> Iterator[list[Any]]:
    return ([node] for node in range(2, CHAIN_NODES + 1))


WORKLOADS = [
    QueryWorkload(
        f"rules-{graph}",
        f"graph:{graph}",
        CLOSURE,
        "ee",
        closure,
        rules=FOLLOWS,
        # DataScript does not finish the closure of a graph with cycles
        peers=DATALEVIN_ONLY if graph.startswith("rand") else BOTH,
    )
    for graph in GRAPHS
]
WORKLOADS += [
    QueryWorkload("q-rule", "graph:people", CLOSURE, "ee", edges, rules=DIRECT),
    QueryWorkload(
        "recursive-ground",
        "chain",
        "[:find ?bid :in $ % ?start :where (reaches ?start ?b) [?b :node/id ?bid]]",
        "v",
        reached,
        inputs=(START,),
        rules=REACHES,
        # neither DataScript in JavaScript nor Datalevin answers within minutes
        peers=frozenset(),
    ),
    QueryWorkload(
        "sip-single",
        "chain",
        "[:find ?id :in $ [?id ...] :where [?e :node/id ?id]]",
        "v",
        lambda _: ([number] for number in SIDEWAYS),
        inputs=(list(SIDEWAYS),),
    ),
    QueryWorkload(
        "sip-entity-group",
        "chain",
        "[:find ?id ?d :in $ [?id ...] :where [?e :node/id ?id] [?e :node/data ?d]]",
        "vv",
        lambda _: ([number, f"data-{number}"] for number in SIDEWAYS),
        inputs=(list(SIDEWAYS),),
    ),
]


def run(bench: Bench) -> Iterator[Line]:
    yield from run_queries(bench, WORKLOADS)

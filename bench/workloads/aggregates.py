"""Aggregates over the salaries of 20,000 people."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from datasets import Dataset, Entity
from measure import Line

from workloads.base import Bench, QueryWorkload, run_queries
from workloads.queries import by, people, rich

Shape = Callable[[Sequence[int]], list[Any]]


def grouped(
    key: Callable[[Entity], Any],
    shape: Shape,
    keep: Callable[[Entity], bool] = lambda one: True,
) -> Callable[[Dataset], Iterator[list[Any]]]:
    """A row for each group: its key (a tuple) and ``shape`` of its salaries."""

    def expect(dataset: Dataset) -> Iterator[list[Any]]:
        chosen = (one for one in people(dataset) if keep(one))
        for group, members in by(key, chosen).items():
            yield [*group, *shape([one["salary"] for one in members])]

    return expect


def mean(salaries: Sequence[int]) -> list[Any]:
    return [sum(salaries) / len(salaries)]


def one_group(_: Entity) -> tuple[Any, ...]:
    return ()


def spread(salaries: Sequence[int]) -> list[Any]:
    return [
        *mean(salaries),
        statistics.pvariance(salaries),
        statistics.pstdev(salaries),
        statistics.median(salaries),
    ]


def make(dataset: str, prefix: str = "") -> dict[str, QueryWorkload]:
    """All aggregates on ``dataset``, by their names."""
    found: dict[str, QueryWorkload] = {}

    def add(name: str, kinds: str, query: str, expect: Any) -> None:
        found[name] = QueryWorkload(prefix + name, dataset, query, kinds, expect)

    add(
        *("q-agg-avg", "n"),
        "[:find (avg ?s) :with ?e :where [?e :salary ?s]]",
        grouped(one_group, mean),
    )
    add(
        *("q-agg-group", "vnv"),
        "[:find ?sex (avg ?s) (count ?e) :where [?e :sex ?sex] [?e :salary ?s]]",
        # set semantics: without :with, rows are pairs of entity and salary all the same
        grouped(lambda one: (one["sex"],), lambda s: [*mean(s), len(s)]),
    )
    add(
        *("q-agg-filter", "nvv"),
        "[:find (avg ?s) (min ?s) (max ?s) :with ?e :where [?e :salary ?s] [?e :sex :male]]",
        grouped(
            one_group, lambda s: [*mean(s), min(s), max(s)], lambda one: bool(one["sex"] == "male")
        ),
    )
    add(
        *("q-agg-pred", "vn"),
        "[:find ?sex (avg ?s) :with ?e :where [?e :salary ?s] [?e :sex ?sex] [(> ?s 50000)]]",
        grouped(lambda one: (one["sex"],), mean, rich),
    )
    add(
        *("q-agg-multi", "vvn"),
        "[:find ?sex ?n (avg ?s) :with ?e :where [?e :sex ?sex] [?e :name ?n] [?e :salary ?s]]",
        grouped(lambda one: (one["sex"], one["name"]), mean),
    )
    add(
        *("q-agg-stats", "nnnn"),
        "[:find (avg ?s) (variance ?s) (stddev ?s) (median ?s) :with ?e :where [?e :salary ?s]]",
        grouped(one_group, spread),
    )
    return found


WORKLOADS = list(make("people").values())


def run(bench: Bench) -> Iterator[Line]:
    yield from run_queries(bench, WORKLOADS)

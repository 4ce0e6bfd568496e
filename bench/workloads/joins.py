"""Joins through references: people, 100 departments and 10 divisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from datasets import Dataset
from measure import Line

from workloads.base import Bench, QueryWorkload, run_queries


def joined(
    keep: Callable[[int, int], bool], *, division: bool = False
) -> Callable[[Dataset], Iterator[list[Any]]]:
    """Names of person and department where ``keep(budget, salary)``."""

    def expect(dataset: Dataset) -> Iterator[list[Any]]:
        for one in dataset.entities:
            if "p/name" in one:
                department = (one["id"] - 1) % 100
                if keep(5_000 * department, one["p/salary"]):
                    row = [one["p/name"], f"dept-{department}"]
                    yield [*row, f"division-{department % 10}"] if division else row

    return expect


def _budget(bound: int) -> str:
    return (
        f"[:find ?pn ?dn :where [?d :d/budget ?b] [(> ?b {bound})] [?d :d/name ?dn]"
        " [?e :p/dept ?d] [?e :p/name ?pn]]"
    )


WORKLOADS = [
    QueryWorkload(name, "joins", query, kinds, expect)
    for name, kinds, query, expect in (
        (
            *("q-join-ref-1", "vv"),
            '[:find ?pn ?dn :where [?d :d/name "dept-99"] [?d :d/budget ?b] [?e :p/dept ?d]'
            " [?e :p/name ?pn] [?d :d/name ?dn]]",
            joined(lambda budget, _: budget == 5_000 * 99),
        ),
        ("q-join-ref-10", "vv", _budget(450_000), joined(lambda budget, _: budget > 450_000)),
        ("q-join-pred", "vv", _budget(400_000), joined(lambda budget, _: budget > 400_000)),
        (
            *("q-join-chain", "vvv"),
            "[:find ?pn ?dn ?divn :where [?e :p/name ?pn] [?e :p/dept ?d] [?d :d/name ?dn]"
            " [?d :d/div ?div] [?div :div/name ?divn]]",
            joined(lambda _budget, _salary: True, division=True),
        ),
        (
            *("q-join-selective", "vv"),
            "[:find ?pn ?dn :where [?e :p/salary ?s] [(> ?s 90000)] [?e :p/name ?pn]"
            " [?e :p/dept ?d] [?d :d/name ?dn]]",
            joined(lambda _, salary: salary > 90_000),
        ),
    )
]


def run(bench: Bench) -> Iterator[Line]:
    yield from run_queries(bench, WORKLOADS)

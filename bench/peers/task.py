"""The task that other systems get: data sets and workloads as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import FOLDER, shuffled_ids
from measure import Answer
from workloads import aggregates, joins, load, pull, queries, rules, temporal, transact
from workloads.base import Bench, QueryWorkload

_QUERY_SUITES = {
    "queries": queries.WORKLOADS,
    "aggregates": aggregates.WORKLOADS,
    "joins": joins.WORKLOADS,
    "rules": rules.WORKLOADS,
    "temporal": temporal.WORKLOADS,
    "load": load.WORKLOADS,
}
SQL = frozenset({"sqlite-eavt", "duckdb-wide"})
"""Systems that take part wherever somebody wrote the SQL."""


def workloads_of(suites: Sequence[str], system: str) -> list[QueryWorkload]:
    """The query workloads that ``system`` takes part in."""
    return [
        workload
        for suite in suites
        for workload in _QUERY_SUITES.get(suite, [])
        if system in workload.peers or (system in SQL and workload.view == "current")
    ]


def expected(bench: Bench, suites: Sequence[str], system: str) -> dict[str, Answer]:
    """What each workload must answer; a figure of any other is not taken."""
    found = {w.name: w.expected(bench.files) for w in workloads_of(suites, system)}
    if "pull" in suites:
        for name, dataset, _, expect in pull.WORKLOADS:
            found[name] = expect(bench.files.dataset(dataset))
    if "transact" in suites:
        found |= transact.expected(bench.files.dataset("people"))
    if "load" in suites:
        found["1m-load-1000"] = Answer(bench.files.dataset(load.DATASET).datoms(), "")
    return found


def write_task(bench: Bench, suites: Sequence[str], system: str) -> Path:
    """Write data sets and task for ``system``; the path of the task."""
    workloads = workloads_of(suites, system)
    names = {workload.dataset for workload in workloads}
    names |= {"people"} if {"pull", "transact"} & set(suites) else set()
    names |= {"tree"} if "pull" in suites else set()
    names |= {load.DATASET} if "load" in suites else set()
    files = {}
    for name in sorted(names):
        files[name] = f"dataset-{name.replace(':', '-')}.json"
        bench.files.dataset(name).write(FOLDER / files[name])
    people = len(bench.files.dataset("people").entities)
    answers = expected(bench, suites, system)
    task: dict[str, Any] = {
        "protocol": asdict(bench.protocol),
        "suites": list(suites),
        "folder": str(FOLDER),
        "datasets": files,
        "workloads": [
            {
                "name": w.name,
                "dataset": w.dataset,
                "query": w.query,
                "rules": w.rules,
                "inputs": [
                    {"id": value[1]} if isinstance(value, tuple) else {"value": value}
                    for value in w.inputs
                ],
                "kinds": w.kinds,
                **answers[w.name]._asdict(),
            }
            for w in workloads
        ],
        "pull": {
            "one": pull.PULL_ONE,
            "many": pull.PULL_MANY,
            "six": pull.SIX,
            "all": pull.ALL,
            "lookup": pull.LOOKUP,
            "reads": shuffled_ids(people)[: pull.READS],
        },
        "latencies": transact.LATENCIES,
    }
    path = FOLDER / f"task-{system}.json"
    path.write_text(json.dumps(task))
    return path

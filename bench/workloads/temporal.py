"""Views of the past: 20,000 people and then 20,000 updates in 200 transactions, with history."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset, Entity
from measure import Line

from workloads.base import Bench, QueryWorkload, run_queries
from workloads.queries import make

DATASET = "updated"
NONE = frozenset[str]()


@dataclass(frozen=True)
class Fact:
    """What was said of a person; ``step`` is 0 for the load, then the number of the update."""

    entity: int
    attribute: str
    value: Any
    step: int
    added: bool


def facts(dataset: Dataset) -> list[Fact]:
    """Everything that history holds of the attributes with one value."""
    found = []
    now: dict[int, Entity] = {}
    for one in dataset.entities:
        now[one["id"]] = dict(one)
        found += [
            Fact(one["id"], name, value, 0, True)
            for name, value in one.items()
            if not isinstance(value, list)
        ]
    for step, changes in enumerate(dataset.updates, 1):
        for change in changes:
            for name, value in change.items():
                if name != "id":
                    old = now[change["id"]][name]
                    now[change["id"]][name] = value
                    if old != value:
                        found.append(Fact(change["id"], name, old, step, False))
                        found.append(Fact(change["id"], name, value, step, True))
    return found


def middle_of(dataset: Dataset) -> Dataset:
    """The data as they were in the middle of the updates."""
    return replace(dataset, updates=copy.copy(dataset.updates[: len(dataset.updates) // 2]))


def all_names(dataset: Dataset) -> set[tuple[int, Any]]:
    return {(f.entity, f.value) for f in facts(dataset) if f.attribute == "name"}


def ages_and_transactions(dataset: Dataset) -> list[tuple[int, Any]]:
    """A row for each pair of age and transaction, even where an age was said twice."""
    rows = {(f.entity, f.value, f.step) for f in facts(dataset) if f.attribute == "age"}
    return [(entity, value) for entity, value, _ in rows]


def names_with_ages(dataset: Dataset) -> set[tuple[int, Any, Any]]:
    names: dict[int, set[Any]] = {}
    for entity, name in all_names(dataset):
        names.setdefault(entity, set()).add(name)
    ages = {(f.entity, f.value) for f in facts(dataset) if f.attribute == "age"}
    return {(entity, name, age) for entity, age in ages for name in names[entity]}


def retracted_ages(dataset: Dataset) -> set[tuple[int, Any]]:
    return {(f.entity, f.value) for f in facts(dataset) if f.attribute == "age" and not f.added}


def changed_ages(dataset: Dataset) -> Iterator[tuple[int, Any]]:
    """Ages that hold now and were said after the middle."""
    middle = len(dataset.updates) // 2
    last: dict[int, Fact] = {}
    for fact in facts(dataset):
        if fact.attribute == "age" and fact.added:
            last[fact.entity] = fact
    return ((e, f.value) for e, f in last.items() if f.step > middle)


def _view(name: str, view: str, kinds: str, query: str, expect: Callable[[Dataset], Any]) -> Any:
    return QueryWorkload(name, DATASET, query, kinds, expect, view=view, peers=NONE)


_CURRENT = make(DATASET, "current-")
WORKLOADS: list[QueryWorkload] = [_CURRENT[name] for name in ("q1", "q2", "q3", "q4")]
for _name in ("q1", "q2", "q3"):
    _same = _CURRENT[_name]

    def _then(dataset: Dataset, same: QueryWorkload = _same) -> Any:
        return same.expect(middle_of(dataset))

    WORKLOADS.append(_view(f"as-of-{_name}", "as-of", _same.kinds, _same.query, _then))
WORKLOADS += [
    _view("history-names", "history", "ev", "[:find ?e ?n :where [?e :name ?n]]", all_names),
    _view(
        *("history-age-tx", "history", "evt"),
        "[:find ?e ?a ?tx :where [?e :age ?a ?tx]]",
        ages_and_transactions,
    ),
    _view(
        *("history-name-age", "history", "evv"),
        "[:find ?e ?n ?a :where [?e :name ?n] [?e :age ?a]]",
        names_with_ages,
    ),
    _view(
        *("history-retracted-ages", "history", "ev"),
        "[:find ?e ?a :where [?e :age ?a _ false]]",
        retracted_ages,
    ),
    _view("since-ages", "since", "ev", "[:find ?e ?a :where [?e :age ?a]]", changed_ages),
]


def run(bench: Bench) -> Iterator[Line]:
    yield from run_queries(bench, WORKLOADS)

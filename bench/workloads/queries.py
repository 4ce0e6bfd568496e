"""Queries over 20,000 people; the questions of DataScript's benchmark and more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from datasets import Dataset, Entity
from measure import Line

from workloads.base import Bench, Expect, QueryWorkload, run_queries

Person = Entity


def people(dataset: Dataset) -> Iterator[Person]:
    """The people as they are after all updates."""
    if dataset.ids is not None:
        for number, one in zip(dataset.ids, dataset.entities, strict=True):
            yield {**one, "id": number}
        return
    if not dataset.updates:
        yield from dataset.entities
        return
    latest = {one["id"]: dict(one) for one in dataset.entities}
    for step in dataset.updates:
        for change in step:
            latest[change["id"]].update(change)
    yield from latest.values()


def each(keep: Callable[[Person], bool], *attributes: str) -> Expect:
    """The rows of ``attributes`` of the people that ``keep`` picks."""

    def expect(dataset: Dataset) -> Iterator[list[Any]]:
        for one in people(dataset):
            if keep(one):
                yield [one[name] for name in attributes]

    return expect


def same_age(dataset: Dataset) -> set[tuple[Any, ...]]:
    """q5: everyone of the age of some Ivan."""
    everyone = list(people(dataset))
    ages = {one["age"] for one in everyone if one["name"] == "Ivan"}
    return {(one["id"], one["last-name"], one["age"]) for one in everyone if one["age"] in ages}


def shortcut(dataset: Dataset) -> Iterator[list[Any]]:
    """q5-shortcircuit: nobody has that name."""
    for one in people(dataset):
        if one["name"] == "Anastasia" and one["age"] == 35:
            for alias in one["alias"]:
                yield [one["id"], one["name"], one["last-name"], 35, one["sex"], alias]


def ivan(one: Person) -> bool:
    return bool(one["name"] == "Ivan")


def male_ivan(one: Person) -> bool:
    return ivan(one) and bool(one["sex"] == "male")


def rich(one: Person) -> bool:
    return bool(one["salary"] > 50_000)


def ivan_or_petr(one: Person) -> bool:
    return one["name"] in ("Ivan", "Petr")


def not_male(one: Person) -> bool:
    return bool(one["sex"] != "male")


def make(dataset: str, prefix: str = "") -> dict[str, QueryWorkload]:
    """All queries on ``dataset``, by their names."""
    found: dict[str, QueryWorkload] = {}

    def add(name: str, kinds: str, query: str, expect: Expect, *inputs: Any) -> None:
        found[name] = QueryWorkload(prefix + name, dataset, query, kinds, expect, inputs)

    age = each(ivan, "id", "age")
    add("q1", "e", '[:find ?e :where [?e :name "Ivan"]]', each(ivan, "id"))
    add("q2", "ev", '[:find ?e ?a :where [?e :name "Ivan"] [?e :age ?a]]', age)
    add("q2-switch", "ev", '[:find ?e ?a :where [?e :age ?a] [?e :name "Ivan"]]', age)
    add(
        *("q3", "ev"),
        '[:find ?e ?a :where [?e :name "Ivan"] [?e :age ?a] [?e :sex :male]]',
        each(male_ivan, "id", "age"),
    )
    add(
        *("q4", "evv"),
        '[:find ?e ?l ?a :where [?e :name "Ivan"] [?e :last-name ?l] [?e :age ?a] [?e :sex :male]]',
        each(male_ivan, "id", "last-name", "age"),
    )
    add(
        *("q5", "evv"),
        '[:find ?e1 ?l ?a :where [?e :name "Ivan"] [?e :age ?a] [?e1 :age ?a] [?e1 :last-name ?l]]',
        same_age,
    )
    add(
        *("q5-shortcircuit", "evvvvv"),
        "[:find ?e ?n ?l ?a ?s ?al :in $ ?n ?a :where [?e :name ?n] [?e :age ?a] [?e :last-name ?l]"
        " [?e :sex ?s] [?e :alias ?al]]",
        shortcut,
        *("Anastasia", 35),
    )
    salary = each(rich, "id", "salary")
    add("qpred1", "ev", "[:find ?e ?s :where [?e :salary ?s] [(> ?s 50000)]]", salary)
    add(
        *("qpred2", "ev"),
        "[:find ?e ?s :in $ ?min_s :where [?e :salary ?s] [(> ?s ?min_s)]]",
        salary,
        50_000,
    )
    add(
        *("q-or", "e"),
        '[:find ?e :where (or [?e :name "Ivan"] [?e :name "Petr"])]',
        each(ivan_or_petr, "id"),
    )
    ages = each(not_male, "id", "age")
    add("q-not", "ev", "[:find ?e ?a :where [?e :age ?a] (not [?e :sex :male])]", ages)
    add(
        *("q-or-join", "ev"),
        '[:find ?e ?a :where [?e :age ?a] (or-join [?e] [?e :name "Ivan"] [?e :name "Petr"])]',
        each(ivan_or_petr, "id", "age"),
    )
    add(
        "q-not-join",
        "ev",
        "[:find ?e ?a :where [?e :age ?a] (not-join [?e] [?e :sex :male])]",
        ages,
    )
    add(
        *("q-pred-range", "ev"),
        "[:find ?e ?s :where [?e :salary ?s] [(> ?s 50000)] [(< ?s 80000)]]",
        each(lambda one: 50_000 < one["salary"] < 80_000, "id", "salary"),
    )
    add(
        *("q-5-merge", "evvvv"),
        "[:find ?e ?n ?l ?a ?s :where [?e :name ?n] [?e :last-name ?l] [?e :age ?a] [?e :salary ?s]"
        " [?e :sex :male]]",
        each(lambda one: one["sex"] == "male", "id", "name", "last-name", "age", "salary"),
    )
    return found


def by(key: Callable[[Person], Any], everyone: Iterator[Person]) -> dict[Any, list[Person]]:
    """People in groups."""
    groups: dict[Any, list[Person]] = defaultdict(list)
    for one in everyone:
        groups[key(one)].append(one)
    return groups


WORKLOADS = list(make("people").values())


def run(bench: Bench) -> Iterator[Line]:
    yield from run_queries(bench, WORKLOADS)

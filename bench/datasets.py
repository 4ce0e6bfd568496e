"""The data of the workloads in a neutral form that every system loads through transactions.

Every entity has an ``id``; answers name entities by it, whatever a system calls them inside.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import bench_data

FOLDER = Path(__file__).resolve().parent / "data"
BATCH = 1_000
DEPARTMENT, DIVISION, CHAIN_EDGE = 1_000_000, 2_000_000, 3_000_000
"""Ids of entities that are no people start above these."""
CHAIN_NODES = 4_000
UPDATES, UPDATE_BATCH = 20_000, 100

Entity = dict[str, Any]
ONE, MANY = False, True


@dataclass(frozen=True)
class Attribute:
    """``kind``: ``long``, ``string``, ``keyword`` or ``ref``."""

    kind: str
    many: bool = ONE
    unique: bool = False
    index: bool = True


@dataclass(frozen=True)
class Dataset:
    """Entities without references, then references as (id, attribute, id), then updates."""

    name: str
    schema: dict[str, Attribute]
    entities: list[Entity]
    links: list[tuple[int, str, int]] = field(default_factory=list)
    updates: list[list[Entity]] = field(default_factory=list)
    ids: list[int] | None = None
    """The ids in the order of the entities, where they are not among the facts."""

    def batches(self, size: int = BATCH) -> Iterator[list[Entity]]:
        for start in range(0, len(self.entities), size):
            yield self.entities[start : start + size]

    def link_batches(self) -> Iterator[list[tuple[int, str, int]]]:
        for start in range(0, len(self.links), BATCH):
            yield self.links[start : start + BATCH]

    def datoms(self) -> int:
        """Facts that the entities state."""
        return sum(
            len(value) if isinstance(value, list) else 1
            for entity in self.entities
            for value in entity.values()
        )

    def write(self, path: Path) -> None:
        """As JSON, for systems in other languages."""
        path.write_text(
            json.dumps(
                {
                    "schema": {
                        name: {"kind": a.kind, "many": a.many, "unique": a.unique, "index": a.index}
                        for name, a in self.schema.items()
                    },
                    "entities": self.entities,
                    "links": self.links,
                    "updates": self.updates,
                    "ids": self.ids,
                },
                separators=(",", ":"),
            )
        )


ID = {"id": Attribute("long", unique=True)}
PERSON = {
    **ID,
    **{name: Attribute("string") for name in ("name", "last-name", "full-name")},
    "alias": Attribute("string", MANY, index=False),
    "sex": Attribute("keyword"),
    "age": Attribute("long"),
    "salary": Attribute("long"),
    "follows": Attribute("ref", MANY),
}
JOINED = {
    **ID,
    "p/name": Attribute("string"),
    "p/salary": Attribute("long"),
    "p/dept": Attribute("ref"),
    "d/name": Attribute("string"),
    "d/budget": Attribute("long"),
    "d/div": Attribute("ref"),
    "div/name": Attribute("string"),
}


class Files:
    """The data files, made where they are missing; ``people_file`` replaces the 20,000 people."""

    def __init__(self, people_file: Path | None = None) -> None:
        self.people_file = people_file
        self._made: dict[str, Dataset] = {}

    def read(self, name: str) -> Any:
        path = FOLDER / f"{name}.json"
        if not path.exists():
            bench_data.main(FOLDER)
        return json.loads(path.read_text())

    def people(self) -> list[Entity]:
        if self.people_file is not None:
            found: list[Entity] = json.loads(self.people_file.read_text())
            return found
        return list(self.read("people20k"))

    def dataset(self, name: str) -> Dataset:
        """The data set of that name, made once."""
        if name not in self._made:
            base, _, part = name.partition(":")
            self._made[name] = _MAKERS[base](self, name, part)
        return self._made[name]

    def forget(self, name: str) -> None:
        """Let go of a large one."""
        self._made.pop(name, None)


def _people(files: Files, name: str, _: str) -> Dataset:
    return Dataset(name, PERSON, files.people())


def _million(files: Files, name: str, _: str) -> Dataset:
    """Five attributes of 200,000 people; ``id`` stays out, entities are known by their order."""
    schema = {key: PERSON[key] for key in ("name", "last-name", "sex", "age", "salary")}
    people = files.read("people200k")
    ids = [one.pop("id") for one in people]
    return Dataset(name, schema, people, ids=ids)


def _updated(files: Files, name: str, _: str) -> Dataset:
    """People, then one new value for a random attribute of a random person, many times."""
    people = files.people()
    r = random.Random(48)
    count = min(UPDATES, len(people))
    updates: list[Entity] = []
    for _number in range(count):
        person = r.choice(people)["id"]
        which = r.choice(["age", "salary", "name"])
        value: Any = r.randrange(100 if which == "age" else 100_000)
        updates.append(
            {"id": person, which: r.choice(bench_data.NAMES) if which == "name" else value}
        )
    steps = [updates[n : n + UPDATE_BATCH] for n in range(0, count, UPDATE_BATCH)]
    return Dataset(name, PERSON, people, updates=steps)


def _joined(files: Files, name: str, _: str) -> Dataset:
    people = files.people()
    salaries = files.read("join_salaries")
    entities: list[Entity] = [{"id": DIVISION + n, "div/name": f"division-{n}"} for n in range(10)]
    entities += [
        {"id": DEPARTMENT + n, "d/name": f"dept-{n}", "d/budget": 5_000 * n} for n in range(100)
    ]
    entities += [
        {"id": n + 1, "p/name": f"person-{n}", "p/salary": salaries[n]} for n in range(len(people))
    ]
    links = [(DEPARTMENT + n, "d/div", DIVISION + n % 10) for n in range(100)]
    links += [(n + 1, "p/dept", DEPARTMENT + n % 100) for n in range(len(people))]
    return Dataset(name, JOINED, entities, links)


def _graph(files: Files, name: str, part: str) -> Dataset:
    edges = files.read("follows")[part]
    nodes = sorted({node for edge in edges for node in edge})
    schema = {**ID, "follows": PERSON["follows"]}
    links = [(source, "follows", target) for source, target in edges]
    return Dataset(name, schema, [{"id": node} for node in nodes], links)


def _chain(_files: Files, name: str, _part: str) -> Dataset:
    """Nodes in a chain whose edges are entities."""
    schema = {
        **ID,
        "node/id": Attribute("long"),
        "node/data": Attribute("string"),
        "edge/from": Attribute("ref"),
        "edge/to": Attribute("ref"),
    }
    nodes = range(1, CHAIN_NODES + 1)
    entities: list[Entity] = [{"id": n, "node/id": n, "node/data": f"data-{n}"} for n in nodes]
    entities += [{"id": CHAIN_EDGE + n} for n in nodes[:-1]]
    links = [(CHAIN_EDGE + n, "edge/from", n) for n in nodes[:-1]]
    links += [(CHAIN_EDGE + n, "edge/to", n + 1) for n in nodes[:-1]]
    return Dataset(name, schema, entities, links)


def _tree(files: Files, name: str, _: str) -> Dataset:
    tree = files.read("pull_wide_4x5")
    entities = [{key: value for key, value in one.items() if key != "follows"} for one in tree]
    links = [(one["id"], "follows", child) for one in tree for child in one["follows"]]
    return Dataset(name, PERSON, entities, links)


_MAKERS: dict[str, Callable[[Files, str, str], Dataset]] = {
    "people": _people,
    "million": _million,
    "updated": _updated,
    "joins": _joined,
    "graph": _graph,
    "chain": _chain,
    "tree": _tree,
}


@cache
def shuffled_ids(count: int, seed: int = 47) -> tuple[int, ...]:
    """1 … ``count`` in a fixed random order."""
    ids = list(range(1, count + 1))
    random.Random(seed).shuffle(ids)
    return tuple(ids)

"""What a workload is, and measuring one that is a query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import natalog_system
from datasets import Dataset, Files
from measure import Answer, Line, Protocol, answer, check, median_ms
from natalog_system import Loaded

from natalog.core.database import Database

Expect = Callable[[Dataset], Iterable[Sequence[Any]]]


@dataclass(frozen=True)
class QueryWorkload:
    """A query on a data set.

    ``kinds`` has a letter for each column of the answer: ``e`` an entity, ``v`` a plain value,
    ``n`` a number that may be a float, ``t`` a transaction (not compared).  ``expect`` computes
    the answer from the data in plain Python, with ids for entities.  ``inputs`` are those after
    the data source, a pair ``("id", n)`` for the entity with that id; ``rules`` stand for ``%``.
    ``view`` is ``current``, ``as-of``, ``since`` or ``history``; other systems see the first only.
    """

    name: str
    dataset: str
    query: str
    kinds: str
    expect: Expect
    inputs: tuple[Any, ...] = ()
    rules: str | None = None
    view: str = "current"
    peers: frozenset[str] = field(default=frozenset({"datascript-js", "datalevin"}))

    def expected(self, files: Files) -> Answer:
        compared = self.kinds.replace("t", "").replace("e", "v")
        return answer(self.expect(files.dataset(self.dataset)), compared)


@dataclass
class Bench:
    """One run: where data come from, how times are taken, and what is loaded."""

    files: Files
    protocol: Protocol
    loaded: dict[str, Loaded] = field(default_factory=dict)

    def load(self, name: str) -> Loaded:
        if name not in self.loaded:
            self.loaded[name] = natalog_system.load(self.files.dataset(name))
        return self.loaded[name]

    def forget(self, name: str) -> None:
        self.loaded.pop(name, None)
        self.files.forget(name)


def rows_named(rows: Iterable[Sequence[Any]], kinds: str, ids: dict[int, int]) -> Answer:
    """The answer with ids for entities and without transactions."""
    kept = [n for n, kind in enumerate(kinds) if kind != "t"]
    named = [[ids[row[n]] if kinds[n] == "e" else row[n] for n in kept] for row in rows]
    return answer(named, "".join(kinds[n] for n in kept).replace("e", "v"))


def viewed(loaded: Loaded, view: str) -> Database:
    """The database as a workload sees it; as-of and since are those of the middle."""
    if view == "as-of":
        return loaded.db.as_of(loaded.middle)
    if view == "since":
        return loaded.db.since(loaded.middle)
    return loaded.db.history() if view == "history" else loaded.db


def run_queries(bench: Bench, workloads: Sequence[QueryWorkload]) -> Iterator[Line]:
    """A figure for each; raises `WrongAnswer` before a time is taken."""
    for workload in workloads:
        loaded = bench.load(workload.dataset)
        view = viewed(loaded, workload.view)
        rules = [workload.rules] if workload.rules else []
        inputs = [
            loaded.eids[value[1]] if isinstance(value, tuple) else value
            for value in workload.inputs
        ]
        ask = natalog_system.asked(workload.query, [view, *rules, *inputs])
        found = rows_named(ask(), workload.kinds, loaded.ids)
        check(workload.name, found, workload.expected(bench.files))
        median, samples = median_ms(ask, bench.protocol)
        yield Line("natalog", workload.name, median, samples, found._asdict())

"""Transactions in process: whole runs over the people, and the latency of one transaction."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import natalog_system
from datasets import Dataset
from measure import Answer, Line, answer, check, percentile, settle, whole_runs_ms
from natalog_system import ID, K

from natalog.core.database import Database
from natalog.core.query import q
from natalog.core.transact import process
from workloads.base import Bench

FIVE = ("name", "last-name", "sex", "age", "salary")
AGES = "[:find ?id ?a :where [?e :id ?id] [?e :age ?a]]"
LATENCIES = 2_000
LOADS = (1, 10, 100, 1_000)


def ages(db: Database) -> Answer:
    """What a load must have left: the id and age of everyone."""
    return answer(q(AGES, db).rows, "vv")


def new_entity(people: int, n: int) -> dict[str, Any]:
    return {"id": people + n + 1, "name": "Ivan", "age": n % 100, "salary": n}


def update(people: int, n: int) -> dict[str, Any]:
    return {"id": n % people + 1, "age": 100 + n}


CHANGES = {"tx-latency-new-entity": new_entity, "tx-latency-update": update}


def expected(dataset: Dataset) -> dict[str, Answer]:
    """What must be there after each workload: the id and age of everyone, or of those changed."""
    everyone = answer(((one["id"], one["age"]) for one in dataset.entities), "vv")
    found = dict.fromkeys(("add-1", "add-5", "add-all"), everyone)
    found["retract-5"] = answer((), "vv")
    found |= {f"load-{size}": everyone for size in LOADS}
    people = len(dataset.entities)
    for name, make in CHANGES.items():
        changes = (make(people, n) for n in range(LATENCIES))
        last = {change["id"]: change["age"] for change in changes}
        found[name] = answer(last.items(), "vv")
    return found


def run(bench: Bench) -> Iterator[Line]:
    dataset = bench.files.dataset("people")
    empty = natalog_system.empty(dataset)
    want = expected(dataset)
    entities = natalog_system.prepared(dataset, 1)
    plain = [[{K(name): one[K(name)] for name in ("id", *FIVE)}] for (one,) in entities]
    facts = [
        [[K("db/add"), [ID, one[ID]], K(name), one[K(name)]]] for (one,) in plain for name in FIVE
    ]
    identities = [[{ID: one[ID]}] for (one,) in plain]
    known = natalog_system.applied(empty, [[one for tx in identities for one in tx]])
    full = natalog_system.applied(empty, natalog_system.prepared(dataset, 1_000))
    eids = [d.e for d in full.datoms("aevt", [ID])]
    retractions = [[[K("db/retractEntity"), e]] for e in eids]

    def whole(name: str, start: Database, txs: list[Any]) -> Line:
        """The median of whole runs of ``txs`` on ``start``."""
        last: list[Database] = []

        def work() -> None:
            last[:] = [natalog_system.applied(start, txs)]

        times = whole_runs_ms(work, bench.protocol.runs)
        check(name, ages(last[0]), want[name])
        extra = {"transactions": len(txs), "us_per_tx": round(min(times) * 1000 / len(txs), 1)}
        return Line("natalog", name, statistics.median(times), len(times), extra)

    yield whole("add-1", known, facts)
    yield whole("add-5", empty, plain)
    yield whole("add-all", empty, [[one for tx in plain for one in tx]])
    yield whole("retract-5", full, retractions)
    for size in LOADS:
        yield whole(f"load-{size}", empty, natalog_system.prepared(dataset, size))
    for name, make in CHANGES.items():
        changes = [make(len(dataset.entities), n) for n in range(LATENCIES)]
        yield latencies(name, full, changes, want[name])


def latencies(name: str, db: Database, changes: list[dict[str, Any]], want: Answer) -> Line:
    """One transaction at a time on a database that is full."""
    times = []
    settle()
    for number, change in enumerate(changes):
        tx = [{K(attribute): value for attribute, value in change.items()}]
        began = time.perf_counter()
        db = process(db, tx, now_ms=10_000_000 + number).db_after
        times.append((time.perf_counter() - began) * 1000)
    changed = {change["id"] for change in changes}
    check(name, answer((row for row in q(AGES, db).rows if row[0] in changed), "vv"), want)
    extra = {"p99_ms": round(percentile(times, 0.99), 4)}
    return Line("natalog", name, statistics.median(times), len(times), extra)

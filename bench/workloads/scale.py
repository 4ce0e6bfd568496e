"""How costs grow with the size of a database: 10,000 to 10,000,000 datoms, each in a fresh process.

The people have ``id`` (unique), ``name``, ``last-name``, ``age`` and ``salary``, all indexed by
value, and are made while they are loaded, so that memory is that of the database.  The answers
are compared with counts and sums that were taken from the data as they were made.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bench_data
import natalog_system
from datasets import PERSON, Dataset
from measure import FULL, QUICK, Answer, Line, Protocol, check, median_ms, percentile

from natalog.core.database import Database
from natalog.core.query import q
from natalog.core.storage import Memo, Residency, load_snapshot, write_snapshot
from natalog.core.transact import process
from workloads.base import Bench
from workloads.memory import resident

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
ATTRIBUTES = ("id", "name", "last-name", "age", "salary")
BATCH = 1_000
CALLS = 200
UPDATES = 100
SALARY = 500
"""People who earn less are 1 in 200."""

POINT = "[:find ?n . :in $ ?id :where [?e :id ?id] [?e :name ?n]]"
JOIN = '[:find (count ?e) . :where [?e :name "Ivan"] [?e :last-name "Petrov"] [?e :age 33]]'
RANGE = f"[:find (count ?e) . :where [?e :salary ?s] [(< ?s {SALARY})]]"
SUM = "[:find (sum ?s) . :with ?e :where [?e :salary ?s]]"


class Expected:
    """What the queries must answer, counted while the people are made."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.joined = self.ranged = self.summed = 0

    def add(self, one: dict[str, Any]) -> None:
        self.names.append(one["name"])
        matches = (one["name"], one["last-name"], one["age"]) == ("Ivan", "Petrov", 33)
        self.joined += matches
        self.ranged += one["salary"] < SALARY
        self.summed += one["salary"]


def batches(people: int, expected: Expected) -> Iterator[list[dict[str, Any]]]:
    """The people, a transaction of them at a time."""
    r = random.Random(51)
    for start in range(1, people + 1, BATCH):
        found = []
        for number in range(start, min(start + BATCH, people + 1)):
            one = bench_data.person(r, number)
            expected.add(one)
            found.append({name: one[name] for name in ATTRIBUTES})
        yield found


def loaded(dataset: Dataset, people: int, expected: Expected) -> tuple[Database, float]:
    """The database, and the milliseconds that its transactions took."""
    db = natalog_system.empty(dataset)
    took = 0.0
    for number, batch in enumerate(batches(people, expected)):
        data = natalog_system.tx_maps(dataset, batch)
        began = time.perf_counter()
        db = process(db, data, now_ms=1_000 + number).db_after
        took += time.perf_counter() - began
    return db, took * 1000


def calls_ms(work: Callable[[int], Any], numbers: Sequence[int]) -> list[float]:
    """Milliseconds of a call for each number, after one that is not counted."""
    work(numbers[0])
    times = []
    for number in numbers:
        began = time.perf_counter()
        work(number)
        times.append((time.perf_counter() - began) * 1000)
    return times


def asked(query: str, db: Database) -> Callable[[], Any]:
    """The query as something to call."""
    return lambda: q(query, db).python()


def measured(datoms: int, protocol: Protocol) -> Iterator[Line]:
    """All figures of one size; this process has loaded nothing before."""
    dataset = Dataset("scale", {name: PERSON[name] for name in ATTRIBUTES}, [])
    loaded(dataset, 2 * BATCH, Expected())  # code, caches, slack of the allocator
    gc.collect()
    before = resident()
    expected = Expected()
    people = datoms // len(ATTRIBUTES)
    db, took = loaded(dataset, people, expected)
    gc.collect()
    gc.freeze()
    added = resident() - before - sys.getsizeof(expected.names)

    def line(what: str, times: Sequence[float], **extra: Any) -> Line:
        more = {"datoms": datoms, "p99_ms": round(percentile(times, 0.99), 4), **extra}
        return Line("natalog", f"scale-{what}-{datoms}", statistics.median(times), len(times), more)

    yield line(
        "load",
        [took],
        us_per_datom=round(1000 * took / datoms, 3),
        bytes_per_datom=round(added / datoms, 1),
    )
    numbers = random.Random(52).choices(range(1, people + 1), k=CALLS)
    for number in numbers:
        found = q(POINT, db, number).python()
        check(f"scale-point-{datoms}", Answer(1, str(found)), Answer(1, expected.names[number - 1]))
    yield line("point", calls_ms(lambda number: q(POINT, db, number).python(), numbers))
    past = db.as_of((natalog_system.empty(dataset).max_tx + db.max_tx) // 2)
    early = [number // 2 + 1 for number in numbers]
    yield line("as-of-point", calls_ms(lambda number: q(POINT, past, number).python(), early))
    for what, query, wanted in (
        ("join", JOIN, expected.joined or None),
        ("range", RANGE, expected.ranged or None),
        ("sum", SUM, expected.summed),
    ):
        found = q(query, db).python()
        check(f"scale-{what}-{datoms}", Answer(1, str(found)), Answer(1, str(wanted)))
        median, _ = median_ms(asked(query, db), protocol)
        yield line(what, [median])
    chain = [db]

    def update(number: int) -> None:
        data = natalog_system.tx_maps(dataset, [{"id": number, "salary": number % 1000}])
        chain[0] = process(chain[0], data, now_ms=10**13 + len(numbers)).db_after

    yield line("update", calls_ms(update, numbers[:UPDATES]))

    def fresh_sum(number: int) -> float:
        update(number)
        began = time.perf_counter()
        q(SUM, chain[0]).python()
        return (time.perf_counter() - began) * 1000

    yield line("sum-of-new-value", [fresh_sum(number) for number in numbers[:7]])
    yield from snapshots(db, chain[0], line)


def snapshots(db: Database, later: Database, line: Callable[..., Line]) -> Iterator[Line]:
    """Writing all of it, writing what 107 updates changed, and loading that."""
    segments: dict[str, bytes] = {}

    class Source:
        def segment(self, name: str) -> bytes:
            return segments[name]

    def write(value: Database, memo: Memo) -> tuple[float, Any, int]:
        began = time.perf_counter()
        snapshot = write_snapshot(value, memo)
        new = dict(snapshot.segments())
        took = (time.perf_counter() - began) * 1000
        segments.update(new)
        return took, snapshot, sum(map(len, new.values()))

    took, first, size = write(db, Memo())
    yield line("snapshot", [took], bytes=size)
    took, snapshot, size = write(later, first.confirm(Source(), Residency(1 << 40)))
    yield line("snapshot-next", [took], bytes=size)
    began = time.perf_counter()
    load_snapshot(snapshot.manifest, Source(), Residency(1 << 30))
    yield line("snapshot-load", [(time.perf_counter() - began) * 1000])


def run(bench: Bench) -> Iterator[Line]:
    quick = bench.protocol is QUICK
    here = Path(__file__).resolve().parent.parent
    for size in SIZES[:-1] if quick else SIZES:
        command = [sys.executable, "-m", "workloads.scale", str(size), str(int(quick))]
        shown = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
        for text in shown.stdout.splitlines():
            yield Line(**json.loads(text))


if __name__ == "__main__":
    for one in measured(int(sys.argv[1]), QUICK if sys.argv[2] == "1" else FULL):
        print(json.dumps(one.json()), flush=True)

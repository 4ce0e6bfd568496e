"""Segments: encoding, snapshots of 1,000,000 datoms, and reading them through a small cache.

Segments are kept in a dictionary, so that the figures are those of the format and not of a store.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from typing import Any

import natalog_system
from measure import Answer, Line, check, median_ms, whole_runs_ms

from natalog.core.database import Database
from natalog.core.query import q
from natalog.core.storage import Memo, Residency, Snapshot, load_snapshot, write_snapshot
from natalog.core.storage.leaves import StoredLeaves, pack_leaf
from natalog.core.storage.segment import LEAF, name_of, sealed
from natalog.core.transact import process
from natalog.core.values import Keyword
from workloads.base import Bench

DATASET = "million"
BUDGET = 32 * 1024 * 1024
POINT = "[:find ?n . :in $ ?e :where [?e :name ?n]]"
SCAN = "[:find (sum ?s) . :with ?e :where [?e :salary ?s]]"


class Segments(dict[str, bytes]):
    """A store of segments in memory."""

    def segment(self, name: str) -> bytes:
        return self[name]

    def store(self, db: Database, memo: Memo) -> tuple[Snapshot, dict[str, bytes]]:
        """Write a snapshot; also what was new."""
        snapshot = write_snapshot(db, memo)
        new = dict(snapshot.segments())
        self.update(new)
        return snapshot, new


def run(bench: Bench) -> Iterator[Line]:
    dataset = bench.files.dataset(DATASET)
    db = natalog_system.applied(
        natalog_system.empty(dataset), natalog_system.prepared(dataset, 1_000)
    )
    bench.forget(DATASET)
    yield from _leaves(bench, db)
    segments = Segments()
    taken: list[tuple[Snapshot, dict[str, bytes]]] = []
    times = whole_runs_ms(lambda: taken.append(segments.store(db, Memo())), bench.protocol.runs)
    snapshot, new = taken[0]
    size = sum(map(len, new.values())) + len(snapshot.manifest)
    extra: dict[str, Any] = {
        "segments": len(new),
        "bytes": size,
        "bytes_per_datom": round(size / len(db), 2),
        "datoms": len(db),
    }
    yield Line("natalog", "1m-snapshot-write", statistics.median(times), len(times), extra)
    yield from _loads(bench, db, snapshot, segments)
    yield from _next(bench, snapshot, segments)


def _leaves(bench: Bench, db: Database) -> Iterator[Line]:
    """One leaf of facts by entity, and one by value: the mean of both."""
    index = db.indexes[Keyword("salary")]
    assert index.avet is not None
    rows = [tree.leaves[len(tree.leaves) // 2].load() for tree in (index.aevt, index.avet)]
    made = [sealed(LEAF, pack_leaf(table)) for table in rows]
    source = Segments({name_of(data): data for data in made})
    reader = StoredLeaves(source)
    extra = {
        "rows": sum(table.shape[1] for table in rows) // 2,
        "bytes": sum(map(len, made)) // 2,
    }
    took, n = median_ms(lambda: [sealed(LEAF, pack_leaf(one)) for one in rows], bench.protocol)
    yield Line("natalog", "leaf-encode", took / 2, n, extra)
    took, n = median_ms(lambda: [reader.rows(name) for name in source], bench.protocol)
    yield Line("natalog", "leaf-decode", took / 2, n, extra)


def _loads(bench: Bench, db: Database, snapshot: Snapshot, segments: Segments) -> Iterator[Line]:
    """From the manifest to the first answers, then points with and without their leaves at hand."""
    loaded: list[Database] = []

    def load(budget: int = BUDGET) -> Database:
        loaded[:] = [load_snapshot(snapshot.manifest, segments, Residency(budget))[0]]
        return loaded[0]

    entities = [datom.e for datom in db.datoms("aevt", [Keyword("name")])]
    chosen = random.Random(49).sample(entities, 200)
    for name, work in (
        ("1m-snapshot-load", load),
        ("1m-snapshot-load-point", lambda: q(POINT, load(), chosen[0])),
        ("1m-snapshot-load-scan", lambda: q(SCAN, load())),
    ):
        took, n = median_ms(work, bench.protocol)
        yield Line("natalog", name, took, n, {"budget_mib": BUDGET >> 20})
    wanted = q(SCAN, db).rows
    check("1m-snapshot-load-scan", Answer(1, str(q(SCAN, loaded[0]).rows)), Answer(1, str(wanted)))
    for name, budget in (("point-in-cache", 10**10), ("point-not-in-cache", 0)):
        value = load(budget)
        for e in chosen:
            expected = Answer(1, str(db.facts(e, Keyword("name"))))
            check(name, Answer(1, str(value.facts(e, Keyword("name")))), expected)

        def read(value: Database = value) -> None:
            for e in chosen:
                value.facts(e, Keyword("name"))

        took, n = median_ms(read, bench.protocol)
        yield Line("natalog", name, took / len(chosen), n, {})


def _next(bench: Bench, snapshot: Snapshot, segments: Segments) -> Iterator[Line]:
    """The next snapshot after one transaction of five facts."""
    residency = Residency(BUDGET)
    db, memo, _ = load_snapshot(snapshot.manifest, segments, residency)
    e = db.max_eid // 2
    data = {Keyword("db/id"): e, Keyword("salary"): 1, Keyword("name"): "somebody"}
    changed = process(db, [data], now_ms=10**13).db_after
    new: dict[str, bytes] = {}

    def write() -> None:
        new.clear()
        new.update(write_snapshot(changed, memo).segments())

    took, n = median_ms(write, bench.protocol)
    extra = {"segments": len(new), "bytes": sum(map(len, new.values()))}
    yield Line("natalog", "1m-snapshot-next", took, n, extra)

"""1,000,000 datoms by transactions of 1,000 entities, and queries on them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import natalog_system
from measure import Line, settle
from natalog_system import Loaded

from workloads import aggregates, queries
from workloads.base import Bench, run_queries

DATASET = "million"
_QUERIES = queries.make(DATASET, "1m-")
_AGGREGATES = aggregates.make(DATASET, "1m-")
WORKLOADS = [
    *(_QUERIES[name] for name in ("q1", "q2", "q2-switch", "q3", "q4", "qpred1", "q-5-merge")),
    *(_AGGREGATES[name] for name in ("q-agg-avg", "q-agg-group")),
]


def run(bench: Bench) -> Iterator[Line]:
    dataset = bench.files.dataset(DATASET)
    transactions = natalog_system.prepared(dataset, 1_000)
    times = []
    db = None
    for _ in range(bench.protocol.runs):
        db = None
        settle()
        began = time.perf_counter()
        db = natalog_system.applied(natalog_system.empty(dataset), transactions)
        times.append((time.perf_counter() - began) * 1000)
    assert db is not None
    extra = {"datoms": dataset.datoms(), "transactions": len(transactions)}
    yield Line("natalog", "1m-load-1000", statistics.median(times), len(times), extra)
    del transactions
    ids = natalog_system.ids_of(db, dataset)
    bench.loaded[DATASET] = Loaded(db, ids, db.max_tx, db.max_tx, db.max_tx)
    yield from run_queries(bench, WORKLOADS)
    bench.forget(DATASET)

"""Snapshots of a service: writing them beside transactions, opening from them, reading leaves.

At the end an entity is purged on 61 branches and erased from their logs and segments.

The service and its nats-server, which syncs every write, are processes of their own.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import natalog_system
from anyio import to_thread
from measure import Answer, Line, check, percentile

from natalog.actors.names import Names
from natalog.actors.segments.places import Places
from natalog.actors.segments.store import SegmentStore
from natalog.actors.segments.wire import Wire
from natalog.cli.connection import event_loop_run
from natalog.client import Conn, connect
from natalog.core.storage.leaves import StoredLeaves
from natalog.core.storage.segment import LEAF
from natalog.testing import own_service
from workloads.base import Bench

DATASET = "million"
DATABASE = "bench"
FIRST = '[:find (count ?e) . :where [?e :name "Ivan"]]'
BRANCHED_AT = (1_000, 100_000, 1_000_000)
"""Datoms at which the making of branches is measured."""
BRANCHES = 20
ALONE_S = 5.0
LEAVES = 500


async def ms(work: Awaitable[Any]) -> float:
    """Milliseconds until ``work`` is done."""
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1000


def line(workload: str, times_ms: list[float], **extra: Any) -> Line:
    """A figure with its 99th percentile."""
    more = {"p99_ms": round(percentile(times_ms, 0.99), 3), **extra}
    return Line("natalog", workload, statistics.median(times_ms), len(times_ms), more)


def stored(folder: Path, words: str) -> int:
    """Bytes of the streams that have ``words`` in their names."""
    streams = [path for path in folder.rglob("streams/*") if words in path.name]
    return sum(p.stat().st_size for one in streams for p in one.rglob("*") if p.is_file())


async def branching(conn: Conn, folder: Path, datoms: int) -> Line:
    """Making a branch at the head, and the bytes that it adds."""
    before = stored(folder, "natalog=")
    times = [await ms(conn.branch(f"b{datoms}-{n}")) for n in range(BRANCHES)]
    added = (stored(folder, "natalog=") - before) // BRANCHES
    return line(f"branch-at-{datoms}", times, bytes=added)


async def beside(conn: Conn, people: int, done: Callable[[], bool]) -> list[float]:
    """Milliseconds of transactions, one after the other, until ``done``."""
    times: list[float] = []
    newest = (await conn.info())["max_eid"]
    while not done():
        fact = ["db/add", newest - random.randrange(people), "age", len(times) % 100]
        times.append(await ms(conn.transact([fact])))
    return times


async def written(conn: Conn, people: int) -> AsyncIterator[Line]:
    """Transactions alone, and while snapshots are written."""
    end = time.perf_counter() + ALONE_S
    times = await beside(conn, people, lambda: time.perf_counter() > end)
    yield line("snapshot-none-tx", times)
    for name in ("first", "next"):
        writing = asyncio.ensure_future(timed_snapshot(conn))
        times = await beside(conn, people, writing.done)
        took, found = await writing
        more = {"segments": found["segments"], "bytes": found["bytes"]}
        yield Line("natalog", f"snapshot-{name}", took, 1, more)
        yield line(f"snapshot-{name}-tx", times)


async def timed_snapshot(conn: Conn) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    found = await conn.snapshot(timeout=120)
    return (time.perf_counter() - began) * 1000, found


async def opened(folder: Path, workload: str, ivans: int, *options: str) -> Line:
    """From the start of the service process to the first answer."""
    began = time.perf_counter()
    async with own_service(folder, *options) as url, connect(url) as client:
        ready = (time.perf_counter() - began) * 1000
        found = await client.database(DATABASE).q(FIRST)
        took = (time.perf_counter() - began) * 1000
    check(workload, Answer(found, ""), Answer(ivans, ""))
    return Line("natalog", workload, took, 1, {"ready_ms": round(ready)})


def leaves(url: str) -> Iterator[Line]:
    """A leaf from JetStream, and from memory."""
    wire = Wire(url)
    try:
        store = SegmentStore(DATABASE, *Places("jetstream", wire, Names())(DATABASE))
        names = [name for name, size in store.sizes().items() if size > 500]
        rows = StoredLeaves(store)
        misses, hits = [], []
        for name in random.sample(names, min(len(names), 3 * LEAVES)):
            data = store.get(name)
            if data is None or data[3] != LEAF:
                continue
            began = time.perf_counter()
            found = rows.rows(name)
            misses.append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            found[0].searchsorted(found[0, -1])
            hits.append((time.perf_counter() - began) * 1000)
            if len(misses) == LEAVES:
                break
        yield line("leaf-from-jetstream", misses)
        yield line("leaf-in-memory", hits)
    finally:
        wire.close()


async def erased(conn: Conn, workload: str, purges: Sequence[Any] = ()) -> Line:
    """Purging on every branch and erasing; every log of the database is read."""
    began = time.perf_counter()
    receipt = await conn.erase(purges, timeout=600)
    took = (time.perf_counter() - began) * 1000
    return Line("natalog", workload, took, 1, {"blocks": receipt["blocks"]})


async def measured(bench: Bench) -> list[Line]:
    dataset = bench.files.dataset(DATASET)
    people = len(dataset.entities)
    ivans = sum(one["name"] == "Ivan" for one in dataset.entities)
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="natalog-bench-") as name:
        folder = Path(name)
        never = folder / "natalog.toml"
        never.write_text("snapshot_datoms = 1000000000\nsnapshot_interval_s = 1e9\n")
        async with own_service(folder, "--config", str(never)) as url, connect(url) as client:
            await client.create_database(DATABASE, initial_tx=natalog_system.schema_tx(dataset))
            conn = client.database(DATABASE)
            at = list(BRANCHED_AT)
            sent = 0
            for batch in natalog_system.prepared(dataset, 200):
                await conn.transact(batch)
                sent += sum(map(len, batch))
                if at and sent >= at[0]:
                    lines.append(await branching(conn, folder, at.pop(0)))
            lines += [one async for one in written(conn, people)]
            lines += await to_thread.run_sync(lambda: list(leaves(url)))
        datoms = dataset.datoms()
        for words in ("=log", "=segments_"):
            size = stored(folder, f"natalog={DATABASE}={'db' if words == '=log' else '_'}{words}")
            more = {"bytes": size, "bytes_per_datom": round(size / datoms, 2)}
            lines.append(
                Line("natalog", f"disk{words.replace('=', '-').rstrip('_')}", 0.0, 1, more)
            )
        lines.append(await opened(folder, "open-from-log", ivans, "--segment-store", "memory"))
        for _ in range(bench.protocol.runs):
            lines.append(await opened(folder, "open-from-snapshot", ivans))
        async with own_service(folder) as url, connect(url) as client:
            conn = client.database(DATABASE)
            e = (await conn.info())["max_eid"] - people // 2
            lines.append(await erased(conn, "erase-entity", [["db.purge/entity", e]]))
            lines.append(await erased(conn, "erase-nothing"))
    return lines


def run(bench: Bench) -> Iterator[Line]:
    yield from event_loop_run(measured(bench))

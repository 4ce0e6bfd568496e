"""A service through NATS, which syncs every write: transactions, publishing, reports, queries.

A bare request to an echo and a bare publish into a stream of the same server stand beside.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import natalog_system
from datasets import Dataset
from measure import Answer, Line, answer, check, percentile
from nats.aio.client import Client as Nats

from natalog.cli.connection import event_loop_run
from natalog.client import Client, Conn, connect
from natalog.report import TxReport
from natalog.testing import own_service
from workloads import queries
from workloads.base import Bench

POINT = "[:find ?n . :in $ ?id :where [?e :id ?id] [?e :name ?n]]"
DATABASE = "bench"
LATENCIES = 4_000
WARM = 400
"""Calls before latencies are taken: a machine that rested answers the first ones slowly."""
REPORTS = 1_000
IN_FLIGHT = {16: 3_000, 128: 10_000}
PUBLISHED = 5_000
QUERIES = 2_000
QUERY_WORKERS = (1, 2, 4)
QUERY_IN_FLIGHT = 64
BARE_BYTES = 200
ROUNDS = 8

Work = Callable[[int], Awaitable[Any]]


def line(workload: str, times_ms: list[float], **extra: Any) -> Line:
    """A figure with its 99th percentile."""
    more = {"p99_ms": round(percentile(times_ms, 0.99), 4), **extra}
    return Line("natalog", workload, statistics.median(times_ms), len(times_ms), more)


async def timed(work: Work, count: int) -> list[float]:
    """Milliseconds of each of ``count`` calls, one after the other."""
    found = []
    for n in range(count):
        began = time.perf_counter()
        await work(n)
        found.append((time.perf_counter() - began) * 1000)
    return found


async def crowd(work: Work, count: int, in_flight: int) -> tuple[list[float], int]:
    """Milliseconds of each of ``count`` calls, ``in_flight`` at a time, and calls per second."""
    times: list[float] = []
    numbers = iter(range(count))

    async def worker() -> None:
        for n in numbers:
            began = time.perf_counter()
            await work(n)
            times.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return times, round(count / (time.perf_counter() - began))


async def filled(client: Client, dataset: Dataset) -> Conn:
    """A database with the people."""
    await client.create_database(DATABASE, initial_tx=natalog_system.schema_tx(dataset))
    conn = client.database(DATABASE)
    for batch in natalog_system.prepared(dataset, 500):
        await conn.transact(batch)
    return conn


def updater(conn: Conn, people: int) -> Work:
    """A transaction that gives the n-th person a new age."""

    async def update(n: int) -> TxReport:
        return await conn.transact([{"id": n % people + 1, "age": n % 100}])

    return update


async def transactions(conn: Conn, people: int, share: float) -> AsyncIterator[Line]:
    """Many in flight, published."""
    update = updater(conn, people)
    for in_flight, count in IN_FLIGHT.items():
        times, rate = await crowd(update, int(count * share), in_flight)
        yield line(f"service-tx-{in_flight}", times, tx_per_s=rate)

    async def publish(n: int) -> None:
        await conn.publish([{"id": n % people + 1, "age": n % 100}])

    times, rate = await crowd(publish, int(PUBLISHED * share), 128)
    yield line("service-publish", times, tx_per_s=rate)
    applied = -1
    while (now := (await conn.db()).basis) != applied:  # until what was published is
        applied = now
        await asyncio.sleep(0.3)


async def report_latency(conn: Conn, people: int, count: int) -> Line:
    """From sending a transaction until a subscriber has its report."""
    update = updater(conn, people)
    times: list[float] = []
    async with conn.reports() as feed:
        reports = aiter(feed)
        coming = asyncio.ensure_future(anext(reports))
        await asyncio.sleep(0.3)  # the subscription stands
        for n in range(count):
            began = time.perf_counter()
            sending = asyncio.ensure_future(update(n))
            report = await coming
            times.append((time.perf_counter() - began) * 1000)
            assert report.tx == (await sending).tx
            coming = asyncio.ensure_future(anext(reports))
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
    return line("service-report-latency", times)


async def point_query(conn: Conn, names: dict[int, str]) -> Work:
    """A name looked up by id, through the wire."""
    db = await conn.db()
    ids = list(names)

    async def ask(n: int) -> Any:
        return await db.q(POINT, ids[n % len(ids)])

    found = [(ids[n], await ask(n)) for n in range(50)]
    check("service-point-query", answer(found, "vv"), answer(list(names.items())[:50], "vv"))
    return ask


async def whole_results(conn: Conn, dataset: Dataset, count: int) -> AsyncIterator[Line]:
    """Many rows through the wire; the client has them as Python values."""
    everything = queries.make("people")
    db = await conn.db()
    for workload in (everything["q2"], everything["q-5-merge"]):
        # ages change while transactions are measured, so only their number is compared
        rows = len(list(workload.expect(dataset)))

        async def ask(_: int, query: str = workload.query) -> Any:
            return await db.q(query)

        check(workload.name, Answer(len(await ask(0)), ""), Answer(rows, ""))
        times = await timed(ask, count)
        rate = round(rows * 1000 / statistics.median(times))
        yield line(f"service-{workload.name}", times, rows=rows, rows_per_s=rate)


async def query_rate(conn: Conn, people: int, workers: int, count: int) -> Line:
    """Point queries per second of several query processes."""
    db = await conn.db()

    async def ask(n: int) -> None:
        await db.q(POINT, n % people + 1)

    await crowd(ask, 200, QUERY_IN_FLIGHT)
    times, rate = await crowd(ask, count, QUERY_IN_FLIGHT)
    return line(f"service-queries-{workers}-processes", times, queries_per_s=rate)


async def mixed(conn: Conn, people: int, count: int) -> Line:
    """90 % point queries and 10 % transactions."""
    update = updater(conn, people)

    async def work(n: int) -> None:
        if n % 10:
            await conn.q(POINT, n % people + 1)
        else:
            await update(n)

    times, rate = await crowd(work, count, QUERY_IN_FLIGHT)
    return line("service-mixed", times, operations_per_s=rate)


@asynccontextmanager
async def echo(client: Client, url: str) -> AsyncIterator[Work]:
    """A bare request to a responder in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("echo.py")),
        url,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    transport = client.session.transport

    async def ask(_: int) -> None:
        await transport.request("bench.echo", b"x" * BARE_BYTES, 5)

    try:
        await process.stdout.readline()
        yield ask
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def publisher(url: str) -> AsyncIterator[Work]:
    """A bare publish into a stream of the same server, which syncs it."""
    connection = Nats()
    await connection.connect(url)
    try:
        stream = connection.jetstream()
        await stream.add_stream(name="bench-bare", subjects=["bench.bare"])

        async def publish(_: int) -> None:
            await stream.publish("bench.bare", b"x" * BARE_BYTES)

        yield publish
    finally:
        await connection.close()


async def side_by_side(works: dict[str, Work], count: int) -> AsyncIterator[Line]:
    """Latencies of works that are compared: in turns, since a machine is not always as fast."""
    times: dict[str, list[float]] = {name: [] for name in works}
    part = max(1, count // ROUNDS)
    for work in works.values():
        await timed(work, max(1, WARM * count // LATENCIES))
    for start in range(0, part * ROUNDS, part):
        for name, work in works.items():
            times[name] += await timed(lambda n, w=work, s=start: w(s + n), part)  # type: ignore[misc]
    for name, found in times.items():
        extra = {"per_s": round(1000 * len(found) / sum(found))}
        if "bare" in name:
            extra["bytes"] = BARE_BYTES
        yield line(name, found, **extra)


async def measure(bench: Bench) -> AsyncIterator[Line]:
    dataset = bench.files.dataset("people")
    people = len(dataset.entities)
    names = {one["id"]: one["name"] for one in dataset.entities}
    share = 1.0 if bench.protocol.runs > 1 else 0.1
    for workers in (0, *QUERY_WORKERS):
        options = ("--query-workers", str(workers)) if workers else ()
        with tempfile.TemporaryDirectory(prefix="natalog-bench-") as name:
            async with own_service(Path(name), *options) as url, connect(url) as client:
                conn = await filled(client, dataset)
                if workers:
                    yield await query_rate(conn, people, workers, int(3 * QUERIES * share))
                    continue
                count = int(LATENCIES * share)
                async with echo(client, url) as request:
                    ask = await point_query(conn, names)
                    works = {"service-bare-request": request, "service-point-query": ask}
                    async for found in side_by_side(works, count):
                        yield found
                async with publisher(url) as publish:
                    update = updater(conn, people)
                    works = {"service-bare-synced-publish": publish, "service-tx-1": update}
                    async for found in side_by_side(works, count):
                        yield found
                async for found in whole_results(conn, dataset, max(5, int(30 * share))):
                    yield found
                async for found in transactions(conn, people, share):
                    yield found
                yield await report_latency(conn, people, int(REPORTS * share))
                yield await mixed(conn, people, int(QUERIES * share))


async def collected(bench: Bench) -> list[Line]:
    return [found async for found in measure(bench)]


def run(bench: Bench) -> Iterator[Line]:
    yield from event_loop_run(collected(bench))

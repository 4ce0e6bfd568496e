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
from natalog.testing import own_service
from workloads import queries
from workloads.base import Bench

POINT = "[:find ?n . :in $ ?id :where [?e :id ?id] [?e :name ?n]]"
DATABASE = "bench"
LATENCIES = 500
IN_FLIGHT = {16: 3_000, 128: 10_000}
PUBLISHED = 5_000
QUERIES = 2_000
QUERY_WORKERS = (1, 2, 4)
QUERY_IN_FLIGHT = 64
ECHO_BYTES = 200

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

    async def update(n: int) -> None:
        await conn.transact([{"id": n % people + 1, "age": n % 100}])

    return update


async def transactions(conn: Conn, people: int, share: float) -> AsyncIterator[Line]:
    """One at a time, many in flight, published."""
    update = updater(conn, people)
    await timed(update, 20)
    times = await timed(update, int(LATENCIES * share))
    yield line("service-tx-1", times, tx_per_s=round(1000 * len(times) / sum(times)))
    for in_flight, count in IN_FLIGHT.items():
        times, rate = await crowd(update, int(count * share), in_flight)
        yield line(f"service-tx-{in_flight}", times, tx_per_s=rate)

    async def publish(n: int) -> None:
        await conn.publish([{"id": n % people + 1, "age": n % 100}])

    times, rate = await crowd(publish, int(PUBLISHED * share), 128)
    yield line("service-publish", times, tx_per_s=rate)
    await conn.transact([{"id": 1, "age": 1}])  # what was published is applied before this one


async def report_latency(conn: Conn, people: int, count: int) -> Line:
    """From sending a transaction until a subscriber has its report."""
    update = updater(conn, people)
    times: list[float] = []
    async with conn.reports() as feed:
        reports = aiter(feed)
        for n in range(count):
            began = time.perf_counter()
            sending = asyncio.ensure_future(update(n))
            await anext(reports)
            times.append((time.perf_counter() - began) * 1000)
            await sending
    return line("service-report-latency", times)


async def point_queries(conn: Conn, names: dict[int, str], count: int) -> Line:
    """A name looked up by id, through the wire."""
    db = await conn.db()
    ids = list(names)

    async def ask(n: int) -> Any:
        return await db.q(POINT, ids[n % len(ids)])

    found = [(ids[n], await ask(n)) for n in range(50)]
    check("service-point-query", answer(found, "vv"), answer(list(names.items())[:50], "vv"))
    return line("service-point-query", await timed(ask, count))


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
async def echo(url: str) -> AsyncIterator[str]:
    """A responder in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("echo.py")),
        url,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield "bench.echo"
    finally:
        process.terminate()
        await process.wait()


async def bare(client: Client, url: str, share: float) -> AsyncIterator[Line]:
    """Requests and publishes with no database behind them."""
    transport = client.session.transport
    async with echo(url) as subject:

        async def ask(_: int) -> None:
            await transport.request(subject, b"x" * ECHO_BYTES, 5)

        await timed(ask, 50)
        times = await timed(ask, int(QUERIES * share))
        yield line("service-bare-request", times, bytes=ECHO_BYTES)
    connection = Nats()
    await connection.connect(url)
    try:
        stream = connection.jetstream()
        await stream.add_stream(name="bench-bare", subjects=["bench.bare"])

        async def publish(_: int) -> None:
            await stream.publish("bench.bare", b"x" * ECHO_BYTES)

        await timed(publish, 20)
        times = await timed(publish, int(LATENCIES * share))
        yield line("service-bare-synced-publish", times, bytes=ECHO_BYTES)
    finally:
        await connection.close()


async def measure(bench: Bench) -> AsyncIterator[Line]:
    dataset = bench.files.dataset("people")
    people = len(dataset.entities)
    names = {one["id"]: one["name"] for one in dataset.entities}
    share = 1.0 if bench.protocol.runs > 1 else 0.1
    for workers in QUERY_WORKERS:
        with tempfile.TemporaryDirectory(prefix="natalog-bench-") as name:
            options = ("--query-workers", str(workers))
            async with own_service(Path(name), *options) as url, connect(url) as client:
                conn = await filled(client, dataset)
                if workers == QUERY_WORKERS[0]:
                    async for found in bare(client, url, share):
                        yield found
                    yield await point_queries(conn, names, int(QUERIES * share))
                    async for found in whole_results(conn, dataset, max(5, int(30 * share))):
                        yield found
                    async for found in transactions(conn, people, share):
                        yield found
                    yield await report_latency(conn, people, int(LATENCIES * share))
                    yield await mixed(conn, people, int(QUERIES * share))
                yield await query_rate(conn, people, workers, int(3 * QUERIES * share))


async def collected(bench: Bench) -> list[Line]:
    return [found async for found in measure(bench)]


def run(bench: Bench) -> Iterator[Line]:
    yield from event_loop_run(collected(bench))

"""Measure a service through NATS: durable transactions, point queries, and a bare request beside.

    python bench/service.py [--data PEOPLE.json] [--json OUT]

Prints a JSON line for each workload: ``{system, workload, median_ms, n, extra}``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench_data import people
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from natalog.cli.connection import event_loop_run
from natalog.client import Client, Conn, connect
from natalog.testing import own_service

PEOPLE_LOADED = 20_000
SEQUENTIAL = 500
IN_FLIGHT = 64
PIPELINED = 6_000
QUERIES = 2_000
POINT = "[:find ?n . :in $ ?id :where [?e :id ?id] [?e :name ?n]]"
SCHEMA = """[
 {:db/ident :id :db/valueType :db.type/long :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
 {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}]"""

Line = dict[str, Any]


async def timed(work: Callable[[int], Awaitable[Any]], count: int) -> list[float]:
    """Milliseconds of each of ``count`` calls, one after the other."""
    found = []
    for n in range(count):
        began = time.perf_counter()
        await work(n)
        found.append((time.perf_counter() - began) * 1000)
    return found


def line(workload: str, times_ms: list[float], **extra: Any) -> Line:
    ordered = sorted(times_ms)
    return {
        "system": "natalog",
        "workload": workload,
        "median_ms": round(statistics.median(ordered), 4),
        "n": len(ordered),
        "extra": {"p99_ms": round(ordered[int(len(ordered) * 0.99)], 4), **extra},
    }


async def load(conn: Conn, rows: list[dict[str, Any]]) -> Line:
    began = time.perf_counter()
    batches = [rows[start : start + 500] for start in range(0, len(rows), 500)]
    times = await timed(lambda n: conn.transact(batches[n]), len(batches))
    return line("load", times, rows_per_s=round(len(rows) / (time.perf_counter() - began)))


async def sequential(conn: Conn) -> Line:
    began = time.perf_counter()
    times = await timed(lambda n: conn.transact([{"id": 1, "age": n}]), SEQUENTIAL)
    return line("tx-sequential", times, tx_per_s=round(SEQUENTIAL / (time.perf_counter() - began)))


async def in_flight(conn: Conn) -> Line:
    times: list[float] = []
    numbers = iter(range(PIPELINED))

    async def worker() -> None:
        for n in numbers:
            began = time.perf_counter()
            await conn.transact([{"id": n % PEOPLE_LOADED + 1, "age": n % 100}])
            times.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    rate = round(PIPELINED / (time.perf_counter() - began))
    return line(f"tx-{IN_FLIGHT}-in-flight", times, tx_per_s=rate)


async def point_queries(conn: Conn) -> Line:
    db = await conn.db()

    async def ask(n: int) -> None:
        found = await db.q(POINT, n % PEOPLE_LOADED + 1)
        assert isinstance(found, str)

    await timed(ask, 50)
    return line("point-query", await timed(ask, QUERIES))


@asynccontextmanager
async def echo(url: str) -> AsyncIterator[str]:
    """A responder in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--echo", url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield "bench.echo"
    finally:
        process.terminate()
        await process.wait()


async def serve_echo(url: str) -> None:
    connection = Nats()
    await connection.connect(url)

    async def reply(msg: Msg) -> None:
        await connection.publish(msg.reply, msg.data)

    await connection.subscribe("bench.echo", cb=reply)
    await connection.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def bare_requests(client: Client, url: str) -> Line:
    transport = client.session.transport
    async with echo(url) as subject:

        async def ask(_: int) -> None:
            await transport.request(subject, b"x" * 200, 5)

        await timed(ask, 50)
        return line("bare-nats-request", await timed(ask, QUERIES), bytes=200)


async def measure(rows: list[dict[str, Any]]) -> list[Line]:
    lines: list[Line] = []

    def done(found: Line) -> None:
        lines.append(found)
        print(json.dumps(found), flush=True)

    with tempfile.TemporaryDirectory(prefix="natalog-bench-") as name:
        async with own_service(Path(name)) as url, connect(url) as client:
            await client.create_database("bench", initial_tx=SCHEMA)
            conn = client.database("bench")
            done(await load(conn, rows))
            done(await sequential(conn))
            done(await in_flight(conn))
            done(await bare_requests(client, url))
            done(await point_queries(conn))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="people as a JSON list instead of made ones")
    parser.add_argument("--json", type=Path, help="also write the lines to this file")
    parser.add_argument("--echo", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.echo:
        event_loop_run(serve_echo(arguments.echo))
        return 0
    everyone = json.loads(arguments.data.read_text()) if arguments.data else people(PEOPLE_LOADED)
    rows = [{key: person[key] for key in ("id", "name", "age")} for person in everyone]
    lines = event_loop_run(measure(rows))
    if arguments.json is not None:
        arguments.json.write_text("".join(json.dumps(found) + "\n" for found in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

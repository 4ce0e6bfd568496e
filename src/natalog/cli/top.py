"""``natalog top``: what a service is doing, again and again, in the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from dataclasses import dataclass, field
from json import loads
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from natalog.cli.connection import ContextOption, NatsOption, TimeoutOption, run_with_client
from natalog.cli.output import JsonOption, Output, counted, make_console, make_table
from natalog.client import Client
from natalog.core.errors import Forbidden, NatalogError, Unavailable
from natalog.core.limits import ASK_TIMEOUT_S, TX_BASE

STATS_WAIT_S = 0.3
"""How long processes have to say what they did; nobody knows how many there are."""
ENDPOINTS_SHOWN = 12


@dataclass(slots=True)
class Sample:
    """Counters at one moment; ``requests``: endpoint to (requests, errors, nanoseconds)."""

    at: float
    transactions: dict[str, int] = field(default_factory=dict)
    datoms: dict[str, int] = field(default_factory=dict)
    requests: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    processes: int = 0


async def _statistics(client: Client) -> list[bytes]:
    """What each process answers to ``$SRV.STATS``."""
    answers: list[bytes] = []
    channel = await client.session.transport.channel()
    try:
        await channel.send("$SRV.STATS.natalog", b"")
        deadline = time.monotonic() + STATS_WAIT_S
        with contextlib.suppress(TimeoutError, Forbidden):
            while True:
                message = await channel.receive(max(deadline - time.monotonic(), 0.001))
                # without a service NATS itself answers, with nothing
                if message.data:
                    answers.append(message.data)
    finally:
        await channel.close()
    return answers


async def sample(client: Client) -> Sample:
    """Ask all processes and all databases."""
    found = Sample(time.monotonic())
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for answer in await _statistics(client):
        found.processes += 1
        for endpoint in loads(answer).get("endpoints") or ():
            total = totals[endpoint["name"]]
            total[0] += endpoint["num_requests"]
            total[1] += endpoint.get("num_errors", 0)
            total[2] += endpoint.get("processing_time", 0)
    found.requests = {name: (a, b, c) for name, (a, b, c) in totals.items()}
    for database in await client.list_databases():
        conn = client.database(database["database"])
        try:
            info = await conn.info()
        except NatalogError:
            continue  # deleted meanwhile
        found.transactions[conn.database] = int(info["max_tx"]) - TX_BASE
        found.datoms[conn.database] = int(info["datoms"])
    return found


def rates(before: Sample, now: Sample) -> dict[str, Any]:
    """What happened between two samples, as data."""
    seconds = max(now.at - before.at, 1e-6)
    databases = [
        {
            "database": name,
            "transactions": count,
            "transactions_per_second": round(
                max(count - before.transactions.get(name, count), 0) / seconds, 1
            ),
            "datoms": now.datoms[name],
        }
        for name, count in sorted(now.transactions.items())
    ]
    endpoints: list[dict[str, Any]] = []
    for name, (requests, failed, nanoseconds) in now.requests.items():
        then = before.requests.get(name, (0, 0, 0))
        done = max(requests - then[0], 0)
        endpoints.append(
            {
                "endpoint": name,
                "requests": requests,
                "requests_per_second": round(done / seconds, 1),
                "errors_per_second": round(max(failed - then[1], 0) / seconds, 1),
                "mean_ms": round((nanoseconds - then[2]) / done / 1e6, 3) if done else None,
            }
        )
    endpoints.sort(key=lambda one: (-one["requests_per_second"], -one["requests"], one["endpoint"]))
    return {"processes": now.processes, "databases": databases, "endpoints": endpoints}


def drawn(found: dict[str, Any], interval: float) -> Group:
    """The rates as tables."""
    processes = counted(found["processes"], "process", "processes")
    head = Text(f"{processes} · every {interval:g} s · Ctrl-C ends")
    databases = make_table(
        ("database", "tx/s", "transactions", "facts"),
        (
            (
                one["database"],
                one["transactions_per_second"],
                one["transactions"],
                one["datoms"],
            )
            for one in found["databases"]
        ),
    )
    endpoints = make_table(
        ("endpoint", "requests/s", "errors/s", "mean ms", "requests"),
        (
            (
                one["endpoint"],
                one["requests_per_second"],
                one["errors_per_second"],
                one["mean_ms"],
                one["requests"],
            )
            for one in found["endpoints"][:ENDPOINTS_SHOWN]
        ),
    )
    return Group(head, databases, endpoints)


def top(
    interval: Annotated[
        float, typer.Option("--interval", "-i", metavar="SECONDS", help="Between two looks.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="One look, then end.")] = False,
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
) -> None:
    """Watch what the service does: transactions and requests a second, by database and endpoint.

    Examples:

    natalog top

    natalog top --once --json
    """
    if interval <= 0:
        raise typer.BadParameter("--interval is a positive number of seconds")
    out = Output(json)

    async def work(client: Client) -> None:
        before = await sample(client)
        if once or json:
            while True:
                await asyncio.sleep(interval)
                now = await sample(client)
                if out.for_people:
                    out.console.print(drawn(rates(before, now), interval))
                else:
                    out.data(rates(before, now))
                if once:
                    return
                before = now
        with Live(drawn(rates(before, before), interval), console=make_console()) as live:
            while True:
                await asyncio.sleep(interval)
                try:
                    now = await sample(client)
                except Unavailable as error:
                    live.update(Text(f"{error.message} · Ctrl-C ends"))
                    continue
                live.update(drawn(rates(before, now), interval))
                before = now

    run_with_client(nats, context, timeout, work)

"""More than can be done: everybody hears ok or Busy, memory stays bounded, nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from hostile_corpus import Bad, RawClient
from test_hostile_input import outcome, resident_bytes

import natalog
from natalog.core.codec import pack

PATIENCE_S = 100.0
MEMORY_BYTES_MAX = 700 * 1024 * 1024
ONE = "[:find ?n . :where [?e :name ?n] [?e :age 30]]"


class Flood(NamedTuple):
    """``total`` requests, ``at_once`` of them without an answer at any time."""

    name: str
    subject: str
    payload: bytes
    total: int
    at_once: int


def floods(size: int) -> list[Flood]:
    transact, query = "natalog.people.db.transact", "natalog.people.db.query"
    small = pack({"tx_data": [{"name": "x", "age": 1}]})
    large = pack({"tx_data": [{"name": "x" * 50_000, "age": 1}]})
    huge = pack({"tx_data": [{"name": "x" * 2_000_000, "age": 1}]})
    heavy = pack("[:find (count ?a) . :where [?a :age 1] [?b :age 1] [(< ?a ?b)]]")
    return [
        Flood("transactions", transact, small, 12 * size, 6 * size),
        Flood("large transactions", transact, large, size, size),
        Flood("huge transactions", transact, huge, 60, 60),
        Flood("queries", query, pack(ONE), 12 * size, 6 * size),
        Flood("heavy queries", query, heavy, size // 5, size // 5),
        Flood("lists", "natalog._._.list", b"", 3 * size, 3 * size),
    ]


async def send(url: str, flood: Flood) -> Counter[str]:
    """What the requests of a flood were answered with."""
    raw = await RawClient.connect(url)
    places = asyncio.Semaphore(flood.at_once)
    found: Counter[str] = Counter()

    async def one() -> None:
        try:
            bad = Bad(flood.name, flood.subject.encode(), flood.payload)
            found[outcome(await raw.send(bad, PATIENCE_S))] += 1
        finally:
            places.release()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(flood.total):
            await places.acquire()
            tasks.create_task(one())
    await raw.close()
    return found


async def rate(client: Any, seconds: float) -> float:
    """Transactions a second of a moderate number of producers."""
    conn = client.database("calm")
    done = 0
    end = time.monotonic() + seconds

    async def produce() -> None:
        nonlocal done
        while time.monotonic() < end:
            await conn.transact([{"name": "calm"}])
            done += 1

    await asyncio.gather(*(produce() for _ in range(64)))
    return done / seconds


@asynccontextmanager
async def watched(pid: int) -> AsyncIterator[list[int]]:
    """The highest memory of a process meanwhile, as the only item."""
    peak = [resident_bytes(pid)]

    async def look() -> None:
        while True:
            peak[0] = max(peak[0], resident_bytes(pid))
            await asyncio.sleep(0.02)

    task = asyncio.create_task(look())
    yield peak
    task.cancel()
    await asyncio.wait([task])


async def overload(lab: Any, size: int, seconds: float) -> None:
    broker = lab.broker()
    member = lab.member(broker.url).start()
    async with natalog.connect(broker.url, timeout=60) as client:
        for name in ("people", "calm"):
            await client.create_database(name, schema_flexibility="read")
        people = client.database("people")
        await people.transact([{"name": "Ann", "age": 30}])
        before = await rate(client, seconds)
        committed = 0
        for flood in floods(size):
            during = 0.0
            async with watched(member.pid) as peak, asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(send(broker.url, flood))
                if flood.name == "transactions":
                    during = await rate(client, seconds)
            answers = sending.result()
            beside = f"beside it {during:.0f} tx/s" if during else ""
            print(f"{flood.name}: {dict(answers)}; peak {peak[0] >> 20} MB {beside}")
            assert set(answers) <= {"ok", "Busy", "QueryLimit"}, answers
            assert answers.total() == flood.total
            assert answers["ok"] or answers["QueryLimit"]
            assert peak[0] < MEMORY_BYTES_MAX
            if "transactions" in flood.name:
                committed += answers["ok"]
        after = await rate(client, seconds)
        print(f"{before:.0f} tx/s before, {after:.0f} tx/s after")
        assert await people.q("[:find (count ?e) . :where [?e :age 1]]") == committed
        assert await people.q(ONE) == "Ann"
    assert member.alive
    assert "disconnected" not in member.log()
    assert "the lease is lost" not in member.log()


@pytest.mark.asyncio
async def test_a_flood_is_answered_and_bounded(lab: Any) -> None:
    await overload(lab, 600, 0.5)


@pytest.mark.faults
@pytest.mark.asyncio
async def test_a_large_flood_is_answered_and_bounded(lab: Any) -> None:
    await overload(lab, 5_000, 3.0)

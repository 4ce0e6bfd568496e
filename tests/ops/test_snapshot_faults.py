"""The service is killed at every step of snapshots and compactions: nothing is ever half done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from typing import Any

import anyio
import pytest

import natalog
from natalog.actors.failpoints import VARIABLE
from natalog.actors.snapshots import FAILPOINTS

pytestmark = pytest.mark.asyncio

RENEW = """
import asyncio, sys
from pathlib import Path
from natalog.actors.config import ServiceConfig
from natalog.actors.service import running

async def main() -> None:
    async with running(ServiceConfig(data=Path(sys.argv[1]), listen="127.0.0.1:0")) as service:
        await service.snapshots.renew("people")

asyncio.run(main())
"""
VALUES = "[:find [?n ...] :where [_ :n ?n]]"


class Writer:
    """Transacts until the service is gone, and remembers what was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: set[int] = set()
        self._last = 0

    async def write(self, url: str) -> None:
        with contextlib.suppress(natalog.NatalogError):
            async with natalog.connect(url) as client:
                conn = client.database("people")
                while True:
                    self._last += 1
                    await conn.transact([{"n": self._last}], timeout=5)
                    self.acknowledged.add(self._last)


async def check(url: str, acknowledged: set[int]) -> None:
    """All that was acknowledged is there, once."""
    async with natalog.connect(url) as client:
        db = await client.database("people").db()
        found = await db.q(VALUES)
        assert acknowledged <= set(found)
        count = await db.q("[:find (count ?e) . :where [?e :n]]")
        assert count == len(set(found))


async def leave_garbage(conn: natalog.Conn, client: natalog.Client, number: int) -> None:
    """Segments of a branch that is gone: most of what there is."""
    name = f"passing{number}"
    await conn.branch(name)
    passing = client.database("people", name)
    rng = random.Random(number)
    await passing.transact([{"r": rng.getrandbits(60)} for _ in range(15_000)], timeout=20)
    await passing.snapshot(timeout=20)
    await conn.delete_branch(name)


async def until_killed(serving: Any, url: str, point: str, writer: Writer) -> None:
    """Do what passes ``point``, beside a writer, until the service is dead."""

    async def act() -> None:
        async with natalog.connect(url) as client:
            conn = client.database("people")
            if point.startswith("compact"):
                await leave_garbage(conn, client, FAILPOINTS.index(point))
                await conn.gc(timeout=20)
            else:
                await conn.snapshot(timeout=20)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.write, url)
        await asyncio.sleep(0.05)
        with contextlib.suppress(natalog.NatalogError):
            await act()
        with anyio.fail_after(20):
            while serving.process.poll() is None:
                await asyncio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert serving.process.returncode == -signal.SIGKILL, point
    serving.process.stdout.close()


@pytest.mark.timeout(240)
async def test_a_kill_at_any_step_leaves_all_or_nothing(serving: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("NATALOG_SEGMENT_GRACE_S", "0.001")
    url = serving.start("--metrics-port", "0")
    writer = Writer()
    async with natalog.connect(url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        await conn.branch("other")
        for where in (conn, client.database("people", "other")):
            await where.transact([{"n": -number} for number in range(2000)])
            await where.snapshot()
    serving.kill()
    for point in FAILPOINTS:
        if point.startswith("renew"):
            renewing = [sys.executable, "-c", RENEW, str(serving.data)]
            done = await anyio.run_process(
                renewing,
                env={**os.environ, VARIABLE: point},
                check=False,
                stderr=subprocess.DEVNULL,
            )
            assert done.returncode == -signal.SIGKILL, point
            continue
        monkeypatch.setenv(VARIABLE, point)
        url = serving.start("--metrics-port", "0")
        await check(url, writer.acknowledged)
        await until_killed(serving, url, point, writer)
    monkeypatch.delenv(VARIABLE)
    url = serving.start("--metrics-port", "0")
    await check(url, writer.acknowledged)
    async with natalog.connect(url) as client:
        conn = client.database("people")
        assert (await conn.snapshot())["written"]
        await leave_garbage(conn, client, 1000)
        await conn.gc()
        await asyncio.sleep(0.01)
        done = await conn.gc()
        assert done["segments"]["dead"] < 1_000_000
        assert not (await conn.gc(dry_run=True))["garbage"]
        before = await (await conn.db()).datoms("eavt")
    serving.kill()
    url = serving.start("--metrics-port", "0")
    async with natalog.connect(url) as client:
        conn = client.database("people")
        assert not (await conn.snapshot())["written"], "it opened from the one that was written"
        assert await (await conn.db()).datoms("eavt") == before
        for name in ("db", "other"):
            await client.database("people", name).transact([{"n": 10**9}])
    assert "passed over" not in serving.log()

"""The service is killed at every step of an erasure: it is done afterwards, or was not begun."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.erasure import FAILPOINTS
from natalog.actors.failpoints import VARIABLE
from natalog.actors.searching import files_with
from natalog.actors.service import running
from natalog.cli.check import check_branch

pytestmark = pytest.mark.asyncio
MARKER = "zebra-4711-marker"
NAMES = "[:find [?n ...] :where [_ :name ?n]]"
BEFORE = ("erase.purged", "erase.copied", "erase.barred")
"""Here the erasure has not happened yet."""


async def prepared(url: str) -> None:
    async with natalog.connect(url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        await conn.transact([{"name": "Ann", "note": MARKER, "memo": "kept"}], {"source": MARKER})
        await conn.branch("foo")
        await client.database("people", "foo").transact([{"name": "Bob", "note": f"<{MARKER}>"}])
        await conn.publish([{"name": "Cas", "note": MARKER}], id="one")
        while "Cas" not in set(await conn.q(NAMES)):
            await asyncio.sleep(0.02)
        await conn.snapshot()


async def sound(client: natalog.Client) -> None:
    for branch in ("db", "foo"):
        findings = await check_branch(client, "people", branch)
        assert all(finding.good for finding in findings), (branch, findings)
    conn = client.database("people")
    assert set(await conn.q(NAMES)) >= {"Ann", "Cas"}
    assert await conn.q("[:find [?x ...] :where [_ :note ?x]]") == []
    assert await conn.q("[:find ?x . :where [_ :memo ?x]]") == "kept"
    foo = client.database("people", "foo")
    assert set(await foo.q(NAMES)) == {"Ann", "Bob"}


@pytest.mark.parametrize("point", FAILPOINTS)
async def test_an_erasure_survives_a_kill_at(
    serving: Any, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    count = "@2" if point == "erase.original" else ""
    monkeypatch.setenv(VARIABLE, point + count)
    url = await asyncio.to_thread(serving.start)
    await prepared(url)
    acknowledged: list[str] = []

    async def publish(conn: natalog.Conn) -> None:
        while True:
            name = f"p{len(acknowledged)}"
            await conn.publish([{"name": name}], id=name)
            acknowledged.append(name)

    async with natalog.connect(url) as client:
        conn = client.database("people")
        producer = asyncio.create_task(publish(conn))
        await asyncio.sleep(0.05)
        erasing = asyncio.create_task(conn.erase(containing=MARKER, timeout=60))
        await asyncio.to_thread(serving.process.wait, 60)
        for task in (erasing, producer):
            task.cancel()
        await asyncio.gather(erasing, producer, return_exceptions=True)
    await asyncio.to_thread(serving.kill)
    monkeypatch.delenv(VARIABLE)
    config = ServiceConfig(data=serving.data, listen="127.0.0.1:0")
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        async with asyncio.timeout(30):
            while point not in BEFORE and not await conn.erasures():
                await asyncio.sleep(0.05)
            while not set(acknowledged) <= set(await conn.q(NAMES)):
                await asyncio.sleep(0.05)
        await sound(client)
        if point in BEFORE:
            assert await conn.erasures() == []
            await conn.erase(containing=MARKER)
        async with asyncio.timeout(30):
            while files_with(serving.data, MARKER.encode()):
                await asyncio.sleep(0.1)
        ack = await conn.publish([{"name": "after"}], id="after")
        assert not ack.duplicate
        async with asyncio.timeout(30):
            while "after" not in set(await conn.q(NAMES)):
                await asyncio.sleep(0.02)
        await sound(client)
        await conn.branch("bar")
        receipts = await conn.erasures()
        assert len(receipts) == 1
        assert MARKER not in repr(receipts)

"""`natalog check` finds snapshots that lack segments, hold other bytes, or say what no log says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from anyio import to_thread

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.service import Service, running
from natalog.actors.vault import Vault
from natalog.cli.check import Finding
from natalog.cli.check_snapshots import Server, check_snapshots
from natalog.connection.access import Access
from natalog.core.storage.manifest import reachable

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def lab(tmp_path: Path, **settings: object) -> AsyncIterator[tuple[Service, natalog.Conn]]:
    """A service with a database of which there are snapshots."""
    config = ServiceConfig(data=tmp_path / "data", listen="127.0.0.1:0", **settings)  # type: ignore[arg-type]
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        for number in range(12):
            people = [{"name": f"p{number}-{spot}", "age": spot} for spot in range(40)]
            await conn.transact(people, id=f"id-{number}")
            await conn.transact([["db/retract", 1, "age"]] if number == 5 else [])
            await conn.snapshot()
        yield service, conn


async def look(service: Service, branch: str = "db", *, deep: bool) -> list[Finding]:
    server = Server([service.url], Access(), "natalog")
    return await check_snapshots(server, "people", branch, deep=deep)


@pytest.mark.parametrize("store", ["jetstream", "file"])
async def test_good_snapshots_are_good(tmp_path: Path, store: str) -> None:
    where = store if store == "jetstream" else (tmp_path / "segments").as_uri()
    async with lab(tmp_path, segment_store=where) as (service, conn):
        await conn.branch("copy")
        assert [one.detail for one in await look(service, "copy", deep=True)] == ["there are none"]
        async with natalog.connect(service.url) as client:
            copy = client.database("people", "copy")
            await copy.transact([{"name": "other"}])
            await copy.snapshot()
        for branch in ("db", "copy"):
            for deep in (False, True):
                findings = await look(service, branch, deep=deep)
                assert len(findings) == 2 + deep
                assert all(one.good for one in findings), findings


def leaves(vault: Vault) -> set[str]:
    """The segments that a look at what is there does not read."""
    read: set[str] = set()

    def segment(name: str) -> bytes:
        read.add(name)
        return vault.store.segment(name)

    found: set[str] = set()
    for ref in vault.listed(0).refs:
        reachable(segment(ref.manifest), segment, found)
    return found - read


@pytest.mark.parametrize("corrupt", [False, True])
async def test_damaged_segments_are_found_and_left_alone(tmp_path: Path, corrupt: bool) -> None:
    async with lab(tmp_path) as (service, _):
        vault = service.snapshots.vault("people")
        store = vault.store
        current = store.generations().current
        name = max(await to_thread.run_sync(leaves, vault))
        shelf = store._shelf
        if corrupt:
            data = shelf.get(current, name)
            assert data is not None
        await to_thread.run_sync(shelf.discard, current, name)
        if corrupt:
            await to_thread.run_sync(shelf.put_many, current, [(name, data[:-1] + b"?")])
            assert all(one.good for one in await look(service, deep=False)), "nobody has read it"
        for _ in range(2):
            findings = await look(service, deep=corrupt)
            assert not all(one.good for one in findings)
            assert any("corrupt" in one.detail or "missing" in one.detail for one in findings)


async def test_a_snapshot_that_no_log_makes_is_found(tmp_path: Path) -> None:
    async with lab(tmp_path) as (service, _):
        vault = service.snapshots.vault("people")
        listed = await to_thread.run_sync(vault.listed, 0)
        first, second, *rest = listed.refs

        async def point(*refs: object) -> list[Finding]:
            now = await to_thread.run_sync(vault.listed, 0)
            wrong = replace(listed, refs=refs)  # type: ignore[arg-type]
            write = vault._pointers.write
            await to_thread.run_sync(write, 0, wrong.encode(), now.version)
            return await look(service, deep=True)

        findings = await point(replace(first, manifest=second.manifest), second, *rest)
        assert [one.good for one in findings] == [True, True, False]
        assert f"at block {first.seq}" in findings[-1].detail
        findings = await point(replace(first, hash=second.hash), second, *rest)
        assert not findings[0].good and "has another one" in findings[0].detail
        findings = await point(replace(first, seq=first.seq + 100), second, *rest)
        assert not findings[0].good and "the log ends" in findings[0].detail
        assert all(one.good for one in await point(*listed.refs))

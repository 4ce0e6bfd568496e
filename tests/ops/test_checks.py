"""`natalog check --deep`: what is sound is found sound, and what is not is named."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import natalog
from natalog.actors.checks import LogChecks, Seen
from natalog.actors.config import ServiceConfig
from natalog.actors.heads import Head, Heads
from natalog.actors.service import Service, running
from natalog.cli import app

pytestmark = pytest.mark.asyncio


async def looked(service: Service) -> dict[str, Seen]:
    checks = LogChecks(service.port, service.names, "people")
    return {seen.name: seen async for seen in checks.run()}


async def fill(client: natalog.Client) -> natalog.Conn:
    await client.create_database("people", schema_flexibility="read")
    conn = client.database("people")
    for n in range(5):
        await conn.transact([{"n": n}])
    for name in ("draft", "gone"):
        await conn.branch(name)
        await client.database("people", name).transact([{"n": 10}])
    await conn.merge(["draft", "gone"], [{"n": 11}])
    await conn.delete_branch("gone")
    await conn.force_branch("draft", (await conn.db()).with_([{"n": 12}]), parents=["db"])
    return conn


async def test_a_sound_database_is_found_sound(tmp_path: Path) -> None:
    config = ServiceConfig(data=tmp_path / "data", listen="127.0.0.1:0")
    async with running(config) as service, natalog.connect(service.url) as client:
        await fill(client)
        seen = await looked(service)
        assert all(one.good for one in seen.values()), seen
        assert {"catalog", "commit graph", "log of db (lane 0)", "log of draft (lane 3)"} <= set(
            seen
        )
        assert "log of gone (lane 2, gone)" in seen
        command = ["check", "people", "--deep", "--json", "--nats", service.url]
        done = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert done.exit_code == 0, done.output
        found = {entry["check"] for entry in json.loads(done.output)}
        assert {"log", "indexes", "service", "snapshots", "catalog", "commit graph"} <= found


async def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    config = ServiceConfig(data=tmp_path / "data", listen="127.0.0.1:0")
    async with running(config) as service, natalog.connect(service.url) as client:
        await fill(client)
        state: Any = service.hub.state("people", "db")
        heads = Heads(service.port, service.names)
        head = Head.of(state)
        await heads.write("people", 0, Head(head.seq + 3, b"x" * 32, head.first_hash, 1, 1))
        seen = await looked(service)
        assert [name for name, one in seen.items() if not one.good] == ["log of db (lane 0)"]
        assert "natalog recover people" in seen["log of db (lane 0)"].detail
        await service.port.erase(service.names.lane_stream("people", 2), 2)
        seen = await looked(service)
        wrong = {name for name, one in seen.items() if not one.good}
        assert wrong == {"log of db (lane 0)", "log of gone (lane 2, gone)", "commit graph"}
        await service.port.stream_delete(service.names.lane_stream("people", 2))
        assert not (await looked(service))["commit graph"].good

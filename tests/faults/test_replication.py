"""Three copies of everything: any one server may die, and nothing that was acknowledged with it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from writers import Writers, holder_of, people

import natalog

pytestmark = pytest.mark.asyncio


async def api(client: natalog.Client, what: str, body: Any = None) -> dict[str, Any]:
    payload = b"" if body is None else json.dumps(body).encode()
    answer = await client.session.transport.nats.request(f"$JS.API.{what}", payload, timeout=10)
    return dict(json.loads(answer.data))


def serving(lab: Any, brokers: list[Any]) -> Any:
    config = lab.directory / "natalog.toml"
    config.write_text("replicas = 3\n")
    urls = ",".join(broker.url for broker in brokers)
    return lab.member(urls, "--config", str(config))


async def test_every_stream_has_three_copies(lab: Any) -> None:
    brokers = lab.cluster()
    serving(lab, brokers).start()
    async with natalog.connect([broker.url for broker in brokers]) as client:
        conn = await people(client)
        await conn.transact([{"n": 0}])
        await conn.branch("draft")
        draft = client.database("people", "draft")
        assert (await draft.transact([{"n": 1}], id="a")).tx
        assert (await draft.transact([{"n": 1}], id="a")).repeated
        await conn.publish([{"n": 2}])
        await conn.snapshot()
        await asyncio.sleep(1.5)  # heads are written once a second
        listed = (await api(client, "STREAM.LIST", {"subject": "natalog.>"}))["streams"]
        names = {stream["config"]["name"].rpartition("=")[2] for stream in listed}
        assert {"log", "tx", "heads", "lease", "snapshots"} <= names
        assert any(name.startswith("segments_") for name in names)
        copies = {stream["config"]["name"]: stream["config"]["num_replicas"] for stream in listed}
        assert set(copies.values()) == {3}, copies


async def victim_of(client: natalog.Client, brokers: list[Any], turn: int) -> Any:
    """The server that leads the log, one that follows it, and the one we are connected to."""
    info = await api(client, "STREAM.INFO.natalog=people=db=log")
    leader = int(info["cluster"]["leader"][1:])
    if turn == 0:
        return brokers[leader]
    if turn == 1:
        return brokers[(leader + 1) % 3]
    return next(broker for broker in brokers if broker.url.endswith(client.url.rpartition(":")[2]))


@pytest.mark.faults
async def test_any_server_may_die_under_load(lab: Any) -> None:
    brokers = lab.cluster()
    urls = [broker.url for broker in brokers]
    serving(lab, brokers).start()
    async with natalog.connect(urls) as client:
        await people(client)
        async with Writers(urls, 4) as writers:
            await writers.progress()
            for turn in range(3):
                victim = await victim_of(client, brokers, turn)
                await asyncio.to_thread(victim.kill)
                await writers.progress()
                await asyncio.to_thread(victim.start)
                await asyncio.sleep(5)  # it catches up
            await writers.progress()
        await writers.check(client)
        assert await holder_of(client, lab.members())


@pytest.mark.faults
async def test_a_server_and_the_transactor_may_die_together(lab: Any) -> None:
    brokers = lab.cluster()
    urls = [broker.url for broker in brokers]
    members = [serving(lab, brokers).start() for _ in range(2)]
    async with natalog.connect(urls) as client:
        await people(client)
        async with Writers(urls, 3) as writers:
            await writers.progress()
            victim = await victim_of(client, brokers, 0)
            member = await holder_of(client, members)
            await asyncio.gather(asyncio.to_thread(victim.kill), asyncio.to_thread(member.kill))
            await writers.progress()
            await asyncio.to_thread(victim.start)
            await writers.progress()
        await writers.check(client)


@pytest.mark.faults
async def test_a_server_that_comes_back_empty_is_filled_again(lab: Any) -> None:
    """A disk was lost; the other two have everything."""
    brokers = lab.cluster()
    urls = [broker.url for broker in brokers]
    serving(lab, brokers).start()
    async with natalog.connect(urls) as client:
        await people(client)
        async with Writers(urls, 2) as writers:
            await writers.progress()
            victim = await victim_of(client, brokers, 1)
            await asyncio.to_thread(victim.kill)
            await asyncio.to_thread(victim.empty)
            await asyncio.to_thread(victim.start)
            await writers.progress(200)
            await asyncio.sleep(8)
            other = await victim_of(client, brokers, 0)
            await asyncio.to_thread(other.kill)
            await writers.progress()
        await writers.check(client)

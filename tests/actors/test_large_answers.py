"""Answers in parts: as fast as the asker takes them, no longer than it wants them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import natalog
from natalog.actors import parts
from natalog.actors.config import ServiceConfig
from natalog.actors.nats_port import Message, NatsPort
from natalog.actors.service import Service, running
from natalog.core.codec import pack, unpack
from natalog.core.errors import Busy, TooLarge

SMALL = 64 * 1024
"""Payload limit of the server, so that answers of a few megabytes have many parts."""
FIND = "[:find ?e ?n :where [?e :name ?n]]"
NAMES = 120
NAME = "n" * 20_000

Lab = Callable[[], Any]


@pytest.fixture
def lab(service_config: Callable[..., ServiceConfig]) -> Lab:
    """A service whose answers are large, a client, and a bare connection."""

    @asynccontextmanager
    async def run() -> AsyncIterator[tuple[Service, Any, NatsPort]]:
        async with (
            running(service_config(max_payload_bytes=SMALL)) as service,
            natalog.connect(service.url, timeout=20) as client,
        ):
            await client.create_database("people", schema_flexibility="read")
            conn = client.database("people")
            for number in range(0, NAMES, 2):
                await conn.transact([{"name": f"{n}{NAME}"} for n in (number, number + 1)])
            port = await NatsPort.connect(service.url)
            try:
                yield service, client, port
            finally:
                await port.close()

    return run


async def idle(service: Service) -> None:
    async with asyncio.timeout(10):
        while service.parts.bytes:
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_a_client_gets_all_of_a_large_answer(lab: Lab) -> None:
    async with lab() as (service, client, _):
        answers = await asyncio.gather(*(client.database("people").q(FIND) for _ in range(4)))
        assert [len(answer) for answer in answers] == [NAMES] * 4
        await idle(service)
        assert service.intake.reads.count == service.intake.reads.bytes == 0


@pytest.mark.asyncio
async def test_who_says_nothing_gets_all_of_it_too(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "FIRST_WAIT_S", 0.2)
    monkeypatch.setattr(parts, "SILENT_WAIT_S", 0.01)
    async with lab() as (_, _, port):
        got: asyncio.Queue[Message] = asyncio.Queue()
        inbox = port.inbox()
        await port.subscribe(inbox, got.put_nowait)
        await port.publish("natalog.people.db.query", pack(FIND), reply=inbox)
        pieces: dict[int, bytes] = {}
        async with asyncio.timeout(20):
            while True:
                message = await got.get()
                number, count = map(int, message.headers["Natalog-Part"].split("/"))
                pieces[number] = message.data
                if len(pieces) == count:
                    break
        assert count > 3 * parts.WINDOW_PARTS
        answer = unpack(b"".join(pieces[number] for number in sorted(pieces)))
        assert len(answer["result"]) == NAMES


@pytest.mark.asyncio
async def test_nothing_is_sent_on_to_an_asker_that_has_gone(lab: Lab) -> None:
    async with lab() as (service, _, port):
        before = service.port._client.stats["out_bytes"]
        await port.publish("natalog.people.db.query", pack(FIND), reply=port.inbox())
        async with asyncio.timeout(5):
            while service.intake.reads.count or service.port._client.stats["out_bytes"] == before:
                await asyncio.sleep(0.01)
        await idle(service)
        sent = service.port._client.stats["out_bytes"] - before
        assert sent <= (parts.WINDOW_PARTS + 1) * SMALL


@pytest.mark.asyncio
async def test_nothing_is_sent_on_after_a_client_has_stopped_waiting(lab: Lab) -> None:
    async with lab() as (service, client, _):
        before = service.port._client.stats["out_bytes"]
        transport = client.session.transport
        transport.tell = lambda *_: None  # a client that is slow to take parts
        asking = asyncio.create_task(client.database("people").db())
        db = await asking
        asking = asyncio.create_task(db.q(FIND))
        async with asyncio.timeout(5):
            while not service.parts.bytes:
                await asyncio.sleep(0.01)
        del transport.tell
        asking.cancel()
        await asyncio.wait([asking])
        await idle(service)
        sent = service.port._client.stats["out_bytes"] - before
        assert sent <= (parts.WINDOW_PARTS + 2) * SMALL


@pytest.mark.asyncio
async def test_a_slow_asker_is_waited_for_and_holds_up_nobody(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "FIRST_WAIT_S", 30)
    async with lab() as (_, client, port):
        got: list[Message] = []
        inbox = port.inbox()
        await port.subscribe(inbox, got.append)
        await port.publish("natalog.people.db.query", pack(FIND), reply=inbox)
        async with asyncio.timeout(5):
            while len(got) < parts.WINDOW_PARTS:
                await asyncio.sleep(0.01)
        # meanwhile everybody else is served
        assert len(await client.database("people").q(FIND)) == NAMES
        await client.database("people").transact([{"name": "another"}])
        assert len(got) == parts.WINDOW_PARTS
        more = got[-1].headers["Natalog-More"]
        await port.publish("natalog.people.db.more", pack({"id": more}))
        async with asyncio.timeout(5):
            while len(got) < 2 * parts.WINDOW_PARTS:
                await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_answers_beyond_the_limits_are_refused(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab() as (service, client, _):
        conn = client.database("people")
        monkeypatch.setattr(parts, "ANSWER_BYTES_MAX", 1_000_000)
        with pytest.raises(TooLarge, match="limit"):
            await conn.q(FIND)
        assert len(await conn.q(FIND, limit=10, order_by=["?e"])) == 10
        monkeypatch.setattr(parts, "ANSWER_BYTES_MAX", 100_000_000)
        monkeypatch.setattr(parts, "ANSWERS_BYTES_MAX", 3_000_000)
        service.parts.bytes += 2_900_000  # somebody else's
        with pytest.raises(Busy) as refused:
            await conn.q(FIND, timeout=0.3)
        assert refused.value.data["retry_after_ms"] > 0
        asking = asyncio.create_task(conn.q(FIND))
        await asyncio.sleep(0.1)
        service.parts.bytes -= 2_900_000
        assert len(await asking) == NAMES


@pytest.mark.asyncio
async def test_a_large_report_is_not_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed is told, whatever else is being sent."""
    monkeypatch.setattr(parts, "ANSWERS_BYTES_MAX", 1)
    async with lab() as (service, client, _):
        service.parts.bytes += 1
        data = [{"name": f"{n}", "tag": "t"} for n in range(800)]
        report = await client.database("people").transact(data)
        service.parts.bytes -= 1
        assert len(report.tx_data) > 1600

"""Subjects, replies and headers that no client makes: the service stays, and stays correct."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.names import Names
from natalog.actors.nats_port import Message, NatsPort
from natalog.actors.service import Service, running
from natalog.connection import NatsClient
from natalog.core.codec import pack, unpack
from natalog.core.errors import BadRequest, InvalidConfig, InvalidName

FIND = "[:find ?n :where [_ :name ?n]]"
BODY = pack({"tx_data": [{"name": "injected"}]})


@pytest.fixture
def lab(tmp_path: Path) -> Callable[[], Any]:
    """A service with two databases, a client and a bare connection."""

    @asynccontextmanager
    async def run() -> AsyncIterator[tuple[Service, Any, NatsPort]]:
        config = ServiceConfig(data=tmp_path, listen="127.0.0.1:0")
        async with running(config) as service, natalog.connect(service.url, timeout=10) as client:
            for name in ("people", "orders"):
                await client.create_database(name, schema_flexibility="read")
                await client.database(name).transact([{"name": name}])
            port = await NatsPort.connect(service.url)
            try:
                yield service, client, port
            finally:
                await port.close()
            assert service.port.disconnects == service.inlet.disconnects == 0
            for name in ("people", "orders"):
                assert await client.database(name).q(FIND) == {(name,)}

    return run


async def raw(url: str, *lines: bytes) -> None:
    """Say exactly this to the NATS server."""
    host, _, port = url.removeprefix("nats://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
    writer.write(b"".join(lines) + b"PING\r\n")
    while (line := await reader.readline()) != b"PONG\r\n":
        assert not line.startswith(b"-ERR"), line
    writer.close()
    await writer.wait_closed()


async def dropped(service: Service, count: int) -> None:
    async with asyncio.timeout(10):
        while service.intake.dropped < count:
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_wildcards_in_a_subject_name_no_database(lab: Callable[[], Any]) -> None:
    async with lab() as (_, _, port):
        for subject in (
            "natalog.*._.branches",
            "natalog.*._.info",
            "natalog.people.*.query",
            "natalog.people.>.query",
            "natalog.*.db.transact",
        ):
            body = BODY if subject.endswith("transact") else b""
            answer = await port.request(subject, body, timeout_s=5)
            assert unpack(answer.data)["code"] == "InvalidName", subject


@pytest.mark.asyncio
async def test_an_answer_never_becomes_a_request(lab: Callable[[], Any]) -> None:
    """Who may not transact could otherwise have the service do it, with an answer as the body."""
    async with lab() as (service, client, port):
        heard: list[Message] = []
        await port.subscribe("natalog.orders.>", heard.append)
        await port.api("INFO")
        for reply in ("natalog.orders.db.transact", "natalog.orders.db.tx", "$JS.API.INFO"):
            await port.publish("natalog.people.db.query", pack(FIND), reply=reply)
            await port.publish("natalog.people.db.transact", b"nonsense", reply=reply)
        await client.database("people").q(FIND)
        assert not [message for message in heard if message.data]
        assert service.intake.dropped == 6


@pytest.mark.asyncio
async def test_what_jetstream_delivers_is_no_request(lab: Callable[[], Any]) -> None:
    """Who may read a stream may have it delivered to any subject."""
    async with lab() as (service, client, port):
        stored = {"name": "mine", "subjects": ["mine.>"], "storage": "memory", "allow_direct": True}
        await port.stream_create(stored)
        await port.append("mine.a", BODY)
        await port.append("mine.b", BODY)
        pull = {"name": "pull", "deliver_policy": "all", "ack_policy": "none"}
        await port.api("CONSUMER.CREATE.mine.pull", {"stream_name": "mine", "config": pull})
        await port.publish(
            "$JS.API.CONSUMER.MSG.NEXT.mine.pull",
            json.dumps({"batch": 2, "no_wait": True}).encode(),
            reply="natalog.orders.db.transact",
        )
        await dropped(service, 2)
        # JetStream pushes where somebody listens to exactly that subject
        await port.subscribe("natalog.orders.db.transact", lambda _: None)
        push = {**pull, "name": "push", "deliver_subject": "natalog.orders.db.transact"}
        await port.api("CONSUMER.CREATE.mine.push", {"stream_name": "mine", "config": push})
        await dropped(service, 4)
        for target in ("natalog.orders.db.transact", "natalog.orders.db.tx"):
            await port.publish("$JS.API.DIRECT.GET.mine", b'{"seq": 1}', reply=target)
        # what got into the ingest stream was rejected there
        async with client.database("orders").reports(rejections=True) as feed:
            await client.database("orders").publish([["db/retract", 10**6, "x", 1]], id="last")
            await asyncio.wait_for(anext(feed), 10)


@pytest.mark.asyncio
async def test_bytes_that_are_no_text_end_no_connection(lab: Callable[[], Any]) -> None:
    async with lab() as (service, client, _):
        await raw(
            service.url,
            b"PUB natalog.\xff\xfe.db.query _INBOX.a 2\r\n[]\r\n",
            b"PUB natalog.people.\xc3\x28.query \xff\xff 2\r\n[]\r\n",
            b"PUB natalog.a\x0bb.db.query _INBOX.a 2\r\n[]\r\n",
            b"PUB natalog.people.db\x0c1.query _INBOX.a 2\r\n[]\r\n",
            b"PUB natalog.people.a\x00b.query _INBOX.\x1f 2\r\n[]\r\n",
            b"HPUB natalog.people.db.query _INBOX.a 12 14\r\nNATS/1.0\r\n\r\n[]\r\n",
            b"HPUB natalog.people.db.query _INBOX.a 8 10\r\nNATS/1.0[]\r\n",
            b"HPUB natalog.people.db.query _INBOX.a 20 22\r\n"
            b"NATS/1.0 \xff\xff\xff\xff\xff\xff\xff\r\n\r\n[]\r\n",
            b"HPUB natalog.people.db.query _INBOX.a 22 24\r\n"
            b"NATS/1.0 503\xff\xff\xff\xff\r\n\r\n\r\n[]\r\n",
        )
        assert await client.database("people").q(FIND) == {("people",)}


@pytest.mark.asyncio
async def test_a_subject_of_another_alphabet_is_told_of_as_it_is() -> None:
    client = NatsClient()
    message = client._build_message(1, b"a.\xff.b", b"\xff", b"x", None)
    assert (message.subject, message.reply) == ("a.\\xff.b", "")
    assert client._build_message(1, "ü".encode(), b"r", b"", None).subject == "ü"


@pytest.mark.parametrize("prefix", ["", "a b", "a.*", "a.>", ">", ".a", "a.", "a\r\nPUB x", "ü"])
def test_prefixes_are_checked(prefix: str) -> None:
    with pytest.raises((InvalidName, InvalidConfig)):
        ServiceConfig(prefix=prefix)
    with pytest.raises(InvalidName):
        natalog.connect("nats://127.0.0.1:1", prefix=prefix)
    with pytest.raises(InvalidName):
        natalog.connect("nats://127.0.0.1:1", inbox_prefix=prefix or " ")
    with pytest.raises(InvalidName):
        Names(prefix)


@pytest.mark.asyncio
async def test_names_are_checked_before_they_are_sent(lab: Callable[[], Any]) -> None:
    async with lab() as (_, client, _):
        conn = client.database("people")
        for name in ("a.b", "*", ">", "", "a b", "a\r\nPUB natalog.x 0", "_", "x" * 65, "ü"):
            with pytest.raises(InvalidName):
                client.database(name)
            with pytest.raises(InvalidName):
                client.database("people", branch=name)
            with pytest.raises(InvalidName):
                await client.create_database(name)
            with pytest.raises(InvalidName):
                await conn.branch(name)


@pytest.mark.asyncio
async def test_an_id_makes_no_header_of_its_own(lab: Callable[[], Any]) -> None:
    async with lab() as (_, client, _):
        conn = client.database("orders")
        for ident in ("one\r\nNats-Rollup: all", "a\nb", "", "x" * 300):
            with pytest.raises(BadRequest):
                await conn.publish([{"note": "n"}], id=ident)
            with pytest.raises(BadRequest):
                await conn.transact([{"note": "n"}], id=ident)

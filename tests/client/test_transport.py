"""The way to NATS: parts, silence, refusals and broken connections, against fake services."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from natalog.actors.nats_server import find_binary
from natalog.client.client import Client
from natalog.client.session import Session
from natalog.client.timeouts import Timeout
from natalog.client.transport import Transport
from natalog.core.codec import pack, unpack
from natalog.core.errors import (
    Busy,
    CodecError,
    CommitUnknown,
    DeadlineExceeded,
    TooLarge,
    TransactCas,
    Unavailable,
)

pytestmark = pytest.mark.asyncio

START_TIMEOUT_S = 20
Handler = Callable[[Msg], Awaitable[None]]


class Server:
    """A plain nats-server that a test may stop and start again on the same port."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [find_binary(), "-a", "127.0.0.1", "-p", str(self.port)],
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("nats-server does not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[tuple[Server, Transport]]:
    server = Server(directory)
    server.start()
    try:
        transport = await Transport.open(server.url, Timeout())
        try:
            yield server, transport
        finally:
            await transport.close()
    finally:
        server.stop()


async def test_an_answer_in_parts_is_joined_in_order(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, transport):

        async def reply(msg: Msg) -> None:
            for part in (2, 3, 1):
                headers = {"Natalog-Part": f"{part}/3", "Natalog-Basis": "7"}
                await transport.nats.publish(msg.reply, str(part).encode() * 2, headers=headers)

        await transport.subscribe("parts", reply)
        answer = await transport.request("parts", b"", 5)
        assert answer.data == b"112233"
        assert answer.headers["Natalog-Basis"] == "7"


@pytest.mark.parametrize("part", ["1", "0/2", "3/2", "a/b", "1/999999999"])
async def test_a_part_that_is_none_fails_the_request(tmp_path: Path, part: str) -> None:
    async with connected(tmp_path) as (_, transport):

        async def reply(msg: Msg) -> None:
            await transport.nats.publish(msg.reply, b"x", headers={"Natalog-Part": part})

        await transport.subscribe("parts", reply)
        with pytest.raises(CodecError):
            await transport.request("parts", b"", 5)


async def test_a_missing_part_ends_at_the_deadline(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, transport):

        async def reply(msg: Msg) -> None:
            await transport.nats.publish(msg.reply, b"x", headers={"Natalog-Part": "1/2"})

        await transport.subscribe("parts", reply)
        with pytest.raises(DeadlineExceeded, match="1 parts of it came"):
            await transport.request("parts", b"", 0.3)


async def test_nobody_and_nothing_are_different(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, transport):

        async def silence(msg: Msg) -> None:
            del msg

        await transport.subscribe("silent", silence)
        with pytest.raises(Unavailable) as nobody:
            await transport.request("nobody", b"", 5)
        assert nobody.value.data["delivered"] is False
        with pytest.raises(DeadlineExceeded):
            await transport.request("silent", b"", 0.2)


async def test_too_much_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, transport):
        with pytest.raises(TooLarge):
            await transport.request("any", b"x" * (1024 * 1024), 5)
        with pytest.raises(Unavailable):
            await transport.request("any", b"x", 5)


async def test_a_lost_connection_fails_what_waits_and_comes_back(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, transport):

        async def echo(msg: Msg) -> None:
            if msg.data != b"hold":
                await transport.nats.publish(msg.reply, msg.data)

        await transport.subscribe("echo", echo)
        waiting = asyncio.create_task(transport.request("echo", b"hold", 30))
        assert (await transport.request("echo", b"x", 5)).data == b"x"
        server.stop()
        with pytest.raises(Unavailable) as lost:
            await waiting
        assert lost.value.data["delivered"] is None
        server.start()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert (await transport.request("echo", b"again", 1)).data == b"again"
                    break
                except (Unavailable, DeadlineExceeded):
                    await asyncio.sleep(0.1)


class Service:
    """Answers transactions as a test tells it to."""

    def __init__(self, transport: Transport, answers: list[object]) -> None:
        self._transport = transport
        self._answers = answers
        self.seen: list[object] = []

    async def answer(self, msg: Msg) -> None:
        self.seen.append(unpack(msg.data)["id"] if b"id" in msg.data else None)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            headers = {"Nats-Service-Error-Code": "500", "Nats-Service-Error": "no"}
            body = answer.to_wire()  # type: ignore[attr-defined]
            await self._transport.nats.publish(msg.reply, pack(body), headers=headers)
        elif answer is not None:
            await self._transport.nats.publish(msg.reply, pack(answer))


async def _client(transport: Transport, *answers: object) -> tuple[Client, Service]:
    service = Service(transport, list(answers))
    await transport.subscribe("natalog.people.db.transact", service.answer)
    return Client(Session(transport, "natalog", Timeout())), service


async def test_a_transaction_with_an_id_is_sent_again(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, transport):
        report = {"tx": 5, "tx_data": [], "tempids": {}, "tx_meta": {}, "id": "a"}
        client, service = await _client(transport, Busy("full", retry_after_ms=10), report)
        found = await client.database("people").transact([], id="a")
        assert found.tx == 5
        assert service.seen == ["a", "a"]


async def test_a_transaction_without_an_id_is_sent_once(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, transport):
        client, service = await _client(transport, CommitUnknown("lost"))
        with pytest.raises(CommitUnknown):
            await client.database("people").transact([])
        assert len(service.seen) == 1


async def test_what_a_full_service_did_not_take_is_sent_again(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, transport):
        report = {"tx": 5, "tx_data": [], "tempids": {}, "tx_meta": {}}
        client, service = await _client(transport, Busy("full", retry_after_ms=10), report)
        assert (await client.database("people").transact([])).tx == 5
        assert len(service.seen) == 2


async def test_a_refusal_is_not_repeated(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, transport):
        client, service = await _client(transport, TransactCas("other", found=3))
        with pytest.raises(TransactCas) as caught:
            await client.database("people").transact([], id="a")
        assert caught.value.data == {"found": 3}
        assert caught.value.type == "transact/cas"
        assert len(service.seen) == 1


async def test_a_handler_that_never_waits_hears_everything_once_and_in_order(
    tmp_path: Path,
) -> None:
    async with connected(tmp_path) as (server, transport):
        heard: list[int] = []

        def note(msg: Msg) -> None:
            number = int(msg.data)
            heard.append(number)
            if number % 1000 == 7:
                raise ValueError("the handler is wrong")

        subscription = await transport.subscribe("numbers", note)
        other = await Transport.open(server.url, Timeout())
        for number in range(20_000):
            await other.nats.publish("numbers", b"%d" % number)
        async with asyncio.timeout(30):
            while len(heard) < 20_000:
                await asyncio.sleep(0.01)
        assert heard == list(range(20_000))
        await subscription.unsubscribe()
        await other.nats.publish("numbers", b"-1")
        await other.nats.flush()
        await transport.flush()
        assert heard[-1] == 19_999
        await other.close()


async def test_what_is_published_arrives_whole_whatever_waits_before_it(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, transport):
        sizes: list[int] = []
        await transport.subscribe("sizes", lambda msg: sizes.append(len(msg.data)))
        sent = [1, 900_000, 3, 0, 700_000, *range(50), 999_999, 5] * 20
        other = await Transport.open(server.url, Timeout())

        async def publish(part: list[int]) -> None:
            for size in part:
                await other.nats.publish("sizes", b"x" * size)

        await asyncio.gather(publish(sent), publish(sent))
        await other.close()  # what was published goes out before the end
        async with asyncio.timeout(30):
            while len(sizes) < 2 * len(sent):
                await asyncio.sleep(0.01)
        assert sorted(sizes) == sorted(2 * sent)


async def test_a_close_ends_although_somebody_else_gave_up_waiting_for_it(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, transport):
        connection = transport.nats._transport
        assert connection is not None
        waiting = asyncio.create_task(connection.wait_closed())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        await transport.close()
        closing = asyncio.create_task(connection.wait_closed())
        await asyncio.wait((closing,), timeout=10)
        assert closing.done() and not closing.cancelled()

"""Messages as they travel: what nats-py would have written and read, only faster."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats import errors
from nats.aio.msg import Msg

from natalog.actors.nats_port import NatsPort
from natalog.actors.nats_server import NatsServer
from natalog.connection.frames import frame, headers_of


def test_a_message_with_headers_has_their_size_and_its_own() -> None:
    made = frame("a.b", b"four", "_INBOX.c", {"Name": "value"})
    head = b"NATS/1.0\r\nName: value\r\n\r\n"
    assert made == b"HPUB a.b _INBOX.c %d %d\r\n%bfour\r\n" % (len(head), len(head) + 4, head)
    assert frame("a.b", b"") == b"PUB a.b  0\r\n\r\n"
    assert headers_of(head) == {"Name": "value"}


def test_a_value_makes_no_header_of_its_own() -> None:
    made = frame("a", b"", "", {"Name": "one\r\nOther: two"})
    assert b"\r\nOther" not in made


@pytest.mark.parametrize("name", ["", "two words", "colon:", "line\r\n", "ümlaut"])
def test_what_is_no_name_of_a_header_is_refused(name: str) -> None:
    with pytest.raises(errors.BadHeaderError):
        frame("a", b"", "", {name: "value"})


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (b"NATS/1.0\r\n\r\n", {}),
        (b"NATS/1.0\r\nA:1\r\nB : 2 \r\nA: 3\r\n\r\n", {"A": "3", "B": "2"}),
        (b"NATS/1.0\r\nno colon\r\nbad name: 1\r\n: 2\r\nA: \xff\r\n\r\n", {"A": "\ufffd"}),
        (b"NATS/1.0 503\r\n\r\n", None),
        (b"NATS/1.0", None),
    ],
)
def test_headers_are_read_as_far_as_they_are_any(
    block: bytes, found: dict[str, str] | None
) -> None:
    assert headers_of(block) == found


@pytest.mark.asyncio
async def test_messages_of_all_sizes_are_heard_in_order(tmp_path: Path) -> None:
    """They come in pieces, several at a time, with headers and without, here and to a queue."""
    server = NatsServer(tmp_path)
    await server.start()
    ours = await NatsPort.connect(server.url)
    theirs = await NatsPort.connect(server.url)
    heard: list[Msg] = []
    sizes = [0, 1, 300, 70_000, 5, 5, 1_000_000, 0, 40, 64 * 1024 - 40, 64 * 1024, 7] * 3
    try:
        await ours.subscribe("some.*", heard.append)
        await ours.api("INFO")
        for number, size in enumerate(sizes):
            headers = {"Number": str(number)} if number % 2 else None
            await theirs.publish(f"some.{number}", bytes([number]) * size, headers=headers)
        async with asyncio.timeout(20):
            while len(heard) < len(sizes):
                await asyncio.sleep(0.005)
    finally:
        await ours.close()
        await theirs.close()
        await server.stop()
    for number, (size, message) in enumerate(zip(sizes, heard, strict=True)):
        assert (message.subject, message.data) == (f"some.{number}", bytes([number]) * size)
        assert message.headers == ({"Number": str(number)} if number % 2 else None)

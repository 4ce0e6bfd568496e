"""Reading a stream in order: bounded pulls, every sequence number checked.

nats-py's own ordered consumer drops messages silently when it lags; this reader asks for batches of
bounded size, notices every gap and every broken connection, and starts again after the last
message it handed out.

Who follows a stream that is written to all the time may pause between two batches.  Then one
message is asked for, whenever it comes; after it and the pause everything that has come meanwhile,
and again one.  So nobody is woken, here or in the server, for every message.  Where somebody waits
for messages, the next ones come as they are stored.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio
from nats.aio.subscription import Subscription

from natalog.actors.nats_port import Message, NatsPort
from natalog.connection.client import Violation
from natalog.core.errors import Forbidden, LogCorrupt, NatalogError, ServiceError

log = logging.getLogger("natalog.reader")

BATCH_MESSAGES = 256
BATCH_BYTES = 16 * 1024 * 1024
PULL_EXPIRES_S = 20.0
"""How long the server keeps one pull open."""
SILENCE_S = PULL_EXPIRES_S + 3.0
"""Without message or status for this long, the consumer is taken for lost."""
PACED_EXPIRES_S = 2.0
PACED_SILENCE_S = 4.0
"""The same for one message that is asked for alone: if it gets lost, no other one tells of it."""
CONSUMER_IDLE_S = 60.0
HURRIED_MESSAGES = 32
"""So many come without a pause, once somebody has waited for them."""
RETRY_S = 0.2
TIME_HEADER = "Natalog-Time-Ms"
"""When a message was first stored, where a restored backup has stored it again."""
LAGGING_ATTEMPTS = 50
"""So often a message is asked for on a cluster before it is taken for lost."""

_SECOND_NS = 1_000_000_000


Pause = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of a stream; ``time_ms``: when it was stored."""

    seq: int
    subject: str
    data: bytes
    headers: dict[str, str]
    time_ms: int | None = None


class Hole(LogCorrupt):
    """A message is missing where none may be."""

    code = "LogCorrupt"


class StreamReader:
    """Messages of ``stream`` from ``start`` on, for ever, in order.

    ``gaps`` False: a missing sequence number is a `Hole`, unless it is one that ``erased`` knows.
    True: messages may have been removed from the stream.  ``headers_only``: without their data,
    whose size is in ``Nats-Msg-Size``.  ``pause``: awaited between batches when reading for ever;
    it says whether somebody waits for more.
    """

    def __init__(
        self,
        port: NatsPort,
        stream: str,
        start: int = 1,
        *,
        gaps: bool = False,
        headers_only: bool = False,
        erased: Callable[[int], bool] | None = None,
        pause: Pause | None = None,
    ) -> None:
        self._port = port
        self._pause = pause
        self._stream = stream
        self._next = start
        self._gaps = gaps
        self._headers_only = headers_only
        self._erased = erased

    async def messages(self, until: int | None = None) -> AsyncGenerator[list[Stored], None]:
        """Batches of at least one message; ends after sequence ``until`` when that is given.

        Connections and consumers that are lost are replaced.  Raises `Hole`, and `JetStreamError`
        when the stream is gone.
        """
        suspicious = 0
        while until is None or self._next <= until:
            session = _Session(
                self._port,
                self._stream,
                self._next,
                live=until is None,
                headers_only=self._headers_only,
            )
            try:
                await session.open()
            except Forbidden:
                raise
            except ServiceError as error:
                log.info("reading %s again soon: %s", self._stream, error.message)
                await anyio.sleep(RETRY_S)
                continue
            try:
                pause = self._pause if until is None else None
                found = session.batches() if pause is None else session.paced(pause)
                async with aclosing(found) as batches:
                    async for batch in batches:
                        handed, hole = self._take(batch)
                        if until is not None:  # a batch may hold what came after the question
                            handed = [message for message in handed if message.seq <= until]
                        if handed:
                            suspicious = 0
                            yield handed
                        if until is not None and self._next > until:
                            return
                        if hole:
                            break
                    else:
                        hole = session.exhausted and until is not None
                        if hole and until is not None and self._skipped(until + 1):
                            return
            finally:
                with anyio.CancelScope(shield=True):
                    await session.close()
            if not hole:
                continue
            # messages may be lost with a connection; a hole that a new consumer sees is real
            if self._gaps:
                return
            if suspicious >= (LAGGING_ATTEMPTS if self._port.replicated else 1):
                raise Hole(
                    f"Message {self._next} of {self._stream} is missing: the log has a hole.",
                    stream=self._stream,
                    sequence=self._next,
                )
            suspicious += 1
            if suspicious > 1:
                await anyio.sleep(RETRY_S)  # the server that was asked may lag behind the others

    def _take(self, batch: list[Stored]) -> tuple[list[Stored], bool]:
        """The messages that follow, and whether one is missing behind them."""
        handed: list[Stored] = []
        for message in batch:
            if message.seq < self._next:
                continue
            if message.seq > self._next and not self._gaps and not self._skipped(message.seq):
                return handed, True
            self._next = message.seq + 1
            handed.append(message)
        return handed, False

    def _skipped(self, seq: int) -> bool:
        """Go on to ``seq`` over messages that were erased; False where one is merely missing."""
        while self._next < seq and self._erased is not None and self._erased(self._next):
            self._next += 1
        return self._next >= seq


class _Session:
    """One consumer and one inbox, until either is lost."""

    def __init__(
        self, port: NatsPort, stream: str, start: int, *, live: bool, headers_only: bool = False
    ) -> None:
        self._port = port
        self._stream = stream
        self._start = start
        self._live = live
        self._headers_only = headers_only
        self._name = f"r{uuid4().hex}"
        self._queue: asyncio.Queue[Message | Forbidden | None] = asyncio.Queue()
        self._inbox = port.inbox()
        self._pulls = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{self._name}"
        self._subscription: Subscription | None = None
        self.exhausted = False

    async def open(self) -> None:
        self._subscription = await self._port.subscribe(self._inbox, self._queue.put_nowait)
        self._port.on_reconnect.append(self._on_reconnect)
        self._port.on_forbidden.append(self._on_forbidden)
        try:
            await self._port.api(
                f"CONSUMER.CREATE.{self._stream}.{self._name}",
                {
                    "stream_name": self._stream,
                    "config": {
                        "name": self._name,
                        "deliver_policy": "by_start_sequence",
                        "opt_start_seq": self._start,
                        "ack_policy": "none",
                        "mem_storage": True,
                        "num_replicas": 1,
                        "headers_only": self._headers_only,
                        "inactive_threshold": int(CONSUMER_IDLE_S * _SECOND_NS),
                    },
                },
            )
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.close(delete=False)
            raise

    async def close(self, *, delete: bool = True) -> None:
        if self._on_reconnect in self._port.on_reconnect:
            self._port.on_reconnect.remove(self._on_reconnect)
            self._port.on_forbidden.remove(self._on_forbidden)
        if self._subscription is not None:
            await self._port.unsubscribe(self._subscription)
            self._subscription = None
        if delete and self._port.is_connected:
            try:
                await self._port.publish(
                    f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}", b""
                )
            except NatalogError as error:
                log.debug("consumer %s stays until it idles out: %s", self._name, error)

    def _on_reconnect(self) -> None:
        self._queue.put_nowait(None)

    def _on_forbidden(self, violation: Violation) -> None:
        if violation.subject in (self._pulls, self._inbox):
            self._queue.put_nowait(
                Forbidden(
                    f"NATS does not let the service read {self._stream}.", **violation._asdict()
                )
            )

    async def _pull(self, count: int, *, wait: bool, expires_s: float = PULL_EXPIRES_S) -> None:
        wish: dict[str, Any] = {"batch": count}
        if count > 1:
            wish["max_bytes"] = max(BATCH_BYTES, 2 * self._port.max_payload)
        if wait:
            wish["expires"] = int(expires_s * _SECOND_NS)
        else:
            wish["no_wait"] = True
        await self._port.publish(self._pulls, json.dumps(wish).encode(), reply=self._inbox)

    async def paced(self, pause: Pause) -> AsyncGenerator[list[Stored], None]:
        """What arrives, with a pause after each batch; ends when the consumer is lost."""
        delivered = hurried = 0
        try:
            await self._pull(1, wait=True, expires_s=PACED_EXPIRES_S)
            while True:
                message: Message | Forbidden | None = None
                with anyio.move_on_after(PACED_SILENCE_S):
                    message = await self._queue.get()
                if message is None:
                    return
                batch: list[Stored] = []
                lost = False
                while message is not None and not lost:
                    if isinstance(message, Forbidden):
                        raise message
                    headers = message.headers or {}
                    status = headers.get("Status")
                    if status is None:
                        stored, count = _stored(message)
                        lost = count > delivered + 1
                        if not lost:
                            delivered = max(delivered, count)
                            batch.append(stored)
                    elif status not in ("100", "404"):
                        said = headers.get("Description", "")
                        ended = "Batch Completed" in said or "MaxBytes" in said
                        lost = status != "408" and not ended
                        if status == "408" or hurried > len(batch):
                            hurried = 0
                            await self._pull(1, wait=True, expires_s=PACED_EXPIRES_S)
                    message = None if self._queue.empty() else self._queue.get_nowait()
                if batch:
                    yield batch
                if lost:
                    log.info("consumer of %s is lost", self._stream)
                    await anyio.sleep(RETRY_S)
                    return
                hurried = max(0, hurried - len(batch))
                if not batch or hurried:
                    continue
                if await pause():
                    hurried = HURRIED_MESSAGES
                    await self._pull(hurried, wait=True, expires_s=PACED_EXPIRES_S)
                else:
                    await self._pull(BATCH_MESSAGES, wait=False)
                    await self._pull(1, wait=True, expires_s=PACED_EXPIRES_S)
        except ServiceError:
            await anyio.sleep(RETRY_S)

    async def batches(self) -> AsyncGenerator[list[Stored], None]:
        """What arrives, as it arrives; ends when the consumer is lost or (not live) at the end."""
        filled = delivered = 0
        while True:
            try:
                await self._pull(BATCH_MESSAGES, wait=self._live)
            except ServiceError:
                await anyio.sleep(RETRY_S)
                return
            received = 0
            open_pull = True
            while open_pull and received < BATCH_MESSAGES:
                message: Message | Forbidden | None = None
                with anyio.move_on_after(SILENCE_S if self._live else 5.0) as waiting:
                    message = await self._queue.get()
                if waiting.cancelled_caught or message is None:
                    return
                batch: list[Stored] = []
                while message is not None:
                    if isinstance(message, Forbidden):
                        raise message
                    headers = message.headers or {}
                    status = headers.get("Status")
                    said = headers.get("Description", "")
                    if status is None:
                        stored, count = _stored(message)
                        if count > delivered + 1:
                            log.warning("a message of %s was lost on its way", self._stream)
                            if batch:
                                yield batch
                            await anyio.sleep(RETRY_S)
                            return
                        delivered = max(delivered, count)
                        batch.append(stored)
                        received += 1
                    elif status == "404":
                        self.exhausted = True
                        open_pull = False
                    elif status == "408" or "MaxBytes" in said:
                        open_pull = False  # expired, or as many bytes as were asked for
                    elif "Batch Completed" in said:
                        # it trails a pull that was counted full; otherwise the bytes were full
                        open_pull = open_pull and filled > 0
                        filled = max(0, filled - 1)
                    elif status != "100":
                        log.info("consumer of %s is lost: status %s", self._stream, status)
                        if batch:
                            yield batch
                        await anyio.sleep(RETRY_S)
                        return
                    message = None if self._queue.empty() else self._queue.get_nowait()
                if batch:
                    yield batch
            filled += received >= BATCH_MESSAGES
            if self.exhausted:
                return


def _stored(message: Message) -> tuple[Stored, int]:
    """A delivered message, and the how many-th of its consumer it is."""
    # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>, with
    # domain and account hash before the stream name on newer servers
    tokens = message.reply.split(".")
    spot = 5 if len(tokens) == 9 else 7
    headers = message.headers or {}
    stored_ms = int(tokens[spot + 2]) // 1_000_000
    restored = headers.get(TIME_HEADER, "")
    if len(restored) < 16 and restored.isascii() and restored.isdigit():
        stored_ms = int(restored)
    stored = Stored(int(tokens[spot]), message.subject, message.data, headers, stored_ms)
    return stored, int(tokens[spot + 1])

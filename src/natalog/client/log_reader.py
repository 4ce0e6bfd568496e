"""Reading a branch's log from the client: where a transaction is, and everything from there on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple
from uuid import uuid4

from nats.aio.msg import Msg

from natalog.client.session import READ, Session
from natalog.client.transport import Channel, JetStreamRefused
from natalog.core.errors import (
    BranchNotFound,
    DeadlineExceeded,
    LogCorrupt,
    ServiceError,
    Unavailable,
)
from natalog.core.record import ENTRY_COMMIT, Block, TxRecord, decode_block

_BATCH_BLOCKS = 64
_BATCH_BYTES = 16 * 1024 * 1024
_PULL_EXPIRES_S = 5.0
_SILENCE_S = _PULL_EXPIRES_S + 2.0
"""Without a block or a status for this long the consumer is taken for lost."""
_IDLE_CONSUMER_S = 60.0
_RETRY_S = 0.2
_LOCATE_TIMEOUT_S = 5.0
_SECOND_NS = 1_000_000_000
_STREAM_NOT_FOUND = 10059


class Position(NamedTuple):
    """A block and its place in the log's stream."""

    sequence: int
    block: Block
    data: bytes


def lane_stream(prefix: str, database: str, lane: int) -> str:
    """The stream of a lane's log; it keeps its name whatever becomes of the branch."""
    middle = f"_{lane}" if lane else "db"
    return "=".join([prefix.replace(".", "="), database, middle, "log"])


class LogReader:
    """The log of one branch, read contiguously: a missing block is an error, never a gap.

    ``stream`` names a log that no living branch has, which others may begin in.

    Reads by consumers that are filtered by the subjects of the database: their creation is the one
    call of JetStream that a user can be allowed for one database and all its branches.
    """

    def __init__(
        self, session: Session, database: str, branch: str, stream: str | None = None
    ) -> None:
        self._session = session
        self._database = database
        self._branch = branch
        self._subject = session.subject(database, branch, "log")
        # not the branch's alone: what a branch began with was stored under another subject when
        # its name was moved to this log by force
        self._filter = f"{session.prefix}.{database}.>"
        self._stream = stream

    async def last_sequence(self) -> int:
        """The place of the newest block, 0 in an empty log."""
        async with _Consumer(self, {"deliver_policy": "last"}) as consumer:
            newest = await consumer.one()
        return 0 if newest is None else _sequence(newest)

    async def sequence_after(self, tx: int) -> int:
        """The place of a block from which on every transaction after ``tx`` is found.

        A binary search over the blocks; O(log n) requests.
        """
        low, high = 1, await self.last_sequence() + 1
        while high - low > 1:
            middle = (low + high) // 2
            first = await self._first_tx(middle)
            if first is None or first > tx:
                high = middle
            else:
                low = middle
        return low

    async def blocks(
        self, sequence: int, *, until: int | None = None
    ) -> AsyncGenerator[Position, None]:
        """The blocks from ``sequence`` on, for ever, or up to and with ``until``."""
        expected = sequence
        suspicious = False
        while until is None or expected <= until:
            try:
                async with (
                    _Consumer(self, _from(expected)) as consumer,
                    aclosing(consumer.messages()) as messages,
                ):
                    async for msg in messages:
                        found = _sequence(msg)
                        if found < expected:
                            continue
                        if found != expected:
                            break
                        suspicious = False
                        yield Position(found, decode_block(msg.data), msg.data)
                        expected = found + 1
                        if until is not None and expected > until:
                            return
                    else:
                        continue
            except JetStreamRefused:
                raise
            except (Unavailable, DeadlineExceeded):
                # the connection or the consumer went away; begin again behind the last block
                if self._session.transport.nats.is_closed:
                    raise Unavailable("the client is closed") from None
                await asyncio.sleep(_RETRY_S)
                continue
            # a message may be lost with a connection; a hole that a new consumer sees is real
            if suspicious:
                raise LogCorrupt(
                    f"block {expected} of {self._subject} is missing",
                    sequence=expected,
                    found=found,
                )
            suspicious = True

    async def _first_tx(self, sequence: int) -> int | None:
        """The first transaction at or after a block; None behind the last."""
        async with _Consumer(self, _from(sequence)) as consumer:
            while (msg := await consumer.one()) is not None:
                for entry in decode_block(msg.data).entries:
                    if entry.type == ENTRY_COMMIT:
                        return TxRecord.decode(entry.data).tx
        return None

    # --- inside --------------------------------------------------------------------------------

    async def consume(self, name: str, start: dict[str, Any]) -> str:
        """Make a consumer and return the subject that pulls from it."""
        stream = self._stream or await self._locate()
        body = {
            "stream_name": stream,
            "config": {
                "name": name,
                **start,
                "filter_subject": self._filter,
                "ack_policy": "none",
                "mem_storage": True,
                "num_replicas": 1,
                "inactive_threshold": int(_IDLE_CONSUMER_S * _SECOND_NS),
            },
        }
        try:
            await self.call(f"CONSUMER.CREATE.{stream}.{name}.{self._filter}", body)
        except JetStreamRefused as error:
            if error.err_code == _STREAM_NOT_FOUND:
                raise BranchNotFound(
                    f"no log {self._subject}", database=self._database, branch=self._branch
                ) from None
            raise
        self._stream = stream
        return f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"

    async def call(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call JetStream."""
        try:
            return await self._session.transport.api(what, body)
        except Unavailable as error:
            if error.data.get("delivered") is False and "subject" in error.data:
                raise Unavailable("the NATS server runs without JetStream") from None
            raise

    async def _locate(self) -> str:
        """The stream of the branch's log: the service knows it, else its subject tells."""
        try:
            answer = await self._session.ask(
                self._session.subject(self._database, "_", "info"),
                {"branch": self._branch},
                timeout_s=_LOCATE_TIMEOUT_S,
                repeat=READ,
            )
            return lane_stream(self._session.prefix, self._database, int(answer.body["lane"]))
        except (Unavailable, DeadlineExceeded) as unserved:
            try:
                found = await self.call("STREAM.NAMES", {"subject": self._subject})
            except ServiceError:
                raise unserved from None
            names = found.get("streams") or []
            if not names:
                raise BranchNotFound(
                    f"no log {self._subject}", database=self._database, branch=self._branch
                ) from None
            return str(names[0])

    @property
    def session(self) -> Session:
        return self._session


class _Consumer:
    """A consumer of the log's stream for the length of an ``async with``."""

    def __init__(self, reader: LogReader, start: dict[str, Any]) -> None:
        self._reader = reader
        self._start = start
        # nobody can guess it, and who does not know it cannot pull from it
        self._name = f"c{uuid4().hex}"
        self._pulls = ""
        self._channel: Channel | None = None

    async def __aenter__(self) -> _Consumer:
        self._pulls = await self._reader.consume(self._name, self._start)
        self._channel = await self._reader.session.transport.channel()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._channel is not None:
            await self._channel.close()
            # it idles out by itself where it may not be deleted
            delete = self._pulls.replace(".MSG.NEXT.", ".DELETE.", 1)
            self._reader.session.transport.tell(delete, b"")

    async def one(self) -> Msg | None:
        """The next message, None when there is none now."""
        channel = await self._pull(batch=1, no_wait=True)
        while True:
            try:
                msg = await channel.receive(_SILENCE_S)
            except TimeoutError:
                raise Unavailable("JetStream does not answer") from None
            status = (msg.headers or {}).get("Status")
            if status is None:
                return msg
            if status == "404":
                return None
            if status not in ("100", "408"):
                raise Unavailable(f"the consumer was lost: status {status}")

    async def messages(self) -> AsyncGenerator[Msg, None]:
        """Messages as they come; ends when the consumer has been lost."""
        while True:
            channel = await self._pull(
                batch=_BATCH_BLOCKS,
                max_bytes=_BATCH_BYTES,
                expires=int(_PULL_EXPIRES_S * _SECOND_NS),
            )
            received = 0
            while received < _BATCH_BLOCKS:
                try:
                    msg = await channel.receive(_SILENCE_S)
                except TimeoutError:
                    return
                headers = msg.headers or {}
                status = headers.get("Status")
                if status is None:
                    received += 1
                    yield msg
                elif status == "408" or "MaxBytes" in headers.get("Description", ""):
                    break
                elif status != "100" and "Batch Completed" not in headers.get("Description", ""):
                    return

    async def _pull(self, **wish: Any) -> Channel:
        assert self._channel is not None
        await self._channel.send(self._pulls, json.dumps(wish).encode())
        return self._channel


def _from(sequence: int) -> dict[str, Any]:
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": sequence}


def _sequence(msg: Msg) -> int:
    """The place in the stream, from ``$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>. ...``."""
    tokens = msg.reply.split(".")
    # newer servers put domain and account before the stream
    return int(tokens[5 if len(tokens) == 9 else 7])

"""Reading a stream from the client, by consumers that a user may be allowed to make."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

from nats.aio.msg import Msg

from natalog.client.session import Session
from natalog.client.transport import Channel
from natalog.core.errors import Unavailable

STREAM_NOT_FOUND = 10059
_BATCH_MESSAGES = 64
_BATCH_BYTES = 16 * 1024 * 1024
_PULL_EXPIRES_S = 5.0
_SILENCE_S = _PULL_EXPIRES_S + 2.0
"""Without a message or a status for this long the consumer is taken for lost."""
_IDLE_CONSUMER_S = 60.0
_SECOND_NS = 1_000_000_000


class Consumer:
    """A consumer of one stream for the length of an ``async with``.

    Filtered by a subject: making such consumers is the one call of JetStream that a user can be
    allowed for one database and all its branches.  ``start``: where it begins.
    """

    def __init__(
        self, session: Session, stream: str, filter_subject: str, start: dict[str, Any]
    ) -> None:
        self._session = session
        self._stream = stream
        self._filter = filter_subject
        self._start = start
        # nobody can guess it, and who does not know it cannot pull from it
        self._name = f"c{uuid4().hex}"
        self._pulls = ""
        self._channel: Channel | None = None

    async def __aenter__(self) -> Consumer:
        body = {
            "stream_name": self._stream,
            "config": {
                "name": self._name,
                **self._start,
                "filter_subject": self._filter,
                "ack_policy": "none",
                "mem_storage": True,
                "num_replicas": 1,
                "inactive_threshold": int(_IDLE_CONSUMER_S * _SECOND_NS),
            },
        }
        await call(
            self._session, f"CONSUMER.CREATE.{self._stream}.{self._name}.{self._filter}", body
        )
        api = self._session.transport.js_api_prefix
        self._pulls = f"{api}.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        self._channel = await self._session.transport.channel()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._channel is not None:
            await self._channel.close()
            # it idles out by itself where it may not be deleted
            delete = self._pulls.replace(".MSG.NEXT.", ".DELETE.", 1)
            self._session.transport.tell(delete, b"")

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
                batch=_BATCH_MESSAGES,
                max_bytes=_BATCH_BYTES,
                expires=int(_PULL_EXPIRES_S * _SECOND_NS),
            )
            received = 0
            while received < _BATCH_MESSAGES:
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


async def call(session: Session, what: str, body: dict[str, Any]) -> dict[str, Any]:
    """Call JetStream."""
    try:
        return await session.transport.api(what, body)
    except Unavailable as error:
        if error.data.get("delivered") is False and "subject" in error.data:
            raise Unavailable("the NATS server runs without JetStream") from None
        raise


def sequence_of(msg: Msg) -> int:
    """The place in the stream, from ``$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>. ...``."""
    tokens = msg.reply.split(".")
    # newer servers put domain and account before the stream
    return int(tokens[5 if len(tokens) == 9 else 7])

"""What comes in: messages become requests, as many and as large as there is room for.

Requests that have no answer yet are counted, with their bytes, those that read apart from those
that change something: a flood of the one leaves room for the other, and memory is bounded however
many there are.  What is no request of a client at all is dropped here: a message of a stream that
somebody had delivered to one of our subjects, or one that asks for its answer there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final, Protocol

from anyio import CapacityLimiter, to_thread

from natalog.actors.names import NOBODY, Names, check_name
from natalog.actors.nats_port import Message
from natalog.actors.payload import decode_payload
from natalog.core.codec_json import ContentKind
from natalog.core.errors import Busy, NatalogError
from natalog.core.limits import (
    CHANGES_WAITING_BYTES_MAX,
    READS_WAITING_BYTES_MAX,
    REQUESTS_WAITING_MAX,
)

log = logging.getLogger("natalog.intake")

CHANGING: Final = frozenset(
    {
        *("transact", "merge", "create", "delete", "branch", "delete-branch", "force-branch"),
        *("gc", "erase", "snapshot"),
    }
)
"""Endpoints that change something."""
RETRY_AFTER_MS: Final = 100
REFUSALS_PER_S: Final = 4_000
REFUSALS_AT_ONCE: Final = 500
REFUSALS_WAITING_MAX: Final = 20_000
REFUSALS_TICK_S: Final = 0.01
IN_THREAD_BYTES: Final = 64 * 1024
"""A body of this size would hold up the event loop; it is decoded in a thread."""
DECODING_MAX: Final = 1
"""Large bodies that are decoded at the same time."""


class Room:
    """Requests of one kind that have no answer yet."""

    __slots__ = ("bytes", "bytes_max", "count", "what")

    def __init__(self, what: str, bytes_max: int) -> None:
        self.what = what
        self.bytes_max = bytes_max
        self.count = 0
        self.bytes = 0

    def enter(self, size: int) -> None:
        """Let a request in; `Busy` when there is no room."""
        if self.count >= REQUESTS_WAITING_MAX or (
            self.count and self.bytes + size > self.bytes_max
        ):
            raise Busy(f"Too many {self.what} are waiting.", retry_after_ms=RETRY_AFTER_MS)
        self.count += 1
        self.bytes += size

    def leave(self, size: int) -> None:
        self.count -= 1
        self.bytes -= size


class Refusable(Protocol):
    """A request that may be refused."""

    message: Message

    def fail(self, error: NatalogError) -> None: ...
    async def refuse(self, error: BaseException) -> None: ...


class Refusals:
    """Says `Busy`, a limited number of times a second.

    Who is refused asks again: the faster it hears so, the less time is left for those that were let
    in.  A few hear it at once, a flood in its turn.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Refusable, NatalogError]] = deque()
        self._left = float(REFUSALS_AT_ONCE)
        self._seen = 0.0
        self._task: asyncio.Task[None] | None = None

    def say(self, request: Refusable, error: NatalogError) -> None:
        """Refuse ``request``, now or soon; its payload is let go."""
        now = time.monotonic()
        self._left = min(REFUSALS_AT_ONCE, self._left + (now - self._seen) * REFUSALS_PER_S)
        self._seen = now
        if (not self._waiting and self._left >= 1) or len(self._waiting) >= REFUSALS_WAITING_MAX:
            self._left -= 1
            request.fail(error)
            return
        request.message.data = b""
        self._waiting.append((request, error))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(REFUSALS_TICK_S)
                for _ in range(round(REFUSALS_PER_S * REFUSALS_TICK_S)):
                    if not self._waiting:
                        break
                    request, error = self._waiting.popleft()
                    await request.refuse(error)
        finally:
            self._left, self._seen, self._task = 0.0, time.monotonic(), None

    async def stop(self) -> None:
        """Refuse those that wait, at once."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=1)
        while self._waiting:
            request, error = self._waiting.popleft()
            await request.refuse(error)


class Intake:
    """The door of one service."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._ours = f"{names.prefix}."
        self.reads = Room("reads", READS_WAITING_BYTES_MAX)
        self.changes = Room("changes", CHANGES_WAITING_BYTES_MAX)
        self.refusals = Refusals()
        self.dropped = 0
        self._decoding: CapacityLimiter | None = None

    def place(self, message: Message, served: Collection[str]) -> tuple[str, str, str] | None:
        """Database, branch and endpoint that a message is for.

        None for what is no request: the subject is not one that is ``served`` here, as when
        JetStream delivers a stored message, or the answer would become somebody's request.
        """
        tokens = message.subject[len(self._ours) :].split(".")
        if (
            len(tokens) != 3
            or tokens[2] not in served
            or message.reply.startswith((self._ours, "$"))
        ):
            self.dropped += 1
            log.warning("a message on %s is no request", message.subject[:200])
            return None
        return tokens[0], tokens[1], tokens[2]

    def room(self, endpoint: str) -> Room:
        return self.changes if endpoint in CHANGING else self.reads

    async def decode(self, payload: bytes, content_type: str | None) -> tuple[ContentKind, Any]:
        """`decode_payload`, in a thread when that is worth it."""
        if len(payload) < IN_THREAD_BYTES:
            return decode_payload(payload, content_type)
        if self._decoding is None:
            self._decoding = CapacityLimiter(DECODING_MAX)
        return await to_thread.run_sync(
            decode_payload, payload, content_type, limiter=self._decoding
        )


@lru_cache(maxsize=1024)
def check_tokens(database: str, branch: str) -> None:
    """`InvalidName` for tokens of a subject that name no database or branch.

    Anybody may publish to a subject with any characters in it, wildcards too.
    """
    if database != NOBODY:
        check_name(database)
    if branch != NOBODY:
        check_name(branch, "branch")

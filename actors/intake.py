"""What comes in: messages become requests, as many and as large as there is room for.

Requests that have no answer yet are counted, with their bytes, those that read apart from those
that change something: a flood of the one leaves room for the other, and memory is bounded however
many there are.  What is no request of a client at all is dropped here: a message of a stream that
somebody had delivered to one of our subjects, or one that asks for its answer there.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, Final

from anyio import CapacityLimiter, to_thread

from natalog.actors.names import NOBODY, Names, check_name
from natalog.actors.nats_port import Message
from natalog.actors.payload import decode_payload
from natalog.core.codec_json import ContentKind
from natalog.core.errors import Busy
from natalog.core.limits import (
    CHANGES_WAITING_BYTES_MAX,
    READS_WAITING_BYTES_MAX,
    REQUESTS_WAITING_MAX,
)

log = logging.getLogger("natalog.intake")

CHANGING: Final = frozenset(
    {
        *("transact", "merge", "create", "delete", "branch", "delete-branch", "force-branch"),
        *("gc", "erase"),
    }
)
"""Endpoints that change something."""
RETRY_AFTER_MS: Final = 100
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
            raise Busy(
                f"{self.count} {self.what} with {self.bytes} bytes are waiting.",
                retry_after_ms=RETRY_AFTER_MS,
            )
        self.count += 1
        self.bytes += size

    def leave(self, size: int) -> None:
        self.count -= 1
        self.bytes -= size


class Intake:
    """The door of one service."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._ours = f"{names.prefix}."
        self.reads = Room("reads", READS_WAITING_BYTES_MAX)
        self.changes = Room("changes", CHANGES_WAITING_BYTES_MAX)
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


def check_tokens(database: str, branch: str) -> None:
    """`InvalidName` for tokens of a subject that name no database or branch.

    Anybody may publish to a subject with any characters in it, wildcards too.
    """
    if database != NOBODY:
        check_name(database)
    if branch != NOBODY:
        check_name(branch, "branch")

"""One request of a client: decoded once, answered once, in its own form and in parts if needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from natalog.actors.intake import CHANGING, IN_THREAD_BYTES, Intake, Room
from natalog.actors.lease import LeaseLost
from natalog.actors.nats_answers import Letter
from natalog.actors.nats_port import Message, NatsPort
from natalog.actors.parts import Parts
from natalog.actors.payload import CONTENT_TYPES, decode_payload, encode_error, encode_payload
from natalog.actors.runtime import as_natalog
from natalog.core.codec_json import ContentKind, content_kind
from natalog.core.errors import (
    BadRequest,
    Busy,
    DeadlineExceeded,
    NatalogError,
    TooLarge,
    Unavailable,
)
from natalog.core.limits import ASK_TIMEOUT_S

log = logging.getLogger("natalog.requests")

HEADER_TEXT_MAX: Final = 300
TIMEOUT_MAX_S: Final = 24 * 3600.0

_STATUS: Final = {
    "DatabaseNotFound": 404,
    "BranchNotFound": 404,
    "CommitNotFound": 404,
    "Erased": 404,
    "EntityIdMissing": 404,
    "DatabaseExists": 409,
    "BranchExists": 409,
    "MergeConflict": 409,
    "TransactCas": 409,
    "TransactUnique": 409,
    "TransactUpsert": 409,
    "DeadlineExceeded": 408,
    "QueryTimeout": 408,
    "TooLarge": 413,
    "Forbidden": 403,
    "Busy": 429,
    "NotImplemented": 501,
    "Unavailable": 503,
    "CommitUnknown": 503,
    "Fenced": 503,
    "Internal": 500,
    "LogCorrupt": 500,
    "JetStream": 500,
}


def status_of(error: NatalogError) -> int:
    """The number for ``Nats-Service-Error-Code``."""
    return _STATUS.get(error.code, 400)


class Door(Protocol):
    """What a request needs of its service: room, a place to decode, and a way for large answers."""

    intake: Intake
    parts: Parts

    def settled(self, endpoint: str, seconds: float, error: NatalogError | None) -> None:
        """Note that a request has its answer."""


class Request:
    """A message that somebody may wait for.  `fail` makes it a message for actors.

    ``mine`` False: another process may have the same message, because the lease had perhaps been
    lost when it came.  If it has indeed been lost, as ``claim`` finds out, that process answers.
    """

    ingest_seq: None = None

    __slots__ = (
        *(
            "_answered",
            "_body",
            "_door",
            "_error",
            "_room",
            "arrived",
            "branch",
            "database",
            "endpoint",
        ),
        *("claim", "kind", "message", "mine", "port", "timeout_s"),
    )

    def __init__(
        self,
        port: NatsPort,
        message: Message,
        database: str,
        branch: str,
        endpoint: str,
        door: Door | None = None,
    ) -> None:
        self._answered = False
        self._error: NatalogError | None = None
        self._room: Room | None = None
        self._door = door
        self._body: Any = _UNREAD
        self.port = port
        self.message = message
        self.database = database
        self.branch = branch
        self.endpoint = endpoint
        self.arrived = time.monotonic()
        self.kind: ContentKind = content_kind(self.header("Content-Type"), message.data)
        self.mine = True
        self.claim: Callable[[], Awaitable[bool]] | None = None
        self.timeout_s = ASK_TIMEOUT_S
        wish = self.header("Natalog-Timeout-Ms")
        if wish is not None and len(wish) < 16 and wish.isascii() and wish.isdigit():
            self.timeout_s = min(TIMEOUT_MAX_S, int(wish) / 1000)

    def enter(self) -> None:
        """Take the room that a request needs until it is answered; `Busy` when there is none.

        `BadRequest` for a message of a stream that somebody had delivered here.
        """
        if self.header("Nats-Stream") is not None:
            raise BadRequest("A message of a stream is no request.")
        if self._door is not None:
            room = self._door.intake.room(self.endpoint)
            room.enter(len(self.message.data))
            self._room = room

    @property
    def answered(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return self._answered

    @answered.setter
    def answered(self, value: bool) -> None:
        if value and not self._answered and self._door is not None:
            self._door.settled(self.endpoint, time.monotonic() - self.arrived, self._error)
        self._answered = value
        if value:
            self._leave()

    def _leave(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.leave(len(self.message.data))

    def __del__(self) -> None:
        self._leave()

    def header(self, name: str) -> str | None:
        headers = self.message.headers
        return None if headers is None else headers.get(name)

    @property
    def remaining_s(self) -> float:
        """Seconds until the sender gives up, at least 0."""
        return max(0.0, self.arrived + self.timeout_s - time.monotonic())

    def check_deadline(self) -> None:
        """Raise `DeadlineExceeded` when the sender has given up already."""
        if self.remaining_s <= 0:
            raise DeadlineExceeded(
                "The request waited longer than its sender; nothing was done.",
                endpoint=self.endpoint,
                timeout_ms=int(self.timeout_s * 1000),
            )

    def body(self) -> Any:
        """The decoded payload; raises the errors of `decode_payload`."""
        if self._body is not _UNREAD:
            return self._body
        return decode_payload(self.message.data, self.header("Content-Type"))[1]

    async def prepare(self) -> None:
        """Decode a large payload where it holds up nobody; raises what `body` would."""
        if self._door is not None and len(self.message.data) >= IN_THREAD_BYTES:
            content_type = self.header("Content-Type")
            self._body = (await self._door.intake.decode(self.message.data, content_type))[1]

    # --- answers -----------------------------------------------------------------------------

    def encode(self, body: Any) -> bytes:
        """The bytes of an answer in the form of the request."""
        return encode_payload(self.kind, body)

    async def reply(self, body: Any, basis: int | None = None) -> None:
        """Answer with ``body``; an answer that cannot be encoded becomes an error."""
        try:
            payload = self.encode(body)
        except Exception as error:
            await self.refuse(error)
            return
        await self.reply_bytes(payload, basis)

    async def reply_bytes(self, payload: bytes, basis: int | None = None) -> None:
        """Answer with bytes that are encoded already."""
        headers = {"Content-Type": CONTENT_TYPES[self.kind]}
        if basis is not None:
            headers["Natalog-Basis"] = str(basis)
        try:
            await self._send(payload, headers, done=self.endpoint in CHANGING)
        except (Busy, TooLarge) as error:
            await self.refuse(error)

    def letter(self, payload: bytes, basis: int) -> Letter | None:
        """An answer that is ready to be sent; None where it takes more than sending a message.

        Who sends it sets ``answered``.
        """
        if self.answered or not self.message.reply or len(payload) > self.port.payload_room:
            return None
        headers = {"Content-Type": CONTENT_TYPES[self.kind], "Natalog-Basis": str(basis)}
        return self.port.letter(self.message.reply, payload, headers)

    async def refuse(self, error: BaseException) -> None:
        """Answer with an error; one that is not ours is a defect and is logged."""
        known = as_natalog(error)
        if not self.mine and isinstance(known, (LeaseLost, Busy, Unavailable)):
            # that nothing was done here says nothing of another process, if there was one
            if self.claim is None or not await self.claim():
                self.answered = True
                return
            self.mine = True
        self._error = known
        if known is not error:
            log.error("%s failed", self.message.subject, exc_info=error)
        sentence = " ".join(known.message.split())
        headers = {
            "Content-Type": CONTENT_TYPES[self.kind],
            "Nats-Service-Error-Code": str(status_of(known)),
            "Nats-Service-Error": sentence.encode("utf-8", "replace").decode()[:HEADER_TEXT_MAX]
            or known.code,
        }
        await self._send(encode_error(self.kind, known), headers, done=True)

    def fail(self, error: NatalogError) -> None:
        """Answer with an error, without waiting for it to be sent."""
        if not self.answered:
            task = asyncio.get_running_loop().create_task(self.refuse(error))
            _SENDING.add(task)
            task.add_done_callback(_SENDING.discard)

    async def _send(self, payload: bytes, headers: dict[str, str], *, done: bool) -> None:
        """Publish the answer; `Busy` or `TooLarge` for a large one, unless all is ``done``."""
        if self.answered or not self.message.reply:
            self.answered = True
            return
        if self._door is not None and len(payload) > self.port.payload_room:
            self._door.parts.send(self.message.reply, payload, headers, done=done)
            self.answered = True
            return
        self.answered = True
        try:
            await self.port.publish(self.message.reply, payload, headers=headers)
        except NatalogError as error:
            log.warning("an answer on %s was lost: %s", self.message.subject, error.message)


_UNREAD: Final = object()
_SENDING: set[asyncio.Task[None]] = set()
"""Answers on their way; the loop itself keeps only weak references to tasks."""

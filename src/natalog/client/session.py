"""Requests of the contract over a transport: encode, send, retry where that is safe, decode."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from natalog.client.timeouts import Timeout
from natalog.client.transport import BASIS_HEADER, ERROR_HEADER, Reply, Transport
from natalog.core.codec import pack, unpack_own
from natalog.core.errors import (
    Busy,
    CodecError,
    CommitUnknown,
    DeadlineExceeded,
    Fenced,
    NatalogError,
    Unavailable,
    error_from_wire,
)
from natalog.core.limits import ASK_TIMEOUT_S

TIMEOUT_HEADER = "Natalog-Timeout-Ms"
CANCEL = "cancel"

RETRYABLE = (Busy, CommitUnknown, Fenced, Unavailable, DeadlineExceeded)
"""Errors after which the same request may be sent again, if applying it twice does no harm."""


class Repeat(NamedTuple):
    """How a request is sent again after errors that pass."""

    attempt_s: float
    """How long the first attempt waits for its answer; each later one waits twice as long."""
    unserved_s: float
    """How long to wait for somebody to serve the subject."""
    harmless: bool = True
    """Applied twice it does no harm; otherwise it is sent again only when nothing was done."""


ONCE = Repeat(attempt_s=float("inf"), unserved_s=0.5, harmless=False)
"""Something that must not happen twice."""
READ = Repeat(attempt_s=float("inf"), unserved_s=0.5)
"""A subject without subscribers may be one that a server of a cluster has not heard of yet."""
WRITE = Repeat(attempt_s=4.0, unserved_s=12.0)
"""A transaction with an id: also waits for a standby transactor to take over, which takes a second
or two after a kill, less than an attempt when one hangs, and longer while a cluster of NATS servers
chooses new leaders."""

_NIL_COUNTS = ("eid", "pattern")
_BACKOFF_MIN_S = 0.05
_BACKOFF_MAX_S = 1.0
_GRACE_S = 1.0


class Answer(NamedTuple):
    """A decoded answer and the transaction that it contains, when the service says so."""

    body: Any
    basis: int | None


class Session:
    """What the client's classes share: the transport, the subject prefix and the timeouts."""

    def __init__(self, transport: Transport, prefix: str, timeout: Timeout) -> None:
        self.transport = transport
        self.prefix = prefix
        self.timeout = timeout

    def subject(self, database: str, branch: str, endpoint: str) -> str:
        return f"{self.prefix}.{database}.{branch}.{endpoint}"

    async def ask(
        self,
        subject: str,
        body: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        repeat: Repeat | None = None,
    ) -> Answer:
        """Send ``body``, return the answer, raise the error that the service describes.

        A request that nobody took, or that a full service refused, is sent again for a while.
        ``repeat``: it may be applied twice without harm, so that it is sent again after other
        errors that pass, too (a lost connection, a change of the transactor).
        """
        limit = self.timeout.request_s if timeout_s is None else timeout_s
        # nothing is said by leaving it out, except that nil is no entity
        payload = pack({k: v for k, v in body.items() if v is not None or k in _NIL_COUNTS})
        on_cancel = self._cancels(subject) if repeat is READ else None
        return await self._until(subject, payload, limit, repeat or ONCE, on_cancel)

    def _cancels(self, subject: str) -> Callable[[str], None]:
        """What tells the service that nobody waits for a read any more."""

        def cancel(reply: str) -> None:
            where = f"{subject.rpartition('.')[0]}.{CANCEL}"
            self.transport.tell(where, pack({"request_id": reply}))

        return cancel

    async def _once(
        self,
        subject: str,
        payload: bytes,
        limit_s: float,
        on_cancel: Callable[[str], None] | None = None,
    ) -> Answer:
        headers = None
        if limit_s != ASK_TIMEOUT_S:  # which the service takes for granted
            headers = {TIMEOUT_HEADER: str(max(1, int(limit_s * 1000)))}
        # the service gives up by itself and says why; the own clock is the second line of defence
        reply = await self.transport.request(
            subject, payload, limit_s + _GRACE_S, headers, on_cancel
        )
        return decode(reply)

    async def _until(
        self,
        subject: str,
        payload: bytes,
        limit_s: float,
        repeat: Repeat,
        on_cancel: Callable[[str], None] | None = None,
    ) -> Answer:
        began = time.monotonic()
        backoff = _BACKOFF_MIN_S
        attempt = repeat.attempt_s
        served = began
        left = limit_s
        while True:
            try:
                return await self._once(subject, payload, min(left, attempt), on_cancel)
            except RETRYABLE as error:
                if not (repeat.harmless or _undone(error)):
                    raise
                now = time.monotonic()
                hint = error.data.get("retry_after_ms")
                pause = max(backoff, hint / 1000 if isinstance(hint, (int, float)) else 0)
                pause *= 1 + random.random() / 2  # not all of them again at the same time
                if not _undelivered(error):
                    served = now
                elif now + pause - served >= repeat.unserved_s:
                    raise
                if now + pause - began >= limit_s:
                    raise
                if isinstance(error, DeadlineExceeded):
                    attempt *= 2
            await asyncio.sleep(pause)
            left = max(_BACKOFF_MIN_S, limit_s - (time.monotonic() - began))
            backoff = min(backoff * 2, _BACKOFF_MAX_S)


def _undelivered(error: NatalogError) -> bool:
    """Whether nobody was there to take the request."""
    return isinstance(error, Unavailable) and error.data.get("delivered") is False


def _undone(error: NatalogError) -> bool:
    """Whether a request certainly had no effect."""
    return isinstance(error, (Busy, Fenced)) or _undelivered(error)


def decode(reply: Reply) -> Answer:
    """The answer of a reply; raises what an error reply describes."""
    body = unpack_own(reply.data) if reply.data else None
    if ERROR_HEADER in reply.headers or "Nats-Service-Error-Code" in reply.headers:
        raise error_of(body, reply.headers.get(ERROR_HEADER, ""))
    basis = reply.headers.get(BASIS_HEADER)
    try:
        return Answer(body, int(basis) if basis else None)
    except ValueError:
        raise CodecError(f"the service sent basis {basis!r}", basis=basis) from None


def error_of(body: Any, sentence: str) -> NatalogError:
    """The error of an error body, or one made from the header's sentence when there is no body."""
    if isinstance(body, Mapping):
        return error_from_wire(dict(body))
    return NatalogError(sentence or "the service sent an error without saying which")

"""The way to NATS: one connection, requests with replies in parts, subscriptions.

nats-py sits behind this file.  Requests use an inbox of our own, because an answer larger than the
server's payload limit comes in several messages; each carries ``Natalog-Part: i/n``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import nats
import nats.errors
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from natalog.client.timeouts import Timeout
from natalog.core.errors import (
    CodecError,
    DeadlineExceeded,
    Forbidden,
    TooLarge,
    Unavailable,
)

PART_HEADER = "Natalog-Part"
BASIS_HEADER = "Natalog-Basis"
ERROR_HEADER = "Nats-Service-Error"

_HEADER_OVERHEAD_BYTES = 512
_PENDING_BYTES_MAX = 16 * 1024 * 1024
_PARTS_MAX = 100_000


class Reply(NamedTuple):
    """An answer, its parts joined."""

    data: bytes
    headers: Mapping[str, str]


class _Waiter:
    """One request that waits for its answer."""

    __slots__ = ("future", "parts")

    def __init__(self, future: asyncio.Future[Reply]) -> None:
        self.future = future
        self.parts: dict[int, bytes] = {}

    def take(self, msg: Msg) -> None:
        if self.future.done():
            return
        headers: Mapping[str, str] = msg.headers or {}
        part = headers.get(PART_HEADER)
        if part is None:
            self.future.set_result(Reply(msg.data, headers))
            return
        try:
            number, total = map(int, part.split("/"))
        except ValueError:
            number = total = 0
        if not 1 <= number <= total <= _PARTS_MAX:
            self.future.set_exception(
                CodecError(f"the service sent part {part!r}, which is no i/n", part=part)
            )
            return
        self.parts[number] = msg.data
        if len(self.parts) == total:
            data = b"".join(self.parts[n] for n in range(1, total + 1))
            self.future.set_result(Reply(data, headers))


class Transport:
    """One connection to NATS.  Make it with `Transport.open`; safe for one event loop only."""

    def __init__(self, timeout: Timeout) -> None:
        self.timeout = timeout
        self._nats = Nats()
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._waiting: dict[str, _Waiter] = {}
        self._tokens = itertools.count(1)
        self._last_error: Exception | None = None
        self._closed = False
        self._telling: set[asyncio.Task[None]] = set()
        self._connected = asyncio.Event()
        self.on_close: set[Callable[[], None]] = set()
        """Called once when the connection is closed for good."""

    @classmethod
    async def open(
        cls, url: str | list[str], timeout: Timeout, *, name: str = "natalog", **options: Any
    ) -> Transport:
        """Connect; `Unavailable` with the reason when no server answers within the timeout.

        Once connected, a lost connection is taken up again without end.  ``options`` go to
        nats-py (``user``, ``password``, ``token``, ``user_credentials``, ``nkeys_seed``, ``tls``).
        """
        self = cls(timeout)
        servers = [url] if isinstance(url, str) else list(url)
        try:
            async with asyncio.timeout(timeout.connect_s):
                await self._nats.connect(
                    servers=servers,
                    name=name,
                    connect_timeout=timeout.connect_s,  # type: ignore[arg-type]
                    # nats-py would try a dead address sixty times; the first connection must fail
                    # at once, and only afterwards is it worth to try without end
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0.05,  # type: ignore[arg-type]
                    ping_interval=15,
                    max_outstanding_pings=2,
                    pending_size=_PENDING_BYTES_MAX,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                    closed_cb=self._on_disconnect,
                    **options,
                )
        except (OSError, nats.errors.Error, TimeoutError, ValueError) as error:
            await self._abandon()
            reason = self._last_error or error
            kind = Forbidden if isinstance(reason, nats.errors.AuthorizationError) else Unavailable
            raise kind(
                f"cannot connect to NATS at {', '.join(servers)}: {_reason(reason)}",
                servers=servers,
            ) from None
        self._nats.options["max_reconnect_attempts"] = -1
        self._nats.options["reconnect_time_wait"] = 0.2
        self._last_error = None
        self._connected.set()
        await self._nats.subscribe(
            f"{self._inbox}.*", cb=self._on_reply, pending_msgs_limit=0, pending_bytes_limit=0
        )
        return self

    # --- use ---------------------------------------------------------------------------------

    async def request(
        self,
        subject: str,
        payload: bytes,
        timeout_s: float,
        headers: dict[str, str] | None = None,
        on_cancel: Callable[[str], None] | None = None,
    ) -> Reply:
        """Send a request and wait for the whole answer.

        `Unavailable` when nobody serves the subject or the connection breaks while waiting
        (``data["delivered"]`` says whether it may have arrived), `DeadlineExceeded` after
        ``timeout_s``, `TooLarge` before sending more than the server takes.  ``on_cancel`` is told
        the reply subject when the caller stops waiting.
        """
        self._check(subject, len(payload))
        token = str(next(self._tokens))
        waiter = _Waiter(asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(timeout_s):
                if not self._nats.is_connected:
                    # nats-py would keep the message and send it when its sender has given up
                    await self._connected.wait()
                self._waiting[token] = waiter
                await self._send(subject, payload, f"{self._inbox}.{token}", headers)
                reply = await waiter.future
        except TimeoutError:
            if not self._connected.is_set():
                raise Unavailable(
                    f"the connection to NATS has been down for {timeout_s:g} s",
                    subject=subject,
                    delivered=None if token in self._waiting else False,
                ) from None
            got = len(waiter.parts)
            raise DeadlineExceeded(
                f"no answer from {subject} within {timeout_s:g} s"
                + (f" ({got} parts of it came)" if got else ""),
                subject=subject,
                timeout_s=timeout_s,
            ) from None
        except asyncio.CancelledError:
            if on_cancel is not None:
                on_cancel(f"{self._inbox}.{token}")
            raise
        finally:
            self._waiting.pop(token, None)
        if reply.headers.get("Status") == "503" and not reply.data:
            raise Unavailable(
                f"nobody serves {subject}; is the natalog service running?",
                subject=subject,
                delivered=False,
            )
        return reply

    def tell(self, subject: str, payload: bytes) -> None:
        """Send a message some time soon; nobody hears of it when that fails."""
        task = asyncio.get_running_loop().create_task(self._told(subject, payload))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _told(self, subject: str, payload: bytes) -> None:
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._nats.publish(subject, payload)

    async def subscribe(
        self, subject: str, callback: Callable[[Msg], Awaitable[None]]
    ) -> Subscription:
        """Deliver messages of ``subject`` to ``callback``, which must not wait."""
        self._check(subject, 0)
        subscription = await self._nats.subscribe(
            subject, cb=callback, pending_msgs_limit=0, pending_bytes_limit=0
        )
        # a subscription counts once the server knows it: a message published by somebody else
        # after this point is delivered
        await self.flush()
        return subscription

    async def flush(self) -> None:
        """Wait until the server has seen everything sent so far."""
        try:
            async with asyncio.timeout(self.timeout.request_s):
                await self._nats.flush()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise Unavailable(f"the connection to NATS is down: {_reason(error)}") from None

    @property
    def nats(self) -> Nats:
        """The nats-py connection."""
        return self._nats

    @property
    def url(self) -> str:
        """The server that the connection goes to."""
        found = self._nats.connected_url
        return f"nats://{found.netloc.rpartition('@')[2]}" if found is not None else ""

    async def close(self) -> None:
        """Close the connection; requests that still wait hear `Unavailable`."""
        if not self._closed:
            self._closed = True
            self._connected.set()
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await self._nats.close()
            self._fail_waiting("the client was closed")
            for tell in list(self.on_close):
                tell()

    # --- inside --------------------------------------------------------------------------------

    async def _send(
        self, subject: str, payload: bytes, reply: str, headers: dict[str, str] | None
    ) -> None:
        try:
            await self._nats.publish(subject, payload, reply=reply, headers=headers)
        except nats.errors.MaxPayloadError:
            raise self._too_large(len(payload)) from None
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(
                f"the connection to NATS is down: {_reason(error)}", delivered=False
            ) from None

    def _check(self, subject: str, size: int) -> None:
        if self._closed or self._nats.is_closed:
            raise Unavailable("the client is closed", subject=subject, delivered=False)
        if size + _HEADER_OVERHEAD_BYTES > self._nats.max_payload > 0:
            # the server would end the connection for good instead of refusing the message
            raise self._too_large(size)

    def _too_large(self, size: int) -> TooLarge:
        limit = self._nats.max_payload
        return TooLarge(
            f"a request of {size} bytes exceeds the server's limit of {limit}",
            bytes=size,
            limit_bytes=limit,
        )

    async def _on_reply(self, msg: Msg) -> None:
        waiter = self._waiting.get(msg.subject.rpartition(".")[2])
        if waiter is not None:
            waiter.take(msg)

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error

    async def _on_reconnect(self) -> None:
        self._connected.set()

    async def _on_disconnect(self) -> None:
        self._connected.clear()
        self._fail_waiting("the connection to NATS was lost while waiting for the answer")

    def _fail_waiting(self, why: str) -> None:
        for waiter in self._waiting.values():
            if not waiter.future.done():
                waiter.future.set_exception(Unavailable(why, delivered=None))

    async def _abandon(self) -> None:
        self._closed = True
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1):
                await self._nats.close()


def _reason(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in text:
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, nats.errors.NoServersError):
        return "no server answers"
    return text.removeprefix("nats: ") or type(error).__name__

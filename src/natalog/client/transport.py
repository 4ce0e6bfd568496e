"""The way to NATS: one connection, requests with replies in parts, subscriptions.

nats-py sits behind this file.  Requests use an inbox of our own, because an answer larger than the
server's payload limit comes in several messages; each carries ``Natalog-Part: i/n``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from natalog.client.timeouts import Timeout
from natalog.connection.access import Access, check_prefix, shown_url
from natalog.connection.client import NatsClient, Violation
from natalog.core.codec import pack
from natalog.core.errors import (
    CodecError,
    DeadlineExceeded,
    Forbidden,
    NatalogError,
    TooLarge,
    Unavailable,
)

DEFAULT_INBOX = "_INBOX"
JS_API = "$JS.API"
PART_HEADER = "Natalog-Part"
MORE_HEADER = "Natalog-More"
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

    __slots__ = ("future", "parts", "subject")

    def __init__(self, future: asyncio.Future[Reply], subject: str) -> None:
        self.future = future
        self.subject = subject
        self.parts: dict[int, bytes] = {}

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

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


class Channel:
    """A reply subject for several messages, as a pull from a stream answers; close it after use."""

    __slots__ = ("_queue", "_subscription", "_token", "_transport", "reply", "subject")

    def __init__(self, transport: Transport, reply: str, token: str) -> None:
        self.reply = reply
        self.subject = ""
        self._transport = transport
        self._token = token
        self._queue: asyncio.Queue[Msg | NatalogError] = asyncio.Queue()
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        # what a stream delivers carries the subject that it was stored under: only a subscription
        # of its own tells whose it is
        self._subscription = await self._transport.nats.listen(self.reply, self._on_message)

    async def send(self, subject: str, payload: bytes) -> None:
        """Ask for messages; `Unavailable`, `TooLarge`."""
        self.subject = subject
        await self._transport.publish(subject, payload, self.reply)

    async def receive(self, timeout_s: float) -> Msg:
        """The next message.

        Raises TimeoutError; `Forbidden` when the server did not let us ask, `Unavailable` when the
        connection was lost.
        """
        async with asyncio.timeout(timeout_s):
            found = await self._queue.get()
        if isinstance(found, NatalogError):
            raise found
        return found

    async def close(self) -> None:
        self._transport.forget(self._token)
        if self._subscription is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._subscription.unsubscribe()

    def _on_message(self, msg: Msg) -> None:
        self._queue.put_nowait(msg)

    def take(self, msg: Msg) -> None:
        """Replies of the other kind go to requests."""

    def fail(self, error: NatalogError) -> None:
        self._queue.put_nowait(error)


class JetStreamRefused(Unavailable):
    """JetStream answered an error; ``err_code`` is its number."""

    code = "Unavailable"

    def __init__(self, what: str, error: Mapping[str, Any]) -> None:
        self.err_code = int(error.get("err_code", 0))
        super().__init__(
            f"JetStream refused {what}: {error.get('description', 'no reason given')}",
            err_code=self.err_code,
        )


class Transport:
    """One connection to NATS.  Make it with `Transport.open`; safe for one event loop only."""

    def __init__(self, client: NatsClient, timeout: Timeout, inbox_prefix: str) -> None:
        self.timeout = timeout
        self.js_api_prefix = JS_API
        self._nats = client
        self._nats.on_violation.append(self._on_violation)
        self._inbox = f"{inbox_prefix}.{secrets.token_hex(11)}"
        self._forbidden: set[str] = set()
        self._denied: dict[str, Callable[[NatalogError], None]] = {}
        self._waiting: dict[str, _Waiter | Channel] = {}
        self._tokens = itertools.count(1)
        self._last_error: Exception | None = None
        self._closed = False
        self._telling: set[asyncio.Task[None]] = set()
        self._connected = asyncio.Event()
        self.on_close: set[Callable[[], None]] = set()
        """Called once when the connection is closed for good."""

    @classmethod
    async def open(
        cls,
        url: str | list[str],
        timeout: Timeout,
        *,
        name: str = "natalog",
        access: Access | None = None,
        **options: Any,
    ) -> Transport:
        """Connect; `Unavailable` with the reason when no server answers within the timeout,
        `Forbidden` when none lets us in.

        Once connected, a lost connection is taken up again without end.  ``options`` go to nats-py
        as they are.
        """
        access = access or Access()
        servers = [url] if isinstance(url, str) else list(url)
        options = {**access.options(), **options}
        prefix = check_prefix(options.get("inbox_prefix", DEFAULT_INBOX), "inbox prefix")
        self = cls(NatsClient(servers), timeout, prefix)
        self.js_api_prefix = access.js_api_prefix or JS_API
        self._nats.tls_required |= access.wants_tls
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
                    # prefixes and names are checked where they come in
                    skip_subject_validation=True,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                    closed_cb=self._on_disconnect,
                    **options,
                )
        except (OSError, nats.errors.Error, TimeoutError, ValueError) as error:
            await self._abandon()
            reason = self._last_error or error
            shown = [shown_url(server) for server in servers]
            kind = Forbidden if "authorization violation" in str(reason).lower() else Unavailable
            raise kind(
                f"cannot connect to NATS at {', '.join(shown)}: {_reason(reason)}", servers=shown
            ) from None
        self._nats.options["max_reconnect_attempts"] = -1
        self._nats.options["reconnect_time_wait"] = 0.2
        self._last_error = None
        self._connected.set()
        try:
            await self.subscribe(f"{self._inbox}.*", self._on_reply)
        except NatalogError as error:
            await self._abandon()
            if isinstance(error, Forbidden):
                raise Forbidden(
                    f"NATS lets this user receive no answers on {prefix}; name the inbox_prefix "
                    "that it may use",
                    inbox_prefix=prefix,
                ) from None
            raise
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

        `Forbidden` when NATS does not let us ask, `Unavailable` when nobody serves the subject or
        the connection breaks while waiting (``data["delivered"]`` says whether it may have
        arrived), `DeadlineExceeded` after ``timeout_s``, `TooLarge` before sending more than the
        server takes.  ``on_cancel`` is told the reply subject when the caller stops waiting.
        """
        self._check(subject, len(payload))
        token = str(next(self._tokens))
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiter = _Waiter(loop.create_future(), subject)
        timer: asyncio.TimerHandle | None = None
        try:
            if not self._nats.is_connected or self._nats.busy:
                async with asyncio.timeout(timeout_s):
                    # nats-py would keep the message and send it when its sender has given up
                    await self._connected.wait()
                    self._waiting[token] = waiter
                    await self._send(subject, payload, f"{self._inbox}.{token}", headers)
            else:
                self._waiting[token] = waiter
                await self._send(subject, payload, f"{self._inbox}.{token}", headers)
            timer = loop.call_at(began + timeout_s, waiter.fail, TimeoutError())
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
            if timer is not None:
                timer.cancel()
            self._waiting.pop(token, None)
        if reply.headers.get("Status") == "503" and not reply.data:
            raise Unavailable(
                f"nobody serves {subject}; is the natalog service running?",
                subject=subject,
                delivered=False,
            )
        return reply

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Send a message; `Unavailable`, `TooLarge`.  What NATS forbids is not heard here."""
        self._check(subject, len(payload))
        await self._send(subject, payload, reply, None)

    async def channel(self) -> Channel:
        """A reply subject for several messages."""
        token = f"c{next(self._tokens)}"
        made = Channel(self, f"{self._inbox}.several.{token}", token)
        await made.open()
        self._waiting[token] = made
        return made

    def forget(self, token: str) -> None:
        """Let a channel go."""
        self._waiting.pop(token, None)

    async def api(
        self, what: str, body: Mapping[str, Any] | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Call ``$JS.API.<what>``; `JetStreamRefused` when it answers an error, `Forbidden` when
        we may not call it."""
        payload = b"" if body is None else json.dumps(body).encode()
        limit = self.timeout.request_s if timeout_s is None else timeout_s
        reply = await self.request(f"{self.js_api_prefix}.{what}", payload, limit)
        try:
            answer = json.loads(reply.data)
        except ValueError:
            raise CodecError(f"JetStream answered {what} with no JSON") from None
        if answer.get("error"):
            raise JetStreamRefused(what.partition(".")[0], answer["error"])
        return dict(answer)

    def tell(self, subject: str, payload: bytes) -> None:
        """Send a message some time soon; nobody hears of it when that fails."""
        task = asyncio.get_running_loop().create_task(self._told(subject, payload))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _told(self, subject: str, payload: bytes) -> None:
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._nats.publish(subject, payload)

    async def subscribe(
        self,
        subject: str,
        callback: Callable[[Msg], Awaitable[None] | None],
        denied: Callable[[NatalogError], None] | None = None,
    ) -> Subscription:
        """Deliver messages of ``subject`` to ``callback``, in order.

        A plain function must not wait and hears a message as it is read; a coroutine function hears
        it in a task.

        `Forbidden` when NATS does not let us listen.  ``denied`` hears it when that is so later,
        at a new connection.
        """
        self._check(subject, 0)
        self._forbidden.discard(subject)
        if asyncio.iscoroutinefunction(callback):
            subscription = await self._nats.subscribe(
                subject, cb=callback, pending_msgs_limit=0, pending_bytes_limit=0
            )
        else:
            subscription = await self._nats.listen(subject, callback)
        # a subscription counts once the server knows it: a message published by somebody else
        # after this point is delivered
        await self.flush()
        if subject in self._forbidden:
            self._forbidden.discard(subject)
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()
            raise forbidden(Violation("subscribe", subject))
        if denied is not None:
            self._denied[subject] = denied
        return subscription

    async def flush(self) -> None:
        """Wait until the server has seen everything sent so far."""
        try:
            async with asyncio.timeout(self.timeout.request_s):
                await asyncio.sleep(0)  # nats-py sends the ping of a flush before what waits
                await self._nats.flush()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise Unavailable(f"the connection to NATS is down: {_reason(error)}") from None

    @property
    def nats(self) -> NatsClient:
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

    def _on_reply(self, msg: Msg) -> None:
        waiter = self._waiting.get(msg.subject.rpartition(".")[2])
        if waiter is None:
            return
        waiter.take(msg)
        more = (msg.headers or {}).get(MORE_HEADER)
        if more is not None:  # the service sends the next parts when it knows that we have these
            where = f"{waiter.subject.rpartition('.')[0]}.more"
            self.tell(where, pack({"id": more, "part": (msg.headers or {}).get(PART_HEADER)}))

    async def _on_error(self, error: Exception) -> None:
        if not isinstance(self._last_error, nats.errors.Error):  # what a server says tells most
            self._last_error = error

    def _on_violation(self, violation: Violation) -> None:
        """The server names no call, but its subject: what waits for that will wait in vain."""
        error = forbidden(violation)
        answers = violation.subject == f"{self._inbox}.*"
        if violation.verb == "subscribe":
            self._forbidden.add(violation.subject)
            tell = self._denied.pop(violation.subject, None)
            if tell is not None:
                tell(error)
        for waiter in self._waiting.values():
            if answers or (violation.verb == "publish" and waiter.subject == violation.subject):
                waiter.fail(error)

    async def _on_reconnect(self) -> None:
        self._connected.set()

    async def _on_disconnect(self) -> None:
        self._connected.clear()
        self._fail_waiting("the connection to NATS was lost while waiting for the answer")

    def _fail_waiting(self, why: str) -> None:
        for waiter in self._waiting.values():
            waiter.fail(Unavailable(why, delivered=None))

    async def _abandon(self) -> None:
        self._closed = True
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1):
                await self._nats.close()


def forbidden(violation: Violation) -> Forbidden:
    """The error for something that NATS did not allow."""
    what = "publish to" if violation.verb == "publish" else "subscribe to"
    return Forbidden(
        f"NATS does not let this user {what} {violation.subject}",
        subject=violation.subject,
        verb=violation.verb,
    )


def _reason(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or type(error).__name__}"
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in text:
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, nats.errors.NoServersError):
        return "no server answers"
    if "authorization violation" in text.lower():
        return "it does not know this user, password or key"
    return re.sub(r"^\[Errno -?\d+\] ", "", text.removeprefix("nats: ")) or type(error).__name__

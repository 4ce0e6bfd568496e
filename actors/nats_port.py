"""The one way to NATS: connect and supervise, publish, request, JetStream's JSON API, append.

nats-py sits behind this file.  What it is kept from doing: closing its connection because of a
message above ``max_payload`` (sizes are checked here, headers included), waiting a full time-out
for an answer that a broken connection has swallowed, and running slow callbacks in its read loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import uuid4

import anyio
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from natalog.actors.alertness import Alertness
from natalog.actors.nats_answers import (
    CLUSTER_NOT_READY,
    CONSUMER_NOT_FOUND,
    NO_MESSAGE,
    STORE_NOT_CREATED,
    STREAM_NAME_IN_USE,
    STREAM_NOT_FOUND,
    WRONG_LAST_SEQUENCE,
    Deleted,
    JetStreamError,
    Letter,
    PubAck,
    check_answer,
    seconds,
    translate,
)
from natalog.connection.access import Access, shown_url
from natalog.connection.client import NatsClient, Violation
from natalog.core.errors import DeadlineExceeded, Forbidden, NatalogError, TooLarge, Unavailable

log = logging.getLogger("natalog.nats")

CONNECT_TIMEOUT_S = 10.0
API_TIMEOUT_S = 5.0
DRAIN_S = 1.0
ATTEMPT_S = 1.0
_REPEATABLE = ("INFO", "STREAM.INFO", "STREAM.LIST", "STREAM.NAMES", "STREAM.MSG.GET")
PENDING_BYTES_MAX = 64 * 1024 * 1024
PROTOCOL_SLACK_BYTES = 4096
"""Kept free below ``max_payload`` for the header lines that the server counts."""

CLUSTER_PAUSE_S = 0.2
STREAM_CREATE_ATTEMPTS_MAX = 6
T = TypeVar("T")
Message = Msg
Handler = Callable[[Msg], None]


class NatsPort:
    """One connection.  Use `connect`, then the verbs, then `close`.

    ``replicated``: streams have copies on several servers of a cluster.
    """

    def __init__(self, client: NatsClient) -> None:
        self._client = client
        client.on_violation.append(self._on_violation)
        self._in_flight: dict[asyncio.Future[Any], str] = {}
        self._unanswered: Forbidden | None = None
        self._deaf: dict[str, Forbidden] = {}
        self.on_forbidden: list[Callable[[Violation], None]] = []
        self._connected = asyncio.Event()
        self._connected.set()
        self.closed = asyncio.Event()
        self.replicated = False
        self.alertness = Alertness(0)
        """How long the process stays awake for what comes in a moment."""
        self.disconnects = 0
        self.reconnects = 0
        self.errors = 0
        self._last_error: Exception | None = None
        self._closer: asyncio.Task[Any] | None = None
        self.on_reconnect: list[Callable[[], None]] = []

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        name: str = "natalog",
        access: Access | None = None,
        replicated: bool = False,
    ) -> NatsPort:
        """Connect to ``url``.

        Raises `Unavailable` when nobody answers there, `Forbidden` when it does not let us in,
        `InvalidConfig` for files of ``access`` that cannot be used.
        """
        access = access or Access()
        options = access.options()
        servers = [one.strip() for one in url.split(",")]
        client = NatsClient(servers)
        client.tls_required |= access.wants_tls
        port = cls(client)
        port.replicated = replicated
        try:
            with anyio.fail_after(CONNECT_TIMEOUT_S):
                await client.connect(
                    servers=servers,
                    name=name,
                    # the first connection must fail at once; later ones are tried without end
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0.05,  # type: ignore[arg-type]
                    connect_timeout=2,
                    ping_interval=15,
                    max_outstanding_pings=2,
                    pending_size=PENDING_BYTES_MAX,
                    drain_timeout=2,
                    allow_reconnect=True,
                    # names are checked where they come in, reply subjects by the protocol itself
                    skip_subject_validation=True,
                    error_cb=port._on_error,
                    disconnected_cb=port._on_disconnect,
                    reconnected_cb=port._on_reconnect,
                    closed_cb=port._on_closed,
                    **options,
                )
        except (TimeoutError, OSError, NatsError, ValueError) as error:
            await _quietly(client.close)
            shown = ", ".join(map(shown_url, servers))
            reason = str(port._last_error or error).strip().removeprefix("nats: ")
            if "authorization violation" in reason.lower():
                raise Forbidden(
                    f"The NATS server at {shown} does not let us in.", url=shown
                ) from None
            raise Unavailable(
                f"No NATS server answers at {shown}" + (f": {reason}." if reason else "."),
                url=shown,
            ) from None
        client.options["max_reconnect_attempts"] = -1
        client.options["reconnect_time_wait"] = 0.1
        return port

    # --- supervision -------------------------------------------------------------------------

    @property
    def max_payload(self) -> int:
        return int(self._client.max_payload)

    @property
    def payload_room(self) -> int:
        """Bytes of payload that certainly fit one message."""
        return self.max_payload - PROTOCOL_SLACK_BYTES

    @property
    def is_connected(self) -> bool:
        return bool(self._client.is_connected)

    @property
    def traffic(self) -> Mapping[str, int]:
        """``in_msgs``, ``out_msgs``, ``in_bytes`` and ``out_bytes`` so far."""
        return self._client.stats

    @property
    def url(self) -> str:
        connected = self._client.connected_url
        return "" if connected is None else shown_url(str(connected.geturl()))

    async def wait_connected(self) -> None:
        """Wait until the connection is up."""
        await self._connected.wait()

    async def _on_error(self, error: Exception) -> None:
        if self._closer not in (None, asyncio.current_task()):
            # before Python 3.12 a cancellation can get lost in nats-py's attempts to reconnect,
            # which then go on for ever on a closed connection
            raise asyncio.CancelledError
        self.errors += 1
        if not isinstance(self._last_error, NatsError):  # what a server says tells most
            self._last_error = error
        log.warning("nats: %s", str(error).removeprefix("nats: ") or type(error).__name__)

    def _on_violation(self, violation: Violation) -> None:
        """The server names no call, but its subject: what waits for that would wait in vain."""
        error = Forbidden(
            f"NATS does not let the service {violation.verb} {violation.subject}.",
            subject=violation.subject,
            verb=violation.verb,
        )
        if violation.verb == "publish":
            for future, subject in self._in_flight.items():
                if subject == violation.subject:
                    _fail(future, error)
        elif violation.subject.startswith(self._client.answers_prefix or "\0"):
            self._unanswered = error
            for future in self._in_flight:
                _fail(future, error)
        else:
            self._deaf[violation.subject] = error
        for tell in list(self.on_forbidden):
            tell(violation)

    def check_subscription(self, subscription: Subscription) -> None:
        """Raise `Forbidden` when the server has refused it.

        It has by the time of any answer to a request that was sent after `subscribe`.
        """
        error = self._deaf.get(subscription.subject)
        if error is not None:
            raise error

    async def _on_disconnect(self) -> None:
        self.disconnects += 1
        self._connected.clear()
        self._unanswered = None  # what we may do is decided anew
        self._deaf.clear()
        self._give_up()
        if self._closer is None and not self.closed.is_set():
            log.warning("nats: disconnected")

    async def _on_reconnect(self) -> None:
        log.info("nats: connected again")
        self.reconnects += 1
        self._connected.set()
        for hook in self.on_reconnect:
            hook()

    async def _on_closed(self) -> None:
        self._connected.clear()
        self.closed.set()
        self._give_up()

    def _give_up(self) -> None:
        """An answer to what is in flight may never come: who waits finds out now."""
        for future, subject in self._in_flight.items():
            error = DeadlineExceeded(
                f"The connection broke while waiting for {subject}.",
                subject=subject,
                disconnected=True,
            )
            _fail(future, error)

    async def close(self) -> None:
        """Send what waits and close the connection."""
        self._closer = asyncio.current_task()
        with anyio.CancelScope(shield=True), anyio.move_on_after(3):
            if self.is_connected:
                await asyncio.sleep(0)
                await _quietly(self._client.flush, 1)
            await _quietly(self._client.close)

    # --- core NATS ---------------------------------------------------------------------------

    def check_size(self, payload: bytes, headers: Mapping[str, str] | None) -> None:
        """Raise `TooLarge` when the server would refuse the message, and close the connection."""
        size = len(payload)
        if size + PROTOCOL_SLACK_BYTES < self.max_payload and (
            not headers or 4 * sum(map(len, headers.values())) < PROTOCOL_SLACK_BYTES // 2
        ):
            return  # names of headers are short
        if headers:
            size += 16 + sum(len(k.encode()) + len(v.encode()) + 4 for k, v in headers.items())
        if size > self.max_payload:
            raise TooLarge(
                f"The message has {size} bytes; the NATS server takes {self.max_payload}.",
                bytes=size,
                bytes_max=self.max_payload,
            )

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        reply: str = "",
    ) -> None:
        """Publish once, without a receipt."""
        self.check_size(payload, headers)
        try:
            await self._client.publish(
                subject, payload, reply=reply, headers=None if headers is None else dict(headers)
            )
        except (NatsError, OSError) as error:
            raise translate(error, subject) from error

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = API_TIMEOUT_S,
    ) -> Msg:
        """Request and wait for one reply.

        Raises `DeadlineExceeded` after ``timeout_s`` or, earlier, when the connection breaks while
        waiting (what was asked may have happened), `Unavailable` when nobody listens, `Forbidden`
        when NATS does not let us ask.
        """
        return await self._asked(subject, payload, headers, timeout_s, lambda message: message)

    async def _asked(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        timeout_s: float,
        hear: Callable[[Msg], T],
        sent: Callable[[], None] | None = None,
        shielded: bool = False,
    ) -> T:
        """What ``hear`` makes of the answer while it is read; ``sent`` is called meanwhile.

        Raises as `request`, and what ``hear`` raises.
        """
        self.check_size(payload, headers)
        if self._unanswered is not None:
            raise self._unanswered
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def answered(message: Msg) -> None:
            if future.done():
                return
            try:
                if message.headers and message.headers.get("Status") == "503":
                    raise NoRespondersError
                future.set_result(hear(message))
            except Exception as error:
                future.set_exception(error)

        token = ""
        self._in_flight[future] = subject
        timer = loop.call_later(timeout_s, _fail, future, NatsTimeoutError())
        try:
            await self._client.asking()
            token = self._client.ask(subject, payload, headers, answered)
            if sent is not None:
                sent()
            if shielded:
                with anyio.CancelScope(shield=True):
                    return await future
            return await future
        except (NatsError, OSError) as error:
            raise translate(error, subject) from error
        finally:
            timer.cancel()
            del self._in_flight[future]
            self._client.forget(token)

    def letter(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None
    ) -> Letter:
        """A message that is ready for `send`; `TooLarge`."""
        self.check_size(payload, headers)
        return Letter(self._client.frame(subject, payload, "", headers), len(payload))

    def send(self, letters: Sequence[Letter]) -> None:
        """Publish small messages together, at once and without waiting; `Unavailable`."""
        try:
            size = sum(letter.size for letter in letters)
            self._client.send([letter.frame for letter in letters], size, now=True)
        except (NatsError, OSError) as error:
            raise translate(error, "several subjects") from error

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call ``handler`` with every message; it must only note the message and return."""

        def on_message(message: Msg) -> None:
            try:
                handler(message)
            except Exception:
                log.exception("the handler of %s failed", subject)

        try:
            self._deaf.pop(subject, None)
            return await self._client.listen(subject, on_message, queue)
        except (NatsError, OSError) as error:
            raise translate(error, subject) from error

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription, also when the connection is gone."""
        await _quietly(subscription.unsubscribe)

    async def drain(self, subscriptions: Iterable[Subscription]) -> None:
        """End subscriptions once the handler has had all that was sent on them.

        nats-py's own way to do this asks the server too early and may drop a message.
        """
        ending = list(subscriptions)
        with anyio.move_on_after(DRAIN_S):
            try:
                for subscription in ending:
                    await self._client._send_unsubscribe(subscription._id)
                await self.api("INFO", timeout_s=DRAIN_S)
                for subscription in ending:
                    await subscription._pending_queue.join()
            except (NatalogError, NatsError, OSError) as error:
                log.info("subscriptions ended without a farewell: %s", error)
        for subscription in ending:
            await self.unsubscribe(subscription)

    def inbox(self) -> str:
        """A subject of our own to receive on."""
        return self._client.new_inbox()

    # --- JetStream ---------------------------------------------------------------------------

    async def api(
        self, what: str, body: Mapping[str, Any] | None = None, timeout_s: float = API_TIMEOUT_S
    ) -> dict[str, Any]:
        """Call ``$JS.API.<what>``; raises `JetStreamError` when it answers an error."""
        payload = b"" if body is None else json.dumps(body).encode()
        subject = f"$JS.API.{what}"
        deadline = anyio.current_time() + timeout_s
        while True:
            left = max(ATTEMPT_S, deadline - anyio.current_time())
            if what.startswith(_REPEATABLE):
                message = await self._ask_again(subject, payload, left)
            else:
                message = await self.request(subject, payload, timeout_s=left)
            answer: dict[str, Any] = json.loads(message.data)
            try:
                check_answer(answer, what)
                return answer
            except JetStreamError as error:
                # a cluster that is choosing its leader has done nothing
                if error.err_code != CLUSTER_NOT_READY or left <= ATTEMPT_S:
                    raise
            await asyncio.sleep(CLUSTER_PAUSE_S)

    async def _ask_again(self, subject: str, payload: bytes, timeout_s: float) -> Msg:
        """A request that changes nothing, sent again while no answer comes.

        A server that is starting takes requests before its JetStream can answer, and forgets them.
        """
        deadline = anyio.current_time() + timeout_s
        while True:
            left = deadline - anyio.current_time()
            try:
                return await self.request(
                    subject, payload, timeout_s=max(0.05, min(left, ATTEMPT_S))
                )
            except DeadlineExceeded:
                if left <= ATTEMPT_S:
                    raise
                with anyio.move_on_after(left):
                    await self.wait_connected()

    async def stream_create(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Create a stream; the same configuration again is no error.

        The server removes directories that a deletion left empty while it makes new ones, and then
        refuses a creation that crossed it; a moment later it succeeds.
        """
        for attempt in range(STREAM_CREATE_ATTEMPTS_MAX):
            try:
                return await self.api(f"STREAM.CREATE.{config['name']}", config, timeout_s=15)
            except JetStreamError as error:
                if error.err_code != STORE_NOT_CREATED or attempt + 1 == STREAM_CREATE_ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(0.02 * 2**attempt)
        raise AssertionError("unreachable")

    async def stream_info(self, name: str) -> dict[str, Any] | None:
        """Configuration and state of a stream, None without one."""
        try:
            return await self.api(f"STREAM.INFO.{name}")
        except JetStreamError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return None
            raise

    async def notice_copies(self, name: str) -> int:
        """How many copies a stream has; several make this port read as a cluster needs it."""
        info = await self.stream_info(name)
        copies = 1 if info is None else int(info["config"].get("num_replicas") or 1)
        self.replicated = self.replicated or copies > 1
        return copies

    async def stream_delete(self, name: str) -> bool:
        """Delete a stream with all its messages; False when there was none."""
        try:
            await self.api(f"STREAM.DELETE.{name}", timeout_s=15)
        except JetStreamError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return False
            raise
        return True

    async def streams(self, subject: str) -> list[dict[str, Any]]:
        """Information on every stream with a subject that overlaps ``subject``."""
        found: list[dict[str, Any]] = []
        while True:
            page = await self.api("STREAM.LIST", {"subject": subject, "offset": len(found)})
            streams = page.get("streams") or []
            found.extend(streams)
            if not streams or len(found) >= int(page.get("total", 0)):
                return found

    async def stream_names(self, subject: str) -> list[str]:
        """The names of every stream with a subject that overlaps ``subject``."""
        found: list[str] = []
        while True:
            page = await self.api("STREAM.NAMES", {"subject": subject, "offset": len(found)})
            names = page.get("streams") or []
            found.extend(map(str, names))
            if not names or len(found) >= int(page.get("total", 0)):
                return found

    async def subjects(self, stream: str, pattern: str) -> list[str]:
        """The subjects of a stream's messages that match ``pattern``."""
        found: dict[str, Any] = {}
        while True:
            body = {"subjects_filter": pattern, "offset": len(found)}
            page = await self.api(f"STREAM.INFO.{stream}", body)
            subjects = page["state"].get("subjects") or {}
            found.update(subjects)
            if not subjects or len(found) >= int(page.get("total", 0)):
                return sorted(found)

    async def append(
        self,
        subject: str,
        payload: bytes,
        *,
        expected_last: int | None = None,
        expected_last_of_subject: int | None = None,
        message_id: str | None = None,
        stream: str | None = None,
        ttl_s: int | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = API_TIMEOUT_S,
        sent: Callable[[], None] | None = None,
        stored: Callable[[], None] | None = None,
        shielded: bool = False,
    ) -> PubAck:
        """Publish into a stream and wait for its receipt.  ``headers``: further ones, to be stored.

        ``expected_last`` makes it a compare-and-set on the stream's last sequence: `JetStreamError`
        with ``WRONG_LAST_SEQUENCE`` when somebody else has appended; ``expected_last_of_subject``
        on the last sequence of the subject, 0 for none.  ``ttl_s``: whole seconds after which the
        server drops the message.  ``sent`` is called while the message is on its way, ``stored``
        while its receipt is read.  ``shielded``: a cancellation waits for the receipt.
        `DeadlineExceeded` means that the outcome is unknown.
        """
        said = dict(headers or {})
        if expected_last is not None:
            said["Nats-Expected-Last-Sequence"] = str(expected_last)
        if expected_last_of_subject is not None:
            said["Nats-Expected-Last-Subject-Sequence"] = str(expected_last_of_subject)
        if message_id is not None:
            said["Nats-Msg-Id"] = message_id
        if stream is not None:
            said["Nats-Expected-Stream"] = stream
        if ttl_s is not None:
            said["Nats-TTL"] = str(ttl_s)
        usual = b""
        if expected_last is not None and stream is not None:
            usual = b'{"stream":"%b","seq":%d}' % (stream.encode(), expected_last + 1)

        def receive(message: Msg) -> PubAck:
            if stored is not None and message.data == usual:
                stored()
                return PubAck(str(stream), int(expected_last or 0) + 1, False)
            answer = json.loads(message.data)
            check_answer(answer, subject)
            if stored is not None:
                stored()
            duplicate = bool(answer.get("duplicate", False))
            return PubAck(str(answer["stream"]), int(answer["seq"]), duplicate)

        return await self._asked(subject, payload, said or None, timeout_s, receive, sent, shielded)

    async def append_all(
        self, messages: Sequence[tuple[str, bytes]], *, timeout_s: float = API_TIMEOUT_S
    ) -> PubAck:
        """Publish messages into a stream that allows it: all of them are stored, or none.

        The server syncs them once.  At most 1,000.  Raises as `append`; after `DeadlineExceeded`
        the outcome is unknown.
        """
        ident = uuid4().hex
        *before, (subject, payload) = messages
        for number, (other, data) in enumerate(before, 1):
            headers = {"Nats-Batch-Id": ident, "Nats-Batch-Sequence": str(number)}
            await self.publish(other, data, headers=headers)
        headers = {
            "Nats-Batch-Id": ident,
            "Nats-Batch-Sequence": str(len(messages)),
            "Nats-Batch-Commit": "1",
        }
        message = await self.request(subject, payload, headers=headers, timeout_s=timeout_s)
        answer = json.loads(message.data)
        check_answer(answer, subject)
        return PubAck(str(answer["stream"]), int(answer["seq"]), False)

    async def read(
        self, stream: str, *, seq: int | None = None, last_by_subject: str | None = None
    ) -> Msg | None:
        """One stored message, None when it is not there.

        Its headers carry ``Nats-Sequence``.  Any server that has a copy of the stream may answer a
        direct get, also one that lags behind; on a cluster the leader is asked.
        """
        query: dict[str, Any]
        if last_by_subject is not None:
            query = {"last_by_subj": last_by_subject}
        else:
            query = {"seq": seq}
        if self.replicated:
            return await self._read_leader(stream, query)
        subject = f"$JS.API.DIRECT.GET.{stream}"
        message = await self._ask_again(subject, json.dumps(query).encode(), API_TIMEOUT_S)
        status = (message.headers or {}).get("Status")
        if status == "404":
            return None
        if status is not None:
            raise JetStreamError(
                f"Reading from {stream} failed: status {status}.", status=int(status)
            )
        return message

    async def _read_leader(self, stream: str, query: Mapping[str, Any]) -> Msg | None:
        try:
            found = (await self.api(f"STREAM.MSG.GET.{stream}", query))["message"]
        except JetStreamError as error:
            if error.err_code == NO_MESSAGE:
                return None
            if error.err_code == STREAM_NOT_FOUND:  # as a direct get says it
                raise Unavailable(f"There is no stream {stream}.", listening=False) from error
            raise
        lines = b64decode(found.get("hdrs", "")).decode().split("\r\n")[1:]
        headers = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
        headers.pop("", None)
        headers["Nats-Sequence"] = str(found["seq"])
        headers["Nats-Subject"] = str(found["subject"])
        headers["Nats-Time-Stamp"] = str(found["time"])
        return Msg(self._client, found["subject"], "", b64decode(found.get("data", "")), headers)

    async def deleted(self, stream: str) -> Deleted:
        """Which messages were removed from a stream; nothing without it."""
        try:
            info = await self.api(f"STREAM.INFO.{stream}", {"deleted_details": True})
        except JetStreamError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return Deleted(1, frozenset())
            raise
        state = info["state"]
        return Deleted(int(state["first_seq"]), frozenset(state.get("deleted") or ()))

    async def erase(self, stream: str, seq: int) -> bool:
        """Remove a message so that its bytes are gone from the server's files.

        False when it was not there.  The block of the file is written anew, which takes
        milliseconds.
        """
        try:
            await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": seq}, timeout_s=15)
        except JetStreamError:
            if await self.read(stream, seq=seq) is None:
                return False
            raise
        return True


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


async def _quietly(work: Callable[..., Awaitable[Any]], *args: Any) -> None:
    """Await ``work``; errors of a connection that goes away are of no interest."""
    try:
        await work(*args)
    except (TimeoutError, NatsError, OSError) as error:
        log.debug("nats, while closing: %s", error)


__all__ = [
    "CONSUMER_NOT_FOUND",
    "STREAM_NAME_IN_USE",
    "STREAM_NOT_FOUND",
    "WRONG_LAST_SEQUENCE",
    "JetStreamError",
    "Message",
    "NatsPort",
    "PubAck",
    "seconds",
    "translate",
]

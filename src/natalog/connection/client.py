"""nats-py's client, made safe against what others may send, and with ears for refusals.

Anybody who may publish to a subject that we listen on chooses bytes of that subject, its reply
subject and its headers.  Left alone, nats-py stops reading for good at bytes that are no UTF-8 and
takes some control characters for separators.  Here no message can end the connection.

Two ways are shorter here: a message goes to a handler that never waits while its bytes come in,
with no queue and no task in between, and what is published is written at once, unless something was
written just before; then it goes with what else comes in the same turn of the event loop.

nats-server refuses what a user may not do in a line of its own, without saying to which call it
belongs; the line names the subject, and `NatsClient.on_violation` tells it on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from time import perf_counter
from typing import Any, Final, NamedTuple

from nats import errors
from nats.aio.client import Client, RawCredentials
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from natalog.connection.frames import frame, headers_of

CONTROL_LINE_BYTES_MAX: Final = 64 * 1024
"""Longest line that the server sends, its INFO apart (4,096 bytes by default)."""
INFO_BYTES_MAX: Final = 1024 * 1024

READ_AHEAD_BYTES: Final = 4 * 1024 * 1024
"""Of what the server sends, half of what may wait to be parsed."""
READ_BYTES: Final = 64 * 1024
"""What is parsed at a time."""

_UNSENT_BYTES: Final = 1024 * 1024
"""Who publishes while so much waits to be written, waits too."""
_CLOSE_TIMEOUT_S: Final = 0.2
_READING_S: Final = 0.004
"""After reading for so long the event loop gets a turn."""
_WAITED_S: Final = 0.00002
"""A read that takes longer had to wait, and the event loop had its turn."""
_TURN_S: Final = 0.0001
"""What is published this soon after something was written waits for more."""
_VIOLATION: Final = re.compile(
    r"permissions violation for (?:(publish with reply of|publish)(?: to)?|subscription to) "
    r'"((?:[^"\\]|\\.)*)"',
    re.IGNORECASE,
)
_PASSING: Final = ("authentication expired",)
"""The server ends the connection; with a new token in the file the next one succeeds."""
_JWT: Final = re.compile(rb"-+BEGIN NATS USER JWT-+\s+(\S+)\s")
_SEED: Final = re.compile(rb"-+BEGIN USER NKEY SEED-+\s+(\S+)\s")


class Violation(NamedTuple):
    """Something that the server did not allow: ``verb`` is ``publish`` or ``subscribe``."""

    verb: str
    subject: str


class NatsClient(Client):
    """A connection to NATS.

    ``on_violation``: called with every refusal for lack of permission.  ``tls_required``: do not
    say who we are over a connection that the server (or who stands before it) leaves open.
    """

    def __init__(self, servers: Sequence[str] = ()) -> None:
        super().__init__()
        protocol = self._ps = _Protocol(self)
        if not any(server.startswith(("ws://", "wss://")) for server in servers):
            self._transport = _Tcp(protocol.take)
        self.on_violation: list[Callable[[Violation], None]] = []
        self._direct: dict[int, Callable[[Msg], object]] = {}
        self._asked: dict[str, Callable[[Msg], object]] = {}
        self._numbers = itertools.count(1)
        self._telling: set[asyncio.Future[None]] = set()
        self._wrote_at = 0.0
        self._writing = False
        self.tls_required = any(server.startswith("tls://") for server in servers)

    @property
    def answers_prefix(self) -> str:
        """Where answers to `request` come; empty before the first one."""
        return "" if self._resp_sub_prefix is None else self._resp_sub_prefix.decode()

    async def listen(
        self, subject: str, handler: Callable[[Msg], object], queue: str = ""
    ) -> Subscription:
        """Call ``handler``, which must not wait, with every message of a subject, in order."""

        async def queued(message: Msg) -> None:
            handler(message)

        subscription = await self.subscribe(
            subject, queue, cb=queued, pending_msgs_limit=0, pending_bytes_limit=0
        )
        self._direct[subscription._id] = handler
        return subscription

    # --- what comes in -----------------------------------------------------------------------

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        if sid in self._direct:
            said = await self._process_headers(headers) if headers else None
            if self.hand(sid, subject, reply, data, said):
                return
        await super()._process_msg(sid, subject, reply, data, headers)

    def hand(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> bool:
        """Call the handler of a message; False where messages go, or still wait, in a queue."""
        handler = self._direct.get(sid)
        subscription = self._subs.get(sid)
        if handler is None or subscription is None or not subscription._pending_queue.empty():
            return False
        stats = self.stats
        stats["in_msgs"] += 1
        stats["in_bytes"] += len(data)
        subscription._received += 1
        try:
            handler(self._build_message(sid, subject, reply, data, headers))
        except Exception as error:  # as nats-py does with those of its callbacks
            telling = asyncio.ensure_future(self._error_cb(error))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)
        return True

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._direct.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _init_request_sub(self) -> None:
        await super()._init_request_sub()
        answers = f"{self.answers_prefix}*"
        for sid, subscription in self._subs.items():
            if subscription.subject == answers:
                self._direct[sid] = self._on_answer

    def _on_answer(self, message: Msg) -> None:
        token = message.subject.rpartition(".")[2]
        asked = self._asked.pop(token, None)
        if asked is not None:
            asked(message)
            return
        future = self._resp_map.get(token)
        if future is not None and not future.done():
            future.set_result(message)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        found = headers_of(headers)
        if found is not None:
            return found or None
        try:
            return await super()._process_headers(headers)
        except (UnicodeDecodeError, IndexError, ValueError):
            return None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        try:
            answer_to = reply.decode()
        except UnicodeDecodeError:
            answer_to = ""  # nobody can be answered there
        return self.msg_class(
            subject=subject.decode("utf-8", "backslashreplace"),
            reply=answer_to,
            data=data,
            headers=headers,
            _client=self,
            _sid=sid,
        )

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and self.tls_required and not self.options["tls_handshake_first"]:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise errors.Error("nats: the server offers no TLS")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection=initial_connection)

    async def _process_err(self, err_msg: str) -> None:
        found = _VIOLATION.search(err_msg)
        if found is not None:
            subject = found[2]
            if "\\" in subject:
                subject = _unquoted(subject)
            violation = Violation("publish" if found[1] else "subscribe", subject)
            for tell in list(self.on_violation):
                tell(violation)
            self._err = errors.Error(f"nats: {err_msg}")
            await self._error_cb(self._err)
            return
        lowered = err_msg.lower()
        if any(reason in lowered for reason in _PASSING):
            await self._process_op_err(errors.Error(f"nats: {lowered}"))
            return
        await super()._process_err(lowered)

    # --- what goes out -----------------------------------------------------------------------

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if self.busy or not self._skip_subject_validation:
            said = None if headers is None else dict(headers)
            await super().publish(subject, payload, reply, said)
            return
        if len(payload) > self._max_payload:
            raise errors.MaxPayloadError
        self.send((frame(subject, payload, reply, headers),), len(payload))

    frame = staticmethod(frame)

    def send(self, made: Sequence[bytes], size: int, *, now: bool = False) -> None:
        """Publish what `frame` made of ``size`` bytes without waiting.

        ``now``: although something was written just before.  Raises as `publish`; who sends a lot
        is to publish it.
        """
        if self._status != Client.CONNECTED:
            if self.is_closed:
                raise errors.ConnectionClosedError
            if self.is_draining_pubs:
                raise errors.ConnectionDrainingError
            if not self.is_connected and size + self._pending_data_size > self._max_pending_size:
                raise errors.OutboundBufferLimitError
        stats = self.stats
        stats["out_msgs"] += len(made)
        stats["out_bytes"] += size
        self._pending.extend(made)
        self._pending_data_size += sum(map(len, made))
        if now:
            self._wrote_at = 0.0
        self._soon()

    @property
    def busy(self) -> bool:
        """Whether so much waits to be written that more is to wait."""
        return self._pending_data_size > _UNSENT_BYTES

    async def asking(self) -> None:
        """See that there is somewhere for answers to come, before `ask`."""
        if not self._resp_sub_prefix:
            await self._init_request_sub()

    def ask(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        on_answer: Callable[[Msg], object],
    ) -> str:
        """Send a request at once; ``on_answer``, which must not wait, hears the answer.

        Returns a name for `forget`.  Raises as `publish`.
        """
        if len(payload) > self._max_payload:
            raise errors.MaxPayloadError
        token = f"a{next(self._numbers)}"
        made = frame(subject, payload, f"{self.answers_prefix}{token}", headers)
        self._asked[token] = on_answer
        try:
            self.send((made,), len(payload), now=True)
        except BaseException:
            del self._asked[token]
            raise
        return token

    def forget(self, token: str) -> None:
        """Nobody waits for an answer any more."""
        self._asked.pop(token, None)

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        if force_flush:
            return await super()._flush_pending(force_flush)
        self._soon()
        return None

    def _soon(self) -> None:
        """Write what waits at once, or in the next turn of the event loop."""
        if not self._writing or not self._wrote_at:
            if perf_counter() - self._wrote_at > _TURN_S and self._write():
                return
            if self._writing:
                return
            self._writing = True
            asyncio.get_running_loop().call_soon(self._write_rest)

    def _write(self) -> bool:
        """Write what waits, where the connection takes it without waiting."""
        writer = getattr(self._transport, "_io_writer", None)
        if (
            writer is None
            or not self.is_connected
            or self._flusher_task is None
            or self._flusher_task.done()
            or writer.transport.is_closing()
            or writer.transport.get_write_buffer_size()
        ):
            return False
        pending, self._pending = self._pending, []
        self._pending_data_size = 0
        self._wrote_at = perf_counter()
        if pending:
            writer.write(pending[0] if len(pending) == 1 else b"".join(pending))
        return True

    def _write_rest(self) -> None:
        """In the next turn of the event loop: what came together."""
        self._writing = False
        if not self._pending or self._write() or not self.is_connected:
            return
        queue = self._flush_queue
        if queue is not None and queue.empty():  # nats-py waits until the connection takes more
            queue.put_nowait(asyncio.get_running_loop().create_future())

    # --- who we are --------------------------------------------------------------------------

    # nats-py reads a file without credentials for ever.

    def _read_creds_user_jwt(self, creds: Any) -> bytearray:
        return _piece(_JWT, creds)

    def _read_creds_user_nkey(self, creds: Any) -> bytearray:
        return _piece(_SEED, creds)


class _Tcp(TcpTransport):
    """Reads ahead, since nats-server ends the connection of who does not read fast enough.

    nats-py stops reading at 64 KiB that wait, until the event loop comes around again; when every
    turn has work of its own to do, a flood is then faster.  And it waits for the end of a
    connection whose TLS handshake failed; it never comes.
    """

    _turn = 0.0

    def __init__(self, take: Callable[[bytes], bytes]) -> None:
        """``take``: handles what it can of bytes that come in, and returns the rest."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._take = take
        self._heard: asyncio.StreamReader | None = None

    def __bool__(self) -> bool:
        return True  # nats-py would make another one

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: int) -> None:
        await super().connect(uri, READ_AHEAD_BYTES, connect_timeout)

    async def connect_tls(self, *arguments: Any, **named: Any) -> None:
        await super().connect_tls(*arguments, **named)
        self._io_reader._limit = READ_AHEAD_BYTES  # type: ignore[union-attr]

    def _listen(self, reader: asyncio.StreamReader) -> None:
        """Look at bytes as they come in, while somebody waits for them and none wait already."""
        self._heard = reader
        feed, take = reader.feed_data, self._take

        def feed_data(data: bytes) -> None:
            if reader._waiter is not None and not reader._buffer:  # type: ignore[attr-defined]
                data = take(data)
                if not data:
                    return
            feed(data)

        reader.feed_data = feed_data  # type: ignore[method-assign, assignment]

    async def read(self, buffer_size: int) -> bytes:
        if self._io_reader is not self._heard and self._io_reader is not None:
            self._listen(self._io_reader)
        began = perf_counter()
        if began - self._turn > _READING_S:  # what waits is read without a pause
            await asyncio.sleep(0)
            self._turn = began = perf_counter()
        data: bytes = await super().read(READ_BYTES)
        now = perf_counter()
        if now - began > _WAITED_S:
            self._turn = now
        return data

    async def wait_closed(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                try:
                    await super().wait_closed()  # type: ignore[no-untyped-call]
                except asyncio.CancelledError:
                    if task.cancelling():
                        raise
                    # somebody else who waited was cancelled, which asyncio tells all who wait


def _piece(pattern: re.Pattern[bytes], creds: Any) -> bytearray:
    if isinstance(creds, RawCredentials):
        content = BytesIO(creds.data.encode()).getvalue()
    else:
        with open(creds, "rb") as file:
            content = file.read()
    found = pattern.search(content)
    if found is None:
        raise errors.Error("nats: the credentials hold no user")
    return bytearray(found[1])


def _unquoted(text: str) -> str:
    """The subject inside Go's quotes, where it holds characters that are escaped there."""
    try:
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError:
        return text


class _Protocol(Parser):
    """Cuts what the server sends into operations; separators are what the server takes for them."""

    def __init__(self, client: NatsClient) -> None:
        super().__init__(client)
        self._client = client
        self._message: tuple[int, bytes, bytes, int, int] | None = None

    def reset(self) -> None:
        super().reset()
        self._message = None

    def take(self, data: bytes) -> bytes:
        """Hand over the messages that ``data`` begins with, as far as that needs no waiting.

        Returns the rest, which is for `parse`.
        """
        client = self._client
        if self.buf or self._message is not None or not client.is_connected:
            return data
        client._wrote_at = 0.0
        at = 0
        while data.startswith((b"MSG ", b"HMSG "), at):
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            try:
                sid, subject, reply, head, size = _message(data[at:end])
            except errors.ProtocolError:
                break
            begin = end + 2
            if begin + size + 2 > len(data):
                break
            headers = None
            if head:
                headers = headers_of(data[begin : begin + head])
                if headers is None:
                    break
            payload = data[begin + head : begin + size]
            if not client.hand(sid, subject, reply, payload, headers or None):
                break
            at = begin + size + 2
        return data[at:] if at else data

    async def parse(self, data: bytes = b"") -> None:
        self._client._wrote_at = 0.0  # an answer to this is the first thing that is said to it
        self.buf.extend(data)
        buf = self.buf
        while buf:
            if self._message is not None:
                sid, subject, reply, head, size = self._message
                if len(buf) < size + 2:
                    return
                headers = bytes(buf[:head])
                payload = bytes(buf[head:size])
                del buf[: size + 2]
                self._message = None
                await self._client._process_msg(sid, subject, reply, payload, headers)
                buf = self.buf  # a reconnection meanwhile begins with a new one
                continue
            end = buf.find(b"\r\n")
            if end < 0:
                limit = INFO_BYTES_MAX if buf[:4] == b"INFO" else CONTROL_LINE_BYTES_MAX
                if len(buf) > limit:
                    raise errors.ProtocolError
                return
            line = bytes(buf[:end])
            del buf[: end + 2]
            await self._operation(line)
            buf = self.buf

    async def _operation(self, line: bytes) -> None:
        if line.startswith((b"MSG ", b"HMSG ")):
            self._message = _message(line)
        elif line == b"PING":
            await self._client._process_ping()
        elif line == b"PONG":
            await self._client._process_pong()
        elif line.startswith(b"-ERR"):
            said = line[4:].decode("utf-8", "backslashreplace").strip()
            await self._client._process_err(said)
        elif line.startswith(b"INFO "):
            try:
                info = json.loads(line[5:])
            except ValueError:
                raise errors.ProtocolError from None
            await self._client._process_info(info)
        elif line and line != b"+OK":
            raise errors.ProtocolError


def _message(line: bytes) -> tuple[int, bytes, bytes, int, int]:
    """Subscription, subject, reply subject, bytes of headers, bytes of headers and payload."""
    words = line.split(b" ")
    numbers = 2 if line[:1] == b"H" else 1
    if len(words) not in (3 + numbers, 4 + numbers):
        raise errors.ProtocolError
    reply = words[3] if len(words) == 4 + numbers else b""
    try:
        size = int(words[-1])
        head = int(words[-2]) if numbers == 2 else 0
        if not 0 <= head <= size:
            raise ValueError
        return int(words[2]), words[1], reply, head, size
    except ValueError:
        raise errors.ProtocolError from None

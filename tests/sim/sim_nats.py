"""A NATS server with JetStream in memory, and connections to it that can fail.

It does what the service asks of the real one, as that was measured to do it: core subjects with
queue groups and *no responders*, streams with compare-and-set before deduplication, direct gets,
pull consumers without acknowledgement, message lifetimes.  A connection keeps order in both
directions, as TCP does; what is under way when it breaks is lost from some point on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from nats import errors as nats_errors
from nats.aio.msg import Msg
from sim_loop import EPOCH_S, Process, SimLoop

_OUTSIDE = Context()
MAX_PAYLOAD = 64 * 1024
RECONNECT_S = 0.1
DUPLICATES_S = 120.0
LOSS_PAUSE_S = 4.0
"""A second loss so soon after one would look like a hole in the log: no connection does that."""


@dataclass(slots=True)
class Rates:
    """How likely things go wrong, each time they could; all zero: nothing does.

    ``delay_s``: the longest ordinary delay of a connection; ``stall_s``: of one that stalls.
    """

    receipt_lost: float = 0.0
    append_lost: float = 0.0
    append_twice: float = 0.0
    api_lost: float = 0.0
    stall: float = 0.0
    delivery_lost: float = 0.0
    delivery_twice: float = 0.0
    delay_s: float = 0.002
    stall_s: float = 5.0


@dataclass(slots=True)
class Stored:
    seq: int
    subject: str
    data: bytes
    headers: dict[str, str]
    at: float
    until: float | None


@dataclass(slots=True)
class Stream:
    config: dict[str, Any]
    created: str
    last_seq: int = 0
    messages: dict[int, Stored] = field(default_factory=dict)
    ids: dict[str, tuple[int, float]] = field(default_factory=dict)

    def matching(self, subject: str) -> bool:
        return any(matches(pattern, subject) for pattern in self.config.get("subjects") or [])

    def info(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "created": self.created,
            "state": {
                "messages": len(self.messages),
                "bytes": sum(len(m.data) for m in self.messages.values()),
                "first_seq": min(self.messages, default=self.last_seq + 1),
                "last_seq": self.last_seq,
            },
        }


@dataclass(slots=True)
class Pull:
    inbox: str
    connection: SimClient
    left: int
    no_wait: bool
    until: float


@dataclass(slots=True)
class Consumer:
    stream: str
    next_seq: int
    lossy: bool
    pulls: deque[Pull] = field(default_factory=deque)
    delivered: int = 0
    headers_only: bool = False


@dataclass(slots=True, eq=False)
class Subscription:
    """What `NatsPort.subscribe` gives out."""

    subject: str
    queue: str
    handler: Callable[[Msg], Any]
    client: SimClient
    _id: int
    _pending_queue: Any = None

    async def unsubscribe(self) -> None:
        self.client.forget(self)


class _Nothing:
    async def join(self) -> None:
        """Messages are handed over at once."""


@lru_cache(4096)
def matches(pattern: str, subject: str) -> bool:
    if pattern == subject:
        return True
    wanted, given = pattern.split("."), subject.split(".")
    for spot, token in enumerate(wanted):
        if token == ">":
            return len(given) > spot
        if spot >= len(given) or token not in ("*", given[spot]):
            return False
    return len(wanted) == len(given)


def overlap(one: str, other: str) -> bool:
    first, second = one.split("."), other.split(".")
    return len(first) == len(second) and all(
        a == b or "*" in (a, b) for a, b in zip(first, second, strict=True)
    )


class SimServer:
    """The server; ``rates`` may be changed at any time.  ``faults`` counts what was injected."""

    def __init__(self, loop: SimLoop, chance: random.Random, rates: Rates) -> None:
        self.loop = loop
        self.chance = chance
        self.rates = rates
        self.up = True
        self.faults: Counter[str] = Counter()
        self.streams: dict[str, Stream] = {}
        self.clients: list[SimClient] = []
        self._consumers: dict[tuple[str, str], Consumer] = {}
        self._lost_at: dict[tuple[str, str], float] = {}
        self.unknown: list[str] = []
        self._made = 0

    def happens(self, what: str) -> bool:
        """Whether a fault is to happen now, by its rate."""
        rate = getattr(self.rates, what)
        if not rate or self.chance.random() >= rate:
            return False
        self.faults[what] += 1
        return True

    # --- core --------------------------------------------------------------------------------

    def receive(
        self, client: SimClient, subject: str, data: Any, reply: str, headers: dict[str, str]
    ) -> None:
        """A message that a client has sent."""
        if isinstance(data, Subscription):
            if data._id in client._own:
                client.registered[data._id] = data
            return
        if subject.startswith("$JS.API."):
            # a pull has no answer of its own: only with its connection it gets lost
            pull = subject.startswith("$JS.API.CONSUMER.MSG.NEXT.")
            if pull or not self.happens("api_lost"):
                self._api(client, subject[8:], data, reply)
            return
        heard = self._deliver(subject, data, reply, headers)
        for name, stream in self.streams.items():
            if stream.matching(subject):
                heard = True
                self._append(name, stream, subject, data, reply, headers)
                break
        if not heard and reply:
            client.push(reply, reply, b"", "", {"Status": "503"})

    def _deliver(self, subject: str, data: bytes, reply: str, headers: dict[str, str]) -> bool:
        if subject.startswith("_INBOX."):
            for client in self.clients:
                if subject.startswith(client.inboxes):
                    client.push(subject, subject, data, reply, headers)
            return True
        groups: dict[str, list[Subscription]] = {}
        plain: list[Subscription] = []
        for client in self.clients:
            for one in client.registered.values():
                if matches(one.subject, subject):
                    (groups.setdefault(one.queue, []) if one.queue else plain).append(one)
        for group in groups.values():
            plain.append(self.chance.choice(group))
        for one in plain:
            one.client.push(one, subject, data, reply, headers)
        return bool(plain)

    def answer(self, reply: str, body: dict[str, Any]) -> None:
        if reply:
            self._deliver(reply, json.dumps(body).encode(), "", {})

    # --- streams -----------------------------------------------------------------------------

    def _append(
        self,
        name: str,
        stream: Stream,
        subject: str,
        data: bytes,
        reply: str,
        headers: dict[str, str],
    ) -> None:
        if self.happens("append_lost"):
            return
        if self.happens("append_twice"):
            # the first receipt is lost, the second append is refused or found again
            self._store(name, stream, subject, data, headers)
        body = self._store(name, stream, subject, data, headers)
        if not self.happens("receipt_lost"):
            self.answer(reply, body)

    def _store(
        self, name: str, stream: Stream, subject: str, data: bytes, headers: dict[str, str]
    ) -> dict[str, Any]:
        self._expire(stream)
        now = self.loop.now
        wanted = headers.get("Nats-Expected-Stream")
        if wanted is not None and wanted != name:
            return _error(400, 10060, "expected stream does not match")
        expected = headers.get("Nats-Expected-Last-Sequence")
        if expected is not None and int(expected) != stream.last_seq:
            return _error(400, 10071, f"wrong last sequence: {stream.last_seq}")
        of_subject = headers.get("Nats-Expected-Last-Subject-Sequence")
        if of_subject is not None:
            last = max((m.seq for m in stream.messages.values() if m.subject == subject), default=0)
            if last != int(of_subject):
                return _error(400, 10071, f"wrong last sequence: {last}")
        ident = headers.get("Nats-Msg-Id")
        if ident is not None and ident in stream.ids:
            seq, at = stream.ids[ident]
            if now - at < DUPLICATES_S:
                return {"stream": name, "seq": seq, "duplicate": True}
        seq = stream.last_seq = stream.last_seq + 1
        ttl = headers.get("Nats-TTL")
        until = None if ttl is None else now + float(ttl)
        stream.messages[seq] = Stored(seq, subject, data, dict(headers), now, until)
        if ident is not None:
            stream.ids[ident] = (seq, now)
        limit = stream.config.get("max_msgs") or 0
        while limit > 0 and len(stream.messages) > limit:
            del stream.messages[min(stream.messages)]
        limit = stream.config.get("max_msgs_per_subject") or 0
        if limit > 0:
            same = [m.seq for m in stream.messages.values() if m.subject == subject]
            for old in same[:-limit]:
                del stream.messages[old]
        self._serve(name)
        return {"stream": name, "seq": seq}

    def _expire(self, stream: Stream) -> None:
        for seq in [
            m.seq
            for m in stream.messages.values()
            if m.until is not None and m.until <= self.loop.now
        ]:
            del stream.messages[seq]

    # --- the API -----------------------------------------------------------------------------

    def _api(self, client: SimClient, what: str, data: bytes, reply: str) -> None:
        body = json.loads(data) if data else {}
        for verb in ("CONSUMER.MSG.NEXT.", "CONSUMER.CREATE.", "CONSUMER.DELETE."):
            if what.startswith(verb):
                stream, _, name = what[len(verb) :].partition(".")
                self._consumer(client, verb, stream, name, body, reply)
                return
        if what.startswith("DIRECT.GET."):
            self._direct(client, what[11:], body, reply)
            return
        self.answer(reply, self._stream_api(what, body))

    def _stream_api(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what == "INFO":
            return {}
        if what in ("STREAM.LIST", "STREAM.NAMES"):
            wanted = body.get("subject", "*")
            found = [
                (name, stream)
                for name, stream in sorted(self.streams.items())
                if any(overlap(wanted, s) for s in stream.config.get("subjects") or [])
            ][int(body.get("offset", 0)) :]
            shown = [s.info() if what == "STREAM.LIST" else name for name, s in found]
            return {"streams": shown, "total": len(shown) + int(body.get("offset", 0))}
        verb, name = what.rsplit(".", 1)
        stream = self.streams.get(name)
        if verb == "STREAM.CREATE":
            return self._create(name, stream, body)
        if stream is None:
            return _error(404, 10059, "stream not found")
        self._expire(stream)
        if verb == "STREAM.UPDATE":
            stream.config = body
        elif verb == "STREAM.DELETE":
            del self.streams[name]
            return {"success": True}
        elif verb == "STREAM.PURGE":
            for seq in [s for s in stream.messages if s < int(body.get("seq", 1 << 62))]:
                del stream.messages[seq]
            return {"success": True}
        elif verb == "STREAM.MSG.GET":
            found_one = self._find(stream, body)
            if found_one is None:
                return _error(404, 10037, "no message found")
            lines = "".join(f"{k}: {v}\r\n" for k, v in found_one.headers.items())
            return {
                "message": {
                    "subject": found_one.subject,
                    "seq": found_one.seq,
                    "data": b64encode(found_one.data).decode(),
                    "hdrs": b64encode(f"NATS/1.0\r\n{lines}\r\n".encode()).decode(),
                    "time": _instant(found_one.at),
                }
            }
        elif verb != "STREAM.INFO":
            self.unknown.append(what)
            return _error(400, 10025, "bad request")
        return stream.info()

    def _create(self, name: str, stream: Stream | None, body: dict[str, Any]) -> dict[str, Any]:
        if stream is not None:
            same = stream.config == body
            return stream.info() if same else _error(400, 10058, "stream name already in use")
        for other in self.streams.values():
            for one in other.config.get("subjects") or []:
                if any(overlap(one, subject) for subject in body.get("subjects") or []):
                    return _error(400, 10065, "subjects overlap with an existing stream")
        self._made += 1
        made = Stream(body, f"{_instant(self.loop.now)}.{self._made}")
        made.last_seq = int(body.get("first_seq") or 1) - 1
        self.streams[name] = made
        return made.info()

    def _find(self, stream: Stream, body: dict[str, Any]) -> Stored | None:
        if "last_by_subj" in body:
            wanted = body["last_by_subj"]
            found = [m for m in stream.messages.values() if matches(wanted, m.subject)]
            return found[-1] if found else None
        return stream.messages.get(int(body["seq"]))

    def _direct(self, client: SimClient, name: str, body: dict[str, Any], reply: str) -> None:
        stream = self.streams.get(name)
        if stream is None:
            client.push(reply, reply, b"", "", {"Status": "503"})
            return
        self._expire(stream)
        found = self._find(stream, body)
        if found is None:
            client.push(reply, reply, b"", "", {"Status": "404", "Description": "Not Found"})
            return
        headers = {
            **found.headers,
            "Nats-Stream": name,
            "Nats-Subject": found.subject,
            "Nats-Sequence": str(found.seq),
            "Nats-Time-Stamp": _instant(found.at),
        }
        client.push(reply, reply, found.data, "", headers)

    # --- consumers ---------------------------------------------------------------------------

    def _consumer(
        self,
        client: SimClient,
        verb: str,
        stream: str,
        name: str,
        body: dict[str, Any],
        reply: str,
    ) -> None:
        key = (stream, name)
        if verb == "CONSUMER.DELETE.":
            self._consumers.pop(key, None)
            self.answer(reply, {"success": True})
        elif verb == "CONSUMER.CREATE.":
            if stream not in self.streams:
                self.answer(reply, _error(404, 10059, "stream not found"))
                return
            config = body["config"]
            lost = self._lost_at.get((stream, client.name), float("-inf"))
            self._consumers[key] = Consumer(
                stream,
                int(config["opt_start_seq"]),
                self.loop.now - lost > LOSS_PAUSE_S,
                headers_only=bool(config.get("headers_only")),
            )
            self.answer(reply, {"name": name, "config": config})
        else:
            consumer = self._consumers.get(key)
            if consumer is None:
                client.push(reply, reply, b"", "", {"Status": "503"})
                return
            expires = body.get("expires", 0) / 1e9
            pull = Pull(
                reply,
                client,
                int(body["batch"]),
                bool(body.get("no_wait")),
                self.loop.now + expires,
            )
            consumer.pulls.append(pull)
            if expires:
                self.loop.call_at(pull.until, self._expired, consumer, pull)
            self._serve_one(name, consumer)

    def _expired(self, consumer: Consumer, pull: Pull) -> None:
        if pull in consumer.pulls:
            consumer.pulls.remove(pull)
            status = {"Status": "408", "Description": "Request Timeout"}
            pull.connection.push(pull.inbox, pull.inbox, b"", "", status)

    def _serve(self, stream: str) -> None:
        for (owner, name), consumer in list(self._consumers.items()):
            if owner == stream:
                self._serve_one(name, consumer)

    def _serve_one(self, name: str, consumer: Consumer) -> None:
        stream = self.streams.get(consumer.stream)
        while consumer.pulls and stream is not None:
            pull = consumer.pulls[0]
            while consumer.next_seq <= stream.last_seq and pull.left:
                message = stream.messages.get(consumer.next_seq)
                consumer.next_seq += 1
                if message is None:
                    continue
                pull.left -= 1
                consumer.delivered += 1
                self._hand_over(name, consumer, pull, message)
            if pull.left and pull.no_wait:
                status = {"Status": "404", "Description": "No Messages"}
                pull.connection.push(pull.inbox, pull.inbox, b"", "", status)
            elif pull.left:
                return
            consumer.pulls.popleft()

    def _hand_over(self, name: str, consumer: Consumer, pull: Pull, message: Stored) -> None:
        to = pull.connection
        if consumer.lossy and self.happens("delivery_lost"):
            self._lost_at[consumer.stream, to.name] = self.loop.now
            return
        at = int((EPOCH_S + message.at) * 1e9)
        pending = 0
        reply = (
            f"$JS.ACK.{consumer.stream}.{name}.1.{message.seq}.{consumer.delivered}.{at}.{pending}"
        )
        data = b"" if consumer.headers_only else message.data
        for _ in range(1 + self.happens("delivery_twice")):
            to.push(pull.inbox, message.subject, data, reply, dict(message.headers))

    # --- ends --------------------------------------------------------------------------------

    def crash(self, down_s: float) -> None:
        """kill -9 and a start later: streams stay, connections and consumers do not."""
        self.faults["server_killed"] += 1
        self.up = False
        self._consumers.clear()
        for client in list(self.clients):
            client.drop()
        self.loop.call_later(down_s, self._start)

    def _start(self) -> None:
        self.up = True


class SimClient:
    """What `NatsPort` needs of a connection.  ``process``: whose it is, None for the outside."""

    max_payload = MAX_PAYLOAD
    stats: dict[str, int] = {"in_msgs": 0, "out_msgs": 0, "in_bytes": 0, "out_bytes": 0}
    connected_url = None

    def __init__(self, server: SimServer, process: Process | None, name: str) -> None:
        self.server = server
        self.process = process
        self.name = name
        self.is_connected = False
        self.is_closed = False
        self.on_violation: list[Any] = []
        self.registered: dict[int, Subscription] = {}
        self.on_disconnect: Any = None
        self.on_reconnect: Any = None
        self.on_send: Callable[[str], None] = _ignore
        self.on_message: Callable[[str, str], None] = _ignore
        self._own: dict[int, Subscription] = {}
        self._numbers = 0
        self._up: deque[tuple[Any, ...]] = deque()
        self._down: deque[tuple[Any, ...]] = deque()
        self._up_free = self._down_free = 0.0
        self._buffer: list[tuple[Any, ...]] = []
        self._answers = f"_INBOX.{name}"
        self.inboxes = f"{self._answers}."
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._generation = 0
        self.answers_prefix = f"{self._answers}.a."

    # --- life --------------------------------------------------------------------------------

    def connect(self) -> None:
        if not self.server.up:
            raise nats_errors.NoServersError
        self.is_connected = True
        self.server.clients.append(self)
        self._up_free = self._down_free = 0.0
        answers = Subscription(f"{self._answers}.a.*", "", self._on_answer, self, 0)
        self.registered = {0: answers, **self._own}

    def drop(self, *, again: bool = True) -> None:
        """The connection breaks; what is under way is lost from some point on."""
        if not self.is_connected:
            return
        self._generation += 1
        chance = self.server.chance
        arriving = list(self._up)[: chance.randint(0, len(self._up))]
        self._up.clear()
        self._down.clear()
        self.is_connected = False
        self.registered = {}
        self.server.clients.remove(self)
        for item in arriving:  # a server takes what it has got before it sees the end
            self.server.receive(self, *item)
        if again:
            loop = self.server.loop
            if self.on_disconnect is not None:
                loop.spawn(self.process, self.on_disconnect())
            loop.call_later(RECONNECT_S * (1 + 20 * chance.random() ** 3), self._reconnect)

    def _reconnect(self) -> None:
        if self.is_closed or self.is_connected:
            return
        if self.process is not None and self.process.killed:
            return
        if not self.server.up or (self.process is not None and self.process.paused):
            self.server.loop.call_later(RECONNECT_S, self._reconnect)
            return
        self.connect()
        waiting, self._buffer = self._buffer, []
        for item in waiting:
            self._send(*item)
        if self.on_reconnect is not None:
            self.server.loop.spawn(self.process, self.on_reconnect())

    async def close(self) -> None:
        self.is_closed = True
        self.drop(again=False)

    async def flush(self, timeout: float = 1) -> None:
        """Nothing waits on this side."""

    # --- sending -----------------------------------------------------------------------------

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        if self.is_closed:
            raise nats_errors.ConnectionClosedError
        if len(payload) > self.max_payload:
            raise nats_errors.MaxPayloadError
        self.on_send(subject)
        self._send(subject, bytes(payload), reply, dict(headers or {}))

    def _send(self, *item: Any) -> None:
        if not self.is_connected:
            self._buffer.append(item)
            return
        self._up.append(item)
        self._up_free = self._later(self._up_free, self._arrived)

    def _later(self, free: float, step: Callable[[int], None]) -> float:
        server = self.server
        delay = server.chance.random() * server.rates.delay_s
        if server.happens("stall"):
            delay += server.chance.random() * server.rates.stall_s
        free = max(free, server.loop.now + delay)
        server.loop.call_at(free, step, self._generation, context=_OUTSIDE)
        return free

    def _arrived(self, generation: int) -> None:
        if generation == self._generation and self._up:
            self.server.receive(self, *self._up.popleft())

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        headers: dict[str, str] | None = None,
    ) -> Msg:
        self._numbers += 1
        token = str(self._numbers)
        future: asyncio.Future[Msg] = self.server.loop.create_future()
        self._waiting[token] = future
        try:
            await self.publish(subject, payload, self.answers_prefix + token, headers)
            try:
                message = await asyncio.wait_for(future, timeout)
            except TimeoutError:
                raise nats_errors.TimeoutError from None
        finally:
            self._waiting.pop(token, None)
        if (message.headers or {}).get("Status") == "503":
            raise nats_errors.NoRespondersError
        return message

    def _on_answer(self, message: Msg) -> None:
        future = self._waiting.get(message.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(message)

    # --- receiving ---------------------------------------------------------------------------

    def new_inbox(self) -> str:
        self._numbers += 1
        return f"{self._answers}.i{self._numbers}"

    async def subscribe(self, subject: str, queue: str = "", cb: Any = None) -> Subscription:
        if self.is_closed:
            raise nats_errors.ConnectionClosedError
        self._numbers += 1
        made = Subscription(subject, queue, cb, self, self._numbers, _Nothing())
        self._own[made._id] = made
        self._send(subject, made, "", {})
        return made

    def forget(self, subscription: Subscription) -> None:
        self._own.pop(subscription._id, None)
        self.registered.pop(subscription._id, None)

    async def _send_unsubscribe(self, ident: int) -> None:
        self.registered.pop(ident, None)

    def push(
        self, to: Subscription | str, subject: str, data: bytes, reply: str, headers: dict[str, str]
    ) -> None:
        """The server sends a message; ``to``: a subscription or the subject of one."""
        if not self.is_connected:
            return
        if isinstance(to, str):
            found = self._heard(to)
            if found is None:
                return
            to = found
        self._down.append((to, subject, data, reply, headers))
        self._down_free = self._later(self._down_free, self._push_one)

    def _heard(self, inbox: str) -> Subscription | None:
        if inbox.startswith(self.answers_prefix):
            return self.registered.get(0)
        for one in self.registered.values():
            if one.subject == inbox or ("*" in one.subject and matches(one.subject, inbox)):
                return one
        return None

    def _push_one(self, generation: int) -> None:
        if generation != self._generation or not self._down:
            return
        if self.process is None:
            self._hear(generation)
        else:  # a paused process hears later, a killed one never
            self.server.loop.call_soon(self._hear, generation, context=self.process.context)

    def _hear(self, generation: int) -> None:
        if generation != self._generation or not self._down:
            return
        to, subject, data, reply, headers = self._down.popleft()
        if to._id and to._id not in self._own:
            return
        message = Msg(
            _client=self, subject=subject, reply=reply, data=data, headers=headers or None
        )
        self.on_message(subject, reply)
        found = to.handler(message)
        if asyncio.iscoroutine(found):
            with contextlib.suppress(StopIteration):
                found.send(None)  # it only notes the message; order is kept


def _ignore(*_: str) -> None:
    """Nobody watches."""


def _instant(at: float) -> str:
    return datetime.fromtimestamp(EPOCH_S + at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def _error(status: int, number: int, said: str) -> dict[str, Any]:
    return {"error": {"code": status, "err_code": number, "description": said}}

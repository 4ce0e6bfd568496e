"""A NATS server with JetStream in memory, and connections to it that can fail.

It does what the service asks of the real one, as that was measured to do it: core subjects with
queue groups and *no responders*, streams with compare-and-set before deduplication, direct gets,
pull consumers without acknowledgement, message lifetimes.  A connection keeps order in both
directions, as TCP does; what is under way when it breaks is lost from some point on.
"""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sim_connection import SimClient, Subscription, matches
from sim_loop import EPOCH_S, SimLoop

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


def _instant(at: float) -> str:
    return datetime.fromtimestamp(EPOCH_S + at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def _error(status: int, number: int, said: str) -> dict[str, Any]:
    return {"error": {"code": status, "err_code": number, "description": said}}

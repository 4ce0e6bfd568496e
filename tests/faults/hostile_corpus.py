"""Bad requests, made from a seed: what they are, and a client that can say things no client says.

Every request is wrong in one way or another: bytes that mean nothing, bodies that are cut, changed
or of the wrong shape and type, depth and size beyond the limits, headers that lie, subjects that
name nothing.  Some come out right by accident; they are answered like any other.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID

from natalog.core import edn
from natalog.core.codec import pack, to_json
from natalog.core.edn import read
from natalog.core.values import Doubles, EdnList, Keyword, Regex, Symbol, Tagged

MERSENNE = 2**61 - 1
LARGE_EVERY = 97
"""One request of so many is large."""


class Bad(NamedTuple):
    """A request: raw header lines and subject tokens, so that anything can be said."""

    kind: str
    subject: bytes
    payload: bytes
    headers: bytes = b""


# --- bodies that are right, to begin with --------------------------------------------------------

VIEW = {"as_of": 4503599627370497, "history": True}
TX = [{"name": "Cid", "age": 5}, ["db/add", 1, "age", 7], {"db/id": -1, "boss": ["name", "Ann"]}]
BODIES: dict[str, list[Any]] = {
    "transact": [TX, {"tx_data": TX, "tx_meta": {"why": "no reason"}, "id": "one"}],
    "query": [
        "[:find ?n ?a :where [?e :name ?n] [?e :age ?a] [(> ?a 18)]]",
        {
            "query": "[:find ?e :in $ ?n :where [?e :name ?n]]",
            "args": [{"natalog/db": VIEW}, "Ann"],
            "view": VIEW,
            "basis": 1,
            "timeout_ms": 500,
            "limit": 5,
            "offset": 1,
            "order_by": ["?e"],
            "fuel": 1000,
            "explain": True,
            "request_id": "r",
        },
    ],
    "pull": [{"pattern": ["name", {"boss": ["*"]}], "eid": ["name", "Ann"], "view": VIEW}],
    "entity": [{"eid": 1, "view": {"of": VIEW, "with": TX}}],
    "datoms": [{"index": "avet", "components": ["age", 5], "limit": 3, "mode": "seek"}],
    "schema": [{"reverse": True}],
    "with": [{"tx_data": TX, "tx_meta": {"why": 1}}],
    "history": [{"limit": 5}],
    "diff": [{"from": {"as_of": 1}, "to": {}}],
    "tx-range": [{"from": 4503599627370497, "to": 4503599627370499}],
    "schema-conflicts": [{"tx_data": TX, "limit": 2}],
    "metrics": [{"view": VIEW}],
    "info": [{"branch": "db"}],
    "branches": [{}],
    "list": [{}],
    "create": [{"database": "made", "keep_history": True, "initial_tx": TX}],
    "delete": [{"database": "made"}],
    "branch": [{"to": "b", "from": "db"}],
    "delete-branch": [{"branch": "b"}],
    "force-branch": [{"branch": "b", "parents": ["db"], "view": VIEW}],
    "merge": [
        {"branch": "b", "parents": ["db"], "tx_data": TX},
        {"from": "b", "policy": "fail", "resolutions": [{"entity": 1, "attribute": "age"}]},
    ],
    "gc": [{"before": "2020-01-01", "dry_run": True}],
    "erase": [{"entity": 1}],
}
PLACES = {
    **dict.fromkeys(("create", "delete", "list"), ("_", "_")),
    **dict.fromkeys(
        ("info", "branches", "branch", "delete-branch", "force-branch", "merge", "gc", "erase"),
        ("target", "_"),
    ),
}
"""Database and branch of the subject; every other endpoint is the main branch's."""


class Corpus:
    """Requests without end; equal seeds make equal ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._ways: list[Callable[[str], Bad]] = [
            self._noise,
            self._mutated,
            self._mutated,
            self._misshapen,
            self._misshapen,
            self._misshapen,
            self._deep,
            self._lying,
            self._headers,
            self._place,
            self._words,
        ]

    def __iter__(self) -> Iterator[Bad]:
        endpoints = list(BODIES)
        for number in itertools.count():
            endpoint = self._random.choice(endpoints)
            way = self._large if number % LARGE_EVERY == 0 else self._random.choice(self._ways)
            yield way(endpoint)

    # --- ways to be bad ----------------------------------------------------------------------

    def _noise(self, endpoint: str) -> Bad:
        size = self._random.choice([0, 1, 2, 3, 8, 40, 300])
        return self._bad("noise", endpoint, self._random.randbytes(size))

    def _mutated(self, endpoint: str) -> Bad:
        data = bytearray(self._right(endpoint)[0])
        chance = self._random
        for _ in range(chance.choice([1, 1, 2, 5])):
            if not data:
                break
            at = chance.randrange(len(data))
            match chance.randrange(5):
                case 0:
                    data[at] ^= 1 << chance.randrange(8)
                case 1:
                    del data[at:]
                case 2:
                    data[at:at] = chance.randbytes(chance.randrange(1, 5))
                case 3:
                    data[at:at] = data[at : at + 12]
                case 4:
                    del data[at : at + chance.randrange(1, 6)]
        return self._bad("mutated", endpoint, bytes(data))

    def _misshapen(self, endpoint: str) -> Bad:
        body = self._random.choice(BODIES[endpoint])
        return self._bad("misshapen", endpoint, self._encoded(self._replaced(body)))

    def _words(self, endpoint: str) -> Bad:
        """A map with words that are not known, or known ones of other endpoints."""
        words = [
            word
            for bodies in BODIES.values()
            for one in bodies
            if isinstance(one, dict)
            for word in one
        ]
        body = {
            self._random.choice([*words, "nonsense", ":view", "tx-data"]): self._strange()
            for _ in range(self._random.randrange(1, 5))
        }
        return self._bad("words", endpoint, self._encoded(body))

    def _deep(self, endpoint: str) -> Bad:
        depth = self._random.choice([100, 600, 5_000, 50_000])
        payload = self._random.choice(
            [
                b"[" * depth,
                b"[" * depth + b"]" * depth,
                b"{:a " * depth + b"1" + b"}" * depth,
                b"#{" * depth + b"1" + b"}" * depth,
                b"#a " * depth + b"1",
                b"#_ " * depth + b"1",
                b"\x91" * depth + b"\xc0",
                b"\x81\xa1a" * depth + b"\xc0",
                b'{"a":' * depth + b"1" + b"}" * depth,
                b'{"tx_data":' + b"[" * depth + b"]" * depth + b"}",
                b"[:find ?e :where " + b"(not " * depth + b"[?e :a]" + b")" * depth + b"]",
                b"[:find ?x :where [(+ " + b"(+ 1 " * depth + b"1" + b")" * depth + b" 1) ?x]]",
                b"\xc9" + struct.pack(">I", 5) + b"\x08" + b"\x91\xc7\x03\x08\x91",
            ]
        )
        return self._bad("deep", endpoint, payload)

    def _lying(self, endpoint: str) -> Bad:
        payload, _ = self._right(endpoint)
        kind = self._random.choice(
            ["application/json", "application/edn", "application/msgpack", "text/plain", "x", ""]
        )
        return self._bad("lying", endpoint, payload, f"Content-Type: {kind}\r\n".encode())

    def _headers(self, endpoint: str) -> Bad:
        payload, _ = self._right(endpoint)
        lines = self._random.choice(
            [
                b"Natalog-Timeout-Ms: \xc2\xb2\r\n",
                b"Natalog-Timeout-Ms: " + b"9" * 5000 + b"\r\n",
                b"Natalog-Timeout-Ms: -1\r\n",
                b"Natalog-Timeout-Ms: 0\r\n",
                b"Natalog-Timeout-Ms: 1e3\r\n",
                b"Nats-Msg-Id: " + b"x" * 1000 + b"\r\n",
                b"Nats-Msg-Id: \xff\xfe\r\n",
                b"Nats-Stream: natalog=target=db=log\r\n",
                b"\xff\xfe: \xff\r\n",
                b"no colon at all\r\n",
                b": empty\r\n",
                b"Content-Type\r\n",
                b"Content-Type: application/json\r\nContent-Type: application/edn\r\n",
                b"Content-Type: " + b"a" * 60_000 + b"\r\n",
                b"A: b\n\r\nC: d\r\n",
                b"A: \x00\r\n",
            ]
        )
        start = self._random.choice([b"NATS/1.0", b"NATS/1.0", b"NATS/1.0 503", b"NATS/1.0 \xff"])
        return self._bad("headers", endpoint, payload, lines, start)

    def _place(self, endpoint: str) -> Bad:
        payload, _ = self._right(endpoint)
        strange = [
            *(b"*", b">", b"_", b"-", b"-x", b"a" * 65, b"a" * 2000, b"nobody", b"db=log", b"a/b"),
            *(b"\xff\xfe", "ünï".encode(), b"a\x0bb", b"a\x0cb", b"a\x00b", b"$JS", b"target\x1f"),
            *(b"..", b"a\\b", b'"', b"'", b"%00", b"natalog", b"__", b"_3", b"DB", b"Target"),
        ]
        subject = b".".join(
            [
                b"natalog",
                self._random.choice([b"target", *strange]),
                self._random.choice([b"db", b"_", *strange]),
                endpoint.encode(),
            ]
        )
        return Bad("place", subject, payload)

    def _large(self, endpoint: str) -> Bad:
        million = 1_000_000
        payload = self._random.choice(
            [
                lambda: b"\xdd" + struct.pack(">I", 7 * million) + b"\x90" * 7 * million,
                lambda: b"\xdd" + struct.pack(">I", 7 * million) + b"\x80" * 7 * million,
                lambda: b"\xdf" + struct.pack(">I", 3 * million) + b"\x00" * 6 * million,
                lambda: (b"\xdd" + struct.pack(">I", million)) * 500 + b"\xc0" * million,
                lambda: b"[" + b"[]" * 3 * million + b"]",
                lambda: b"[" + b"{} " * 2 * million,
                lambda: b'["' + b"x" * 7 * million + b'"]',
                lambda: b"[" + b"9" * 7 * million + b"]",
                lambda: b"[1." + b"9" * 7 * million + b"]",
                lambda: b'{"a": [' + b"[]," * 2 * million + b"1]}",
                lambda: b'{"a": ' + b"9" * 5 * million + b"}",
                lambda: b"#{" + b" ".join(b"%d" % (n * MERSENNE) for n in range(1, 30_000)) + b"}",
                lambda: pack([UUID(int=n * MERSENNE) for n in range(1, 30_000)]),
                lambda: _colliding_set(30_000),
                lambda: b"[" + b" ".join(b":hostile/k%d" % n for n in range(200_000)) + b"]",
                lambda: pack({"tx_data": [{"name": f"n{n}", "age": "old"} for n in range(50_000)]}),
                lambda: pack(
                    {
                        "query": "[:find ?x :in [?x ...] :where [?x :age]]",
                        "args": [list(range(million))],
                    }
                ),
                lambda: ("[:find ?e :where " + "[?e :age] " * 20_000 + "]").encode(),
                lambda: ("[:find ?e :where (or " + "[?e :age] " * 20_000 + ")]").encode(),
            ]
        )()
        return self._bad("large", endpoint, payload)

    # --- pieces ------------------------------------------------------------------------------

    def _bad(
        self,
        kind: str,
        endpoint: str,
        payload: bytes,
        lines: bytes = b"",
        start: bytes = b"NATS/1.0",
    ) -> Bad:
        place = ".".join(("natalog", *PLACES.get(endpoint, ("target", "db")), endpoint))
        headers = start + b"\r\n" + lines + b"\r\n" if lines else b""
        return Bad(kind, place.encode(), payload, headers)

    def _right(self, endpoint: str) -> tuple[bytes, Any]:
        body = self._random.choice(BODIES[endpoint])
        return self._encoded(body), body

    def _encoded(self, body: Any) -> bytes:
        match self._random.randrange(4):
            case 0:
                try:
                    return edn.write(_keyworded(body)).encode("utf-8", "surrogatepass")
                except Exception:
                    return pack(None)
            case 1:
                try:
                    return to_json(body).encode("utf-8", "surrogatepass")
                except Exception:
                    return json.dumps(str(body)).encode()
            case _:
                try:
                    return pack(body)
                except Exception:
                    return b"\xc1"

    def _replaced(self, body: Any) -> Any:
        """The body with something strange somewhere inside."""
        if isinstance(body, dict) and body and self._random.random() < 0.85:
            key = self._random.choice(list(body))
            return {**body, key: self._replaced(body[key])}
        if isinstance(body, list) and body and self._random.random() < 0.6:
            at = self._random.randrange(len(body))
            return [*body[:at], self._replaced(body[at]), *body[at + 1 :]]
        return self._strange()

    def _strange(self) -> Any:
        choice = self._random.choice
        return choice(
            [
                *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, -(2**63), 10**400, 1.5, -0.0),
                *(
                    float("nan"),
                    float("inf"),
                    "",
                    "x",
                    "x" * 300,
                    "\x00",
                    "\ud800",
                    ":",
                    "::",
                    ":a/b",
                ),
                *(Keyword("db/ident"), Keyword("no/such"), Symbol("?e"), Symbol("$"), Symbol("%")),
                *(b"", b"\xff", [], {}, [[]], [None], {"": None}, {1: 2}, [{}], {"a": {"b": []}}),
                *(
                    Decimal("1E+7000"),
                    Decimal("-0"),
                    Fraction(1, 3),
                    UUID(int=0),
                    UUID(int=2**128 - 1),
                ),
                *(datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)),
                *(
                    Regex("("),
                    Regex("a{1000}{1000}"),
                    Tagged("x/y", 1),
                    Tagged("natalog/db", {"of": 1}),
                ),
                *(
                    EdnList([Symbol("+"), 1]),
                    Doubles([1.0]),
                    {1, 2},
                    frozenset(),
                    [Keyword("db/add")],
                ),
                [Keyword("db/add"), None, Keyword("name"), 1],
                [Keyword("db.fn/call"), "f"],
                [Keyword("db/cas"), 1, Keyword("age"), 1, "x"],
                [Keyword("db.purge/entity"), 10**9],
                {Keyword("db/ident"): Keyword("db/ident"), Keyword("db/valueType"): "no"},
                {"db/id": 2**60, "name": [1]},
                {"as_of": "yesterday"},
                {"commit": UUID(int=7)},
                {"with": [["db/add"]]},
                {"branch": "a.b"},
                {"natalog/db": {"database": "*"}},
                read("[:find ?x :where [(range 999999999) [?x ...]]]"),
                read("[:find ?a ?b ?c :where [?a] [?b] [?c]]"),
                "[:find ?e :where [?e ?a ?v] [?f ?b ?w] [?g ?c ?x]]",
                '[:find ?x :where [(re-find #"(a*)*b" "aaaaaaaaaaaaaaaaaaaaaaaaaaaa") ?x]]',
            ]
        )


def _keyworded(body: Any) -> Any:
    if isinstance(body, dict):
        return {
            Keyword(key.replace("_", "-")) if isinstance(key, str) and key else key: _keyworded(
                value
            )
            for key, value in body.items()
        }
    return [_keyworded(item) for item in body] if isinstance(body, list) else body


def _colliding_set(count: int) -> bytes:
    members = b"".join(pack(UUID(int=n * MERSENNE)) for n in range(1, count + 1))
    body = b"\xdd" + struct.pack(">I", count) + members
    return b"\xc9" + struct.pack(">I", len(body)) + b"\x08" + body


# --- a client that says anything -----------------------------------------------------------------


@dataclass
class Reply:
    """What came back: the parts' headers and bytes; ``done`` once they are all there."""

    headers: dict[str, str] = field(default_factory=dict)
    parts: dict[int, bytes] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def data(self) -> bytes:
        return b"".join(self.parts[number] for number in sorted(self.parts))

    def take(self, headers: dict[str, str], data: bytes) -> None:
        number, _, count = headers.get("Natalog-Part", "1/1").partition("/")
        self.headers = headers
        self.parts[int(number)] = data
        if len(self.parts) == int(count):
            self.done.set()


class RawClient:
    """A connection to NATS that writes whatever bytes it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self.waiting: dict[str, Reply] = {}
        self.heard: list[tuple[str, bytes]] = []
        """Messages on other subjects than our inbox."""
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, url: str, *subjects: str) -> RawClient:
        host, _, port = url.removeprefix("nats://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=64 * 1024 * 1024)
        self = cls(reader, writer)
        await reader.readline()
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}
        writer.write(f"CONNECT {json.dumps(options)}\r\nSUB _INBOX.raw.* 1\r\n".encode())
        for number, subject in enumerate(subjects, 2):
            writer.write(f"SUB {subject} {number}\r\n".encode())
        writer.write(b"PING\r\n")
        while await reader.readline() != b"PONG\r\n":
            pass
        self._task = asyncio.create_task(self._read())
        return self

    async def close(self) -> None:
        self._writer.close()
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    async def send(self, bad: Bad, timeout_s: float) -> Reply | None:
        """Send a request; its reply, None when none came in time."""
        token = str(next(self._numbers))
        reply = self.waiting[token] = Reply()
        inbox = f"_INBOX.raw.{token}".encode()
        self.publish(bad.subject, bad.payload, bad.headers, inbox)
        await self._writer.drain()
        try:
            async with asyncio.timeout(timeout_s):
                await reply.done.wait()
        except TimeoutError:
            return None
        finally:
            del self.waiting[token]
        return reply

    def publish(
        self, subject: bytes, payload: bytes, headers: bytes = b"", reply: bytes = b""
    ) -> None:
        middle = b" " + reply + b" " if reply else b" "
        if headers:
            sizes = b"%d %d" % (len(headers), len(headers) + len(payload))
            self._writer.write(b"HPUB " + subject + middle + sizes + b"\r\n" + headers)
        else:
            self._writer.write(b"PUB " + subject + middle + b"%d\r\n" % len(payload))
        self._writer.write(payload + b"\r\n")

    async def _read(self) -> None:
        while line := await self._reader.readline():
            words = line.split()
            if line == b"PING\r\n":
                self._writer.write(b"PONG\r\n")
            elif words[:1] in ([b"MSG"], [b"HMSG"]):
                size = int(words[-1])
                head = int(words[-2]) if words[0] == b"HMSG" else 0
                data = (await self._reader.readexactly(size + 2))[:-2]
                self._take(words[1].decode(), _parsed(data[:head]), data[head:])
            elif words[:1] == [b"-ERR"]:
                raise AssertionError(line)

    def _take(self, subject: str, headers: dict[str, str], data: bytes) -> None:
        if not subject.startswith("_INBOX.raw."):
            self.heard.append((subject, data))
            return
        reply = self.waiting.get(subject.rpartition(".")[2])
        if reply is not None:
            reply.take(headers, data)


def _parsed(block: bytes) -> dict[str, str]:
    first, _, rest = block.decode("utf-8", "replace").partition("\r\n")
    found = dict(line.split(": ", 1) for line in rest.split("\r\n") if ": " in line)
    status = first.partition(" ")[2]
    return {**found, "Status": status} if status else found

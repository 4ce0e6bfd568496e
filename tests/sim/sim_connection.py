"""A connection to the simulated server: what the service needs of a client of NATS."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nats import errors as nats_errors
from nats.aio.msg import Msg
from sim_loop import Process

if TYPE_CHECKING:
    from sim_nats import SimServer

_OUTSIDE = Context()
MAX_PAYLOAD = 64 * 1024
RECONNECT_S = 0.1


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
        self.client.end(self)


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
        self._waiting: dict[str, Callable[[Msg], object]] = {}
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

    def frame(
        self, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None
    ) -> tuple[Any, ...]:
        return subject, payload, reply, dict(headers or {})

    def send(self, made: Sequence[tuple[Any, ...]], size: int, *, now: bool = False) -> None:
        if self.is_closed:
            raise nats_errors.ConnectionClosedError
        for subject, payload, reply, headers in made:
            self.on_send(subject)
            self._send(subject, bytes(payload), reply, headers)

    async def asking(self) -> None:
        """Answers are heard from the beginning."""

    def ask(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        on_answer: Callable[[Msg], object],
    ) -> str:
        if len(payload) > self.max_payload:
            raise nats_errors.MaxPayloadError
        self._numbers += 1
        token = str(self._numbers)
        self._waiting[token] = on_answer
        try:
            self.send([self.frame(subject, payload, self.answers_prefix + token, headers)], 0)
        except BaseException:
            del self._waiting[token]
            raise
        return token

    async def request(
        self, subject: str, payload: bytes, timeout_s: float, headers: dict[str, str] | None
    ) -> Msg:
        """For those outside: the answer, or one of the errors that nats-py raises."""
        future: asyncio.Future[Msg] = self.server.loop.create_future()
        token = self.ask(subject, payload, headers, future.set_result)
        try:
            message = await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise nats_errors.TimeoutError from None
        finally:
            self.forget(token)
        if (message.headers or {}).get("Status") == "503":
            raise nats_errors.NoRespondersError
        return message

    def forget(self, token: str) -> None:
        self._waiting.pop(token, None)

    def _on_answer(self, message: Msg) -> None:
        on_answer = self._waiting.pop(message.subject.rpartition(".")[2], None)
        if on_answer is not None:
            on_answer(message)

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

    async def listen(self, subject: str, handler: Any, queue: str = "") -> Subscription:
        return await self.subscribe(subject, queue, handler)

    def end(self, subscription: Subscription) -> None:
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

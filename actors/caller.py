"""Requests of this process to the service's own subjects, as any client would send them.

What a process serves over HTTP goes through the same handlers as what it serves over NATS, whatever
role it has and whichever process answers.  Answers too large for a message come in parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from nats.aio.subscription import Subscription

from natalog.actors.nats_port import Message, NatsPort
from natalog.actors.runtime import STOPPING
from natalog.core.codec import pack
from natalog.core.errors import CodecError, DeadlineExceeded, NatalogError, Unavailable

PARTS_MAX: Final = 100_000
LOOK_S: Final = 0.5
"""How often a request that waits looks whether the connection still is the one it went over."""


class Reply(NamedTuple):
    """An answer, its parts joined."""

    data: bytes
    headers: Mapping[str, str]


class _Waiting:
    __slots__ = ("future", "more", "parts")

    def __init__(self, future: asyncio.Future[Reply], more: str) -> None:
        self.future = future
        self.more = more
        self.parts: dict[int, bytes] = {}

    def take(self, message: Message) -> None:
        if self.future.done():
            return
        headers: Mapping[str, str] = message.headers or {}
        part = headers.get("Natalog-Part")
        if part is None:
            self.future.set_result(Reply(message.data, headers))
            return
        number, _, total = part.partition("/")
        count = int(total) if total.isdigit() else 0
        if not (number.isdigit() and 1 <= int(number) <= count <= PARTS_MAX):
            self.future.set_exception(CodecError(f"A part of an answer is {part!r}.", part=part))
            return
        self.parts[int(number)] = message.data
        if len(self.parts) == count:
            data = b"".join(self.parts[at] for at in range(1, count + 1))
            self.future.set_result(Reply(data, headers))


class Caller:
    """Sends requests over the connection of the service and waits for their answers."""

    def __init__(self, port: NatsPort) -> None:
        self._port = port
        self._inbox = port.inbox()
        self._tokens = itertools.count(1)
        self._waiting: dict[str, _Waiting] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._subscription: Subscription | None = None
        self._stopped = False

    async def start(self) -> None:
        self._subscription = await self._port.subscribe(f"{self._inbox}.*", self._on_reply)

    async def stop(self) -> None:
        """Take no more answers; who waits for one, or asks now, hears `Unavailable`."""
        self._stopped = True
        if self._subscription is not None:
            await self._port.unsubscribe(self._subscription)
        for one in self._waiting.values():
            if not one.future.done():
                one.future.set_exception(Unavailable(STOPPING))

    async def call(
        self,
        subject: str,
        payload: bytes,
        *,
        timeout_s: float,
    ) -> Reply:
        """Send a msgpack body, return the whole answer, which may describe an error.

        Cancelling the call cancels the read.  Raises `Unavailable` when nobody serves the subject
        or the connection is down, `DeadlineExceeded`, `TooLarge`.
        """
        if self._stopped:
            raise Unavailable(STOPPING)
        if not self._port.is_connected:
            raise Unavailable("The service has no connection to NATS.", subject=subject)
        disconnects = self._port.disconnects
        token = str(next(self._tokens))
        inbox = f"{self._inbox}.{token}"
        place = subject.rpartition(".")[0]
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        one = self._waiting[token] = _Waiting(future, f"{place}.more")
        headers = {
            "Content-Type": "application/msgpack",
            "Natalog-Timeout-Ms": str(int(timeout_s * 1000)),
        }
        try:
            async with asyncio.timeout(timeout_s):
                await self._port.publish(subject, payload, headers=headers, reply=inbox)
                while not one.future.done():
                    await asyncio.wait([one.future], timeout=LOOK_S)
                    if not one.future.done() and self._port.disconnects != disconnects:
                        raise Unavailable(
                            "The connection to NATS was lost while waiting for the answer.",
                            subject=subject,
                        )
                reply = await one.future
        except TimeoutError:
            raise DeadlineExceeded(
                f"No answer came on {subject} within {timeout_s:g} s.", subject=subject
            ) from None
        except asyncio.CancelledError:
            if not one.future.done():
                self._tell(f"{place}.cancel", {"request_id": inbox})
            raise
        finally:
            del self._waiting[token]
        if reply.headers.get("Status") == "503" and not reply.data:
            raise Unavailable(f"Nobody serves {subject}.", subject=subject)
        return reply

    def _on_reply(self, message: Message) -> None:
        one = self._waiting.get(message.subject.rpartition(".")[2])
        if one is None:
            return
        one.take(message)
        headers: Mapping[str, str] = message.headers or {}
        more = headers.get("Natalog-More")
        if more is not None:  # the next parts are sent when it is known that these are here
            self._tell(one.more, {"id": more, "part": headers.get("Natalog-Part")})

    def _tell(self, subject: str, body: Mapping[str, Any]) -> None:
        task = asyncio.get_running_loop().create_task(self._told(subject, pack(body)))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _told(self, subject: str, payload: bytes) -> None:
        with contextlib.suppress(NatalogError):
            await self._port.publish(subject, payload)

"""Answers that do not fit one message: sent in parts, as fast as the asker takes them.

After each window of parts the service waits until the asker has said on ``.more`` that it has them,
so that nothing piles up before a slow one, in the service or in the NATS server.  Who says nothing
(a reader of the subject by hand) gets the rest without being waited for.  An asker that has gone is
noticed: parts at the ends of windows have a reply subject, on which the NATS server says that
nobody listens; and what was cancelled is not sent on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from natalog.actors.nats_port import Message, NatsPort
from natalog.core.errors import Busy, NatalogError, TooLarge
from natalog.core.limits import ANSWER_BYTES_MAX, ANSWERS_BYTES_MAX

log = logging.getLogger("natalog.parts")

PART_BYTES: Final = 1024 * 1024
WINDOW_PARTS: Final = 8
FIRST_WAIT_S: Final = 1.0
"""How long the first window waits for a word of the asker, who may be one who says none."""
SILENT_WAIT_S: Final = 0.05
"""And the later ones of such an asker: for the NATS server to say that it has gone."""
WAIT_S: Final = 30.0
"""An asker that did speak and then takes no more for so long has gone."""
RETRY_AFTER_MS: Final = 500


class Parts:
    """The large answers of one process that are on their way."""

    def __init__(self, port: NatsPort) -> None:
        self._port = port
        self._inbox = port.inbox()
        self._subscription: Any = None
        self._sending: dict[str, _Answer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.bytes = 0

    async def start(self) -> None:
        """Listen for askers that have gone."""
        self._subscription = await self._port.subscribe(f"{self._inbox}.*", self._on_gone)

    async def stop(self) -> None:
        """Send no more."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        if self._subscription is not None:
            await self._port.unsubscribe(self._subscription)

    def send(
        self, reply: str, payload: bytes, headers: Mapping[str, str], *, done: bool = False
    ) -> None:
        """Begin to send ``payload`` to ``reply``.

        Raises `TooLarge` for an answer beyond all measure, `Busy` while too many bytes of others
        wait; neither when what was asked for has been ``done``.
        """
        size = len(payload)
        if not done and size > ANSWER_BYTES_MAX:
            raise TooLarge(
                f"The answer has {size} bytes; at most {ANSWER_BYTES_MAX} are sent. Ask for less, "
                "with limit and offset.",
                bytes=size,
                bytes_max=ANSWER_BYTES_MAX,
            )
        if not done and self.bytes and self.bytes + size > ANSWERS_BYTES_MAX:
            raise Busy(
                f"Large answers of {self.bytes} bytes are on their way to others.",
                retry_after_ms=RETRY_AFTER_MS,
            )
        answer = _Answer(reply)
        self._sending[answer.ident] = answer
        self.bytes += size
        task = asyncio.get_running_loop().create_task(self._run(answer, payload, dict(headers)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def more(self, ident: Any) -> None:
        """The asker of an answer has what was sent of it."""
        answer = self._sending.get(ident) if isinstance(ident, str) else None
        if answer is not None:
            answer.speaks = True
            answer.heard.set()

    def cancel(self, reply: Any) -> bool:
        """Send no more of the answer to this reply subject; false when there is none."""
        found = [answer for answer in self._sending.values() if answer.reply == reply]
        for answer in found:
            answer.gone = True
            answer.heard.set()
        return bool(found)

    def _on_gone(self, message: Message) -> None:
        answer = self._sending.get(message.subject.rpartition(".")[2])
        if answer is not None and (message.headers or {}).get("Status") == "503":
            answer.gone = True
            answer.heard.set()

    async def _run(self, answer: _Answer, payload: bytes, headers: dict[str, str]) -> None:
        size = min(PART_BYTES, self._port.payload_room)
        count = -(-len(payload) // size)
        try:
            for part in range(1, count + 1):
                pause = part % WINDOW_PARTS == 0 and part < count
                answer.heard.clear()
                if pause:
                    headers["Natalog-More"] = answer.ident
                else:
                    headers.pop("Natalog-More", None)
                headers["Natalog-Part"] = f"{part}/{count}"
                await self._port.publish(
                    answer.reply,
                    payload[(part - 1) * size : part * size],
                    headers=headers,
                    reply=f"{self._inbox}.{answer.ident}" if pause or part == 1 else "",
                )
                await asyncio.sleep(0)
                if pause:
                    await answer.wait(first=part == WINDOW_PARTS)
                if answer.gone:
                    log.info("an asker has gone: part %d of %d was the last", part, count)
                    return
        except NatalogError as error:
            log.warning("a large answer was lost: %s", error.message)
        finally:
            self._sending.pop(answer.ident, None)
            self.bytes -= len(payload)


class _Answer:
    """One answer on its way; ``speaks`` once the asker has said that it takes parts."""

    __slots__ = ("gone", "heard", "ident", "reply", "speaks")

    def __init__(self, reply: str) -> None:
        self.reply = reply
        self.ident = uuid4().hex
        self.heard = asyncio.Event()
        self.speaks = False
        self.gone = False

    async def wait(self, *, first: bool) -> None:
        """Until the asker has what was sent, or has gone."""
        limit = WAIT_S if self.speaks else FIRST_WAIT_S if first else SILENT_WAIT_S
        try:
            async with asyncio.timeout(limit):
                await self.heard.wait()
        except TimeoutError:
            self.gone = self.speaks

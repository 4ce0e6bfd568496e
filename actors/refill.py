"""Filling a stream anew with messages that had their places: at the very same sequence numbers.

Where a message was erased or removed, a placeholder takes its number and is erased in turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final

from natalog.actors.nats_port import NatsPort
from natalog.core.errors import BackupCorrupt, StorageError

WINDOW: Final = 64
"""Messages on their way at once."""
PLACEHOLDER: Final = b"\x00"
TIMEOUT_S: Final = 30.0


class Refill:
    """Writes into one stream that nobody else writes to.  Call `put` in order, then `finish`."""

    def __init__(self, port: NatsPort, stream: str, subject: str, *, last_seq: int = 0) -> None:
        """``last_seq``: of the stream as it is."""
        self._port = port
        self._stream = stream
        self._subject = subject
        self._last = last_seq
        self._waiting: deque[asyncio.Task[None]] = deque()
        self._holes: list[int] = []

    @property
    def last_seq(self) -> int:
        """The number that was written last."""
        return self._last

    async def put(self, seq: int, data: bytes, headers: Mapping[str, str]) -> None:
        """Write the message with number ``seq``, which is beyond the last one."""
        if seq <= self._last:
            raise BackupCorrupt(f"Message {seq} of {self._stream} comes after {self._last}.")
        await self.skip_to(seq)
        await self._send(seq, data, headers)

    async def skip_to(self, seq: int) -> None:
        """See that ``seq`` is the next number."""
        while self._last + 1 < seq:
            hole = self._last + 1
            await self._send(hole, PLACEHOLDER, {})
            self._holes.append(hole)

    async def finish(self) -> None:
        """Wait until everything is stored, and erase the placeholders."""
        while self._waiting:
            await self._waiting.popleft()
        for hole in self._holes:
            await self._port.erase(self._stream, hole)
        self._holes.clear()
        info = await self._port.stream_info(self._stream)
        if info is None or int(info["state"]["last_seq"]) != self._last:
            raise StorageError(f"The stream {self._stream} was changed while it was written.")

    async def abandon(self) -> None:
        """Give up what is on its way."""
        for task in self._waiting:
            task.cancel()
        if self._waiting:
            await asyncio.wait(self._waiting)
        self._waiting.clear()

    async def _send(self, seq: int, data: bytes, headers: Mapping[str, str]) -> None:
        if len(self._waiting) >= WINDOW:
            await self._waiting.popleft()
        # the server takes them in order: each expects its predecessor
        work = self._append(seq, data, headers)
        self._waiting.append(asyncio.get_running_loop().create_task(work))
        self._last = seq
        await asyncio.sleep(0)  # it is given to the connection before the next one is

    async def _append(self, seq: int, data: bytes, headers: Mapping[str, str]) -> None:
        receipt = await self._port.append(
            self._subject,
            data,
            expected_last=seq - 1,
            stream=self._stream,
            headers=headers,
            timeout_s=TIMEOUT_S,
        )
        if receipt.seq != seq:
            raise StorageError(f"Message {seq} of {self._stream} was stored as {receipt.seq}.")


__all__ = ["Refill"]

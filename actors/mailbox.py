"""A bounded queue with one receiver, as short as it can be: every transaction goes through one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any


class MailboxFull(Exception):
    """There is no room for a message at the moment."""


class MailboxClosed(Exception):
    """Nobody receives any more."""


class Mailbox:
    """Messages in the order in which they came; for one receiver, in one event loop."""

    __slots__ = ("_closed", "_items", "_receiver", "_room", "_waiting")

    def __init__(self, room: int) -> None:
        self._room = room
        self._items: deque[Any] = deque()
        self._waiting: deque[tuple[asyncio.Future[None], Any]] = deque()
        """Senders that wait for room, and what they send."""
        self._receiver: asyncio.Future[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put_nowait(self, item: Any) -> None:
        """Put ``item`` in; raises `MailboxFull` or `MailboxClosed`."""
        if self._closed:
            raise MailboxClosed
        if len(self._items) >= self._room:
            raise MailboxFull
        self._items.append(item)
        receiver = self._receiver
        if receiver is not None and not receiver.done():
            receiver.set_result(None)

    async def put(self, item: Any) -> None:
        """Put ``item`` in once there is room, in turn; raises `MailboxClosed`."""
        try:
            self.put_nowait(item)
        except MailboxFull:
            sender = (asyncio.get_running_loop().create_future(), item)
            self._waiting.append(sender)
            try:
                await sender[0]
            finally:
                if sender in self._waiting:
                    self._waiting.remove(sender)

    def take_nowait(self) -> Any | None:
        """The next item if there is one; who waits for room comes in."""
        if not self._items:
            return None
        item = self._items.popleft()
        while self._waiting and len(self._items) < self._room:
            sender, waited = self._waiting.popleft()
            if not sender.done():
                self._items.append(waited)
                sender.set_result(None)
        return item

    async def take(self) -> Any:
        """The next item, waiting for it; others have their turn before one that is there."""
        if self._items:
            await asyncio.sleep(0)
        while not self._items:
            self._receiver = asyncio.get_running_loop().create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        return self.take_nowait()

    def close(self) -> None:
        """Take nothing new in; who takes the rest with `take_nowait` gets that of waiting senders,
        too."""
        self._closed = True

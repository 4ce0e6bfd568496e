"""What changes when the lease changes hands: who takes transactions, and who follows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from natalog.actors.heads import AT_ONCE_MAX, INTERVAL_S
from natalog.actors.hub import Hub
from natalog.actors.lease import Lease
from natalog.actors.nats_port import Handler, NatsPort
from natalog.core.errors import NatalogError

log = logging.getLogger("natalog.turn")


class Turn:
    """Serves what only the holder of the lease serves, as long as this process holds it.

    ``handlers``: by subject.  ``subscriptions``: those that stand now.
    """

    def __init__(
        self,
        port: NatsPort,
        hub: Hub,
        lease: Lease,
        handlers: Callable[[], Mapping[str, Handler]],
    ) -> None:
        self.subscriptions: list[Any] = []
        self._port = port
        self._hub = hub
        self._lease = lease
        self._handlers = handlers
        self._opened = False

    async def begin(self) -> None:
        """At the start, when all branches have been opened: serve, if the lease is held."""
        if self._lease.held:
            await self._subscribe()
            self._opened = True

    async def follow(self) -> None:
        """Begin to take transactions, or leave them to another process, when the lease changes."""
        lease = self._lease
        while True:
            if lease.held:
                if not self.subscriptions:
                    await self._subscribe()
                if not self._opened:
                    await self._hub.take_over()
                    self._opened = True
            else:
                self._opened = False
                subscriptions, self.subscriptions = self.subscriptions, []
                await self._port.drain(subscriptions)
                await self._hub.hand_over()
                lease.wanted = True
            await lease.changed.wait()
            lease.changed.clear()

    async def publish_heads(self) -> None:
        """Write down how far the logs have gone, again and again."""
        while True:
            await anyio.sleep(INTERVAL_S)
            if self._lease.held:
                await self._hub.publish_heads(limit=AT_ONCE_MAX)

    async def end(self) -> None:
        """Write down the rest; nothing is served any more."""
        if self._lease.held:
            await self._hub.publish_heads()

    async def _subscribe(self) -> None:
        """Without a queue group: a process that was stopped and has lost the lease without knowing
        still gets what is meant for the one that has it, and must not get it instead.
        """
        made: list[Any] = []
        try:
            for subject, handler in self._handlers().items():
                made.append(await self._port.subscribe(subject, handler))
        except NatalogError:
            await self._port.drain(made)
            raise
        self.subscriptions = made


__all__ = ["Turn"]

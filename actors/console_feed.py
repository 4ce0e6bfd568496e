"""Live reports for browsers: server-sent events of every branch of a database.

Events: ``report`` (a committed transaction or a rejection), ``changed`` (databases or branches came
or went), ``lost`` (how many events a slow reader missed).  The data are JSON without loss.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

import anyio
from starlette.responses import Response, StreamingResponse

from natalog.actors.catalog import CHANGED
from natalog.actors.names import NOBODY, Names
from natalog.actors.nats_port import Message, NatsPort
from natalog.core.codec import unpack
from natalog.core.codec_tagged import to_tagged_json
from natalog.core.errors import Busy, NatalogError

FEEDS_MAX: Final = 64
WAITING_MAX: Final = 256
"""Events that wait for a slow reader; later ones are counted and dropped."""
DATOMS_MAX: Final = 200
"""Datoms of a report that travel; ``datoms`` says how many there are."""
REPORT_BYTES_MAX: Final = 512 * 1024
"""A larger report is only announced."""
ALIVE_S: Final = 10.0


class _Events:
    """The events that one reader has not read yet."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._news = asyncio.Event()
        self._lost = 0
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self._news.set()

    def on_report(self, message: Message) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._lost += 1
            return
        try:
            self._add("report", _report(message))
        except NatalogError:
            self._lost += 1

    def on_changed(self, message: Message) -> None:
        if len(self._waiting) < WAITING_MAX:
            self._add("changed", message.data.decode("utf-8", "replace").split(" "))

    def _add(self, event: str, data: Any) -> None:
        self._waiting.append(_event(event, data))
        self._news.set()

    async def read(self) -> AsyncIterator[str]:
        yield "retry: 1000\n" + _event("ready", {})
        while not self.closed:
            try:
                async with asyncio.timeout(ALIVE_S):
                    await self._news.wait()
            except TimeoutError:
                yield ": alive\n\n"
                continue
            self._news.clear()
            while self._waiting:
                yield self._waiting.popleft()
            if self._lost:
                lost, self._lost = self._lost, 0
                yield _event("lost", lost)


class Feeds:
    """The open feeds of a process."""

    def __init__(self, port: NatsPort, names: Names) -> None:
        self._port = port
        self._names = names
        self._open: set[_Events] = set()

    async def stop(self) -> None:
        for events in list(self._open):
            events.close()

    def response(self, database: str) -> Response:
        """The events of a database from now on; `Busy` when too many read already."""
        if len(self._open) >= FEEDS_MAX:
            raise Busy("Too many pages follow the feed.", retry_after_ms=5000)
        return StreamingResponse(self._stream(database), media_type="text/event-stream")

    async def _stream(self, database: str) -> AsyncIterator[str]:
        events = _Events()
        self._open.add(events)
        subscriptions = []
        try:
            reports = self._names.report(database, "*")
            changes = self._names.subject(NOBODY, NOBODY, CHANGED)
            subscriptions.append(await self._port.subscribe(reports, events.on_report))
            subscriptions.append(await self._port.subscribe(changes, events.on_changed))
            async for event in events.read():
                yield event
        finally:
            self._open.discard(events)
            with anyio.CancelScope(shield=True):
                for subscription in subscriptions:
                    await self._port.unsubscribe(subscription)


def _event(event: str, data: Any) -> str:
    return f"event: {event}\ndata: {to_tagged_json(data)}\n\n"


def _report(message: Message) -> Any:
    """A report of bounded size."""
    database, branch = message.subject.split(".")[-3:-1]
    if len(message.data) > REPORT_BYTES_MAX:
        basis = (message.headers or {}).get("Natalog-Basis", "0")
        tx = int(basis) if basis.isdigit() else 0
        return {"tx": tx, "database": database, "branch": branch, "large": True}
    body = unpack(message.data)
    datoms = body.get("tx_data") if isinstance(body, dict) else None
    if isinstance(datoms, list):
        body["datoms"] = len(datoms)
        body["tx_data"] = datoms[:DATOMS_MAX]
    return body

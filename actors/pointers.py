"""Small messages that say where snapshots are: read, and replaced by compare-and-set.

A message goes by its key: a lane, whose snapshots it lists, or None for what concerns the segments
of the whole database.  Its version is a number that grows with every replacement; 0 stands for a
message that was never written.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import uuid4

import anyio

from natalog.actors.names import Names
from natalog.actors.nats_port import (
    STREAM_NOT_FOUND,
    WRONG_LAST_SEQUENCE,
    JetStreamError,
    NatsPort,
)
from natalog.actors.segments.wire import Wire
from natalog.core.errors import DeadlineExceeded, Unavailable

ATTEMPTS_MAX: Final = 20
PAUSE_S: Final = 0.05
IN_FLIGHT: Final = 32


class Superseded(Exception):
    """Somebody else has replaced the message meanwhile."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A message and its version."""

    data: bytes
    version: int


class Pointers(Protocol):
    """The messages of one database.  Thread-safe and blocking."""

    def read(self, lane: int | None) -> Pointer | None:
        """The message of a lane; None when there is none."""

    def read_all(self) -> Mapping[int, Pointer]:
        """The messages of all lanes."""

    def write(self, lane: int | None, data: bytes, version: int) -> int:
        """Replace the message of ``version``; returns the new one.  Raises `Superseded`."""

    def erase(self, lane: int) -> None:
        """Remove the message of a lane."""

    def clear(self) -> None:
        """Remove everything."""


class MemoryPointers:
    """Messages in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int | None, Pointer] = {}
        self._last = 0

    def read(self, lane: int | None) -> Pointer | None:
        return self._held.get(lane)

    def read_all(self) -> Mapping[int, Pointer]:
        with self._lock:
            return {lane: held for lane, held in self._held.items() if lane is not None}

    def write(self, lane: int | None, data: bytes, version: int) -> int:
        with self._lock:
            held = self._held.get(lane)
            if version != (0 if held is None else held.version):
                raise Superseded
            self._last += 1
            self._held[lane] = Pointer(data, self._last)
            return self._last

    def erase(self, lane: int) -> None:
        with self._lock:
            self._held.pop(lane, None)

    def clear(self) -> None:
        with self._lock:
            self._held.clear()


class JetStreamPointers:
    """Messages in the stream ``natalog=<db>=_=snapshots``, made when the first is written."""

    def __init__(self, wire: Wire, names: Names, database: str, *, replicas: int = 1) -> None:
        self._wire = wire
        self._names = names
        self._database = database
        self._stream = names.snapshots_stream(database)
        self._replicas = replicas

    def _subject(self, lane: int | None) -> str:
        if lane is None:
            return self._names.generations(self._database)
        return self._names.snapshots(self._database, lane)

    def read(self, lane: int | None) -> Pointer | None:
        subject = self._subject(lane)

        async def read(port: NatsPort) -> Pointer | None:
            for attempt in range(ATTEMPTS_MAX):
                try:
                    found = await port.read(self._stream, last_by_subject=subject)
                    return None if found is None else _pointer(found)
                except Unavailable:
                    # a stream that was just made, or a server that was, does not answer at once
                    if await port.stream_info(self._stream) is None:
                        return None
                    if attempt + 1 == ATTEMPTS_MAX:
                        raise
                    await anyio.sleep(PAUSE_S)
            raise AssertionError("unreachable")

        return self._wire.call(read)

    def read_all(self) -> Mapping[int, Pointer]:
        async def read(port: NatsPort) -> Mapping[int, Pointer]:
            # not through a consumer: on a cluster that may be one of a server that lags behind
            lanes = await self._lanes(port)
            found: dict[int, Pointer] = {}
            for start in range(0, len(lanes), IN_FLIGHT):
                batch = lanes[start : start + IN_FLIGHT]
                subjects = [self._subject(lane) for lane in batch]
                read = (port.read(self._stream, last_by_subject=subject) for subject in subjects)
                for lane, message in zip(batch, await asyncio.gather(*read), strict=True):
                    if message is not None:
                        found[lane] = _pointer(message)
            return found

        return self._wire.call(read)

    async def _lanes(self, port: NatsPort) -> list[int]:
        """The lanes that have a message."""
        found: list[int] = []
        seen, total = 0, 1
        while seen < total:
            wish = {"subjects_filter": ">", "offset": seen}
            try:
                info = await port.api(f"STREAM.INFO.{self._stream}", wish)
            except JetStreamError as error:
                if error.err_code == STREAM_NOT_FOUND:
                    return []
                raise
            page = info["state"].get("subjects") or {}
            if not page:
                break
            seen += len(page)
            total = int(info.get("total") or 0)
            lanes = (self._names.parse(subject)[1][1:] for subject in page)
            found += [int(lane) for lane in lanes if lane]
        return found

    def write(self, lane: int | None, data: bytes, version: int) -> int:
        subject = self._subject(lane)
        ident = uuid4().hex

        async def write(port: NatsPort) -> int:
            for attempt in range(ATTEMPTS_MAX):
                try:
                    receipt = await port.append(
                        subject,
                        data,
                        expected_last_of_subject=version,
                        message_id=ident,
                        stream=self._stream,
                    )
                    return receipt.seq
                except JetStreamError as error:
                    if error.err_code != WRONG_LAST_SEQUENCE:
                        raise
                    # or it was mine, and its receipt was lost
                    found = await port.read(self._stream, last_by_subject=subject)
                    if found is not None and (found.headers or {}).get("Nats-Msg-Id") == ident:
                        return _pointer(found).version
                    raise Superseded from error
                except (Unavailable, DeadlineExceeded):
                    if await port.stream_info(self._stream) is None:
                        await port.stream_create(self._config())
                    elif attempt + 1 == ATTEMPTS_MAX:
                        raise
                    else:
                        await anyio.sleep(PAUSE_S)
            raise AssertionError("unreachable")

        return self._wire.call(write)

    def _config(self) -> dict[str, Any]:
        return {
            "name": self._stream,
            "subjects": [self._names.subject(self._database, "*", "snapshots")],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_msgs_per_subject": 1,
            "num_replicas": self._replicas,
            "allow_direct": True,
        }

    def erase(self, lane: int) -> None:
        subject = self._subject(lane)

        async def purge(port: NatsPort) -> None:
            try:
                await port.api(f"STREAM.PURGE.{self._stream}", {"filter": subject})
            except JetStreamError as error:
                if error.err_code != STREAM_NOT_FOUND:
                    raise

        self._wire.call(purge)

    def clear(self) -> None:
        self._wire.call(lambda port: port.stream_delete(self._stream))


def _pointer(message: Any) -> Pointer:
    return Pointer(message.data, int((message.headers or {})["Nats-Sequence"]))

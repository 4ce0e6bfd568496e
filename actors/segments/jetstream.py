"""Segments in JetStream: a stream for each generation, a message for each segment.

The last message of a segment's subject is the segment, read by direct get.  A subject takes one
message (``discard_new_per_subject``), so that laying a segment down twice costs no byte.  Segments
travel in atomic batches: the server syncs a batch once, not each of its messages, and whoever waits
for the same disk waits little.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from functools import partial
from typing import Final

import anyio

from natalog.actors.names import Names
from natalog.actors.nats_port import JetStreamError, NatsPort
from natalog.actors.reader import StreamReader
from natalog.actors.segments.shelf import GenerationGone, Segment
from natalog.actors.segments.wire import Wire
from natalog.core.errors import DeadlineExceeded, TooLarge, Unavailable

log = logging.getLogger("natalog.segments")

SUBJECT_TAKEN: Final = 10077
"""JetStream's refusal of a second message on a subject."""
IN_FLIGHT: Final = 16
"""Segments that travel at a time where they travel one by one."""
BATCH_SEGMENTS: Final = 128
BATCH_BYTES: Final = 1024 * 1024
BATCHES_MAX: Final = 2
"""Batches that travel while the next is made."""
ATTEMPTS_MAX: Final = 20
PAUSE_S: Final = 0.05
HEADER_BYTES_MAX: Final = 512


class JetStreamShelf:
    """The segments of one database."""

    kind = "jetstream"

    def __init__(self, wire: Wire, names: Names, database: str, *, replicas: int = 1) -> None:
        self._wire = wire
        self._names = names
        self._database = database
        self._replicas = replicas

    def create(self, generation: int) -> None:
        config = {
            "name": self._names.segments_stream(self._database, generation),
            "subjects": [self._names.segment(self._database, generation, "*")],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "discard_new_per_subject": True,
            "max_msgs_per_subject": 1,
            "num_replicas": self._replicas,
            "allow_direct": True,
            "allow_atomic": True,
        }
        self._wire.call(lambda port: port.stream_create(config))

    def get(self, generation: int, name: str) -> bytes | None:
        return self._wire.call(lambda port: self._read(port, generation, name))

    async def _read(self, port: NatsPort, generation: int, name: str) -> bytes | None:
        stream = self._names.segments_stream(self._database, generation)
        subject = self._names.segment(self._database, generation, name)
        for attempt in range(ATTEMPTS_MAX):
            try:
                found = await port.read(stream, last_by_subject=subject)
                return None if found is None else found.data
            except Unavailable:
                # a stream that was just made, or a server that was, does not answer at once
                if await port.stream_info(stream) is None:
                    return None
                if attempt + 1 == ATTEMPTS_MAX:
                    raise
                await anyio.sleep(PAUSE_S)
        raise AssertionError("unreachable")

    def put_many(self, generation: int, segments: Iterable[Segment]) -> int:
        travelling: deque[Future[int]] = deque()
        size = 0
        for batch in _batches(segments):
            travelling.append(self._wire.submit(partial(self._put, generation, batch)))
            if len(travelling) > BATCHES_MAX:
                size += self._wire.wait(travelling.popleft())
        for future in travelling:
            size += self._wire.wait(future)
        return size

    async def _put(self, generation: int, batch: list[Segment], port: NatsPort) -> int:
        for _, data in batch:
            if len(data) + HEADER_BYTES_MAX > port.payload_room:
                raise TooLarge(
                    f"A segment has {len(data)} bytes; {port.payload_room} fit a message.",
                    bytes=len(data),
                    bytes_max=port.payload_room,
                )
        if len(batch) > 1:
            messages = [
                (self._names.segment(self._database, generation, name), data)
                for name, data in batch
            ]
            try:
                await port.append_all(messages)
                return sum(len(data) for _, data in batch)
            except (JetStreamError, Unavailable, DeadlineExceeded) as error:
                # one of them is there already, or the outcome is not known
                log.debug("segments go one by one: %s", error.message)
        size = 0
        for start in range(0, len(batch), IN_FLIGHT):
            few = batch[start : start + IN_FLIGHT]
            size += sum(await asyncio.gather(*(self._put_one(port, generation, *s) for s in few)))
        return size

    async def _put_one(self, port: NatsPort, generation: int, name: str, data: bytes) -> int:
        stream = self._names.segments_stream(self._database, generation)
        subject = self._names.segment(self._database, generation, name)
        for attempt in range(ATTEMPTS_MAX):
            try:
                await port.append(subject, data, stream=stream)
                return len(data)
            except JetStreamError as error:
                if error.err_code == SUBJECT_TAKEN:
                    return 0
                raise
            except (Unavailable, DeadlineExceeded) as error:
                # it may be there by now: laying it down again is refused and does no harm
                if await port.stream_info(stream) is None:
                    raise GenerationGone from error
                if attempt + 1 == ATTEMPTS_MAX:
                    raise
                await anyio.sleep(PAUSE_S)
        raise AssertionError("unreachable")

    def names(self, generation: int) -> set[str]:
        stream = self._names.segments_stream(self._database, generation)

        async def read(port: NatsPort) -> set[str]:
            found: set[str] = set()
            total = 1
            while len(found) < total:
                wish = {"subjects_filter": ">", "offset": len(found)}
                try:
                    info = await port.api(f"STREAM.INFO.{stream}", wish)
                except JetStreamError as error:
                    if error.status == 404:
                        return set()
                    raise
                page = info["state"].get("subjects") or {}
                if not page:
                    break
                found.update(subject.rpartition(".")[2] for subject in page)
                total = int(info.get("total") or 0)
            return found

        return self._wire.call(read)

    def sizes(self, generation: int) -> dict[str, int]:
        stream = self._names.segments_stream(self._database, generation)

        async def read(port: NatsPort) -> dict[str, int]:
            info = await port.stream_info(stream)
            if info is None or not info["state"]["messages"]:
                return {}
            reader = StreamReader(port, stream, gaps=True, headers_only=True)
            found = {}
            async with aclosing(reader.messages(int(info["state"]["last_seq"]))) as batches:
                async for batch in batches:
                    for one in batch:
                        name = one.subject.rpartition(".")[2]
                        found[name] = int(one.headers["Nats-Msg-Size"])
            return found

        return self._wire.call(read, 600)

    def discard(self, generation: int, name: str) -> None:
        stream = self._names.segments_stream(self._database, generation)
        subject = self._names.segment(self._database, generation, name)

        async def remove(port: NatsPort) -> None:
            found = await port.read(stream, last_by_subject=subject)
            if found is not None:
                seq = int((found.headers or {})["Nats-Sequence"])
                await port.api(f"STREAM.MSG.DELETE.{stream}", {"seq": seq})

        self._wire.call(remove)

    def copy(self, source: int, target: int, names: Iterable[str]) -> None:
        async def read(few: list[str], port: NatsPort) -> list[Segment]:
            found = await asyncio.gather(*(self._read(port, source, name) for name in few))
            pairs = zip(few, found, strict=True)
            return [(name, data) for name, data in pairs if data is not None]

        def segments() -> Iterator[Segment]:
            wanted = list(names)
            for start in range(0, len(wanted), IN_FLIGHT):
                yield from self._wire.call(partial(read, wanted[start : start + IN_FLIGHT]))

        self.put_many(target, segments())

    def generations(self) -> Mapping[int, int]:
        pattern = self._names.segment(self._database, "*", "*")

        async def read(port: NatsPort) -> dict[int, int]:
            found = {}
            for info in await port.streams(pattern):
                number = self._names.generation_of(self._database, str(info["config"]["name"]))
                if number is not None:
                    found[number] = int(info["state"]["bytes"])
            return found

        return self._wire.call(read)

    def drop(self, generation: int) -> None:
        stream = self._names.segments_stream(self._database, generation)
        self._wire.call(lambda port: port.stream_delete(stream))


def _batches(segments: Iterable[Segment]) -> Iterable[list[Segment]]:
    batch: list[Segment] = []
    size = 0
    for name, data in segments:
        batch.append((name, data))
        size += len(data)
        if len(batch) == BATCH_SEGMENTS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

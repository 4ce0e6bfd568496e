"""The durable way in: transactions that were handed over while nobody may have been there.

A stream per branch keeps them.  How far they are applied is part of the log itself (every entry
names the ingest position that it answers), so that each is applied or rejected exactly once,
whatever stops in between.  Messages that are through are removed from the stream in the background.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import anyio
from anyio import to_thread

from natalog.actors.inlets import Inlet, Inlets
from natalog.actors.intake import IN_THREAD_BYTES
from natalog.actors.names import Names
from natalog.actors.nats_port import JetStreamError, NatsPort
from natalog.actors.payload import decode_payload
from natalog.actors.reader import Stored, StreamReader
from natalog.actors.state import BranchState
from natalog.actors.unattended import Unattended
from natalog.core.errors import BadRequest, NatalogError, ServiceError

log = logging.getLogger("natalog.ingest")

OUTSTANDING_MAX = 1024
"""Ingested transactions that may wait in the transactor's mailbox, so that requests have room."""
TRIM_INTERVAL_S = 5.0
LOOK_TURNS = 12
"""After so many intervals the reader looks whether it still reads the stream that is written to."""
RETRY_S = 0.5


class Ingested(Unattended):
    """A transaction from the ingest stream.  Nobody waits; outcomes go to the feed."""

    __slots__ = ("_answered", "_body", "_done", "arrived", "generation", "ingest_seq", "message")

    def __init__(self, message: Stored, generation: int, done: Callable[[], None]) -> None:
        self.message = message
        self.ingest_seq: int | None = message.seq
        self.generation = generation
        self.arrived = time.monotonic()
        self._answered = False
        self._body: tuple[Any] | None = None
        self._done = done

    @property
    def answered(self) -> bool:
        return self._answered

    @answered.setter
    def answered(self, value: bool) -> None:
        if value and not self._answered:
            self._answered = True
            self._done()

    def header(self, name: str) -> str | None:
        return self.message.headers.get(name)

    def body(self) -> Any:
        if self.message.headers.get("Nats-Stream") is not None:
            # delivered here by somebody who may read that stream
            raise BadRequest("A message of a stream is no transaction.")
        if self._body is not None:
            return self._body[0]
        return decode_payload(self.message.data, self.header("Content-Type"))[1]

    async def prepare(self) -> None:
        """Decode a large payload where it holds up nobody; raises what `body` would."""
        if len(self.message.data) >= IN_THREAD_BYTES:
            content_type = self.header("Content-Type")
            decoded = await to_thread.run_sync(decode_payload, self.message.data, content_type)
            self._body = (decoded[1],)


class IngestReader:
    """Feeds the messages of a branch's ingest stream, in order, into the transactor's mailbox."""

    def __init__(
        self,
        port: NatsPort,
        names: Names,
        state: BranchState,
        put: Callable[[Any], Awaitable[None]],
    ) -> None:
        self._port = port
        self._inlets = Inlets(port, names)
        self._state = state
        self._stream = ""
        self._handed = 0
        self._spent = False
        self._put = put
        self._generation = 0
        self._outstanding = asyncio.Semaphore(OUTSTANDING_MAX)
        self._task: asyncio.Task[None] | None = None
        self._scope = anyio.CancelScope()

    def start(self) -> None:
        """Begin after the last position that the log knows."""
        self._generation += 1
        self._outstanding = asyncio.Semaphore(OUTSTANDING_MAX)
        # nats-py swallows the cancellation of a task; a cancel scope insists
        self._scope = anyio.CancelScope()
        self._task = asyncio.get_running_loop().create_task(
            self._run(self._generation, self._scope),
            name=f"ingest:{self._state.database}.{self._state.branch}",
        )

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._scope.cancel()
            await asyncio.wait([task])

    def restart(self) -> None:
        """Begin again after what the log holds; what was handed over before is stale."""
        self._scope.cancel()
        self.start()

    def is_stale(self, one: Ingested) -> bool:
        """Whether a message was handed over before a restart and will come again."""
        if one.generation == self._generation:
            return False
        one.answered = True
        return True

    async def _run(self, generation: int, scope: anyio.CancelScope) -> None:
        with scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._trim)
                while not await self._feed(generation):
                    await anyio.sleep(RETRY_S)
                tasks.cancel_scope.cancel()

    async def _feed(self, generation: int) -> bool:
        """Hand messages over until there is no stream (True) or reading failed (False)."""
        database, branch = self._state.database, self._state.branch
        self._handed = self._state.ingest_seq
        try:
            inlets = await self._inlets.all(database, branch)
            if not inlets or not inlets[-1].live:
                log.warning("there is no ingest stream of %s.%s", database, branch)
                return not inlets
            self._spent = len(inlets) > 1
            for inlet in inlets:
                self._stream = inlet.stream
                if inlet.live:
                    await self._read(generation, inlet, None)
                elif inlet.last_seq > self._handed and inlet.messages:
                    await self._read(generation, inlet, inlet.last_seq)
        except JetStreamError as error:
            log.warning("reading %s: %s", self._stream, error.message)
        except NatalogError as error:
            log.info("reading %s ends: %s", self._stream, error.message)
            return not isinstance(error, ServiceError)
        return False

    async def _read(self, generation: int, inlet: Inlet, until: int | None) -> None:
        outstanding = self._outstanding
        start = max(self._handed + 1, inlet.first_seq)
        reader = StreamReader(self._port, inlet.stream, start, gaps=True)
        async with aclosing(reader.messages(until)) as batches:
            async for batch in batches:
                for message in batch:
                    await outstanding.acquire()
                    await self._put(Ingested(message, generation, outstanding.release))
                    self._handed = message.seq

    async def _trim(self) -> None:
        """Remove messages that are through, and look whether another stream took over."""
        trimmed = 0
        for turn in itertools.count(1):
            await anyio.sleep(TRIM_INTERVAL_S)
            through = self._state.ingest_seq
            try:
                if through > trimmed and self._stream:
                    await self._port.api(f"STREAM.PURGE.{self._stream}", {"seq": through + 1})
                    trimmed = through
                if self._spent or turn % LOOK_TURNS == 0:
                    await self.follow()
            except NatalogError as error:
                log.info("trimming %s: %s", self._stream, error.message)

    async def follow(self) -> None:
        """Go on in the stream that took over, if one did; streams that are through are deleted."""
        if self._task is None:
            return
        database, branch = self._state.database, self._state.branch
        await self._inlets.clear(database, branch, self._state.ingest_seq)
        inlets = await self._inlets.all(database, branch)
        self._spent = any(not inlet.live for inlet in inlets)
        behind = any(not one.live and one.last_seq > self._handed for one in inlets)
        moved = bool(inlets) and inlets[-1].live and inlets[-1].stream != self._stream
        if behind or moved:
            self.restart()

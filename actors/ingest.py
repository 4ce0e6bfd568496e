"""The durable way in: transactions that were handed over while nobody may have been there.

A stream per branch keeps them.  How far they are applied is part of the log itself (every entry
names the ingest position that it answers), so that each is applied or rejected exactly once,
whatever stops in between.  Messages that are through are removed from the stream in the background.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import anyio
from anyio import to_thread

from natalog.actors.intake import IN_THREAD_BYTES
from natalog.actors.names import Names
from natalog.actors.nats_port import JetStreamError, NatsPort
from natalog.actors.payload import decode_payload
from natalog.actors.reader import Stored, StreamReader
from natalog.actors.state import BranchState
from natalog.core.errors import BadRequest, NatalogError

log = logging.getLogger("natalog.ingest")

OUTSTANDING_MAX = 1024
"""Ingested transactions that may wait in the transactor's mailbox, so that requests have room."""
TRIM_INTERVAL_S = 5.0
RETRY_S = 0.5


class Ingested:
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

    def check_deadline(self) -> None:
        """An ingested transaction waits for ever."""

    async def reply(self, body: Any, basis: int | None = None) -> None:
        self.answered = True

    async def refuse(self, error: BaseException) -> None:
        self.answered = True

    def fail(self, error: NatalogError) -> None:
        self.answered = True


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
        self._stream = names.ingest_stream(state.database, state.branch)
        self._state = state
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
            self._run(self._generation, self._scope), name=f"ingest:{self._stream}"
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
        """Hand messages over until the stream is gone (True) or reading failed (False)."""
        outstanding = self._outstanding
        reader = StreamReader(self._port, self._stream, self._state.ingest_seq + 1, gaps=True)
        try:
            async with aclosing(reader.messages()) as batches:
                async for batch in batches:
                    for message in batch:
                        await outstanding.acquire()
                        await self._put(Ingested(message, generation, outstanding.release))
        except JetStreamError as error:
            if error.status == 404:
                log.warning("the ingest stream %s is gone", self._stream)
                return True
            log.warning("reading %s: %s", self._stream, error.message)
        except NatalogError as error:
            log.info("reading %s ends: %s", self._stream, error.message)
            return True
        return False

    async def _trim(self) -> None:
        """Remove messages that are through."""
        trimmed = 0
        while True:
            await anyio.sleep(TRIM_INTERVAL_S)
            through = self._state.ingest_seq
            if through > trimmed:
                try:
                    await self._port.api(f"STREAM.PURGE.{self._stream}", {"seq": through + 1})
                    trimmed = through
                except NatalogError as error:
                    log.info("trimming %s: %s", self._stream, error.message)

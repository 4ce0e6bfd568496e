"""Reading a branch's log from the client: where a transaction is, and everything from there on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple
from uuid import uuid4

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from natalog.client.session import Session
from natalog.core.errors import BranchNotFound, LogCorrupt, NatalogError, Unavailable
from natalog.core.record import ENTRY_COMMIT, Block, TxRecord, decode_block

_BATCH_BLOCKS = 64
_POLL_S = 5.0
_IDLE_CONSUMER_S = 60.0
_RETRY_S = 0.2


class Position(NamedTuple):
    """A block and its place in the log's stream."""

    sequence: int
    block: Block
    data: bytes


def lane_stream(prefix: str, database: str, lane: int) -> str:
    """The stream of a lane's log; it keeps its name whatever becomes of the branch."""
    middle = f"_{lane}" if lane else "db"
    return "=".join([prefix.replace(".", "="), database, middle, "log"])


class LogReader:
    """The log of one branch, read contiguously: a missing block is an error, never a gap.

    ``stream`` names a log that no living branch has, which others may begin in.
    """

    def __init__(
        self, session: Session, database: str, branch: str, stream: str | None = None
    ) -> None:
        self._session = session
        self._database = database
        self._branch = branch
        self._subject = session.subject(database, branch, "log")
        self._stream = stream

    async def last_sequence(self) -> int:
        """The place of the newest block, 0 in an empty log."""
        info = await self._call(lambda js, stream: js.stream_info(stream))
        return int(info.state.last_seq)

    async def sequence_after(self, tx: int) -> int:
        """The place of a block from which on every transaction after ``tx`` is found.

        A binary search over the blocks; O(log n) requests.
        """
        info = await self._call(lambda js, stream: js.stream_info(stream))
        low, high = max(1, int(info.state.first_seq)), int(info.state.last_seq) + 1
        while high - low > 1:
            middle = (low + high) // 2
            first = await self._first_tx(middle)
            if first is None or first > tx:
                high = middle
            else:
                low = middle
        return low

    async def blocks(
        self, sequence: int, *, until: int | None = None
    ) -> AsyncGenerator[Position, None]:
        """The blocks from ``sequence`` on, for ever, or up to and with ``until``."""
        expected = sequence
        while until is None or expected <= until:
            try:
                subscription = await self._consume(expected)
                try:
                    while until is None or expected <= until:
                        try:
                            batch = await subscription.fetch(_BATCH_BLOCKS, timeout=_POLL_S)
                        except nats.errors.TimeoutError:
                            continue
                        for msg in batch:
                            found = msg.metadata.sequence.stream
                            if found < expected:
                                continue
                            if found != expected:
                                raise LogCorrupt(
                                    f"block {expected} of {self._subject} is missing",
                                    sequence=expected,
                                    found=found,
                                )
                            yield Position(found, decode_block(msg.data), msg.data)
                            expected = found + 1
                            if until is not None and expected > until:
                                break
                finally:
                    await _quietly(subscription.unsubscribe())
            except (nats.errors.Error, nats.js.errors.Error, OSError):
                # the connection or the consumer went away; begin again behind the last block
                if self._session.transport.nats.is_closed:
                    raise Unavailable("the client is closed") from None
                await asyncio.sleep(_RETRY_S)

    # --- inside --------------------------------------------------------------------------------

    async def _consume(self, sequence: int) -> JetStreamContext.PullSubscription:
        # without a filter: what a branch began with was stored under another subject when its name
        # was moved to this log by force
        config = ConsumerConfig(
            name=f"c{uuid4().hex}",
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=sequence,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=_IDLE_CONSUMER_S,
            mem_storage=True,
        )

        async def bind(js: JetStreamContext, stream: str) -> JetStreamContext.PullSubscription:
            await js.add_consumer(stream, config=config)
            return await js.pull_subscribe_bind(consumer=config.name, stream=stream)

        made: JetStreamContext.PullSubscription = await self._call(bind)
        return made

    async def _first_tx(self, sequence: int) -> int | None:
        """The first transaction at or after a block; None behind the last."""
        async for _, block, _ in self.blocks_once(sequence):
            for entry in block.entries:
                if entry.type == ENTRY_COMMIT:
                    return TxRecord.decode(entry.data).tx
        return None

    async def blocks_once(self, sequence: int) -> AsyncIterator[Position]:
        """The blocks from ``sequence`` to the end of the log as it is now, one request each."""
        while True:
            try:
                at = sequence
                msg = await self._call(lambda js, stream, at=at: js.get_msg(stream, seq=at))
            except BranchNotFound:
                return
            data = msg.data or b""
            yield Position(sequence, decode_block(data), data)
            sequence += 1

    async def _call(self, work: Any) -> Any:
        js = self._session.transport.nats.jetstream(timeout=self._session.timeout.request_s)
        try:
            if self._stream is None:
                self._stream = await js.find_stream_name_by_subject(self._subject)
            return await work(js, self._stream)
        except nats.js.errors.NotFoundError:
            if self._stream is None:
                await self._explain()
            raise BranchNotFound(
                f"no log {self._subject}", database=self._database, branch=self._branch
            ) from None
        except (nats.js.errors.ServiceUnavailableError, nats.errors.NoRespondersError):
            raise Unavailable("the NATS server runs without JetStream") from None
        except (nats.errors.Error, OSError) as error:
            if isinstance(error, nats.js.errors.APIError):
                raise Unavailable(f"JetStream refused: {error.description}") from None
            raise

    async def _explain(self) -> None:
        """The stream does not exist: raise the service's reason, when it has one."""
        await self._session.ask(
            self._session.subject(self._database, "_", "info"),
            {"branch": self._branch},
            timeout_s=2.0,
        )


async def _quietly(work: Any) -> None:
    try:
        await work
    except (NatalogError, nats.errors.Error, OSError):
        return

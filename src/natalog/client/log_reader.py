"""Reading a branch's log from the client: where a transaction is, and everything from there on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, NamedTuple

from natalog.client.consumer import STREAM_NOT_FOUND, Consumer, call, sequence_of
from natalog.client.erased_blocks import ErasedBlocks
from natalog.client.session import READ, Session
from natalog.client.transport import JetStreamRefused
from natalog.core.erasures import Copy, Table
from natalog.core.errors import (
    BranchNotFound,
    DeadlineExceeded,
    LogCorrupt,
    ServiceError,
    Unavailable,
)
from natalog.core.record import ENTRY_COMMIT, Block, TxRecord, decode_block

_RETRY_S = 0.2
_LOCATE_TIMEOUT_S = 5.0


class Position(NamedTuple):
    """A block and its place in the log's stream."""

    sequence: int
    block: Block


def lane_of(stream: str) -> int:
    """The lane of a log's stream."""
    middle = stream.split("=")[-2]
    return int(middle[1:]) if middle.startswith("_") else 0


def lane_stream(prefix: str, database: str, lane: int) -> str:
    """The stream of a lane's log; it keeps its name whatever becomes of the branch."""
    middle = f"_{lane}" if lane else "db"
    return "=".join([prefix.replace(".", "="), database, middle, "log"])


class LogReader:
    """The log of one branch, read contiguously: a missing block is an error, never a gap.

    ``stream`` names a log that no living branch has, which others may begin in.

    ``erased``: what was erased from the logs of the database, shared by those who read several.
    """

    def __init__(
        self,
        session: Session,
        database: str,
        branch: str,
        stream: str | None = None,
        erased: ErasedBlocks | None = None,
    ) -> None:
        self._session = session
        self._database = database
        self._branch = branch
        self._subject = session.subject(database, branch, "log")
        # not the branch's alone: what a branch began with was stored under another subject when
        # its name was moved to this log by force
        self._filter = f"{session.prefix}.{database}.>"
        self._stream = stream
        self._erased = erased or ErasedBlocks(session, database)

    async def last_sequence(self) -> int:
        """The place of the newest block, 0 in an empty log."""
        async with await self._consumer({"deliver_policy": "last"}) as consumer:
            newest = await consumer.one()
        last = 0 if newest is None else sequence_of(newest)
        return max([last, *(await self._table()).copies])

    async def sequence_after(self, tx: int) -> int:
        """The place of a block from which on every transaction after ``tx`` is found.

        A binary search over the blocks; O(log n) requests.
        """
        low, high = 1, await self.last_sequence() + 1
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
        """The blocks from ``sequence`` on, for ever, or up to and with ``until``.

        What was erased from them is not there.
        """
        expected = sequence
        suspicious = False
        copies = (await self._table()).copies
        while until is None or expected <= until:
            if expected in copies:
                yield await self._copied(expected, copies[expected])
                expected += 1
                continue
            found = 0
            try:
                async with (
                    await self._consumer(_from(expected)) as consumer,
                    aclosing(consumer.messages()) as messages,
                ):
                    async for msg in messages:
                        found = sequence_of(msg)
                        if found < expected:
                            continue
                        if found != expected:
                            break
                        suspicious = False
                        yield Position(found, decode_block(msg.data))
                        expected = found + 1
                        while expected in copies and (until is None or expected <= until):
                            yield await self._copied(expected, copies[expected])
                            expected += 1
                        if until is not None and expected > until:
                            return
                    else:
                        continue
            except JetStreamRefused:
                raise
            except (Unavailable, DeadlineExceeded):
                # the connection or the consumer went away; begin again behind the last block
                if self._session.transport.nats.is_closed:
                    raise Unavailable("the client is closed") from None
                await asyncio.sleep(_RETRY_S)
                continue
            # something may have been erased meanwhile
            copies = (await self._table(fresh=True)).copies
            if expected in copies:
                continue
            # a message may be lost with a connection; a hole that a new consumer sees is real
            if suspicious:
                raise LogCorrupt(
                    f"block {expected} of {self._subject} is missing",
                    sequence=expected,
                    found=found,
                )
            suspicious = True

    async def _first_tx(self, sequence: int) -> int | None:
        """The first transaction at or after a block; None behind the last."""
        last = await self.last_sequence()
        copies = (await self._table()).copies
        while sequence <= last:
            if sequence in copies:
                blocks = [(await self._copied(sequence, copies[sequence])).block]
            else:
                async with await self._consumer(_from(sequence)) as consumer:
                    msg = await consumer.one()
                    if msg is None:
                        return None
                    sequence = sequence_of(msg)
                blocks = [decode_block(msg.data)]
            for entry in blocks[0].entries:
                if entry.type == ENTRY_COMMIT:
                    return TxRecord.decode(entry.data).tx
            sequence += 1
        return None

    async def _table(self, *, fresh: bool = False) -> Table:
        stream = self._stream = self._stream or await self._locate()
        return await self._erased.table(lane_of(stream), fresh=fresh)

    async def _copied(self, sequence: int, copy: Copy) -> Position:
        return Position(sequence, await self._erased.block(copy))

    # --- inside --------------------------------------------------------------------------------

    async def _consumer(self, start: dict[str, Any]) -> Consumer:
        stream = self._stream = self._stream or await self._locate()
        return _OfLog(self._session, stream, self._filter, start, self._gone)

    def _gone(self) -> BranchNotFound:
        return BranchNotFound(
            f"no log {self._subject}", database=self._database, branch=self._branch
        )

    async def _locate(self) -> str:
        """The stream of the branch's log: the service knows it, else its subject tells."""
        try:
            answer = await self._session.ask(
                self._session.subject(self._database, "_", "info"),
                {"branch": self._branch},
                timeout_s=_LOCATE_TIMEOUT_S,
                repeat=READ,
            )
            return lane_stream(self._session.prefix, self._database, int(answer.body["lane"]))
        except (Unavailable, DeadlineExceeded) as unserved:
            try:
                found = await call(self._session, "STREAM.NAMES", {"subject": self._subject})
            except ServiceError:
                raise unserved from None
            names = found.get("streams") or []
            if not names:
                raise self._gone() from None
            return str(names[0])


class _OfLog(Consumer):
    """A consumer of a log; without one there is no such branch."""

    def __init__(
        self,
        session: Session,
        stream: str,
        filter_subject: str,
        start: dict[str, Any],
        gone: Callable[[], BranchNotFound],
    ) -> None:
        super().__init__(session, stream, filter_subject, start)
        self._gone = gone

    async def __aenter__(self) -> Consumer:
        try:
            return await super().__aenter__()
        except JetStreamRefused as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise self._gone() from None
            raise


def _from(sequence: int) -> dict[str, Any]:
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": sequence}

"""Published heads: how far each log has certainly gone, so that one that lost its end is noticed.

A hash chain shows holes, not a missing end.  So whoever holds the lease writes down beside the
logs, once a second for those that have moved, which block was acknowledged last.  A log that ends
before that, or has another block there, is refused when it is opened.  What was acknowledged in the
last second before a crash may be missing from the heads; a clean stop writes them all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import anyio

from natalog.actors.log import BranchLog, ends_early
from natalog.actors.names import Names
from natalog.actors.nats_port import JetStreamError, NatsPort
from natalog.actors.state import BranchState
from natalog.core.codec import pack, unpack
from natalog.core.errors import LogCorrupt, NatalogError, Unavailable

log = logging.getLogger("natalog.heads")

VERSION: Final = 1
INTERVAL_S: Final = 1.0
AT_ONCE_MAX: Final = 256
"""Heads that are written in one turn; the others have theirs in the next."""
READ_ATTEMPTS: Final = 4
READ_PAUSE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Head:
    """A block that was acknowledged: its sequence and hash, and what tells its log from others.

    ``first_hash``: of the log's first block, in hex.  ``tx`` and ``max_eid``: the newest
    transaction, and the highest entity id, that were given out.
    """

    seq: int
    hash: bytes
    first_hash: str
    tx: int
    max_eid: int

    @classmethod
    def of(cls, state: BranchState) -> Head:
        """The head of a state as it is now."""
        db, at = state.db, state.position
        return cls(at.seq, at.hash, state.first_hash, db.max_tx, db.max_eid)

    def encode(self) -> bytes:
        return pack([VERSION, self.seq, self.hash, self.first_hash, self.tx, self.max_eid])

    @classmethod
    def decode(cls, data: bytes) -> Head:
        """`LogCorrupt` for what is none."""
        try:
            version, *fields = unpack(data)
            if version == VERSION:
                return cls(*fields)
        except (NatalogError, TypeError, ValueError) as error:
            raise LogCorrupt("A published head cannot be read.") from error
        raise LogCorrupt(f"A published head has version {version!r}.")


class Heads:
    """Reads and writes the heads of all databases."""

    def __init__(self, port: NatsPort, names: Names, *, replicas: int = 1) -> None:
        self._port = port
        self._names = names
        self._replicas = replicas
        self._written: dict[tuple[str, int], tuple[int, str]] = {}
        """Of each log the last head, those written longest ago first."""
        self._made: set[str] = set()

    async def read(self, database: str, lane: int) -> Head | None:
        """The published head of a log, None without one."""
        stream = self._names.heads_stream(database)
        for attempt in range(READ_ATTEMPTS):
            try:
                subject = self._names.head(database, lane)
                message = await self._port.read(stream, last_by_subject=subject)
                return None if message is None else Head.decode(message.data)
            except (Unavailable, JetStreamError):
                # a stream that was just made does not answer at once
                if await self._port.stream_info(stream) is None:
                    return None
                if attempt + 1 == READ_ATTEMPTS:
                    raise
                await anyio.sleep(READ_PAUSE_S)
        raise AssertionError("unreachable")

    async def publish(self, states: Iterable[BranchState], *, limit: int | None = None) -> None:
        """Write the heads of logs that have moved; those that fail have their turn again."""
        due = {
            (state.database, state.lane): state
            for state in states
            if state.position.seq
            and self._written.get((state.database, state.lane))
            != (state.position.seq, state.first_hash)
        }
        fresh = [key for key in due if key not in self._written]
        turns = [*fresh, *(key for key in self._written if key in due)]
        for state in (due[key] for key in turns[:limit]):
            head = Head.of(state)
            try:
                await self.write(state.database, state.lane, head)
            except NatalogError as error:
                log.info("no head of %s.%s: %s", state.database, state.branch, error.message)

    async def write(self, database: str, lane: int, head: Head) -> None:
        """Write one head; the last one that was written counts."""
        stream = self._names.heads_stream(database)
        if stream not in self._made:
            await self._make(database)
        try:
            await self._port.append(self._names.head(database, lane), head.encode(), stream=stream)
        except Unavailable:
            self._made.discard(stream)  # a database that was made again has none yet
            raise
        self._written.pop((database, lane), None)
        self._written[database, lane] = (head.seq, head.first_hash)

    async def _make(self, database: str) -> None:
        await self._port.stream_create(
            {
                "name": self._names.heads_stream(database),
                "subjects": [self._names.any_head(database)],
                "storage": "file",
                "retention": "limits",
                "discard": "old",
                "max_msgs_per_subject": 1,
                "num_replicas": self._replicas,
                "allow_direct": True,
            }
        )
        self._made.add(self._names.heads_stream(database))


async def check_head(head: Head | None, state: BranchState, branch_log: BranchLog) -> None:
    """Raise `LogCorrupt` when a log that was read to its end lacks what its head names.

    ``head`` must have been read before the log was.
    """
    if head is None or head.first_hash != state.first_hash:
        return  # of an earlier log of the same name
    at = state.position
    if at.seq < head.seq:
        raise ends_early(state.database, state.branch, at.seq, head.seq)
    found = at.hash if at.seq == head.seq else (await branch_log.read_block(head.seq)).hash
    if found != head.hash:
        raise LogCorrupt(
            f"Block {head.seq} of {state.database}.{state.branch} is not the one that was "
            f"acknowledged. Nothing is served from this log: restore a backup, or accept it "
            f"(natalog recover {state.database} --branch {state.branch} --accept-loss-after "
            f"{at.seq}).",
            database=state.database,
            branch=state.branch,
            sequence=head.seq,
        )


__all__ = ["Head", "Heads", "check_head"]

"""The log of one branch: a stream of blocks, appended by compare-and-set, read with its chain."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio

from natalog.actors.names import Names
from natalog.actors.nats_port import (
    WRONG_LAST_SEQUENCE,
    JetStreamError,
    NatsPort,
)
from natalog.actors.reader import Stored, StreamReader
from natalog.core.chain import FIRST_HASH, block_hash
from natalog.core.errors import (
    BranchNotFound,
    CommitUnknown,
    DatabaseNotFound,
    DeadlineExceeded,
    Fenced,
    LogCorrupt,
    ServiceError,
    Unavailable,
)
from natalog.core.record import Block, decode_block

log = logging.getLogger("natalog.log")

APPEND_TIMEOUT_S = 3.0
RESOLVE_TIMEOUT_S = 20.0
RESOLVE_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a log: the last block's sequence and hash."""

    seq: int = 0
    hash: bytes = FIRST_HASH


@dataclass(frozen=True, slots=True)
class PlacedBlock:
    """A block and where it lies; ``size`` in bytes, ``time_ms`` when it was stored."""

    seq: int
    block: Block
    size: int
    time_ms: int | None = None

    @property
    def position(self) -> Position:
        return Position(self.seq, self.block.hash)


class BranchLog:
    """The log of one branch of one database."""

    def __init__(
        self,
        port: NatsPort,
        names: Names,
        database: str,
        branch: str,
        stream: str | None = None,
        subject: str | None = None,
    ) -> None:
        """``stream`` None: that of the database's beginning; ``subject`` None: the branch's own."""
        self.port = port
        self.database = database
        self.branch = branch
        self.subject = names.log(database, branch) if subject is None else subject
        self.stream = names.log_stream(database) if stream is None else stream
        self._writer = uuid4().hex

    async def create(self, *, replicas: int = 1) -> None:
        """Create the stream; one that exists stays as it is."""
        await self.port.stream_create(log_stream_config(self.stream, self.subject, replicas))

    async def last_seq(self) -> int:
        """Sequence of the last block, 0 of an empty log; `BranchNotFound` without a stream."""
        info = await self.port.stream_info(self.stream)
        if info is None:
            raise no_log(self.database, self.branch)
        return int(info["state"]["last_seq"])

    async def append(self, at: Position, block: bytes) -> Position:
        """Append a block after ``at`` and return its position, once it is safe on disk.

        Raises `Fenced` when somebody else has appended, `CommitUnknown` when the outcome could not
        be found out within `RESOLVE_TIMEOUT_S`, `TooLarge` before anything is sent.
        """
        made = Position(at.seq + 1, block_hash(block))
        # two writers may make equal blocks; only one of them has written it
        message_id = f"{made.hash.hex()}.{self._writer}"
        deadline = anyio.current_time() + RESOLVE_TIMEOUT_S
        while True:
            try:
                await self.port.append(
                    self.subject,
                    block,
                    expected_last=at.seq,
                    message_id=message_id,
                    stream=self.stream,
                    timeout_s=APPEND_TIMEOUT_S,
                )
                return made
            except JetStreamError as error:
                conflict = error.err_code == WRONG_LAST_SEQUENCE
                if not conflict:
                    log.error("append to %s: %s", self.stream, error.message)
                reason = error.message
            except (DeadlineExceeded, Unavailable) as error:
                conflict = False
                reason = error.message
            # A compare-and-set is checked before deduplication: a retry of an append whose receipt
            # was lost looks like a conflict.  What the log holds decides.
            found = await self._holds(made.seq, deadline)
            if found == message_id:
                return made
            if found is not None or conflict:
                raise Fenced(
                    f"Another transactor has appended to {self.database}.{self.branch}.",
                    database=self.database,
                    branch=self.branch,
                    sequence=made.seq,
                )
            if anyio.current_time() > deadline:
                raise CommitUnknown(
                    f"The outcome of an append to {self.database}.{self.branch} is not known: "
                    f"{reason}",
                    database=self.database,
                    branch=self.branch,
                )
            await anyio.sleep(RESOLVE_PAUSE_S)

    async def _holds(self, seq: int, deadline: float) -> str | None:
        """The message id of the block at ``seq``, None without one; asked until an answer comes."""
        while True:
            try:
                await self.last_seq()  # raises when the log itself is gone
                message = await self.port.read(self.stream, seq=seq)
                if message is None:
                    return None
                return (message.headers or {}).get("Nats-Msg-Id", "")
            except (ServiceError, JetStreamError) as error:
                if anyio.current_time() > deadline:
                    raise CommitUnknown(
                        f"The outcome of an append to {self.database}.{self.branch} is not "
                        f"known: {error.message}",
                        database=self.database,
                        branch=self.branch,
                    ) from error
            await anyio.sleep(RESOLVE_PAUSE_S)

    async def read_block(self, seq: int) -> Block:
        """One block by its sequence."""
        message = await self.port.read(self.stream, seq=seq)
        if message is None:
            raise LogCorrupt(
                f"Block {seq} of {self.database}.{self.branch} is missing.",
                database=self.database,
                branch=self.branch,
                sequence=seq,
            )
        return self._decode(seq, message.data, None)

    async def blocks(
        self, after: Position | None = None, *, follow: bool = False
    ) -> AsyncGenerator[list[PlacedBlock], None]:
        """Batches of blocks after ``after``, verified; to the present end or, following, for ever.

        Raises `LogCorrupt` for holes, broken chains and unreadable blocks; `BranchNotFound` when
        the log is gone.
        """
        at = after or Position()
        until = None if follow else await self.last_seq()
        reader = StreamReader(self.port, self.stream, at.seq + 1)
        try:
            async with aclosing(reader.messages(until)) as batches:
                async for batch in batches:
                    placed = []
                    for message in batch:
                        block = self._verified(at, message)
                        at = Position(message.seq, block.hash)
                        placed.append(
                            PlacedBlock(message.seq, block, len(message.data), message.time_ms)
                        )
                    yield placed
        except JetStreamError as error:
            if error.status == 404:
                raise no_log(self.database, self.branch) from error
            raise

    def _verified(self, at: Position, message: Stored) -> Block:
        if message.seq != at.seq + 1:
            raise LogCorrupt(
                f"Block {at.seq + 1} of {self.database}.{self.branch} is missing.",
                database=self.database,
                branch=self.branch,
                sequence=at.seq + 1,
            )
        return self._decode(message.seq, message.data, at.hash)

    def _decode(self, seq: int, payload: bytes, previous: bytes | None) -> Block:
        try:
            return decode_block(payload, previous)
        except LogCorrupt as error:
            raise LogCorrupt(
                f"{error.message[:-1]} (block {seq} of {self.database}.{self.branch}).",
                **error.data,
                database=self.database,
                branch=self.branch,
                sequence=seq,
            ) from error


def log_stream_config(stream: str, subject: str, replicas: int = 1) -> dict[str, Any]:
    """The stream of a log: kept for ever, on disk, messages neither editable nor discarded."""
    return {
        "name": stream,
        "subjects": [subject],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "num_replicas": replicas,
        "allow_direct": True,
        "duplicate_window": 120_000_000_000,
    }


def no_log(database: str, branch: str) -> DatabaseNotFound | BranchNotFound:
    """The error for a log that does not exist."""
    if branch == "db":
        return DatabaseNotFound(f"There is no database {database}.", database=database)
    return BranchNotFound(
        f"The database {database} has no branch {branch}.", database=database, branch=branch
    )

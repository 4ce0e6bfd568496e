"""The log of one branch: a stream of blocks, appended by compare-and-set, read with its chain."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio

from natalog.actors.failpoints import failpoint_soon
from natalog.actors.names import Names
from natalog.actors.nats_port import (
    WRONG_LAST_SEQUENCE,
    JetStreamError,
    NatsPort,
)
from natalog.actors.reader import Hole, Pause, Stored, StreamReader
from natalog.actors.redactions import Redactions
from natalog.core.chain import FIRST_HASH, block_hash
from natalog.core.erasures import Table
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
from natalog.core.redacted import RedactedBlock

log = logging.getLogger("natalog.log")

APPEND_TIMEOUT_S = 3.0
RESOLVE_TIMEOUT_S = 20.0
RESOLVE_PAUSE_S = 0.1
LAGGING_S = 10.0
"""After a fail-over on a cluster a server may know less than it will."""


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


class LogRedacted(Unavailable):
    """Blocks were erased while they were read: what was read before may belong to another log."""

    code = "Unavailable"


class BranchLog:
    """The log of one branch of one database, without what was erased from it."""

    def __init__(
        self,
        port: NatsPort,
        names: Names,
        database: str,
        branch: str,
        stream: str | None = None,
        subject: str | None = None,
        redactions: Redactions | None = None,
    ) -> None:
        """``stream`` None: that of the database's beginning; ``subject`` None: the branch's own."""
        self.port = port
        self.database = database
        self.branch = branch
        self.subject = names.log(database, branch) if subject is None else subject
        self.stream = names.log_stream(database) if stream is None else stream
        self.lane = names.lane_of(database, self.stream) or 0
        self.redactions = redactions or Redactions(port, names)
        self._writer = uuid4().hex
        self._created: Any = None

    async def table(self) -> Table:
        """What was erased from this log."""
        return await self.redactions.table(await self.redactions.index(self.database), self.lane)

    async def create(self, *, replicas: int = 1) -> None:
        """Create the stream; one that exists stays as it is."""
        await self.port.stream_create(log_stream_config(self.stream, self.subject, replicas))

    async def last_seq(self) -> int:
        """Sequence of the last block, 0 of an empty log.

        `BranchNotFound` without a stream, or when another one has been made in its place.
        """
        info = await self.port.stream_info(self.stream)
        if info is None or self._created not in (None, info.get("created")):
            raise no_log(self.database, self.branch)
        self._created = info.get("created")
        return int(info["state"]["last_seq"])

    async def append(
        self,
        at: Position,
        block: bytes,
        *,
        sent: Callable[[], None] | None = None,
        stored: Callable[[Position], None] | None = None,
    ) -> Position:
        """Append a block after ``at`` and return its position, once it is safe on disk.

        A cancellation waits until the outcome is known.

        ``sent`` is called once or more while the block is on its way, ``stored`` once, as soon as
        it is known to be safe.

        Raises `Fenced` when somebody else has appended, `Unavailable` when nothing was appended
        within `RESOLVE_TIMEOUT_S`, `CommitUnknown` when that could not be found out, `TooLarge`
        before anything is sent.
        """
        made = Position(at.seq + 1, block_hash(block))
        # two writers may make equal blocks; only one of them has written it
        message_id = f"{made.hash.hex()}.{self._writer}"
        began = time.monotonic()
        maybe = False

        def safe() -> None:
            if stored is not None:
                stored(made)

        while True:
            try:
                failpoint_soon("append.sent")
                await self.port.append(
                    self.subject,
                    block,
                    expected_last=at.seq,
                    message_id=message_id,
                    stream=self.stream,
                    timeout_s=APPEND_TIMEOUT_S,
                    sent=sent,
                    stored=safe,
                    shielded=True,
                )
                return made
            except JetStreamError as error:
                if error.err_code != WRONG_LAST_SEQUENCE:
                    log.error("append to %s: %s", self.stream, error.message)
                reason = error.message
            except (DeadlineExceeded, Unavailable) as error:
                maybe = maybe or error.data.get("listening") is not False
                reason = error.message
            # A compare-and-set is checked before deduplication: a retry of an append whose receipt
            # was lost looks like a conflict.  What the log holds decides.
            deadline = began + RESOLVE_TIMEOUT_S
            with anyio.CancelScope(shield=True):
                last, found = await self._look(made, deadline, maybe)
            if found == message_id:
                safe()
                return made
            if last != at.seq:
                raise Fenced(
                    f"Another transactor has appended to {self.database}.{self.branch}.",
                    database=self.database,
                    branch=self.branch,
                    sequence=made.seq,
                )
            if time.monotonic() > deadline:
                raise self._unresolved(reason, maybe)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(RESOLVE_PAUSE_S)

    def _unresolved(self, reason: str, sent: bool) -> CommitUnknown | Unavailable:
        where = f"{self.database}.{self.branch}"
        about = {"database": self.database, "branch": self.branch}
        if sent:
            said = f"The outcome of an append to {where} is not known: {reason}"
            return CommitUnknown(said, **about)
        return Unavailable(f"The log of {where} cannot be reached: {reason}", **about)

    async def _look(self, made: Position, deadline: float, sent: bool) -> tuple[int, str | None]:
        """The last sequence and the message id of the block at a place, None without one.

        Asked until an answer comes.
        """
        while True:
            try:
                last = await self.last_seq()  # raises when the log itself is gone
                if last < made.seq:
                    return last, None
                message = await self.port.read(self.stream, seq=made.seq)
                if message is not None:
                    return last, (message.headers or {}).get("Nats-Msg-Id", "")
                erased = (await self.table()).copies.get(made.seq)
                if erased is not None:
                    mine = erased.hash == made.hash
                    return last, f"{made.hash.hex()}.{self._writer}" if mine else ""
                reason = f"block {made.seq} cannot be read."
            except (ServiceError, JetStreamError) as error:
                reason = error.message
            if time.monotonic() > deadline:
                raise self._unresolved(reason, sent)
            await anyio.sleep(RESOLVE_PAUSE_S)

    async def first_hash(self) -> str:
        """The hash of the first block, as text; empty without one."""
        message = await self.port.read(self.stream, seq=1)
        if message is not None:
            return (message.headers or {}).get("Nats-Msg-Id", "").partition(".")[0]
        erased = (await self.table()).copies.get(1)
        return "" if erased is None else erased.hash.hex()

    async def read_block(self, seq: int) -> Block:
        """One block by its sequence."""
        erased = (await self.table()).copies.get(seq)
        if erased is not None:
            return (await self.redactions.copy(self.database, erased))[0].block
        message = await self.port.read(self.stream, seq=seq)
        if message is not None:
            return self._decode(seq, message.data, None)
        erased = (await self.table()).copies.get(seq)  # by now, perhaps
        if erased is None:
            raise self._missing(seq)
        return (await self.redactions.copy(self.database, erased))[0].block

    async def blocks(
        self,
        after: Position | None = None,
        *,
        follow: bool = False,
        until: int | None = None,
        table: Table | None = None,
        pause: Pause | None = None,
    ) -> AsyncGenerator[list[PlacedBlock], None]:
        """Batches of blocks after ``after``, verified; to the present end or, following, for ever.

        ``until``: to that block instead.  ``table``: what was erased, as the caller knows it.
        ``pause``: of who follows, after each batch; whether somebody waits for the next one.
        Raises `LogCorrupt` for holes, broken chains and unreadable blocks; `LogRedacted` when
        something was erased meanwhile; `BranchNotFound` when the log is gone.
        """
        at = after or Position()
        if until is None and not follow:
            until = await self._end(at.seq)
        if table is None:
            table = await self.table()
        copies = table.copies
        reader = StreamReader(
            self.port, self.stream, at.seq + 1, erased=copies.__contains__, pause=pause
        )
        try:
            async with aclosing(reader.messages(until)) as batches:
                async for batch in batches:
                    placed = await self._placed(at, batch, batch[-1].seq, table)
                    at = placed[-1].position
                    yield placed
            if until is not None and at.seq < until:
                yield await self._placed(at, [], until, table)
        except Hole:
            if await self.table() != table:
                raise LogRedacted(
                    f"{self.database}.{self.branch} was redacted while it was read; ask again.",
                    database=self.database,
                    branch=self.branch,
                ) from None
            raise
        except JetStreamError as error:
            if error.status == 404:
                raise no_log(self.database, self.branch) from error
            raise

    async def _end(self, known: int) -> int:
        """Sequence of the last block; `LogCorrupt` when ``known`` has been behind it."""
        deadline = anyio.current_time() + (LAGGING_S if self.port.replicated else 0)
        while (last := await self.last_seq()) < known:
            if anyio.current_time() >= deadline:
                raise ends_early(self.database, self.branch, last, known)
            await anyio.sleep(RESOLVE_PAUSE_S)
        return last

    async def _placed(
        self, at: Position, batch: list[Stored], until: int, table: Table
    ) -> list[PlacedBlock]:
        """The blocks after ``at`` up to a sequence, of messages and redacted copies."""
        found: dict[int, tuple[RedactedBlock, int]] = {}
        if table.copies:
            wanted = {
                seq: table.copies[seq]
                for seq in range(at.seq + 1, until + 1)
                if seq in table.copies
            }
            found = await self.redactions.copies(self.database, wanted)
        messages = {message.seq: message for message in batch}
        placed: list[PlacedBlock] = []
        for seq in range(at.seq + 1, until + 1):
            if seq in found:
                (block, time_ms), size = found[seq]
                if block.previous != at.hash:
                    raise LogCorrupt(
                        f"The redacted block {seq} of {self.database}.{self.branch} does not "
                        f"follow the one before it.",
                        database=self.database,
                        branch=self.branch,
                        sequence=seq,
                    )
                one = PlacedBlock(seq, block, size, time_ms)
            elif seq in messages:
                message = messages[seq]
                block = self._decode(seq, message.data, at.hash)
                one = PlacedBlock(seq, block, len(message.data), message.time_ms)
            else:
                raise self._missing(seq)
            placed.append(one)
            at = one.position
        return placed

    def _missing(self, seq: int) -> LogCorrupt:
        return LogCorrupt(
            f"Block {seq} of {self.database}.{self.branch} is missing.",
            database=self.database,
            branch=self.branch,
            sequence=seq,
        )

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


def ends_early(database: str, branch: str, last: int, known: int) -> LogCorrupt:
    """The error for a log that has lost its end."""
    return LogCorrupt(
        f"The log of {database}.{branch} ends with block {last}, but block {known} was "
        f"acknowledged. Nothing is served from what is left: restore a backup, or accept the loss "
        f"(natalog recover {database} --branch {branch} --accept-loss-after {last}).",
        database=database,
        branch=branch,
        sequence=last,
        acknowledged=known,
    )


def no_log(database: str, branch: str) -> DatabaseNotFound | BranchNotFound:
    """The error for a log that does not exist."""
    if branch == "db":
        return DatabaseNotFound(f"There is no database {database}.", database=database)
    return BranchNotFound(
        f"The database {database} has no branch {branch}.", database=database, branch=branch
    )

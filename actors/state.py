"""What a log folds to: the database value of a branch and what belongs to it.

The transactor and every follower hold one `BranchState` per branch and advance it block by block;
readers take its `db`, which never changes under them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any
from uuid import UUID

import anyio

from natalog.actors.log import PlacedBlock, Position
from natalog.core.apply import apply_changes
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.errors import DeadlineExceeded, LogCorrupt, NatalogError
from natalog.core.record import ENTRY_REJECTION, Entry, Rejection, TxRecord

HELD_VALUES_MAX = 64
"""Values that clients were told of and that stay readable at once."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A record of the log and the value it made."""

    record: TxRecord
    commit: UUID
    before: Database
    after: Database


@dataclass(frozen=True, slots=True)
class Place:
    """Where the outcome of a transaction with an id is kept: block and entry."""

    seq: int
    entry: int


class Commits:
    """The commits of a branch in order: 16 bytes each, and the parents that are not the last one.

    Every commit has the one before it as its first parent.
    """

    def __init__(self) -> None:
        self._ids = bytearray()
        self._txs: list[int] = []
        self._more: dict[int, tuple[UUID, ...]] = {}

    def __len__(self) -> int:
        return len(self._txs)

    def add(self, commit: UUID, tx: int, parents: Sequence[UUID]) -> None:
        if len(parents) > 1:
            self._more[len(self._txs)] = tuple(parents[1:])
        self._ids += commit.bytes
        self._txs.append(tx)

    @property
    def first(self) -> UUID:
        """The commit that the log begins with."""
        return self._id(0)

    def newest_first(self) -> Iterator[tuple[UUID, list[UUID], int]]:
        """``(commit id, parents, tx)``."""
        for spot in range(len(self._txs) - 1, -1, -1):
            parents = [self._id(spot - 1)] if spot else []
            yield self._id(spot), [*parents, *self._more.get(spot, ())], self._txs[spot]

    def latest(self, limit: int | None = None) -> list[tuple[UUID, list[UUID], int]]:
        """The newest commits, newest first."""
        return list(islice(self.newest_first(), limit))

    def tx_of(self, commit: UUID) -> int | None:
        """The transaction of a commit."""
        at = -1
        while (at := self._ids.find(commit.bytes, at + 1)) >= 0:
            if at % 16 == 0:
                return self._txs[at // 16]
        return None

    def _id(self, spot: int) -> UUID:
        return UUID(bytes=bytes(self._ids[16 * spot : 16 * spot + 16]))


class BranchState:
    """The state of one branch at one position of its log.  `db` is replaced, never changed."""

    def __init__(self, database: str, branch: str) -> None:
        self.database = database
        self.branch = branch
        self.db: Database = Database.empty(DatabaseConfig())
        self.position = Position()
        self.created_ms: int | None = None
        self.ids: dict[str, Place] = {}
        self.ingest_seq = 0
        self.commits = Commits()
        self.log_bytes = 0
        self.first_hash = ""
        self._held: OrderedDict[int, Database] = OrderedDict()
        self.failure: NatalogError | None = None
        self._changed = anyio.Event()
        self._waiting = 0

    @property
    def empty(self) -> bool:
        """Whether the log has no genesis yet."""
        return self.created_ms is None

    # --- advancing ---------------------------------------------------------------------------

    def fold(self, placed: PlacedBlock) -> list[Applied]:
        """Advance by one block of the log; raises `LogCorrupt` when it does not fit.

        Call `announce` afterwards: folding may happen in another thread.
        """
        if placed.seq != self.position.seq + 1 or placed.block.previous != self.position.hash:
            raise LogCorrupt(
                f"Block {placed.seq} does not follow block {self.position.seq} of "
                f"{self.database}.{self.branch}.",
                sequence=placed.seq,
            )
        applied = []
        db = self.db
        for spot, entry in enumerate(placed.block.entries):
            if entry.type == ENTRY_REJECTION:
                self.note(entry, Rejection.decode(entry.data).id, Place(placed.seq, spot))
                continue
            record = TxRecord.decode(entry.data)
            commit = entry.commit_id
            before = db
            db = self._after(db, record, commit, placed.seq)
            self.note(entry, record.id, Place(placed.seq, spot))
            self.commits.add(commit, record.tx, record.parents)
            applied.append(Applied(record, commit, before, db))
        if placed.seq == 1:
            self.first_hash = placed.block.hash.hex()
        self.advance(db, placed.position, placed.size)
        return applied

    def _after(self, db: Database, record: TxRecord, commit: UUID, seq: int) -> Database:
        if record.kind == "genesis":
            if not self.empty:
                raise LogCorrupt(f"Block {seq} holds a second genesis.", sequence=seq)
            self.created_ms = record.instant_ms or 0
            config = DatabaseConfig.from_mapping(record.config or {})
            return replace(Database.empty(config, lane=record.lane), commit_id=commit)
        expected: Any = (db.max_tx + 1, db.commit_id)
        found: Any = (record.tx, record.parents[0] if record.parents else None)
        if self.empty or expected != found:
            raise LogCorrupt(
                f"Transaction {record.tx} in block {seq} of {self.database}.{self.branch} does "
                f"not follow transaction {db.max_tx}.",
                sequence=seq,
                tx=record.tx,
            )
        return apply_changes(db, record.changes(db), commit)

    def note(self, entry: Entry, ident: str | None, place: Place) -> None:
        """Remember the id and the ingest position of an entry."""
        if ident is not None:
            self.ids.setdefault(ident, place)
        if entry.ingest_seq is not None:
            self.ingest_seq = max(self.ingest_seq, entry.ingest_seq)

    def advance(self, db: Database, position: Position, size: int) -> None:
        """Take over the value after a block."""
        self.db = db
        self.position = position
        self.log_bytes += size

    def announce(self) -> None:
        """Wake those who wait for a basis."""
        if self._waiting:
            self._changed.set()
            self._changed = anyio.Event()

    def fail(self, error: NatalogError) -> None:
        """Nothing more will come: the log is corrupt or gone."""
        self.failure = error
        self._changed.set()
        self._changed = anyio.Event()

    # --- reading -----------------------------------------------------------------------------

    def hold(self) -> Database:
        """The present value, kept because a client was told of it and may ask for it again."""
        db = self.db
        self._held[db.max_tx] = db
        self._held.move_to_end(db.max_tx)
        if len(self._held) > HELD_VALUES_MAX:
            self._held.popitem(last=False)
        return db

    def held(self, tx: int) -> Database | None:
        """The value after transaction ``tx``, if it is the present one or was kept."""
        return self.db if self.db.max_tx == tx else self._held.get(tx)

    async def value(self, basis: int | None, timeout_s: float) -> Database:
        """The value, once it contains transaction ``basis``; `DeadlineExceeded` if it does not."""
        if self.failure is not None:
            raise self.failure
        if basis is None or self.db.max_tx >= basis:
            return self.db
        with anyio.move_on_after(timeout_s):
            self._waiting += 1
            try:
                while self.db.max_tx < basis:
                    await self._changed.wait()
                    if self.failure is not None:
                        raise self.failure
            finally:
                self._waiting -= 1
        if self.db.max_tx < basis:
            raise DeadlineExceeded(
                f"{self.database}.{self.branch} did not reach transaction {basis} in time; it "
                f"stands at {self.db.max_tx}.",
                basis=basis,
                max_tx=self.db.max_tx,
            )
        return self.db

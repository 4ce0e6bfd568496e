"""What a log folds to: the database value of a branch and what belongs to it.

The transactor and every follower hold one `BranchState` per branch and advance it block by block;
readers take its `db`, which never changes under them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import anyio

from natalog.actors.log import PlacedBlock, Position
from natalog.actors.tables import Commits, Idents, Place
from natalog.core.apply import apply_changes
from natalog.core.beginning import Base, base_of, begun
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.errors import (
    BranchNotFound,
    DeadlineExceeded,
    LogCorrupt,
    NatalogError,
    Unavailable,
)
from natalog.core.limits import LANE_BITS, TX_BASE
from natalog.core.record import ENTRY_REJECTION, Entry, Rejection, TxRecord
from natalog.core.redacted import erased_id
from natalog.core.transact import next_tx

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
class Moment:
    """A state as it was after one block: its value, and how far its tables went."""

    db: Database
    position: Position
    commits: int = 0
    ids: int = 0
    ingest_seq: int = 0
    changes: int = 0


class LineEnded(BranchNotFound):
    """The log ends here: its branch was deleted, or its name has moved to another lane."""

    code = "BranchNotFound"

    def __init__(self, database: str, branch: str, successor: int | None) -> None:
        super().__init__(
            f"The database {database} has no branch {branch}.", database=database, branch=branch
        )
        self.successor = successor

    def answer(self) -> NatalogError:
        """What somebody hears who asked for the branch by its name."""
        if self.successor is None:
            return self
        return Unavailable(
            f"{self.data['branch']} was moved by force meanwhile; ask again.", **self.data
        )


def _no_loss() -> None:
    """Nobody wants to know."""


class BranchState:
    """The state of one branch at one position of its log.  `db` is replaced, never changed.

    ``base``: the value that a log begins with when it does not begin with nothing; to be set
    before the first block is folded.  ``wanted``: commits at which branches begin; their values
    are kept in ``forks`` when they pass by.  ``used``: whether somebody asked for it lately.
    ``lost`` is called when a value lacks segments that are nowhere.  ``changes``: how many facts
    were asserted, retracted and purged since the log began.  ``epoch``: how many erasures of the
    database the log had seen that this was folded from.
    """

    def __init__(self, database: str, branch: str, lane: int = 0) -> None:
        self.database = database
        self.branch = branch
        self.lane = lane
        self.base: Database | None = None
        self.began: Base | None = None
        self.wanted: set[UUID] = set()
        self.forks: dict[UUID, Database] = {}
        self.ended: LineEnded | None = None
        self.used = True
        self.lost: Callable[[], None] = _no_loss
        self.db: Database = Database.empty(DatabaseConfig())
        self.position = Position()
        self.created_ms: int | None = None
        self.ids = Idents()
        self.ingest_seq = 0
        self.commits = Commits()
        self.changes = 0
        self.first_hash = ""
        self._moment = Moment(self.db, self.position)
        self.epoch = 0
        self._held: OrderedDict[int, Database] = OrderedDict()
        self.failure: NatalogError | None = None
        self._changed = asyncio.Event()
        self._waiting = 0
        self._wanted = asyncio.Event()

    @property
    def empty(self) -> bool:
        """Whether the log has no beginning yet."""
        return self.created_ms is None

    @property
    def incarnation(self) -> str:
        """What tells this branch from an earlier one of the same name."""
        return str(self.commits.first) if self.began is None else self.first_hash

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
        if self.ended is not None:
            raise LogCorrupt(
                f"Block {placed.seq} follows the end of a branch.", sequence=placed.seq
            )
        applied = []
        db = self.db
        for spot, entry in enumerate(placed.block.entries):
            if entry.type == ENTRY_REJECTION:
                self.note(entry, Rejection.decode(entry.data).id, Place(placed.seq, spot))
                continue
            record = TxRecord.decode(entry.data)
            before = db
            if record.kind == "deleted":
                self.ended = LineEnded(self.database, self.branch, record.successor)
                continue
            commit = entry.commit_id if record.is_commit else record.parents[0]
            db = self._after(db, record, commit, placed.seq)
            self.note(entry, record.id, Place(placed.seq, spot))
            if record.is_commit:
                instant = placed.time_ms if record.instant_ms is None else record.instant_ms
                self.committed(record, commit, instant)
            if commit in self.wanted:
                self.forks[commit] = db
            applied.append(Applied(record, commit, before, db))
        if placed.seq == 1:
            self.first_hash = placed.block.hash.hex()
        self.advance(db, placed.position)
        return applied

    def _after(self, db: Database, record: TxRecord, commit: UUID, seq: int) -> Database:
        if record.kind in ("genesis", "branch", "force"):
            return self._begun(record, commit, seq)
        follows = next_tx(db)
        if record.kind == "recovered":  # ids that were lost are not given out again
            follows = max(follows, record.tx)
        expected: Any = (follows, db.commit_id)
        found: Any = (record.tx, record.parents[0] if record.parents else None)
        if self.empty or expected != found:
            raise LogCorrupt(
                f"Transaction {record.tx} in block {seq} of {self.database}.{self.branch} does "
                f"not follow transaction {db.max_tx}.",
                sequence=seq,
                tx=record.tx,
            )
        return apply_changes(db, record.changes(db), commit)

    def _begun(self, record: TxRecord, commit: UUID, seq: int) -> Database:
        """The value that the first record of a log makes."""
        if not self.empty:
            raise LogCorrupt(f"Block {seq} holds a second {record.kind}.", sequence=seq)
        if record.kind == "genesis":
            self.created_ms = record.instant_ms or 0
            config = DatabaseConfig.from_mapping(record.config or {})
            return replace(Database.empty(config, lane=record.lane), commit_id=commit)
        self.began = base_of(record)
        if self.base is None or self.base.commit_id != self.began.commit:
            raise LogCorrupt(
                f"{self.database}.{self.branch} begins at commit {self.began.commit}, which is "
                f"not at hand.",
                sequence=seq,
            )
        value = begun(record, self.base)
        self.base = None
        if record.tx != value.max_tx:
            raise LogCorrupt(
                f"{self.database}.{self.branch} begins with transaction {record.tx}, not "
                f"{value.max_tx}.",
                sequence=seq,
            )
        self.created_ms = int((record.config or {}).get("created") or 0)
        self.lane = record.lane
        return replace(value, commit_id=commit)

    def committed(self, record: TxRecord, commit: UUID, instant_ms: int | None) -> None:
        """Remember a commit; ``instant_ms``: its transaction's or, without one, its own."""
        self.commits.add(commit, record.tx, record.parents, instant_ms)
        self.changes += len(record.datoms) + record.purged

    def note(self, entry: Entry, ident: str | None, place: Place) -> None:
        """Remember the id and the ingest position of an entry."""
        if ident is not None:
            self.ids.note(ident, place)
        if entry.ingest_seq is not None:
            self.ingest_seq = max(self.ingest_seq, entry.ingest_seq)

    def advance(self, db: Database, position: Position) -> None:
        """Take over the value after a block."""
        self.db = db
        self.position = position
        self._moment = Moment(
            db, position, len(self.commits), len(self.ids), self.ingest_seq, self.changes
        )

    def adopt(self, other: BranchState) -> None:
        """Be where another state of the same log is."""
        self.began = other.began
        self.forks = other.forks
        self.created_ms = other.created_ms
        self.first_hash = other.first_hash
        self.ids = other.ids
        self.commits = other.commits
        self.ingest_seq = other.ingest_seq
        self.changes = other.changes
        self.epoch = other.epoch
        self.advance(other.db, other.position)

    def moment(self) -> Moment:
        """The state after its last block.  Safe to ask while another thread folds."""
        return self._moment

    def known(self, ident: str) -> str | None:
        """The name under which the outcome of a transaction is kept; None when there is none."""
        if ident in self.ids:
            return ident
        digest = erased_id(ident)
        return digest if digest in self.ids else None

    def erased(self, epoch: int, digested: Collection[tuple[int, int]]) -> None:
        """Something was erased that the present value is free of: forget what is older.

        ``digested``: block and entry of ids that the log no longer tells.
        """
        self.epoch = epoch
        self.forks.clear()
        self._held.clear()
        places = set(digested)
        if places:
            self.ids.digest(places)

    @property
    def waiting(self) -> int:
        """How many wait for a basis."""
        return self._waiting

    async def awaited(self) -> None:
        """Wait until somebody waits for a basis, or has done so since this was asked last."""
        if not self._waiting:
            await self._wanted.wait()
        self._wanted.clear()

    def announce(self) -> None:
        """Wake those who wait for a basis."""
        if self._waiting:
            self._changed.set()
            self._changed = asyncio.Event()

    def fail(self, error: NatalogError) -> None:
        """Nothing more will come: the log is corrupt or gone."""
        self.failure = error
        self._changed.set()
        self._changed = asyncio.Event()

    # --- reading -----------------------------------------------------------------------------

    def hold(self) -> Database:
        """The present value, kept because a client was told of it and may ask for it again."""
        db = self.db
        newest = next(reversed(self._held), None)
        if newest is not None and newest != db.max_tx:
            self._held[newest].forget(db)  # sixty-four tables of columns would be too many
        self._held[db.max_tx] = db
        self._held.move_to_end(db.max_tx)
        if len(self._held) > HELD_VALUES_MAX:
            self._held.popitem(last=False)
        return db

    def values(self) -> list[Database]:
        """The present value and those that were kept."""
        base = [] if self.base is None else [self.base]
        return [self.db, *base, *self._held.values(), *self.forks.values()]

    def rest(self, main: Database) -> None:
        """Give up what can be had again: old values, and columns not shared with ``main``."""
        self._held.clear()
        self.db.forget(main)

    def awaits(self, tx: int) -> bool:
        """Whether this log may still reach a transaction of that number.

        One of an older lane is from before the branch was moved or made again.
        """
        return (tx - TX_BASE) >> LANE_BITS >= self.lane

    def held(self, tx: int) -> Database | None:
        """The value after transaction ``tx``, if it is the present one or was kept."""
        return self.db if self.db.max_tx == tx else self._held.get(tx)

    async def value(self, basis: int | None, timeout_s: float) -> Database:
        """The value, once it contains transaction ``basis``; `DeadlineExceeded` if it does not."""
        if self.failure is not None:
            raise self.failure
        if basis is None or self.db.max_tx >= basis or not self.awaits(basis):
            return self.db
        with anyio.move_on_after(timeout_s):
            self._waiting += 1
            self._wanted.set()
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

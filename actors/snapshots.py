"""Snapshots: a branch opens from its newest one and reads only the rest of its log.

Everything in a snapshot can be folded from the log again.  So one that cannot be read is passed
over with a warning; but one that the log contradicts means that the log has lost what it had
acknowledged, and is an error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from anyio import CapacityLimiter, from_thread, to_thread

from natalog.actors.failpoints import failpoint
from natalog.actors.log import BranchLog, ends_early
from natalog.actors.metrics import Metrics
from natalog.actors.pointers import Pointers, Superseded
from natalog.actors.segments.shelf import Shelf
from natalog.actors.segments.store import FAILPOINTS as COMPACTION_FAILPOINTS
from natalog.actors.snapshot_extra import restore
from natalog.actors.snapshot_refs import SnapshotList, SnapshotRef
from natalog.actors.state import BranchState
from natalog.actors.vault import FAILPOINTS as WRITING_FAILPOINTS
from natalog.actors.vault import Compacted, Loaded, Vault, Written
from natalog.core.database import Database
from natalog.core.errors import (
    LogCorrupt,
    NatalogError,
    SegmentCorrupt,
    SegmentMissing,
    Unavailable,
)
from natalog.core.index.residency import Residency

log = logging.getLogger("natalog.snapshots")

T = TypeVar("T")
Place = Callable[[str], tuple[Shelf, Pointers]]
"""Where the segments and pointers of a database are."""

THREADS: Final = 4
RENEW_ATTEMPTS_MAX: Final = 8
FAILPOINTS: Final = (
    *WRITING_FAILPOINTS,
    *COMPACTION_FAILPOINTS,
    "renew.voided",
    "renew.written",
)


@dataclass(frozen=True, slots=True)
class SnapshotAge:
    """The newest snapshot of an open branch."""

    database: str
    branch: str
    seconds: float


class Snapshots:
    """The snapshots of all databases of a service.

    To be set by whoever opens branches: ``states`` of those that are open, ``values`` that may be
    asked for, of a database, and ``opened``, which opens the branch of a lane and brings it up to
    date, None for a lane of no living branch; ``reopen`` has a database read again; ``settle``
    sees that a state is free of what was erased.
    """

    def __init__(
        self,
        place: Place,
        residency: Residency,
        metrics: Metrics,
    ) -> None:
        self._place = place
        self.residency = residency
        self._metrics = metrics
        self._vaults: dict[str, Vault] = {}
        self._limiter = CapacityLimiter(THREADS)
        self.states: Callable[[], Iterable[BranchState]] = tuple
        self.values: Callable[[str], Iterable[Database]] = lambda _: ()
        self.opened: Callable[[str, int], Awaitable[BranchState | None]] | None = None
        self.reopen: Callable[[str], Awaitable[None]] | None = None
        self.settle: Callable[[BranchState], Coroutine[Any, Any, None]] | None = None
        self.store_bytes: dict[str, int] = {}
        """Bytes of segments of each database, as they were last looked at."""

    def vault(self, database: str) -> Vault:
        found = self._vaults.get(database)
        if found is None:
            found = self._vaults[database] = Vault(database, *self._place(database), self.residency)
        return found

    def stop(self) -> None:
        """What is being written is given up."""
        for vault in self._vaults.values():
            vault.stop()

    async def _thread(self, work: Callable[[], T]) -> T:
        return await to_thread.run_sync(work, limiter=self._limiter)

    # --- finding -----------------------------------------------------------------------------

    async def newest(self, database: str, lane: int) -> SnapshotRef | None:
        """The newest snapshot of a lane."""
        refs = (await self._listed(database, lane)).refs
        return refs[0] if refs else None

    async def before(
        self, database: str, lane: int, *, tx: int | None = None, seq: int | None = None
    ) -> SnapshotRef | None:
        """The newest snapshot that holds nothing after a transaction or a block."""
        return next(_fitting(await self._listed(database, lane), tx, seq), None)

    async def _listed(self, database: str, lane: int) -> SnapshotList:
        return await self._thread(partial(self.vault(database).listed, lane))

    # --- opening -----------------------------------------------------------------------------

    async def restore(
        self, state: BranchState, branch_log: BranchLog, *, tx: int | None = None
    ) -> bool:
        """Bring a fresh state to the newest snapshot of its lane; False when there is none.

        ``tx``: to the newest one that holds nothing after this transaction.  Raises `LogCorrupt`
        when the log is not the one that the snapshot was taken of.
        """
        try:
            listed = await self._listed(state.database, state.lane)
        except NatalogError as error:
            log.warning("no snapshots of %s: %s", state.database, error.message)
            return False
        for ref in _fitting(listed, tx, None):
            if not await self._fits(listed, ref, branch_log):
                return False
            try:
                await self._restored(state, ref, line=tx is None)
            except NatalogError as error:
                self._metrics.snapshots.labels("ignored").inc()
                log.warning(
                    "the snapshot of %s.%s at block %d is passed over: %s",
                    state.database,
                    state.branch,
                    ref.seq,
                    error.message,
                )
                continue
            self._metrics.snapshots.labels("loaded").inc()
            return True
        return False

    async def _restored(self, state: BranchState, ref: SnapshotRef, *, line: bool) -> None:
        vault = self.vault(state.database)
        pool = next((s.db.pool for s in self.states() if s.database == state.database), None)
        scratch = BranchState(state.database, state.branch, state.lane)

        def work() -> None:
            loaded: Loaded = vault.load(state.lane, ref, pool, line=line)
            restore(scratch, loaded.db, loaded.extra)

        await self._thread(work)
        if scratch.position.hash != ref.hash:
            raise SegmentCorrupt(f"The snapshot at block {ref.seq} is of another block.")
        state.adopt(scratch)
        if line:
            vault.note(state.lane, state.changes)

    async def _fits(self, listed: SnapshotList, ref: SnapshotRef, branch_log: BranchLog) -> bool:
        """Whether the log holds the block that a snapshot was taken after.

        False when this is a later log of the same name.  `LogCorrupt` when the log was cut.
        """
        last = await branch_log.last_seq()
        if last >= ref.seq and (await branch_log.read_block(ref.seq)).hash == ref.hash:
            return True
        first = (await branch_log.read_block(1)).hash.hex() if last else ""
        if first != listed.first_hash:
            return False
        database, branch = branch_log.database, branch_log.branch
        if last < ref.seq:
            raise ends_early(database, branch, last, ref.seq)
        raise LogCorrupt(
            f"The newest snapshot of {database}.{branch} was taken after another block {ref.seq} "
            f"than the log has now. Nothing is served from this log: restore a backup, or accept "
            f"it (natalog recover {database} --branch {branch} --accept-loss-after {last}).",
            database=database,
            branch=branch,
            sequence=ref.seq,
        )

    # --- writing -----------------------------------------------------------------------------

    async def write(self, state: BranchState) -> Written:
        """Write a snapshot of a branch as it is now; transactions go on meanwhile."""
        vault = self.vault(state.database)
        try:
            settle = None if self.settle is None else partial(from_thread.run, self.settle, state)
            found = await self._thread(partial(vault.write, state, settle))
        except BaseException:
            self._metrics.snapshots.labels("failed").inc()
            raise
        if found.fresh:
            await self._measure(state.database)
            self._metrics.snapshots.labels("written").inc()
            self._metrics.snapshot_seconds.observe(found.seconds)
            log.info(
                "snapshot of %s.%s at block %d: %d segments, %d bytes, %.2f s",
                state.database,
                state.branch,
                found.ref.seq,
                found.segments,
                found.bytes,
                found.seconds,
            )
        else:
            self._metrics.snapshots.labels("unchanged").inc()
        return found

    def changes(self, state: BranchState) -> int:
        """How many changes of a branch are in none of its snapshots, as far as is known here."""
        return state.changes - self.vault(state.database).known(state.lane)[1]

    def ages(self) -> Iterator[SnapshotAge]:
        """How old the newest snapshots of open branches are."""
        now = time.time()
        for state in self.states():
            ref, _ = self.vault(state.database).known(state.lane)
            if ref is not None:
                yield SnapshotAge(state.database, state.branch, now - ref.written_ms / 1000)

    # --- forgetting --------------------------------------------------------------------------

    async def drop(self, database: str, lanes: Iterable[int] | None = None) -> None:
        """Forget the snapshots of lanes, or all; their segments go with the next compaction."""
        vault = self.vault(database)
        if lanes is None:
            await self._thread(vault.void)
            return
        for lane in lanes:
            await self._thread(partial(vault.drop, lane))

    async def remove(self, database: str) -> None:
        """Remove everything: the database is gone."""
        await self._thread(self.vault(database).clear)
        self.forget(database)

    def forget(self, database: str) -> None:
        """Know nothing of a database any more: the next one of its name is another."""
        self._vaults.pop(database, None)
        self.store_bytes.pop(database, None)

    async def drop_strangers(self, database: str, lanes: Callable[[], Awaitable[set[int]]]) -> None:
        """Forget the snapshots of lanes that have no log any more; ``lanes``: those that have."""
        listed = set(await self._thread(self.vault(database).all_listed))
        if listed:
            await self.drop(database, listed - await lanes())

    async def compact(
        self, database: str, *, grace_s: float, dry_run: bool = False, force: bool = False
    ) -> Compacted:
        """Free the space of segments that nothing needs, once that is more than half.

        ``force``: however little it is.  Values that may be asked for here keep their segments;
        what other processes read stays for ``grace_s``.
        """
        vault = self.vault(database)
        in_use = await self._thread(partial(stored_names, list(self.values(database))))
        work = partial(vault.compact, in_use, grace_s=grace_s, dry_run=dry_run, force=force)
        try:
            found = await self._thread(work)
        except Superseded:
            log.info("somebody else is compacting the segments of %s", database)
            return Compacted()
        await self._measure(database)
        return found

    async def _measure(self, database: str) -> None:
        self.store_bytes[database] = await self._thread(lambda: self.vault(database).store.size)

    async def renew(self, database: str) -> None:
        """Take new snapshots in place of all that there are, and leave no byte of the old ones.

        Afterwards the segments hold what the heads of the living branches hold, and nothing else.
        Cut short, it leaves a database with fewer snapshots, and is to be called again.
        """
        vault = self.vault(database)
        lanes = list(await self._thread(vault.all_listed))
        await self._thread(vault.void)
        failpoint("renew.voided")
        heads: list[Database] = []
        for lane in lanes:
            state = await self._renewed(database, lane)
            if state is not None:
                heads.append(state.db)
        failpoint("renew.written")
        heads += [state.db for state in self.states() if state.database == database]
        in_use = await self._thread(partial(stored_names, heads))
        for _ in range(RENEW_ATTEMPTS_MAX):
            try:
                await self._thread(partial(vault.compact, in_use, grace_s=0.0, force=True))
                await self._measure(database)
                return
            except Superseded:
                continue
        raise Unavailable(
            f"The segments of {database} are being compacted again and again.", database=database
        )

    async def _renewed(self, database: str, lane: int) -> BranchState | None:
        """A living branch of which a snapshot was written."""
        if self.opened is None:
            return None
        try:
            state = await self.opened(database, lane)
            if state is not None:
                await self.write(state)
        except (SegmentMissing, SegmentCorrupt):
            if self.reopen is None:
                raise
            await self.reopen(database)  # from the log alone: no snapshot counts any more
            state = await self.opened(database, lane)
            if state is not None:
                await self.write(state)
        return state


def stored_names(values: Iterable[Database]) -> set[str]:
    """The segments that hold leaves of database values."""
    found: set[str] = set()
    seen: set[int] = set()
    for db in values:
        trees = [db.entities]
        for index in db.indexes.values():
            trees.append(index.aevt)
            if index.avet is not None:
                trees.append(index.avet)
        for tree in trees:
            if id(tree) not in seen:
                seen.add(id(tree))
                found.update(leaf.stored.name for leaf in tree.leaves if leaf.stored is not None)
    return found


def _fitting(listed: SnapshotList, tx: int | None, seq: int | None) -> Iterator[SnapshotRef]:
    for ref in listed.refs:
        if (tx is None or ref.tx <= tx) and (seq is None or ref.seq <= seq):
            yield ref

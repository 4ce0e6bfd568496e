"""The snapshots of one database, for those who may block: write, load, thin out, compact.

What a process does here is safe beside others that do the same.  A list of snapshots is replaced by
compare-and-set.  A writer looks where segments lie and which epoch it is *before* it takes the
moment that it writes, and again after it has pointed to what it wrote; when either has changed, it
begins again.  So a snapshot that counts was taken in the epoch that it says, and its segments are
in the current generation.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from natalog.actors.failpoints import failpoint
from natalog.actors.pointers import Pointer, Pointers, Superseded
from natalog.actors.runtime import STOPPING
from natalog.actors.segments.shelf import Segment, Shelf
from natalog.actors.segments.store import Generations, Moved, SegmentStore
from natalog.actors.snapshot_extra import extra_of
from natalog.actors.snapshot_refs import SnapshotList, SnapshotRef, thinned
from natalog.actors.state import BranchState, Moment
from natalog.core.database import Database
from natalog.core.errors import SegmentCorrupt, SegmentMissing, Unavailable
from natalog.core.index.pool import ValuePool
from natalog.core.index.residency import Residency
from natalog.core.storage import Memo, load_snapshot, reachable, write_snapshot

log = logging.getLogger("natalog.snapshots")

ATTEMPTS_MAX: Final = 8
DEAD_BYTES_MIN: Final = 64 * 1024
"""Fewer dead bytes are not worth a compaction."""
FAILPOINTS: Final = (
    "snapshot.begun",
    "snapshot.segments",
    "snapshot.stored",
    "snapshot.pointed",
    "snapshot.looked",
)


@dataclass(frozen=True, slots=True)
class Written:
    """A snapshot that was written; ``fresh`` False: the newest one was of this moment already."""

    ref: SnapshotRef
    fresh: bool
    segments: int = 0
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a snapshot holds."""

    db: Database
    extra: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Compacted:
    """Bytes of segments: needed, not needed, and freed, or in a dry run to be freed.

    What is freed while others may read it goes when the time of grace is over.
    """

    live: int = 0
    dead: int = 0
    freed: int = 0


@dataclass(frozen=True, slots=True)
class _Done:
    """An attempt that got through; ``memo`` makes the leaves stored ones."""

    ref: SnapshotRef
    segments: int
    bytes: int
    memo: Callable[[], Memo]


@dataclass(slots=True)
class _Lane:
    """What this process knows of a lane's last snapshot.  ``lock``: one is written at a time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    memo: Memo = field(default_factory=Memo)
    epoch: int = -1
    ref: SnapshotRef | None = None
    changes: int = 0


class Vault:
    """Thread-safe; `stop` ends what is being written.  ``repairs``: as of `SegmentStore`."""

    def __init__(
        self,
        database: str,
        shelf: Shelf,
        pointers: Pointers,
        residency: Residency,
        *,
        repairs: bool = True,
    ) -> None:
        self.database = database
        self.store = SegmentStore(database, shelf, pointers, repairs=repairs)
        self._pointers = pointers
        self._residency = residency
        self._lanes: dict[int, _Lane] = {}
        self._stopped = False

    def stop(self) -> None:
        """What is being written is given up; nothing is pointed to before it is complete."""
        self._stopped = True

    def known(self, lane: int) -> tuple[SnapshotRef | None, int]:
        """The last snapshot of a lane that this process wrote or loaded, and its `changes`."""
        found = self._lanes.get(lane)
        return (None, 0) if found is None else (found.ref, found.changes)

    # --- lists -------------------------------------------------------------------------------

    def listed(self, lane: int) -> SnapshotList:
        """The snapshots of a lane that count."""
        generations = self.store.generations(fresh=True)
        return self._valid(self._pointers.read(lane), generations)

    def all_listed(self) -> dict[int, SnapshotList]:
        """The snapshots of all lanes that count."""
        generations = self.store.generations(fresh=True)
        if not generations.version:
            return {}
        lists = {
            lane: self._valid(pointer, generations)
            for lane, pointer in self._pointers.read_all().items()
        }
        return {lane: listed for lane, listed in lists.items() if listed.refs}

    def _valid(self, pointer: Pointer | None, generations: Generations) -> SnapshotList:
        if pointer is None:
            return SnapshotList(generations.epoch, "")
        found = SnapshotList.decode(pointer.data, pointer.version)
        if found is None or found.epoch != generations.epoch:
            return SnapshotList(generations.epoch, "", (), pointer.version)
        return found

    # --- reading -----------------------------------------------------------------------------

    def load(self, lane: int, ref: SnapshotRef, pool: ValuePool | None, *, line: bool) -> Loaded:
        """What a snapshot holds; its leaves are read when they are needed.

        ``line``: the lane's next snapshot will follow this one.  Raises `SegmentMissing` also for
        leaves that are not there, and `SegmentCorrupt`.
        """
        generations = self.store.generations(fresh=True)
        manifest = self.store.segment(ref.manifest)
        db, memo, extra = load_snapshot(manifest, self.store, self._residency, pool)
        names = memo.names()
        missing = self.store.missing(names)
        if missing:
            raise SegmentMissing(
                f"The snapshot of {self.database} at block {ref.seq} lacks {len(missing)} of its "
                f"{len(names)} segments.",
                database=self.database,
                sequence=ref.seq,
                segments=sorted(missing)[:10],
            )
        if line:
            known = self._lanes.setdefault(lane, _Lane())
            with known.lock:
                known.memo, known.epoch, known.ref = memo, generations.epoch, ref
        return Loaded(db, extra)

    def note(self, lane: int, changes: int) -> None:
        """How many changes the snapshot that was loaded holds."""
        self._lanes.setdefault(lane, _Lane()).changes = changes

    # --- writing -----------------------------------------------------------------------------

    def write(self, state: BranchState, settle: Callable[[], None] | None = None) -> Written:
        """Write a snapshot of a state as it is now, however it goes on meanwhile.

        ``settle`` is called before a moment is taken: nothing may be in the state that has been
        erased since.  Raises `SegmentMissing` when the state lacks leaves that are nowhere,
        `Unavailable` when others came in between again and again.
        """
        lane = self._lanes.setdefault(state.lane, _Lane())
        began = time.monotonic()
        segments = size = 0
        with lane.lock:
            sure = True
            for _ in range(ATTEMPTS_MAX):
                generations = self.store.ready()
                listed = self._valid(self._pointers.read(state.lane), generations)
                if listed.first_hash != state.first_hash:
                    listed = SnapshotList(generations.epoch, state.first_hash, (), listed.version)
                if settle is not None:
                    settle()
                moment = state.moment()
                newest = listed.refs[0] if listed.refs else None
                if newest is not None and newest.seq >= moment.position.seq and sure:
                    return Written(newest, False)
                failpoint("snapshot.begun")
                try:
                    done = self._attempt(state, moment, lane, listed, generations)
                except (Moved, Superseded) as crossed:
                    log.info("a snapshot of %s begins again: %r", self.database, crossed)
                    continue
                segments, size = segments + done.segments, size + done.bytes
                # Whoever moved the segments or declared all snapshots void has either seen this
                # one, or did it before now.
                after = self.store.generations(fresh=True)
                sure = (after.epoch, after.current) == (generations.epoch, generations.current)
                if not sure:
                    continue
                failpoint("snapshot.looked")
                lane.memo = done.memo()
                lane.epoch, lane.ref, lane.changes = generations.epoch, done.ref, moment.changes
                return Written(done.ref, True, segments, size, time.monotonic() - began)
        raise Unavailable(
            f"A snapshot of {self.database} was crossed by others {ATTEMPTS_MAX} times.",
            database=self.database,
        )

    def _attempt(
        self,
        state: BranchState,
        moment: Moment,
        lane: _Lane,
        listed: SnapshotList,
        generations: Generations,
    ) -> _Done:
        snapshot = write_snapshot(
            moment.db,
            self._memo(state, moment, lane, generations),
            extra=extra_of(state, moment),
            stored=self.store.known(),
        )
        count = 0

        def paced() -> Iterator[Segment]:
            nonlocal count
            for segment in snapshot.segments():
                if self._stopped:
                    raise Unavailable(STOPPING)
                count += 1
                if count == 2:
                    failpoint("snapshot.segments")
                yield segment
                time.sleep(0)  # transactions go on: whoever waits for the interpreter gets it

        size = self.store.put_many(paced())
        name, manifest = snapshot.name, snapshot.manifest
        size += self.store.put_many([(name, manifest)])
        failpoint("snapshot.stored")
        ref = SnapshotRef(
            moment.position.seq,
            moment.position.hash,
            moment.db.max_tx,
            name,
            generations.current,
            time.time_ns() // 1_000_000,
        )
        older = (one for one in listed.refs if one.seq < ref.seq)
        wanted = replace(listed, refs=thinned((ref, *older)))
        self._pointers.write(state.lane, wanted.encode(), listed.version)
        failpoint("snapshot.pointed")
        return _Done(ref, count + 1, size, lambda: snapshot.confirm(self.store, self._residency))

    def _memo(
        self, state: BranchState, moment: Moment, lane: _Lane, generations: Generations
    ) -> Memo:
        """What is known of the last snapshot, if it still counts; else of the base's."""
        found = lane
        if lane.ref is None and state.began is not None:
            found = self._lanes.get(state.began.lane, lane)
        usable = found.epoch == generations.epoch and found.memo.pool is moment.db.pool
        return found.memo if usable else Memo()

    # --- forgetting --------------------------------------------------------------------------

    def void(self) -> None:
        """From now on no snapshot counts that was taken until now."""
        self.store.void()

    def drop(self, lane: int) -> None:
        """Forget the snapshots of a lane."""
        self._pointers.erase(lane)
        self._lanes.pop(lane, None)

    def clear(self) -> None:
        """Remove all: the database is gone."""
        self.store.clear()
        self._lanes.clear()

    # --- compacting --------------------------------------------------------------------------

    def live(self) -> set[str]:
        """Every segment that some snapshot needs."""
        found: set[str] = set()
        for lane, listed in self.all_listed().items():
            for ref in listed.refs:
                try:
                    manifest = self.store.segment(ref.manifest)
                    reachable(manifest, self.store.segment, found)
                    found.add(ref.manifest)
                except (SegmentMissing, SegmentCorrupt) as error:
                    log.warning(
                        "a snapshot of %s (lane %d, block %d) cannot be used: %s",
                        self.database,
                        lane,
                        ref.seq,
                        error.message,
                    )
        return found

    def compact(
        self,
        in_use: set[str],
        *,
        grace_s: float,
        force: bool = False,
        dry_run: bool = False,
    ) -> Compacted:
        """Free what neither a snapshot nor ``in_use`` needs, if that is more than half.

        ``force``: however little it is.  Raises `Superseded` when another one was faster.
        """
        if not self.store.generations(fresh=True).version:
            return Compacted()
        sizes = self.store.sizes()
        live = self.live() | in_use
        needed = sum(sizes.get(name, 0) for name in live)
        dead = max(0, sum(sizes.values()) - needed)
        behind = self.store.behind()
        worth = dead and (force or (dead > needed and dead >= DEAD_BYTES_MIN))
        if dry_run:
            freed = behind + (dead if worth else 0)
        elif worth:
            freed = self.store.keep(lambda: self.live() | in_use, grace_s=grace_s)
        else:
            freed = self.store.sweep(grace_s=grace_s)
        return Compacted(needed, dead + behind, freed)

"""What of a stored database is in memory: rows of leaves and columns that scans made, by bytes.

Everything here can be had again from segments, so it may go.  What is to go is found by the second
chance: whatever was used since the hand came by last goes to the end of the line.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, Protocol, TypeVar
from weakref import KeyedRef, WeakSet, WeakValueDictionary

from natalog.core.index.leaf import Leaf
from natalog.core.index.pool import Ints

T = TypeVar("T")

_SHARE_MAX: Final = 2
"""One thing but a leaf may fill the budget divided by this; a larger one is not kept at all."""


class Resident(Protocol):
    """Something that can be evicted.  ``hits`` counts its uses."""

    hits: int

    def evict(self) -> None:
        """Let go of what was counted."""
        ...


class Kept(dict[Any, Any]):
    """What a view computed, by what it is of; a `Resident` once something of it is counted."""

    __slots__ = ("__weakref__", "_keeper", "_size", "hits")

    def __init__(self) -> None:
        self.hits = 0
        self._size = 0
        self._keeper: Residency | None = None

    def count(self, keeper: Residency, size: int) -> None:
        """Count ``size`` bytes more."""
        self._keeper = keeper
        self._size += size
        if not keeper.keep(self, self._size):
            self.evict()

    def evict(self) -> None:
        self._size = 0
        self.clear()

    def forget(self) -> None:
        """Let go of everything."""
        self.evict()
        if self._keeper is not None:
            self._keeper.discard(self)


@dataclass(frozen=True, slots=True)
class ResidencyStats:
    """Counters since the start (``hits``, ``misses``, ``evictions``) and what there is now.

    A hit is a use of something at hand, approximately counted; a miss a segment that was read.
    """

    hits: int
    misses: int
    evictions: int
    resident_bytes: int
    residents: int
    budget_bytes: int


class _Entry:
    __slots__ = ("bytes", "counted", "ref", "seen")

    def __init__(self, ref: KeyedRef[int, Any], size: int, hits: int) -> None:
        self.ref = ref
        self.bytes = size
        self.seen = hits
        """Uses when the hand came by."""
        self.counted = hits
        """Uses that are in the counter."""


class Residency:
    """Keeps what is in memory of stored tables below ``budget_bytes``.  Thread-safe.

    Counts what was admitted and not evicted; arrays that a reader still holds after their eviction
    are the reader's.  The last one admitted stays whatever its size, so that a budget of nothing
    is slow and not wrong.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._lock = Lock()
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._dead: deque[KeyedRef[int, Any]] = deque()
        self._leaves: WeakValueDictionary[tuple[int, str], Leaf] = WeakValueDictionary()
        self._twins: WeakSet[Leaf] = WeakSet()
        """Leaves of segments that another leaf is known of."""
        self._tables: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
        self._bytes = 0
        self._hits = 0
        self._misses = 0
        self._evictions = 0

    # --- leaves ------------------------------------------------------------------------------

    def shared(self, leaf: Leaf) -> Leaf:
        """The leaf that is known of the same segment, else this one from now on.

        Databases that share segments share leaves; segments of two stores are never the same, as
        each may lose its own.
        """
        with self._lock:
            return self._leaves.setdefault(_segment(leaf), leaf)

    def table(self, key: Hashable) -> Any:
        """The table that is known under a key that says all that is in it, or None."""
        with self._lock:
            return self._tables.get(key)

    def shared_table(self, key: Hashable, table: T) -> T:
        """The table that is known under a key, else this one from now on."""
        with self._lock:
            found: T = self._tables.setdefault(key, table)
            return found

    def names(self) -> set[str]:
        """The segments of all leaves that somebody holds, in memory or not."""
        with self._lock:
            found = {name for _, name in self._leaves}
            found.update(leaf.stored.name for leaf in self._twins if leaf.stored is not None)
            return found

    def introduce(self, leaf: Leaf) -> None:
        """Count a leaf that is stored from now on; it may be evicted at once."""
        with self._lock:
            if self._leaves.setdefault(_segment(leaf), leaf) is not leaf:
                self._twins.add(leaf)
            if leaf.array is not None:
                self._admit(leaf, leaf.array.nbytes)

    def load(self, leaf: Leaf) -> Ints:
        """The rows of a leaf, read and kept.  The segment is read outside the lock."""
        rows = self.read(leaf)
        with self._lock:
            found = leaf.array
            if found is not None:  # another thread was faster
                return found
            leaf.array = rows
            self._admit(leaf, rows.nbytes)
        return rows

    def read(self, leaf: Leaf) -> Ints:
        """The rows of a leaf, read and not kept."""
        stored = leaf.stored
        assert stored is not None
        rows = stored.source.rows(stored.name)
        with self._lock:
            self._misses += 1
        return rows

    # --- whatever else can be made again -------------------------------------------------------

    def keep(self, resident: Resident, size: int) -> bool:
        """Count ``size`` bytes in all for a resident; False, and nothing counted, if too many."""
        with self._lock:
            if size * _SHARE_MAX > self.budget_bytes:
                self._drop(id(resident))
                return False
            self._admit(resident, size)
            return True

    def discard(self, resident: Resident) -> None:
        """Count a resident no longer; it let go by itself."""
        with self._lock:
            self._drop(id(resident))

    # --- counting ------------------------------------------------------------------------------

    @property
    def resident_bytes(self) -> int:
        with self._lock:
            self._sweep()
            return self._bytes

    def stats(self) -> ResidencyStats:
        """What metrics show.  O(residents)."""
        with self._lock:
            self._sweep()
            for entry in self._entries.values():
                self._count(entry, entry.ref())
            return ResidencyStats(
                self._hits,
                self._misses,
                self._evictions,
                self._bytes,
                len(self._entries),
                self.budget_bytes,
            )

    def _count(self, entry: _Entry, resident: Resident | None) -> None:
        if resident is not None:
            hits = resident.hits
            self._hits += hits - entry.counted
            entry.counted = hits

    def _admit(self, resident: Resident, size: int) -> None:
        key = id(resident)
        self._drop(key)
        # A callback may run at any moment, also while this thread holds the lock: it only notes.
        ref: KeyedRef[int, Any] = KeyedRef(resident, self._dead.append, key)
        self._entries[key] = _Entry(ref, size, resident.hits)
        self._bytes += size
        self._shrink(key)

    def _drop(self, key: int) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.bytes
            self._count(entry, entry.ref())

    def _sweep(self) -> None:
        """Forget what nobody holds any more."""
        while self._dead:
            ref = self._dead.popleft()
            entry = self._entries.get(ref.key)
            if entry is not None and entry.ref is ref:  # else the id belongs to something new
                self._drop(ref.key)

    def _shrink(self, newest: int) -> None:
        if self._bytes <= self.budget_bytes:
            return
        self._sweep()
        # Twice around at most: the first time may only take second chances away.
        for _ in range(2 * len(self._entries)):
            if self._bytes <= self.budget_bytes:
                return
            key, entry = next(iter(self._entries.items()))
            resident = entry.ref()
            if key == newest or (resident is not None and resident.hits != entry.seen):
                if resident is not None:
                    entry.seen = resident.hits
                self._entries.move_to_end(key)
                continue
            if resident is not None:
                resident.evict()
                self._evictions += 1
            self._drop(key)


def _segment(leaf: Leaf) -> tuple[int, str]:
    """Where a leaf is stored: the place and the name."""
    assert leaf.stored is not None
    return (leaf.stored.source.place, leaf.stored.name)

"""The segments of one database: which generation holds them, and how they move to the next.

One message says where segments lie (`Generations`): the generation that counts, those that were
left behind and serve slow readers for a while, and the highest number that was ever claimed.  It is
replaced by compare-and-set.  To free space, a compaction claims a number, copies what lives into
that generation, makes it the current one, looks again for what was pointed to meanwhile, and
removes the old one.  Whoever writes a snapshot looks at the message again after it pointed to what
it wrote: either the compaction saw its pointer, or it sees the compaction.

``epoch`` counts the times that all snapshots of the database were declared void.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final
from uuid import uuid4

from natalog.actors.failpoints import failpoint
from natalog.actors.pointers import Pointer, Pointers, Superseded
from natalog.actors.segments.shelf import GenerationGone, Segment, Shelf
from natalog.core.codec import pack, unpack
from natalog.core.errors import NatalogError, SegmentMissing

log = logging.getLogger("natalog.segments")

VERSION: Final = 1
CLAIM_ATTEMPTS_MAX: Final = 20
UNREADABLE_EPOCH: Final = 2**32
FAILPOINTS: Final = (
    "compact.claimed",
    "compact.copied",
    "compact.switched",
    "compact.looked",
    "compact.removed",
)


class Moved(Exception):
    """The segments have moved to another generation meanwhile; begin again."""


@dataclass(frozen=True, slots=True)
class Generations:
    """Where segments lie; ``current`` 0: nowhere yet.  ``retired``: generation and when (ms).

    ``ident`` tells this database from an earlier one of its name, whose numbers were the same.
    """

    kind: str = ""
    ident: str = ""
    epoch: int = 0
    current: int = 0
    claimed: int = 0
    retired: tuple[tuple[int, int], ...] = ()
    version: int = 0

    def encode(self) -> bytes:
        retired = [list(pair) for pair in self.retired]
        return pack(
            [VERSION, self.kind, self.ident, self.epoch, self.current, self.claimed, retired]
        )

    @classmethod
    def decode(cls, pointer: Pointer) -> Generations:
        """What a message says; `NatalogError`, TypeError or ValueError when it cannot be read."""
        version, kind, ident, epoch, current, claimed, retired = unpack(pointer.data)
        if version != VERSION:
            raise ValueError(f"version {version!r}")
        left = tuple((number, since) for number, since in retired)
        return cls(kind, ident, epoch, current, claimed, left, pointer.version)


class SegmentStore:
    """Reads and writes segments, whatever generation they are in.  Thread-safe and blocking.

    ``repairs``: corrupt segments are removed, so that they can be written again.
    """

    def __init__(
        self, database: str, shelf: Shelf, pointers: Pointers, *, repairs: bool = True
    ) -> None:
        self.database = database
        self._shelf = shelf
        self._pointers = pointers
        self._repairs = repairs
        self._lock = threading.Lock()
        self._generations: Generations | None = None
        self._known: tuple[tuple[str, int], set[str]] = (("", 0), set())
        self.corrupt = 0
        """Segments that did not have the bytes that their name says."""

    # --- where -------------------------------------------------------------------------------

    def generations(self, *, fresh: bool = False) -> Generations:
        """Where segments lie, as was last seen or, ``fresh``, as it is."""
        found = self._generations
        if found is None or fresh:
            found = self._generations = self._read()
        return found

    def _read(self) -> Generations:
        pointer = self._pointers.read(None)
        if pointer is None:
            return Generations(self._shelf.kind, uuid4().hex)
        try:
            found = Generations.decode(pointer)
        except (NatalogError, TypeError, ValueError) as error:
            # everything can be made again from the log; no snapshot has this epoch
            log.error("where the segments of %s lie cannot be read: %s", self.database, error)
            claimed = max(self._shelf.generations(), default=0)
            epoch = UNREADABLE_EPOCH + pointer.version
            ident = uuid4().hex
            return Generations(self._shelf.kind, ident, epoch, 0, claimed, (), pointer.version)
        if found.kind == self._shelf.kind:
            return found
        # The service keeps its segments elsewhere now: what lies there counts no longer.
        return replace(found, kind=self._shelf.kind, epoch=found.epoch + 1, current=0, retired=())

    def _write(self, wanted: Generations) -> Generations:
        version = self._pointers.write(None, wanted.encode(), wanted.version)
        found = self._generations = replace(wanted, version=version)
        return found

    def ready(self) -> Generations:
        """Where to write; the first generation is made when it is needed."""
        for _ in range(CLAIM_ATTEMPTS_MAX):
            found = self.generations(fresh=True)
            if found.current:
                return found
            number = found.claimed + 1
            self._shelf.create(number)
            try:
                return self._write(replace(found, current=number, claimed=number))
            except Superseded:
                continue
        raise Moved

    def _begin_anew(self, lost: Generations) -> None:
        """Another generation in place of one that nobody has moved and that is not there."""
        log.error("generation %d of the segments of %s is lost", lost.current, self.database)
        found = self.generations()
        number = found.claimed + 1
        self._shelf.create(number)
        with contextlib.suppress(Superseded):
            self._write(replace(found, current=number, claimed=number))

    def void(self) -> Generations:
        """Begin a new epoch: no snapshot of an earlier one counts any more."""
        for _ in range(CLAIM_ATTEMPTS_MAX):
            found = self.generations(fresh=True)
            if not found.version:
                return found
            try:
                return self._write(replace(found, epoch=found.epoch + 1))
            except Superseded:
                continue
        raise Moved

    # --- reading -----------------------------------------------------------------------------

    def segment(self, name: str) -> bytes:
        """A segment as core reads it; `SegmentMissing` when it is nowhere."""
        found = self.get(name)
        if found is None:
            raise SegmentMissing(
                f"The segment {name} of {self.database} is missing.",
                database=self.database,
                segment=name,
            )
        return found

    def get(self, name: str) -> bytes | None:
        """A segment, verified; None when it is nowhere or corrupt."""
        found = self._get(name, self.generations())
        if found is None:
            before = self.generations()
            after = self.generations(fresh=True)
            if after != before:
                found = self._get(name, after)
        return found

    def _get(self, name: str, generations: Generations) -> bytes | None:
        if not generations.current:
            return None
        for number in (generations.current, *(number for number, _ in generations.retired)):
            data = self._shelf.get(number, name)
            if data is None:
                continue
            if sha256(data).hexdigest() == name:
                return data
            self.corrupt += 1
            log.error("segment %s of %s is corrupt", name, self.database)
            if self._repairs:
                self._shelf.discard(number, name)
                with self._lock:
                    self._known[1].discard(name)
        return None

    def missing(self, names: set[str]) -> set[str]:
        """Which of ``names`` are not in the current generation, looked up anew."""
        return names - self._listed(self.generations(fresh=True), fresh=True)

    def known(self) -> set[str]:
        """Segments that are in the current generation; others may be, too."""
        return self._listed(self.generations())

    def _listed(self, generations: Generations, *, fresh: bool = False) -> set[str]:
        if not generations.current:
            return set()
        key = (generations.ident, generations.current)
        with self._lock:
            found, names = self._known
        if fresh or found != key:
            names = self._shelf.names(generations.current)
            with self._lock:
                self._known = (key, names)
        return names

    @property
    def size(self) -> int:
        """The bytes of all generations."""
        return sum(self._shelf.generations().values())

    def behind(self) -> int:
        """The bytes of generations that do not count any more."""
        current = self.generations().current
        held = self._shelf.generations().items()
        return sum(size for number, size in held if number != current)

    def sizes(self) -> dict[str, int]:
        """The bytes of every segment of the current generation."""
        found = self.generations(fresh=True)
        return self._shelf.sizes(found.current) if found.current else {}

    # --- writing -----------------------------------------------------------------------------

    def put_many(self, segments: Iterable[Segment]) -> int:
        """Write segments that are not there yet; returns the bytes written.

        Raises `Moved` when a compaction came in between.
        """
        generations = self.ready()
        known = self._listed(generations)
        fresh: list[str] = []

        def new() -> Iterator[Segment]:
            for name, data in segments:
                if name not in known:
                    fresh.append(name)
                    yield name, data

        try:
            size = self._shelf.put_many(generations.current, new())
        except GenerationGone as error:
            if self.generations(fresh=True).current == generations.current:
                self._begin_anew(generations)
            raise Moved from error
        with self._lock:
            if self._known[0] == (generations.ident, generations.current):
                self._known[1].update(fresh)
        return size

    # --- freeing -----------------------------------------------------------------------------

    def keep(self, live: Callable[[], set[str]], *, grace_s: float = 0.0) -> int:
        """Remove all but what ``live`` names; returns the bytes freed at once.

        ``live`` is asked again after the move.  The old generation stays for ``grace_s`` seconds,
        until a later `keep` or `sweep`.  Raises `Superseded` when another compaction came first.
        """
        before = self.size
        found = self.generations(fresh=True)
        if not found.current:
            return 0
        source, target = found.current, found.claimed + 1
        found = self._write(replace(found, claimed=target))
        failpoint("compact.claimed")
        copied = live()
        self._shelf.create(target)
        try:
            self._shelf.copy(source, target, copied)
            failpoint("compact.copied")
            retired = (*found.retired, (source, _now_ms()))
            # whoever has claimed a number since has won
            self._write(replace(found, current=target, retired=retired))
        except GenerationGone as error:
            raise Superseded from error
        except Superseded:
            self._shelf.drop(target)
            raise
        failpoint("compact.switched")
        while more := live() - copied:
            self._shelf.copy(source, target, more)
            copied |= more
        failpoint("compact.looked")
        self.sweep(grace_s=grace_s)
        failpoint("compact.removed")
        return max(0, before - self.size)

    def sweep(self, *, grace_s: float = 0.0) -> int:
        """Remove generations that were left behind longer ago; returns the bytes freed."""
        found = self.generations(fresh=True)
        if not found.version:
            return 0
        limit = _now_ms() - int(grace_s * 1000)
        kept = tuple((number, since) for number, since in found.retired if since > limit)
        if kept != found.retired:
            found = self._write(replace(found, retired=kept))
        serving = {found.current, found.claimed, *(number for number, _ in kept)}
        freed = 0
        for number, size in self._shelf.generations().items():
            # a higher number was claimed since this list was read
            if number not in serving and number < found.claimed:
                self._shelf.drop(number)
                freed += size
        return freed

    def clear(self) -> None:
        """Remove everything: the database is gone."""
        for number in self._shelf.generations():
            self._shelf.drop(number)
        self._pointers.clear()
        self._generations = None
        with self._lock:
            self._known = (("", 0), set())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

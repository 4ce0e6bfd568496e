"""Tables that grow with a log: its commits, and where the outcomes of transactions with ids are.

Both only grow, in the order of the log, so that their first n entries stay what they are.  A
snapshot keeps them in chunks of `CHUNK_ENTRIES`, of which all but the last are the same ones in the
next snapshot.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np

from natalog.core.codec import pack, unpack
from natalog.core.redacted import erased_id

CHUNK_ENTRIES: Final = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """Where the outcome of a transaction with an id is kept: block and entry."""

    seq: int
    entry: int


class Commits:
    """The commits of one log in order: 32 bytes each, and the parents that are not the last one.

    Every commit but the first has the one before it as its first parent.
    """

    def __init__(self) -> None:
        self._ids = bytearray()
        self._txs = array("q")
        self._instants = array("q")
        self._more: dict[int, tuple[UUID, ...]] = {}

    def __len__(self) -> int:
        return len(self._txs)

    def add(
        self, commit: UUID, tx: int, parents: Sequence[UUID], instant_ms: int | None = None
    ) -> None:
        """``instant_ms``: of the transaction or, without one, of the commit."""
        spot = len(self._txs)
        more = tuple(parents[1:] if spot else parents)
        if more:
            self._more[spot] = more
        self._ids += commit.bytes
        self._instants.append(0 if instant_ms is None else instant_ms)
        self._txs.append(tx)

    @property
    def first(self) -> UUID:
        """The commit that the log begins with."""
        return self.id(0)

    def id(self, spot: int) -> UUID:
        """The commit at a place, counted from 0 at the beginning of the log."""
        return UUID(bytes=bytes(self._ids[16 * spot : 16 * spot + 16]))

    def tx(self, spot: int) -> int:
        return self._txs[spot]

    def instant_ms(self, spot: int) -> int:
        return self._instants[spot]

    def parents(self, spot: int) -> tuple[UUID, ...]:
        more = self._more.get(spot, ())
        return (self.id(spot - 1), *more) if spot else more

    @property
    def foreign(self) -> Iterator[UUID]:
        """Parents that need not stand in this log."""
        for parents in list(self._more.values()):
            yield from parents

    def find(self, commit: UUID) -> int | None:
        """The place of a commit, sought from the newest on; O(n), but as fast as memory."""
        wanted, end = commit.bytes, len(self._ids)
        while (at := self._ids.rfind(wanted, 0, end)) >= 0:
            if at % 16 == 0:
                return at // 16
            end = at + 15
        return None

    def find_tx(self, tx: int) -> int | None:
        """The place of a transaction's commit.  Transactions ascend; O(log n)."""
        spot = bisect_left(self._txs, tx)
        return spot if spot < len(self._txs) and self._txs[spot] == tx else None

    def find_instant(self, ms: int) -> int | None:
        """The place of the newest commit that is not younger than an instant."""
        spots = range(len(self._txs) - 1, -1, -1)
        return next((spot for spot in spots if self._instants[spot] <= ms), None)

    # --- chunks ------------------------------------------------------------------------------

    def chunks(self, count: int) -> Iterator[bytes]:
        """The first ``count`` commits, in chunks.  Others may be added meanwhile."""
        more = dict(self._more)
        for start in range(0, count, CHUNK_ENTRIES):
            end = min(start + CHUNK_ENTRIES, count)
            yield pack(
                [
                    bytes(self._ids[16 * start : 16 * end]),
                    _steps(self._txs[start:end]),
                    _steps(self._instants[start:end]),
                    {
                        spot: [parent.bytes for parent in parents]
                        for spot, parents in more.items()
                        if start <= spot < end
                    },
                ]
            )

    def extend(self, chunk: bytes) -> None:
        """Add the commits of the next chunk."""
        ids, txs, instants, more = unpack(chunk)
        self._ids += ids
        self._txs.frombytes(_numbers(txs))
        self._instants.frombytes(_numbers(instants))
        for spot, parents in more.items():
            self._more[spot] = tuple(UUID(bytes=parent) for parent in parents)


class Idents:
    """Where the first outcome of every transaction with an id is kept."""

    def __init__(self) -> None:
        self._spots: dict[str, int] = {}
        self._names: list[str] = []
        self._seqs = array("q")
        self._entries = array("q")

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, ident: object) -> bool:
        return ident in self._spots

    def __getitem__(self, ident: str) -> Place:
        spot = self._spots[ident]
        return Place(self._seqs[spot], self._entries[spot])

    def note(self, ident: str, place: Place) -> None:
        """Remember the outcome of an id; the first one counts."""
        if ident in self._spots:
            return
        spot = len(self._names)
        self._seqs.append(place.seq)
        self._entries.append(place.entry)
        self._names.append(ident)
        self._spots[ident] = spot  # last: another thread may look for it

    def digest(self, places: Collection[tuple[int, int]]) -> None:
        """Forget ids that were erased, by block and entry: their digests stand for them."""
        for spot, place in enumerate(zip(self._seqs, self._entries, strict=True)):
            name = self._names[spot]
            if place in places and erased_id(name) != name:
                self._names[spot] = erased_id(name)
                self._spots[erased_id(name)] = spot
                del self._spots[name]

    def chunks(self, count: int) -> Iterator[bytes]:
        """The first ``count`` ids, in chunks.  Others may be added meanwhile."""
        for start in range(0, count, CHUNK_ENTRIES):
            end = min(start + CHUNK_ENTRIES, count)
            yield pack(
                [
                    self._names[start:end],
                    _steps(self._seqs[start:end]),
                    _steps(self._entries[start:end]),
                ]
            )

    def extend(self, chunk: bytes) -> None:
        """Add the ids of the next chunk."""
        names, seqs, entries = unpack(chunk)
        self._spots.update(zip(names, range(len(self), len(self) + len(names)), strict=True))
        self._seqs.frombytes(_numbers(seqs))
        self._entries.frombytes(_numbers(entries))
        self._names += names


def _steps(numbers: array[int]) -> bytes:
    """Numbers as differences, which are mostly small and alike."""
    column = np.frombuffer(numbers.tobytes(), dtype=np.int64)
    return np.diff(column, prepend=np.int64(0)).astype("<i8").tobytes()


def _numbers(steps: bytes) -> bytes:
    """The numbers of `_steps`, as an `array` of "q" holds them."""
    return np.frombuffer(steps, dtype="<i8").cumsum(dtype=np.int64).tobytes()

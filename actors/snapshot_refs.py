"""The list of a lane's snapshots: one small message, replaced whenever a snapshot is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from natalog.core.codec import pack, unpack
from natalog.core.errors import NatalogError

VERSION: Final = 1
SNAPSHOTS_MAX: Final = 8
"""Snapshots of one lane."""


@dataclass(frozen=True, slots=True)
class SnapshotRef:
    """A snapshot: where it stands in its log, and the segment that names all others.

    ``hash``: of block ``seq``.  ``tx``: the last transaction in the value.  ``written_ms``: when.
    """

    seq: int
    hash: bytes
    tx: int
    manifest: str
    generation: int
    written_ms: int


@dataclass(frozen=True, slots=True)
class SnapshotList:
    """The snapshots of a lane, the newest first.

    ``first_hash``: of the log's first block, which tells it from an earlier log of the lane.
    ``epoch``: as in `Generations`; a list of another one is void.  ``version``: of the message.
    """

    epoch: int
    first_hash: str
    refs: tuple[SnapshotRef, ...] = ()
    version: int = 0

    def encode(self) -> bytes:
        rows = [
            [
                ref.seq,
                ref.hash,
                ref.tx,
                bytes.fromhex(ref.manifest),
                ref.generation,
                ref.written_ms,
            ]
            for ref in self.refs
        ]
        return pack([VERSION, self.epoch, bytes.fromhex(self.first_hash), rows])

    @classmethod
    def decode(cls, data: bytes, version: int) -> SnapshotList | None:
        """The list in a message; None when it cannot be read: snapshots can be made again."""
        try:
            number, epoch, first_hash, rows = unpack(data)
            if number != VERSION:
                return None
            refs = tuple(
                SnapshotRef(seq, hash_, tx, manifest.hex(), generation, written_ms)
                for seq, hash_, tx, manifest, generation, written_ms in rows
            )
            return cls(epoch, first_hash.hex(), refs, version)
        except (NatalogError, TypeError, ValueError, AttributeError):
            return None


def thinned(refs: Sequence[SnapshotRef], count: int = SNAPSHOTS_MAX) -> tuple[SnapshotRef, ...]:
    """At most ``count`` of ``refs`` (the newest first), ever farther apart into the past.

    The newest and the oldest stay.  Whoever wants an old value folds the log from the snapshot
    before it; distances that grow by a factor keep that work in proportion to the value's age.
    """
    kept = list(refs)
    while len(kept) > max(count, 2):
        newest = kept[0].seq

        def gap(spot: int, newest: int = newest) -> float:
            """By which factor the age would jump if this one were not there."""
            return (newest - kept[spot + 1].seq + 1) / (newest - kept[spot - 1].seq + 1)

        del kept[min(range(1, len(kept) - 1), key=lambda spot: (gap(spot), spot))]
    return tuple(kept)

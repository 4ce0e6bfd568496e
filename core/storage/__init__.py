"""Database values as segments: content-addressed bytes that snapshots, lines and branches share.

Pure: what reads and keeps bytes is a `SegmentSource`.  ``docs/segment_format.md`` has the format.

A snapshot is written like this, and the memo goes into the next one of the same line::

    snapshot = write_snapshot(db, memo, extra={"commits": ...})
    for name, data in snapshot.segments():
        ...                                    # store it
    ...                                        # then store snapshot.manifest under snapshot.name
    memo = snapshot.confirm(source, residency)

and read with ``db, memo, extra = load_snapshot(manifest, source, residency)``.
"""

from __future__ import annotations

from natalog.core.index.residency import Residency, ResidencyStats
from natalog.core.storage.loading import load_snapshot
from natalog.core.storage.manifest import Manifest, reachable
from natalog.core.storage.memo import Memo
from natalog.core.storage.segment import SegmentSource, name_of, verified
from natalog.core.storage.snapshot import Snapshot, write_snapshot

__all__ = [
    "Manifest",
    "Memo",
    "Residency",
    "ResidencyStats",
    "SegmentSource",
    "Snapshot",
    "load_snapshot",
    "name_of",
    "reachable",
    "verified",
    "write_snapshot",
]

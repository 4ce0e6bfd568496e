"""A store of segments in memory, and comparisons of whole values, for tests of snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zstandard

from natalog.core.database import Database
from natalog.core.errors import SegmentMissing
from natalog.core.storage import Memo, Residency, Snapshot, load_snapshot, reachable, write_snapshot


class Store(dict[str, bytes]):
    """Segments by name; counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def segment(self, name: str) -> bytes:
        self.reads.append(name)
        if name not in self:
            raise SegmentMissing(f"There is no segment {name}.", segment=name)
        return self[name]

    def write(
        self,
        db: Database,
        memo: Memo | None = None,
        residency: Residency | None = None,
        extra: Mapping[str, bytes] | None = None,
        stored: Any = None,
    ) -> tuple[Snapshot, Memo, set[str]]:
        """Store a snapshot; also the names of the segments that were written for it."""
        memo = Memo() if memo is None else memo
        snapshot = write_snapshot(db, memo, extra=extra, stored=stored)
        new: dict[str, bytes] = {}
        for name, data in snapshot.segments():
            assert name not in new, "a segment was written twice"
            new[name] = data
        self.update(new)
        self[snapshot.name] = snapshot.manifest
        assert reachable(snapshot.manifest, self.__getitem__) == snapshot.names
        assert snapshot.names <= self.keys()
        return snapshot, snapshot.confirm(self, residency), set(new)

    def load(self, snapshot: Snapshot, budget: int = 10**9, pool: Any = None) -> Database:
        return load_snapshot(snapshot.manifest, self, Residency(budget), pool)[0]

    def opened(self, name: str) -> bytes:
        """What is in a segment of whatever kind."""
        body: bytes = zstandard.ZstdDecompressor().decompress(self[name][4:])
        return body

    def holds(self, snapshot: Snapshot, marker: bytes) -> bool:
        """Whether the bytes are anywhere in what a snapshot consists of."""
        return any(marker in self.opened(name) for name in (*snapshot.names, snapshot.name))


def same(one: Database, other: Database) -> None:
    """Both values are equal in everything that can be read."""
    for field in ("config", "lane", "max_tx", "max_eid", "instant_ms", "latest_ms", "monotonic"):
        assert getattr(one, field) == getattr(other, field), field
    for field in ("commit_id", "purge_horizon", "window"):
        assert getattr(one, field) == getattr(other, field), field
    same_schema(one, other)
    assert list(one.indexes) == list(other.indexes)
    for attr, index in one.indexes.items():
        twin = other.indexes[attr]
        assert index.kind == twin.kind
        assert (index.aevt.count, index.aevt.open) == (twin.aevt.count, twin.aevt.open)
        assert index.aevt.distinct_first() == twin.aevt.distinct_first()
        assert (index.avet is None) == (twin.avet is None)
        if index.avet is not None and twin.avet is not None:
            assert index.avet.distinct_first() == twin.avet.distinct_first()
    assert one.entities.flat()[0].tolist() == other.entities.flat()[0].tolist()
    views = [(one, other)]
    if one.config.keep_history:
        middle = one.tx0 + (one.max_tx - one.tx0) // 2
        views += [(one.history(), other.history()), (one.as_of(middle), other.as_of(middle))]
        views += [(one.since(middle), other.since(middle))]
    for mine, theirs in views:
        assert len(mine) == len(theirs)
        for name in ("eavt", "aevt", "avet"):
            assert mine.datoms(name) == theirs.datoms(name)
        assert mine.metrics() == theirs.metrics()


def same_schema(one: Database, other: Database) -> None:
    mine, theirs = one.schema, other.schema
    assert mine.flexible == theirs.flexible
    assert mine.declared() == theirs.declared()
    assert mine.idents == theirs.idents
    assert list(mine.composites.items()) == list(theirs.composites.items())
    assert mine.attributes() == theirs.attributes()
    assert mine.read_out() == theirs.read_out()
    assert mine.reverse_read_out() == theirs.reverse_read_out()

"""Snapshots: a loaded value is the one that was written, and what did not change is not written."""

from __future__ import annotations

from typing import Any

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import SegmentMissing
from natalog.core.storage import (
    Memo,
    Residency,
    Snapshot,
    load_snapshot,
    reachable,
    write_snapshot,
)
from natalog.core.transact import process
from natalog.core.values import Keyword

K = Keyword

SCHEMA = read("""
    [{:db/ident :id    :db/valueType :db.type/long    :db/cardinality :db.cardinality/one
      :db/unique :db.unique/identity}
     {:db/ident :name  :db/valueType :db.type/string  :db/cardinality :db.cardinality/one
      :db/index true :db/doc "what it is called"}
     {:db/ident :score :db/valueType :db.type/double  :db/cardinality :db.cardinality/one}
     {:db/ident :tag   :db/valueType :db.type/keyword :db/cardinality :db.cardinality/many}
     {:db/ident :boss  :db/valueType :db.type/ref     :db/cardinality :db.cardinality/one}
     {:db/ident :pass  :db/valueType :db.type/string  :db/cardinality :db.cardinality/one
      :db/noHistory true}]
""")


class Store(dict[str, bytes]):
    """Segments by name."""

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
        **more: Any,
    ) -> tuple[Snapshot, Memo, set[str]]:
        """Store a snapshot; the names that were new."""
        snapshot = write_snapshot(db, Memo() if memo is None else memo, **more)
        new = dict(snapshot.segments())
        assert not new.keys() & self.keys(), "a segment was written twice"
        self.update(new)
        self[snapshot.name] = snapshot.manifest
        assert reachable(snapshot.manifest, self.__getitem__) == snapshot.names
        assert snapshot.names <= self.keys()
        return snapshot, snapshot.confirm(self, residency), set(new)

    def load(self, snapshot: Snapshot, budget: int = 10**9, pool: Any = None) -> Database:
        return load_snapshot(snapshot.manifest, self, Residency(budget), pool)[0]


def people(count: int, db: Database | None = None, at: int = 0) -> Database:
    """A database of people with all kinds of columns."""
    if db is None:
        db = process(Database.empty(DatabaseConfig()), SCHEMA, now_ms=1).db_after
    for start in range(0, count, 1000):
        rows = [
            {
                K("id"): at + n,
                K("name"): f"name {n % 500}",
                K("score"): n / 7,
                K("tag"): [K("a"), K(f"t/{n % 3}")],
                K("boss"): [K("id"), at + n - 1] if n > start else 1,
                K("pass"): f"secret {n}",
            }
            for n in range(start, min(start + 1000, count))
        ]
        db = process(db, rows, now_ms=10 + db.max_tx - db.tx0).db_after
    return db


def same(one: Database, other: Database) -> None:
    """Both values are equal in everything that can be read."""
    for field in ("config", "lane", "max_tx", "max_eid", "instant_ms", "latest_ms"):
        assert getattr(one, field) == getattr(other, field)
    for field in ("monotonic", "commit_id", "purge_horizon", "window"):
        assert getattr(one, field) == getattr(other, field)
    assert one.schema.read_out() == other.schema.read_out()
    assert one.schema.attributes() == other.schema.attributes()
    assert one.schema.composites == other.schema.composites
    assert list(one.indexes) == list(other.indexes)
    for attr, index in one.indexes.items():
        twin = other.indexes[attr]
        assert index.kind == twin.kind
        assert (index.avet is None) == (twin.avet is None)
        assert (index.aevt.count, index.aevt.open) == (twin.aevt.count, twin.aevt.open)
        assert index.aevt.distinct_first() == twin.aevt.distinct_first()
    views = [(one, other)]
    if one.config.keep_history:
        middle = one.tx0 + (one.max_tx - one.tx0) // 2
        views += [(one.history(), other.history())]
        views += [(one.as_of(middle), other.as_of(middle))]
        views += [(one.since(middle), other.since(middle))]
    for mine, theirs in views:
        for index in ("eavt", "aevt", "avet"):
            assert mine.datoms(index) == theirs.datoms(index)
        assert mine.metrics() == theirs.metrics()


def test_a_loaded_value_answers_as_the_one_that_was_written() -> None:
    store = Store()
    db = people(3_000)
    snapshot, _, _ = store.write(db)
    loaded = store.load(snapshot)
    same(db, loaded)
    loaded._check()

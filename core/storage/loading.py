"""A database value from its manifest: directories and the dictionary at once, leaves when asked.

The value answers everything as the one that was written.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np

from natalog.core.codec import unpack
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.errors import SegmentCorrupt
from natalog.core.index.attribute import AttributeIndex
from natalog.core.index.encoding import Kind
from natalog.core.index.leaf import Leaf, Stored
from natalog.core.index.leaves import Fences, fence_of
from natalog.core.index.pool import Ints, ValuePool
from natalog.core.index.residency import Residency
from natalog.core.index.tree import RowTree
from natalog.core.record import as_value
from natalog.core.schema import Props, Schema
from natalog.core.storage.dictionary import part_codes, part_values
from natalog.core.storage.leaves import Entry, StoredLeaves, unpack_directory, unpack_leaf
from natalog.core.storage.manifest import (
    CHUNKED,
    ROWS,
    Further,
    Manifest,
    Reading,
    Table,
    unpack_attributes,
)
from natalog.core.storage.memo import Bools, Described, Memo
from natalog.core.storage.segment import (
    ATTRIBUTES,
    DICTIONARY,
    DIRECTORY,
    PIECE,
    SegmentSource,
    read,
)
from natalog.core.values import Keyword

Extra = dict[str, bytes]
_KINDS = ("long", "double", "boolean", "instant", "code")


def load_snapshot(
    manifest: bytes,
    source: SegmentSource,
    residency: Residency,
    pool: ValuePool | None = None,
) -> tuple[Database, Memo, Extra]:
    """The value that a manifest describes, the memo for its next snapshot, and further tables.

    ``pool``: that of another value of the same database in this process.  It is shared where its
    codes are those of the snapshot, so that columns of both compare as they are; where they are
    not, the value gets a pool of its own, which is as right and a little slower.  Blocks; reads
    everything but leaves.  Raises `SegmentMissing` and `SegmentCorrupt`.
    """
    return _Loading(Manifest.decode(manifest), source, residency).run(pool)


class _Loading:
    def __init__(self, top: Manifest, source: SegmentSource, residency: Residency) -> None:
        self._top = top
        self._source = source
        self._residency = residency
        self._leaves = StoredLeaves(source)
        self._tables: list[Described] = []
        self._pieces: dict[bytes, str] = {}

    def run(self, pool: ValuePool | None) -> tuple[Database, Memo, Extra]:
        top = self._top
        pool, used = self._dictionary(pool)
        entities = self._tree(top.entities, 2, coded=True)
        indexes = self._indexes()
        with Reading("A manifest"):
            config = DatabaseConfig.from_mapping(top.config)
        flexible = config.schema_flexibility == "read"
        schema = Schema.of(_schema_facts(self._further(top.schema)), flexible=flexible)
        extra = {name: self._further(further) for name, further in top.extra.items()}
        db = Database(
            config=config,
            pool=pool,
            schema=schema,
            indexes=indexes,
            entities=entities,
            lane=top.lane,
            max_tx=top.max_tx,
            max_eid=top.max_eid,
            instant_ms=top.instant_ms,
            latest_ms=top.latest_ms,
            monotonic=top.monotonic,
            commit_id=top.commit_id,
            purge_horizon=top.purge_horizon,
        )
        memo = Memo(
            pool=pool,
            used=np.packbits(used),
            parts=dict(top.dictionary),
            purge_horizon=top.purge_horizon,
            tables=tuple(self._tables),
            attributes=top.attributes,
            pieces=self._pieces,
        )
        return db, memo, extra

    def _read(self, kind: int, name: str) -> bytes:
        return read(self._source, kind, name)

    # --- values --------------------------------------------------------------------------------

    def _dictionary(self, pool: ValuePool | None) -> tuple[ValuePool, Bools]:
        """The pool to use, which has the snapshot's values, and which codes these have."""
        bodies = {
            name: self._read(DICTIONARY, name)
            for names in self._top.dictionary.values()
            for name in names
        }
        codes = {name: part_codes(body) for name, body in bodies.items()}
        used = np.zeros(1 + max((int(c[-1]) for c, _ in codes.values()), default=-1), np.bool_)
        for found, _ in codes.values():
            used[found] = True
        values: dict[str, list[Any]] = {}

        def adopted(into: ValuePool) -> bool:
            for name, (found, end) in codes.items():
                if name in into.agreed:
                    continue
                if name not in values:
                    values[name] = part_values(bodies[name], end)
                if len(values[name]) != len(found):
                    raise SegmentCorrupt(f"The dictionary {name} lacks values.", segment=name)
                if not into.adopt(found, values[name]):
                    return False
                into.agreed.add(name)
            return True

        if pool is None or not adopted(pool):
            pool = ValuePool()
            if not adopted(pool):
                raise SegmentCorrupt("The dictionary of a snapshot contradicts itself.")
        return pool, used

    # --- tables --------------------------------------------------------------------------------

    def _indexes(self) -> dict[Keyword, AttributeIndex]:
        indexes: dict[Keyword, AttributeIndex] = {}
        for name in self._top.attributes:
            group = unpack_attributes(self._read(ATTRIBUTES, name))
            for one in group:
                kind: Kind = one.kind  # type: ignore[assignment]
                if kind not in _KINDS:
                    raise SegmentCorrupt(f"The segment {name} has a column of kind {kind}.")
                aevt = self._tree(one.aevt, 4, coded=kind == "code")
                avet = None if one.avet is None else self._tree(one.avet, 4, coded=False)
                indexes[Keyword(":" + one.attr)] = AttributeIndex(kind, aevt, avet)
        return indexes

    def _tree(self, table: Table, width: int, *, coded: bool) -> RowTree:
        key = (self._leaves.place, table, width, coded)
        tree: RowTree | None = self._residency.table(key)
        if tree is None:
            tree = self._residency.shared_table(key, self._new_tree(table, width, coded))
        assert tree.described is not None
        self._tables.append(tree.described)
        return tree

    def _new_tree(self, table: Table, width: int, coded: bool) -> RowTree:
        if table.form == ROWS:
            rows = unpack_leaf(table.body)
            if rows.shape != (width, table.rows):
                raise SegmentCorrupt(f"A table of {table.rows} rows has {rows.shape}.")
            leaves, fences = _inline(rows)
            described = Described(table, (), (), coded)
        else:
            chunks: list[str] = table.chunks
            bodies = [self._read(DIRECTORY, name) for name in chunks]
            if table.form != CHUNKED:
                bodies = [table.body]
            entries = [entry for body in bodies for entry in unpack_directory(body)]
            if sum(entry.summary.rows for entry in entries) != table.rows:
                raise SegmentCorrupt(f"A directory has not the {table.rows} rows of its table.")
            leaves = [self._leaf(entry) for entry in entries]
            fences = Fences(entry.fence for entry in entries)
            names = tuple(leaf.stored.name for leaf in leaves if leaf.stored is not None)
            described = Described(table, names, tuple(chunks), coded)
        tree = RowTree(width, leaves, fences, table.rows, table.open)
        tree.described = described
        return tree

    def _leaf(self, entry: Entry) -> Leaf:
        stored = Stored(entry.name, self._leaves, self._residency)
        return self._residency.shared(Leaf(None, stored, entry.summary))

    def _further(self, further: Further) -> bytes:
        if further.inline is not None:
            return further.inline
        pieces: list[bytes] = []
        for name in further.pieces:
            piece = self._read(PIECE, name)
            self._pieces[sha256(piece).digest()] = name
            pieces.append(piece)
        return b"".join(pieces)


def _inline(rows: Ints) -> tuple[list[Leaf], Fences]:
    if not rows.shape[1]:
        return [], Fences()
    return [Leaf(rows)], Fences([fence_of(rows)])


def _schema_facts(data: bytes) -> dict[int, Props]:
    with Reading("The schema of a snapshot"):
        flat = unpack(data)
        found: dict[int, Props] = {}
        for eid, facts in zip(flat[::2], flat[1::2], strict=True):
            own: dict[Keyword, tuple[Any, ...]] = {}
            for prop, value in zip(facts[::2], facts[1::2], strict=True):
                keyword = Keyword(":" + prop)
                own[keyword] = (*own.get(keyword, ()), as_value(value))
            found[eid] = own
        return found

"""Writing a database value as segments: only those that are new.

Leaves come first, then directories, the dictionary, tables of attributes and further tables; the
manifest is known when all of them were made.  Whoever stores them stores the manifest last.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Iterator, Mapping
from hashlib import sha256
from itertools import zip_longest
from typing import Any, Final, TypeVar

import numpy as np

from natalog.core.codec import pack
from natalog.core.database import Database
from natalog.core.errors import ViewRefused
from natalog.core.index.leaf import Leaf, Stored
from natalog.core.index.pool import ScratchPool
from natalog.core.index.residency import Residency
from natalog.core.index.tree import RowTree
from natalog.core.schema import Schema
from natalog.core.storage.dictionary import CHUNK_CODES, pack_parts
from natalog.core.storage.leaves import (
    Entry,
    StoredLeaves,
    chunks,
    pack_directory,
    pack_leaf,
)
from natalog.core.storage.manifest import (
    CHUNKED,
    DIRECT,
    GROUP_ATTRIBUTES,
    INLINE_BYTES,
    INLINE_LEAVES,
    INLINE_ROWS,
    PIECE_BYTES,
    ROWS,
    AttributeTables,
    Further,
    Manifest,
    Table,
    pack_attributes,
)
from natalog.core.storage.memo import Described, Memo
from natalog.core.storage.segment import (
    ATTRIBUTES,
    DICTIONARY,
    DIRECTORY,
    LEAF,
    PIECE,
    SegmentSource,
    name_of,
    names_bytes,
    sealed,
)

_VALUES: Final = 1
"""The column that holds codes of the pool, in tables of facts by entity and of entities."""

T = TypeVar("T")
Making = Generator[tuple[str, bytes], None, T]
"""Yields segments to store, and returns what names them."""


def write_snapshot(
    db: Database,
    memo: Memo,
    *,
    extra: Mapping[str, bytes] | None = None,
    stored: Container[str] | None = None,
) -> Snapshot:
    """A snapshot of ``db``, to be drawn from; nothing is done before `Snapshot.segments` runs.

    ``memo``: of the last snapshot of this line, ``Memo()`` for a first one and after an erasure,
    when the dictionary is to be made from nothing but the leaves.  ``extra``: further tables, which
    are stored in pieces; one that only grew at its end shares all pieces but the last.
    ``stored``: the names that the store has, if it should be asked: what it lacks is then written
    again whatever the memo and the leaves say.  Raises `ViewRefused` for a view and for a
    value that was only tried.
    """
    if not db.is_current:
        raise ViewRefused("A snapshot is of a database value, not of a view of it.")
    if isinstance(db.pool, ScratchPool):
        raise ViewRefused("A snapshot is of a database value, not of one that was only tried.")
    return Snapshot(db, memo, dict(extra or {}), stored)


class Snapshot:
    """One snapshot in the making.  For one thread at a time; other threads may use the value."""

    def __init__(
        self,
        db: Database,
        memo: Memo,
        extra: Mapping[str, bytes],
        stored: Container[str] | None,
    ) -> None:
        self._db = db.settled()
        self._memo = memo
        self._extra = extra
        self._stored = stored
        self._made: set[str] = set()
        self._leaves: list[tuple[Leaf, str]] = []
        self._trees: list[tuple[RowTree, Described]] = []
        self._attributes: tuple[str, ...] = ()
        self._covered: set[str] = set()
        self._parts: dict[int, tuple[str, ...]] = {}
        self._pieces: dict[bytes, str] = {}
        self._manifest: bytes | None = None
        self._before = memo.names()
        self._covered_before = memo.covered()
        self._afresh = self._must_count_codes_afresh()
        self._used = (Memo() if self._afresh else memo).codes(len(db.pool))

    def _must_count_codes_afresh(self) -> bool:
        """Whether codes may have fallen out of use; then the leaves decide, all of them.

        After a purge they must; otherwise facts that vanish when they end make it worthwhile once
        as many leaves were replaced as there are.
        """
        memo, db = self._memo, self._db
        if memo.pool is not db.pool or memo.purge_horizon != db.purge_horizon:
            return True
        vanishing = not db.config.keep_history or any(
            attribute.no_history for attribute in db.schema.attributes()
        )
        return vanishing and memo.replaced > len(self._covered_before)

    # --- what comes out ------------------------------------------------------------------------

    def segments(self) -> Iterator[tuple[str, bytes]]:
        """``(name, bytes)`` of every segment that is not known to be stored.  Once.

        Reads segments of leaves that are not in memory where their codes are not known.
        """
        db = self._db
        entities = yield from self._tree(db.entities, coded=True)
        yield from self._indexes()
        yield from self._dictionary()
        schema = yield from self._further(_packed_schema(db.schema))
        extra: dict[str, Further] = {}
        for name, data in sorted(self._extra.items()):
            extra[name] = yield from self._further(data)
        self._manifest = Manifest(
            config=db.config.to_mapping(),
            lane=db.lane,
            max_tx=db.max_tx,
            max_eid=db.max_eid,
            instant_ms=db.instant_ms,
            latest_ms=db.latest_ms,
            monotonic=db.monotonic,
            commit_id=db.commit_id,
            purge_horizon=db.purge_horizon,
            entities=entities,
            attributes=self._attributes,
            dictionary=self._parts,
            schema=schema,
            extra=extra,
        ).encode()

    @property
    def manifest(self) -> bytes:
        """The manifest, once all segments were drawn."""
        assert self._manifest is not None, "segments() was not drawn to its end"
        return self._manifest

    @property
    def name(self) -> str:
        """The name of the manifest."""
        return name_of(self.manifest)

    @property
    def names(self) -> frozenset[str]:
        """Every segment that the snapshot needs, without the manifest: what `reachable` gives."""
        assert self._manifest is not None, "segments() was not drawn to its end"
        return frozenset(self._memo_after().names())

    def confirm(self, source: SegmentSource, residency: Residency | None = None) -> Memo:
        """All segments are stored, in ``source``: the memo for the next snapshot.

        With a ``residency`` the leaves are stored leaves from now on: it counts them, and evicts
        some at once if they are more than its budget.  Without one they stay in memory, and the
        next snapshot makes the segments of changed tables again to see which are new.
        """
        assert self._manifest is not None, "segments() was not drawn to its end"
        for parts in self._parts.values():
            self._db.pool.agreed.update(parts)
        if residency is not None:
            where = StoredLeaves(source)
            for leaf, name in self._leaves:
                if leaf.stored is None:
                    leaf.summed()
                    leaf.stored = Stored(name, where, residency)
                    residency.introduce(leaf)
            for tree, described in self._trees:
                tree.described = described
                key = (where.place, described.table, tree.width, described.coded)
                residency.shared_table(key, tree)
                tree.count_kept()
        return self._memo_after()

    def _memo_after(self) -> Memo:
        lost = len(self._covered_before - self._covered)
        return Memo(
            pool=self._db.pool,
            used=np.packbits(self._used),
            replaced=0 if self._afresh else self._memo.replaced + lost,
            parts=self._parts,
            purge_horizon=self._db.purge_horizon,
            tables=tuple(described for _, described in self._trees),
            attributes=self._attributes,
            pieces=self._pieces,
        )

    # --- tables --------------------------------------------------------------------------------

    def _indexes(self) -> Making[None]:
        names: list[str] = []
        indexes = list(self._db.indexes.items())
        for start in range(0, len(indexes), GROUP_ATTRIBUTES):
            group: list[AttributeTables] = []
            for attr, index in indexes[start : start + GROUP_ATTRIBUTES]:
                aevt = yield from self._tree(index.aevt, coded=index.kind == "code")
                avet = None
                if index.avet is not None:  # has the values that AEVT has
                    avet = yield from self._tree(index.avet, coded=False)
                group.append(AttributeTables(attr.text, index.kind, aevt, avet))
            name = yield from self._write(ATTRIBUTES, pack_attributes(group))
            names.append(name)
        self._attributes = tuple(names)

    def _tree(self, tree: RowTree, *, coded: bool) -> Making[Table]:
        found = tree.described
        if found is None or not self._has_all(found):
            found = yield from self._described(tree, coded=coded)
        elif coded:
            for leaf, name in zip_longest(tree.leaves, found.leaves):
                self._count_codes(leaf, name)
        self._trees.append((tree, found))
        return found.table

    def _has_all(self, tree: Described) -> bool:
        return self._stored is None or all(map(self._known, (*tree.leaves, *tree.chunks)))

    def _described(self, tree: RowTree, *, coded: bool) -> Making[Described]:
        if tree.count <= INLINE_ROWS:
            if coded:
                for leaf in tree.leaves:
                    self._count_codes(leaf, None)
            table = Table(tree.count, tree.open, ROWS, pack_leaf(tree.flat()))
            return Described(table, (), (), coded)
        entries: list[Entry] = []
        for leaf, fence in zip(tree.leaves, tree.fences, strict=True):
            name = yield from self._leaf(leaf, coded=coded)
            entries.append(Entry(fence, leaf.summed(), name))
        names: list[str] = []
        if len(entries) <= INLINE_LEAVES:
            table = Table(tree.count, tree.open, DIRECT, pack_directory(entries))
        else:
            for chunk in chunks(entries):
                name = yield from self._write(DIRECTORY, pack_directory(chunk))
                names.append(name)
            table = Table(tree.count, tree.open, CHUNKED, names_bytes(names))
        return Described(table, tuple(entry.name for entry in entries), tuple(names), coded)

    def _leaf(self, leaf: Leaf, *, coded: bool) -> Making[str]:
        stored = leaf.stored
        if stored is not None and (self._stored is None or stored.name in self._stored):
            name = stored.name
        else:
            name = yield from self._write(LEAF, pack_leaf(leaf.peek()))
            self._leaves.append((leaf, name))
        if coded:
            self._count_codes(leaf, name)
        return name

    def _count_codes(self, leaf: Leaf, name: str | None) -> None:
        """Note which codes a leaf uses, unless that is known; reads it if need be."""
        if name is not None:
            if name in self._covered:
                return
            self._covered.add(name)
            if not self._afresh and name in self._covered_before:
                return
        self._used[leaf.peek()[_VALUES]] = True

    # --- values and further tables ---------------------------------------------------------------

    def _dictionary(self) -> Making[None]:
        memo, used = self._memo, self._used
        same_pool = memo.pool is self._db.pool
        before = memo.codes(len(used))
        for chunk, start in enumerate(range(0, len(used), CHUNK_CODES)):
            end = start + CHUNK_CODES
            codes = np.flatnonzero(used[start:end]) + start
            if not len(codes):
                continue
            names = memo.parts.get(chunk) if same_pool else None
            if names is not None and all(map(self._known, names)):
                size = len(used)  # of both: the memo has no more codes than the pool
                if np.array_equal(before[start : min(end, size)], used[start:end]):
                    self._parts[chunk] = names
                    continue
            made: list[str] = []
            for body in pack_parts(self._db.pool, codes):
                name = yield from self._write(DICTIONARY, body)
                made.append(name)
            self._parts[chunk] = tuple(made)

    def _further(self, data: bytes) -> Making[Further]:
        if len(data) <= INLINE_BYTES:
            return Further(data)
        names: list[str] = []
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            digest = sha256(piece).digest()
            name = self._memo.pieces.get(digest)
            if name is None or not self._known(name):
                name = yield from self._write(PIECE, piece)
            self._pieces[digest] = name
            names.append(name)
        return Further(None, tuple(names))

    # --- segments ------------------------------------------------------------------------------

    def _known(self, name: str) -> bool:
        """Whether a segment need not be written."""
        if self._stored is None:
            return name in self._before or name in self._made
        return name in self._stored or name in self._made

    def _write(self, kind: int, body: bytes) -> Making[str]:
        data = sealed(kind, body)
        name = name_of(data)
        if not self._known(name):
            self._made.add(name)
            yield name, data
        return name


def _packed_schema(schema: Schema) -> bytes:
    """The facts that a schema was read from, in the order in which it has them.

    Flat, since what reads msgpack bounds the collections in it.
    """
    flat: list[Any] = []
    for eid in schema.declared():
        facts: list[Any] = []
        for prop, values in schema.props_of(eid).items():
            for value in values:
                facts += (prop.text, value)
        flat += (eid, facts)
    return pack(flat)

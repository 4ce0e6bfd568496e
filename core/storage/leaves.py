"""Leaves and the directories above them as bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from natalog.core.errors import SegmentCorrupt
from natalog.core.index.leaf import Summary
from natalog.core.index.pool import Ints
from natalog.core.index.tree import OPEN, Fence
from natalog.core.storage.columns import pack_columns, unpack_columns
from natalog.core.storage.segment import (
    LEAF,
    NAME_BYTES,
    SegmentSource,
    names_bytes,
    names_in,
    read,
)

_CHUNK_MIN: Final = 32
_CHUNK_MAX: Final = 512
"""Leaves of a directory chunk; 128 or so on average."""
_CUTS: Final = ("00", "80")


class Entry(NamedTuple):
    """What a directory knows of a leaf."""

    fence: Fence
    summary: Summary
    name: str


# --- leaves --------------------------------------------------------------------------------------


def pack_leaf(rows: Ints) -> bytes:
    """Rows (4 x n or 2 x n) as bytes, uncompressed.

    Of four columns the last one is stored as 0 for what has not ended, else as the number of
    transactions from beginning to end plus one.
    """
    if rows.shape[0] != 4:
        return pack_columns(rows)
    table = rows.copy()
    table[3] = np.where(rows[3] == OPEN, 0, rows[3] - rows[2] + 1)
    return pack_columns(table)


def unpack_leaf(body: bytes) -> Ints:
    """The rows of `pack_leaf`; `SegmentCorrupt` for bytes that are none."""
    try:
        rows, end = unpack_columns(body)
    except ValueError as error:
        raise SegmentCorrupt(f"A leaf that cannot be read: {error}") from None
    if end != len(body) or rows.shape[0] not in (2, 4):
        raise SegmentCorrupt(f"A leaf of {rows.shape[0]} columns with {len(body) - end} bytes more")
    if rows.shape[0] == 4:
        ended = rows[3]
        opened = ended == 0
        ended += rows[2] - 1
        ended[opened] = OPEN
    return rows


class StoredLeaves:
    """The rows of leaves in a source of segments: a `natalog.core.index.leaf.LeafSource`."""

    __slots__ = ("source",)

    def __init__(self, source: SegmentSource) -> None:
        self.source = source

    @property
    def place(self) -> int:
        """The identity of the source, which exists as long as this does."""
        return id(self.source)

    def rows(self, name: str) -> Ints:
        """The rows of a leaf's segment; `SegmentMissing` or `SegmentCorrupt`."""
        return unpack_leaf(read(self.source, LEAF, name))


# --- directories ---------------------------------------------------------------------------------


def chunks(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """A directory cut where names of leaves say so: what is inserted moves no other cut."""
    start = 0
    for number, entry in enumerate(entries, 1):
        size = number - start
        if size == _CHUNK_MAX or (size >= _CHUNK_MIN and entry.name.endswith(_CUTS)):
            yield entries[start:number]
            start = number
    if start < len(entries):
        yield entries[start:]


def pack_directory(entries: Sequence[Entry]) -> bytes:
    """Entries as bytes, uncompressed: a table of five columns, then the names."""
    table = np.array([(*fence, *summary) for fence, summary, _ in entries], dtype=np.int64)
    return pack_columns(table.reshape(len(entries), 5).T) + names_bytes(
        [entry.name for entry in entries]
    )


def unpack_directory(body: bytes) -> list[Entry]:
    """The entries of `pack_directory`; `SegmentCorrupt` for bytes that are none."""
    try:
        table, end = unpack_columns(body)
    except ValueError as error:
        raise SegmentCorrupt(f"A directory that cannot be read: {error}") from None
    if table.shape[0] != 5 or len(body) - end != NAME_BYTES * table.shape[1]:
        raise SegmentCorrupt(f"A directory of {table.shape[1]} leaves in {len(body)} bytes.")
    return [
        Entry((k1, k2), Summary(rows, distinct, last), name)
        for k1, k2, rows, distinct, last, name in zip(
            *table.tolist(), names_in(body[end:]), strict=True
        )
    ]

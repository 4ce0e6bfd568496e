"""The dictionary of a snapshot: the values behind the codes that its leaves use, and no other.

Codes fall into chunks of 4,096.  The used codes of a chunk and their values are one *part*; where
values are large the chunk is halved until its parts are of moderate size.  A part is a segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from natalog.core.codec import pack, unpack
from natalog.core.errors import CodecError, LimitExceeded, SegmentCorrupt
from natalog.core.index.pool import Ints, ValuePool
from natalog.core.record import as_value
from natalog.core.storage.columns import pack_columns, unpack_columns

CHUNK_CODES: Final = 4096
PART_BYTES: Final = 256 * 1024
"""Values of this size together are halved; a single value may be larger."""


def pack_parts(pool: ValuePool, codes: Ints) -> Iterator[bytes]:
    """The bytes of the parts that hold ``codes`` (ascending, of one chunk), uncompressed."""
    values = pack(pool.decode(codes).tolist())
    if len(values) > PART_BYTES and len(codes) > 1:
        middle = len(codes) // 2
        yield from pack_parts(pool, codes[:middle])
        yield from pack_parts(pool, codes[middle:])
    else:
        yield pack_columns(codes[None]) + values


def part_codes(body: bytes) -> tuple[Ints, int]:
    """The codes of a part, and where its values begin; `SegmentCorrupt` for bytes of no part."""
    try:
        table, end = unpack_columns(body)
    except ValueError as error:
        raise SegmentCorrupt(f"A dictionary that cannot be read: {error}") from None
    if table.shape[0] != 1 or not table.shape[1] or int(table.min()) < 0:
        raise SegmentCorrupt("A dictionary without codes.")
    return table[0], end


def part_values(body: bytes, at: int) -> list[Any]:
    """The values of a part, which begin at ``at``, as databases hold them."""
    try:
        values = unpack(memoryview(body)[at:])
    except (CodecError, LimitExceeded) as error:
        raise SegmentCorrupt(f"A dictionary that cannot be read: {error.message}") from None
    if type(values) is not list:
        raise SegmentCorrupt("A dictionary without values.")
    return [as_value(value) if type(value) is list else value for value in values]

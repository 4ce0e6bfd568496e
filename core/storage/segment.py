"""Segments: compressed bytes under the name of their own hash.

A segment never changes; equal contents have one name and are stored once.  Whoever reads one
checks that the bytes are those of the name.
"""

from __future__ import annotations

from hashlib import sha256
from threading import local
from typing import Any, Final, Protocol

import zstandard

from natalog.core.errors import LimitExceeded, SegmentCorrupt
from natalog.core.limits import SEGMENT_BYTES_MAX

VERSION: Final = 1
_MAGIC: Final = b"NS"
_LEVEL: Final = 3

LEAF: Final = 1
DIRECTORY: Final = 2
DICTIONARY: Final = 3
ATTRIBUTES: Final = 4
PIECE: Final = 5
MANIFEST: Final = 6
"""Kinds of segments; their numbers are theirs for ever."""

NAME_BYTES: Final = 32

_threads = local()


class SegmentSource(Protocol):
    """Where segments are read from."""

    def segment(self, name: str) -> bytes:
        """The bytes stored under a name; the caller checks them.

        May block; called from any thread.  Raises `SegmentMissing`.
        """
        ...


def name_of(data: bytes) -> str:
    """The name of a segment: the SHA-256 of its bytes, in hexadecimal."""
    return sha256(data).hexdigest()


def verified(name: str, data: bytes) -> bytes:
    """The bytes, if they are those of the name; `SegmentCorrupt` if not."""
    found = name_of(data)
    if found != name:
        raise SegmentCorrupt(
            f"The segment {name} holds bytes whose hash is {found}.", segment=name, found=found
        )
    return data


def sealed(kind: int, body: bytes) -> bytes:
    """The segment of a kind with these contents; `LimitExceeded` beyond `SEGMENT_BYTES_MAX`."""
    if len(body) > SEGMENT_BYTES_MAX:
        raise LimitExceeded(f"a segment of {len(body)} bytes; at most {SEGMENT_BYTES_MAX}")
    compressor = _tool("compressor", lambda: zstandard.ZstdCompressor(level=_LEVEL))
    compressed: bytes = compressor.compress(body)
    return _MAGIC + bytes((VERSION, kind)) + compressed


def opened(kind: int, data: bytes) -> bytes:
    """The contents of a segment; `SegmentCorrupt` when it is none of this kind and version."""
    head = _MAGIC + bytes((VERSION, kind))
    if data[:4] != head:
        raise SegmentCorrupt(
            f"A segment begins with {data[:4].hex()}, not {head.hex()}.", kind=kind
        )
    decompressor = _tool("decompressor", zstandard.ZstdDecompressor)
    try:
        size = zstandard.frame_content_size(data[4:])
        if not 0 <= size <= SEGMENT_BYTES_MAX:
            raise SegmentCorrupt(f"A segment that says it has {size} bytes.", kind=kind)
        body: bytes = decompressor.decompress(data[4:])
    except (zstandard.ZstdError, MemoryError) as error:
        raise SegmentCorrupt(f"A segment that cannot be decompressed: {error}", kind=kind) from None
    return body


def read(source: SegmentSource, kind: int, name: str) -> bytes:
    """The contents of the segment ``name``; `SegmentMissing` or `SegmentCorrupt`."""
    return opened(kind, verified(name, source.segment(name)))


def names_bytes(names: list[str] | tuple[str, ...]) -> bytes:
    """Names one after the other, `NAME_BYTES` each."""
    return bytes.fromhex("".join(names))


def names_in(data: bytes) -> list[str]:
    """The names of `names_bytes`."""
    if len(data) % NAME_BYTES:
        raise SegmentCorrupt(f"{len(data)} bytes are no list of names.")
    text = data.hex()
    return [text[at : at + 2 * NAME_BYTES] for at in range(0, len(text), 2 * NAME_BYTES)]


def _tool(name: str, make: Any) -> Any:
    """A (de)compressor of this thread; they are costly to make and must not be shared."""
    found = getattr(_threads, name, None)
    if found is None:
        found = make()
        setattr(_threads, name, found)
    return found

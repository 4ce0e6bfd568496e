"""Blocks from which facts were erased, byte by byte.  ``docs/log_format.md`` is the law.

A redacted block stands for the block of the log that it was made from: it holds that block's hash,
which the next block names, and of every entry that lost something the commit id that it had.  So
the hash chain and the commit graph stay what they were while the bytes of the facts are gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple, NoReturn
from uuid import UUID

from natalog.core.chain import HASH_BYTES
from natalog.core.codec import pack, unpack
from natalog.core.errors import LogCorrupt, NatalogError
from natalog.core.record import ENTRY_COMMIT, ENTRY_REJECTION, Block, Entry

REDACTED_VERSION: Final = 2
"""Of the block format; version 1 is a block as it was appended."""

_ID_DOMAIN: Final = b"natalog erased id 1\n"
_ID_PREFIX: Final = "erased:"


class RedactedBlock(NamedTuple):
    """A block without its erased facts; ``block.hash`` is that of the original.

    ``time_ms``: when the original was stored.
    """

    block: Block
    time_ms: int | None


def encode_redacted(redacted: RedactedBlock) -> bytes:
    """The bytes of a redacted block."""
    block, time_ms = redacted
    return pack(
        [
            REDACTED_VERSION,
            block.hash,
            block.previous,
            time_ms,
            [
                [
                    entry.type,
                    entry.ingest_seq,
                    entry.data,
                    None if entry.original is None else entry.original.bytes,
                    entry.erased,
                ]
                for entry in block.entries
            ],
        ]
    )


def decode_redacted(data: bytes, previous: bytes | None = None) -> RedactedBlock:
    """The redacted block of its bytes.

    `LogCorrupt` when they are none, or when it does not follow the block with hash ``previous``.
    """
    try:
        version, own, before, time_ms, listed = unpack(data)
        if version != REDACTED_VERSION:
            _corrupt(f"a redacted block of version {version!r}")
        entries = tuple(
            Entry(kind, raw, seq, None if original is None else UUID(bytes=original), erased)
            for kind, seq, raw, original, erased in listed
        )
    except LogCorrupt:
        raise
    except (NatalogError, TypeError, ValueError) as error:
        _corrupt(f"a malformed redacted block: {error}")
    for digest in (own, before):
        if type(digest) is not bytes or len(digest) != HASH_BYTES:
            _corrupt("a redacted block without its hashes")
    for entry in entries:
        if entry.type not in (ENTRY_COMMIT, ENTRY_REJECTION) or type(entry.data) is not bytes:
            _corrupt(f"an entry of type {entry.type!r}")
    if previous is not None and before != previous:
        _corrupt("a redacted block that does not follow the one before it")
    return RedactedBlock(Block(before, entries, own), time_ms)


def redacted_block(block: Block, entries: Sequence[Entry], time_ms: int | None) -> RedactedBlock:
    """What is left of ``block`` when its entries become ``entries``."""
    return RedactedBlock(Block(block.previous, tuple(entries), block.hash), time_ms)


def erased_id(ident: str) -> str:
    """What stands in the log for a transaction id that was erased: a repeat is still recognised.

    >>> erased_id("order-17")
    'erased:2c8f3be84b9e2b0d35963a963ef8ae5d'
    """
    if ident.startswith(_ID_PREFIX):
        return ident
    return _ID_PREFIX + sha256(_ID_DOMAIN + ident.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def is_erased_id(ident: str) -> bool:
    """Whether an id is what `erased_id` makes."""
    return ident.startswith(_ID_PREFIX)


def _corrupt(what: str) -> NoReturn:
    raise LogCorrupt(f"The log holds {what}.")


__all__ = [
    "REDACTED_VERSION",
    "RedactedBlock",
    "decode_redacted",
    "encode_redacted",
    "erased_id",
    "is_erased_id",
    "redacted_block",
]

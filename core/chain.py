"""Hashes that chain the log: commit ids from records, block hashes from blocks.

A record holds the commit ids of its parents and a block the hash of the block before it, so that
the id of a commit vouches for all of its past and the hash of a block for all of the log.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final
from uuid import UUID

from natalog.core.values import numbered_uuid

HASH_BYTES: Final = 32
FIRST_HASH: Final = bytes(HASH_BYTES)
"""What the first block of a log names as the hash before it."""

_COMMIT_DOMAIN: Final = b"natalog commit 1\n"
_BLOCK_DOMAIN: Final = b"natalog block 1\n"
_VERSION_MASK: Final = ~((0xF << 76) | (0b11 << 62))
_VERSION_8: Final = (8 << 76) | (0b10 << 62)


def commit_id(record: bytes) -> UUID:
    """The id of the commit that the bytes of a record describe: 122 bits of their SHA-256.

    It is a UUID of version 8 (RFC 9562), so that it is never taken for a random one.

    >>> commit_id(b"")
    UUID('0fcac08d-2dd9-8a87-97cb-fb17f87b2861')
    """
    digest = int.from_bytes(sha256(_COMMIT_DOMAIN + record).digest()[:16], "big")
    return numbered_uuid((digest & _VERSION_MASK) | _VERSION_8)


def block_hash(block: bytes) -> bytes:
    """The SHA-256 by which the next block names this one."""
    return sha256(_BLOCK_DOMAIN + block).digest()

"""Redacted blocks: their bytes never change, chains and commit ids stay what they were."""

from __future__ import annotations

from uuid import UUID

import pytest

from natalog.core.chain import FIRST_HASH, block_hash, commit_id
from natalog.core.errors import LogCorrupt
from natalog.core.record import (
    ENTRY_COMMIT,
    ENTRY_REJECTION,
    Entry,
    decode_block,
    encode_block,
)
from natalog.core.redacted import (
    decode_redacted,
    encode_redacted,
    erased_id,
    is_erased_id,
    redacted_block,
)

ORIGINAL = encode_block(
    FIRST_HASH, [Entry(ENTRY_COMMIT, b"the secret", 7), Entry(ENTRY_REJECTION, b"no")]
)


def redacted() -> bytes:
    block = decode_block(ORIGINAL)
    first, second = block.entries
    left = [Entry(ENTRY_COMMIT, b"the rest", 7, first.commit_id, 1), second]
    return encode_redacted(redacted_block(block, left, 1_577_836_800_000))


def test_the_bytes_of_a_redacted_block_never_change() -> None:
    assert redacted().hex() == (
        "9502c420"
        + block_hash(ORIGINAL).hex()
        + "c420"
        + "00" * 32
        + "cf0000016f5e66e80092950107c4087468652072657374c410"
        + commit_id(b"the secret").bytes.hex()
        + "019502c0c4026e6fc000"
    )


def test_a_redacted_block_has_the_hash_and_the_commits_of_its_original() -> None:
    found = decode_redacted(redacted(), FIRST_HASH)
    assert found.block.hash == decode_block(ORIGINAL).hash
    assert found.block.previous == FIRST_HASH
    assert found.time_ms == 1_577_836_800_000
    first, second = found.block.entries
    assert first.commit_id == commit_id(b"the secret")
    assert (first.data, first.ingest_seq, first.erased) == (b"the rest", 7, 1)
    assert second == decode_block(ORIGINAL).entries[1]


def test_the_block_after_a_redacted_one_still_follows() -> None:
    following = encode_block(block_hash(ORIGINAL), [Entry(ENTRY_COMMIT, b"next")])
    assert decode_block(following, decode_redacted(redacted()).block.hash).entries


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x95\x02", ORIGINAL, redacted()[:-1]])
def test_what_is_no_redacted_block_is_reported(data: bytes) -> None:
    with pytest.raises(LogCorrupt):
        decode_redacted(data)


def test_a_redacted_block_must_follow_the_one_before_it() -> None:
    with pytest.raises(LogCorrupt):
        decode_redacted(redacted(), bytes(31) + b"\x01")


def test_an_erased_id_is_recognised_and_tells_nothing() -> None:
    assert erased_id("order-17") == "erased:2c8f3be84b9e2b0d35963a963ef8ae5d"
    assert erased_id(erased_id("order-17")) == erased_id("order-17")
    assert is_erased_id(erased_id("x")) and not is_erased_id("x")
    assert Entry(ENTRY_COMMIT, b"", None, UUID(int=1)).commit_id == UUID(int=1)

"""Bytes of the log: pinned, chained, and without purged values."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from natalog.core.apply import apply_changes
from natalog.core.chain import FIRST_HASH, block_hash, commit_id
from natalog.core.changes import Changes, Purge
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.errors import LogCorrupt
from natalog.core.limits import TX_BASE
from natalog.core.record import (
    ENTRY_COMMIT,
    ENTRY_REJECTION,
    Entry,
    PurgeRef,
    Rejection,
    TxRecord,
    decode_block,
    encode_block,
    purge_refs,
    purge_values,
)
from natalog.core.values import Datom, Float32, kw

GENESIS = TxRecord(
    kind="genesis",
    tx=TX_BASE,
    instant_ms=1_577_836_800_000,
    datoms=[],
    purges=[],
    config={"name": "a"},
)
RECORD = TxRecord(
    kind="transaction",
    tx=TX_BASE + 1,
    instant_ms=1_577_836_800_001,
    max_eid=2,
    parents=(UUID("97348835-ee52-8fb0-aca2-2a6fef78c0f3"),),
    datoms=[
        Datom(1, kw("name"), "Ivan", TX_BASE + 1, True),
        Datom(1, kw("pos"), (1, "a"), TX_BASE + 1, True),
        Datom(2, kw("name"), "Petr", TX_BASE + 1, False),
    ],
    purges=[PurgeRef(2, kw("secret"), 0, None)],
    tempids={"ivan": 1, -1: 2},
    tx_meta={kw("by"): "me"},
    id="order-17",
    purged=1,
)

GOLDEN_GENESIS = (
    "dc00120100cf0010000000000000cf0000016f5e66e80000c09090909090c0908080c081a46e616d65a16100"
)
GOLDEN_RECORD = (
    "dc00120101cf0010000000000001cf0000016f5e66e801000291c41097348835ee528fb0aca22a6f"
    "ef78c0f393a46e616d65a3706f73a6736563726574930101029300010093a44976616e9201a161a4"
    "50657472c4030101009194020200c082a46976616e01ff0281d5016279a26d65a86f726465722d31"
    "37c001"
)


def test_the_bytes_of_a_genesis_never_change() -> None:
    assert GENESIS.encode().hex() == GOLDEN_GENESIS


def test_the_bytes_of_a_transaction_never_change() -> None:
    assert RECORD.encode().hex() == GOLDEN_RECORD


def test_the_bytes_of_a_block_and_its_hash_never_change() -> None:
    block = encode_block(FIRST_HASH, [Entry(ENTRY_COMMIT, b"record", 7)])
    assert block.hex() == "9301c420" + "00" * 32 + "91930107c4067265636f7264"
    assert (
        block_hash(block).hex()
        == "1f118dac84b5bcb92cd529bb327ab7252670bad2bdeb42af2805e1f5bf5f173e"
    )


def test_the_id_of_a_commit_never_changes_and_is_of_version_8() -> None:
    found = commit_id(GENESIS.encode())
    assert str(found) == "e941b268-d594-8a94-a26f-5209c50ed38d"
    assert found.version == 8


def test_a_record_comes_back_as_it_was() -> None:
    assert TxRecord.decode(RECORD.encode()) == RECORD
    assert TxRecord.decode(GENESIS.encode()) == GENESIS


def test_values_keep_their_classes() -> None:
    values = [1, 1.0, True, Decimal("1.50"), 2**80, b"x", "s", kw("a/b"), UUID(int=5), (1, (2,))]
    values.append(datetime(2020, 1, 1, tzinfo=UTC))
    datoms = [Datom(e, kw("v"), value, 5, True) for e, value in enumerate(values)]
    found = TxRecord.decode(TxRecord("transaction", 5, 1, datoms=datoms).encode())
    assert [(type(d.v), d.v) for d in found.datoms] == [(type(v), v) for v in values]
    single = TxRecord("transaction", 5, 1, datoms=[Datom(1, kw("v"), Float32(1.5), 5, True)])
    assert TxRecord.decode(single.encode()).datoms[0].v == 1.5


def test_the_id_of_a_commit_vouches_for_its_parents() -> None:
    one = TxRecord("transaction", 5, 1, parents=(UUID(int=1),))
    other = TxRecord("transaction", 5, 1, parents=(UUID(int=2),))
    assert commit_id(one.encode()) != commit_id(other.encode())


@pytest.mark.parametrize("spot", range(0, 110, 3))
def test_a_flipped_bit_is_no_record_or_another_commit(spot: int) -> None:
    data = bytearray(RECORD.encode())
    data[spot % len(data)] ^= 0x10
    try:
        TxRecord.decode(bytes(data))
    except LogCorrupt:
        return
    assert commit_id(bytes(data)) != commit_id(RECORD.encode())


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93", b"\x90", b"abc", b"\x93\x02\xc0\x90"])
def test_what_is_no_block_is_reported(data: bytes) -> None:
    with pytest.raises(LogCorrupt):
        decode_block(data)
    with pytest.raises(LogCorrupt):
        TxRecord.decode(data)


def test_a_block_must_follow_the_one_before_it() -> None:
    first = encode_block(FIRST_HASH, [Entry(ENTRY_COMMIT, b"1")])
    second = encode_block(block_hash(first), [Entry(ENTRY_COMMIT, b"2")])
    assert decode_block(second, decode_block(first, FIRST_HASH).hash).entries[0].data == b"2"
    with pytest.raises(LogCorrupt, match="hash chain"):
        decode_block(second, FIRST_HASH)


def test_rejections_are_kept_in_blocks() -> None:
    refused = Rejection("order-17", "TransactUnique", "transact/unique")
    block = encode_block(FIRST_HASH, [Entry(ENTRY_REJECTION, refused.encode(), 3)])
    entry = decode_block(block).entries[0]
    assert (Rejection.decode(entry.data), entry.ingest_seq) == (refused, 3)


def _person(secrets: list[str]) -> Database:
    db = Database.empty(DatabaseConfig(schema_flexibility="read"))
    for secret in secrets:
        tx = db.max_tx + 1
        datoms = [Datom(1, kw("secret"), old, tx, False) for old in db.values(1, kw("secret"))]
        datoms.append(Datom(1, kw("secret"), secret, tx, True))
        db = apply_changes(db, Changes(tx, tx, datoms, max_eid=1))
    return db


def test_a_purge_is_recorded_without_its_value() -> None:
    db = _person(["alpha", "beta", "gamma"])
    refs = purge_refs(db, [], [Purge(1, kw("secret"), "beta")])
    record = TxRecord("transaction", db.max_tx + 1, 9, purges=refs)
    assert b"beta" not in record.encode()
    replayed = TxRecord.decode(record.encode()).changes(db)
    assert replayed.purges == [Purge(1, kw("secret"), "beta")]


def test_a_purge_finds_its_value_whatever_else_was_interned() -> None:
    refs = purge_refs(_person(["gamma", "alpha"]), [], [Purge(1, kw("secret"), "gamma")])
    other = _person(["gamma"])
    other.pool.code("noise")
    assert refs == [PurgeRef(1, kw("secret"), 1)]
    again = _person(["gamma", "alpha"])
    assert purge_values(again, [], refs)[0].value == "gamma"


def test_a_purge_of_what_the_same_transaction_adds_points_at_its_datom() -> None:
    db = _person(["alpha"])
    datoms = [Datom(1, kw("secret"), "new", db.max_tx + 1, True)]
    refs = purge_refs(db, datoms, [Purge(1, kw("secret"), "new")])
    assert refs == [PurgeRef(1, kw("secret"), -1)]
    assert purge_values(db, datoms, refs)[0].value == "new"


def test_a_purge_of_nothing_leaves_no_trace_and_a_wrong_place_is_corrupt() -> None:
    db = _person(["alpha"])
    assert purge_refs(db, [], [Purge(1, kw("secret"), "absent")]) == []
    with pytest.raises(LogCorrupt):
        purge_values(db, [], [PurgeRef(1, kw("secret"), 5)])

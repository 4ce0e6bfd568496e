"""The bytes of segments: round trips, golden bytes, and what damaged ones do."""

from __future__ import annotations

import random
from contextlib import suppress
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshot_store import Store

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.errors import SegmentCorrupt, SegmentMissing, StorageError
from natalog.core.index.leaf import Summary
from natalog.core.index.pool import ValuePool
from natalog.core.index.tree import OPEN
from natalog.core.limits import LONG_MAX, LONG_MIN, TX_BASE
from natalog.core.storage import Manifest, Residency, load_snapshot, name_of, verified
from natalog.core.storage.columns import pack_columns, unpack_columns
from natalog.core.storage.dictionary import pack_parts, part_codes, part_values
from natalog.core.storage.leaves import (
    Entry,
    chunks,
    pack_directory,
    pack_leaf,
    unpack_directory,
    unpack_leaf,
)
from natalog.core.storage.manifest import (
    AttributeTables,
    Further,
    Table,
    pack_attributes,
    unpack_attributes,
)
from natalog.core.storage.segment import LEAF, names_bytes, names_in, opened, sealed
from natalog.core.transact import process
from natalog.core.values import Keyword

longs = st.one_of(
    st.integers(LONG_MIN, LONG_MAX),
    st.integers(-300, 300),
    st.sampled_from([LONG_MIN, LONG_MAX, OPEN, TX_BASE, 0]),
)
tables = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.tuples(*[longs] * width), max_size=40).map(
        lambda rows: np.array(rows, dtype=np.int64).reshape(len(rows), width).T
    )
)


@settings(max_examples=100, deadline=None)
@given(tables, st.binary(max_size=5), st.binary(max_size=5))
def test_every_table_of_numbers_comes_back(table, before, behind) -> None:
    packed = pack_columns(table)
    found, end = unpack_columns(before + packed + behind, len(before))
    assert np.array_equal(found, table)
    assert found.dtype == np.int64
    assert end == len(before) + len(packed)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(longs, longs, st.integers(0, 9), st.none() | st.integers(0, 9))))
def test_every_leaf_comes_back(rows) -> None:
    table = np.array(
        [(a, b, TX_BASE + t, OPEN if n is None else TX_BASE + t + n) for a, b, t, n in rows],
        dtype=np.int64,
    )
    table = table.reshape(len(rows), 4).T
    assert np.array_equal(unpack_leaf(pack_leaf(table)), table)
    assert np.array_equal(unpack_leaf(pack_leaf(table[:2])), table[:2])


def test_a_leaf_of_typical_facts_is_small() -> None:
    entities = np.arange(1000, 3048)
    values = np.array([random.Random(n).randrange(100) for n in range(2048)])
    added = TX_BASE + entities // 500
    leaf = np.stack((entities, values, added, np.full(2048, OPEN)))
    assert len(pack_leaf(leaf)) < 2 * 2048 + 100
    assert len(sealed(LEAF, pack_leaf(leaf))) < 2048


GOLDEN_LEAF = bytes.fromhex(
    "0405000000"  # four columns, five rows
    "0100" "0100000000000000" "0700000000000000"  # steps of 1 from 7
    "0101" "0200000000000000" "feffffffffffffff"  # steps of 2 and more from -2, a byte each
    "0001" "0000000000001000" "0000000000000000"  # 2**52 and more, a byte each
    "0001" "0000000000000000" "0000000000000000"  # transactions until the end, plus one; 0 open
    "000501f8" "0100020001" "0003000100"
)  # fmt: skip
LEAF_ROWS = np.array(
    [
        [7, 8, 9, 10, 11],
        [-2, 0, 7, 10, 260],
        [TX_BASE + 1, TX_BASE, TX_BASE + 2, TX_BASE, TX_BASE + 1],
        [OPEN, TX_BASE + 2, OPEN, TX_BASE, OPEN],
    ]
)


def test_the_bytes_of_a_leaf_are_pinned() -> None:
    assert pack_leaf(LEAF_ROWS).hex() == GOLDEN_LEAF.hex()
    assert np.array_equal(unpack_leaf(GOLDEN_LEAF), LEAF_ROWS)


def test_the_bytes_of_a_directory_are_pinned() -> None:
    names = [name_of(b"one"), name_of(b"two")]
    entries = [
        Entry((7, -1), Summary(2048, 2000, 2006), names[0]),
        Entry((2006, 5), Summary(3, 2, 2007), names[1]),
    ]
    golden = bytes.fromhex(
        "0502000000"  # five columns: the fence, rows, distinct and last of the first column
        "0100" "cf07000000000000" "0700000000000000"
        "0100" "0600000000000000" "ffffffffffffffff"
        "0100" "03f8ffffffffffff" "0008000000000000"
        "0100" "32f8ffffffffffff" "d007000000000000"
        "0100" "0100000000000000" "d607000000000000"
    )  # fmt: skip
    packed = pack_directory(entries)
    assert packed.hex() == golden.hex() + names[0] + names[1]
    assert unpack_directory(packed) == entries
    assert unpack_directory(pack_directory([])) == []


def test_the_bytes_of_a_dictionary_are_pinned() -> None:
    pool = ValuePool()
    pool.codes(["a", 1.5, "gap", Keyword("k/w"), ("t", 2)])
    (part,) = pack_parts(pool, np.array([0, 1, 3, 4]))
    golden = bytes.fromhex(
        "0104000000" "0001" "0000000000000000" "0000000000000000" "00010304"
        "94" "a161" "cb3ff8000000000000" "c703016b2f77" "92" "a174" "02"
    )  # fmt: skip
    assert part.hex() == golden.hex()
    codes, at = part_codes(golden)
    assert codes.tolist() == [0, 1, 3, 4]
    assert part_values(golden, at) == ["a", 1.5, Keyword("k/w"), ("t", 2)]


def test_attributes_come_back_and_their_bytes_are_pinned() -> None:
    rows = Table(0, 0, 0, b"\x00")
    one = AttributeTables("person/name", "code", rows, Table(7, 6, 2, bytes(32)))
    two = AttributeTables("age", "long", rows, None)
    packed = pack_attributes([one, two])
    assert packed.hex() == (
        "9294ab706572736f6e2f6e616d65a4636f646594000000c4010094070602c420"
        + "00" * 32
        + "94a3616765"
        "a46c6f6e6794000000c40100c0"
    )
    assert unpack_attributes(packed) == [one, two]
    assert one.avet is not None
    assert one.avet.chunks == ["00" * 32]


MANIFEST = Manifest(
    config={"keep_history": False},
    lane=3,
    max_tx=TX_BASE + 9,
    max_eid=77,
    instant_ms=-5,
    latest_ms=10**12,
    monotonic=False,
    commit_id=UUID(int=5),
    purge_horizon=TX_BASE + 2,
    entities=Table(0, 0, 0, b"x"),
    attributes=("ab" * 32,),
    dictionary={0: ("cd" * 32, "ef" * 32), 7: ("01" * 32,)},
    schema=Further(b"facts"),
    extra={"commits": Further(None, ("23" * 32,)), "ids": Further(b"")},
)
GOLDEN_MANIFEST = bytes.fromhex(
    "4e53010628b52ffd6081006d0600220c2c2d90391d8f2bb60f95852e8dffa2bfd24d6d33606cff20b424b7a5"
    "140473494b2bb35d445f863ae57ce0d5dfee14f81c5a0882e739f8c490ec9b5afc55421c2f9746ca5df33c01"
    "49e3a2e0a124555872efab852e14cf737d0ac2b2ffbcb4e621e283ebfe3eab0400b7c2b28e1e1a6194898503"
    "9df7bb562b8751cbfdcdbd26d0b160642062e65d3f256ee339df79270368751a400733ed1f2d970b504e4904"
    "a6c2fa7da383896a42c5426421dcca35040a0078d3f26668a051d0b0a001e32d07035105277b2637ac400f"
)


def test_a_manifest_written_by_an_earlier_version_is_read() -> None:
    assert Manifest.decode(GOLDEN_MANIFEST) == MANIFEST
    assert Manifest.decode(MANIFEST.encode()) == MANIFEST


def test_equal_values_have_equal_segments() -> None:
    data = [{"n": number, "text": f"t{number % 9}"} for number in range(4_000)]
    one, two = (
        process(Database.empty(DatabaseConfig(schema_flexibility="read")), data, now_ms=5).db_after
        for _ in range(2)
    )
    store = Store()
    first, _, new = store.write(one)
    second, _, _ = store.write(two, stored=store)
    assert new
    assert first.name == second.name


# --- directories are cut where names say so ------------------------------------------------------


def entries(count: int) -> list[Entry]:
    return [
        Entry((number, 0), Summary(10, 10, number), name_of(str(number).encode()))
        for number in range(count)
    ]


def test_what_is_inserted_into_a_directory_moves_no_other_cut() -> None:
    found = entries(3_000)
    before = {tuple(chunk) for chunk in chunks(found)}
    assert sum(map(len, before)) == 3_000
    assert max(map(len, before)) <= 512
    assert 10 < len(before) < 60
    for place in (0, 1_500, 2_999):
        changed = [*found[:place], Entry((place, 1), Summary(1, 1, 1), name_of(b"x")),
                   *found[place:]]  # fmt: skip
        after = {tuple(chunk) for chunk in chunks(changed)}
        assert len(after - before) <= 2


def test_a_directory_is_cut_even_if_no_name_says_so() -> None:
    same = [entry._replace(name="11" * 32) for entry in entries(1_200)]
    assert [len(chunk) for chunk in chunks(same)] == [512, 512, 176]


# --- damage --------------------------------------------------------------------------------------


def test_errors_of_segments_are_errors_of_storage() -> None:
    assert issubclass(SegmentCorrupt, StorageError)
    assert issubclass(SegmentMissing, StorageError)
    assert SegmentCorrupt.default_type == "storage/segment-corrupt"


def test_a_segment_is_known_by_its_hash() -> None:
    data = sealed(LEAF, GOLDEN_LEAF)
    name = name_of(data)
    assert verified(name, data) is data
    with pytest.raises(SegmentCorrupt) as caught:
        verified(name, data + b"x")
    assert caught.value.data["segment"] == name
    assert names_in(names_bytes([name, name])) == [name, name]
    with pytest.raises(SegmentCorrupt):
        names_in(b"x")


def test_a_segment_of_another_kind_or_version_is_refused() -> None:
    data = sealed(LEAF, b"body")
    assert opened(LEAF, data) == b"body"
    assert data[:4] == b"NS\x01\x01"
    for bad in (b"", data[:3], b"XX" + data[2:], b"NS\x02" + data[3:], b"NS\x01\x02" + data[4:],
                data[:4], data[:-1], data[:4] + b"no frame"):  # fmt: skip
        with pytest.raises(SegmentCorrupt):
            opened(LEAF, bad)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["leaf", "directory", "part", "attributes", "manifest"]), st.data())
def test_bytes_of_the_wrong_shape_are_corrupt_and_nothing_worse(kind, data) -> None:
    """Contents that pass every hash, but that no version ever wrote."""
    readers = {
        "leaf": (unpack_leaf, GOLDEN_LEAF),
        "directory": (unpack_directory, pack_directory(entries(3))),
        "part": (read_part, next(pack_parts(full_pool(), np.arange(3)))),
        "attributes": (unpack_attributes, pack_attributes([AttributeTables(
            "a", "long", Table(1, 1, 0, b""), None)])),
        "manifest": (Manifest.decode, MANIFEST.encode()),
    }  # fmt: skip
    reader, good = readers[kind]
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 3)) :]
    with suppress(SegmentCorrupt):
        reader(bad)  # type: ignore[operator]


def full_pool() -> ValuePool:
    pool = ValuePool()
    pool.codes(["a", "b", "c"])
    return pool


def read_part(body: bytes) -> object:
    codes, at = part_codes(body)
    return codes, part_values(body, at)


def test_a_manifest_that_names_nonsense_is_corrupt() -> None:
    store = Store()
    for bad in (
        MANIFEST.encode(),
        Manifest(**{**fields(), "config": {"no_such_setting": 1}}).encode(),  # type: ignore[arg-type]
        Manifest(**{**fields(), "entities": Table(7, 7, 0, pack_leaf(LEAF_ROWS))}).encode(),  # type: ignore[arg-type]
        Manifest(**{**fields(), "entities": Table(7, 7, 1, pack_directory([]))}).encode(),  # type: ignore[arg-type]
    ):
        with pytest.raises((SegmentCorrupt, SegmentMissing)):
            load_snapshot(bad, store, Residency(0))


def fields() -> dict[str, object]:
    empty = {"attributes": (), "dictionary": {}, "extra": {}, "schema": Further(b"\x90")}
    return {name: empty.get(name, getattr(MANIFEST, name)) for name in MANIFEST.__slots__}

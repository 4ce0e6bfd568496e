"""msgpack bytes: golden bytes of every extension type, and errors for everything malformed."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import msgpack
import pytest

from natalog.core.codec import pack, unpack
from natalog.core.errors import CodecError, LimitExceeded
from natalog.core.values import (
    Datom,
    EdnList,
    Float32,
    FrozenMap,
    Int32,
    Keyword,
    Regex,
    Symbol,
    Tagged,
    TypedSet,
    value_key,
)

GOLDEN = [
    (Keyword("person/name"), "c70b01706572736f6e2f6e616d65"),
    (Keyword("a"), "d40161"),
    (Symbol("?e"), "d5023f65"),
    (UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), "d803f81d4fae7dec11d0a76500a0c91e6bf6"),
    (datetime(2020, 1, 1, 0, 0, 0, 1000, UTC), "d7040000016f5e66e801"),
    (2**64, "c70905010000000000000000"),
    (-(2**63) - 1, "c70905ff7fffffffffffffff"),
    (Decimal("1.50"), "d606312e3530"),
    (Fraction(7, 2), "c70307920702"),
    ({1, 2}, "c70308920102"),
    (EdnList((1,)), "d5099101"),
    (Tagged("t", None), "d60a92a174c0"),
    (Float32(1.5), "d70b3ff8000000000000"),
    (Int32(5), "d60c00000005"),
    (Regex("a+"), "d50d612b"),
    (2**63, "cf8000000000000000"),
    ([None, True, 1, 1.0, "a", b"a"], "96c0c301cb3ff0000000000000a161c40161"),
    ({Keyword("a"): [1]}, "81d401619101"),
]


@pytest.mark.parametrize(("value", "data"), GOLDEN)
def test_the_bytes_of_each_kind_are_fixed(value, data):
    assert pack(value).hex() == data
    made = unpack(bytes.fromhex(data))
    assert type(made) is type(value)
    assert value_key(made) == value_key(value)


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ((1, (2,)), [1, [2]]),
        (Datom(1, Keyword("a"), "v", 7, True), [1, Keyword("a"), "v", 7, True]),
        (FrozenMap({1: 2}), {1: 2}),
        (frozenset({(1, 2)}), {(1, 2)}),
        (bytearray(b"x"), b"x"),
        ({(1, 2): "a"}, {(1, 2): "a"}),
        ({FrozenMap({1: (2,)}): 3}, {FrozenMap({1: (2,)}): 3}),
    ],
)
def test_kinds_that_are_read_as_another(value, made):
    assert unpack(pack(value)) == made


def test_members_of_a_set_keep_their_kind():
    made = unpack(pack(TypedSet([1, 1.0, True])))
    assert value_key(made) == value_key(TypedSet([True, 1.0, 1]))


def test_equal_sets_have_equal_bytes():
    words = [f"w{n}" for n in range(50)]
    assert pack(set(words)) == pack(frozenset(sorted(words, reverse=True)))


def test_surrogates_survive():
    assert unpack(pack("\ud800")) == "\ud800"


def test_msgpack_timestamps_are_read_as_instants():
    data = msgpack.packb(msgpack.Timestamp(1577836800, 5_000_000))
    assert unpack(data) == datetime(2020, 1, 1, 0, 0, 0, 5000, UTC)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "c1",
        "92",
        "9201",
        "a5616263",
        "a1ff",
        "0101",
        "810101c0",
        "8201010102",  # the same key twice
        "82a16101a16102",
        "c70114ff",
        "d46300",  # unknown extension
        "c70001",  # empty keyword
        "d401ff",
        "d40300",  # uuid of one byte
        "d40400",
        "d7047fffffffffffffff",  # instant beyond the year 9999
        "d40678",  # decimal x
        "c703064e614e",  # decimal NaN
        "c70307920700",  # 7/0
        "d5079107",
        "c70308920101",  # set with a member twice
        "d40801",  # set that is no array
        "d40901",
        "d60a9201c0",  # tag that is no text
        "d50a9101",
        "d40b00",
        "d40c00",
        "d40dff",
        "d4ff00",  # malformed timestamp
        "dfffffffff",
        "ddffffffff",
        "dbffffffff",
        "c9ffffffff01",
    ],
)
def test_malformed_bytes_are_a_codec_error(data):
    with pytest.raises(CodecError):
        unpack(bytes.fromhex(data))


def test_an_empty_big_integer_is_refused():
    with pytest.raises(LimitExceeded):
        unpack(bytes.fromhex("c70005"))


def test_random_bytes_never_raise_anything_else():
    rng = random.Random(5)
    for _ in range(20_000):
        data = rng.randbytes(rng.randrange(1, 24))
        try:
            unpack(data)
        except (CodecError, LimitExceeded):
            continue


def test_damaged_bytes_never_raise_anything_else():
    rng = random.Random(6)
    good = pack([value for value, _ in GOLDEN if not isinstance(value, dict)])
    for _ in range(5_000):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            unpack(bytes(data[: rng.randrange(1, len(data) + 1)]))
        except (CodecError, LimitExceeded):
            continue


def nested(depth: int, wrap) -> object:
    value: object = 1
    for _ in range(depth):
        value = wrap(value)
    return value


def test_depth_is_bounded_both_ways():
    deepest = nested(511, lambda v: [v])
    assert unpack(pack(deepest)) == deepest
    for wrap in (
        lambda v: [v],
        lambda v: {"a": v},
        lambda v: EdnList((v,)),
        lambda v: Tagged("t", v),
    ):
        with pytest.raises(LimitExceeded):
            pack(nested(5000, wrap))
    with pytest.raises(LimitExceeded):
        unpack(b"\x91" * 600 + b"\x01")
    with pytest.raises(LimitExceeded):
        unpack(b"\x91" * 100_000)
    data = b"\x01"
    for _ in range(300):
        data = msgpack.packb(msgpack.ExtType(9, b"\x91" + data))
    with pytest.raises(LimitExceeded):
        unpack(data)


def test_lists_as_deep_as_the_limit_pass_both_ways():
    value = nested(128, lambda v: EdnList((v,)))
    assert unpack(pack(value)) == value
    with pytest.raises(LimitExceeded):
        pack(nested(129, lambda v: EdnList((v,))))


@pytest.mark.parametrize(
    "value",
    [object(), datetime(2020, 1, 1), Decimal("NaN"), Decimal("sNaN"), {1: object()}, {object()}],
)
def test_what_has_no_encoding_is_an_error(value):
    with pytest.raises(CodecError):
        pack(value)


def test_numbers_without_end_are_refused():
    for value in (10**5000, Decimal(f"1E{10**6}"), Decimal("9" * 5000)):
        with pytest.raises(LimitExceeded):
            pack(value)

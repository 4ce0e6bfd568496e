"""Decoding what was made to cost memory and time: it costs a clear error instead."""

from __future__ import annotations

import gc
import struct
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from natalog.core import values
from natalog.core.codec import pack, unpack
from natalog.core.codec_json import from_json
from natalog.core.edn import read
from natalog.core.errors import LimitExceeded
from natalog.core.forms import is_small
from natalog.core.limits import COLLECTIONS_READ_MAX, KEYWORDS_KEPT_MAX
from natalog.core.query.parse import _parse_text, parse_query
from natalog.core.values import Keyword, is_crowded

MERSENNE = 2**61 - 1
"""Python's hash of a number is its remainder by this."""
MANY = COLLECTIONS_READ_MAX + 1


def array(count: int) -> bytes:
    return b"\xdd" + struct.pack(">I", count)


@pytest.mark.parametrize(
    "payload",
    [
        array(MANY) + b"\x90" * MANY,
        array(MANY) + b"\x80" * MANY,
        array(MANY) + b"\xd4\x09\x90" * MANY,
    ],
    ids=["arrays", "maps", "lists"],
)
def test_too_many_collections_in_msgpack(payload: bytes) -> None:
    with pytest.raises(LimitExceeded, match="collections"):
        unpack(payload)


@pytest.mark.parametrize("one", ["{}", "#a 1 ", "#_ 1 "])
def test_too_many_collections_in_edn(one: str) -> None:
    with pytest.raises(LimitExceeded, match="collections"):
        read(f"[{one * MANY}]")


@pytest.mark.parametrize("one", [b"[]", b"{}"])
def test_too_many_collections_in_json(one: bytes) -> None:
    with pytest.raises(LimitExceeded, match="collections"):
        from_json(b"[" + b",".join([one] * MANY) + b"]")
    # brackets in strings are no collections
    assert from_json(b'["' + one * MANY + b'"]') == [(one * MANY).decode()]


def test_bytes_that_look_like_collections_are_read() -> None:
    text = "ü" * MANY  # its second byte could begin an array
    assert unpack(pack([text])) == [text]


@pytest.mark.parametrize(
    "members",
    [
        [number * MERSENNE for number in range(1, 20_000)],
        [UUID(int=number * MERSENNE) for number in range(1, 20_000)],
    ],
    ids=["integers", "uuids"],
)
def test_members_that_were_chosen_to_collide(members: list[Any]) -> None:
    assert is_crowded(members)
    packed = b"".join(map(pack, members))
    body = array(len(members)) + packed
    with pytest.raises(LimitExceeded, match="hash"):
        unpack(b"\xc9" + struct.pack(">I", len(body)) + b"\x08" + body)
    pairs = b"".join(pack(member) + b"\xc0" for member in members)
    with pytest.raises(LimitExceeded, match="hash"):
        unpack(b"\xdf" + struct.pack(">I", len(members)) + pairs)
    spelled = " ".join(
        f'#uuid "{member}"' if isinstance(member, UUID) else str(member) for member in members
    )
    for text in (f"#{{{spelled}}}", f"{{{spelled.replace(' ', ' nil ')} nil}}"):
        if "#uuid" not in text or text.startswith("#{"):
            with pytest.raises(LimitExceeded, match="hash"):
                read(text)


def test_ordinary_large_sets_and_maps_are_read() -> None:
    many = set(range(50_000)) | {f"s{n}" for n in range(50_000)}
    assert unpack(pack(many)) == many
    mapped = {float(n): n for n in range(50_000)}
    assert unpack(pack(mapped)) == mapped


# --- what stays in memory ------------------------------------------------------------------------


def living() -> int:
    gc.collect()
    return len(values._living)


def test_keywords_that_nobody_holds_go() -> None:
    before = living()
    decoders: list[Callable[[int], Any]] = [
        lambda n: unpack(b"\xd7\x01" + b"%08x" % n),
        lambda n: read(f":hostile/k{n}"),
        lambda n: from_json(f'":hostile/j{n}"'),
    ]
    for number in range(2 * KEYWORDS_KEPT_MAX):
        for decode in decoders:
            decode(number)
    assert living() <= before + 2 * KEYWORDS_KEPT_MAX
    assert len(Keyword._recent) <= KEYWORDS_KEPT_MAX
    for number in range(1000):  # long ones are not kept at all
        Keyword("x" * 100_000 + str(number))
    assert all(len(text) < 1000 for text in list(values._living))


def test_a_name_has_one_object_whatever_was_forgotten() -> None:
    held = [Keyword(f"held/k{n}") for n in range(1000)]
    for number in range(2 * KEYWORDS_KEPT_MAX):
        Keyword(f"passing/k{number}")
    for number, keyword in enumerate(held):
        assert Keyword(f"held/k{number}") is keyword
        assert Keyword(f":held/k{number}") is keyword
        assert unpack(pack(keyword)) is keyword


def test_threads_that_name_the_same_get_the_same() -> None:
    rounds, threads = 300, 4
    found: list[list[Keyword]] = [[] for _ in range(threads)]
    gate = threading.Barrier(threads)

    def name(into: list[Keyword]) -> None:
        for number in range(rounds):
            gate.wait()
            into.append(Keyword(f"race/k{number}"))

    workers = [threading.Thread(target=name, args=(into,)) for into in found]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for same in zip(*found, strict=True):
        assert len(set(map(id, same))) == 1


def test_large_queries_are_not_kept() -> None:
    _parse_text.cache_clear()
    for number in range(50):
        parse_query(f'[:find ?e :where [?e :note "{"x" * 5000}{number}"]]')
    assert _parse_text.cache_info().currsize == 0
    parse_query("[:find ?e :where [?e :note]]")
    assert _parse_text.cache_info().currsize == 1
    assert is_small(["a", {"b": [1, 2]}])
    assert not is_small(["a" * 5000])
    assert not is_small([[0] * 3000] * 3)
    assert not is_small(2**1_000_000)

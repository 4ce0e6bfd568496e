"""The index of erasures: its bytes never change, and what is none is reported."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natalog.core.erasures import Copy, Root, Table, checked, cut, joined, ranges_of, within
from natalog.core.errors import LogCorrupt

ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 2, 3))
TABLE = Table({7: Copy(ONE, (TWO, THREE)), 3: Copy(TWO, (THREE,))}, ((5, 9), (12, 12)), ((7, 0),))
ROOT = Root(2, {0: (ONE,), 3: (TWO, THREE)}, {3: ((1, 2),)}, {"id": "a", "facts": 1})


def test_the_bytes_of_the_index_never_change() -> None:
    one, two, three = (f"c420{part.hex()}" for part in (ONE, TWO, THREE))
    assert TABLE.encode().hex() == (
        f"9401929303{two}91{three}9307{one}92{two}{three}92920509920c0c91920700"
    )
    assert ROOT.encode().hex() == (
        f"9501028200 91{one}0392{two}{three}810391920102".replace(" ", "")
        + "82a26964a161a5666163747301"
    )


def test_the_index_comes_back_as_it_was() -> None:
    assert Table.decode(TABLE.encode()) == TABLE
    assert Root.decode(ROOT.encode()) == ROOT
    assert Root.decode(Root().encode()) == Root()
    told = [TABLE.tells(tx) for tx in (4, 5, 9, 10, 12, 13)]
    assert told == [True, False, False, True, False, True]


@given(st.integers(0, 400), st.integers(1, 255), st.sampled_from([TABLE, ROOT]))
def test_flipped_bits_are_another_index_or_none(spot: int, mask: int, what: Any) -> None:
    data = bytearray(what.encode())
    data[spot % len(data)] ^= mask
    try:
        found = type(what).decode(bytes(data))
    except LogCorrupt:
        return
    assert found.encode() is not None


@pytest.mark.parametrize("data", [b"", b"\x90", b"\xc1", b"\x94\x02\x90\x90\x90", b"abc"])
def test_what_is_no_index_is_reported(data: bytes) -> None:
    for kind in (Table, Root):
        with pytest.raises(LogCorrupt):
            kind.decode(data)


def test_pieces_are_named_by_their_bytes() -> None:
    pieces = cut(b"abcdefg", 3)
    assert b"".join(piece for _, piece in pieces) == b"abcdefg"
    assert [len(piece) for _, piece in pieces] == [3, 3, 1]
    assert [checked(name, piece) for name, piece in pieces] == [piece for _, piece in pieces]
    assert len(cut(b"", 3)) == 1
    with pytest.raises(LogCorrupt):
        checked(pieces[0][0], b"abd")


numbers = st.sets(st.integers(0, 60))


@given(numbers, numbers)
def test_ranges_hold_what_they_were_made_of(left: set[int], right: set[int]) -> None:
    both = joined(ranges_of(sorted(left)), ranges_of(sorted(right)))
    assert both == ranges_of(sorted(left | right))
    assert {number for number in range(62) if within(both, number)} == left | right

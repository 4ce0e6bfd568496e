"""JSON without loss: what a browser reads is what the database holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natalog.core.codec_tagged import from_json_with_edn, to_tagged_json
from natalog.core.errors import CodecError, EdnSyntax, LimitExceeded
from natalog.core.values import (
    Doubles,
    EdnList,
    Float32,
    Floats,
    Int32,
    Keyword,
    Regex,
    Symbol,
    Tagged,
    make_set,
)

FORMS = [
    ([None, True, "a", ":a", "#a"], [None, True, "a", ":a", "#a"]),
    ([0, -5, 2**53 - 1, 1 - 2**53], [0, -5, 2**53 - 1, 1 - 2**53]),
    (2**53, {"#int": "9007199254740992"}),
    (-(2**80), {"#int": str(-(2**80))}),
    ([0.5, -1e-300], [0.5, -1e-300]),
    (1.0, {"#double": "1.0"}),
    (-0.0, {"#double": "-0.0"}),
    (1e300, {"#double": "1e+300"}),
    (float("nan"), {"#double": "NaN"}),
    (float("-inf"), {"#double": "-Infinity"}),
    (Float32(0.5), {"#float": "0.5"}),
    (Int32(7), {"#int32": 7}),
    (Keyword("person/name"), {"#kw": "person/name"}),
    (Symbol("?e"), {"#sym": "?e"}),
    (UUID(int=1), {"#uuid": "00000000-0000-0000-0000-000000000001"}),
    (datetime(2020, 1, 1, 10, 0, 0, 5000, UTC), {"#inst": "2020-01-01T10:00:00.005Z"}),
    (Decimal("1.50"), {"#dec": "1.50"}),
    (Fraction(7, 2), {"#ratio": "7/2"}),
    (b"\x00\xff", {"#bytes": "00ff"}),
    (Regex("a+"), {"#regex": "a+"}),
    (Doubles([1, 2.5]), {"#doubles": ["1.0", "2.5"]}),
    (Floats([0.5]), {"#floats": ["0.5"]}),
    ((1, EdnList((2,))), [1, {"#list": [2]}]),
    (make_set([1.0]), {"#set": [{"#double": "1.0"}]}),
    (Tagged("t", 1), {"#tag": ["t", 1]}),
    ({"tx_data": [], "b": 1}, {"tx_data": [], "b": 1}),
    ({Keyword("a"): 1, "b": 2}, {"#map": [[{"#kw": "a"}, 1], ["b", 2]]}),
    ({"#kw": "no tag"}, {"#map": [["#kw", "no tag"]]}),
    ({}, {}),
]


@pytest.mark.parametrize(("value", "plain"), FORMS)
def test_the_form_of_each_kind(value, plain):
    assert json.loads(to_tagged_json(value)) == plain


def test_different_values_never_look_alike():
    kinds = [to_tagged_json(value) for value, _ in FORMS]
    kinds += [to_tagged_json(value) for value in (1, True, "1", "1.50", "a+", Keyword("1"))]
    assert len(set(kinds)) == len(kinds)


@given(st.integers() | st.floats())
def test_numbers_keep_their_class_and_every_digit(number):
    read = json.loads(to_tagged_json(number), parse_int=lambda text: ("js", float(text)))
    if isinstance(read, dict):
        ((tag, text),) = read.items()
        again = int(text) if tag == "#int" else float(text.replace("Infinity", "inf"))
        assert type(again) is type(number)
        assert again == number or number != number
    elif isinstance(read, tuple):  # JavaScript knows it as a number, and exactly
        assert type(number) is int and int(read[1]) == number
    else:
        assert type(number) is float and read == number and not number.is_integer()


def test_what_has_no_form_is_an_error():
    with pytest.raises(CodecError):
        to_tagged_json(object())
    with pytest.raises(CodecError):
        to_tagged_json(datetime(2020, 1, 1))
    deep: list[object] = []
    for _ in range(600):
        deep = [deep]
    with pytest.raises(LimitExceeded):
        to_tagged_json(deep)
    with pytest.raises(LimitExceeded):
        to_tagged_json(10**5000)


def test_requests_may_hold_edn_anywhere():
    text = '{"query": "[:find ?e]", "args": [{"natalog/db": {}}, {"#edn": "[#{1 2.5M} :a]"}]}'
    assert from_json_with_edn(text) == {
        "query": "[:find ?e]",
        "args": [{"natalog/db": {}}, [{1, Decimal("2.5")}, Keyword("a")]],
    }
    assert from_json_with_edn('{"#edn": "(f x)"}') == EdnList((Symbol("f"), Symbol("x")))
    assert from_json_with_edn('{"eid": {"#edn": ":color/red"}}') == {"eid": Keyword("color/red")}
    assert from_json_with_edn('{"#edn": 5}') == {"#edn": 5}
    with pytest.raises(EdnSyntax):
        from_json_with_edn('{"a": [{"#edn": "[1"}]}')
    with pytest.raises(CodecError):
        from_json_with_edn("{")

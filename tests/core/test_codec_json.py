"""JSON of values, and telling the form of a payload."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest

from natalog.core.codec import content_kind, from_json, to_json
from natalog.core.errors import CodecError, LimitExceeded
from natalog.core.values import EdnList, Float32, Keyword, Regex, Symbol, Tagged


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ([None, True, 1, 1.5, "a"], [None, True, 1, 1.5, "a"]),
        (Keyword("person/name"), ":person/name"),
        (":not a keyword", "::not a keyword"),
        (Symbol("?e"), "?e"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2020, 1, 1, 10, 0, 0, 5000, UTC), "2020-01-01T10:00:00.005Z"),
        (Decimal("1.50"), "1.50"),
        (Fraction(7, 2), "7/2"),
        (Float32(1.5), 1.5),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (b"\x00\xff", "AP8="),
        (Regex("a+"), "a+"),
        ((1, EdnList((2,))), [1, [2]]),
        ({3}, [3]),
        ({Keyword("a"): 1, "b": 2, ":c": 3}, {":a": 1, "b": 2, "::c": 3}),
        ({1: "one", (1, 2): "two", None: 0}, {"1": "one", "[1 2]": "two", "nil": 0}),
        (Tagged("t", 1), {"tag": "t", "value": 1}),
    ],
)
def test_the_json_of_each_kind(value, plain):
    assert json.loads(to_json(value)) == plain


def test_keywords_and_strings_keep_apart():
    value = {Keyword("a"): [Keyword("b/c"), ":b/c", "::x", ":", ": y", {"k": Keyword("d")}]}
    assert from_json(to_json(value)) == value


def test_strings_that_name_no_keyword_stay_strings():
    assert from_json('[":", ":a b", ":)", "tx_data", "?e"]') == [":", ":a b", ":)", "tx_data", "?e"]
    assert from_json('":a"') is Keyword("a")


@pytest.mark.parametrize(
    "text", ["", "{", "[1,]", "nul", "NaN", '{"a": 1, "a": 2}', "1 2", b"\xff", "[Infinity]"]
)
def test_malformed_json_is_a_codec_error(text):
    with pytest.raises(CodecError):
        from_json(text)


@pytest.mark.parametrize("text", ["[" * 600 + "]" * 600, "[" * 100_000, "9" * 4500])
def test_json_without_end_is_refused(text):
    with pytest.raises(LimitExceeded):
        from_json(text)


def test_what_has_no_json_form_is_an_error():
    with pytest.raises(CodecError):
        to_json(object())
    with pytest.raises(CodecError):
        to_json({1: "a", "1": "b"})
    with pytest.raises(LimitExceeded):
        to_json([10**5000])


@pytest.mark.parametrize(
    ("header", "payload", "kind"),
    [
        (None, b"[:find ?e]", "edn"),
        (None, b"  {:tx-data []}", "edn"),
        (None, b"(1)", "edn"),
        (None, b'{"a" :b}', "edn"),
        (None, b'{"a":true}', "edn"),
        (None, b'{"database": "people"}', "json"),
        (None, b'{\n "a":[1]}', "json"),
        (None, b"\x81\xa1a\x01", "msgpack"),
        (None, b"", "msgpack"),
        ("application/json", b"[1]", "json"),
        ("application/json; charset=utf-8", b"[1]", "json"),
        ("application/edn", b"x", "edn"),
        ("application/msgpack", b"[", "msgpack"),
        ("application/octet-stream", b"[1]", "edn"),
    ],
)
def test_the_form_of_a_payload(header, payload, kind):
    assert content_kind(header, payload) == kind

"""Values outside datoms: in producers' ids, temporary ids and tx-meta as it was written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from natalog.core.limits import TX_BASE
from natalog.core.redacted import erased_id
from natalog.core.schema import TX_INSTANT
from natalog.core.scrub import Scrub, contains, meta_of, written_alike
from natalog.core.values import Datom, Keyword, Regex, Symbol, Tagged

ID = UUID("97348835-ee52-8fb0-aca2-2a6fef78c0f3")


@pytest.mark.parametrize(
    "value",
    ["ann", "joanna", Keyword("person/ann"), Symbol("ann"), b"..ann..", ("x", ("ann", 1)),
     ["ann"], {"key": "ann"}, {"ann": 1}, {Keyword("ann")}, Regex("^ann$"),
     Tagged("ann", 1), Tagged("x", "ann")],
)  # fmt: skip
def test_a_text_is_found_wherever_it_stands(value: Any) -> None:
    assert contains(value, "ann")


@pytest.mark.parametrize("value", ["an", Keyword("an"), 5, 1.5, None, True, (), ID, b"an"])
def test_what_does_not_hold_the_text_is_left_alone(value: Any) -> None:
    assert not contains(value, "ann")


def test_a_keyword_with_its_colon_and_a_uuid_are_found_as_they_are_written() -> None:
    assert contains(Keyword("ann"), ":ann")
    assert contains(ID, str(ID).upper())


def test_tx_meta_tells_a_value_however_it_was_written() -> None:
    instant = datetime(2020, 1, 1, tzinfo=UTC)
    scrub = Scrub(["ann@x", Keyword("male"), 17, instant, ID])
    for meta in (
        {"by": "ann@x"}, {"by": ["mail", "ann@x"]}, {"sex": ":male"}, {"n": 17},
        {"born": "2020-01-01"}, {"born": instant}, {"deep": {"er": [{"mail": "ann@x"}]}},
        {"id": str(ID)},
    ):  # fmt: skip
        assert scrub.meta_tells(meta), meta
    for meta in ({}, {"by": "bob@x"}, {"by": "ann@xy"}, {"n": 18}, {"by": True}):
        assert not scrub.meta_tells(meta), meta
    assert Scrub([], "ann").meta_tells({"by": "ann@xy"})
    assert not scrub.meta_tells({"by": "ann@x", "n": 17}, ["ann@x", 17])
    assert scrub.meta_tells({"by": ["mail", "ann@x"], "n": 17}, [17, 10])


def test_ids_become_digests_and_names_go() -> None:
    scrub = Scrub(["ann@x"], "secret")
    assert scrub.ident("ann@x") == erased_id("ann@x")
    assert scrub.ident("a secret id") == erased_id("a secret id")
    assert scrub.ident("for ann@x", ["ann@x"]) == erased_id("for ann@x")
    assert scrub.ident("for ann@x") == "for ann@x"
    assert scrub.ident(None) is None
    names: dict[Any, int] = {"ann@x": 1, "bob": 2, -1: 3, Keyword("db/current-tx"): 4}
    assert list(scrub.tempids(names, all_names=False)) == ["bob", -1, Keyword("db/current-tx")]
    assert list(scrub.tempids(names, all_names=True)) == [-1, Keyword("db/current-tx")]
    assert scrub.tempids({"bob": 2}, all_names=False) == {"bob": 2}


def test_tx_meta_is_told_again_from_its_facts() -> None:
    tx = TX_BASE + 1
    datoms = [
        Datom(tx, TX_INSTANT, 0, tx),
        Datom(tx, Keyword("by"), 10, tx),
        Datom(tx, Keyword("tag"), "a", tx),
        Datom(tx, Keyword("tag"), "b", tx),
        Datom(tx, Keyword("tag"), "c", tx),
        Datom(10, Keyword("name"), "x", tx),
    ]
    assert meta_of(tx, datoms) == {Keyword("by"): 10, Keyword("tag"): ["a", "b", "c"]}


def test_values_and_the_texts_for_them_are_alike() -> None:
    assert written_alike(":male", Keyword("male"))
    assert written_alike("2020", datetime(2020, 1, 1, tzinfo=UTC))
    assert written_alike((1, "a"), (1, "a"))
    assert not written_alike((1, "a"), (1, "b"))
    assert not written_alike("a", ("a", "b"))
    assert not written_alike("a", "b")

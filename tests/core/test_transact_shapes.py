"""Maps of a shape that was seen before do what they would do key by key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import NatalogError
from natalog.core.transact import Registry, process, shapes
from natalog.core.transact.state import Work
from natalog.core.values import Keyword

K = Keyword
SCHEMA = """
[{:db/ident :id :db/valueType :db.type/long :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :mail :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/value}
 {:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
 {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/ident :ok :db/valueType :db.type/boolean :db/cardinality :db.cardinality/one}
 {:db/ident :tag :db/valueType :db.type/string :db/cardinality :db.cardinality/many}
 {:db/ident :lucky :db/valueType :db.type/long :db/cardinality :db.cardinality/many}
 {:db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}]
"""

small = st.integers(-2, 4)
text = st.sampled_from(["a", "b", "c", ":a", ""])
values: dict[str, Any] = {
    "id": small | st.sampled_from([2**63, True, 1.0, "1"]),
    "mail": text | small,
    "name": text | st.none(),
    "age": small | st.just(2**70),
    "ok": st.booleans() | small,
    "tag": st.lists(text | small, max_size=3) | text,
    "lucky": st.lists(small | st.just(2**64), max_size=3) | small,
    "friend": st.lists(small | text, max_size=2),
    "db/id": small | text,
}


@st.composite
def maps(draw: st.DrawFn) -> dict[Any, Any]:
    keys = draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=5))
    spelling = draw(st.sampled_from([[K], [K], [str], [K, str]]))
    return {draw(st.sampled_from(spelling))(key): draw(values[key]) for key in keys}


@st.composite
def alike(draw: st.DrawFn) -> list[dict[Any, Any]]:
    """Maps with the same keys."""
    keys = draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=4, unique=True))
    size = draw(st.integers(2, 5))
    written = draw(st.sampled_from([K, str]))
    return [{written(key): draw(values[key]) for key in keys} for _ in range(size)]


def outcome(db: Database, txs: list[Any]) -> list[Any]:
    """What each transaction did; a refused one does nothing."""
    found: list[Any] = []
    for number, tx in enumerate(txs):
        try:
            report = process(db, tx, now_ms=10 + number)
        except NatalogError as error:
            found.append((type(error), error.message))
            continue
        db = report.db_after
        db._check()
        found.append((report.datoms, report.tempids))
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(maps(), max_size=5), max_size=4))
def test_shapes_change_nothing(txs: list[list[dict[Any, Any]]]) -> None:
    db = process(Database.empty(), read(SCHEMA), now_ms=1).db_after
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("natalog.core.transact.maps.assert_shape", lambda work, operation: None)
        slowly = outcome(db, txs)
    assert outcome(db, txs) == slowly


@settings(max_examples=150, deadline=None)
@given(st.lists(alike() | st.lists(maps(), max_size=5), max_size=4))
def test_maps_that_are_asserted_together_do_what_they_would_one_by_one(
    txs: list[list[dict[Any, Any]]],
) -> None:
    db = process(Database.empty(), read(SCHEMA), now_ms=1).db_after
    slowly = outcome(db, txs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("natalog.core.transact.operations.BLOCK_MIN", 1)
        assert outcome(db, txs) == slowly


def test_many_maps_of_new_entities_are_one_block() -> None:
    db = process(Database.empty(), read(SCHEMA), now_ms=1).db_after
    people = [{K("id"): n, K("name"): f"n{n % 7}", K("age"): n % 50} for n in range(500)]
    report = process(db, people, now_ms=2)
    (block,) = report.changes.blocks
    assert (block.start, block.stop, len(report.datoms)) == (1, 1501, 1501)
    after = report.db_after
    after._check()
    e = after.entid((K("id"), 123))
    assert e == block.first + 123
    assert after.values(e, K("name")) == ["n4"]
    again = process(after, people, now_ms=3)  # all of them are there
    assert (again.changes.blocks, len(again.datoms)) == ((), 1)
    mixed = process(after, [{**one, K("id"): one[K("id")] + 499} for one in people], now_ms=3)
    assert mixed.changes.blocks == ()
    assert mixed.db_after.entid((K("id"), 998)) == mixed.db_after.max_eid
    mixed.db_after._check()


def test_a_block_goes_on_after_small_transactions() -> None:
    db = process(Database.empty(), read(SCHEMA), now_ms=1).db_after
    db = process(db, [{K("id"): 5, K("name"): "early"}], now_ms=2).db_after
    people = [{K("id"): n, K("name"): "late"} for n in range(100)]
    db = process(db, people, now_ms=3).db_after
    db._check()
    assert len(db.holders(K("name"), "late")) == 100
    assert db.holders(K("name"), "early") == []
    assert len(db.history().scan(K("name")).e) == 102


def test_a_known_shape_is_asserted_as_a_whole() -> None:
    db = process(Database.empty(), read(SCHEMA), now_ms=1).db_after
    one = {K("id"): 1, K("name"): "Ann", K("tag"): ["x", "y"]}
    db = process(db, [one], now_ms=2).db_after
    other = {K("id"): 2, K("name"): "Bob", K("tag"): ["y"]}
    work = Work(db, db.max_tx + 1, None, *_rest())
    assert shapes.assert_shape(work, other) == db.max_eid + 1
    assert [(d.a.text, d.v) for d in work.datoms] == [("id", 2), ("name", "Bob"), ("tag", "y")]
    assert work.cell(db.max_eid + 1, K("tag")) == {"y": "y"}


def test_what_a_map_said_can_be_changed_in_the_same_transaction() -> None:
    db = process(Database.empty(), read(SCHEMA), now_ms=1).db_after
    first = {K("id"): 1, K("name"): "Ann", K("tag"): ["x", "y"]}
    db = process(db, [first], now_ms=2).db_after
    again = [
        {K("id"): 2, K("name"): "Bob", K("tag"): ["x", "y"]},
        [K("db/retract"), [K("id"), 2], K("tag"), "x"],
        {K("id"): 2, K("name"): "Cat", K("tag"): ["z"]},
    ]
    after = process(db, again, now_ms=3).db_after
    e = after.entid((K("id"), 2))
    assert e is not None
    assert (after.values(e, K("name")), after.values(e, K("tag"))) == (["Cat"], ["y", "z"])


def _rest() -> tuple[Any, Any]:
    from natalog.core.transact.functions import EMPTY
    from natalog.core.transact.tempids import Bindings

    return EMPTY, Bindings()


def test_a_block_stands_between_other_facts() -> None:
    db = process(Database.empty(), read(SCHEMA), now_ms=1).db_after
    people = [{K("id"): n, K("name"): f"n{n}"} for n in range(80)]
    functions = Registry(transaction={"crowd": lambda db: people})
    tx = [
        {K("db/id"): -1, K("name"): "first", K("tag"): ["x"]},
        [K("db.fn/call"), "crowd"],
        {K("db/id"): -1, K("tag"): ["y"]},
        {K("id"): 7, K("name"): "seventh", K("tag"): ["z"]},
        [K("db/retract"), [K("id"), 8], K("name"), "n8"],
    ]
    report = process(db, tx, now_ms=2, functions=functions)
    assert len(report.changes.blocks) == 1
    after = report.db_after
    after._check()
    first, seventh = report.tempids[-1], after.entid([K("id"), 7])
    assert seventh is not None
    assert (after.values(first, K("tag")), after.values(seventh, K("tag"))) == (["x", "y"], ["z"])
    assert after.attributes_ever(first) == (K("name"), K("tag"))
    assert after.attributes_ever(seventh) == (K("id"), K("name"), K("tag"))
    assert after.holders(K("name"), "n7") == after.holders(K("name"), "n8") == []
    assert after.holders(K("name"), "seventh") == [seventh]

"""Values whose latest facts are in no index yet say what they say once these are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from natalog.core.apply import apply_changes
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import NatalogError
from natalog.core.query import q
from natalog.core.recent import RECENT_MAX
from natalog.core.transact import process
from natalog.core.values import Keyword

K = Keyword
SCHEMA = """
[{:db/ident :id :db/valueType :db.type/long :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one :db/index true}
 {:db/ident :brief :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/noHistory true}
 {:db/ident :tag :db/valueType :db.type/string :db/cardinality :db.cardinality/many}
 {:db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}]
"""
ATTRIBUTES = [K("id"), K("name"), K("brief"), K("tag"), K("friend"), K("db/txInstant")]
IDS = st.integers(1, 4)


def refs(ids: st.SearchStrategy[int] = IDS) -> st.SearchStrategy[list[Any]]:
    return ids.map(lambda number: [K("id"), number])


@st.composite
def operations(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(["map", "map", "add", "retract", "entity", "brief"]))
    text = st.sampled_from(["a", "b", "c"])
    if kind == "map":
        more = {K("name"): draw(text), K("tag"): draw(st.lists(text, max_size=2))}
        return {K("id"): draw(IDS), **more}
    if kind == "entity":
        return [K("db/retractEntity"), draw(refs())]
    if kind == "brief":
        return {K("id"): draw(IDS), K("brief"): draw(text)}
    attr, value = draw(
        st.tuples(st.just(K("tag")), text)
        | st.tuples(st.just(K("name")), text)
        | st.tuples(st.just(K("brief")), text)
        | st.tuples(st.just(K("friend")), refs())
    )
    return [K("db/add" if kind == "add" else "db/retract"), draw(refs()), attr, value]


transactions = st.lists(st.lists(operations(), min_size=1, max_size=4), max_size=8)


def empty(*, history: bool = True) -> Database:
    db = Database.empty(DatabaseConfig(keep_history=history))
    return process(db, read(SCHEMA), now_ms=0).db_after


def after(db: Database, tx: list[Any], now_ms: int, *, settled: bool) -> Database:
    """The value after a transaction, the same one if it is refused."""
    try:
        found = process(db, tx, now_ms=now_ms).db_after
    except NatalogError:
        return db
    return found.settled() if settled else found


def points(db: Database) -> list[Any]:
    """What transactions read of every entity."""
    found: list[Any] = []
    for e in [*range(1, db.max_eid + 1), *range(db.tx0, db.max_tx + 1)]:
        has = [attr for attr in ATTRIBUTES if db.has(e, attr)]
        found.append((e, has, [db.facts(e, attr) for attr in ATTRIBUTES]))
        found.append((db.attributes_of(e), db.has_entity(e), sorted(db.referrers(e))))
    for attr, value in [(K("name"), "a"), (K("tag"), "b"), *((K("id"), n) for n in range(6))]:
        found.append(db.holders(attr, value))
    return found


def everything(db: Database) -> list[Any]:
    views = [db, db.history()] if db.config.keep_history else [db]
    return [[tuple(datom) for datom in view.datoms("eavt")] for view in views]


@settings(max_examples=200, deadline=None)
@given(transactions, st.booleans())
def test_points_and_indexes_agree(txs: list[list[Any]], history: bool) -> None:
    lazy = eager = empty(history=history)
    for number, tx in enumerate(txs):
        lazy = after(lazy, tx, number, settled=False)
        eager = after(eager, tx, number, settled=True)
        assert points(lazy) == points(eager)
    lazy._check()
    assert everything(lazy) == everything(eager)
    assert points(lazy) == points(eager)


@settings(max_examples=100, deadline=None)
@given(transactions, transactions, transactions)
def test_values_that_part_do_not_see_each_other(
    before: list[list[Any]], left: list[list[Any]], right: list[list[Any]]
) -> None:
    def run(settled: bool) -> list[Database]:
        fork = empty()
        for number, tx in enumerate(before):
            fork = after(fork, tx, number, settled=settled)
        ends = []
        for side in (left, right):
            db = fork
            for number, tx in enumerate(side):
                db = after(db, tx, 100 + number, settled=settled)
            ends.append(db)
        return [*ends, fork]

    for lazy, eager in zip(run(False), run(True), strict=True):
        assert points(lazy) == points(eager)
        assert everything(lazy) == everything(eager)
        lazy._check()


def test_what_is_recent_is_bounded() -> None:
    db = empty()
    longest = 0
    for number in range(RECENT_MAX):
        db = process(db, [{K("id"): number, K("name"): "n"}], now_ms=number).db_after
        longest = max(longest, 0 if db.recent is None else db.recent.length)
    assert RECENT_MAX - 3 <= longest <= RECENT_MAX
    assert len(db.holders(K("name"), "n")) == RECENT_MAX
    db._check()


def test_a_value_is_a_plain_one_once_an_index_was_asked_for() -> None:
    one, two = (
        process(empty(), [{K("id"): 1, K("name"): "a"}], now_ms=1).db_after for _ in range(2)
    )
    assert one.recent is not None
    assert one.datoms("aevt", [K("name")])[0].v == "a"
    by_id = "[:find ?n . :in $ ?id :where [?e :id ?id] [?e :name ?n]]"
    assert q(by_id, two, 1).python() == "a"
    assert [type(db) for db in (one, two)] == [Database, Database]
    assert one.as_of(one.max_tx).settled() is not one


def test_a_fact_that_begins_and_ends_in_one_transaction_several_times_is_kept_once() -> None:
    db = process(empty(), [{K("id"): 1, K("name"): "a"}], now_ms=1).db_after.settled()
    flips = [
        [K("db/add") if n % 2 else K("db/retract"), [K("id"), 1], K("tag"), "x"]
        for n in range(1, 7)
    ]
    report = process(db, flips, now_ms=2)
    assert len(report.datoms) == 7
    tags = [(d.v, d.added) for d in report.db_after.history().datoms("aevt", [K("tag")])]
    assert sorted(tags) == [("x", False), ("x", True)]


def test_a_fact_ends_in_the_transaction_that_said_so() -> None:
    lazy = process(empty(), [{K("id"): 1, K("name"): "a"}], now_ms=1).db_after.settled()
    eager = lazy
    e = lazy.entid([K("id"), 1])
    steps = [[K("db/retract"), e, K("name"), "a"], [K("db/add"), e, K("name"), "b"]]
    for number, step in enumerate(steps):
        lazy = process(lazy, [step], now_ms=2 + number).db_after
        eager = process(eager, [step], now_ms=2 + number).db_after.settled()
    assert everything(lazy) == everything(eager)


def test_applying_twice_gives_equal_values() -> None:
    db = process(empty(), [{K("id"): 1, K("name"): "a"}], now_ms=1).db_after
    report = process(db, [{K("id"): 1, K("name"): "b"}], now_ms=2)
    again = apply_changes(db, report.changes)
    assert everything(again) == everything(report.db_after)
    assert db.values(1, K("name")) == db.as_of(db.max_tx).values(1, K("name"))


def test_threads_may_read_a_value_while_one_of_them_fills_its_indexes() -> None:
    for round_ in range(30):
        db = empty()
        for number in range(50):
            db = process(
                db, [{K("id"): number % 9, K("name"): f"n{number}"}], now_ms=number
            ).db_after
        barrier = Barrier(6)
        value = db

        def read_all(spot: int, value: Database = value, barrier: Barrier = barrier) -> list[Any]:
            barrier.wait()
            if spot % 2:
                return [points(value), everything(value)]
            found = everything(value)
            return [points(value), found]

        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(read_all, range(6)))
        assert all(answer == answers[0] for answer in answers), round_

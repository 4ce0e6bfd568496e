"""A small schema, and strategies for random transactions and queries over it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from naive import INSTANT, Naive

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.transact import process
from natalog.core.values import Keyword

K = Keyword

SCHEMA = read("""
    [{:db/ident :name   :db/valueType :db.type/string  :db/cardinality :db.cardinality/one}
     {:db/ident :age    :db/valueType :db.type/long    :db/cardinality :db.cardinality/one
      :db/index true}
     {:db/ident :score  :db/valueType :db.type/double  :db/cardinality :db.cardinality/one}
     {:db/ident :active :db/valueType :db.type/boolean :db/cardinality :db.cardinality/one}
     {:db/ident :tag    :db/valueType :db.type/keyword :db/cardinality :db.cardinality/many}
     {:db/ident :note   :db/valueType :db.type/string  :db/cardinality :db.cardinality/many
      :db/index true}
     {:db/ident :boss   :db/valueType :db.type/ref     :db/cardinality :db.cardinality/one}
     {:db/ident :friend :db/valueType :db.type/ref     :db/cardinality :db.cardinality/many}]
""")
FIRST_ENTITY = len(SCHEMA) + 1
ENTITIES = range(FIRST_ENTITY, FIRST_ENTITY + 6)
MANY = frozenset({K("tag"), K("note"), K("friend")})
REFS = frozenset({K("boss"), K("friend")})
INDEXED = frozenset({K("age"), K("note"), K("boss"), K("friend")})

VALUES: dict[Keyword, list[Any]] = {
    K("name"): ["Ann", "Bob", "", "é"],
    K("age"): [0, 1, 7, 30],
    K("score"): [0.0, 1.0, 7.0, 2.5],
    K("active"): [True, False],
    K("tag"): [K("a"), K("b/c"), K("c")],
    K("note"): ["x", "y", "xy"],
    K("boss"): list(ENTITIES),
    K("friend"): list(ENTITIES),
}
BASE: list[tuple[Any, ...]] = [
    ("add", e, attr, values[(at * 5 + number) % len(values)])
    for at, e in enumerate(ENTITIES)
    for number, (attr, values) in enumerate(VALUES.items())
    if (at + number) % 5
]
"""Facts that every random history starts from, so that queries find something."""
START_MS = 1_577_836_800_000

entities = st.sampled_from(ENTITIES)
facts = st.sampled_from(sorted(VALUES, key=str)).flatmap(
    lambda attr: st.tuples(entities, st.just(attr), st.sampled_from(VALUES[attr]))
)
operations = st.one_of(
    facts.map(lambda fact: ("add", *fact)),
    facts.map(lambda fact: ("add", *fact)),
    facts.map(lambda fact: ("retract", *fact)),
    entities.map(lambda e: ("retract-entity", e, REFS)),
)
transactions = st.lists(operations, min_size=0, max_size=6)
histories = st.lists(
    st.tuples(transactions, st.none() | st.integers(-3, 40)), min_size=1, max_size=8
)
"""Transactions, each with the instant its tx-meta sets (steps of 10 ms from the start) or None."""


def tx_data(operations: list[tuple[Any, ...]]) -> list[Any]:
    """Operations as a transaction of the system."""
    made: list[Any] = []
    for kind, e, *rest in operations:
        if kind == "retract-entity":
            made.append([K("db/retractEntity"), e])
        else:
            made.append([K("db/add" if kind == "add" else "db/retract"), e, *rest])
    return made


def instant(step: int) -> datetime:
    """The instant ``step`` times 10 ms after the start."""
    return datetime(2020, 1, 1, tzinfo=UTC) + timedelta(milliseconds=10 * step)


def built(history: Any) -> tuple[Database, Naive]:
    """Both databases after the schema and a random history."""
    report = process(Database.empty(DatabaseConfig()), SCHEMA, None, now_ms=START_MS)
    db, naive = report.db_after, Naive(MANY | {INSTANT}).transact(report.datoms)
    for number, (operations, step) in enumerate([(BASE, None), *history]):
        meta = None if step is None else {INSTANT: instant(step)}
        report = process(db, tx_data(operations), meta, now_ms=START_MS + number)
        db = report.db_after
        naive = naive.transact(report.datoms)
    return db, naive


points = st.one_of(
    st.integers(0, 10),
    st.integers(-4, 42).map(instant),
    st.just(datetime(2020, 1, 1, tzinfo=UTC)),
)
views = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["as_of", "since"]), points), st.tuples(st.just("history"))
    ),
    max_size=3,
)


def through(db: Any, steps: Any, tx0: int) -> Any:
    for name, *rest in steps:
        point = [tx0 + p if isinstance(p, int) else p for p in rest]
        db = getattr(db, name)(*point)
    return db

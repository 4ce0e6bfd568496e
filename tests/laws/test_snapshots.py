"""Random histories through snapshots: what is loaded is what was written, and goes on alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshot_store import Store, same

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import NatalogError
from natalog.core.index import leaves as index_leaves_module
from natalog.core.storage import Memo, Residency, load_snapshot
from natalog.core.storage import dictionary as dictionary_module
from natalog.core.storage import leaves as leaves_module
from natalog.core.storage import snapshot as snapshot_module
from natalog.core.transact import process
from natalog.core.values import Keyword
from natalog.core.versioning import forked

K = Keyword

SCHEMA = read("""
    [{:db/ident :id    :db/valueType :db.type/long    :db/cardinality :db.cardinality/one
      :db/unique :db.unique/identity}
     {:db/ident :name  :db/valueType :db.type/string  :db/cardinality :db.cardinality/one}
     {:db/ident :note  :db/valueType :db.type/string  :db/cardinality :db.cardinality/many
      :db/index true}
     {:db/ident :score :db/valueType :db.type/double  :db/cardinality :db.cardinality/one}
     {:db/ident :boss  :db/valueType :db.type/ref     :db/cardinality :db.cardinality/many}
     {:db/ident :pass  :db/valueType :db.type/string  :db/cardinality :db.cardinality/one
      :db/noHistory true}
     {:db/ident :pair  :db/valueType :db.type/tuple   :db/cardinality :db.cardinality/one
      :db/tupleAttrs [:id :name] :db/index true}]
""")
ATTRS = ["id", "name", "note", "score", "boss", "pass"]
VALUES: dict[str, list[Any]] = {
    "id": list(range(6)),
    "name": ["Ann", "Bob", "", "é"],
    "note": ["x", "y", "xy", "Ann"],
    "score": [0.0, 1.5, -7.25, float("inf")],
    "pass": ["secret", "x", "deep"],
    "boss": list(range(100, 106)),
}
entities = st.integers(100, 105)
facts = st.sampled_from(ATTRS).flatmap(
    lambda attr: st.tuples(entities, st.just(K(attr)), st.sampled_from(VALUES[attr]))
)
operations = st.one_of(
    facts.map(lambda fact: [K("db/add"), *fact]),
    facts.map(lambda fact: [K("db/add"), *fact]),
    facts.map(lambda fact: [K("db/retract"), *fact]),
    entities.map(lambda e: [K("db/retractEntity"), e]),
)
purges = st.one_of(
    facts.map(lambda fact: [K("db/purge"), *fact]),
    facts.map(lambda fact: [K("db.purge/attribute"), *fact[:2]]),
    entities.map(lambda e: [K("db.purge/entity"), e]),
    st.integers(0, 40).map(
        lambda ms: [K("db.history.purge/before"), datetime(1970, 1, 1, tzinfo=UTC)
                    + timedelta(milliseconds=10 * ms)]
    ),
)  # fmt: skip
schema_changes = st.sampled_from(
    [
        {K("db/id"): K("name"), K("db/index"): True},
        {K("db/id"): K("score"), K("db/index"): True},
        {K("db/id"): K("name"), K("db/noHistory"): True},
        {K("db/id"): K("name"), K("db/cardinality"): K("db.cardinality/many")},
        {K("db/id"): K("note"), K("db/doc"): "a note"},
        {K("db/id"): K("note"), K("db/ident"): K("remark")},
        [K("db/retract"), K("note"), K("db/index"), True],
        [K("db/retract"), K("pass"), K("db/noHistory"), True],
        {
            K("db/ident"): K("extra"),
            K("db/valueType"): K("db.type/keyword"),
            K("db/cardinality"): K("db.cardinality/one"),
        },
        [K("db/add"), 103, K("extra"), K("v/w")],
    ]
)
undeclared = st.tuples(
    entities,
    st.sampled_from(["free", "loose"]),
    st.sampled_from([1, 1.0, True, "1", K("one"), (1, "x"), 2**70, None]),
).map(lambda fact: [K("db/add"), fact[0], K(fact[1]), fact[2]])
transactions = st.one_of(
    st.lists(operations, min_size=1, max_size=8),
    st.lists(operations, min_size=1, max_size=8),
    st.lists(undeclared, min_size=1, max_size=3),
    purges.map(lambda one: [one]),
    schema_changes.map(lambda one: [one]),
)
steps = st.lists(
    st.tuples(transactions, st.none() | st.integers(0, 60), st.booleans()), min_size=1, max_size=14
)
"""Transactions, each with an instant of its own or without, and with a snapshot after it or not."""
configs = st.builds(
    DatabaseConfig,
    keep_history=st.sampled_from([True, True, True, False]),
    schema_flexibility=st.sampled_from(["write", "write", "read"]),
    allow_index_backfill=st.just(True),
)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that is cut is cut small, so that a few facts make many segments."""
    monkeypatch.setattr(index_leaves_module, "LEAF_ROWS_MAX", 4)
    monkeypatch.setattr(snapshot_module, "INLINE_ROWS", 3)
    monkeypatch.setattr(snapshot_module, "INLINE_LEAVES", 2)
    monkeypatch.setattr(snapshot_module, "GROUP_ATTRIBUTES", 3)
    monkeypatch.setattr(snapshot_module, "CHUNK_CODES", 8)
    monkeypatch.setattr(dictionary_module, "PART_BYTES", 64)
    monkeypatch.setattr(leaves_module, "_CHUNK_MIN", 1)
    monkeypatch.setattr(leaves_module, "_CHUNK_MAX", 3)
    yield


def after(db: Database, data: list[Any], number: int, step: int | None) -> Database | str:
    """The value after a transaction, or why it was refused."""
    meta = None
    if step is not None and db.config.keep_history:
        meta = {K("db/txInstant"): datetime(1970, 1, 1, tzinfo=UTC)
                + timedelta(milliseconds=10 * step)}  # fmt: skip
    try:
        return process(db, data, meta, now_ms=100 + 10 * number).db_after
    except NatalogError as error:
        return f"{type(error).__name__}: {error.message}"


@settings(max_examples=settings().max_examples // 4)
@given(configs, steps, st.sampled_from([0, 300, 10**9]))
def test_a_value_that_goes_through_snapshots_stays_the_value_it_is(config, history, budget):
    """One line keeps everything in memory; the other is written and loaded again and again."""
    residency = Residency(budget)
    store, memo = Store(), Memo()
    plain = process(Database.empty(config), SCHEMA, now_ms=1).db_after
    line = process(Database.empty(config), SCHEMA, now_ms=1).db_after
    for number, (data, step, written) in enumerate(history):
        wanted, found = after(plain, data, number, step), after(line, data, number, step)
        if isinstance(wanted, str) or isinstance(found, str):
            assert wanted == found
        else:
            plain, line = wanted, found
        if written:
            snapshot, memo, _ = store.write(line, memo, residency)
            whole = store.write(line, Memo(), stored=frozenset())[0] if number % 3 == 0 else None
            assert whole is None or whole.names <= store.keys()
            pool = line.pool if number % 2 else None
            line, memo, _ = load_snapshot(snapshot.manifest, store, residency, pool)
        line._check()
        same(plain, line)
    for view in (plain, line):
        assert view.schema.read_out() == rebuilt(view).schema.read_out()


def rebuilt(db: Database) -> Database:
    """The same value with the schema that its facts say."""
    store = Store()
    snapshot, _, _ = store.write(db, stored=store)
    loaded = store.load(snapshot)
    facts = [d for d in loaded.datoms("aevt") if d.a.namespace in ("db", "db.attr", "db.entity")]
    facts.sort(key=lambda datom: datom.tx)
    schema = type(db.schema).empty(flexible=db.schema.flexible).after(facts)
    assert set(schema.declared()) == set(db.schema.declared())
    return loaded


@settings(max_examples=settings().max_examples // 8)
@given(steps, steps, st.booleans())
def test_a_branch_and_its_parent_are_independent(ours, theirs, shared):
    """Both go on from one snapshot, with leaves and perhaps a pool in common."""
    residency, store = Residency(500), Store()
    db = process(Database.empty(DatabaseConfig()), SCHEMA, now_ms=1).db_after
    base, memo, _ = store.write(db, None, residency)
    lines = []
    for lane, history in enumerate((ours, theirs)):
        start = forked(db, lane) if lane else db
        pool = db.pool if shared else None
        loaded, seen, _ = load_snapshot(base.manifest, store, residency, pool)
        lines.append([start, forked(loaded, lane) if lane else loaded, seen, history])
    for number in range(max(len(ours), len(theirs))):
        for line in lines:
            plain, stored, memo, history = line
            if number >= len(history):
                continue
            data, step, written = history[number]
            wanted, found = after(plain, data, number, step), after(stored, data, number, step)
            if isinstance(wanted, str) or isinstance(found, str):
                assert wanted == found
            else:
                plain, stored = wanted, found
            if written:
                snapshot, memo, _ = store.write(stored, memo, residency)
                same(plain, load_snapshot(snapshot.manifest, store, residency, stored.pool)[0])
            line[:3] = plain, stored, memo
    for plain, stored, _, _ in lines:
        stored._check()
        same(plain, stored)

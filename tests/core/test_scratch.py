"""Speculation on values that nobody keeps."""

from __future__ import annotations

import random
from typing import Any

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.diff import diff
from natalog.core.pull import pull
from natalog.core.query import q
from natalog.core.transact import process
from natalog.core.values import kw

SCHEMA = [
    {
        kw("db/ident"): kw("name"),
        kw("db/valueType"): kw("db.type/string"),
        kw("db/cardinality"): kw("db.cardinality/one"),
        kw("db/unique"): kw("db.unique/identity"),
    },
    {
        kw("db/ident"): kw("tag"),
        kw("db/valueType"): kw("db.type/string"),
        kw("db/cardinality"): kw("db.cardinality/many"),
        kw("db/index"): True,
    },
]


def changed(db: Database, seed: int) -> Database:
    """Some transactions, the same for equal seeds, with old and new values."""
    chance = random.Random(seed)
    for _ in range(6):
        tx: list[Any] = []
        for name in {f"p{chance.randrange(20)}" for _ in range(4)}:
            entity = {kw("name"): name, kw("tag"): [f"t{chance.randrange(60)}" for _ in range(3)]}
            tx.append(entity)
        db = process(db, tx, now_ms=0).db_after
    return db


def seen(db: Database) -> list[Any]:
    """What a reader can see."""
    query = "[:find ?n ?t :where [?e :name ?n] [?e :tag ?t]]"
    return [
        [tuple(datom) for datom in db.datoms("eavt", [])],
        [tuple(datom) for datom in db.datoms("avet", [kw("tag")])],
        [tuple(datom) for datom in db.history().datoms("aevt", [])],
        [tuple(datom) for datom in db.index_range(kw("tag"), "t2", "t5")],
        sorted(q(query, db).rows),
        q("[:find (max ?t) . :where [_ :tag ?t]]", db).rows,
        sorted(q("[:find ?e :in $ ?t :where [?e :tag ?t]]", db, "t59").rows),
        [pull(db, ["*"], e) for (e,) in sorted(q("[:find ?e :where [?e :name]]", db).rows)],
    ]


def test_speculation_shows_what_the_same_transactions_would() -> None:
    for seed in range(12):
        base = changed(process(Database.empty(), SCHEMA, now_ms=0).db_after, seed)
        known = len(base.settled().pool)
        tried = changed(base.scratch(), seed + 1000)
        assert len(base.pool) == known
        made = changed(base, seed + 1000).settled()
        assert len(base.pool) > known
        assert seen(tried) == seen(made)
        # what the database has learnt since does not confuse it
        assert seen(changed(tried.scratch(), seed)) == seen(changed(made, seed))
        found, wanted = diff(base, tried), diff(base, made)
        assert {tuple(d) for d in found.added} == {tuple(d) for d in wanted.added}
        assert {tuple(d) for d in found.removed} == {tuple(d) for d in wanted.removed}


def test_rejected_and_forgotten_values_leave_no_trace() -> None:
    base = process(Database.empty(DatabaseConfig(schema_flexibility="read")), [], now_ms=0).db_after
    known = len(base.settled().pool)
    for number in range(100):
        process(base.scratch(), [{kw("note"): f"never seen before {number}"}], now_ms=0)
    assert len(base.pool) == known

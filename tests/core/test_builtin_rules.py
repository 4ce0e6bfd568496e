"""The rules that are always there: valid time of transactions, relations of intervals."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.query import q
from natalog.core.query.builtin_rules import builtin_rules
from natalog.core.transact.process import process
from natalog.core.values import kw

RELATIONS: dict[str, Any] = {
    "overlaps?": lambda a, b, c, d: a < d and c < b,
    "equals?": lambda a, b, c, d: (a, b) == (c, d),
    "contains?": lambda a, b, c, d: a <= c and b >= d,
    "strictly-contains?": lambda a, b, c, d: a < c and b > d,
    "precedes?": lambda a, b, c, d: b <= c,
    "strictly-precedes?": lambda a, b, c, d: b < c,
    "immediately-precedes?": lambda a, b, c, d: b == c,
    "succeeds?": lambda a, b, c, d: a >= d,
    "strictly-succeeds?": lambda a, b, c, d: a > d,
    "immediately-succeeds?": lambda a, b, c, d: a == d,
    "meets?": lambda a, b, c, d: b == c,
    "starts?": lambda a, b, c, d: a == c and b < d,
    "started-by?": lambda a, b, c, d: a == c and b > d,
    "finishes?": lambda a, b, c, d: b == d and a > c,
    "finished-by?": lambda a, b, c, d: b == d and a < c,
}
INTERVALS = [(a, b) for a in range(4) for b in range(a + 1, 5)]


def test_the_relations_are_all_there_is() -> None:
    times = {"valid-at", "valid-between", "valid-during", "period-overlaps?"}
    assert set(builtin_rules()) == times | {f"interval-{name}" for name in RELATIONS}


@pytest.mark.parametrize("name", RELATIONS)
def test_relations_of_intervals(name: str) -> None:
    pairs = [(*left, *right) for left in INTERVALS for right in INTERVALS]
    found = q(
        f"[:find ?a ?b ?c ?d :in [[?a ?b ?c ?d]] :where (interval-{name} ?a ?b ?c ?d)]", pairs
    ).python()
    assert found == {pair for pair in pairs if RELATIONS[name](*pair)}


def year(number: int) -> datetime:
    return datetime(number, 1, 1, tzinfo=UTC)


def valid(db: Database, rule: str, *args: Any) -> Any:
    names = " ".join(f"?arg{spot}" for spot in range(len(args)))
    query = f"[:find [?v ...] :in $ {names} :where [_ :v ?v ?tx] ({rule} ?tx {names})]"
    return sorted(q(query, db, *args).python())


def test_valid_time_of_transactions() -> None:
    schema = "[{:db/ident :v :db/valueType :db.type/long :db/cardinality :db.cardinality/many}]"
    db = process(Database.empty(DatabaseConfig()), read(schema), None, now_ms=0).db_after
    for value, start, end in ((1, 2010, 2020), (2, 2015, None), (3, 2020, 2030)):
        window = {kw("db.valid/from"): year(start)}
        if end is not None:
            window[kw("db.valid/to")] = year(end)
        db = process(db, [{kw("v"): value}], window, now_ms=0).db_after
    assert valid(db, "valid-at", year(2012)) == [1]
    assert valid(db, "valid-at", year(2020)) == [2, 3]
    assert valid(db, "valid-between", year(2000), year(2011)) == [1]
    assert valid(db, "period-overlaps?", year(2018), year(2021)) == [1, 2, 3]
    assert valid(db, "valid-during", year(2010), year(2030)) == [1, 3]
    assert valid(db, "valid-at", year(2000)) == []

"""Pulls of random patterns over random graphs agree with a plain recursive reading of the rules."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.pull import pull_many
from natalog.core.transact.process import process
from natalog.core.values import Keyword, Symbol, kw

ID, N, ONE, MANY, PART, LID = map(kw, ("db/id", "n", "one", "many", "part", "lid"))
SCHEMA = """
[{:db/ident :n :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/ident :one :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
 {:db/ident :many :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
 {:db/ident :part :db/valueType :db.type/ref :db/cardinality :db.cardinality/many
  :db/isComponent true}
 {:db/ident :lid :db/valueType :db.type/ref :db/cardinality :db.cardinality/one
  :db/isComponent true}]
"""
EMPTY = process(Database.empty(DatabaseConfig()), read(SCHEMA), None, now_ms=0).db_after
EIDS = range(100, 108)
REFS = (ONE, MANY, PART, LID)

references = st.tuples(st.sampled_from(EIDS), st.sampled_from(REFS), st.sampled_from(EIDS))
numbers = st.tuples(st.sampled_from(EIDS), st.just(N), st.integers(0, 3))


def reverse(attr: Keyword) -> Keyword:
    return kw("_" + attr.text)


names = st.sampled_from([N, ID, *REFS, *map(reverse, REFS)])
followed = st.sampled_from([*REFS, *map(reverse, REFS)])
star = Symbol("*")


def patterns(depth: int) -> st.SearchStrategy[list[Any]]:
    nested = st.one_of(st.integers(1, 3), *([patterns(depth - 1)] if depth else []))
    maps = st.dictionaries(followed, nested, max_size=2)
    plain = st.lists(st.one_of(names, st.just(star)), max_size=3, unique=True)
    return st.builds(lambda one, two: [*one, *([two] if two else [])], plain, maps)


class Oracle:
    """The rules of pull, written down one entity at a time."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def frame(
        self, pattern: list[Any], eids: list[int], many: bool, rec: dict[str, Any], attr: Any
    ) -> Any:
        specs: dict[Keyword, Any] = {}
        for item in pattern:
            if isinstance(item, dict):
                specs.update(item)
            elif item != star:
                specs.setdefault(item, None)
        results: list[Any] = []
        for e in eids:
            found: dict[Any, Any] = {}
            if star in pattern:
                if e in rec["seen"]:
                    results.append({ID: e})
                    continue
                self.expand(pattern, specs, e, rec if attr is None else push(rec, attr, e), found)
            else:
                for key, sub in specs.items():
                    self.attr(pattern, key, sub, e, rec, found)
            if found:
                results.append(found)
        return results if many else (results[0] if results else None)

    def expand(
        self, pattern: list[Any], specs: dict[Keyword, Any], e: int, rec: Any, found: Any
    ) -> None:
        found[ID] = e
        for attr in self.db.attributes_of(e):
            self.attr(pattern, attr, specs.get(attr), e, rec, found)
        back = {key: sub for key, sub in specs.items() if key.name.startswith("_")}
        only = [{key: sub} if sub is not None else key for key, sub in back.items()]
        for key, sub in back.items():
            self.attr(only, key, sub, e, FRESH, found)

    def attr(
        self, pattern: list[Any], key: Keyword, sub: Any, e: int, rec: Any, found: Any
    ) -> None:
        if key is ID:
            if self.db.has_entity(e):
                found[ID] = e
            return
        backwards = key.name.startswith("_")
        attr = kw(key.text[1:]) if backwards else key
        values = self.db.holders(attr, e) if backwards else self.db.values(e, attr)
        if not values:
            return
        component = attr in (PART, LID)
        many = not component if backwards else attr in (MANY, PART)
        result: Any
        if isinstance(sub, list):
            result = self.frame(sub, values, many, FRESH, key)
        elif isinstance(sub, int):
            if rec["depth"].get(key, 0) >= sub:
                return
            below = [
                {ID: v}
                if v in rec["seen"]
                else self.frame(pattern, [v], False, push(rec, key, v), "again")
                for v in values
            ]
            below = [item for item in below if item]
            result = below if many else (below[0] if below else None)
        elif component and not backwards:
            result = self.frame([star], values, many, push(rec, key, e), key)
        else:
            shown = values if attr is N else [{ID: v} for v in values]
            result = shown if many else shown[0]
        if result is not None:
            found[key] = result


FRESH: dict[str, Any] = {"depth": {}, "seen": frozenset()}


def push(rec: dict[str, Any], attr: Any, e: int) -> dict[str, Any]:
    depth = {**rec["depth"], attr: rec["depth"].get(attr, 0) + 1}
    return {"depth": depth, "seen": rec["seen"] | {e}}


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(references, numbers), max_size=20), patterns(2))
def test_pull_does_what_the_rules_say(facts: list[Any], pattern: list[Any]) -> None:
    data = [[kw("db/add"), *fact] for fact in facts]
    db = process(EMPTY, data, None, now_ms=0).db_after
    oracle = Oracle(db)
    expected = [oracle.frame(pattern, [e], False, FRESH, None) for e in EIDS]
    assert pull_many(db, pattern, EIDS) == expected

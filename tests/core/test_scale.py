"""Large and deep input: it is answered or refused, and nothing grows faster than the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from natalog.core.codec import pack, unpack
from natalog.core.codec_json import from_json
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read, write
from natalog.core.errors import LimitExceeded, NatalogError
from natalog.core.limits import NESTING_DEPTH_MAX
from natalog.core.pull import parse_pull, pull
from natalog.core.query import q
from natalog.core.query.parse import parse_query
from natalog.core.query.parse_rules import parse_rules
from natalog.core.transact import process
from natalog.core.values import EdnList, Keyword, Symbol, kw

DEEP = 100_000
MEGABYTES = 5_000_000


def empty() -> Database:
    return Database.empty(DatabaseConfig(schema_flexibility="read"))


def people(count: int) -> Database:
    return process(empty(), [{"name": f"n{i}", "age": i} for i in range(count)], now_ms=0).db_after


# --- size ----------------------------------------------------------------------------------------


def test_five_megabytes_of_transaction_are_read_and_applied() -> None:
    entity = '{:db/id %d :name "person number %d" :age %d :tags [:a :b] :at #inst "2020-01-31"}\n'
    parts: list[str] = []
    size = number = 0
    while size < MEGABYTES:
        number += 1
        parts.append(entity % (number, number, number % 90))
        size += len(parts[-1])
    text = f"[{''.join(parts)}]"
    db = process(empty(), read(text), now_ms=0).db_after
    assert q("[:find (count ?e) . :where [?e :name]]", db).python() == number


def test_a_string_of_five_megabytes_is_a_value() -> None:
    text = "ü" * (MEGABYTES // 2)
    db = process(empty(), read(write([{kw("text"): text}])), now_ms=0).db_after
    assert db.values(1, kw("text")) == [text]


def test_ten_thousand_branches_of_an_or_are_answered() -> None:
    db = people(100)
    branches = " ".join(f"[?e :age {i}]" for i in range(10_000))
    found = q(f"[:find (count ?e) . :where [?e :name] (or {branches})]", db).python()
    assert found == 100
    branches = " ".join(f"(and [?e :age {i}] [?e :name ?n])" for i in range(10_000))
    assert len(q(f"[:find ?n :where (or {branches})]", db).rows) == 100


def test_ten_thousand_clauses_are_answered() -> None:
    db = people(10)
    clauses = " ".join(f"[(not= ?a {i})]" for i in range(10, 10_010))
    assert q(f"[:find (count ?e) . :where [?e :age ?a] {clauses}]", db).python() == 10
    clauses = " ".join(f"(not [?e :age {i}])" for i in range(5, 2_005))
    assert q(f"[:find (count ?e) . :where [?e :name] {clauses}]", db).python() == 5


def test_ten_thousand_rules_are_answered() -> None:
    rules = " ".join(f"[(r{i} ?e) (r{i + 1} ?e)]" for i in range(100))
    many = " ".join(f"[(known ?e) [?e :age {i}]]" for i in range(10_000))
    text = f"[{rules} [(r100 ?e) (known ?e)] {many}]"
    assert q("[:find (count ?e) . :in $ % :where (r0 ?e)]", people(20), text).python() == 20


def test_a_hundred_thousand_inputs_are_joined() -> None:
    query = "[:find (count ?e) . :in $ [?a ...] :where [?e :age ?a]]"
    assert q(query, people(100), list(range(100_000))).python() == 100


def test_a_pattern_of_ten_thousand_attributes_pulls() -> None:
    pattern = read("[" + " ".join(f":a{i}" for i in range(10_000)) + " :name]")
    assert pull(people(1), pattern, 1) == {kw("name"): "n0"}


# --- depth ---------------------------------------------------------------------------------------

TEXTS = {
    "vectors": ("[", "]"),
    "lists": ("(", ")"),
    "maps": ("{:a ", "}"),
    "keys": ("{", " 1}"),
    "sets": ("#{", "}"),
    "tags": ("#t ", ""),
    "discards": ("#_ ", ""),
    "metadata": ("^", ""),
}


@pytest.mark.parametrize("form", TEXTS)
def test_deep_text_is_refused(form: str) -> None:
    opening, closing = TEXTS[form]
    with pytest.raises(NatalogError):
        read(opening * DEEP + "1" + closing * DEEP)
    with pytest.raises(NatalogError):
        read(opening * DEEP)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_json_is_refused(opening: str, closing: str) -> None:
    with pytest.raises(LimitExceeded):
        from_json(opening * DEEP + "1" + closing * DEEP)


def test_deep_bytes_are_refused() -> None:
    with pytest.raises(LimitExceeded):
        unpack(b"\x91" * DEEP + b"\x01")
    with pytest.raises(LimitExceeded):
        unpack(b"\x81\xa1a" * DEEP + b"\x01")


def nested(wrap: Callable[[Any], Any], inner: Any, depth: int = DEEP) -> Any:
    """A value of ``depth`` levels, made without recursion."""
    for _ in range(depth):
        inner = wrap(inner)
    return inner


DEEP_VALUES = {
    "lists": nested(lambda inner: [inner], 1),
    "edn lists": nested(lambda inner: EdnList([inner]), 1),
    "tuples": nested(lambda inner: (inner,), 1),
    "maps": nested(lambda inner: {kw("a"): inner}, 1),
}


@pytest.mark.parametrize("form", DEEP_VALUES)
def test_deep_values_are_not_written(form: str) -> None:
    for writer in (pack, write):
        with pytest.raises(LimitExceeded):
            writer(DEEP_VALUES[form])


@pytest.mark.parametrize("form", DEEP_VALUES)
def test_deep_data_are_refused_everywhere(form: str) -> None:
    deep = DEEP_VALUES[form]
    db = people(1)
    find = [Keyword("find"), Symbol("?e"), Keyword("where")]
    attempts: list[Callable[[], object]] = [
        lambda: parse_query(deep),
        lambda: parse_query([*find, deep]),
        lambda: parse_query([*find, [Symbol("?e"), kw("age"), deep]]),
        lambda: q("[:find ?x :in $ ?x :where [?e :name]]", db, deep),
        lambda: q("[:find ?x :in $ [?x ...] :where [?e :name]]", db, deep),
        lambda: parse_rules(deep),
        lambda: parse_pull(deep),
        lambda: parse_pull([deep]),
        lambda: pull(db, [{kw("friend"): deep}], 1),
        lambda: pull(db, "[*]", deep),
        lambda: process(db, [deep], now_ms=1),
        lambda: process(db, [{"a": deep}], now_ms=1),
        lambda: process(db, [[kw("db/add"), 1, kw("a"), deep]], now_ms=1),
        lambda: process(db, [[kw("db/add"), deep, kw("a"), 1]], now_ms=1),
        lambda: process(db, [], {"about": deep}, now_ms=1),
        lambda: db.datoms("eavt", [deep]),
        lambda: db.entid(deep),
    ]
    for number, attempt in enumerate(attempts):
        try:
            attempt()
        except NatalogError:
            continue
        except RecursionError:
            pytest.fail(f"attempt {number} ran out of stack")


def clause(opening: str, depth: int) -> str:
    closing = ")" if opening.startswith("(") else "]"
    return opening * depth + "[?e :age]" + closing * depth


@pytest.mark.parametrize("opening", ["(not ", "(or ", "(and ", "(not-join [?e] ", "(or-join [?e] "])
def test_deeply_nested_clauses_are_refused(opening: str) -> None:
    db = people(1)
    for depth in (200, NESTING_DEPTH_MAX - 10):
        with pytest.raises(NatalogError):
            q(f"[:find ?e :where [?e :name] {clause(opening, depth)}]", db)


def test_deeply_nested_maps_of_a_transaction_are_refused_or_applied() -> None:
    data = nested(lambda inner: {kw("friend"): inner, kw("name"): "x"}, {kw("name"): "last"})
    with pytest.raises(NatalogError):
        process(empty(), [data], now_ms=0)


def test_deeply_nested_queries_are_refused() -> None:
    inner = "[:find (count ?e) . :where [?e :age]]"
    for _ in range(100):
        inner = f"[:find ?x . :where [(q {inner} $) ?x]]"
    with pytest.raises(NatalogError):
        q(inner, people(1))

"""The engine's promises beyond the answers themselves: limits, order of work, explanations."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read, write
from natalog.core.errors import (
    QueryBinding,
    QueryFunction,
    QueryLimit,
    QueryParse,
    QueryTimeout,
    QueryWhere,
)
from natalog.core.query import explain, q
from natalog.core.registry import Registry
from natalog.core.transact import process
from natalog.core.values import Keyword, Symbol, kw


def people(count: int = 100) -> Database:
    declared: list[Any] = [
        {
            kw("db/ident"): kw(name),
            kw("db/valueType"): kw(f"db.type/{kind}"),
            kw("db/cardinality"): kw("db.cardinality/one"),
            kw("db/index"): True,
        }
        for name, kind in (("id", "long"), ("name", "string"), ("age", "long"), ("boss", "ref"))
    ]
    db = process(Database.empty(), declared, now_ms=1).db_after
    first = db.max_eid + 1
    rows = [
        {
            kw("db/id"): first + i,
            kw("id"): i,
            kw("name"): f"n{i % 7}",
            kw("age"): i % 10,
            **({kw("boss"): first + (i - 1) // 2} if i else {}),
        }
        for i in range(count)
    ]
    return process(db, rows, now_ms=2).db_after


ABOVE = "[[(above ?a ?b) [?a :boss ?b]] [(above ?a ?b) [?a :boss ?c] (above ?c ?b)]]"


def test_clause_order_does_not_change_an_answer() -> None:
    db = people()
    clauses = [
        '[?e :name "n3"]',
        "[?e :age ?a]",
        "[(> ?a 2)]",
        "(not [?e :age 5])",
        "[?e :boss ?b]",
    ]
    answers = [
        q(f"[:find ?e ?a ?b :where {' '.join(order)}]", db).python()
        for order in permutations(clauses)
    ]
    assert answers[0] and all(answer == answers[0] for answer in answers)


def test_a_variable_that_nobody_needs_is_dropped_before_the_next_join() -> None:
    db = people(2000)
    plan = explain(
        '[:find ?o ?n :where [?e :name "n3"] [?e :age ?a] [?o :age ?a] [?o :name ?n]]', db
    )
    assert max(step.rows for step in plan.steps) <= 2000


def test_recursion_from_a_bound_start_does_not_visit_the_rest() -> None:
    db = people(1000)
    last = db.holders(kw("id"), 999)[0]
    plan = explain("[:find ?b :in $ % ?a :where (above ?a ?b)]", db, ABOVE, last)
    assert plan.answer_rows == 9
    assert max(step.rows for step in plan.steps) < 100


def test_a_cycle_ends() -> None:
    edges = [(1, 2), (2, 3), (3, 1)]
    rules = "[[(r ?a ?b) [?a ?b]] [(r ?a ?b) (r ?a ?c) (r ?c ?b)]]"
    found = q("[:find ?a ?b :in $ % :where (r ?a ?b)]", edges, rules).python()
    assert found == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3)}


def test_recursion_inside_an_or_is_followed_to_its_end() -> None:
    edges = [(n, n + 1) for n in range(12)]
    rules = "[[(r ?a ?b) (or-join [?a ?b] [?a ?b] (and [?a ?c] (r ?c ?b)))]]"
    found = q("[:find ?b :in $ % ?a :where (r ?a ?b)]", edges, rules, 3).python()
    assert found == {(b,) for b in range(4, 13)}


def test_mutual_recursion_alternates() -> None:
    rules = "[[(even ?n) [(= ?n 0)]] [(even ?n) [?m ?n] (odd ?m)] [(odd ?n) [?m ?n] (even ?m)]]"
    edges = [(n, n + 1) for n in range(9)]
    found = q("[:find ?n :in $ % [?n ...] :where (even ?n)]", edges, rules, range_list(9))
    assert found.python() == {(n,) for n in (0, 2, 4, 6, 8)}


def range_list(count: int) -> list[int]:
    return list(range(count))


def test_limits_end_a_query_with_an_error() -> None:
    db = people(200)
    product = "[:find ?a ?b :where [?a :id] [?b :id]]"
    with pytest.raises(QueryLimit):
        q(product, db, rows_max=1000)
    with pytest.raises(QueryLimit):
        q(product, db, fuel=500)
    with pytest.raises(QueryTimeout):
        q(product, db, expired=lambda: True)


def test_what_cannot_run_is_refused_even_when_nothing_would_be_found() -> None:
    db = people(3)
    for query, error in (
        ('[:find ?e :where [?e :name "nobody"] [(> ?z 1)]]', QueryWhere),
        ("[:find ?e :where [?e :name ?n] [(no-such ?n)]]", QueryWhere),
        ("[:find ?e :where [?e :name ?n] (nobody ?n)]", QueryParse),
        ("[:find ?e :in $ ?x :where [?e :id ?x]]", QueryBinding),
    ):
        with pytest.raises(error):
            q(query, db)


def test_a_function_that_fails_names_itself_and_its_arguments() -> None:
    with pytest.raises(QueryFunction) as caught:
        q("[:find ?y :in ?x :where [(/ ?x 0) ?y]]", 5)
    assert "/" in str(caught.value)


def test_only_registered_functions_can_be_called() -> None:
    registry = Registry({"my/twice": lambda x: 2 * x})
    found = q("[:find ?y . :in ?x :where [(my/twice ?x) ?y]]", 21, functions=registry)
    assert found.python() == 42
    for name in ("eval", "__import__", "slurp", "os.system", ".upper"):
        with pytest.raises(QueryWhere):
            q(f"[:find ?y . :in ?x :where [({name} ?x) ?y]]", "x")


def test_values_of_different_classes_do_not_join() -> None:
    rows = [(1, "long"), (1.0, "double"), (True, "boolean"), (kw("a"), "keyword"), ("a", "string")]
    for value, name in rows:
        found = q("[:find [?n ...] :in $ ?v :where [?v ?n]]", rows, value)
        assert found.python() == [name]


def test_a_query_is_data_or_text_with_one_answer() -> None:
    db = people(20)
    text = '[:find ?e :where [?e :name "n3"]]'
    as_map = {"find": [Symbol("?e")], "where": [[Symbol("?e"), kw("name"), "n3"]]}
    form = read(text)
    assert read(write(form)) == form
    assert q(text, db).python() == q(form, db).python() == q(as_map, db).python()


def test_an_explanation_lists_clauses_with_estimated_and_true_rows() -> None:
    db = people(100)
    plan = explain('[:find ?a :where [?e :age ?a] [?e :name "n3"] (not [?e :age 5])]', db)
    assert [step.clause for step in plan.steps if step.depth == 0] == [
        '[?e :name "n3"]',
        "[?e :age ?a]",
        "(not [?e :age 5])",
    ]
    first = plan.steps[0]
    assert first.estimated == first.rows == 14
    assert "answer" in plan.text() and plan.data()["answer_rows"] == plan.answer_rows


def test_joins_across_databases_compare_values_and_not_their_codes() -> None:
    left = Database.empty(DatabaseConfig(schema_flexibility="read"))
    right = Database.empty(DatabaseConfig(schema_flexibility="read"))
    left = process(left, [{kw("k"): v} for v in ("z", "a", "b")], now_ms=1).db_after
    right = process(right, [{kw("j"): v} for v in ("b", "z", "q")], now_ms=1).db_after
    found = q("[:find [?v ...] :in $ $2 :where [_ :k ?v] [$2 _ :j ?v]]", left, right).python()
    assert sorted(found) == ["b", "z"]
    assert Keyword("k") in left.indexes


def test_two_large_relations_meet_in_a_pattern_without_their_product() -> None:
    db = people(3000)
    pairs = [(n, n) for n in range(3000)]
    found = q(
        "[:find (count ?e) . :in $ [[?i ?x]] [[?y ?j]] :where [?e :id ?i] [?e :age ?a]"
        " [?f :id ?j] [?f :boss ?e]]",
        db,
        pairs,
        pairs,
        rows_max=100_000,
    )
    assert found.python() == 1500

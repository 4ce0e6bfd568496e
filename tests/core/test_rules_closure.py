"""Recursive rules against a plain closure, with every argument bound or free."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natalog.core.query import q

RIGHT = "[[(r ?a ?b) [?a ?b]] [(r ?a ?b) [?a ?m] (r ?m ?b)]]"
LEFT = "[[(r ?a ?b) [?a ?b]] [(r ?a ?b) (r ?a ?m) [?m ?b]]]"
BOTH = "[[(r ?a ?b) [?a ?b]] [(r ?a ?b) (r ?a ?m) (r ?m ?b)]]"
TWO_MOVES = (
    "[[(r ?a ?b) [?a ?b]] [(r ?a ?b) [?a ?m] (r ?m ?b)] [(r ?a ?b) [?m ?a] [?a ?m] (r ?m ?b)]]"
)
SHIFTED = "[[(r ?a ?b) [?b ?a]] [(r ?a ?b) (r ?m ?b) [?m ?a]]]"

EDGES = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=14)


def closure(edges: list[tuple[int, int]]) -> set[tuple[int, int]]:
    pairs = set(edges)
    while True:
        more = {(a, d) for a, b in pairs for c, d in edges if b == c} - pairs
        if not more:
            return pairs
        pairs |= more


@settings(max_examples=120, deadline=None)
@given(EDGES, st.integers(0, 7), st.integers(0, 7))
@pytest.mark.parametrize("rules", [RIGHT, LEFT, BOTH, TWO_MOVES, SHIFTED])
def test_a_closure_is_the_same_however_it_is_written_and_asked(
    rules: str, edges: list[tuple[int, int]], one: int, other: int
) -> None:
    pairs = closure(edges)
    if rules is SHIFTED:
        pairs = {(b, a) for a, b in pairs}
    head = "[:find ?a ?b :in $ % "
    assert q(head + ":where (r ?a ?b)]", edges, rules).python() == pairs
    bound = q(head + "?a :where (r ?a ?b)]", edges, rules, one).python()
    assert bound == {pair for pair in pairs if pair[0] == one}
    bound = q(head + "?b :where (r ?a ?b)]", edges, rules, one).python()
    assert bound == {pair for pair in pairs if pair[1] == one}
    bound = q(head + "?a ?b :where (r ?a ?b)]", edges, rules, one, other).python()
    assert bound == {pair for pair in pairs if pair == (one, other)}
    several = q(head + "[?a ...] :where (r ?a ?b)]", edges, rules, [one, other]).python()
    assert several == {pair for pair in pairs if pair[0] in (one, other)}
    itself = q("[:find ?a :in $ % :where (r ?a ?a)]", edges, rules).python()
    assert itself == {(a,) for a, b in pairs if a == b}
    there = q(f"[:find ?b :in $ % :where (r {one} ?b)]", edges, rules).python()
    assert there == {(b,) for a, b in pairs if a == one}


def test_parameters_that_are_handed_on_may_be_several() -> None:
    edges = [(1, 2, "x"), (2, 3, "y"), (3, 1, "z")]
    rules = "[[(r ?a ?b ?label) [?a ?b ?label]] [(r ?a ?b ?label) [?a ?m _] (r ?m ?b ?label)]]"
    found = q("[:find ?b ?l :in $ % ?a :where (r ?a ?b ?l)]", edges, rules, 1).python()
    assert found == {(2, "x"), (3, "y"), (1, "z")}


def test_predicates_on_the_way_bound_the_walk() -> None:
    edges = [(n, n + 1) for n in range(20)]
    rules = "[[(r ?a ?b) [?a ?b]] [(r ?a ?b) [?a ?m] [(< ?m 5)] (r ?m ?b)]]"
    found = q("[:find [?b ...] :in $ % ?a :where (r ?a ?b)]", edges, rules, 0).python()
    assert sorted(found) == [1, 2, 3, 4, 5]


def test_a_computed_step_is_walked_from_a_bound_start() -> None:
    rules = (
        "[[(down ?n ?m) [(identity ?n) ?m]] [(down ?n ?m) [(> ?n 0)] [(dec ?n) ?k] (down ?k ?m)]]"
    )
    found: Any = q("[:find [?m ...] :in % ?n :where (down ?n ?m)]", rules, 30).python()
    assert sorted(found) == list(range(31))


def test_a_long_chain_is_walked_in_a_moment() -> None:
    edges = [(n, n + 1) for n in range(4000)]
    found = q("[:find (count ?b) . :in $ % ?a :where (r ?a ?b)]", edges, RIGHT, 0).python()
    assert found == 4000


def test_values_of_different_classes_are_different_nodes() -> None:
    edges = [(1, 1.0), (1.0, True), (True, "1"), ("1", 2)]
    found = q("[:find [?b ...] :in $ % ?a :where (r ?a ?b)]", edges, RIGHT, 1.0).python()
    assert sorted(map(repr, found)) == ["'1'", "2", "True"]

"""Random queries: the engine and nested loops give the same answers, on every view."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from laws_data import built, histories, through, views
from laws_queries import RULES, aggregates, relations
from naive import q as naive_q

from natalog.core.query import q
from natalog.core.values import value_key


def answer(query: str, *inputs: Any) -> set[Any]:
    found = q(query, *inputs).python()
    return {value_key(list(row)) for row in found}


@given(histories, relations())
def test_relations_on_the_current_value(history, query):
    db, naive = built(history)
    assert answer(query, db, RULES) == naive_q(query, naive, RULES)


@given(histories, views, relations(history=True))
def test_relations_on_every_view(history, steps, query):
    db, naive = built(history)
    db, naive = through(db, steps, db.tx0), through(naive, steps, db.tx0)
    assert answer(query, db, RULES) == naive_q(query, naive, RULES)


@given(histories, aggregates())
def test_aggregates(history, query):
    db, naive = built(history)
    assert answer(query, db, RULES) == naive_q(query, naive, RULES)


@given(histories, st.data())
def test_inputs_restrict_like_clauses(history, data):
    db, naive = built(history)
    given_ages = data.draw(st.lists(st.sampled_from([0, 1, 7, 30, 1.0, True]), max_size=3))
    query = "[:find ?e ?x :in $ [?x ...] :where [?e ?attr ?x]]"
    distinct = list({value_key(age): age for age in given_ages}.values())
    assert answer(query, db, distinct) == naive_q(query, naive, distinct)


@given(histories, views)
def test_two_views_join_in_one_query(history, steps):
    db, naive = built(history)
    other, mine = through(db, steps, db.tx0), through(naive, steps, db.tx0)
    query = "[:find ?e ?a ?v :in $ $old :where [$ ?e ?a ?v] (not [$old ?e ?a ?v])]"
    found = {value_key(list(row)) for row in q(query, db, other).python()}
    expected = {
        value_key([d.e, d.a, d.v])
        for d in naive.datoms()
        if not any(value_key(d[:3]) == value_key(o[:3]) for o in mine.datoms())
    }
    assert found == expected

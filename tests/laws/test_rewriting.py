"""Rewriting a query or a view in a way that means the same changes nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, reject
from hypothesis import strategies as st
from laws_data import INDEXED, MANY, VALUES, built, histories, through, views
from laws_queries import RULES, bodies, relations

from natalog.core.database import Database
from natalog.core.edn import write
from natalog.core.errors import QueryFunction
from natalog.core.query import q
from natalog.core.values import value_key


def answer(query: str, *inputs: Any) -> set[Any]:
    """The rows.  A function may fail on rows that clauses still to come would drop, so that its
    errors depend on the plan; such examples say nothing."""
    try:
        return {value_key(list(row)) for row in q(query, *inputs).python()}
    except QueryFunction:
        reject()


def whole(clauses: Any, variables: Any) -> str:
    return f"[:find {' '.join(variables)} :in $ % :where {' '.join(clauses)}]"


@given(histories, views, bodies(history=True), st.randoms(use_true_random=False))
def test_the_order_of_clauses_does_not_matter(history, steps, body, chance):
    db, _ = built(history)
    db = through(db, steps, db.tx0)
    expected = answer(whole(body.clauses, body.variables), db, RULES)
    for _ in range(3):
        shuffled = list(body.clauses)
        chance.shuffle(shuffled)
        assert answer(whole(shuffled, body.variables), db, RULES) == expected


@given(histories, views, bodies(history=True), st.data())
def test_a_redundant_clause_does_not_matter(history, steps, body, data):
    db, _ = built(history)
    db = through(db, steps, db.tx0)
    expected = answer(whole(body.clauses, body.variables), db, RULES)
    again = data.draw(st.sampled_from(body.clauses))
    same = data.draw(st.sampled_from(body.variables))
    redundant = data.draw(
        st.sampled_from(
            [
                again,
                f"(and {again})",
                *([f"(or {again} {again})"] if "?" in again else []),
                f"[(= {same} {same})]",
                f"[(identity {same}) {same}]",
                f"(not [(not= {same} {same})])",
                f"(or-join [{same}] [(= {same} {same})])",
            ]
        )
    )
    place = data.draw(st.integers(0, len(body.clauses)))
    clauses = [*body.clauses[:place], redundant, *body.clauses[place:]]
    assert answer(whole(clauses, body.variables), db, RULES) == expected


@given(histories, bodies())
def test_clauses_behind_a_rule_mean_the_same(history, body):
    db, _ = built(history)
    expected = answer(whole(body.clauses, body.variables), db, RULES)
    head = " ".join(body.variables)
    rules = f"{RULES.strip()[:-1]} [(body {head}) {' '.join(body.clauses)}]]"
    assert answer(f"[:find {head} :in $ % :where (body {head})]", db, rules) == expected


@given(histories, bodies(), st.data())
def test_a_constant_means_the_same_as_an_input(history, body, data):
    db, _ = built(history)
    try:
        rows = q(whole(body.clauses, body.variables), db, RULES).rows
    except QueryFunction:
        reject()
    if not rows:
        return
    spot = data.draw(st.integers(0, len(body.variables) - 1))
    value = data.draw(st.sampled_from(sorted({row[spot] for row in rows}, key=repr)))
    expected = {value_key(list(row)) for row in rows if value_key(row[spot]) == value_key(value)}
    head = " ".join(body.variables)
    query = f"[:find {head} :in $ % {body.variables[spot]} :where {' '.join(body.clauses)}]"
    assert answer(query, db, RULES, value) == expected


@given(histories, relations())
def test_as_of_now_is_the_current_value(history, query):
    db, _ = built(history)
    assert answer(query, db.as_of(db.max_tx), RULES) == answer(query, db, RULES)
    assert answer(query, db.as_of(db.max_tx + 5), RULES) == answer(query, db, RULES)


@given(histories, relations(history=True))
def test_views_of_everything_are_the_value_itself(history, query):
    db, _ = built(history)
    past = db.history()
    assert answer(query, past.as_of(db.max_tx), RULES) == answer(query, past, RULES)
    assert answer(query, past.since(db.tx0), RULES) == answer(query, past, RULES)
    assert answer(query, db.as_of(db.tx0), RULES) == set()


@given(histories, st.integers(0, 10))
def test_history_folded_up_to_a_transaction_is_as_of_it(history, number):
    db, _ = built(history)
    point = db.tx0 + number
    holds: Counter[Any] = Counter()
    events: Counter[Any] = Counter()
    for datom in db.history().datoms("eavt"):
        if datom.tx <= point:
            key = value_key(tuple(datom[:3]))
            holds[key] += 1 if datom.added else -1
            events[key, datom.tx] += 1
    # history is a set: it does not tell the last word of a transaction that says both of a fact
    open_facts = {key for (key, _), count in events.items() if count > 1}
    shown = {value_key(tuple(d[:3])) for d in db.as_of(point).datoms("eavt")}
    folded = {key for key, count in holds.items() if count > 0}
    assert shown - open_facts == folded - open_facts


@given(histories, st.integers(0, 10), relations())
def test_as_of_then_is_what_the_value_was_then(history, number, query):
    number = min(number, len(history))
    db, _ = built(history)
    then, _ = built(history[:number])
    assert isinstance(db, Database)
    assert answer(query, db.as_of(then.max_tx), RULES) == answer(query, then, RULES)


@given(histories, views)
def test_index_access_and_queries_see_the_same(history, steps):
    db, _ = built(history)
    db = through(db, steps, db.tx0)
    found = answer("[:find ?e ?a ?v ?t :where [?e ?a ?v ?t]]", db)
    assert found == {value_key([d.e, d.a, d.v, d.tx]) for d in db.datoms("eavt")}
    for attr, values in VALUES.items():
        if attr not in INDEXED or attr in MANY:
            continue
        for value in values:
            by_query = answer(f"[:find ?e ?t :where [?e {attr} {write(value)} ?t]]", db)
            by_index = db.datoms("avet", [attr, value])
            assert by_query == {value_key([d.e, d.tx]) for d in by_index}

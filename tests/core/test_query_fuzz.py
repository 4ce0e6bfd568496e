"""Whatever is asked, the answer is a result or one of our errors."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from natalog.core.errors import NatalogError
from natalog.core.forms import freeze
from natalog.core.pull import parse_pull
from natalog.core.query.aggregates import AGGREGATES
from natalog.core.query.functions import FUNCTIONS
from natalog.core.query.mismatch import TypeMismatch
from natalog.core.query.parse import parse_query
from natalog.core.query.parse_options import with_options
from natalog.core.query.parse_rules import check_rules, parse_rules
from natalog.core.values import EdnList, Keyword, Regex, Symbol, make_set, ms_instant, value_key

WORDS = """?x ?y ?z _ $ $2 % ... . not not-join or or-join and pull count min aggregate + < rule
* limit default"""
KEYS = "find in with where keys strs syms limit offset order-by name boss as default xform db/id"

atoms = st.one_of(
    st.sampled_from([Symbol(word) for word in WORDS.split()]),
    st.sampled_from([Keyword(word) for word in KEYS.split()]),
    st.sampled_from([None, True, False, 0, 1, -1, 2.5, "", "?x", "...", "*", "name", Decimal(1)]),
)


def collections(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(items, max_size=5),
        st.lists(items, max_size=5).map(EdnList),
        st.dictionaries(atoms, items, max_size=3),
    )


forms = st.recursive(atoms, collections, max_leaves=25)
queries = st.fixed_dictionaries(
    {Keyword("find"): st.one_of(st.just([Symbol("?x")]), forms)},
    optional={Keyword(key): forms for key in ("in", "with", "where", "keys", "limit", "order-by")},
)


@settings(deadline=None, max_examples=250)
@given(st.one_of(forms, queries, st.lists(forms).map(lambda rest: [Keyword("find"), *rest])))
def test_queries_are_parsed_or_refused(form: Any) -> None:
    try:
        query = parse_query(form)
    except NatalogError:
        return
    assert parse_query(form) == query and hash(query) == hash(parse_query(form))


@settings(deadline=None, max_examples=150)
@given(forms, forms)
def test_rules_are_parsed_or_refused(form: Any, body: Any) -> None:
    for rules in (form, [[EdnList([Symbol("rule"), Symbol("?x")]), form, body]]):
        try:
            parsed = parse_rules(rules)
            where = parse_query("[:find ?x :in $ % :where (rule ?x)]").where
            check_rules(parsed, where, ["$"])
        except NatalogError:
            pass


@settings(deadline=None, max_examples=250)
@given(st.one_of(forms, st.lists(forms, max_size=4)))
def test_pull_patterns_are_parsed_or_refused(form: Any) -> None:
    try:
        pattern = parse_pull(form)
    except NatalogError:
        return
    assert parse_pull(form) is pattern


@settings(deadline=None, max_examples=150)
@given(forms, forms, forms)
def test_options_fit_or_are_refused(limit: Any, offset: Any, order_by: Any) -> None:
    query = parse_query("[:find ?x ?y :where [?x :name ?y]]")
    with suppress(NatalogError):
        with_options(query, limit, offset, order_by)


values = st.one_of(
    atoms,
    st.integers(),
    st.floats(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.fractions(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.uuids(),
    st.integers(-(10**12), 10**12).map(ms_instant),
    st.sampled_from([Regex("a(b)?"), Regex("("), Fraction(1, 3)]),
    collections(atoms).map(freeze),
    st.lists(st.integers(), max_size=3).map(lambda items: frozenset(make_set(items))),
)


@settings(deadline=None, max_examples=800)
@given(st.sampled_from(sorted(FUNCTIONS)), st.lists(values, max_size=4))
def test_functions_return_hashable_values_or_our_errors(name: str, args: list[Any]) -> None:
    builtin = FUNCTIONS[name]
    if not builtin.accepts(len(args)):
        return
    try:
        found = builtin.call(*args)
    except TypeMismatch as mismatch:
        assert isinstance(mismatch.as_error(), NatalogError)
        return
    except NatalogError:
        return
    hash(found)
    again = builtin.call(*args)
    assert value_key(again) == value_key(found)


@settings(deadline=None, max_examples=250)
@given(st.sampled_from(sorted(AGGREGATES)), st.lists(values, min_size=1, max_size=6))
def test_aggregates_return_hashable_values_or_our_errors(name: str, group: list[Any]) -> None:
    try:
        found = AGGREGATES[name].apply(group)
    except NatalogError:
        return
    hash(found)

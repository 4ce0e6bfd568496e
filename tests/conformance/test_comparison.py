"""The comparison rules of the conformance runner."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import UUID

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from conformance_compare import Comparison, K, Outcome, find_kind
from conformance_steps import Clock, Scenario

from natalog.core.edn import read
from natalog.core.errors import EntityIdMissing, QueryWhere, TransactCas, WhereParse
from natalog.core.limits import TX_BASE


def differs(step, want, ok=None, error=None, crash=None, comparison=None):
    return (comparison or Comparison()).differs(read(step), read(want), Outcome(ok, error, crash))


@pytest.mark.parametrize(
    ("step", "want", "ok", "same"),
    [
        ("{:op :q :query [:find ?a]}", "{:ok #{[1]}}", {(1,)}, True),
        ("{:op :q :query [:find ?a]}", "{:ok #{[1]}}", {(1.0,)}, False),
        ("{:op :q :query [:find ?a]}", "{:ok #{[1]}}", {(True,)}, False),
        ("{:op :q :query [:find ?a]}", "{:ok #{[1]}}", [(1,)], False),
        ("{:op :q :query [:find ?a]}", "{:ok #{[0.3]}}", {(0.1 + 0.2,)}, True),
        ("{:op :q :query [:find [?a ...]]}", "{:ok [1 2]}", [2, 1], True),
        ("{:op :q :query [:find [?a ...]] :order-by ?a}", "{:ok [1 2]}", [2, 1], False),
        ("{:op :q :query [:find [?a ?b]]}", "{:ok [1 2]}", (2, 1), False),
        ("{:op :q :query [:find ?a .]}", "{:ok 1.5M}", read("1.50M"), True),
        ("{:op :q :query [:find ?a .]}", "{:ok ##NaN}", float("nan"), True),
        ("{:op :q :query [:find ?a .]}", "{:ok nil}", None, True),
        ("{:op :q :query [:find ?a .]}", '{:ok "a"}', K("a"), False),
        ("{:op :q :query [:find ?t .]}", "{:ok 536870913}", TX_BASE + 1, True),
        ("{:op :q :query [:find (pull ?e [*])]}", "{:ok [[{:a [1 2]}]]}",
         [({K("a"): [2, 1]},)], True),
        ("{:op :q :query [:find ?b .]}", '{:ok [:dh/bytes "00ff"]}', b"\x00\xff", True),
        ("{:op :pull}", "{:ok {:a 1}}", {K("a"): 1, K("b"): 2}, False),
        ("{:op :pull}", "{:ok {:a [1 {:b 2}]}}", {K("a"): [{K("b"): 2}, 1]}, True),
        ("{:op :pull-many}", "{:ok [{:a 1} {:a 2}]}", [{K("a"): 2}, {K("a"): 1}], False),
        ("{:op :datoms}", "{:ok [[1 :a 1 5 true] [1 :b 2 5 true]]}",
         [[1, K("b"), 2, 5, True], [1, K("a"), 1, 5, True]], False),
        ("{:op :datoms :view {:db :as-of :tx 5}}", "{:ok [[1 :a 1 5 true] [1 :b 2 5 true]]}",
         [[1, K("b"), 2, 5, True], [1, K("a"), 1, 5, True]], True),
        ("{:op :datoms}", "{:ok [[1 :a 1 5 false] [1 :a 1 5 true]]}",
         [[1, K("a"), 1, 5, True], [1, K("a"), 1, 5, False]], True),
        ("{:op :db-info}", "{:ok {:config {:branch :db} :datoms 3}}",
         {K("config"): {K("branch"): K("db"), K("x"): 1}, K("datoms"): 3, K("y"): 2}, True),
        ("{:op :gc}", "{:ok {:removed 3}}", {}, True),
        ("{:op :transact}", "{:ok :dh/any}", {}, True),
        ("{:op :transact}", "{:dh/any true}", {}, True),
    ],
)  # fmt: skip
def test_answers(step, want, ok, same):
    assert (differs(step, want, ok) is None) is same


@pytest.mark.parametrize(
    ("op", "type_", "error", "same"),
    [
        ("transact", ":transact/cas", TransactCas("x"), True),
        ("transact", ":transact/unique", TransactCas("x"), False),
        ("pull", ":transact/schema", QueryWhere("x"), True),
        ("q", ":query/where", QueryWhere("x"), True),
        ("q", ":query/where", WhereParse("x"), False),
        ("q", ":parser/query", WhereParse("x"), True),
        ("q", ":parser/query", QueryWhere("x"), False),
        ("q", "nil", QueryWhere("x"), True),
        ("transact", ":entity-id/missing", TransactCas("x"), True),
        ("transact", ":lookup-ref/unique", EntityIdMissing("x"), True),
    ],
)
def test_errors_compare_by_type_where_types_are_fixed(op, type_, error, same):
    want = f'{{:error {{:type {type_} :message "m"}}}}'
    assert (differs(f"{{:op :{op}}}", want, error=error) is None) is same


def test_a_crash_is_a_failure_even_where_anything_goes():
    assert differs("{:op :q}", "{:dh/any true}", crash=ValueError("x")) == "crashed"


def test_success_and_failure_must_agree():
    assert differs("{:op :q}", "{:ok 1}", error=QueryWhere("x")) is not None
    assert differs("{:op :q}", "{:error {:type nil}}", ok=1) is not None


def test_commits_are_mapped_one_to_one():
    comparison = Comparison()
    one, two = UUID(int=1), UUID(int=2)
    want = "{:ok {:commit :c1}}"
    assert differs("{:op :transact}", want, {K("commit"): one}, comparison=comparison) is None
    assert differs("{:op :transact}", want, {K("commit"): one}, comparison=comparison) is None
    assert differs("{:op :transact}", want, {K("commit"): two}, comparison=comparison) is not None
    other = "{:ok {:commit :c2}}"
    assert differs("{:op :transact}", other, {K("commit"): one}, comparison=comparison) is not None
    assert differs("{:op :commit-id}", "{:ok :c2}", two, comparison=comparison) is None
    assert differs("{:op :parents}", "{:ok #{:c1 :c2}}", {one, two}, comparison=comparison) is None


def test_history_is_a_set_of_rows_and_binds_unseen_commits():
    want = "{:ok [{:commit :c1 :parents #{:c0} :max-tx 536870913} {:commit :c0 :parents #{}}]}"
    one, two = UUID(int=1), UUID(int=2)
    got = [
        {K("commit"): one, K("parents"): set(), K("max-tx"): TX_BASE},
        {K("commit"): two, K("parents"): {one}, K("max-tx"): TX_BASE + 1},
    ]
    comparison = Comparison()
    assert differs("{:op :history}", want, got, comparison=comparison) is None
    assert comparison.labels == {K("c0"): one, K("c1"): two}


def test_a_full_report_keeps_order_between_entities_and_replacements():
    want = "{:ok {:tx-data [[9 :i 0 9 true] [1 :a 1 9 false] [1 :a 2 9 true] [1 :b 3 9 true]]}}"
    rows = read(want)[K("ok")][K("tx-data")]

    def same(order):
        return differs("{:op :transact}", want, {K("tx-data"): [rows[n] for n in order]}) is None

    assert same([0, 1, 2, 3])
    assert same([0, 1, 3, 2])
    assert not same([0, 2, 1, 3])
    assert not same([1, 2, 3, 0])


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("[:find ?a ?b :where [?a]]", "relation"),
        ("[:find ?a . :where [?a]]", "scalar"),
        ("[:find [?a ...] :where [?a]]", "collection"),
        ("[:find [?a ?b] :where [?a]]", "tuple"),
        ("[:find (pull ?e [*]) :where [?e]]", "relation"),
        ("{:find [[?x ...]]}", "collection"),
        ("{:find [?x .]}", "scalar"),
        ('"[:find ?a . :where [?a]]"', "scalar"),
        ('"[:find"', "relation"),
    ],
)
def test_the_kind_of_a_find_clause(query, kind):
    assert find_kind(read(query)) == kind


def test_steps_are_resolved():
    scenario = Scenario(None, Clock(), "s1")
    scenario.labelled[K("t")] = Outcome(ok={K("tempids"): {"bob": 7}, K("rows"): {(1, 2)}})
    step = read("""
        {:tx-data [536870914 5 #dh/ref [:t :tempids "bob"] #dh/bytes "00"]
         :query "[:find ?e :where [?e _ _ 536870915]]" :rows #dh/ref [:t :rows]}
    """)
    assert scenario._resolve(step, None) == {
        K("tx-data"): [TX_BASE + 2, 5, 7, b"\x00"],
        K("query"): f"[:find ?e :where [?e _ _ {TX_BASE + 3}]]",
        K("rows"): [[1, 2]],
    }


def test_transaction_numbers_follow_the_line_of_a_branch():
    scenario = Scenario(None, Clock(), "s1")
    line = [TX_BASE + 1, TX_BASE + 2**32 + 1]
    assert scenario._tx(536870914, line) == TX_BASE + 2**32 + 1
    assert scenario._tx(536870916, line) == TX_BASE + 2**32 + 3
    assert scenario._tx(536870912, line) == TX_BASE

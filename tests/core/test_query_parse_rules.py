"""Rules: how they are read, and which are refused before a query runs."""

from __future__ import annotations

import pytest

from natalog.core.errors import EdnSyntax, RuleParse
from natalog.core.query.ast import Pattern, RuleCall, Var
from natalog.core.query.builtin_rules import builtin_rules, with_builtins
from natalog.core.query.parse import parse_query
from natalog.core.query.parse_rules import check_rules, parse_rules
from natalog.core.values import kw

ANCESTOR = """[[(ancestor ?c ?a) [?c :parent ?a]]
               [(ancestor ?c ?a) [?c :parent ?p] (ancestor ?p ?a)]]"""


def check(rules: str, where: str) -> None:
    query = parse_query(f"[:find ?x :in $ % ?x :where {where}]")
    check_rules(with_builtins(parse_rules(rules)), query.where, ["$"])


def test_bodies_are_grouped_by_name() -> None:
    rules = parse_rules(ANCESTOR)
    assert [body.params for body in rules["ancestor"]] == [(Var("?c"), Var("?a"))] * 2
    assert rules["ancestor"][1].clauses[1] == RuleCall("$", "ancestor", (Var("?p"), Var("?a")))


def test_required_variables_come_first() -> None:
    (rule,) = parse_rules("[[(older [?a] ?b) [?a :age ?x] [?b :age ?y] [(> ?y ?x)]]]")["older"]
    assert (rule.required, rule.free) == ((Var("?a"),), (Var("?b"),))


def test_no_rules_at_all() -> None:
    assert parse_rules([]) == {}


def test_clauses_of_a_body_may_be_joined_with_and() -> None:
    (rule,) = parse_rules("[[(r ?x) (and [?x :a])]]")["r"]
    assert rule.clauses == (Pattern("$", (Var("?x"), rule.clauses[0].terms[1])),)
    assert rule.clauses[0].terms[1].value is kw("a")


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "[5]",
        "[[]]",
        "[[(r ?x)]]",
        "[[r [?x :a]]]",
        "[[(r) [?x :a]]]",
        "[[(r 5) [?x :a]]]",
        "[[(r ?x ?x) [?x :a]]]",
        "[[(r [?x] ?x) [?x :a]]]",
        "[[(r ?x ?y) [?x :a]]]",
        "[[(not ?x) [?x :a]]]",
        "[[(or ?x) [?x :a]]]",
        "[[(?r ?x) [?x :a]]]",
        "[[(:r ?x) [?x :a]]]",
        "[[(r ?x) [?x :a]] [(r ?x ?y) [?x :a ?y]]]",
        "[[(r ?x ?y) [?x :a ?y]] [(r [?x] ?y) [?x :a ?y]]]",
    ],
)
def test_malformed_rules_are_refused(text: str) -> None:
    with pytest.raises(RuleParse):
        parse_rules(text)


def test_unreadable_text_is_a_syntax_error() -> None:
    with pytest.raises(EdnSyntax):
        parse_rules("[[(r ?x) [?x")


class TestChecks:
    def test_what_may_run(self) -> None:
        check(ANCESTOR, "(ancestor ?x _)")
        check("[[(r ?x) [?x :a] (not (s ?x))] [(s ?x) [?x :b]]]", "(r ?x)")
        check("[]", "[?x :a]")

    def test_an_unknown_rule_is_refused(self) -> None:
        with pytest.raises(RuleParse, match="no rule"):
            check(ANCESTOR, "(descendant ?x _)")
        with pytest.raises(RuleParse, match="no rule"):
            check("[[(r ?x) (s ?x)]]", "(r ?x)")
        with pytest.raises(RuleParse, match="no rule"):
            check("[]", "(not [?x :a] (or (s ?x) [?x :b]))")

    def test_rules_that_are_not_called_may_be_incomplete(self) -> None:
        check("[[(r ?x) (s ?x)]]", "[?x :a]")

    def test_a_wrong_number_of_arguments_is_refused(self) -> None:
        for call in ("(ancestor ?x)", "(ancestor ?x ?x ?x)"):
            with pytest.raises(RuleParse, match="arguments"):
                check(ANCESTOR, call)
        with pytest.raises(RuleParse, match="arguments"):
            check("[[(r ?x) (r ?x ?x)]]", "(r ?x)")

    @pytest.mark.parametrize(
        "rules",
        [
            "[[(r ?x) [?x :a] (not (r ?x))]]",
            "[[(r ?x) [?x :a] (not (s ?x))] [(s ?x) [?x :b] (r ?x)]]",
            "[[(r ?x) (s ?x)] [(s ?x) [?x :b] (not-join [?x] [?x :c] (t ?x))] [(t ?x) (r ?x)]]",
            "[[(r ?x) [?x :a] (or (not (r ?x)) [?x :b])]]",
        ],
    )
    def test_a_rule_that_depends_on_its_own_negation_is_refused(self, rules: str) -> None:
        with pytest.raises(RuleParse, match="negation"):
            check(rules, "(r ?x)")

    def test_a_body_names_only_sources_of_the_query(self) -> None:
        with pytest.raises(RuleParse, match="sources"):
            check("[[(r ?x) [$2 ?x :a]]]", "(r ?x)")


def test_built_in_rules_can_be_called_and_redefined() -> None:
    assert len(builtin_rules()) == 19
    check("[]", "(valid-at ?x ?x) (interval-meets? ?x ?x ?x ?x)")
    own = with_builtins(parse_rules("[[(valid-at ?x) [?x :a]]]"))
    assert len(own["valid-at"][0].params) == 1

"""What the query parser accepts, what it makes of it, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from natalog.core.edn import read
from natalog.core.errors import (
    BindingParse,
    EdnSyntax,
    FindParse,
    LimitExceeded,
    QueryParse,
    QueryWhere,
    ReturnParse,
    RuleParse,
    WhereParse,
)
from natalog.core.query.ast import (
    BindColl,
    BindIgnore,
    BindScalar,
    BindTuple,
    Blank,
    Call,
    Const,
    FindAggregate,
    FindPull,
    FindVar,
    InBinding,
    InRules,
    InSource,
    Not,
    Or,
    OrderKey,
    Pattern,
    RuleCall,
    Src,
    Var,
)
from natalog.core.query.parse import parse_query
from natalog.core.query.parse_options import with_options
from natalog.core.values import FrozenMap, Keyword, Symbol, kw


def where(text: str) -> Any:
    """The clauses of ``text``, with every variable it may need declared."""
    return parse_query(f"[:find ?x :in $ $2 % ?x :where {text}]").where


class TestForms:
    def test_text_vector_and_map_mean_the_same(self) -> None:
        text = "[:find ?n ?a :in $ ?min :where [?e :name ?n] [?e :age ?a] [(>= ?a ?min)]]"
        asked = parse_query(text)
        in_map = "{:find [?n ?a] :in [$ ?min] :where [[?e :name ?n] [?e :age ?a] [(>= ?a ?min)]]}"
        assert parse_query(read(text)) == asked
        assert parse_query(in_map) == asked
        with_strings = {
            key.text: value for key, value in read(in_map).items() if isinstance(key, Keyword)
        }
        assert parse_query(with_strings) == asked

    def test_equal_text_is_parsed_once(self) -> None:
        text = "[:find ?e :where [?e :name]]"
        assert parse_query(text) is parse_query(text)

    def test_constants_that_python_calls_equal_stay_apart(self) -> None:
        queries = {
            parse_query([kw("find"), Symbol("?e"), kw("where"), [Symbol("?e"), kw("a"), value]])
            for value in (1, 1.0, True)
        }
        assert len(queries) == 3

    def test_without_in_the_only_input_is_the_database(self) -> None:
        assert parse_query("[:find ?e :where [?e :name]]").inputs == (InSource("$"),)

    @pytest.mark.parametrize(
        "form", ["5", ":find", "nil", "[]", "{}", "[?e :where [?e :name]]", "{:where [[?e :a]]}"]
    )
    def test_what_is_no_query_is_refused(self, form: str) -> None:
        with pytest.raises(QueryParse):
            parse_query(form)

    def test_unreadable_text_is_a_syntax_error(self) -> None:
        with pytest.raises(EdnSyntax):
            parse_query("[:find ?e :where [?e")

    @pytest.mark.parametrize(
        "text",
        [
            "[:find ?e :were [?e :name]]",
            "{:find [?e] :where [[?e :name]] :wher []}",
            "[:find ?e :where [?e :name] :find ?e]",
            "{:find [?e] 5 [[?e :name]]}",
        ],
    )
    def test_unknown_and_repeated_parts_are_refused(self, text: str) -> None:
        with pytest.raises(QueryParse):
            parse_query(text)


class TestFind:
    @pytest.mark.parametrize(
        ("find", "kind", "width"),
        [
            ("?a ?b", "relation", 2),
            ("?a", "relation", 1),
            ("[?a ...]", "collection", 1),
            ("[?a ?b]", "tuple", 2),
            ("[?a]", "tuple", 1),
            ("?a .", "scalar", 1),
            ("(count ?a) .", "scalar", 1),
            ("[(count ?a) ...]", "collection", 1),
            ("(count ?a)", "relation", 1),
        ],
    )
    def test_kinds(self, find: str, kind: str, width: int) -> None:
        query = parse_query(f"[:find {find} :where [?a :x ?b]]")
        assert (query.kind, len(query.find)) == (kind, width)

    def test_find_in_a_map(self) -> None:
        def kind(find: str) -> str:
            return parse_query(f"{{:find {find} :where [[?x :a ?y]]}}").kind

        assert kind("[?x .]") == "scalar"
        assert kind("[[?x ...]]") == "collection"
        assert kind("[[?x ?y]]") == "tuple"
        assert kind("[?x ?y]") == "relation"
        assert kind("(pull ?x [*])") == "relation"

    def test_aggregates_and_pulls(self) -> None:
        query = parse_query(
            "[:find ?a (min 2 ?b) (my.own/agg ?b) (aggregate other ?n ?b) (pull $p ?a [:x]) "
            "(pull ?a ?pattern) :in $ $p ?n ?pattern :where [?a :x ?b]]"
        )
        assert query.find == (
            FindVar(Var("?a")),
            FindAggregate("min", (Const(2),), Var("?b")),
            FindAggregate("my.own/agg", (), Var("?b")),
            FindAggregate("other", (Var("?n"),), Var("?b")),
            FindPull("$p", Var("?a"), Const((kw("x"),))),
            FindPull("$", Var("?a"), Var("?pattern")),
        )

    @pytest.mark.parametrize(
        "find", ["5", '"a"', ":k", "?a :k", "(count)", "(count 5)", "(pull ?a)", "_", "[?a 1]"]
    )
    def test_constants_and_malformed_elements_are_refused(self, find: str) -> None:
        with pytest.raises(FindParse):
            parse_query(f"[:find {find} :where [?a :x]]")

    def test_a_variable_may_be_found_twice(self) -> None:
        assert len(parse_query("[:find ?a ?a :where [?a :x]]").find) == 2

    @pytest.mark.parametrize(
        "text",
        [
            "[:find ?z :where [?e :a]]",
            "[:find ?e :with ?z :where [?e :a]]",
            "[:find ?e (pull ?e ?p) :where [?e :a]]",
            "[:find (min ?n ?e) :where [?e :a]]",
            "[:find ?v :where [?e :a] (or-join [?e] [?e :a ?v])]",
            "[:find ?v :where [?e :a] (not-join [?e] [?e :a ?v])]",
        ],
    )
    def test_variables_that_nothing_mentions_are_refused(self, text: str) -> None:
        with pytest.raises(QueryParse, match="neither"):
            parse_query(text)

    def test_find_and_with_share_no_variable(self) -> None:
        with pytest.raises(QueryParse, match="both"):
            parse_query("[:find ?e :with ?e :where [?e :a]]")

    def test_with_lists_distinct_variables(self) -> None:
        assert parse_query("[:find ?a :with ?e :where [?e :a ?a]]").with_vars == (Var("?e"),)
        for bad in ("?e ?e", "5", "[?e]", ""):
            with pytest.raises(QueryParse):
                parse_query(f"[:find ?a :with {bad} :where [?e :a ?a]]")


class TestReturnMaps:
    def test_keys_strs_and_syms(self) -> None:
        def keys(option: str) -> Any:
            found = parse_query(f"[:find ?a ?b {option} :where [?a :x ?b]]").return_map
            assert found is not None
            return found.keys

        assert keys(":keys one :two") == (kw("one"), kw("two"))
        assert keys(":strs one two") == ("one", "two")
        assert keys(":syms one two") == (Symbol("one"), Symbol("two"))

    def test_a_tuple_becomes_one_map(self) -> None:
        assert parse_query("[:find [?a ?b] :keys a b :where [?a :x ?b]]").return_map is not None

    @pytest.mark.parametrize(
        "text",
        [
            "[:find ?a :keys a b :where [?a :x]]",
            "[:find ?a ?b :keys a :where [?a :x ?b]]",
            "[:find ?a :keys a :strs a :where [?a :x]]",
            "[:find [?a ...] :keys a :where [?a :x]]",
            "[:find ?a . :keys a :where [?a :x]]",
            "[:find ?a :keys 5 :where [?a :x]]",
        ],
    )
    def test_maps_that_do_not_fit_are_refused(self, text: str) -> None:
        with pytest.raises(ReturnParse):
            parse_query(text)


class TestInputs:
    def test_all_binding_forms(self) -> None:
        query = parse_query(
            "[:find ?a :in $ $two % ?a [?b ...] [?c _] [[?d ?e]] [[?f [?g ...]] ...] _]"
        )
        a, b, c, d, e, f, g = (BindScalar(Var(f"?{name}")) for name in "abcdefg")
        assert query.inputs == (
            InSource("$"),
            InSource("$two"),
            InRules(),
            InBinding(a),
            InBinding(BindColl(b)),
            InBinding(BindTuple((c, BindIgnore()))),
            InBinding(BindColl(BindTuple((d, e)))),
            InBinding(BindColl(BindTuple((f, BindColl(g))))),
            InBinding(BindIgnore()),
        )

    @pytest.mark.parametrize("form", ["?x ?x", "$ $", "% %", "?x [?x ...]", "[?x ?x]"])
    def test_a_name_declared_twice_is_refused(self, form: str) -> None:
        with pytest.raises(QueryParse, match="twice"):
            parse_query(f"[:find ?x :in {form}]")

    @pytest.mark.parametrize("form", ["5", '"x"', ":k", "[]", "[[]]", "name", ""])
    def test_malformed_bindings_are_refused(self, form: str) -> None:
        with pytest.raises(BindingParse):
            parse_query(f"[:find ?x :in {form} :where [?x :a]]")

    def test_rules_may_read_no_source(self) -> None:
        parse_query("[:find ?x :in ?x ?y :where (interval-meets? ?x ?y ?y ?x)]")

    def test_sources_must_be_declared(self) -> None:
        for text in (
            "[:find ?x :where [$2 ?x :a]]",
            "[:find ?x :in $a :where [?x :a]]",
            "[:find ?x :where ($2 not [?x :a])]",
            "[:find ?x :where [?x :a] [(missing? $2 ?x :b)]]",
            "[:find (pull $2 ?x [*]) :where [?x :a]]",
        ):
            with pytest.raises(QueryParse, match="sources"):
                parse_query(text)


class TestClauses:
    def test_patterns(self) -> None:
        x, a = Var("?x"), Const(kw("a"))
        assert where("[?x]") == (Pattern("$", (x,)),)
        assert where("[?x :a _ ?x true]") == (Pattern("$", (x, a, Blank(), x, Const(True))),)
        assert where("[$2 ?x :a]") == (Pattern("$2", (x, a)),)
        assert where('[[:k "v"] :a ?x]') == (Pattern("$", (Const((kw("k"), "v")), a, x)),)
        assert where("[?x :a {:m #{1}}]")[0].terms[2] == Const(FrozenMap({kw("m"): frozenset({1})}))

    def test_calls(self) -> None:
        x = Var("?x")
        assert where("[(< 1 ?x)]") == (Call("<", (Const(1), x), None),)
        assert where("[(get-else $ ?x :a [1]) [?x _]]") == (
            Call(
                "get-else",
                (Src("$"), x, Const(kw("a")), Const((1,))),
                BindTuple((BindScalar(x), BindIgnore())),
            ),
        )

    def test_rule_calls_take_blanks_and_constants(self) -> None:
        assert where("(r ?x _ 5)") == (RuleCall("$", "r", (Var("?x"), Blank(), Const(5))),)

    def test_a_source_is_handed_down(self) -> None:
        plain, other = Pattern("$2", (Var("?x"), Const(kw("a")))), Pattern("$", (Var("?x"),))
        assert where("($2 r ?x)") == (RuleCall("$2", "r", (Var("?x"),)),)
        assert where("($2 not [?x :a] [$ ?x])") == (Not(None, (plain, other)),)
        assert where("($2 not-join [?x] [?x :a])") == (Not((Var("?x"),), (plain,)),)
        assert where("($2 or [?x :a] (and [?x :a] [$ ?x]))") == (
            Or((), None, ((plain,), (plain, other))),
        )
        assert where("($2 or-join [?x] (not [?x :a]))") == (
            Or((), (Var("?x"),), ((Not(None, (plain,)),),)),
        )

    def test_or_join_with_required_variables(self) -> None:
        (clause,) = where("(or-join [[?x] ?y] [?x :a ?y] [?x :b ?y])")
        assert (clause.required, clause.vars) == ((Var("?x"),), (Var("?y"),))

    def test_and_joins_clauses_anywhere(self) -> None:
        assert where("(and [?x :a] [?x :b])") == where("[?x :a] [?x :b]")

    @pytest.mark.parametrize(
        "text",
        [
            "[]",
            "5",
            ":a",
            "[$]",
            "[?x :a 1 2 3 4]",
            "[?x $ 1]",
            "[(< ?x 1) ?x ?x]",
            "[(5 ?x)]",
            "(r)",
            "(r $)",
            "(not)",
            "(not [_ :a])",
            "(not-join [] [?x :a])",
            "(not-join [?x])",
            "(not-join ?x [?x :a])",
            "(not-join [?x ?y] [?x :a])",
            "(or)",
            "(or [?x :a] [?y :a])",
            "(or [?x :a ?y] [?x :b])",
            "(or [(= ?x 1)] [?y :b])",
            "(or-join [?x])",
            "(and)",
            "[(+ ?x _) ?y]",
        ],
    )
    def test_malformed_clauses_are_refused(self, text: str) -> None:
        with pytest.raises(WhereParse):
            where(text)

    @pytest.mark.parametrize("names", ["[]", "?x", "[5]", "[?x ?x]", "[[?x] ?x]"])
    def test_malformed_rule_variables_are_refused(self, names: str) -> None:
        with pytest.raises(RuleParse):
            where(f"(or-join {names} [?x :a])")

    def test_a_call_is_no_argument(self) -> None:
        with pytest.raises(QueryWhere):
            where("[(+ (inc ?x) 1) ?y]")

    def test_a_variable_names_no_function(self) -> None:
        with pytest.raises(QueryWhere):
            where("[(?x 1)]")

    def test_nesting_is_limited(self) -> None:
        with pytest.raises(WhereParse, match="nest"):
            where("(not " * 70 + "[?x :a]" + ")" * 70)
        with pytest.raises(LimitExceeded, match="nest"):
            where("(not " * 200 + "[?x :a]" + ")" * 200)

    def test_rules_need_the_rules_input(self) -> None:
        with pytest.raises(QueryParse, match="%"):
            parse_query("[:find ?x :where (r ?x)]")
        parse_query("[:find ?x :in $ ?at :where [_ :a _ ?x] (valid-at ?x ?at)]")


class TestOptions:
    RELATION = parse_query("[:find ?n (count ?e) :where [?e :name ?n]]")

    def test_order_by(self) -> None:
        def keys(form: str) -> Any:
            return with_options(self.RELATION, order_by=read(form)).order_by

        assert keys("?n") == (OrderKey(0, False),)
        assert keys("1") == (OrderKey(1, False),)
        assert keys("[?n :desc 1]") == (OrderKey(0, True), OrderKey(1, False))
        assert keys("[1 :asc ?n :desc]") == (OrderKey(1, False), OrderKey(0, True))
        assert keys("[]") is None

    @pytest.mark.parametrize(
        "form",
        ["?z", "?e", "[2]", "[-1]", "[:asc]", "[?n :up]", '"?n"', '["?n"]', ":desc", "true",
         "[?n :asc :desc]"],
    )  # fmt: skip
    def test_order_by_that_names_no_column_is_refused(self, form: str) -> None:
        with pytest.raises(ReturnParse):
            with_options(self.RELATION, order_by=read(form))

    def test_order_by_needs_rows(self) -> None:
        for find in ("[?n ...]", "?n .", "[?n ?e]"):
            query = parse_query(f"[:find {find} :where [?e :name ?n]]")
            with pytest.raises(ReturnParse):
                with_options(query, order_by=[Symbol("?n")])

    def test_limits_and_offsets(self) -> None:
        assert with_options(self.RELATION, limit=5, offset=2).limit == 5
        assert with_options(self.RELATION, limit=0).limit == 0
        assert with_options(self.RELATION, limit=-1, offset=-3).limit is None
        assert with_options(self.RELATION, limit=None) is self.RELATION
        for bad in (1.5, "3", True):
            with pytest.raises(ReturnParse):
                with_options(self.RELATION, limit=bad)

    def test_a_single_answer_takes_no_limit(self) -> None:
        for find in ("?n .", "[?n ?e]"):
            query = parse_query(f"[:find {find} :where [?e :name ?n]]")
            for option in ({"limit": 1}, {"offset": 1}):
                with pytest.raises(ReturnParse):
                    with_options(query, **option)
            assert with_options(query, limit=-1, offset=0) == query

    def test_a_map_holds_options_a_vector_does_not(self) -> None:
        query = parse_query("{:find [?e] :where [[?e :a]] :limit 3 :offset 1 :order-by [?e :desc]}")
        assert (query.limit, query.offset, query.order_by) == (3, 1, (OrderKey(0, True),))
        assert with_options(query, limit=7).limit == 7
        for option in (":limit 2", ":offset 1", ":order-by ?e"):
            with pytest.raises(QueryParse, match="option"):
                parse_query(f"[:find ?e :where [?e :a] {option}]")

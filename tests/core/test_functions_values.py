"""Order, strings, collections and logic in queries."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest

from natalog.core.errors import LimitExceeded, QueryFunction, QueryLimit
from natalog.core.limits import REGEX_LENGTH_MAX
from natalog.core.query.functions import FUNCTIONS
from natalog.core.query.mismatch import TypeMismatch
from natalog.core.registry import Registry
from natalog.core.values import (
    EdnList,
    FrozenMap,
    Keyword,
    Regex,
    Symbol,
    kw,
    make_set,
    same_value,
)


def call(name: str, *args: Any) -> Any:
    builtin = FUNCTIONS[name]
    assert builtin.accepts(len(args)), name
    return builtin.call(*args)


def at(day: int) -> datetime:
    return datetime(2024, 5, day, tzinfo=UTC)


class TestOrder:
    @pytest.mark.parametrize(
        ("small", "large"),
        [
            ("A", "a"),
            ("", "a"),
            ("z", "é"),
            ("\U0001f600", "\uffff"),
            (kw("z"), kw("a/a")),
            (kw("a/x"), kw("b/a")),
            (False, True),
            (at(1), at(2)),
            (UUID(int=1), UUID(int=2)),
            ((2,), (1, 1)),
            ((1, "a"), (1, "b")),
            (1, Decimal("1.5")),
            (Symbol("a"), Symbol("b")),
        ],
    )
    def test_within_a_class(self, small: Any, large: Any) -> None:
        assert call("<", small, large)
        assert not call("<", large, small)
        assert call("<=", small, small)
        assert call(">", large, small)
        assert call(">=", large, large)
        assert not call(">", small, small)
        assert call("compare", small, large) < 0 < call("compare", large, small)
        assert call("min", (large, small)) is small
        assert call("max", (small, large)) is large

    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ("a", 5),
            (5, "a"),
            (5, True),
            (kw("a"), "a"),
            (at(1), 5),
            (None, 5),
            (5, None),
            ((1, 2), 1),
            ((1, "a"), (1, 2)),
            (frozenset({1}), frozenset({2})),
        ],
    )
    def test_between_classes_there_is_none(self, left: Any, right: Any) -> None:
        for name in ("<", "<=", ">", ">=", "before?", "after?"):
            with pytest.raises(TypeMismatch):
                call(name, left, right)

    def test_comparisons_chain(self) -> None:
        assert call("<", 1, 2, 3) and not call("<", 1, 3, 2)
        assert call("<=", 1, 1, 2) and call(">", 3, 2, 1)
        assert call("<", 1) and call("=", 1)
        assert call("=", 2, 2, 2) and not call("=", 2, 2, 3)
        assert call("not=", 2, 2, 3) and not call("not=", 2, 2)
        with pytest.raises(TypeMismatch):
            call("<", 2, 1, "a")

    def test_before_and_after(self) -> None:
        assert call("before?", at(1), at(2)) and call("after?", at(2), at(1))

    def test_compare_counts_as_java_does(self) -> None:
        assert call("compare", "a", "c") == -2
        assert call("compare", "abc", "a") == 2
        assert call("compare", kw("a"), kw("d")) == -3
        assert call("compare", kw("a"), kw("a/b")) == -1
        assert call("compare", None, 1) == -1
        assert call("compare", None, None) == 0
        assert call("compare", 10, 1) == 1
        with pytest.raises(TypeMismatch):
            call("compare", 1, "a")

    def test_min_and_max_of_collections(self) -> None:
        assert call("max", (3, 1, 2)) == 3
        assert call("min", 2, (3, 1, 2)) == (1, 2)
        assert call("max", 2, (3, 1, 2)) == (2, 3)
        assert call("max", 5, (1,)) == (1,)
        assert call("min", ()) is None
        for bad in ((1, "a"), ("a", 1)):
            with pytest.raises(TypeMismatch):
                call("min", bad)
        with pytest.raises(TypeMismatch):
            call("max", 3, 5)

    def test_differ(self) -> None:
        assert call("-differ?", 1, 2, 1, 3)
        assert not call("-differ?", 1, 2, 1, 2)


class TestPrinting:
    @pytest.mark.parametrize(
        ("value", "as_str", "printed"),
        [
            (None, "", "nil"),
            (True, "true", "true"),
            (12, "12", "12"),
            (2**63, "9223372036854775808", "9223372036854775808N"),
            (1.0, "1.0", "1.0"),
            (1e10, "1.0E10", "1.0E10"),
            (1.25e-5, "1.25E-5", "1.25E-5"),
            (9999999.0, "9999999.0", "9999999.0"),
            (float("nan"), "NaN", "##NaN"),
            (float("-inf"), "-Infinity", "##-Inf"),
            (Decimal("1.50"), "1.50", "1.50M"),
            (Fraction(7, 2), "7/2", "7/2"),
            (kw("a/b"), ":a/b", ":a/b"),
            (Symbol("s"), "s", "s"),
            ('a"b\n', 'a"b\n', '"a\\"b\\n"'),
            (UUID(int=0), str(UUID(int=0)), f'#uuid "{UUID(int=0)}"'),
            ((1, "a"), '[1 "a"]', '[1 "a"]'),
            (EdnList((1, (2,))), "(1 [2])", "(1 [2])"),
            (frozenset({2, 1}), "#{1 2}", "#{1 2}"),
            (FrozenMap({kw("b"): 1, kw("a"): None}), "{:a nil, :b 1}", "{:a nil, :b 1}"),
            (Regex("a+"), "a+", '#"a+"'),
            (at(1), "2024-05-01T00:00:00.000-00:00", '#inst "2024-05-01T00:00:00.000-00:00"'),
        ],
    )
    def test_as_clojure_does(self, value: Any, as_str: str, printed: str) -> None:
        assert call("str", value) == as_str
        assert call("pr-str", value) == printed

    def test_of_several_values(self) -> None:
        assert call("str", "a", "-", 1, kw("k"), None) == "a-1:k"
        assert call("str") == ""
        assert call("pr-str", 1, "a") == '1 "a"'
        assert call("print-str", 1, "a", ("b",)) == "1 a [b]"
        assert call("prn-str", "a") == '"a"\n'
        assert call("println-str", "a") == "a\n"

    def test_depth_is_limited(self) -> None:
        deep: Any = ()
        for _ in range(500):
            deep = (deep,)
        with pytest.raises(LimitExceeded):
            call("pr-str", deep)


class TestStrings:
    def test_subs(self) -> None:
        assert call("subs", "žluť", 2, 4) == "uť"
        assert call("subs", "ab", 2) == ""
        for args in (("ab", 3), ("abc", 1, 5), ("abc", 2, 1), ("abc", -1)):
            with pytest.raises(QueryFunction):
                call("subs", *args)
        for args in ((5, 1), ("a", "1"), ("a", 0, 1.0)):
            with pytest.raises(TypeMismatch):
                call("subs", *args)

    def test_positions_count_utf16_units(self) -> None:
        assert call("count", "a😀") == 3
        assert call("subs", "a😀b", 3) == "b"
        with pytest.raises(QueryFunction, match="cuts"):
            call("subs", "a😀b", 2)

    def test_names(self) -> None:
        assert call("name", kw("a/b")) == "b"
        assert call("name", "plain") == "plain"
        assert call("name", Symbol("x/y")) == "y"
        assert call("namespace", kw("a/b")) == "a"
        assert call("namespace", kw("b")) is None
        for name, value in (("name", 5), ("namespace", "a"), ("name", None)):
            with pytest.raises(TypeMismatch):
                call(name, value)

    def test_regular_expressions(self) -> None:
        assert call("re-find", Regex("l+"), "hello") == "ll"
        assert call("re-find", "l+", "hello") == "ll"
        assert call("re-find", Regex("(h)(x)?"), "hello") == ("h", "h", None)
        assert call("re-find", Regex("z"), "hello") is None
        assert call("re-matches", Regex("h.*o"), "hello") == "hello"
        assert call("re-matches", Regex("ell"), "hello") is None
        assert call("re-seq", Regex("[el]"), "hello") == ("e", "l", "l")
        assert call("re-seq", Regex("z"), "hello") is None
        assert call("re-find", Regex("(?i)HELLO"), "hello") == "hello"
        assert call("re-pattern", "a+") == Regex("a+")

    def test_regular_expressions_are_bounded(self) -> None:
        for pattern in ("(", "(?=a)", "(a{900}){900}"):
            with pytest.raises(QueryFunction):
                call("re-find", Regex(pattern), "a")
        with pytest.raises(QueryLimit):
            call("re-find", Regex("a" * (REGEX_LENGTH_MAX + 1)), "a")
        # exponential for an engine that backtracks
        assert call("re-matches", Regex("(a*)*b"), "a" * 5000) is None

    def test_regular_expressions_need_strings(self) -> None:
        for args in ((Regex("a"), 5), (5, "a"), (Regex("a"), None)):
            with pytest.raises(TypeMismatch):
                call("re-find", *args)


class TestCollections:
    def test_results_can_be_hashed(self) -> None:
        for value in (
            call("vector", 1, (2,)),
            call("tuple", 1, 2),
            call("list", 1, 2),
            call("set", (1, 2, 1)),
            call("set", (1, 1.0)),
            call("hash-map", 1, 2),
            call("array-map", kw("a"), (1,)),
            call("range", 3),
            call("re-seq", "a", "aa"),
        ):
            hash(value)

    def test_making_collections(self) -> None:
        assert call("vector", 1, 2) == (1, 2)
        assert call("set", (1, 2, 1)) == {1, 2}
        assert len(call("set", (1, 1.0, True))) == 3
        assert call("set", "aba") == {"a", "b"}
        assert call("set", None) == frozenset()
        assert call("hash-map", kw("a"), 1) == {kw("a"): 1}
        assert call("hash-map") == {}
        for args in ((kw("a"),), (1, 2, 3)):
            with pytest.raises(TypeMismatch):
                call("hash-map", *args)

    @pytest.mark.parametrize(
        ("value", "size"),
        [("", 0), ("four", 4), ((), 0), ((1, 2), 2), (FrozenMap({1: 2}), 1), (frozenset(), 0),
         (None, 0)],
    )  # fmt: skip
    def test_count_and_emptiness(self, value: Any, size: int) -> None:
        assert call("count", value) == size
        assert call("empty?", value) is (size == 0)
        assert call("not-empty", value) == (value if size else None)

    def test_what_is_no_collection(self) -> None:
        with pytest.raises(QueryFunction):
            call("count", 5)
        for name in ("empty?", "not-empty", "set"):
            with pytest.raises(TypeMismatch):
                call(name, 5)

    def test_contains(self) -> None:
        assert call("contains?", FrozenMap({kw("a"): 1}), kw("a"))
        assert not call("contains?", FrozenMap({kw("a"): 1}), kw("b"))
        assert call("contains?", ("p", "q"), 1) and not call("contains?", ("p", "q"), "p")
        assert call("contains?", "abc", 2) and not call("contains?", "abc", 3)
        assert call("contains?", frozenset({"a"}), "a")
        assert not call("contains?", None, 1)
        for args in ((5, 1), (EdnList((1,)), 0), ("abc", "a")):
            with pytest.raises(TypeMismatch):
                call("contains?", *args)

    def test_members_are_told_apart_by_class(self) -> None:
        one = frozenset({1})
        assert call("contains?", one, 1)
        assert not call("contains?", one, 1.0) and not call("contains?", one, True)
        assert call("contains?", make_set([1, 1.0]), 1.0)
        assert not call("contains?", FrozenMap({1: 2}), True)

    def test_logic(self) -> None:
        assert call("and") is True and call("or") is None
        assert call("and", 1, 2) == 2 and call("and", 1, False, 2) is False
        assert call("or", None, False, 0) == 0 and call("or", False, None) is None
        assert call("not", None) and call("not", False) and not call("not", 0)
        assert call("true?", True) and not call("true?", 1)
        assert call("false?", False) and not call("false?", 0)
        assert call("nil?", None) and call("some?", False)
        assert call("identical?", 1, 1) and not call("identical?", 1, 1.0)
        for name in ("identity", "ground", "untuple"):
            assert call(name, (1,)) == (1,)


def test_every_builtin_checks_its_number_of_arguments() -> None:
    for name, builtin in FUNCTIONS.items():
        assert builtin.name == name
        if builtin.min_args:
            assert not builtin.accepts(builtin.min_args - 1)
        if builtin.max_args is not None:
            assert not builtin.accepts(builtin.max_args + 1)


def test_nothing_of_the_host_is_in_the_table() -> None:
    for name in ("eval", "slurp", "load-string", "rand", "Math/abs", ".toUpperCase", "q"):
        assert name not in FUNCTIONS


def test_registered_functions_are_found_by_name_only() -> None:
    registry = Registry({"my/f": lambda x: x + 1}, {"my/sum": sum})
    found = registry.get(Symbol("my/f"))
    assert found is not None and found(1) == 2
    assert registry.get(Keyword("my/f")) is found and registry.get("my/f") is found
    assert registry.get("os.system") is None and registry.aggregate("my/sum") is sum


def test_equal_constants_share_a_place() -> None:
    assert same_value(call("vector", 1, 2), [1, 2])

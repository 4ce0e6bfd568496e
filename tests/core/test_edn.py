"""Reading and writing EDN: what is promised, form by form."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest

from natalog.core import edn
from natalog.core.errors import CodecError, EdnSyntax, LimitExceeded, NatalogError
from natalog.core.values import (
    EdnList,
    Float32,
    FrozenMap,
    Int32,
    Keyword,
    Regex,
    Symbol,
    Tagged,
    TypedSet,
    value_key,
)

K = Keyword


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nil", None),
        ("true", True),
        ("false", False),
        ("42", 42),
        ("+5", 5),
        ("-7", -7),
        ("-0", 0),
        ("5N", 5),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("1.5", 1.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-2.5E-2", -0.025),
        ("1.50M", Decimal("1.50")),
        ("3M", Decimal(3)),
        ("7/2", Fraction(7, 2)),
        ("-14/2", -7),
        ("##Inf", float("inf")),
        ("##-Inf", float("-inf")),
        ('"a\\n\\t\\r\\"\\\\ b"', 'a\n\t\r"\\ b'),
        ('"\\u00e9"', "é"),
        ('"\\ud83d\\ude00"', "😀"),
        ('"two\nlines"', "two\nlines"),
        ("\\a", "a"),
        ("\\newline", "\n"),
        ("\\space", " "),
        ("\\u0041", "A"),
        ("\\;", ";"),
        ("\\(", "("),
        (":a", K("a")),
        (":a.b/c", K("a.b/c")),
        (":+", K("+")),
        (":ns/_rev", K("ns/_rev")),
        (":/", K("/")),
        ("?x", Symbol("?x")),
        ("my.ns/f", Symbol("my.ns/f")),
        ("+", Symbol("+")),
        ("-", Symbol("-")),
        ("/", Symbol("/")),
        ("...", Symbol("...")),
        ("%", Symbol("%")),
        ("$2", Symbol("$2")),
        ("not=", Symbol("not=")),
        ("(1 2)", EdnList((1, 2))),
        ("[1 [2]]", [1, [2]]),
        ("#{1 2}", {1, 2}),
        ("{:a 1, :b {:c []}}", {K("a"): 1, K("b"): {K("c"): []}}),
        ("#:p{:a 1 :q/b 2 :_/c 3}", {K("p/a"): 1, K("q/b"): 2, K("c"): 3}),
        (
            '#uuid "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"',
            UUID(int=0xF81D4FAE7DEC11D0A76500A0C91E6BF6),
        ),
        ('#"a\\d+"', Regex("a\\d+")),
        ("#foo/bar [1]", Tagged("foo/bar", [1])),
        ('#natalog/bytes "00ff"', b"\x00\xff"),
        ("#natalog/float 1.5", Float32(1.5)),
        ("#natalog/int 5", Int32(5)),
        ("[1 #_2 #_ [3 4] #_ #_ 5 6 7]", [1, 7]),
        ("; a comment\n1 ; more", 1),
        ("\ufeff1".lstrip("\ufeff"), 1),
        (",,1,,", 1),
        ("[a,b;c\n]", [Symbol("a"), Symbol("b")]),
    ],
)
def test_reads(text, value):
    made = edn.read(text)
    assert type(made) is type(value)
    assert value_key(made) == value_key(value)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2020", "2020-01-01T00:00:00+00:00"),
        ("2020-03", "2020-03-01T00:00:00+00:00"),
        ("2020-03-04", "2020-03-04T00:00:00+00:00"),
        ("2020-03-04T05", "2020-03-04T05:00:00+00:00"),
        ("2020-03-04T05:06", "2020-03-04T05:06:00+00:00"),
        ("2020-03-04T05:06:07", "2020-03-04T05:06:07+00:00"),
        ("2020-03-04T05:06:07.8", "2020-03-04T05:06:07.800+00:00"),
        ("2020-03-04T05:06:07.123999Z", "2020-03-04T05:06:07.123+00:00"),
        ("2020-03-04T05:06:07.123-00:00", "2020-03-04T05:06:07.123+00:00"),
        ("2020-03-04T05:06:07.123+02:30", "2020-03-04T02:36:07.123+00:00"),
    ],
)
def test_instants_may_be_partial_and_are_utc_to_the_millisecond(text, iso):
    at = edn.read(f'#inst "{text}"')
    assert at == datetime.fromisoformat(iso)
    assert at.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "; only a comment",
        "1 2",
        "[1",
        "(1 2]",
        "1)",
        "#{1",
        "{:a}",
        "{:a 1 :b}",
        "{:a 1 :a 2}",
        "{1 :a 1.0 :b}",
        "#{1 1}",
        "#{[1] (1)}",
        '"open',
        '"bad \\x escape"',
        '"\\u12"',
        '#"open',
        "::a",
        ":",
        ":a/",
        "a/",
        "01",
        "1x",
        "1.2.3",
        "1/0",
        "\\",
        "\\ab",
        "#",
        "#_",
        "[#_]",
        "#foo",
        "[#foo]",
        "{#foo}",
        "##Nan",
        "#(inc %)",
        "#'var",
        "'quoted",
        "@deref",
        "^meta",
        '#inst "yesterday"',
        '#inst "2020-13-01"',
        "#inst 2020",
        '#uuid "zz"',
        '#natalog/bytes "0"',
        "#natalog/int 99999999999",
        "#:p[1]",
    ],
)
def test_refuses(text):
    with pytest.raises(EdnSyntax):
        edn.read(text)


def test_an_error_names_line_and_column():
    with pytest.raises(EdnSyntax, match=r"line 2, column 6") as caught:
        edn.read("{:a 1\n  :b ::c}")
    assert caught.value.data == {"line": 2, "column": 6}


def test_an_open_bracket_is_reported_where_it_opens():
    with pytest.raises(EdnSyntax, match=r"\{ is not closed \(line 2, column 2\)"):
        edn.read("[1\n {:a 1")


@pytest.mark.parametrize("opener", ["[", "(", "{:a ", "#{", "#tag ", "#_ ", "{[", "#{[", "{{"])
def test_depth_is_bounded_and_costs_no_recursion(opener):
    with pytest.raises(LimitExceeded):
        edn.read(opener * 100_000)


def test_the_deepest_allowed_value_reads_and_writes():
    text = "[" * 512 + "]" * 512
    assert edn.write(edn.read(text)) == text


@pytest.mark.parametrize(
    "text", ["9" * 5000, "-" + "9" * 5000 + "N", "1e9999999M", "1/" + "3" * 5000]
)
def test_numbers_without_end_are_refused(text):
    with pytest.raises(LimitExceeded):
        edn.read(text)


def test_keys_and_members_are_hashable_twins():
    made = edn.read("{[1 {:a #{2}}] #{[3]}}")
    ((key, members),) = made.items()
    assert key == (1, FrozenMap({K("a"): frozenset({2})}))
    assert members == {(3,)}


def test_a_set_keeps_members_that_python_calls_equal():
    made = edn.read("#{1 1.0 true 1M}")
    assert type(made) is TypedSet
    assert len(made) == 4


def test_read_all_reads_every_form():
    assert edn.read_all("1 [2] ; x\n :c") == [1, [2], K("c")]
    assert edn.read_all("") == []


def test_a_tag_handler_goes_before_the_built_in_one():
    made = edn.read('[#inst "2020" #my/tag 4]', {"inst": str.upper, "my/tag": lambda n: n + 1})
    assert made == ["2020", 5]


def test_a_failing_tag_handler_is_a_syntax_error():
    with pytest.raises(EdnSyntax, match="#n: "):
        edn.read('#n "x"', {"n": int})


def test_a_tag_handler_may_not_smuggle_an_unhashable_key():
    with pytest.raises(EdnSyntax):
        edn.read("{#n 1 2}", {"n": lambda n: [n]})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, 2.0, None, True], "[1 2.0 nil true]"),
        ((1, "a"), '[1 "a"]'),
        (EdnList((Symbol("f"), 1)), "(f 1)"),
        ({}, "{}"),
        (set(), "#{}"),
        (EdnList(), "()"),
        ({K("a"): [], "b": {}}, '{:a [], "b" {}}'),
        (2**63, "9223372036854775808N"),
        (-(2**63), "-9223372036854775808"),
        (1e100, "1e+100"),
        (float("nan"), "##NaN"),
        (Decimal("1.50"), "1.50M"),
        (Fraction(7, 2), "7/2"),
        (b"\x00\xff", '#natalog/bytes "00ff"'),
        (Float32(1.5), "#natalog/float 1.5"),
        (datetime(2020, 1, 2, 3, 4, 5, 678000, UTC), '#inst "2020-01-02T03:04:05.678-00:00"'),
        (Tagged("a/b", [1]), "#a/b [1]"),
        (Regex('a"b'), '#natalog/regex "a\\"b"'),
        (K("a b"), '#natalog/keyword "a b"'),
        (Symbol("nil"), '#natalog/symbol "nil"'),
        ("\x00\ud800\n", '"\\u0000\\ud800\\n"'),
    ],
)
def test_writes(value, text):
    assert edn.write(value) == text
    assert value_key(edn.read(text)) == value_key(value)


def test_ordered_writing_sorts_sets_and_maps():
    assert edn.write({K("b"): {3, 1, 2}, K("a"): 1}, ordered=True) == "{:a 1, :b #{1 2 3}}"


def test_pretty_text_reads_back():
    value = {K(f"k{n}"): [f"value number {n}"] * 5 for n in range(8)}
    text = edn.write_pretty(value)
    assert edn.read(text) == value
    assert text.splitlines()[0].startswith("{:k0 [")
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("value", [object(), datetime(2020, 1, 1), Decimal("NaN"), [lambda: 0]])
def test_what_has_no_edn_form_is_an_error(value):
    with pytest.raises(CodecError):
        edn.write(value)


def test_writing_without_end_is_refused():
    value: list = []
    value.append(value)
    with pytest.raises(LimitExceeded):
        edn.write(value)
    with pytest.raises(NatalogError):
        edn.write(10**5000)

"""Everything written reads back as the same value: EDN, msgpack, JSON where it can."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from natalog.core import codec, edn
from natalog.core.errors import CodecError, EdnSyntax, LimitExceeded
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
    make_set,
    value_key,
)

texts = st.text(max_size=12)
names = st.one_of(
    st.from_regex(r"[a-z?*+!-][a-z0-9.?*-]{0,6}(/[a-z_][a-z0-9]{0,5})?", fullmatch=True),
    st.text(min_size=1, max_size=8),
)
instants = st.datetimes(
    min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)
).map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    texts,
    names.filter(lambda text: text.lstrip(":")).map(Keyword),
    names.map(Symbol),
    st.uuids(),
    instants,
    st.decimals(allow_nan=False, allow_infinity=False),
    st.fractions().filter(lambda ratio: ratio.denominator != 1),
    st.binary(max_size=12),
    st.floats(width=32).map(Float32),
    st.integers(-(2**31), 2**31 - 1).map(Int32),
    texts.map(Regex),
)
hashable = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(EdnList),
        st.lists(inner, max_size=3).map(lambda items: frozen(make_set(items))),
    ),
    max_leaves=4,
)
tags = st.from_regex(r"[a-z]{1,5}/[a-z]{1,5}", fullmatch=True).filter(
    lambda tag: not tag.startswith("natalog/")
)
values = st.recursive(
    hashable,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(EdnList),
        st.lists(hashable, max_size=4).map(make_set),
        st.dictionaries(hashable.filter(lambda key: key == key), inner, max_size=4),
        st.builds(Tagged, tags, inner),
    ),
    max_leaves=12,
)


def frozen(items):
    return items if isinstance(items, TypedSet) else frozenset(items)


@given(values)
def test_edn_reads_what_it_writes(value):
    text = edn.write(value)
    assert value_key(edn.read(text)) == value_key(value)
    assert edn.write(edn.read(text)) == text or any(c in text for c in "#{")


@given(values)
def test_ordered_and_pretty_edn_read_back(value):
    assert value_key(edn.read(edn.write(value, ordered=True))) == value_key(value)
    assert value_key(edn.read(edn.write_pretty(value, width=20))) == value_key(value)


@given(values)
def test_msgpack_reads_what_it_writes(value):
    data = codec.pack(value)
    made = codec.unpack(data)
    assert value_key(made) == value_key(value)
    assert codec.pack(made) == data


@given(values)
def test_kinds_survive_both_forms(value):
    for made in (edn.read(edn.write(value)), codec.unpack(codec.pack(value))):
        kinds = {tuple: list, FrozenMap: dict, frozenset: set}
        assert kinds.get(type(made), type(made)) is kinds.get(type(value), type(value))


plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63),
        st.floats(allow_nan=False, allow_infinity=False),
        texts,
        st.from_regex(r":{0,3}[a-z/]{0,4}", fullmatch=True),
        st.from_regex(r"[a-z][a-z0-9]{0,5}(/[a-z]{1,5})?", fullmatch=True).map(Keyword),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(texts, st.from_regex(r":?[a-z]{1,4}", fullmatch=True)), inner, max_size=4
        ),
    ),
    max_leaves=12,
)


@given(plain)
def test_json_keeps_plain_data_keywords_and_strings(value):
    assert value_key(codec.from_json(codec.to_json(value))) == value_key(value)


@given(values)
def test_every_value_without_clashing_keys_has_json(value):
    try:
        text = codec.to_json(value)
    except CodecError as error:
        assert "two keys" in error.message
    else:
        codec.from_json(text)


@given(st.text(alphabet="()[]{}#_\"\\:;,/ ab1-+.N\n'", max_size=30))
def test_any_text_is_read_or_refused_with_a_position(text):
    try:
        edn.read_all(text)
    except EdnSyntax as error:
        assert error.data["line"] >= 1
    except LimitExceeded:
        return


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data):
    for form in (codec.unpack, codec.from_json):
        try:
            form(data)
        except (CodecError, LimitExceeded):
            continue


@given(st.decimals(allow_nan=False, allow_infinity=False), st.fractions())
def test_numbers_keep_their_class(decimal, ratio):
    assert type(edn.read(edn.write(decimal))) is Decimal
    made = edn.read(edn.write(ratio))
    assert type(made) is (int if ratio.denominator == 1 else Fraction)

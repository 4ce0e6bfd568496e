"""Arrays of numbers as values."""

from __future__ import annotations

import math
from typing import Any

import pytest

from natalog.core.codec import pack, unpack
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read, write
from natalog.core.errors import CodecError, EdnSyntax, TransactMaxLength, TransactSchema
from natalog.core.query import q
from natalog.core.transact import process
from natalog.core.values import Doubles, Floats, kw, value_key

V, W = kw("v"), kw("w")


def database(**config: Any) -> Database:
    schema = [
        {
            kw("db/ident"): kw(name),
            kw("db/valueType"): kw(f"db.type/{kind}-array"),
            kw("db/cardinality"): kw("db.cardinality/one"),
        }
        for name, kind in (("v", "double"), ("w", "float"))
    ]
    return process(Database.empty(DatabaseConfig(**config)), schema, now_ms=1).db_after


@pytest.mark.parametrize("value", [Doubles([1, 2.5]), Floats([0.1, -3]), Doubles(), Floats()])
def test_arrays_survive_text_and_bytes_with_their_class(value: Any) -> None:
    for back in (read(write(value)), unpack(pack(value))):
        assert back == value and type(back) is type(value)


def test_an_array_is_no_vector_and_no_array_of_the_other_precision() -> None:
    keys = [value_key(made([1.0])) for made in (Doubles, Floats, tuple)]
    assert len(set(keys)) == 3


def test_arrays_are_stored_compared_by_content_and_found() -> None:
    db = process(database(), [{V: Doubles([1, 2]), W: Floats([0.5])}], now_ms=2).db_after
    again = process(db, [[kw("db/add"), db.max_eid, V, Doubles([1, 2])]], now_ms=3)
    assert [d for d in again.datoms if d.a is V] == []
    found = q("[:find ?e . :in $ ?v :where [?e :v ?v]]", db, Doubles([1, 2])).python()
    assert found == db.max_eid
    assert q("[:find ?e . :in $ ?v :where [?e :v ?v]]", db, Floats([1, 2])).python() is None


def test_other_classes_are_refused_but_python_lists_are_read() -> None:
    db = database()
    for wrong in ((1.0, 2.0), "x", 1.0, Floats([1.0])):
        with pytest.raises(TransactSchema):
            process(db, [{V: wrong}], now_ms=2)
    made = process(db, [{"v": [1, 2.5], "w": [1.0]}], now_ms=2).db_after
    assert made.values(made.max_eid, V) == [Doubles([1.0, 2.5])]
    with pytest.raises(TransactMaxLength):
        process(database(max_bytes_length=2), [{V: Doubles([1, 2, 3])}], now_ms=2)


def test_single_precision_rounds_and_overflows_to_infinity() -> None:
    assert Floats([1e300, -1e300]) == (math.inf, -math.inf)
    assert Floats([0.1])[0] != 0.1


def test_malformed_arrays_are_refused() -> None:
    for text in ("#natalog/doubles 5", '#natalog/floats ["a"]', "#natalog/doubles [true]"):
        with pytest.raises(EdnSyntax):
            read(text)
    with pytest.raises(CodecError):
        unpack(b"\xc7\x03\x0eabc")

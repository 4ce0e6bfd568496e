"""Transactions written in Python or JSON terms: strings for names, strict classes for values."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.errors import TransactSchema, TransactSyntax
from natalog.core.transact import process
from natalog.core.values import Float32, Int32, Symbol, kw

TYPES = ["keyword", "symbol", "uuid", "instant", "bigdec", "bigint", "long", "double", "float",
         "boolean", "bytes", "string", "number", "ref"]  # fmt: skip


def declared(name: str, kind: str, cardinality: str = "one", **more: str) -> dict[str, Any]:
    return {
        "db/ident": f":{name}",
        "db/valueType": f":db.type/{kind}",
        ":db/cardinality": f":db.cardinality/{cardinality}",
    } | {f"db/{key}": value for key, value in more.items()}


SCHEMA = [
    *[declared(kind, kind) for kind in TYPES],
    declared("name", "string", unique=":db.unique/identity", doc="how one is called"),
    declared("tags", "keyword", "many"),
    declared("friends", "ref", "many"),
]
DB = process(Database.empty(), SCHEMA, now_ms=0).db_after
DAY = datetime(2024, 5, 1, tzinfo=UTC)


def stored(attribute: Any, value: Any) -> Any:
    report = process(DB, [{"db/id": 50, attribute: value}], now_ms=0)
    name = attribute if not isinstance(attribute, str) else kw(attribute)
    return report.db_after.values(50, name)[0]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("keyword", ":male", kw("male")),
        ("symbol", "my/f", Symbol("my/f")),
        ("uuid", "00000000-0000-0000-0000-0000000000ff", UUID(int=255)),
        ("instant", "2024-05-01T00:00:00Z", DAY),
        ("instant", "2024-05-01T02:00:00.0009+02:00", DAY),
        ("instant", "2024-05-01", DAY),
        ("bigdec", "1.50", Decimal("1.50")),
        ("string", ":text", ":text"),
    ],
)  # fmt: skip
def test_text_becomes_the_declared_type_under_an_attribute_written_as_text(
    kind: str, text: str, value: Any
) -> None:
    for attribute in (kind, ":" + kind):
        found = stored(attribute, text)
        assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("symbol", "my/f"),
        ("uuid", "7d444840-9dc0-11d1-b245-5ffdce74fad2"),
        ("instant", "2024-05-01T00:00:00Z"),
        ("bigdec", "1.50"),
        ("keyword", "male"),
        ("keyword", ":"),
    ],
)
def test_under_a_keyword_text_is_text(kind: str, text: str) -> None:
    with pytest.raises(TransactSchema):
        stored(kw(kind), text)


def test_a_keyword_attribute_takes_its_text_form_always() -> None:
    assert stored(kw("keyword"), ":male") is kw("male")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("long", "5"), ("long", 5.0), ("long", True), ("long", 2**63), ("long", Int32(5)),
        ("double", "5.0"), ("double", 5), ("double", Decimal(5)), ("double", Float32(5)),
        ("boolean", "true"), ("boolean", 1),
        ("string", 5), ("string", kw("five")), ("string", b"x"),
        ("uuid", "no uuid"), ("instant", "soon"), ("instant", 5), ("instant", datetime(2024, 5, 1)),
        ("instant", DAY.date()), ("bigdec", "many"), ("bigdec", 1.5), ("bigdec", 2),
        ("bigint", 2.0), ("bigint", True), ("bytes", "00ff"), ("bytes", [0, 1]),
        ("number", "4"), ("number", True), ("float", 5), ("float", "5"),
        ("symbol", kw("x")), ("ref", 2.5), ("ref", True), ("keyword", {}),
    ],
)  # fmt: skip
def test_classes_are_strict(kind: str, value: Any) -> None:
    with pytest.raises(TransactSchema):
        stored(kind, value)


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        ("long", -(2**63), -(2**63)),
        ("bigint", 2**100, 2**100),
        ("bigint", Int32(5), 5),
        ("float", Float32(1.5), 1.5),
        ("float", 1.5, 1.5),
        ("number", Float32(1.5), 1.5),
        ("number", Decimal("3.75"), Decimal("3.75")),
        ("bytes", bytearray(b"ab"), b"ab"),
        ("bytes", memoryview(b"ab"), b"ab"),
        ("boolean", False, False),
        ("instant", DAY, DAY),
    ],
)
def test_values_are_stored_in_their_plain_class(kind: str, value: Any, found: Any) -> None:
    assert stored(kind, value) == found
    assert type(stored(kind, value)) is type(found)


def test_names_may_be_written_in_every_way() -> None:
    report = process(
        DB,
        [
            {"name": "Ines", ":tags": [":a", kw("b")]},
            {kw("name"): "Otto", "friends": [["name", "Ines"], (kw("name"), "Ines"), "r"]},
            {"db/id": "r", "name": "Runa", "_friends": {"db/id": ["name", "Ines"]}},
            ["db/add", ["name", "Ines"], "friends", "r"],
            [":db/add", [":name", "Ines"], ":long", 5],
            [kw("db/add"), (kw("name"), "Ines"), kw("ref"), ["name", "Otto"]],
            ["db/retract", ["name", "Ines"], "tags", ":a"],
            ("db/cas", ["name", "Ines"], "long", 5, 6),
        ],
        now_ms=0,
    )
    db = report.db_after
    ines, otto, runa = (db.entid_strict((kw("name"), n)) for n in ("Ines", "Otto", "Runa"))
    assert db.values(ines, kw("tags")) == [kw("b")]
    assert db.values(otto, kw("friends")) == [ines, runa]
    assert db.values(ines, kw("friends")) == [runa]
    assert db.values(ines, kw("ref")) == [otto]
    assert db.values(ines, kw("long")) == [6]


def test_text_idents_name_entities_where_the_operation_is_text() -> None:
    ident = DB.schema.idents[kw("name")]
    report = process(
        DB,
        [
            {"db/id": 50, "ref": ":name", "friends": [":uuid", ":long"]},
            {"db/id": ":name", "db/doc": "a"},
            ["db/add", ":long", "db/doc", "b"],
            ["db/retract", ":uuid", "db/doc"],
        ],
        now_ms=0,
    )
    assert report.db_after.values(50, kw("ref")) == [ident]
    assert report.db_after.values(ident, kw("db/doc")) == ["a"]
    assert set(report.tempids) == {kw("db/current-tx")}


def test_an_operation_in_keywords_names_its_attributes_likewise() -> None:
    with pytest.raises(TransactSchema):
        process(DB, [[kw("db/add"), 50, "long", 5]], now_ms=0)
    flexible = Database.empty(DatabaseConfig(schema_flexibility="read"))
    report = process(flexible, [[kw("db/add"), 50, "long", 5]], now_ms=0)
    assert report.db_after.values(50, kw("long")) == [5]


def test_two_texts_are_two_temporary_ids_unless_the_first_is_a_unique_attribute() -> None:
    operations = [
        {"db/id": 50, "friends": ["a", "b"]},
        {"db/id": "a", "long": 1},
        {"db/id": "b", "long": 2},
        {"db/id": 51, "friends": ["name", "Ines"]},
        {"db/id": 52, "name": "Ines"},
    ]
    report = process(DB, [*operations[4:], *operations[:4]], now_ms=0)
    assert len(report.db_after.values(50, kw("friends"))) == 2
    assert report.db_after.values(51, kw("friends")) == [52]


def test_declarations_in_strings_need_no_colons() -> None:
    report = process(
        Database.empty(),
        [
            {
                "db/ident": "a",
                "db/valueType": "db.type/long",
                "db/cardinality": "db.cardinality/one",
            },
            {
                "db/ident": "b",
                "db/valueType": "db.type/long",
                "db/cardinality": "db.cardinality/one",
            },
            {
                "db/ident": "ab",
                "db/valueType": "db.type/tuple",
                "db/cardinality": "db.cardinality/one",
                "db/tupleAttrs": ["a", "b"],
            },
            {"a": 1, "b": 2},
        ],
        now_ms=0,
    )
    assert report.db_after.values(4, kw("ab")) == [(1, 2)]
    for key in (kw("db/ident"), "keyword"):
        with pytest.raises(TransactSchema):
            process(DB, [{key: "bare"}], now_ms=0)


def test_the_members_of_a_set_get_ids_in_index_order() -> None:
    report = process(DB, [{"friends": {f"t{n}" for n in range(9)}}]
                     + [{"db/id": f"t{n}", "long": n} for n in range(9)], now_ms=0)  # fmt: skip
    assert sorted(report.tempids, key=report.tempids.__getitem__)[:9] == [f"t{n}" for n in range(9)]


def test_an_empty_name_is_no_name() -> None:
    for operation in ({"": 1}, {":": 1}, ["db/add", 50, "", 1], {None: 1}, {(1, 2): 3}):
        with pytest.raises(TransactSyntax):
            process(DB, [operation], now_ms=0)

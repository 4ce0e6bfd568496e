"""Answers as tables for other tools."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from natalog import kw, local
from natalog.rows import Rows, find_columns, rows_of

pa = pytest.importorskip("pyarrow")


def test_rows_of_a_query_have_the_names_of_its_variables_and_a_stable_order() -> None:
    db = local.create_database("rows-names", schema_flexibility="read")
    db.transact([{"name": "Bea", "age": 3}, {"name": "Al", "age": 4}])
    query = "[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]"
    rows = db.db().rows(query)
    assert rows.columns == ("n", "a")
    assert list(rows) == [("Al", 4), ("Bea", 3)] and rows[0] == ("Al", 4) and len(rows) == 2
    assert rows.to_dicts() == [{"n": "Al", "a": 4}, {"n": "Bea", "a": 3}]
    assert list(db.db().rows(query, order_by=["?a", "desc"])) == [("Al", 4), ("Bea", 3)]
    local.delete_database("rows-names")


@pytest.mark.parametrize(
    ("query", "answer", "columns", "rows"),
    [
        ("[:find [?n ...] :where [_ :name ?n]]", ["a", "b"], ("n",), [("a",), ("b",)]),
        ("[:find [?n ?a] :where [_ :name ?n]]", ("a", 1), ("n", "a"), [("a", 1)]),
        ("[:find ?n . :where [_ :name ?n]]", "a", ("n",), [("a",)]),
        ("[:find ?n . :where [_ :name ?n]]", None, ("n",), []),
        ("[:find (count ?e) :where [?e]]", [(2,)], ("(count ?e)",), [(2,)]),
        ("[:find ?n :keys who :where [_ :name ?n]]", [{kw("who"): "a"}], ("who",), [("a",)]),
    ],
)
def test_every_shape_of_answer_is_a_table(
    query: str, answer: object, columns: tuple[str, ...], rows: list[tuple[object, ...]]
) -> None:
    found = rows_of(query, answer)
    assert found.columns == columns
    assert list(found) == rows


def test_arrow_keeps_types() -> None:
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    row = (1, 1.5, True, "x", b"y", at, Decimal("1.5"), kw("a/b"), UUID(int=7), 2**70, None)
    table = Rows([f"c{n}" for n in range(len(row))], [row]).to_arrow()
    kinds = [str(kind) for kind in table.schema.types]
    assert kinds[:6] == ["int64", "double", "bool", "string", "binary", "timestamp[ms, tz=UTC]"]
    assert kinds[6].startswith("decimal128")
    assert kinds[7:10] == ["string"] * 3
    found = table.to_pylist()[0]
    assert found["c5"] == at and found["c7"] == ":a/b" and found["c9"] == str(2**70)


def test_a_column_of_several_types_is_edn() -> None:
    table = Rows(["v"], [(1,), ("x",), (True,), (None,)]).to_arrow()
    assert table.column("v").to_pylist() == ["1", "x", "true", None]


def test_an_empty_answer_is_an_empty_table() -> None:
    assert Rows(["n"], []).to_arrow().num_rows == 0


def test_odd_headings_are_numbered() -> None:
    assert find_columns("nonsense", 2) == ["column 1", "column 2"]

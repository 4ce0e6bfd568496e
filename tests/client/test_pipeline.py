"""Many transactions in flight stay in order, whatever fails on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from natalog.core.errors import Busy, TransactSyntax
from natalog.importing.pipeline import pipelined
from natalog.importing.rows import Columns, attribute_name, batches, value_kind
from natalog.report import TxReport

pytestmark = pytest.mark.asyncio


@dataclass
class Item:
    id: str
    tx_data: list[Any] = field(default_factory=list)
    tx_meta: dict[str, Any] = field(default_factory=dict)


class Target:
    """Applies transactions once by id; fails as it is told."""

    def __init__(self, failures: dict[str, list[Exception]]) -> None:
        self.failures = failures
        self.applied: list[str] = []
        self.flying = 0
        self.most = 0

    async def transact(
        self, tx_data: Any, tx_meta: Any = None, *, id: str | None = None
    ) -> TxReport:
        assert id is not None
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(0)
            planned = self.failures.get(id)
            if planned:
                raise planned.pop(0)
            repeated = id in self.applied
            if not repeated:
                self.applied.append(id)
            return TxReport(
                self.applied.index(id), None, None, [], {}, {}, id=id, repeated=repeated
            )
        finally:
            self.flying -= 1


def items(count: int) -> Iterator[Item]:
    return iter([Item(str(n)) for n in range(count)])


async def test_all_are_applied_in_order_with_many_in_flight() -> None:
    target = Target({})
    seen = [item.id async for item, _ in pipelined(target, items(500), window=32)]
    assert seen == target.applied == [str(n) for n in range(500)]
    assert 8 <= target.most <= 32 + 16


async def test_what_passes_is_sent_again_from_there_on() -> None:
    target = Target({"7": [Busy("full"), Busy("full")], "12": [Busy("full")]})
    reports = [report async for _, report in pipelined(target, items(40), window=8)]
    assert [report.id for report in reports] == [str(n) for n in range(40)]
    assert sorted(target.applied, key=int) == [str(n) for n in range(40)]


async def test_a_refusal_ends_the_import_where_it_stands() -> None:
    target = Target({"5": [TransactSyntax("no")]})
    seen = []
    with pytest.raises(TransactSyntax):
        async for item, _ in pipelined(target, items(40), window=8):
            seen.append(item.id)
    assert seen == [str(n) for n in range(5)]
    assert target.flying == 0


async def test_types_of_columns_are_inferred() -> None:
    columns = Columns(typed=False)
    columns.see({"a": "1", "b": "1", "c": "x", "d": "true"})
    columns.see({"a": "2", "b": "1.5", "c": "3", "d": "false"})
    assert columns.kinds == {"a": "long", "b": "double", "c": "string", "d": "boolean"}
    converted = columns.convert({"b": "2", "a": "7", "c": "7"})
    assert converted == {"b": 2.0, "a": 7, "c": "7"}
    assert type(converted["b"]) is float
    typed = Columns(typed=True)
    typed.see({"a": "1", "n": 1, "l": [1, 2.5], "m": {"x": 1}})
    assert typed.kinds == {"a": "string", "n": "long", "l": "double", "x": "long", "m": "ref"}
    assert typed.many == {"l"}
    assert [value_kind(v) for v in ("007", "+1", "-1.5e3", "", "1.2.3")] == [
        "string",
        "long",
        "double",
        "string",
        "string",
    ]


async def test_columns_become_attributes() -> None:
    assert attribute_name(":already/there", "p") == "already/there"
    assert attribute_name("Full Name", "p") == "p/Full-Name"
    assert attribute_name("  ", None) == "column"
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]

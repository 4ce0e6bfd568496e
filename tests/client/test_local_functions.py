"""Functions that a program registers with a database of its own process."""

from __future__ import annotations

from typing import Any

import pytest

from natalog import kw, local
from natalog.core.errors import NatalogError
from natalog.core.registry import Registry as QueryRegistry
from natalog.core.transact import Registry


def add_to(db: Any, entity: int, amount: int) -> list[Any]:
    held = db.values(entity, kw("total"))
    return [[kw("db/add"), entity, kw("total"), (held[0] if held else 0) + amount]]


def test_transactions_queries_and_pulls_call_what_was_registered() -> None:
    conn = local.Registry().create_database(
        "functions",
        schema_flexibility="read",
        functions=Registry(transaction={"shop/add-to": add_to}),
        query_functions=QueryRegistry({"shop/double": lambda number: 2 * number}),
    )
    for _ in range(2):
        conn.transact([[":db.fn/call", "shop/add-to", 7, 5], [":shop/add-to", 7, 1]])
    query = "[:find ?d . :where [7 :total ?t] [(shop/double ?t) ?d]]"
    assert conn.db().q(query) == 24
    later = conn.db().with_([["shop/add-to", 7, 3]])
    assert later.q(query) == 30
    pulled = conn.db().pull("[(:total :xform shop/double)]", 7)
    assert pulled == {kw("total"): 24}


def test_nothing_else_can_be_called() -> None:
    conn = local.Registry().create_database("plain", schema_flexibility="read")
    for call in (
        lambda: conn.transact([[":db.fn/call", "shop/add-to", 7, 5]]),
        lambda: conn.db().q("[:find ?d . :in ?x :where [(shop/double ?x) ?d]]", 1),
    ):
        with pytest.raises(NatalogError):
            call()

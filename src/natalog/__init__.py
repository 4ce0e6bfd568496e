"""Natalog: a temporal Datalog database that runs as actors on NATS.

    import natalog

    async with natalog.connect("nats://127.0.0.1:4222") as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        await conn.transact([{"name": "Alice", "age": 25}])
        db = await conn.db()
        await db.q("[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]")   # {("Alice", 25)}

`natalog.sync` has the same verbs without ``await``, `natalog.local` a database in this process.
"""

from __future__ import annotations

from natalog.client import Client, Conn, Database, Feed, Timeout, connect
from natalog.core import errors
from natalog.core.errors import NatalogError
from natalog.core.schema_conflict import SchemaConflict
from natalog.core.values import Datom, Keyword, Symbol, Tagged, kw
from natalog.report import (
    Commit,
    Diff,
    MergeReport,
    PublishAck,
    QueryAnswer,
    QueryPlan,
    QueryStats,
    Rejection,
    Transaction,
    TxReport,
)
from natalog.rows import Rows

__version__ = "0.1.0"

__all__ = [
    "Client",
    "Commit",
    "Conn",
    "Database",
    "Datom",
    "Diff",
    "Feed",
    "Keyword",
    "MergeReport",
    "NatalogError",
    "PublishAck",
    "QueryAnswer",
    "QueryPlan",
    "QueryStats",
    "Rejection",
    "Rows",
    "SchemaConflict",
    "Symbol",
    "Tagged",
    "Timeout",
    "Transaction",
    "TxReport",
    "__version__",
    "connect",
    "errors",
    "kw",
]

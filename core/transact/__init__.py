"""Transactions: `process` turns what a client wrote into a report and a new database value.

>>> from natalog.core.database import Database
>>> from natalog.core.config import DatabaseConfig
>>> db = Database.empty(DatabaseConfig(schema_flexibility="read"))
>>> report = process(db, [{"name": "Ivan", "age": 19}], now_ms=0)
>>> [(d.e, d.a, d.v) for d in report.datoms[1:]]
[(1, :name, 'Ivan'), (1, :age, 19)]
>>> report.db_after.values(1, Keyword("age"))
[19]

Operations apply one after the other, each to the state its predecessors left; the first refused
one refuses the transaction, and `db` is what it was.
"""

from __future__ import annotations

from natalog.core.changes import Changes, Purge
from natalog.core.schema_conflict import SchemaConflict
from natalog.core.transact.functions import EMPTY, Registry
from natalog.core.transact.process import next_tx, process, schema_conflicts
from natalog.core.transact.report import TxReport
from natalog.core.values import Keyword

__all__ = [
    "EMPTY",
    "Changes",
    "Keyword",
    "Purge",
    "Registry",
    "SchemaConflict",
    "TxReport",
    "next_tx",
    "process",
    "schema_conflicts",
]

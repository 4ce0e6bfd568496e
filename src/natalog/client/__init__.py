"""The asynchronous client of a Natalog service.

async with natalog.connect("nats://127.0.0.1:4222") as client:
    conn = client.database("people")
    await conn.transact([{"name": "Alice", "age": 25}])
    db = await conn.db()
    await db.q("[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]")   # {("Alice", 25)}
"""

from __future__ import annotations

from natalog.client.client import Client, Connecting, connect
from natalog.client.conn import Conn
from natalog.client.database import Database
from natalog.client.reports import Feed
from natalog.client.timeouts import Timeout

__all__ = ["Client", "Conn", "Connecting", "Database", "Feed", "Timeout", "connect"]

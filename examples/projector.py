"""Keeps a SQLite table of orders in step with the database.

The position is written in the same SQLite transaction as the rows, so that a crash neither loses
nor repeats a change.  A purge says how many facts went, never which: the table is made anew.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
from pathlib import Path

import natalog

TABLE = """
create table if not exists orders
    (entity integer primary key, number text, customer text, amount integer, state text);
create table if not exists position (tx integer not null);
"""
COLUMNS = {
    ":order/number": "number",
    ":order/customer": "customer",
    ":order/amount": "amount",
    ":order/state": "state",
}


def project(table: sqlite3.Connection, report: natalog.TxReport) -> None:
    """Apply what a transaction asserted and retracted."""
    # retractions first: a replaced value is retracted and asserted in one transaction
    for datom in sorted(report.tx_data, key=lambda datom: datom.added):
        column = COLUMNS.get(str(datom.a))
        if column is None:
            continue
        table.execute("insert or ignore into orders (entity) values (?)", (datom.e,))
        value = datom.v if isinstance(datom.v, (int, str)) else str(datom.v)
        if datom.added:
            table.execute(f"update orders set {column} = ? where entity = ?", (value, datom.e))
        else:
            table.execute(f"update orders set {column} = null where entity = ?", (datom.e,))
    table.execute("delete from orders where number is null and customer is null")


async def rebuild(table: sqlite3.Connection, db: natalog.Database) -> None:
    """Fill the table from a database value."""
    rows = await db.q(
        "[:find ?e ?n ?c ?a ?s :where [?e :order/number ?n] [?e :order/customer ?c]"
        " [?e :order/amount ?a] [?e :order/state ?s]]"
    )
    table.execute("delete from orders")
    table.executemany(
        "insert into orders values (?, ?, ?, ?, ?)", [(*row[:4], str(row[4])) for row in rows]
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--nats", default="nats://127.0.0.1:4222")
    parser.add_argument("--database", default="shop")
    parser.add_argument("--once", action="store_true", help="end when the present is reached")
    given = parser.parse_args()
    table = sqlite3.connect(given.file)
    table.executescript(TABLE)
    found = table.execute("select tx from position").fetchone()
    since = found[0] if found else 0
    async with natalog.connect(given.nats) as client:
        conn = client.database(given.database)
        head = (await conn.db()).basis
        if not (given.once and since >= head):
            async for report in conn.reports(since=since):
                with table:
                    if report.purged:
                        await rebuild(table, (await conn.db()).as_of(report.tx))
                    else:
                        project(table, report)
                    table.execute("delete from position")
                    table.execute("insert into position values (?)", (report.tx,))
                if given.once and report.tx >= head:
                    break
    for customer, count, total in table.execute(
        "select customer, count(*), sum(amount) from orders group by customer order by customer"
    ):
        print(f"{customer}: {count} orders, {total}")
    table.close()


if __name__ == "__main__":
    asyncio.run(main())

"""Hands over orders through the durable ingest; running it again adds nothing twice."""

from __future__ import annotations

import argparse
import asyncio
import random

import natalog

SCHEMA = """
[{:db/ident :order/number :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :order/customer :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/index true}
 {:db/ident :order/amount :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/ident :order/state :db/valueType :db.type/keyword :db/cardinality :db.cardinality/one}]
"""
CUSTOMERS = ("Ada", "Grace", "Edsger", "Barbara")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nats", default="nats://127.0.0.1:4222")
    parser.add_argument("--database", default="shop")
    parser.add_argument("--orders", type=int, default=100)
    given = parser.parse_args()
    chance = random.Random(7)
    async with natalog.connect(given.nats) as client:
        try:
            await client.create_database(given.database, initial_tx=SCHEMA)
        except natalog.errors.DatabaseExists:
            print(f"{given.database} is there already")
        conn = client.database(given.database)
        for number in range(1, given.orders + 1):
            order = {
                "order/number": f"A-{number:05}",
                "order/customer": chance.choice(CUSTOMERS),
                "order/amount": chance.randrange(100, 100_000),
                "order/state": ":open",
            }
            # the id makes it exactly once: the service remembers it for ever
            await conn.publish([order], id=f"order-{number}")
        # handing over needs no transactor; when one is there, it has applied them in a moment
        count = "[:find (count ?o) . :where [?o :order/number]]"
        while (await (await conn.db()).q(count) or 0) < given.orders:
            await asyncio.sleep(0.05)
        print(f"{given.orders} orders are in")


if __name__ == "__main__":
    asyncio.run(main())

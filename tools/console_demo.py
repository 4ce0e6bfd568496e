"""A database to look at: half a year in a small workshop that builds instruments.

Orders, people and materials, with changes over time, notes on every transaction, a branch on which
a plan was tried out and merged, and one that is still open.  The same every time.
"""

from __future__ import annotations

import asyncio
import random
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import natalog
from natalog import kw

NAME = "workshop"
SCHEMA = """
[{:db/ident :person/name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity :db/doc "What everybody calls them."}
 {:db/ident :person/email :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/value}
 {:db/ident :person/craft :db/valueType :db.type/keyword :db/cardinality :db.cardinality/many}
 {:db/ident :person/mentor :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
 {:db/ident :person/hours :db/valueType :db.type/long :db/cardinality :db.cardinality/one
  :db/doc "Hours a week."}
 {:db/ident :order/number :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity :db/doc "As it stands on the invoice."}
 {:db/ident :order/title :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
 {:db/ident :order/status :db/valueType :db.type/keyword :db/cardinality :db.cardinality/one
  :db/index true}
 {:db/ident :order/maker :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
 {:db/ident :order/price :db/valueType :db.type/bigdec :db/cardinality :db.cardinality/one
  :db/doc "In euros, with tax."}
 {:db/ident :order/due :db/valueType :db.type/instant :db/cardinality :db.cardinality/one}
 {:db/ident :order/wood :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
 {:db/ident :order/rush? :db/valueType :db.type/boolean :db/cardinality :db.cardinality/one}
 {:db/ident :wood/name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :wood/stock :db/valueType :db.type/double :db/cardinality :db.cardinality/one
  :db/doc "Board metres in the shed."}
 {:db/ident :audit/by :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
 {:db/ident :audit/note :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/doc "Why a transaction was made."}]
"""
PEOPLE = [
    ("Ines Duarte", "ines", ["luthier", "varnish"], None, 40),
    ("Tomek Zielinski", "tomek", ["luthier"], "Ines Duarte", 40),
    ("Maren Holm", "maren", ["bows", "repair"], None, 32),
    ("Kofi Adjei", "kofi", ["guitars", "fretwork"], "Ines Duarte", 36),
    ("Yuki Sato", "yuki", ["varnish"], "Ines Duarte", 24),
    ("Elena Rossi", "elena", ["guitars"], "Kofi Adjei", 40),
    ("Jonas Weber", "jonas", ["repair"], "Maren Holm", 20),
]
WOODS = [
    ("Alpine spruce", 42.5),
    ("Flamed maple", 31.0),
    ("Ebony", 6.25),
    ("Indian rosewood", 11.75),
    ("Pernambuco", 2.5),
    ("Western red cedar", 18.0),
]
INSTRUMENTS = [
    *("Violin after Guarneri 1742", "Cello, four-fifths", "Viola, 41 cm", "Baroque violin"),
    *("Classical guitar, cedar top", "Archtop guitar", "Octave mandolin", "Tenor ukulele"),
    *("Violin bow, silver", "Cello bow, gold", "New neck and fingerboard", "Crack repair, belly"),
    *("Set-up and new bridge", "Retouching of the varnish", "Travel guitar", "Hardanger fiddle"),
]
STATUS = ["quoted", "accepted", "in-work", "varnish", "set-up", "delivered"]
START = datetime(2026, 1, 7, 8, 30, tzinfo=UTC)


class Workshop:
    """Writes the history, one transaction at a time, on a clock of its own."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn
        self.now = START
        self.dice = random.Random(20260107)
        self.orders: dict[str, int] = {}

    async def write(self, tx_data: Any, note: str, by: str, conn: Any = None) -> Any:
        hours = self.dice.choice((0.2, 0.5, 1, 2, 5, 18, 26))
        self.now += timedelta(hours=hours, minutes=self.dice.randint(0, 50))
        meta = {"db/txInstant": self.now, "audit/note": note, "audit/by": by}
        return await (conn or self.conn).transact(tx_data, tx_meta=meta)

    async def found(self) -> None:
        for name, mail, crafts, mentor, hours in PEOPLE:
            person: dict[str, Any] = {
                "person/name": name,
                "person/email": f"{mail}@example.org",
                "person/craft": [kw(f"craft/{craft}") for craft in crafts],
                "person/hours": hours,
            }
            if mentor is not None:
                person["person/mentor"] = ["person/name", mentor]
            await self.write([person], f"{name.split()[0]} joins", "Ines Duarte")
        woods = [{"wood/name": name, "wood/stock": stock} for name, stock in WOODS]
        await self.write(woods, "Stocktaking", "Maren Holm")

    async def order(self, number: int, conn: Any = None) -> None:
        title = self.dice.choice(INSTRUMENTS)
        maker = self.dice.choice(PEOPLE)[0]
        ident = f"W-{number}"
        self.orders[ident] = 0
        await self.write(
            [
                {
                    "order/number": ident,
                    "order/title": title,
                    "order/status": kw("status/quoted"),
                    "order/maker": ["person/name", maker],
                    "order/price": str(self.dice.randrange(180, 9800, 20)) + ".00",
                    "order/due": self.now + timedelta(days=self.dice.randint(20, 160)),
                    "order/wood": [
                        ["wood/name", name]
                        for name, _ in self.dice.sample(WOODS, self.dice.randint(1, 3))
                    ],
                }
            ],
            f"Quote for {title[0].lower()}{title[1:]}",
            maker,
            conn,
        )

    async def step(self, conn: Any = None) -> None:
        """Something happens: an order moves on, changes hands or price, wood comes or goes."""
        kind = self.dice.random()
        if kind < 0.16 or not self.orders:
            wood, _ = self.dice.choice(WOODS)
            amount = round(self.dice.uniform(1, 40) * 4) / 4
            change = [{"wood/name": wood, "wood/stock": amount}]
            await self.write(change, f"{wood} counted", "Maren Holm", conn)
            return
        ident = self.dice.choice(sorted(self.orders))
        maker = self.dice.choice(PEOPLE)[0]
        ref = ["order/number", ident]
        if kind < 0.28:
            change = [{"db/id": ref, "order/maker": ["person/name", maker]}]
            await self.write(change, f"{maker.split()[0]} takes over {ident}", maker, conn)
        elif kind < 0.38:
            price = f"{self.dice.randrange(300, 12000, 10)}.50"
            await self.write(
                [{"db/id": ref, "order/price": price}],
                f"New price for {ident}",
                "Ines Duarte",
                conn,
            )
        elif kind < 0.44:
            await self.write(
                [{"db/id": ref, "order/rush?": True}], f"{ident} is in a hurry", maker, conn
            )
        elif self.orders[ident] < len(STATUS) - 1:
            self.orders[ident] += 1
            status = STATUS[self.orders[ident]]
            change = [{"db/id": ref, "order/status": kw(f"status/{status}")}]
            await self.write(change, f"{ident} is {status.replace('-', ' ')}", maker, conn)
        else:
            change = [["db/retract", ref, "order/due"]]
            await self.write(change, f"{ident} needs no date any more", "Jonas Weber", conn)


async def build(url: str, *, steps: int = 150) -> None:
    """Make the database on the service at ``url``."""
    async with natalog.connect(url) as client:
        await client.create_database(NAME)
        await client.create_database("scratch", schema_flexibility="read")
        conn = client.database(NAME)
        shop = Workshop(conn)
        await conn.transact(SCHEMA, tx_meta={"db/txInstant": START - timedelta(days=1)})
        await shop.found()
        for number in range(101, 109):
            await shop.order(number)
        for at in range(steps):
            await (shop.order(109 + at // 6) if at % 6 == 5 else shop.step())
        await conn.branch("summer-plan")
        plan = client.database(NAME, branch="summer-plan")
        for at in range(14):
            await shop.step(plan)
            if at in (4, 7, 8, 12):
                await shop.step()
        await merge(shop, conn, "summer-plan")
        for _ in range(8):
            await shop.step()
        await conn.branch("new-prices")
        prices = client.database(NAME, branch="new-prices")
        for ident in sorted(shop.orders)[:6]:
            change = [{"db/id": ["order/number", ident], "order/price": "4200.00"}]
            await shop.write(change, f"What if {ident} cost more", "Ines Duarte", prices)
        for _ in range(5):
            await shop.step()


async def merge(shop: Workshop, conn: Any, branch: str) -> None:
    """Take a branch over; where both sides decided, the plan wins."""
    shop.now += timedelta(hours=3)
    meta = {
        "db/txInstant": shop.now,
        "audit/note": f"Take {branch} over",
        "audit/by": "Ines Duarte",
    }
    await conn.merge(branch, policy="theirs", tx_meta=meta)


if __name__ == "__main__":
    asyncio.run(build(sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222"))

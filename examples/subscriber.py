"""Prints what happens in a database, from where it was when it last ran."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import natalog


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nats", default="nats://127.0.0.1:4222")
    parser.add_argument("--database", default="shop")
    parser.add_argument("--position", type=Path, default=Path("subscriber.position"))
    parser.add_argument("--once", action="store_true", help="end when the present is reached")
    given = parser.parse_args()
    async with natalog.connect(given.nats) as client:
        conn = client.database(given.database)
        head = (await conn.db()).basis
        # since=0 would replay the whole log; a kept position goes on behind it
        since = int(given.position.read_text()) if given.position.exists() else 0
        if given.once and since >= head:
            return
        async for report in conn.reports(since=since):
            facts = len(report.tx_data)
            purged = f", {report.purged} facts purged" if report.purged else ""
            print(f"{report.tx} {report.instant:%Y-%m-%d %H:%M:%S} {facts} facts{purged}")
            given.position.write_text(str(report.tx))
            if given.once and report.tx >= head:
                return


if __name__ == "__main__":
    asyncio.run(main())

"""Clients that write while things break, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import anyio

import natalog


async def holder_of(client: natalog.Client, members: list[Any]) -> Any:
    """The member that takes the transactions now."""
    js = client.session.transport.nats.jetstream()
    message = await js.get_last_msg("natalog=_=_=lease", "natalog._._.lease")
    pid = json.loads(message.data)["pid"]
    return next(member for member in members if member.alive and member.pid == pid)


class Writers:
    """Clients that write numbered facts, each its own, sending again what has no answer."""

    def __init__(self, url: str | list[str], count: int) -> None:
        self.url = url
        self.count = count
        self.acknowledged: dict[str, int] = {}
        self.sent: Counter[int] = Counter()
        self.stop = False

    async def __aenter__(self) -> Writers:
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(self.count)]
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.stop = True
        with anyio.fail_after(40):
            await asyncio.gather(*self._tasks)

    async def _write(self, writer: int) -> None:
        async with natalog.connect(self.url) as client:
            conn = client.database("people")
            while not self.stop:
                ident = f"{writer}-{self.sent[writer]}"
                report = await conn.transact([{"key": ident}], id=ident, timeout=30)
                self.acknowledged[ident] = report.tx
                self.sent[writer] += 1

    async def progress(self, more: int = 20) -> None:
        """Wait until every writer has had that many more answers."""
        goal = {writer: self.sent[writer] + more for writer in range(self.count)}
        with anyio.fail_after(40):
            while any(self.sent[writer] < goal[writer] for writer in goal):
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    async def check(self, client: natalog.Client) -> None:
        """Everything acknowledged is in the log once, under its number, in each one's order."""
        basis = max(self.acknowledged.values())
        db = await client.database("people").db()
        rows = await db.q("[:find ?k ?t :where [?e :key ?k ?t]]", timeout=20)
        assert db.basis >= basis
        stored: dict[str, int] = {}
        for key, tx in rows:
            assert key not in stored, "applied twice"
            stored[key] = tx
        assert {key: stored.get(key) for key in self.acknowledged} == self.acknowledged
        for writer in range(self.count):
            own = [stored[f"{writer}-{n}"] for n in range(self.sent[writer])]
            assert own == sorted(own), "a client's own order is kept"


async def people(client: natalog.Client) -> natalog.Conn:
    await client.create_database("people", schema_flexibility="read")
    return client.database("people")

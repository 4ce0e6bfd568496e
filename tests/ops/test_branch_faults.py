"""Branches come and go while the service and its nats-server are killed: nothing is ever half."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import anyio
import pytest

import natalog
from natalog.cli.check import check_branch

pytestmark = pytest.mark.asyncio

NAMES = [f"b{number}" for number in range(6)]
VERBS = ["transact"] * 5 + ["branch", "branch", "delete", "force", "merge", "gc", "history", "read"]
FATAL = {"Internal", "LogCorrupt"}


class Worker:
    """Does to the branches of a database whatever comes to its mind."""

    def __init__(self, number: int, acknowledged: dict[Any, tuple[str, int]]) -> None:
        self.random = random.Random(number)
        self.number = number
        self.acknowledged = acknowledged
        self.done = 0
        self.stop = False

    async def run(self, url: str) -> None:
        while not self.stop:
            with contextlib.suppress(natalog.NatalogError):
                async with natalog.connect(url) as client:
                    while not self.stop:
                        try:
                            await self.act(client)
                        except natalog.NatalogError as error:
                            assert error.code not in FATAL, (error.code, error.message)

    async def act(self, client: natalog.Client) -> None:
        main = client.database("people")
        known = sorted(await main.branches(timeout=5))
        conn = client.database("people", self.random.choice(known))
        name = self.random.choice(NAMES)
        self.done += 1
        match self.random.choice(VERBS):
            case "transact":
                value = self.number * 1_000_000 + self.done
                report = await conn.transact([{"n": value}], timeout=5)
                self.acknowledged[report.commit_id] = (conn.branch_name, value)
            case "branch":
                await main.branch(name, from_=conn.branch_name, timeout=5)
            case "delete" if conn.branch_name != "db":
                await main.delete_branch(conn.branch_name, timeout=5)
            case "force":
                db = await conn.db(timeout=5)
                await main.force_branch(name, db, parents=[conn.branch_name], timeout=5)
            case "merge":
                await main.merge([conn.branch_name], [{"merged": self.done}], timeout=5)
            case "gc":
                await main.gc(timeout=5)
            case "history":
                assert await conn.branch_history(timeout=5)
            case "read" if self.acknowledged:
                commit = self.random.choice(list(self.acknowledged))
                old = await main.commit_db(commit, timeout=5)
                value = self.acknowledged[commit][1]
                assert await old.q(f"[:find ?e . :where [?e :n {value}]]", timeout=5)


async def test_nothing_is_lost_or_half_done_when_processes_are_killed(serving: Any) -> None:
    url = serving.start()
    async with natalog.connect(url) as client:
        await client.create_database("people", schema_flexibility="read")
    acknowledged: dict[Any, tuple[str, int]] = {}
    workers = [Worker(number, acknowledged) for number in (1, 2)]
    tasks = [asyncio.create_task(worker.run(url)) for worker in workers]
    for victim in ("nats", "service", "nats", "service"):
        done = len(acknowledged)
        with anyio.fail_after(60):
            while len(acknowledged) < done + 40:
                for task in tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)
        if victim == "nats":
            serving.kill_nats()
        else:
            await asyncio.to_thread(serving.kill)
            await asyncio.to_thread(serving.start)
    for worker in workers:
        worker.stop = True
    with anyio.fail_after(60):
        await asyncio.gather(*tasks)
    async with natalog.connect(url) as client:
        main = client.database("people")
        commits = {commit.commit_id for commit in await main.branch_history()}
        own = {commit for commit, (branch, _) in acknowledged.items() if branch == "db"}
        assert own <= commits, "no acknowledged transaction is lost"
        for turn in range(2):
            lanes = []
            for name in sorted(await main.branches()):
                findings = await check_branch(client, "people", name)
                assert all(finding.good for finding in findings), (turn, name, findings)
                conn = client.database("people", name)
                lanes.append((await conn.info())["lane"])
                assert await conn.branch_history()
                assert (await conn.transact([{"still": "here"}])).tx
            assert len(set(lanes)) == len(lanes)
            await main.gc()
        for name in await main.branches() - {"db"}:
            await main.delete_branch(name)
        await main.gc()
        assert await main.branches() == {"db"}
        assert (await main.gc(dry_run=True))["streams"] == []

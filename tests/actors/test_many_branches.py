"""Many branches at once: all of them answer, few of them cost anything."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable

import anyio
import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.service import Service, running

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]

BRANCHES = 200
COUNT = "[:find (count ?e) . :where [?e :n]]"


def transactors(service: Service) -> set[str]:
    names = {actor.name for actor in service.runtime.actors()}
    return {name for name in names if name.startswith("transactor:")}


def counted(service: Service) -> str:
    lines = service.metrics.text().decode().splitlines()
    return next((line for line in lines if line.startswith('natalog_branches{database="p')), "")


async def test_two_hundred_branches_answer_and_rest(service_config: Config) -> None:
    config = service_config(branch_idle_s=0.5)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        rows = [{"n": number, "text": f"value {number}"} for number in range(20_000)]
        await conn.transact(rows)
        names = [f"b{number}" for number in range(BRANCHES)]
        for name in names:
            await conn.branch(name)
        assert await conn.branches() == {"db", *names}

        async def use(number: int, name: str) -> None:
            branch = client.database("people", name)
            await branch.transact([{"n": number}])
            assert await (await branch.db()).q(COUNT) == 20_001

        tracemalloc.start()
        try:
            for start in range(0, BRANCHES, 20):
                part = enumerate(names[start : start + 20], start)
                await asyncio.gather(*(use(number, name) for number, name in part))
            with anyio.fail_after(20):
                while transactors(service) != {"transactor:people.db"}:
                    await asyncio.sleep(0.05)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert grown / BRANCHES < 250_000, "a branch that rests keeps what it changed"
        with anyio.fail_after(10):
            while counted(service) != f'natalog_branches{{database="people"}} {BRANCHES + 1}.0':
                await asyncio.sleep(0.05)
        assert await (await client.database("people", "b7").db()).q(COUNT) == 20_001
        assert (await client.database("people", "b7").merge("b8")).tx > 0
        await conn.delete_branch("b7")
        with anyio.fail_after(10):
            while not counted(service).endswith(f" {BRANCHES}.0"):
                await asyncio.sleep(0.05)
        await client.delete_database("people")
        with anyio.fail_after(10):
            while counted(service):
                await asyncio.sleep(0.05)


async def test_a_branch_that_works_or_is_waited_for_does_not_rest(service_config: Config) -> None:
    config = service_config(branch_idle_s=0.05)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        await conn.branch("draft")
        draft = client.database("people", "draft")
        first = await draft.transact([{"n": 0}])
        state = service.hub.state("people", "draft")
        assert state is not None
        waiting = asyncio.create_task(state.value(first.tx + 1, 10))
        await asyncio.sleep(0.3)
        assert "transactor:people.draft" in transactors(service)
        await draft.transact([{"n": 1}])
        assert (await waiting).max_tx == first.tx + 1
        with anyio.fail_after(10):
            while "transactor:people.draft" in transactors(service):
                await asyncio.sleep(0.02)
        await draft.publish([{"n": 2}])
        with anyio.fail_after(10):
            while await (await draft.db()).q(COUNT) != 3:
                await asyncio.sleep(0.02)

"""Reads in processes of their own: they answer, they can be killed, they hold up nobody."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Collection
from pathlib import Path

import anyio
import pytest

import natalog
from natalog.actors import workers
from natalog.actors.config import ServiceConfig
from natalog.actors.service import Service, running

pytestmark = pytest.mark.asyncio

ENDLESS = """
[:find (count ?a) . :where [?a :n ?x] [?b :n ?y] [?c :n ?z] [?d :n ?w]
 [(+ ?x ?y) ?s] [(+ ?z ?w) ?t] [(< ?s ?t)]]
"""


def config(data: Path, count: int = 2) -> ServiceConfig:
    return ServiceConfig(data=data, listen="127.0.0.1:0", query_workers=count)


async def alive(service: Service, count: int, besides: Collection[int] = ()) -> list[int]:
    assert service.workers is not None
    with anyio.fail_after(60):
        while len(pids := [p for p in service.workers.pids if p not in besides]) < count:
            await asyncio.sleep(0.05)
    return pids


async def test_workers_answer_and_see_what_was_just_written(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service, natalog.connect(service.url) as client:
        assert len(await alive(service, 2)) == 2
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        for n in range(20):
            await conn.transact([{"n": n}])
            db = await conn.db()
            assert await db.q("[:find (count ?e) . :where [?e :n]]") == n + 1
        assert (await db.pull("[:n]", 1)) == {natalog.kw("n"): 0}
        await client.delete_database("people")
        with pytest.raises(natalog.errors.DatabaseNotFound):
            for _ in range(100):  # the workers hear of it a moment later
                await conn.q("[:find ?e :where [?e :n]]", timeout=5)
                await asyncio.sleep(0.05)
        pids = await alive(service, 2)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            for _ in range(100):
                os.kill(pid, 0)
                await asyncio.sleep(0.05)


async def test_a_killed_worker_is_replaced_and_nothing_else_notices(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        await conn.transact([{"n": 1}])
        first = await alive(service, 2)
        os.kill(first[0], signal.SIGKILL)
        lost = 0
        for n in range(30):
            await conn.transact([{"n": n}])
            try:
                assert await conn.q("[:find (max ?n) . :where [_ :n ?n]]", timeout=2) >= 1
            except natalog.errors.ServiceError:
                lost += 1  # it was on its way to the worker that died
        assert lost <= 1
        assert len(await alive(service, 1, besides=first)) == 1


async def test_a_read_that_does_not_end_costs_its_worker_and_delays_no_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PING_INTERVAL_S", 0.2)
    monkeypatch.setattr(workers, "SILENT_S", 1.0)
    async with running(config(tmp_path, 1)) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        await conn.transact([{"n": n} for n in range(300)])
        first = await alive(service, 1)
        os.kill(first[0], signal.SIGSTOP)  # as one that nothing in Python can interrupt
        for n in range(20):
            await conn.transact([{"n": n}], timeout=2)
        assert len(await alive(service, 1, besides=first)) == 1
        assert await conn.q("[:find (count ?e) . :where [?e :n]]") == 320
        with pytest.raises(natalog.errors.QueryError):
            await conn.q(ENDLESS, timeout=0.3)
        await conn.transact([{"n": 1}])

"""Reads that wait for what is not there: they hold up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import natalog
from natalog.actors import hub
from natalog.actors.config import ServiceConfig
from natalog.actors.nats_port import NatsPort
from natalog.actors.service import running
from natalog.actors.shared import Shared
from natalog.core.codec import pack, unpack

FIND = "[:find ?n :where [_ :name ?n]]"
FUTURE = 2**52 + 2**31
"""A transaction that will never be."""


@pytest.mark.asyncio
async def test_reads_of_the_future_leave_room_for_the_others(
    service_config: Callable[..., ServiceConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "READS_PARKED_MAX", 20)
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        await conn.transact([{"name": "Ann"}])
        port = await NatsPort.connect(service.url)
        body = pack({"query": FIND, "basis": FUTURE, "timeout_ms": 20_000})
        asking = [
            asyncio.create_task(port.request("natalog.people.db.query", body, timeout_s=30))
            for _ in range(50)
        ]
        codes: set[str] = set()
        done: set[asyncio.Task[object]] = set()
        async with asyncio.timeout(15):
            while len(done) < 30:
                done = {task for task in asking if task.done()}
                await asyncio.sleep(0.02)
        for task in asking:
            if task.done():
                codes.add(unpack(task.result().data)["code"])
        assert codes == {"Busy"}
        for number in range(20):  # the writer is not asked about the future by each of them
            await conn.transact([{"name": f"n{number}"}])
            assert len(await conn.q(FIND)) == number + 2
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        await port.close()


@pytest.mark.asyncio
async def test_no_read_takes_a_thread_for_a_day(
    service_config: Callable[..., ServiceConfig],
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        request = type("R", (), {"timeout_s": 86_400.0, "arrived": 0.0, "database": "people"})
        request.branch = "db"
        asker = service.query._asker(request, {"timeout_ms": 86_400_000})  # type: ignore[arg-type]
        assert asker.deadline == 600.0


@pytest.mark.asyncio
async def test_shared_work_begins_after_the_question() -> None:
    begun: list[int] = []
    go_on = asyncio.Event()

    async def work() -> None:
        begun.append(len(begun))
        await go_on.wait()
        if len(begun) == 3:
            raise ValueError("third")

    shared = Shared(work)
    first = [asyncio.create_task(shared.run()) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert begun == [0]
    later = [asyncio.create_task(shared.run()) for _ in range(50)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in first)
    go_on.set()
    await asyncio.gather(*first, *later)
    assert begun == [0, 1]
    with pytest.raises(ValueError, match="third"):
        await shared.run()
    await shared.run()
    assert begun == [0, 1, 2, 3]


@pytest.mark.asyncio
async def test_reads_hear_that_a_service_stops_so_that_another_one_may_be_asked(
    service_config: Callable[..., ServiceConfig],
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        port = await NatsPort.connect(service.url)
        body = pack({"query": FIND, "basis": FUTURE, "timeout_ms": 20_000})
        subject = "natalog.people.db.query"
        asking = asyncio.create_task(port.request(subject, body, timeout_s=30))
        async with asyncio.timeout(5):
            while not service.query.waiting:
                await asyncio.sleep(0.01)
    assert unpack((await asking).data)["code"] == "Unavailable"
    await port.close()

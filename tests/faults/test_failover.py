"""Two services, one of them dies: what was acknowledged is there, once, and work goes on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from writers import Writers, holder_of, people

import natalog
from natalog.actors.transactor import FAILPOINTS

pytestmark = pytest.mark.asyncio

WITHIN_S = 5.0
"""What a take-over may take after a kill."""


async def test_after_a_kill_the_standby_takes_over_and_nothing_is_lost(lab: Any) -> None:
    broker = lab.broker()
    members = [lab.member(broker.url).start() for _ in range(2)]
    async with natalog.connect(broker.url) as client:
        await people(client)
        async with Writers(broker.url, 3) as writers:
            await writers.progress()
            victim = await holder_of(client, members)
            await asyncio.to_thread(victim.kill)
            await writers.progress()
        await writers.check(client)


async def test_a_stopped_transactor_that_goes_on_writes_nothing_and_says_nothing(lab: Any) -> None:
    broker = lab.broker()
    members = [lab.member(broker.url, "--role", "transactor").start() for _ in range(2)]
    lab.member(broker.url, "--role", "query").start()
    async with natalog.connect(broker.url) as client:
        conn = await people(client)
        first = await conn.transact([{"db/id": -1, "n": 0}])
        e = first.tempids[-1]
        await asyncio.sleep(0.5)  # the other one follows the new database
        stopped = await holder_of(client, members)
        stopped.pause()
        answers: list[Any] = []
        # some come before the other one has taken over, some after: all are answered once
        for n in range(30):
            sent = conn.transact([["db/cas", e, "n", n, n + 1]], id=f"n{n}", timeout=30)
            answers.append(await sent)
        head = (await conn.info())["commit_id"]
        stopped.go_on()
        with pytest.raises(natalog.NatalogError) as caught:
            await conn.transact([["db/cas", e, "n", 0, 1]])  # true of what the stopped one knew
        assert caught.value.code == "TransactCas"
        await asyncio.sleep(1.5)
        assert (await conn.info())["commit_id"] == head, "nothing was written behind our back"
        assert [answer.tx for answer in answers] == [first.tx + 1 + n for n in range(30)]
        other = await holder_of(client, members)
        assert other is not stopped
        await asyncio.to_thread(other.kill)  # and the one that was stopped takes its turn again
        assert (await conn.transact([["db/cas", e, "n", 30, 31]], id="last")).tx == answers[
            -1
        ].tx + 1


@pytest.mark.faults
async def test_versions_and_databases_survive_the_process_that_changes_them(lab: Any) -> None:
    """Whatever step a kill hits: done or not done, and the next process can go on."""
    broker = lab.broker()
    members = [lab.member(broker.url).start() for _ in range(2)]
    async with natalog.connect(broker.url) as client:
        conn = await people(client)
        await conn.transact([{"n": 0}])
        for turn in range(6):
            for name in ("a", "b"):
                await conn.branch(f"{name}{turn}")
            victim = await holder_of(client, members)
            work = [
                asyncio.create_task(one)
                for one in (
                    conn.force_branch(f"a{turn}", await conn.db(), parents=["db"], timeout=2),
                    conn.delete_branch(f"b{turn}", timeout=2),
                    conn.branch(f"c{turn}", timeout=2),
                    client.create_database(f"more{turn}", schema_flexibility="read", timeout=2),
                    conn.merge(f"a{turn}", [{"n": turn}], timeout=2),
                )
            ]
            await asyncio.sleep(0.004 * turn)
            await asyncio.to_thread(victim.kill)
            done = await asyncio.gather(*work, return_exceptions=True)
            members.append(lab.member(broker.url))
            await asyncio.to_thread(members[-1].start)
            await conn.transact([{"n": turn}], id=f"turn{turn}")
            names = await conn.branches()
            assert {"db", f"a{turn}"} <= names
            if not isinstance(done[1], BaseException):
                assert f"b{turn}" not in names
            if not isinstance(done[2], BaseException):
                assert f"c{turn}" in names
            for name in sorted(names):
                branch = client.database("people", name)
                assert (await branch.transact([{"n": 1}], id=f"{name}-{turn}")).tx
            if await client.database_exists(f"more{turn}"):
                more = client.database(f"more{turn}")
                assert (await more.transact([{"n": 1}], id="more")).tx
            else:
                assert isinstance(done[3], BaseException)
                await client.create_database(f"more{turn}", schema_flexibility="read")


async def test_a_death_with_an_append_under_way_is_one_outcome(lab: Any) -> None:
    await dies_at(lab, "append.sent", 3)


@pytest.mark.faults
@pytest.mark.parametrize("name", FAILPOINTS)
async def test_a_death_at_every_step_of_a_commit_is_one_outcome(lab: Any, name: str) -> None:
    for count in (1, 7):
        await dies_at(lab, name, count)


async def dies_at(lab: Any, name: str, count: int) -> None:
    """The holder dies at its ``count``-th passage; the writers notice nothing but a delay."""
    broker = lab.broker()
    keeper = lab.member(broker.url).start()
    async with natalog.connect(broker.url) as client:
        await people(client)
        assert keeper.terminate() == 0
        victim = lab.member(broker.url).start(f"{name}@{count}")
        standby = lab.member(broker.url).start()
        async with Writers(broker.url, 2) as writers:
            await writers.progress(10)
            assert await asyncio.to_thread(victim.wait) == -9
        await writers.check(client)
        assert await holder_of(client, [standby]) is standby


@pytest.mark.faults
async def test_a_take_over_takes_less_than_five_seconds(lab: Any) -> None:
    broker = lab.broker()
    members = [lab.member(broker.url, "--role", "transactor").start() for _ in range(2)]
    async with natalog.connect(broker.url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        for turn in range(12):
            await conn.transact([{"n": turn}], id=f"before{turn}")
            await asyncio.sleep(0.5 + 0.13 * turn)
            victim = await holder_of(client, members)
            began = time.monotonic()
            await asyncio.to_thread(victim.kill)
            await conn.transact([{"n": turn}], id=f"after{turn}")
            assert time.monotonic() - began < WITHIN_S
            members.append(lab.member(broker.url, "--role", "transactor"))
            await asyncio.to_thread(members[-1].start)

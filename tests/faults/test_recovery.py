"""A log that lost blocks is refused, and goes on only when somebody has said what to give up."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.names import Names
from natalog.actors.nats_port import NatsPort
from natalog.actors.recovery import FAILPOINTS, Recovery
from natalog.actors.service import running
from natalog.cli.check import check_branch
from natalog.core.errors import BadRequest, LogCorrupt, Unavailable
from natalog.core.limits import TX_BASE

pytestmark = pytest.mark.asyncio

READ = {"schema_flexibility": "read"}
NAMES = Names()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[NatsPort]:
    port = await NatsPort.connect(url)
    try:
        yield port
    finally:
        await port.close()


async def fill(url: str, count: int = 30, *, snapshot: bool = False) -> list[Any]:
    async with running(ServiceConfig(nats=url)), natalog.connect(url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        reports = []
        for n in range(count):
            reports.append(await conn.transact([{"db/id": -1, "n": n}]))
            if n == count // 2:
                await conn.branch("draft")
        if snapshot:
            await conn.snapshot()
        return reports


async def cut(url: str, kept: int) -> None:
    """What a server does that loses the end of a file: the log is shorter, and says nothing."""
    async with connected(url) as port:
        recovery = Recovery(port, NAMES, now_ms)
        line = await recovery._line("people", "db")
        await recovery._cut(line, kept)


async def numbers(client: natalog.Client, branch: str = "db") -> set[int]:
    db = await client.database("people", branch).db()
    return {n for (n,) in await db.q("[:find ?n :where [_ :n ?n]]")}


@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_log_that_lost_its_end_is_refused_until_the_loss_is_accepted(
    lab: Any, snapshot: bool
) -> None:
    url = lab.broker().url
    reports = await fill(url, snapshot=snapshot)
    await cut(url, 21)  # block 1 is the beginning, 20 transactions follow
    for role in ("all", "query"):
        async with running(ServiceConfig(nats=url, role=role)), natalog.connect(url) as client:
            with pytest.raises(LogCorrupt) as caught:
                await numbers(client)
            assert "natalog recover people --branch db --accept-loss-after 21" in str(caught.value)
            assert await numbers(client, "draft") == set(range(16)), "others are served"
    async with connected(url) as port:
        recovery = Recovery(port, NAMES, now_ms)
        found = await recovery.examine("people", "db")
        assert (found.sound, found.last, found.head, found.fault) == (21, 21, 31, None)
        assert found.contradiction is not None and not found.healthy
        done = await recovery.recover("people", "db", 21)
        assert (done.first, done.last) == (22, 31)
        assert done.tx == reports[-1].tx + 1, "no transaction id is given out twice"
        assert (await recovery.examine("people", "db")).healthy
        with pytest.raises(BadRequest):
            await recovery.recover("people", "db", 21)
    async with running(ServiceConfig(nats=url)), natalog.connect(url) as client:
        assert await numbers(client) == set(range(20))
        conn = client.database("people")
        made = await conn.transact([{"db/id": -1, "n": 99}])
        assert made.tx == done.tx + 1
        assert made.tempids[-1] > reports[-1].tempids[-1], "nor an entity id"
        history = await conn.branch_history()
        assert [commit.tx for commit in history[:3]] == [made.tx, done.tx, TX_BASE + 20]
        old = await (await conn.db()).as_of(done.tx).q("[:find ?n :where [_ :n ?n]]")
        assert {n for (n,) in old} == set(range(20))
        async with conn.reports(since=TX_BASE + 19) as feed:
            assert [(await anext(feed)).tx for _ in range(3)] == [TX_BASE + 20, done.tx, made.tx]
        findings = await check_branch(client, "people", "db")
        assert all(finding.good for finding in findings), findings


async def test_a_log_with_a_hole_goes_on_from_before_it(lab: Any) -> None:
    url = lab.broker().url
    reports = await fill(url)
    async with connected(url) as port:
        await port.erase(NAMES.log_stream("people"), 25)
        recovery = Recovery(port, NAMES, now_ms)
        found = await recovery.examine("people", "db")
        assert found.sound == 24 and found.fault is not None and found.last == 31
        for wrong in (25, 31, 100):
            with pytest.raises(BadRequest):
                await recovery.recover("people", "db", wrong)
        done = await recovery.recover("people", "db", 24)
        assert (done.first, done.last, done.sequence) == (25, 31, 25)
        assert done.tx == reports[-1].tx + 1
        assert await port.streams("natalog.people.*.recovering") == []
    async with running(ServiceConfig(nats=url)), natalog.connect(url) as client:
        assert await numbers(client) == set(range(23))
        assert await numbers(client, "draft") == set(range(16))
        assert (await client.database("people", "draft").transact([{"n": 1}])).tx


async def test_a_running_service_keeps_its_log_to_itself(lab: Any) -> None:
    url = lab.broker().url
    await fill(url)
    async with running(ServiceConfig(nats=url)), connected(url) as port:
        with pytest.raises(Unavailable):
            await Recovery(port, NAMES, now_ms).recover("people", "db", 5)
    async with connected(url) as port:
        with pytest.raises(BadRequest):  # nothing is wrong with it
            await Recovery(port, NAMES, now_ms).recover("people", "db", 5)


async def test_a_service_notices_that_its_log_lost_its_end(lab: Any) -> None:
    url = lab.broker().url
    await fill(url)
    async with running(ServiceConfig(nats=url)) as service, natalog.connect(url) as client:
        conn = client.database("people")
        assert (await conn.transact([{"n": 100}])).tx
        stream = NAMES.log_stream("people")
        service.hub.opened("people", "db")[1]._log._created = None  # the server made no new stream
        await cut(url, 21)
        service.hub.opened("people", "db")[1]._log._created = None
        with pytest.raises(LogCorrupt) as caught:
            await conn.transact([{"n": 101}])
        assert caught.value.data["acknowledged"] == 32
        info = await service.port.stream_info(stream)
        assert info is not None and info["state"]["last_seq"] == 21, "nothing was written"


async def test_a_recovery_that_was_cut_short_is_taken_up_again(lab: Any) -> None:
    await cut_short(lab, ("recover.removed",))


@pytest.mark.faults
async def test_a_recovery_can_be_cut_short_anywhere(lab: Any) -> None:
    await cut_short(lab, FAILPOINTS)


async def cut_short(lab: Any, names: tuple[str, ...]) -> None:
    for name in names:
        broker = lab.broker()
        await fill(broker.url)
        async with connected(broker.url) as port:
            await port.erase(NAMES.log_stream("people"), 25)
        command = [
            *(sys.executable, "-m", "natalog", "recover", "people", "--nats", broker.url),
            *("--accept-loss-after", "24", "--yes"),
        ]
        killed = await asyncio.to_thread(
            subprocess.run,
            command,
            env={**os.environ, "NATALOG_FAILPOINTS": name},
            capture_output=True,
        )
        assert killed.returncode == -9, killed.stderr
        again = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert again.returncode == 0, (name, again.stderr)
        async with running(ServiceConfig(nats=broker.url)), natalog.connect(broker.url) as client:
            assert await numbers(client) == set(range(23))
            assert (await client.database("people").transact([{"n": 1}])).tx > TX_BASE + 31
        broker.kill()


async def test_recover_starts_the_server_of_a_stopped_service(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running(ServiceConfig(data=data, listen="127.0.0.1:0")) as service:
        async with natalog.connect(service.url) as client:
            await client.create_database("people", **READ)
            for n in range(10):
                await client.database("people").transact([{"n": n}])
        await service.port.erase(NAMES.log_stream("people"), 8)
    command = [sys.executable, "-m", "natalog", "recover", "people", "--data", str(data), "--json"]
    looked = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert looked.returncode == 1 and '"sound_until": 7' in looked.stdout, looked
    accept = [*command, "--accept-loss-after", "7", "--yes"]
    done = await asyncio.to_thread(subprocess.run, accept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config = ServiceConfig(data=data, listen="127.0.0.1:0")
    async with running(config) as service, natalog.connect(service.url) as client:
        assert await numbers(client) == set(range(6))

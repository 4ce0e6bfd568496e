"""Slow readers, a clock that goes backwards and a writer from outside: the others go on."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import natalog
from natalog import errors
from natalog.actors.config import ServiceConfig
from natalog.actors.log import BranchLog, Position
from natalog.actors.names import Names
from natalog.actors.nats_port import NatsPort
from natalog.actors.service import running
from natalog.core.codec import pack
from natalog.core.edn import read
from natalog.core.record import ENTRY_COMMIT, Entry, TxRecord, encode_block

pytestmark = pytest.mark.asyncio

READ = {"schema_flexibility": "read"}
READERS = 6
WRITES = 60
ROW = "z" * 500


class Deaf:
    """A connection that asks and subscribes, and never reads what comes."""

    def __init__(self, url: str) -> None:
        self._host, _, port = url.removeprefix("nats://").partition(":")
        self._port = int(port)

    async def __aenter__(self) -> Deaf:
        # a small buffer, so that the server soon has to wait
        self._reader, self._writer = await asyncio.open_connection(
            self._host, self._port, limit=1024
        )
        await self._reader.readline()
        self.send(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}')
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._writer.transport.abort()

    async def got(self) -> bytes:
        """The first word that has been waiting to be read."""
        return (await asyncio.wait_for(self._reader.readline(), 10)).split(b" ")[0]

    def send(self, line: bytes) -> None:
        self._writer.write(line + b"\r\n")

    def subscribe(self, subject: str) -> None:
        self.send(f"SUB {subject} 1".encode())

    def ask(self, subject: str, body: Any) -> None:
        payload = pack(body)
        headers = b"NATS/1.0\r\nContent-Type: application/msgpack\r\n\r\n"
        size = len(headers) + len(payload)
        self.send(f"HPUB {subject} deaf.answers {len(headers)} {size}".encode())
        self._writer.write(headers + payload + b"\r\n")


@asynccontextmanager
async def people(tmp_path: Path, **more: Any) -> AsyncIterator[tuple[Any, Any]]:
    config = ServiceConfig(data=tmp_path / "data", listen="127.0.0.1:0")
    async with running(config, **more) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        yield service, client.database("people")


async def test_a_subscriber_that_does_not_read_holds_up_nobody(tmp_path: Path) -> None:
    async with people(tmp_path) as (service, conn), contextlib.AsyncExitStack() as stack:
        deaf_ones = []
        for _ in range(READERS):
            deaf = await stack.enter_async_context(Deaf(service.url))
            deaf.subscribe("natalog.*.*.report")
            deaf_ones.append(deaf)
        heard: list[int] = []

        async def listen() -> None:
            async for report in conn.reports(since=0):
                heard.append(report.tx)
                if len(heard) == WRITES:
                    return

        listener = asyncio.create_task(listen())
        told = []
        for number in range(WRITES):  # some 20 MB of reports for each of them
            rows = [{"n": number, "text": ROW} for _ in range(500)]
            told.append((await conn.transact(rows, timeout=10)).tx)
        await asyncio.wait_for(listener, 20)
        assert heard == told
        assert service.port.is_connected and service.port.disconnects == 0
        assert {await deaf.got() for deaf in deaf_ones} == {b"HMSG"}


async def test_a_reader_of_large_answers_that_does_not_read_holds_up_nobody(
    tmp_path: Path,
) -> None:
    query = "[:find ?e ?n ?v :where [?e :n ?n] [?e :text ?v]]"
    async with people(tmp_path) as (service, conn), contextlib.AsyncExitStack() as stack:
        for number in range(20):
            await conn.transact([{"n": number * 1000 + i, "text": ROW} for i in range(1000)])
        for _ in range(READERS):
            deaf = await stack.enter_async_context(Deaf(service.url))
            deaf.subscribe("deaf.answers")
            for _ in range(3):
                deaf.ask("natalog.people.db.query", {"query": read(query)})
        for number in range(20):
            await conn.transact([{"small": number}], timeout=10)
            db = await conn.db(timeout=10)
            rows = await db.q("[:find (count ?e) . :where [?e :small]]", timeout=10)
            assert rows == number + 1
        whole = await db.q(query, timeout=60)
        assert len(whole) == 20_000
        assert await deaf.got() == b"HMSG"
        assert service.port.is_connected


async def test_transaction_times_do_not_follow_a_clock_that_goes_backwards(tmp_path: Path) -> None:
    now = {"ms": 1_900_000_000_000}
    async with people(tmp_path, clock=lambda: now["ms"]) as (_, conn):
        told: list[tuple[int, datetime]] = []
        for step in (0, 1000, -3_600_000, 5, -86_400_000, 10_000, 7 * 86_400_000, -1, 0):
            now["ms"] += step
            report = await conn.transact([{"step": step}])
            told.append((report.tx, report.instant))
        assert [tx for tx, _ in told] == list(range(told[0][0], told[0][0] + len(told)))
        instants = [instant for _, instant in told]
        assert instants == sorted(instants)
        db = await conn.db()
        for tx, instant in told:
            # everything up to the last transaction of that instant, and nothing later
            same = max(t for t, i in told if i == instant)
            past = db.as_of(instant)
            rows = await past.q("[:find ?t :where [?e :step _ ?t]]")
            assert max(t for (t,) in rows) == same >= tx


async def forced(url: str, mark: str) -> int:
    """Append a block to the log as a second transactor would; the sequence it got."""
    port = await NatsPort.connect(url)
    try:
        branch_log = BranchLog(port, Names(), "people", "db")
        while True:
            last = await branch_log.last_seq()
            block = await branch_log.read_block(last)
            head = block.entries[-1]
            record = TxRecord.decode(head.data)
            made = replace(
                record,
                kind="transaction",
                tx=record.tx + 1,
                parents=(head.commit_id,),
                datoms=(),
                purges=(),
                tempids={},
                tx_meta={},
                id=mark,
                purged=0,
                config=None,
            )
            data = encode_block(block.hash, [Entry(ENTRY_COMMIT, made.encode())])
            with contextlib.suppress(errors.Fenced):
                return (await branch_log.append(Position(last, block.hash), data)).seq
    finally:
        await port.close()


async def test_a_second_writer_of_the_same_branch_is_noticed_and_followed(lab: Any) -> None:
    broker = lab.broker()
    service = lab.member(broker.url)
    await asyncio.to_thread(service.start)
    async with natalog.connect(broker.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        told: dict[str, int] = {}
        going = True

        async def write(writer: int) -> None:
            number = 0
            while going:
                ident = f"{writer}-{number}"
                report = await conn.transact([{"key": ident}], id=ident, timeout=20)
                told[ident] = report.tx
                number += 1

        writers = [asyncio.create_task(write(n)) for n in range(4)]
        for number in range(10):
            await forced(broker.url, f"forced-{number}")
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        going = False
        await asyncio.gather(*writers)
        db = await conn.db()
        assert dict(await db.q("[:find ?k ?t :where [_ :key ?k ?t]]")) == told
        ids = []
        async for report in conn.reports(since=0):
            ids.append(report.id)
            if report.tx >= db.basis:
                break
        assert {f"forced-{number}" for number in range(10)} <= set(ids)
        assert len(ids) == len(set(ids))
    done = subprocess.run(
        [sys.executable, "-m", "natalog", "check", "people", "--nats", broker.url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr

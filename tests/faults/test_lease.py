"""Of several processes one takes the transactions, and no other says anything in its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import natalog
from natalog.actors import lease as leases
from natalog.actors.config import ServiceConfig
from natalog.actors.hub import Follower
from natalog.actors.lease import Lease, LeaseLost
from natalog.actors.names import Names
from natalog.actors.nats_port import NatsPort
from natalog.actors.nats_server import NatsServer
from natalog.actors.service import WRITES, Service, running
from natalog.actors.transactor import Transactor
from natalog.core.codec import pack, unpack

pytestmark = pytest.mark.asyncio

READ = {"schema_flexibility": "read"}
SUBJECT = "natalog._._.lease"


@asynccontextmanager
async def two(directory: Path) -> AsyncIterator[tuple[Service, Service]]:
    config = ServiceConfig(data=directory / "data", listen="127.0.0.1:0")
    async with running(config) as one, running(ServiceConfig(nats=one.url)) as other:
        yield one, other


@asynccontextmanager
async def one_lease(directory: Path) -> AsyncIterator[Lease]:
    """A lease on a nats-server of its own."""
    server = NatsServer(directory / "nats")
    await server.start()
    port = await NatsPort.connect(server.url)
    try:
        yield Lease(port, Names(), "me")
    finally:
        await port.close()
        await server.stop()


async def until(condition: Any) -> None:
    with anyio.fail_after(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_one_takes_the_transactions_and_the_other_follows(tmp_path: Path) -> None:
    async with two(tmp_path) as (one, other), natalog.connect(one.url) as client:
        assert one.lease.valid() and not other.lease.held
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.branch("draft")
        reports = [await conn.transact([{"n": n}]) for n in range(5)]
        draft = await client.database("people", "draft").transact([{"n": 5}])
        await until(lambda: other.hub.opened("people", "draft") is not None)
        for branch, report in (("db", reports[-1]), ("draft", draft)):
            assert isinstance(one.hub.opened("people", branch)[1], Transactor)
            value = await other.hub.value("people", branch, report.tx, 5)
            assert value.commit_id == report.commit_id
            assert isinstance(other.hub.opened("people", branch)[1], Follower)


async def test_a_clean_stop_hands_over_at_once_and_answers_everything(tmp_path: Path) -> None:
    config = ServiceConfig(data=tmp_path / "data", listen="127.0.0.1:0")
    async with running(config) as keeper, natalog.connect(keeper.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await client.database("people").branch("draft")
        async with running(ServiceConfig(nats=keeper.url)) as other:
            await keeper.lease.release()  # as a stop does; the server is to stay
            await until(lambda: other.lease.held)
            keeper.lease.wanted = True
            reports = await asyncio.gather(
                *(conn.transact([{"n": n}], id=f"{n}") for n in range(9))
            )
            assert len({report.tx for report in reports}) == 9
            await asyncio.gather(
                *(client.database("people", b).transact([{"n": 9}], id=b) for b in ("db", "draft"))
            )
            sent = [asyncio.create_task(conn.transact([{"n": n}])) for n in range(10, 90)]
            await asyncio.sleep(0.005)
        answers = await asyncio.gather(*sent, return_exceptions=True)
        codes = {a.code for a in answers if isinstance(a, natalog.NatalogError)}
        assert codes <= {"Unavailable"}, "nothing was done, which the answer says"
        done = [a.tx for a in answers if not isinstance(a, BaseException)]
        assert done == sorted(done)


async def test_what_comes_while_the_lease_is_uncertain_waits(tmp_path: Path) -> None:
    """A refusal is said of a head, and may not be said of one that another process has moved."""
    async with two(tmp_path) as (one, _), natalog.connect(one.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        report = await conn.transact([{"db/id": -1, "n": 1}])
        e = report.tempids[-1]
        held = asyncio.Event()
        renew = one.lease._renew

        async def late() -> bool:
            await held.wait()
            return await renew()

        one.lease._renew = late
        one.lease._renewed = leases._NEVER
        wrong = asyncio.create_task(conn.transact([["db/cas", e, "n", 2, 3]]))
        right = asyncio.create_task(conn.transact([["db/cas", e, "n", 1, 2]]))
        await asyncio.sleep(0.3)
        assert not wrong.done() and not right.done()
        assert one.hub.state("people", "db").position.seq == 2, "nor is anything written"
        held.set()
        with pytest.raises(natalog.NatalogError) as caught:
            await wrong
        assert caught.value.code == "TransactCas"
        assert (await right).tx


async def test_a_lost_lease_silences_a_process_about_what_came_later(tmp_path: Path) -> None:
    """Both have the request; one answers, and it is applied once."""
    async with two(tmp_path) as (one, other), natalog.connect(one.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.transact([{"n": 0}])
        one.lease._poke = asyncio.Event()
        one.lease._keep = asyncio.Event().wait  # it is stopped, as far as the lease goes
        one.lease._renewed = leases._NEVER
        early = asyncio.create_task(conn.transact([{"n": 1}], id="early"))
        await until(lambda: len(other.turn.subscriptions) > len(WRITES))
        await other.port.api("INFO")
        answers: list[Any] = []
        inbox = one.port.inbox()
        await one.port.subscribe(inbox, lambda message: answers.append(unpack(message.data)))
        for n in range(2, 12):
            await one.port.publish("natalog.people.db.transact", pack([{"n": n}]), reply=inbox)
        await until(lambda: len(answers) == 10)
        del one.lease._keep
        one.lease._set(False)
        one.lease._turn.set()
        await early
        await asyncio.sleep(0.3)
        assert [answer["tx_data"][-1][2] for answer in answers] == list(range(2, 12))
        rows = await (await conn.db()).q("[:find ?n ?tx :where [_ :n ?n ?tx]]")
        assert sorted(n for n, _ in rows) == list(range(12))
        assert isinstance(one.hub.opened("people", "db")[1], Follower)


async def test_two_that_both_believe_to_hold_it_lose_nothing(tmp_path: Path) -> None:
    """The log decides: each is fenced by the other, and every transaction is there once."""
    async with two(tmp_path) as (one, other), natalog.connect(one.url) as client:
        await client.create_database("people", **READ)
        other.lease.valid = lambda: True
        other.lease.held = True
        _, actor = await other.hub.open("people", "db")
        assert isinstance(actor, Transactor)
        answers: list[Any] = []
        inbox = one.port.inbox()
        await one.port.subscribe(inbox, lambda message: answers.append(unpack(message.data)))
        handlers = {one: one._handler(one._transact), other: other._handler(other._transact)}
        for n in range(60):
            for service, handle in handlers.items():
                message = _Message(pack([{"n": n}]), inbox)
                handle(message)
                assert service.hub.writes
            await asyncio.sleep(0.002)
        await until(lambda: len(answers) == 120)
        txs = [answer["tx"] for answer in answers if "tx" in answer]
        assert len(txs) == len(set(txs)) and len(txs) >= 60
        value = await one.hub.value("people", "db", max(txs), 5)
        assert {datom.tx for datom in value.datoms("aevt", [natalog.kw("n")])} == set(txs)
        del other.lease.valid
        other.lease.held = False


class _Message:
    subject = "natalog.people.db.transact"
    headers: None = None

    def __init__(self, data: bytes, reply: str) -> None:
        self.data = data
        self.reply = reply


async def test_the_cost_is_one_renewal_a_second_whatever_is_served(tmp_path: Path) -> None:
    config = ServiceConfig(data=tmp_path / "data", listen="127.0.0.1:0")
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        for number in range(20):
            await conn.branch(f"b{number}")
            await client.database("people", f"b{number}").transact([{"n": number}])
        heard: list[Any] = []
        await service.port.subscribe("natalog._._.>", lambda message: heard.append(message.subject))
        await asyncio.sleep(2.5)
        for _ in range(50):
            await conn.transact([{"n": 1}])
        assert set(heard) == {SUBJECT} and len(heard) <= 4


async def test_a_clock_that_goes_backwards_or_stands_still_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with one_lease(tmp_path) as lease:
        await lease.start()
        assert lease.valid()
        steady, wall = leases._now()
        for now, expected in (
            ((steady + 0.1, wall - 3600), True),
            ((steady + leases.VALID_S, wall - 3600), False),
            ((steady + 0.1, wall + leases.VALID_S), False),  # a machine that was stopped
        ):
            monkeypatch.setattr(leases, "_now", lambda now=now: now)
            assert lease.valid() is expected


async def test_an_expired_lease_that_nobody_took_is_still_ours(tmp_path: Path) -> None:
    async with one_lease(tmp_path) as lease:
        await lease.start()
        await lease._port.api(f"STREAM.PURGE.{lease._stream}", {})
        lease._renewed = leases._NEVER
        assert await lease._renew()
        assert lease.valid()


async def test_a_lease_that_somebody_had_meanwhile_is_lost(tmp_path: Path) -> None:
    async with one_lease(tmp_path) as lease:
        await lease.start()
        rival = Lease(lease._port, lease._names, "rival")
        await rival._write(lease._seq, held=True)
        await rival._write(rival._seq, held=False)
        await lease._port.api(f"STREAM.PURGE.{lease._stream}", {})
        await until(lambda: not lease.valid())  # it has heard of it
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lease.run)
            with pytest.raises(LeaseLost):
                await lease.confirm()
            tasks.cancel_scope.cancel()
        assert not lease.held and not lease.wanted

"""Transactions through NATS: one id each, in order, once, and reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.service import running
from natalog.core.codec import pack, unpack
from natalog.core.limits import TX_BASE
from natalog.core.record import encode_block

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]

READ = {"schema_flexibility": "read"}


async def test_eighty_concurrent_transactions_are_eighty_transactions(
    service_config: Config,
) -> None:
    """8 clients x 10 in flight: 80 ids, 80 entities, 80 reports, each client's order kept."""
    async with running(service_config()) as service, natalog.connect(service.url) as admin:
        await admin.create_database("people", **READ)
        feed: list[int] = []
        heard = asyncio.Event()

        def note(message: Any) -> None:
            feed.append(unpack(message.data)["tx"])
            if len(feed) == 80:
                heard.set()

        await service.port.subscribe("natalog.people.db.report", note)
        await service.port.api("INFO")

        async def client(number: int) -> list[Any]:
            async with natalog.connect(service.url) as own:
                conn = own.database("people")
                sends = [
                    asyncio.create_task(conn.transact([{"client": number, "nth": nth}]))
                    for nth in range(10)
                ]
                return await asyncio.gather(*sends)

        reports = await asyncio.gather(*(client(number) for number in range(8)))
        flat = [report for own in reports for report in own]
        assert len({report.tx for report in flat}) == 80
        assert len({report.commit_id for report in flat}) == 80
        for own in reports:
            assert [report.tx for report in own] == sorted(report.tx for report in own)
        db = await admin.database("people").db()
        entities = await db.q("[:find ?t :where [?t :db/txInstant _]]")
        assert {tx for (tx,) in entities} == {report.tx for report in flat}
        rows = await db.q("[:find ?c ?n ?t :where [?e :client ?c ?t] [?e :nth ?n]]")
        assert len(rows) == 80
        for number in range(8):
            own = sorted((tx, nth) for client_, nth, tx in rows if client_ == number)
            assert [nth for _, nth in own] == list(range(10))
        with anyio.fail_after(5):
            await heard.wait()
        assert sorted(feed) == feed == [TX_BASE + 1 + n for n in range(80)]
        assert service.hub.state("people", "db").position.seq < 80, "a block holds many"


async def test_a_refused_transaction_consumes_no_id(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people")
        conn = client.database("people")
        with pytest.raises(natalog.NatalogError) as caught:
            await conn.transact([{"undeclared": 1}])
        assert caught.value.code == "TransactSchema"
        report = await conn.transact([{"db/doc": "fine"}])
        assert report.tx == TX_BASE + 1


async def test_a_transaction_with_an_id_is_applied_once_for_ever(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        first = await conn.transact([{"n": 1}], {"by": "me"}, id="order-17")
        for number in range(3):
            await conn.transact([{"n": number}])
        again = await conn.transact([{"n": 99}], id="order-17")
        assert again.repeated and not first.repeated
        assert (again.tx, again.commit_id, again.tx_data) == (
            first.tx,
            first.commit_id,
            first.tx_data,
        )
        assert (again.tempids, again.tx_meta) == (first.tempids, first.tx_meta)
        together = await asyncio.gather(
            *(conn.transact([{"n": 7}], id="order-18") for _ in range(10))
        )
        assert len({report.tx for report in together}) == 1
        assert sum(not report.repeated for report in together) == 1
    async with running(config) as service, natalog.connect(service.url) as client:
        again = await client.database("people").transact([{"n": 99}], id="order-17")
        assert again.repeated and again.tx == first.tx


async def test_a_rejected_id_may_be_tried_again(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people")
        conn = client.database("people")
        with pytest.raises(natalog.NatalogError):
            await conn.transact([{"name": "x"}], id="a")
        await conn.transact(
            [
                {
                    "db/ident": ":name",
                    "db/valueType": ":db.type/string",
                    "db/cardinality": ":db.cardinality/one",
                }
            ]
        )
        assert not (await conn.transact([{"name": "x"}], id="a")).repeated


async def test_a_second_writer_makes_nobody_lose(service_config: Config) -> None:
    """Two services write one branch: each is fenced by the other, all transactions are there."""
    async with running(service_config()) as one, natalog.connect(one.url) as client:
        await client.create_database("people", **READ)
        async with running(ServiceConfig(nats=one.url)) as two:
            assert two.hub.state("people", "db") is not None
            conn = client.database("people")
            reports = await asyncio.gather(
                *(conn.transact([{"n": number}], timeout=30) for number in range(60))
            )
            assert len({report.tx for report in reports}) == 60
            top = max(report.tx for report in reports)
            for service in (one, two):
                db = await service.hub.value("people", "db", top, 10)
                assert len(db.datoms("aevt", [natalog.kw("n")])) == 60
            assert (
                one.hub.state("people", "db").db.commit_id
                == two.hub.state("people", "db").db.commit_id
            )


async def test_a_foreign_block_is_read_before_the_next_transaction(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        first = await conn.transact([{"n": 1}])
        state = service.hub.state("people", "db")
        await service.port.append("natalog.people.db.log", encode_block(state.position.hash, []))
        second = await conn.transact([{"n": 2}])
        assert second.tx == first.tx + 1
        assert state.position.seq == 4


async def test_a_large_transaction_is_refused_and_the_service_goes_on(
    service_config: Config,
) -> None:
    config = service_config(max_payload_bytes=256 * 1024)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        with pytest.raises(natalog.NatalogError) as caught:
            await conn.transact([{"text": "x" * 300_000}])
        assert caught.value.code == "TooLarge"
        with pytest.raises(natalog.NatalogError) as caught:
            await conn.transact([{"a-quite-long-attribute-name": n} for n in range(9_000)])
        assert caught.value.code == "TooLarge"
        assert (await conn.transact([{"n": 1}])).tx == TX_BASE + 1


async def test_groups_larger_than_a_message_are_split(service_config: Config) -> None:
    config = service_config(max_payload_bytes=128 * 1024)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        reports = await asyncio.gather(
            *(conn.transact([{"text": "x" * 30_000, "n": n}]) for n in range(20))
        )
        assert sorted(report.tx for report in reports) == [TX_BASE + 1 + n for n in range(20)]
        db = await conn.db()
        assert len(await db.q("[:find ?n :where [_ :n ?n]]")) == 20


async def test_the_sender_that_gave_up_is_not_served(service_config: Config, asker: Any) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        await ask.ask("_._.create", {"database": "people", **READ})
        headers, body = await ask.raw(
            "people.db.transact", pack([{"n": 1}]), {"Natalog-Timeout-Ms": "0"}
        )
        assert unpack(body)["code"] == "DeadlineExceeded"
        assert headers["Nats-Service-Error-Code"] == "408"
        info = await ask.ask("people._.info", {})
        assert info["max_tx"] == TX_BASE


async def test_instants_follow_the_given_clock(service_config: Config) -> None:
    now = 1_600_000_000_000
    async with (
        running(service_config(), clock=lambda: now) as service,
        natalog.connect(service.url) as client,
    ):
        await client.create_database("people", **READ)
        conn = client.database("people")
        reports = [await conn.transact([{"n": n}]) for n in range(3)]
        assert [
            int(report.instant.timestamp() * 1000) - now
            for report in reports
            if report.instant is not None
        ] == [0, 1, 2]

"""The durable way in: applied or rejected exactly once, also when nobody was there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.service import Service, running
from natalog.core.codec import pack, unpack
from natalog.core.limits import TX_BASE

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]
SUBJECT = "natalog.people.db.tx"


class Feed:
    """Everything that is published on the report subject."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []

    async def open(self, service: Service) -> None:
        await service.port.subscribe(
            "natalog.people.db.report", lambda message: self.bodies.append(unpack(message.data))
        )
        await service.port.api("INFO")

    async def count(self, number: int) -> list[Any]:
        with anyio.fail_after(10):
            while len(self.bodies) < number:
                await asyncio.sleep(0.005)
        return self.bodies


async def publish(service: Service, body: Any, ident: str | None = None) -> Any:
    return await service.port.append(SUBJECT, pack(body), message_id=ident)


async def test_what_is_published_is_applied_in_order_and_reported(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        feed = Feed()
        await feed.open(service)
        for number in range(20):
            ack = await publish(service, [{"n": number}], f"id-{number}")
            assert ack.seq == number + 1
        found = await feed.count(20)
        assert [body["tx"] for body in found] == [TX_BASE + 1 + n for n in range(20)]
        assert [body["id"] for body in found] == [f"id-{n}" for n in range(20)]


async def test_a_rejection_is_reported_once_and_remembered(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people")
        feed = Feed()
        await feed.open(service)
        await publish(service, [{"undeclared": 1}], "bad")
        await publish(service, b"no transaction", "worse")
        await service.port.append(SUBJECT, b"\xc1", message_id="worst")
        await publish(service, [{"db/doc": "good"}], "good")
        bodies = await feed.count(4)
        assert [body.get("id") for body in bodies] == ["bad", "worse", None, "good"]
        assert bodies[0]["rejected"]["code"] == "TransactSchema"
        assert bodies[2]["rejected"]["code"] == "CodecError"
        assert bodies[3]["tx"] == TX_BASE + 1
    async with running(config) as service, natalog.connect(service.url) as client:
        feed = Feed()
        await feed.open(service)
        with pytest.raises(natalog.NatalogError) as caught:
            await client.database("people").transact([{"db/doc": "now fine"}], id="bad")
        assert caught.value.code == "TransactSchema"
        await publish(service, [{"db/doc": "next"}], "next")
        bodies = await feed.count(1)
        assert [body["id"] for body in bodies] == ["next"], "nothing is applied a second time"


async def test_an_id_published_twice_is_applied_once(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        feed = Feed()
        await feed.open(service)
        await publish(service, [{"n": 1}], "once")
        assert (await publish(service, [{"n": 1}], "once")).duplicate
        # the stream forgets after two minutes; the log does not
        await publish(service, {"tx_data": [{"n": 1}], "id": "once"})
        report = await client.database("people").transact([{"n": 1}], id="once")
        assert report.repeated
        await publish(service, [{"n": 2}], "twice")
        bodies = await feed.count(2)
        assert [body["id"] for body in bodies] == ["once", "twice"]


async def test_what_was_published_while_nobody_was_there_is_applied_at_the_start(
    service_config: Config,
) -> None:
    async with running(service_config()) as keeper, natalog.connect(keeper.url) as client:
        await client.create_database("people", schema_flexibility="read")
        await keeper.hub.close("people")  # no transactor serves the branch now
        for number in range(10):
            await publish(keeper, [{"n": number}], f"id-{number}")
        async with running(ServiceConfig(nats=keeper.url)) as other:
            db = await other.hub.value("people", "db", TX_BASE + 10, 10)
            values = sorted(datom.v for datom in db.datoms("aevt", [natalog.kw("n")]))
            assert values == list(range(10))
            assert other.hub.state("people", "db").ingest_seq == 10


async def test_each_publish_is_applied_once_over_restarts(service_config: Config) -> None:
    config = service_config()
    for turn in range(3):
        async with running(config) as service, natalog.connect(service.url) as client:
            if turn == 0:
                await client.create_database("people", schema_flexibility="read")
            for number in range(50):
                await publish(service, [{"n": 50 * turn + number}])
            # stop while some wait
    async with running(config) as service:
        db = await service.hub.value("people", "db", TX_BASE + 150, 20)
        values = [datom.v for datom in db.datoms("aevt", [natalog.kw("n")])]
        assert sorted(values) == list(range(150))
        instants = [datom.tx for datom in db.datoms("aevt", [natalog.kw("n")])]
        assert len(set(instants)) == 150


async def test_an_earlier_database_leaves_nothing_to_a_later_one(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        await service.hub.close("people")
        await publish(service, [{"n": 1}], "old")
        await client.delete_database("people")
        await client.create_database("people", schema_flexibility="read")
        report = await client.database("people").transact([{"n": 2}])
        assert report.tx == TX_BASE + 1
        assert (await publish(service, [{"n": 3}], "new")).seq == 1

"""Databases: made once, listed, deleted with everything, made again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.service import running
from natalog.core.codec import pack
from natalog.core.limits import TX_BASE
from natalog.core.values import kw

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]
READ = {"schema_flexibility": "read"}


async def test_a_database_is_made_listed_and_deleted(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        assert await client.list_databases() == []
        await client.create_database("people", keep_history=False)
        await client.create_database("Zoo-1_x", schema_flexibility="read")
        listed = {entry["database"]: entry for entry in await client.list_databases()}
        assert listed.keys() == {"people", "Zoo-1_x"}
        assert listed["people"]["keep_history"] is False
        assert listed["Zoo-1_x"]["schema_flexibility"] == "read"
        assert await client.database_exists("people")
        assert await client.delete_database("people")
        assert not await client.delete_database("people")
        assert not await client.database_exists("people")
        streams = await service.port.streams("natalog.people.>")
        assert streams == []


async def test_of_many_creations_at_once_one_wins(service_config: Config, asker: Any) -> None:
    async with running(service_config()) as one, running(ServiceConfig(nats=one.url)) as two:
        answers = await asyncio.gather(
            *(
                asker(service.port).ask("_._.create", {"database": "people", **READ})
                for service in (one, two)
                for _ in range(5)
            )
        )
        codes = [answer.get("code", "made") for answer in answers]
        assert sorted(codes) == ["DatabaseExists"] * 9 + ["made"]


async def test_a_first_transaction_is_part_of_the_creation(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        schema = {
            kw("db/ident"): kw("name"),
            kw("db/valueType"): kw("db.type/string"),
            kw("db/cardinality"): kw("db.cardinality/one"),
        }
        await client.create_database("people", initial_tx=[schema])
        conn = client.database("people")
        info = await conn.info()
        assert (info["max_tx"], info["log_sequence"]) == (TX_BASE + 1, 1)
        await conn.transact([{"name": "Ivan"}])
        with pytest.raises(natalog.NatalogError):
            await client.create_database("broken", initial_tx=[{"undeclared": 1}])
        assert not await client.database_exists("broken")


async def test_a_database_made_again_is_empty(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        for turn in range(3):
            await client.create_database("people", **READ)
            conn = client.database("people")
            report = await conn.transact([{"n": turn}])
            assert report.tx == TX_BASE + 1
            db = await conn.db()
            assert await db.q("[:find ?n :where [_ :n ?n]]") == {(turn,)}
            await client.delete_database("people")
            with pytest.raises(natalog.NatalogError) as caught:
                await conn.transact([{"n": 1}])
            assert caught.value.code == "DatabaseNotFound"


async def test_a_creation_that_was_cut_short_is_completed_by_the_next(
    service_config: Config, asker: Any
) -> None:
    config = service_config()
    async with running(config) as service:
        ask = asker(service.port)
        from natalog.actors.log import BranchLog

        await BranchLog(service.port, service.names, "people", "db").create()
        assert (await ask.ask("people.db.transact", []))["code"] == "DatabaseNotFound"
        assert (await ask.ask("_._.list", {}))["databases"] == []
        garbage = await service.catalog.orphans()
        assert [item["database"] for item in garbage] == ["people"]
        await ask.ask("_._.create", {"database": "people", **READ})
        assert (await ask.ask("people.db.transact", [{"n": 1}]))["tx"] == TX_BASE + 1


async def test_the_gc_reports_what_belongs_to_nothing(service_config: Config, asker: Any) -> None:
    async with running(service_config(gc_interval_s=0.05)) as service:
        ask = asker(service.port)
        await ask.ask("_._.create", {"database": "people", **READ})
        await service.port.stream_create(
            {"name": "stray", "subjects": ["natalog.gone.db.tx"], "storage": "file"}
        )
        await service.port.append("natalog.gone.db.tx", pack([]))
        found = await ask.ask("people._.gc", {"dry_run": True})
        assert [item["stream"] for item in found["garbage"]] == ["stray"]
        assert found["freed"] == ["stray"] and found["bytes"] > 0
        assert (await ask.ask("people._.gc", {}))["freed"] == []
        for _ in range(200):
            if service.gc.last:
                break
            await asyncio.sleep(0.01)
        assert service.gc.last, "the schedule runs too"
        assert await service.port.stream_info("stray") is not None, "nothing is removed yet"

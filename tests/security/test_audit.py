"""Who sent a transaction: recorded where NATS vouches for it, and not to be forged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.nats_port import NatsPort
from natalog.actors.service import running
from natalog.connection import Access
from natalog.core.codec import pack, unpack
from natalog.core.errors import Forbidden, InvalidConfig, NatalogError
from natalog.core.values import Keyword

ROOT = Path(__file__).parents[2]
AUTHORS = (
    "[:find ?tx ?who ?account :where [?tx :natalog/author ?who] [?tx :natalog/account ?account]]"
)


def access(user: str) -> Access:
    prefix = None if user == "service" else "JS.natalog"
    return Access(user=user, password=f"of-{user}", js_api_prefix=prefix)


@asynccontextmanager
async def audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[dict[str, Any]]:
    """Clients of a service with the shipped accounts; `inside` shares the service's account."""
    for user in ("service", "ann", "bob"):
        monkeypatch.setenv(f"NATALOG_{user.upper()}_PASSWORD", f"of-{user}")
    config = ServiceConfig(
        data=tmp_path / "data",
        listen="127.0.0.1:0",
        server_config=ROOT / "config" / "nats" / "accounts.conf",
        access=access("service"),
        **{"audit": True, **settings},
    )
    async with running(config) as service:
        clients = {
            "ann": await natalog.connect(service.url, access=access("ann"), name="ann's laptop"),
            "bob": await natalog.connect(service.url, access=access("bob")),
            "inside": await natalog.connect(service.url, access=access("service")),
        }
        try:
            yield {**clients, "url": service.url}
        finally:
            for client in clients.values():
                await client.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("flexibility", ["read", "write"])
async def test_the_author_is_a_fact_about_the_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flexibility: str
) -> None:
    async with audited(tmp_path, monkeypatch) as lab:
        await lab["ann"].create_database("people", schema_flexibility=flexibility)
        ann, bob = lab["ann"].database("people"), lab["bob"].database("people")
        schema = {"db/ident": ":name", "db/valueType": ":db.type/string"}
        first = await ann.transact([{**schema, "db/cardinality": ":db.cardinality/one"}])
        why = {"why": "because"} if flexibility == "read" else None
        second = await bob.transact([{"name": "Cid"}], tx_meta=why)
        third = await lab["inside"].database("people").transact([{"name": "Dan"}])
        assert first.tx_meta[Keyword("natalog/author")] == "ann"
        assert first.tx_meta[Keyword("natalog/connection")] == "ann's laptop"
        assert second.tx_meta.get(Keyword("why")) == (why and why["why"])
        assert Keyword("natalog/author") not in third.tx_meta
        assert await ann.q(AUTHORS) == {(first.tx, "ann", "USERS"), (second.tx, "bob", "USERS")}
        # feeds and logs tell it as well
        async for report in bob.reports(since=first.tx - 1):
            assert report.tx_meta[Keyword("natalog/author")] == "ann"
            break


@pytest.mark.asyncio
async def test_merges_have_authors_and_what_was_ingested_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with audited(tmp_path, monkeypatch) as lab:
        await lab["ann"].create_database("people", schema_flexibility="read")
        conn = lab["ann"].database("people")
        await conn.transact([{"name": "Ann"}])
        await conn.branch("work")
        await lab["bob"].database("people", branch="work").transact([{"name": "Bob"}])
        merged = await lab["bob"].database("people").merge("work", policy="fail")
        assert merged.tx_meta[Keyword("natalog/author")] == "bob"
        with_data = await conn.merge({"work"}, [{"name": "Cid"}])
        assert with_data.tx_meta[Keyword("natalog/author")] == "ann"
        # JetStream takes the name off what it stores
        async with conn.reports() as feed:
            await conn.publish([{"name": "Dan"}])
            report = await asyncio.wait_for(anext(feed), 10)
        assert Keyword("natalog/author") not in report.tx_meta


@pytest.mark.asyncio
async def test_nobody_says_who_somebody_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with audited(tmp_path, monkeypatch) as lab:
        await lab["ann"].create_database("people", schema_flexibility="read")
        conn = lab["ann"].database("people")
        first = await conn.transact([{"name": "Ann"}])
        author = {"natalog/author": "boss"}
        for data, meta in (
            ([{"name": "x"}], author),
            ([{"name": "x"}], {":natalog/author": "boss"}),
            ([{"name": "x"}], {Keyword("natalog/account"): "boss"}),
            ([["db/add", "db/current-tx", "natalog/author", "boss"]], None),
            ([["db/add", first.tx, "natalog/author", "boss"]], None),
            ([["db/retract", first.tx, "natalog/author", "ann"]], None),
            ([{"natalog/author": "boss"}], None),
            ([{"db/ident": ":natalog/author", "db/doc": "mine"}], None),
        ):
            for client in ("ann", "inside"):
                with pytest.raises(NatalogError) as refused:
                    await lab[client].database("people").transact(data, meta)
                assert isinstance(refused.value, Forbidden), (data, meta, client)
        assert await conn.q(AUTHORS) == {(first.tx, "ann", "USERS")}

        # a header that a client sends is nothing, in whatever account it is
        forged = {"Nats-Request-Info": json.dumps({"user": "boss", "acc": "USERS"})}
        body = pack({"tx_data": [{"name": "y"}]})
        for user, wanted in (("ann", "ann"), ("service", None)):
            port = await NatsPort.connect(lab["url"], access=access(user))
            answer = await port.request("natalog.people.db.transact", body, headers=forged)
            meta = unpack(answer.data)["tx_meta"]
            assert meta.get(Keyword("natalog/author")) == wanted
            # and nobody may ask as nats-server does
            await port.publish(
                "natalog.people.db.transact", body, headers=forged, reply="_R_.abcdef.ghijkl"
            )
            await port.publish("natalog.people.db.transact", body, headers=forged)
            await port.close()
        found = await conn.q("[:find [?who ...] :where [_ :natalog/author ?who]]")
        assert set(found) == {"ann"}


@pytest.mark.asyncio
async def test_without_audit_nothing_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with audited(tmp_path, monkeypatch, audit=False) as lab:
        await lab["ann"].create_database("people", schema_flexibility="read")
        report = await lab["ann"].database("people").transact([{"name": "Ann"}])
        assert set(report.tx_meta) == {Keyword("db/txInstant")}


@pytest.mark.asyncio
async def test_large_answers_and_refusals_cross_accounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with audited(tmp_path, monkeypatch, max_payload_bytes=64 * 1024) as lab:
        await lab["ann"].create_database("people", schema_flexibility="read")
        conn = lab["ann"].database("people")
        for number in range(60):
            await conn.transact([{"name": f"{number}{'n' * 20_000}"}])
        assert len(await conn.q("[:find ?n :where [_ :name ?n]]")) == 60
        with pytest.raises(NatalogError):
            await lab["bob"].database("nobody").db()


def test_audit_is_true_or_false() -> None:
    with pytest.raises(InvalidConfig, match="audit"):
        ServiceConfig(audit="yes")  # type: ignore[arg-type]

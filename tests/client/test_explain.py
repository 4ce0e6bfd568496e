"""Explaining, measuring, bounding and cancelling queries: on a service and in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import natalog
from natalog import QueryPlan, local, sync
from natalog.core.errors import BadRequest, QueryCancelled, QueryTimeout

OPEN: dict[str, Any] = {"schema_flexibility": "read"}
PEOPLE = [{"name": f"n{i}", "age": i} for i in range(20)]
QUERY = "[:find ?n ?b :in $ ?a :where [?e :name ?n] [?e :age ?b] [(> ?b ?a)]]"
RUNAWAY = """[:find (count ?s) :where [?a :age ?x] [?b :age ?y] [?c :age ?z] [?d :age ?u]
              [(str ?x "-" ?y "-" ?z "-" ?u) ?s]]"""
MANY = [{"age": i} for i in range(40)]


def check_plan(plan: QueryPlan) -> None:
    assert {step["clause"] for step in plan.steps} == {
        "[?e :name ?n]",
        "[?e :age ?b]",
        "[(> ?b ?a)]",
    }
    assert all(step["depth"] == 0 and step["rows"] >= 0 for step in plan.steps)
    assert any(step["estimated"] is not None for step in plan.steps)
    assert plan.stats.rows == 4
    assert plan.stats.steps == len(plan.steps)
    assert plan.stats.rows_touched >= plan.stats.rows
    assert "[?e :age ?b]" in str(plan) and "answer" in plan.text


def test_a_local_query_is_explained() -> None:
    conn = local.Registry().create_database("people", **OPEN)
    conn.transact(PEOPLE)
    db = conn.db()
    check_plan(db.explain(QUERY, 15))
    answer = db.q(QUERY, 15, stats=True)
    assert answer.result == db.q(QUERY, 15)
    assert answer.stats.rows == 4
    assert db.explain(QUERY, 15, limit=2).stats.rows == 2


def test_a_local_query_ends_at_its_deadline() -> None:
    conn = local.Registry().create_database("many", **OPEN)
    conn.transact(MANY)
    with pytest.raises(QueryTimeout):
        conn.db().q(RUNAWAY, timeout=0.2)


def test_a_service_explains_and_measures(service_url: str, fresh_name: Callable[[], str]) -> None:
    with sync.connect(service_url) as client:
        name = fresh_name()
        client.create_database(name, **OPEN)
        conn = client.database(name)
        conn.transact(PEOPLE)
        db = conn.db()
        check_plan(db.explain(QUERY, 15))
        answer = db.q(QUERY, 15, stats=True)
        assert answer.result == db.q(QUERY, 15)
        assert answer.stats.rows == 4 and answer.stats.elapsed_ms >= 0
        assert conn.q("[:find (count ?e) . :where [?e :name]]", stats=True).result == 20


@pytest.mark.asyncio
async def test_a_runaway_query_is_stopped_and_the_service_goes_on(
    service_url: str, fresh_name: Callable[[], str]
) -> None:
    async with natalog.connect(service_url) as client:
        name = fresh_name()
        await client.create_database(name, **OPEN)
        conn = client.database(name)
        await conn.transact(MANY)
        db = await conn.db()
        with pytest.raises(QueryTimeout):
            await db.q(RUNAWAY, timeout=0.3)
        assert len(await db.q("[:find ?e :where [?e :age]]")) == len(MANY)

        body = {"query": RUNAWAY, "request_id": f"{name}-1", "timeout_ms": 60_000}
        session = client.session
        query, cancel = (session.subject(name, "db", part) for part in ("query", "cancel"))
        running = asyncio.create_task(session.ask(query, body, timeout_s=60))
        for _ in range(100):
            await asyncio.sleep(0.05)
            try:
                done = await session.ask(cancel, {"request_id": f"{name}-1"}, timeout_s=0.2)
            except natalog.NatalogError:
                continue  # it has not begun yet
            assert done.body == {"cancelled": True}
            break
        with pytest.raises(QueryCancelled):
            await running
        assert len(await db.q("[:find ?e :where [?e :age]]")) == len(MANY)


@pytest.mark.asyncio
async def test_cancelling_the_task_that_waits_tells_the_service(
    service_url: str, fresh_name: Callable[[], str]
) -> None:
    async with natalog.connect(service_url) as client:
        name = fresh_name()
        await client.create_database(name, **OPEN)
        conn = client.database(name)
        await conn.transact(MANY)
        db = await conn.db()
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def note(message: Any) -> None:
            heard.put_nowait(message.data)

        await client.session.transport.subscribe(f"natalog.{name}.db.cancel", note)
        running = asyncio.create_task(db.q(RUNAWAY, timeout=60))
        await asyncio.sleep(0.2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        async with asyncio.timeout(10):
            assert b"request_id" in await heard.get()
        # as many more as there are workers would wait for the runaway if it had not ended
        found = await asyncio.gather(*(db.q("[:find ?e :where [?e :age]]") for _ in range(8)))
        assert all(len(rows) == len(MANY) for rows in found)


@pytest.mark.asyncio
async def test_wrong_options_are_refused(service_url: str, fresh_name: Callable[[], str]) -> None:
    async with natalog.connect(service_url) as client:
        name = fresh_name()
        await client.create_database(name, **OPEN)
        subject = client.session.subject(name, "db", "query")
        for wrong in (
            {"explain": 1},
            {"stats": "yes"},
            {"request_id": 5},
            {"request_id": "x" * 200},
        ):
            with pytest.raises(BadRequest):
                await client.session.ask(subject, {"query": QUERY, **wrong})

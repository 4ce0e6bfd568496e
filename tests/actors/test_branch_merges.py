"""Merges with the caller's data: one commit with several parents, checked before it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.service import running
from natalog.core.codec import unpack
from natalog.core.errors import (
    BadRequest,
    BranchNotFound,
    CommitNotFound,
    ParentsRequired,
    TransactSchema,
)
from natalog.core.limits import LANE_BITS, TX_BASE
from natalog.core.values import Keyword

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]

READ = {"schema_flexibility": "read"}
VALUES = "[:find ?v :where [_ :n ?v]]"


async def numbers(conn: natalog.Conn) -> set[int]:
    return {v for (v,) in await (await conn.db()).q(VALUES)}


async def test_a_merge_is_a_transaction_with_more_parents(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        root = await conn.transact([{"n": 0}])
        await conn.branch("a")
        await conn.branch("b")
        a, b = client.database("people", "a"), client.database("people", "b")
        ra = await a.transact([{"n": 1}])
        rb = await b.transact([{"n": 2}])
        own = await conn.transact([{"n": 3}])
        heard: list[Any] = []
        await service.port.subscribe("natalog.people.db.report", heard.append)
        await service.port.api("INFO")
        merged = await conn.merge(["a", rb.commit_id, "a", "db"], [{"n": 4}], {"why": "both"})
        parents = [own.commit_id, ra.commit_id, rb.commit_id]
        assert (await conn.info())["parents"] == parents, "the own head first, each once"
        assert merged.tx == own.tx + 1, "on the lane of the branch"
        assert {d.tx for d in merged.tx_data} == {merged.tx}, "merged facts carry its transaction"
        assert merged.tx_meta[Keyword("why")] == "both"
        assert await numbers(conn) == {0, 3, 4}, "only what the caller gave"
        history = await conn.branch_history()
        assert [c.commit_id for c in history[:4]] == [merged.commit_id, *parents]
        assert len(history) == 6 and len({c.commit_id for c in history}) == 6
        assert history[4].commit_id == root.commit_id
        assert [c.commit_id for c in await conn.branch_history(limit=2)] == [
            merged.commit_id,
            own.commit_id,
        ]
        feed = conn.reports(since=own.tx)
        replayed = await anext(feed)
        await feed.aclose()
        assert (replayed.tx, replayed.commit_id) == (merged.tx, merged.commit_id)
        for _ in range(100):
            if heard:
                break
            await asyncio.sleep(0.01)
        assert unpack(heard[0].data)["tx"] == merged.tx
        into = await a.merge("db", [{"n": 5}])
        assert (into.tx - TX_BASE) >> LANE_BITS == 1
        assert (await a.info())["parents"] == [ra.commit_id, merged.commit_id]
        before = [await one.branch_history() for one in (conn, a, b)]
    async with running(config) as service, natalog.connect(service.url) as client:
        for name, commits in zip(("db", "a", "b"), before, strict=True):
            assert await client.database("people", name).branch_history() == commits


async def test_nothing_is_written_unless_every_parent_exists(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people")
        conn = client.database("people")
        await conn.branch("a")
        await conn.branch("gone")
        report = await client.database("people", "gone").transact([{"db/doc": "x"}])
        await conn.delete_branch("gone")
        before = await conn.info()
        cases: list[tuple[type[natalog.NatalogError], Any, Any]] = [
            (ParentsRequired, [], []),
            (BranchNotFound, ["a", "nowhere"], []),
            (BranchNotFound, ["gone"], []),
            (CommitNotFound, ["a", UUID(int=1)], []),
            (BadRequest, [7], []),
            (TransactSchema, ["a"], [{"undeclared": 1}]),
        ]
        for expected, parents, data in cases:
            with pytest.raises(expected):
                await conn.merge(parents, data)
        assert await conn.info() == before
        await conn.merge([report.commit_id], [{"db/doc": "a deleted branch's commit is one"}])
        assert len((await conn.info())["parents"]) == 2


async def test_two_branches_that_made_entities_merge_without_mixing_them(
    service_config: Config,
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.branch("a")
        a = client.database("people", "a")
        for number in range(3):
            await conn.transact([{"n": number, "where": "db"}])
            await a.transact([{"n": number + 10, "where": "a"}])
        rows = await (await a.db()).q("[:find ?e ?n ?w :where [?e :n ?n] [?e :where ?w]]")
        await conn.merge({"a"}, [{"db/id": e, "n": n, "where": w} for e, n, w in rows])
        found = await (await conn.db()).q("[:find ?e ?n ?w :where [?e :n ?n] [?e :where ?w]]")
        assert rows < found and len(found) == 6
        assert len({e for e, _, _ in found}) == 6
        more = await conn.transact([{"n": 99}])
        assert max(d.e for d in more.tx_data if d.e != more.tx) < 2**LANE_BITS


async def test_the_walk_of_git(service_config: Config) -> None:
    """branch, write on both, merge, delete, collect, write: the next commit has one parent."""
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.transact([{"n": 0}])
        await conn.branch("a")
        ra = await client.database("people", "a").transact([{"n": 1}])
        await conn.transact([{"n": 2}])
        merged = await conn.merge({"a"}, [{"n": 1}])
        await conn.delete_branch("a")
        assert (await conn.gc())["removed"] == 0, "a merged branch's commits are history"
        after = await conn.transact([{"n": 3}])
        assert (await conn.info())["parents"] == [merged.commit_id]
        assert (await conn.info())["commit_id"] == after.commit_id
        assert ra.commit_id in {c.commit_id for c in await conn.branch_history()}
        old = await conn.commit_db(ra.commit_id)
        assert {v for (v,) in await old.q(VALUES)} == {0, 1}
        assert await numbers(conn) == {0, 1, 2, 3}


async def test_a_merge_with_an_id_is_applied_once(service_config: Config, asker: Any) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        await ask.ask("_._.create", {"database": "people", **READ})
        await ask.ask("people._.branch", {"to": "a"})
        await ask.ask("people.a.transact", [{"n": 1}])
        body = {"branch": "db", "parents": ["a"], "tx_data": [{"n": 2}], "id": "m1"}
        first = await ask.ask("people._.merge", body)
        again = await ask.ask("people._.merge", body)
        assert again["repeated"] and again["commit_id"] == first["commit_id"]
        text = "{:branch :db :parents #{:a} :tx-data [{:n 3}]}"
        assert ":commit-id" in await ask.edn("people._.merge", text)

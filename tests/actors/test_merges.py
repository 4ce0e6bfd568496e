"""Three-way merges through the service: beside writers, on the wire, across restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

import natalog
from natalog.actors import merges
from natalog.actors.config import ServiceConfig
from natalog.actors.service import running
from natalog.core.edn import read
from natalog.core.errors import Busy, CommitNotFound, DeadlineExceeded, MergeConflict
from natalog.core.limits import LANE_BITS, TX_BASE
from natalog.core.values import Keyword

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]

READ = {"schema_flexibility": "read"}
VALUES = "[:find ?v :where [_ :n ?v]]"


async def numbers(conn: natalog.Conn) -> set[int]:
    return {v for (v,) in await (await conn.db()).q(VALUES)}


async def forked(client: natalog.Client) -> tuple[natalog.Conn, natalog.Conn]:
    """A database with a branch ``foo`` that is one transaction ahead."""
    await client.create_database("people", **READ)
    conn = client.database("people")
    await conn.transact([{"n": 0}])
    await conn.branch("foo")
    foo = client.database("people", "foo")
    await foo.transact([{"n": 100}])
    return conn, foo


def after_each_plan(monkeypatch: pytest.MonkeyPatch, work: Callable[[int], Any]) -> list[int]:
    """Have ``work`` done between each plan and its commit; the list counts plans."""
    plans: list[int] = []
    inner = merges.Merger.plan

    async def plan(self: Any, state: Any, wish: Any) -> Any:
        found = await inner(self, state, wish)
        plans.append(len(plans))
        await work(plans[-1])
        return found

    monkeypatch.setattr(merges.Merger, "plan", plan)
    return plans


async def test_a_merge_is_planned_again_when_the_head_has_moved(
    service_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn, foo = await forked(client)

        async def write(plan: int) -> None:
            if plan < 2:
                await conn.transact([{"n": plan + 1}])

        plans = after_each_plan(monkeypatch, write)
        merged = await conn.merge("foo")
        assert len(plans) == 3
        assert not merged.fast_forward, "the last plan counts"
        assert await numbers(conn) == {0, 1, 2, 100}
        history = await conn.branch_history()
        assert history[0].parents == (history[1].commit_id, (await foo.info())["commit_id"])


async def test_a_merge_ends_however_busy_its_branch_is(
    service_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn, _ = await forked(client)
        writes: list[asyncio.Task[Any]] = []

        async def write(plan: int) -> None:
            made = asyncio.ensure_future(conn.transact([{"n": plan + 1}]))
            writes.append(made)
            await asyncio.wait([made], timeout=0.2)

        plans = after_each_plan(monkeypatch, write)
        await conn.merge("foo")
        assert len(plans) == merges.PLANS_BESIDE + 1, "at last the transactor waits for the plan"
        await asyncio.gather(*writes)
        assert await numbers(conn) == {0, 1, 2, 3, 4, 100}
        heads = [commit.parents for commit in await conn.branch_history()]
        assert len(heads[1]) == 2, "what came meanwhile follows the merge"


async def test_a_merge_gives_up_when_its_branch_moves_all_the_time(
    service_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merges, "PLANS_MAX", 2)
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn, _ = await forked(client)

        async def write(plan: int) -> None:
            await conn.transact([{"n": plan + 1}])

        after_each_plan(monkeypatch, write)
        with pytest.raises((Busy, DeadlineExceeded)):  # the client asks again while it has time
            await conn.merge("foo", timeout=0.5)
        assert {0, 1, 2} <= await numbers(conn)
        assert 100 not in await numbers(conn), "nothing of the other side was merged"


async def test_merges_beside_writers_lose_nothing(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn, foo = await forked(client)

        async def write(where: natalog.Conn, start: int) -> None:
            for number in range(start, start + 20):
                await where.transact([{"n": number}])

        async def merge(into: natalog.Conn, other: str) -> None:
            for _ in range(4):
                await into.merge(other)

        await asyncio.gather(
            write(conn, 200), write(foo, 300), merge(conn, "foo"), merge(foo, "db")
        )
        await conn.merge("foo")
        await foo.merge("db")
        expected = {0, 100, *range(200, 220), *range(300, 320)}
        assert await numbers(conn) == await numbers(foo) == expected
        count = "[:find (count ?e) . :where [?e :n]]"
        assert await (await conn.db()).q(count) == len(expected), "no fact arrived twice"
        ids = await (await conn.db()).q("[:find [?e ...] :where [?e :n]]")
        assert {e >> LANE_BITS for e in ids} == {0, 1}


async def test_merges_stand_after_a_restart(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        conn, foo = await forked(client)
        await conn.transact([{"n": 1}])
        first = await conn.merge("foo")
        theirs = (await foo.info())["commit_id"]
        history = await conn.branch_history()
        await foo.transact([{"n": 101}])
    async with running(config) as service, natalog.connect(service.url) as client:
        conn, foo = client.database("people"), client.database("people", "foo")
        assert await conn.branch_history() == history
        assert await numbers(conn) == {0, 1, 100}
        merged = await conn.merge("foo")
        assert merged.base == (theirs,), "the base is read from the other log again"
        assert merged.tx == first.tx + 1 and (merged.tx - TX_BASE) >> LANE_BITS == 0
        assert await numbers(conn) == {0, 1, 100, 101}
        await conn.delete_branch("foo")
        await conn.gc()
        assert (await conn.merge(theirs)).up_to_date
        after = await conn.transact([{"n": 2}])
        assert (await conn.info())["parents"] == [merged.commit_id]
        assert (await conn.info())["commit_id"] == after.commit_id
        with pytest.raises(CommitNotFound):
            await conn.merge(UUID(int=1))


async def test_every_form_of_request_merges(service_config: Config, asker: Any) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn, foo = await forked(client)
        ask = asker(service.port)
        await conn.transact([{"db/id": 1, "n": 1}])
        await foo.transact([{"db/id": 1, "n": 2}])
        told = read(await ask.edn("people._.merge", "{:from :foo}"))
        assert told[Keyword("code")] == "MergeConflict"
        (conflict,) = told[Keyword("data")][Keyword("conflicts")]
        assert conflict == {
            Keyword("kind"): "value",
            Keyword("entity"): 1,
            Keyword("attribute"): Keyword("n"),
            Keyword("base"): [0],
            Keyword("ours"): [1],
            Keyword("theirs"): [2],
        }
        headers, data = await ask.raw("people._.merge", b'{"parents": ["foo"]}')
        assert headers["Nats-Service-Error-Code"] == "409"
        assert json.loads(data)["data"]["conflicts"][0]["attribute"] == ":n"
        seen = read(await ask.edn("people._.merge", "{:from foo :policy :theirs :dry-run true}"))
        assert seen[Keyword("fast-forward")] is False
        assert [Keyword("db/add"), 1, Keyword("n"), 2] in seen[Keyword("tx-data")]
        text = (
            '{:branch db :from :foo :id "m" :resolutions [{:entity 1 :attribute :n :take :ours}]}'
        )
        merged = read(await ask.edn("people._.merge", text))
        assert merged[Keyword("up-to-date")] is False and merged[Keyword("id")] == "m"
        again = read(await ask.edn("people._.merge", text))
        assert again[Keyword("repeated")] is True
        assert again[Keyword("commit-id")] == merged[Keyword("commit-id")]
        assert await numbers(conn) == {1, 100}
        for wrong in (
            "{:from foo :parents [foo]}",
            "{:from foo :dry-run 1}",
            "{:from foo :resolutions 1}",
            "{:from foo :tx-data [] :dry-run true}",
            "{:from [foo db]}",
            "{:from foo :by magic}",
        ):
            answer = read(await ask.edn("people._.merge", wrong))
            assert answer[Keyword("code")] == "BadRequest", wrong


async def test_many_conflicts_are_all_told(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn, foo = client.database("people"), client.database("people", "foo")
        entities = range(1, 3001)
        await conn.transact([{"db/id": e, "n": 0, "text": "x" * 100} for e in entities])
        await conn.branch("foo")
        for where, text in ((conn, "o" * 200), (foo, "t" * 200)):
            await where.transact([{"db/id": e, "text": text} for e in entities])
        with pytest.raises(MergeConflict) as caught:
            await conn.merge("foo")
        conflicts = caught.value.data["conflicts"]
        assert [c["entity"] for c in conflicts] == list(entities)
        assert conflicts[-1]["theirs"] == ["t" * 200]
        assert len((await conn.merge_preview("foo"))["conflicts"]) == 3000


async def test_merges_by_two_services_lose_nothing(service_config: Config) -> None:
    async with (
        running(service_config()) as one,
        running(service_config(nats=one.url)),
        natalog.connect(one.url) as client,
    ):
        conn, foo = await forked(client)
        for turn in range(10):
            await conn.transact([{"n": 200 + turn}])
            await foo.transact([{"n": 300 + turn}])
            await conn.merge("foo")
            await foo.merge("db")
            assert (await foo.merge("db")).up_to_date
        expected = {0, 100, *range(200, 210), *range(300, 310)}
        assert await numbers(conn) == await numbers(foo) == expected
        parents = [len(commit.parents) for commit in await conn.branch_history()]
        assert parents.count(2) == 19, "all merges but the last one into the other branch"

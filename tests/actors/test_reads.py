"""Reads: views, bases, several databases, and nobody waits for a slow one."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.service import running
from natalog.core.limits import TX_BASE
from natalog.core.values import Tagged

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]
AGES = "[:find [?a ...] :where [_ :age ?a]]"
READ = {"schema_flexibility": "read"}


async def three(ask: Any, **settings: Any) -> list[int]:
    """A database whose entity 1 was 15, 16, then 17."""
    await ask.ask("_._.create", {"database": "people", **READ, **settings})
    found = []
    for age in (15, 16, 17):
        report = await ask.ask("people.db.transact", [{"db/id": 1, "age": age}])
        found.append(report["tx"])
    return found


async def ages(ask: Any, view: Any = None, **more: Any) -> Any:
    answer = await ask.ask("people.db.query", {"query": AGES, "view": view, **more})
    return answer["result"] if "result" in answer else answer["code"]


async def test_views_compose(service_config: Config, asker: Any) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        t1, t2, t3 = await three(ask)
        assert await ages(ask) == [17]
        assert await ages(ask, {"as_of": t1}) == [15]
        assert await ages(ask, {"at": t2}) == [16]
        assert await ages(ask, {"since": t3}) == []
        assert sorted(await ages(ask, {"history": True})) == [15, 16, 17]
        assert sorted(await ages(ask, {"as_of": t2, "history": True})) == [15, 16]
        assert await ages(ask, {"of": {"as_of": t2}, "as_of": t3}) == [16]
        assert sorted(await ages(ask, {"with": [{"db/id": 2, "age": 50}]})) == [17, 50]
        assert sorted(await ages(ask, {"of": {"at": t1}, "with": [{"db/id": 2, "age": 50}]})) == [
            15,
            50,
        ]
        history = await ask.ask("people.db.history", {})
        commits = history["result"]
        assert [entry["tx"] for entry in commits] == [t3, t2, t1, TX_BASE]
        for newer, older in itertools.pairwise(commits):
            assert newer["parents"] == [older["commit_id"]]
        assert await ages(ask, {"commit": commits[1]["commit_id"]}) == [16]
        assert await ages(ask, {"commit": commits[3]["commit_id"]}) == []
        limited = await ask.ask("people.db.history", {"limit": 2})
        assert limited["result"] == commits[:2]


async def test_old_values_stay_readable_without_history(service_config: Config, asker: Any) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        t1, t2, _ = await three(ask, keep_history=False)
        assert await ages(ask, {"at": t1}) == [15]
        assert await ages(ask, {"at": t2}) == [16]
        assert await ages(ask, {"as_of": t1}) == "NoHistory"


async def test_a_basis_is_waited_for(service_config: Config, asker: Any) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        *_, last = await three(ask)
        waiting = asyncio.create_task(ages(ask, None, basis=last + 1, timeout_ms=5000))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await ask.ask("people.db.transact", [{"db/id": 1, "age": 18}])
        assert await waiting == [18]


async def test_databases_join_in_one_query(service_config: Config, asker: Any) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        t1, *_ = await three(ask)
        await ask.ask(
            "_._.create",
            {"database": "names", **READ, "initial_tx": [{"db/id": 1, "name": "Ivan"}]},
        )
        body = {
            "query": "[:find ?n ?a ?old :in $ $2 $3 :where [$2 ?e :name ?n] [$ ?e :age ?a] "
            "[$3 ?e :age ?old]]",
            "args": [
                Tagged("natalog/db", {"database": "names"}),
                Tagged("natalog/db", {"as_of": t1}),
            ],
        }
        # args begin with a database, so they are all there is: the arity is wrong
        assert (await ask.ask("people.db.query", body))["code"] == "QueryBinding"
        body["args"].insert(0, Tagged("natalog/db", {}))
        assert (await ask.ask("people.db.query", body))["result"] == [["Ivan", 17, 15]]
        text = (
            "{:query [:find ?n . :in $ $2 :where [$2 _ :name ?n]] "
            ':args [#natalog/db {} #natalog/db {:database "names"}]}'
        )
        assert await ask.edn("people.db.query", text) == '"Ivan"'


async def test_a_missing_input_is_an_error_and_not_everything(
    service_config: Config, asker: Any
) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        await three(ask)
        query = "[:find ?e :in $ ?a :where [?e :age ?a]]"
        assert (await ask.ask("people.db.query", {"query": query, "args": [17]}))["result"] == [[1]]
        for args in ([], [Tagged("natalog/db", {})], [Tagged("natalog/db", {}), 17, 18]):
            found = await ask.ask("people.db.query", {"query": query, "args": args})
            assert found["code"] == "QueryBinding"


async def test_a_slow_query_ends_at_its_deadline_and_holds_up_nobody(
    service_config: Config, asker: Any
) -> None:
    async with running(service_config(query_threads=2)) as service:
        ask = asker(service.port)
        await three(ask)
        body = {
            "query": "[:find (count ?x) . :in [?a ...] [?b ...] [?c ...] [?d ...] "
            ":where [(+ ?a ?b ?c ?d) ?x]]",
            "args": [list(range(100))] * 4,
            "timeout_ms": 400,
        }
        slow = asyncio.create_task(ask.ask("people.db.query", body))
        began = time.monotonic()
        await asyncio.sleep(0.02)
        assert await ages(ask) == [17]
        assert (await ask.ask("people.db.transact", [{"db/id": 1, "age": 20}]))["tx"]
        found = await slow
        assert found["code"] in ("QueryTimeout", "QueryLimit")
        assert time.monotonic() - began < 20
        assert await ages(ask) == [20]


async def test_a_query_process_follows_the_log_alone(service_config: Config, asker: Any) -> None:
    async with running(service_config(role="transactor")) as writer:
        ask = asker(writer.port)
        await ask.ask("_._.create", {"database": "early", **READ})
        with pytest.raises(natalog.NatalogError) as caught:
            await ask.ask("early.db.query", AGES)
        assert caught.value.code == "Unavailable", "nobody serves reads yet"
        async with running(ServiceConfig(nats=writer.url, role="query")) as reader:
            *_, last = await three(ask)
            assert await ages(ask, None, basis=last) == [17]
            for number in range(30):
                report = await ask.ask("people.db.transact", [{"db/id": 1, "age": number}])
                assert await ages(ask, None, basis=report["tx"]) == [number]
            assert reader.hub.state("people", "db") is not writer.hub.state("people", "db")
            assert (
                reader.hub.state("people", "db").db.commit_id
                == writer.hub.state("people", "db").db.commit_id
            )
            # a database that is made anew is not answered from the old one's values
            await ask.ask("_._.delete", {"database": "people"})
            with anyio.fail_after(5):
                while await ages(ask) != "DatabaseNotFound":
                    await asyncio.sleep(0.01)
            await ask.ask("_._.create", {"database": "people", **READ})
            report = await ask.ask("people.db.transact", [{"db/id": 1, "age": 99}])
            assert await ages(ask, None, basis=report["tx"]) == [99]


async def test_old_values_are_what_a_client_was_told(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        values = []
        for number in range(5):
            await conn.transact([{"db/id": 1, "age": number}])
            values.append(await conn.db())
        for number, db in enumerate(values):
            assert await db.q("[:find ?a . :where [_ :age ?a]]") == number


async def test_diff_tells_what_came_and_what_went(service_config: Config, asker: Any) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        t1, _, t3 = await three(ask)
        found = await ask.ask("people.db.diff", {"from": {"at": t1}, "to": {}})
        age = natalog.kw("age")
        assert [1, age, 17] in found["result"]["added"]
        assert found["result"]["removed"] == [[1, age, 15]]
        assert found["basis"] == t3

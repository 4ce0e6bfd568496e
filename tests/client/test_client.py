"""The client against a real service: what the contract promises about its verbs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

import natalog
from natalog import Conn, TxReport, kw
from natalog.core.errors import (
    BadRequest,
    BranchExists,
    BranchNotFound,
    BranchProtected,
    CommitNotFound,
    DatabaseExists,
    DatabaseNotFound,
    EdnSyntax,
    InvalidName,
    NatalogError,
    ParentsRequired,
    QueryError,
    TooLarge,
    TransactSchema,
    TransactSyntax,
    Unavailable,
)

pytestmark = pytest.mark.asyncio

SCHEMA = """[
 {:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one :db/index true}
 {:db/ident :friends :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}]"""
NAME_AGE = "[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]"
Names = Callable[[], str]


async def people(client: natalog.Client, names: Names) -> Conn:
    name = names()
    await client.create_database(name, initial_tx=SCHEMA)
    return client.database(name)


async def test_a_session_from_create_to_delete(service_url: str, fresh_name: Names) -> None:
    name = fresh_name()
    async with natalog.connect(service_url) as client:
        info = await client.create_database(name, keep_history=True, schema_flexibility="read")
        assert info["database"] == name
        assert await client.database_exists(name)
        with pytest.raises(DatabaseExists):
            await client.create_database(name)
        conn = client.database(name)
        report = await conn.transact([{"name": "Alice", "age": 25}])
        assert isinstance(report.commit_id, UUID)
        assert isinstance(report.instant, datetime)
        db = await conn.db()
        assert db.basis == report.tx
        assert await db.q(NAME_AGE) == {("Alice", 25)}
        assert (await conn.info())["commit_id"] == report.commit_id
        assert await conn.branches() == {"db"}
        assert await client.delete_database(name)
        assert not await client.delete_database(name)
        with pytest.raises(DatabaseNotFound):
            await conn.transact([{"name": "Bob"}])
        with pytest.raises(DatabaseNotFound):
            await conn.db()


async def test_a_value_stays_what_it_is(service_url: str, fresh_name: Names) -> None:
    async with natalog.connect(service_url) as client:
        conn = await people(client, fresh_name)
        await conn.transact([{"name": "Alice", "age": 25}])
        before = await conn.db()
        for age in range(26, 40):
            await conn.transact([{"name": "Alice", "age": age}])
        assert await before.q(NAME_AGE) == {("Alice", 25)}
        assert await before.with_([{"name": "Bob", "age": 1}]).q(NAME_AGE) == {
            ("Alice", 25),
            ("Bob", 1),
        }
        assert await (await conn.db()).q(NAME_AGE) == {("Alice", 39)}


async def test_a_value_without_history_stays_what_it_is(
    service_url: str, fresh_name: Names
) -> None:
    async with natalog.connect(service_url) as client:
        name = fresh_name()
        await client.create_database(name, keep_history=False, schema_flexibility="read")
        conn = client.database(name)
        await conn.transact([{"db/id": 1, "age": 1}])
        before = await conn.db()
        await conn.transact([{"db/id": 1, "age": 2}])
        query = "[:find ?a . :where [_ :age ?a]]"
        assert await before.q(query) == 1
        assert await (await conn.db()).q(query) == 2


async def test_the_four_views_of_time(service_url: str, fresh_name: Names) -> None:
    async with natalog.connect(service_url) as client:
        conn = await people(client, fresh_name)
        first = await conn.transact([{"name": "Alice", "age": 25}])
        second = await conn.transact([{"db/id": ["name", "Alice"], "age": 30}])
        db = await conn.db()
        assert await db.as_of(first).q(NAME_AGE) == {("Alice", 25)}
        assert await db.as_of(first.instant).q(NAME_AGE) == {("Alice", 25)}
        assert await db.history().q(NAME_AGE) == {("Alice", 25), ("Alice", 30)}
        assert await db.since(first.tx).q(NAME_AGE) == set()
        joined = "[:find ?n ?a :in $ $since :where [$ ?e :name ?n] [$since ?e :age ?a]]"
        assert await db.q(joined, db.since(first.tx)) == {("Alice", 30)}
        assert await db.as_of(second).history().q(NAME_AGE) == {("Alice", 25), ("Alice", 30)}
        when = "[:find ?t . :where [_ :age 30 ?tx] [?tx :db/txInstant ?t]]"
        assert await db.q(when) == second.instant


async def test_every_read_verb(service_url: str, fresh_name: Names) -> None:
    async with natalog.connect(service_url) as client:
        conn = await people(client, fresh_name)
        report = await conn.transact(
            [
                {"db/id": "a", "name": "Alice", "age": 25},
                {"db/id": "b", "name": "Bob", "age": 30, "friends": ["a"]},
            ]
        )
        alice, bob = report.resolve("a"), report.resolve("b")
        db = await conn.db()
        assert set(await db.q("[:find [?n ...] :where [_ :name ?n]]")) == {"Alice", "Bob"}
        assert await db.q('[:find ?a . :where [?e :name "Bob"] [?e :age ?a]]') == 30
        assert await db.q(
            "[:find ?n ?a :in $ [?n ...] :where [?e :name ?n] [?e :age ?a]]", ["Bob"]
        ) == {("Bob", 30)}
        assert await db.q(NAME_AGE, order_by=["?a", "desc"], limit=1) == [("Bob", 30)]
        assert await db.q("[:find (sum ?a) . :with ?e :where [?e :age ?a]]") == 55
        assert await db.q(
            "[:find ?n ?a :keys n a :where [?e :name ?n] [?e :age ?a] [(> ?a 26)]]"
        ) == [{kw("n"): "Bob", kw("a"): 30}]
        pattern = "[:name {:friends [:name]}]"
        assert await db.pull(pattern, bob) == {
            kw("name"): "Bob",
            kw("friends"): [{kw("name"): "Alice"}],
        }
        assert await db.pull([kw("name")], ["name", "Alice"]) == {kw("name"): "Alice"}
        assert await db.pull_many("[:name]", [bob, alice]) == [
            {kw("name"): "Bob"},
            {kw("name"): "Alice"},
        ]
        entity = await db.entity(bob)
        assert entity is not None
        assert entity[kw("name")] == "Bob"
        assert [d.v for d in await db.datoms("aevt", "age")] == [25, 30]
        assert [d.v for d in await db.datoms("avet", "age", 30)] == [30]
        assert [d.v for d in await db.index_range("age", 26, None)] == [30]
        assert (await db.seek_datoms("avet", "age", 26, limit=1))[0].v == 30
        assert (await db.rseek_datoms("avet", "age", 29, limit=1))[0].v == 25
        assert kw("friends") in await db.schema()
        assert kw("db.unique/identity") in await db.schema(reverse=True)
        speculative = await db.with_report([{"name": "Carol"}])
        assert isinstance(speculative, TxReport)
        assert speculative.commit_id is None
        assert (await conn.db()) == db


async def test_values_of_every_type_come_back(service_url: str, fresh_name: Names) -> None:
    values = [
        1,
        1.0,
        True,
        Decimal("1.50"),
        2**70,
        "text",
        kw("a/keyword"),
        natalog.Symbol("sym"),
        uuid4(),
        datetime(2024, 2, 29, 12, 0, 0, 123000, tzinfo=UTC),
        b"\x00\xff",
        ("a", 1),
    ]
    async with natalog.connect(service_url) as client:
        name = fresh_name()
        await client.create_database(name, schema_flexibility="read")
        conn = client.database(name)
        await conn.transact([{"db/id": n, "v": value} for n, value in enumerate(values, 1)])
        found = dict(await (await conn.db()).q("[:find ?e ?v :where [?e :v ?v]]", order_by=[0]))
        for n, value in enumerate(values, 1):
            assert type(found[n]) is type(value)
            assert found[n] == value
        together = await (await conn.db()).q("[:find ?v :where [_ :v ?v]]")
        assert len(together) == len(values)


async def test_two_databases_in_one_query(service_url: str, fresh_name: Names) -> None:
    async with natalog.connect(service_url) as client:
        one, two = await people(client, fresh_name), await people(client, fresh_name)
        await one.transact([{"name": "Alice", "age": 25}])
        await two.transact([{"name": "Alice", "age": 99}])
        query = (
            "[:find ?n ?x ?y :in $1 $2 :where [$1 ?a :name ?n] [$2 ?b :name ?n]"
            " [$1 ?a :age ?x] [$2 ?b :age ?y]]"
        )
        first, second = await one.db(), await two.db()
        assert await first.q(query, second) == {("Alice", 25, 99)}
        assert await one.q(query, second, first) == {("Alice", 99, 25)}
        assert await one.q("[:find ?x :in [?x ...] :where [(> ?x 1)]]", [1, 2]) == {(2,)}


async def test_an_id_is_applied_once(service_url: str, fresh_name: Names) -> None:
    async with natalog.connect(service_url) as client:
        conn = await people(client, fresh_name)
        first = await conn.transact([{"name": "Alice", "age": 1}], id="one")
        again = await conn.transact([{"name": "Alice", "age": 2}], id="one")
        assert (again.tx, again.repeated) == (first.tx, True)
        assert again.tx_data == first.tx_data
        assert await (await conn.db()).q(NAME_AGE) == {("Alice", 1)}


async def test_a_published_transaction_is_applied_once_or_rejected(
    service_url: str, fresh_name: Names
) -> None:
    async with natalog.connect(service_url) as client:
        conn = await people(client, fresh_name)
        async with conn.reports(rejections=True) as feed, asyncio.timeout(30):
            acks = [await conn.publish([{"name": "Alice"}], id="p1") for _ in range(2)]
            assert [ack.duplicate for ack in acks] == [False, True]
            await conn.publish([{"height": 3}], id="p2")
            await conn.publish([{"name": "Bob"}], id="p3")
            events = [await anext(feed) for _ in range(3)]
        assert [event.id for event in events] == ["p1", "p2", "p3"]
        assert isinstance(events[1], natalog.Rejection)
        assert isinstance(events[1].error, TransactSchema)
        replayed = []
        async with conn.reports(since=0, rejections=True) as feed, asyncio.timeout(30):
            async for event in feed:
                replayed.append(event.id)
                if event.id == "p3":
                    break
        assert replayed[-3:] == ["p1", "p2", "p3"]


async def test_reports_replay_and_go_on_without_gap(service_url: str, fresh_name: Names) -> None:
    async with natalog.connect(service_url) as client:
        conn = await people(client, fresh_name)
        made = [await conn.transact([{"name": f"n{n}"}]) for n in range(10)]
        async with conn.reports(since=made[3].tx) as feed, asyncio.timeout(30):
            later = asyncio.create_task(conn.transact([{"name": "later"}]))
            found = [await anext(feed) for _ in range(7)]
            made.append(await later)
        assert [report.tx for report in found] == [report.tx for report in made[4:]]
        for mine, theirs in zip(made[4:], found, strict=True):
            assert mine.tx_data == theirs.tx_data
            assert mine.commit_id == theirs.commit_id
            assert mine.tempids == theirs.tempids
            assert mine.tx_meta == theirs.tx_meta
            assert mine.instant == theirs.instant


async def test_eighty_transactions_of_eight_clients(service_url: str, fresh_name: Names) -> None:
    name = fresh_name()
    async with natalog.connect(service_url) as watcher:
        await watcher.create_database(name, schema_flexibility="read")
        conn = watcher.database(name)

        async def client_work(number: int) -> list[TxReport]:
            async with natalog.connect(service_url) as client:
                mine = client.database(name)
                return list(
                    await asyncio.gather(
                        *(mine.transact([{"client": number, "step": step}]) for step in range(10))
                    )
                )

        async with conn.reports() as feed, asyncio.timeout(60):
            results = await asyncio.gather(*(client_work(number) for number in range(8)))
            reported = [await anext(feed) for _ in range(80)]
        txs = [report.tx for reports in results for report in reports]
        assert len(set(txs)) == 80
        assert [report.tx for report in reported] == sorted(txs)
        for reports in results:
            assert [report.tx for report in reports] == sorted(report.tx for report in reports)
        entities = await (await conn.db()).q("[:find ?tx :where [?tx :db/txInstant]]")
        assert {tx for (tx,) in entities} == set(txs)
        rows = await (await conn.db()).q(
            "[:find ?c ?s ?tx :where [?e :client ?c ?tx] [?e :step ?s]]"
        )
        for number, reports in enumerate(results):
            steps = {s: tx for c, s, tx in rows if c == number}
            assert [steps[step] for step in range(10)] == [report.tx for report in reports]


async def test_answers_larger_than_a_message_arrive_whole(
    service_url: str, fresh_name: Names
) -> None:
    async with natalog.connect(service_url) as client:
        name = fresh_name()
        await client.create_database(name, schema_flexibility="read")
        conn = client.database(name)
        text = "x" * 60_000
        for n in range(200):
            await conn.transact([{"n": n, "text": text + str(n)}])
        rows = await (await conn.db()).q("[:find ?n ?t :where [?e :n ?n] [?e :text ?t]]")
        assert len(rows) == 200
        assert all(t == text + str(n) for n, t in rows)


async def test_requests_larger_than_a_message_are_refused(
    service_url: str, fresh_name: Names
) -> None:
    async with natalog.connect(service_url) as client:
        conn = await people(client, fresh_name)
        with pytest.raises(TooLarge):
            await conn.transact([{"name": "x" * 9_000_000}])
        assert (await conn.transact([{"name": "short"}])).tx


async def test_errors_arrive_as_what_they_are(service_url: str, fresh_name: Names) -> None:
    async with natalog.connect(service_url) as client:
        conn = await people(client, fresh_name)
        db = await conn.db()
        cases: list[tuple[type[NatalogError], Callable[[], object]]] = [
            (TransactSchema, lambda: conn.transact([{"height": 3}])),
            (TransactSchema, lambda: conn.transact([{"name": 3}])),
            (TransactSyntax, lambda: conn.transact([["db/frobnicate", 1, "name", "x"]])),
            (QueryError, lambda: db.q("[:find ?x :where [(nonsense ?x)]]")),
            (QueryError, lambda: db.q("[:find ?n :in $ ?x :where [?e :name ?n]]")),
            (EdnSyntax, lambda: db.q("[:find ?n :where [?e :name ?n]")),
            (BranchNotFound, lambda: client.database(conn.database, "nowhere").db()),
            (CommitNotFound, lambda: conn.commit_db(uuid4())),
            (BranchExists, lambda: conn.branch("db")),
            (BranchNotFound, lambda: conn.merge({"foo"}, [])),
            (ParentsRequired, lambda: conn.merge([], [])),
            (BranchProtected, lambda: conn.delete_branch("db")),
            (BadRequest, lambda: conn.erase(containing="")),
        ]
        for expected, work in cases:
            with pytest.raises(expected) as caught:
                await work()  # type: ignore[misc]
            assert caught.value.code
            assert caught.value.message
        with pytest.raises(TransactSchema) as caught:
            await conn.transact([{"name": "x", "height": 3}])
        assert caught.value.type == "transact/schema"
        assert kw("height") in caught.value.data.values()
        assert (await conn.transact([{"name": "after all"}])).tx


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">", "_", "x" * 65])
async def test_names_that_no_subject_can_hold_are_never_sent(service_url: str, name: str) -> None:
    async with natalog.connect(service_url) as client:
        with pytest.raises(InvalidName):
            client.database(name)
        with pytest.raises(InvalidName):
            await client.create_database(name)


async def test_history_commits_and_gc(service_url: str, fresh_name: Names) -> None:
    async with natalog.connect(service_url) as client:
        conn = await people(client, fresh_name)
        first = await conn.transact([{"name": "Alice", "age": 1}])
        second = await conn.transact([{"name": "Alice", "age": 2}])
        commits = await conn.branch_history()
        assert [commit.commit_id for commit in commits[:2]] == [second.commit_id, first.commit_id]
        assert commits[0].parents == (first.commit_id,)
        assert len(await conn.branch_history(limit=1)) == 1
        assert first.commit_id is not None
        old = await conn.commit_db(first.commit_id)
        assert await old.q(NAME_AGE) == {("Alice", 1)}
        diff = await conn.diff(old, await conn.db())
        alice = 4
        assert (alice, kw("age"), 2) in diff.added
        assert (alice, kw("age"), 1) in diff.removed
        assert "freed" in await conn.gc(dry_run=True)


async def test_a_dated_transaction(service_url: str, fresh_name: Names) -> None:
    moment = datetime(2001, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)
    async with natalog.connect(service_url) as client:
        conn = await people(client, fresh_name)
        report = await conn.transact([{"name": "Alice"}], tx_meta={"db/txInstant": moment})
        assert report.instant == moment
        assert report.tx_meta[kw("db/txInstant")] == moment
        after = (await conn.db()).as_of(moment + timedelta(seconds=1))
        assert await after.q("[:find [?n ...] :where [_ :name ?n]]") == ["Alice"]


async def test_nobody_there_is_said_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match="connection refused"):
        await natalog.connect("nats://127.0.0.1:1")
    assert time.monotonic() - began < 60


async def test_a_closed_client_says_so(service_url: str, fresh_name: Names) -> None:
    client = await natalog.connect(service_url)
    await client.close()
    await client.close()
    with pytest.raises(Unavailable, match="closed"):
        await client.list_databases()


async def test_a_feed_of_nothing_says_so_and_a_closed_client_ends_it(
    service_url: str, fresh_name: Names
) -> None:
    async with natalog.connect(service_url) as client:
        for since in (None, 0):
            with pytest.raises(DatabaseNotFound):
                await anext(client.database(fresh_name()).reports(since=since))
        conn = await people(client, fresh_name)
        with pytest.raises(BranchNotFound):
            await anext(client.database(conn.database, "nowhere").reports())
        for since in (None, (await conn.db()).basis):
            other = await natalog.connect(service_url)
            feed = other.database(conn.database).reports(since=since)
            await feed.start()
            waiting = asyncio.ensure_future(anext(feed))
            await asyncio.sleep(0.05)
            await other.close()
            async with asyncio.timeout(30):
                with pytest.raises(Unavailable):
                    await waiting


async def test_a_feed_can_be_left_at_any_time(service_url: str, fresh_name: Names) -> None:
    async with natalog.connect(service_url) as client:
        conn = await people(client, fresh_name)
        for since in (None, 0):
            feed = conn.reports(since=since)
            await feed.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(feed)
            async with conn.reports(since=since) as used:
                await conn.transact([{"name": "x"}])
                await anext(used)

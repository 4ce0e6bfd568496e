"""Erasure through the service: the bytes go, everything else stays, and the receipt says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import natalog
from natalog import kw
from natalog.actors import erasure
from natalog.actors.config import ServiceConfig
from natalog.actors.rewriting import Rewriter
from natalog.actors.searching import files_with
from natalog.actors.service import Service, running
from natalog.cli.check import check_branch
from natalog.core.beginning import Base
from natalog.core.errors import (
    BadRequest,
    BranchNotFound,
    Erased,
    ErasureRefused,
    LogCorrupt,
    Unavailable,
)

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]
MARKER = "zebra-4711-marker"
SCHEMA = """
[{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :note :db/valueType :db.type/string :db/cardinality :db.cardinality/many}
 {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/ident :mood :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/noHistory true}
 {:db/ident :both :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one
  :db/tupleAttrs [:name :mood]}
 {:db/ident :source :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]
"""
NOTES = "[:find ?n ?x :where [?e :name ?n] [?e :note ?x]]"
AGES = "[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]"


async def make(client: natalog.Client, name: str = "people", **settings: Any) -> natalog.Conn:
    await client.create_database(name, initial_tx=SCHEMA, **settings)
    return client.database(name)


def marked(service: Service, text: str = MARKER) -> list[Path]:
    """Files of the data directory that hold a text, compressed or not."""
    return files_with(service.config.data, text.encode())


async def sound(client: natalog.Client, name: str = "people") -> None:
    """Every branch of a database is what its log says."""
    for branch in await client.database(name).branches():
        findings = await check_branch(client, name, branch)
        assert all(finding.good for finding in findings), (branch, findings)


async def everywhere(client: natalog.Client) -> natalog.Conn:
    """A database that holds the marker in every way that it can."""
    conn = await make(client)
    await conn.transact([{"name": "Ann", "age": 30, "note": ["kept", MARKER]}])
    await conn.transact(
        [{"db/id": f"new {MARKER}", "name": "Bob", "note": f"<{MARKER}>", "mood": MARKER}],
        {"source": f"a form {MARKER}"},
        id=f"id {MARKER}",
    )
    await conn.branch("foo")
    await conn.branch("bar")
    foo, bar = (client.database("people", name) for name in ("foo", "bar"))
    await foo.transact([{"name": "Ann", "note": f"foo {MARKER}", "age": 31}])
    await bar.transact([["db/retract", ["name", "Bob"], "note", f"<{MARKER}>"], {"name": "Cas"}])
    await conn.transact([{"name": "Bob", "mood": "fine", "age": 7}])
    ack = await conn.publish([{"name": "Dan", "note": MARKER}], id=f"publish {MARKER}")
    assert ack.sequence == 1
    await conn.publish([{"no such attribute": MARKER}], id=f"refused {MARKER}")
    await bar.force_branch("forced", (await bar.db()).with_([{"name": MARKER}]), parents=["bar"])
    async with conn.reports(since=0, rejections=True) as reports:
        async for found in reports:
            if isinstance(found, natalog.Rejection):
                break
    for name in ("db", "foo", "bar"):
        await client.database("people", name).snapshot()
    return conn


async def test_after_an_erasure_no_file_holds_the_bytes(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = await everywhere(client)
        foo, bar = (client.database("people", name) for name in ("foo", "bar"))
        assert marked(service)
        history = [commit.commit_id for commit in await conn.branch_history()]
        receipt = await conn.erase(containing=MARKER)
        assert marked(service) == []
        assert receipt["verified"]["files_with_the_text"] == []
        assert receipt["verified"]["absent"] == receipt["verified"]["erased_blocks"] > 4
        assert receipt["facts"] and receipt["ids"] == 3 and receipt["names"] == 1
        assert receipt["kept"] == {}
        assert MARKER not in repr(receipt)

        async def look(client: natalog.Client) -> None:
            await sound(client)
            conn = client.database("people")
            foo, bar = (client.database("people", name) for name in ("foo", "bar"))
            assert await conn.q(NOTES) == {("Ann", "kept")}
            assert await foo.q(NOTES) == await bar.q(NOTES) == {("Ann", "kept")}
            assert await conn.q(AGES) == {("Ann", 30), ("Bob", 7)}
            assert await foo.q(AGES) == {("Ann", 31)}
            assert ("Cas",) in await bar.q("[:find ?n :where [_ :name ?n]]")
            assert ("Dan",) in await conn.q("[:find ?n :where [_ :name ?n]]")
            repeated = await conn.transact([{"name": "never"}], id=f"id {MARKER}")
            assert repeated.repeated and repeated.erased

        await look(client)
        ids = {commit.commit_id for commit in await conn.branch_history()}
        assert ids > set(history)
        assert (await conn.transact([{"name": "Eve"}])).tx
        await conn.snapshot()
        assert marked(service) == []
        assert foo.branch_name, bar.branch_name
    async with running(config) as service, natalog.connect(service.url) as client:
        await look(client)
        assert marked(service) == []
        assert (await client.database("people").erasures())[0]["id"] == receipt["id"]
        again = await client.database("people").erase(containing=MARKER)
        assert again["facts"] == again["blocks"] == 0
        assert marked(service) == []
    assert files_with(config.data, MARKER.encode()) == []


async def test_what_was_purged_before_is_erased_without_being_named(
    service_config: Config,
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        await conn.transact([{"name": "Ann", "note": MARKER}])
        await conn.transact([["db.purge/attribute", ["name", "Ann"], "note"]])
        assert marked(service)
        receipt = await conn.erase()
        assert (receipt["facts"], receipt["purged"]) == (1, {})
        assert marked(service) == []
        twice = await conn.erase()
        assert (twice["facts"], twice["blocks"]) == (0, 0)
        assert len(await conn.erasures()) == 2
        await sound(client)


async def test_what_another_branch_holds_stays_until_it_lets_go(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        await conn.transact([{"name": "Ann", "note": MARKER}])
        await conn.branch("foo")
        foo = client.database("people", "foo")
        receipt = await conn.erase(containing=MARKER, branches=["db"])
        assert receipt["kept"] == {"foo": 1}
        assert await conn.q(NOTES) == set()
        assert await foo.q(NOTES) == {("Ann", MARKER)}
        assert marked(service)
        await sound(client)
        await foo.transact([["db/purge", ["name", "Ann"], "note", MARKER]])
        receipt = await foo.erase()
        assert receipt["kept"] == {}
        assert marked(service) == []
        await sound(client)


async def test_a_deleted_branch_keeps_nothing_alive(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        await conn.branch("foo")
        foo = client.database("people", "foo")
        await foo.transact([{"name": "Ann", "note": MARKER}])
        await conn.branch("bar", from_="foo")
        bar = client.database("people", "bar")
        await foo.transact([{"name": "Ann", "note": "later"}])
        await conn.delete_branch("foo")
        receipt = await conn.erase(facts=[[["name", "Ann"], "note"]])
        assert receipt["purged"]["bar"]["facts"] == 1
        assert marked(service) == []
        assert await bar.q("[:find ?n . :where [_ :name ?n]]") == "Ann"
        await sound(client)


async def test_purges_find_their_values_after_an_erasure(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        await conn.transact([{"name": "Ann", "note": ["a", MARKER, "x", "z"]}])
        await conn.branch("foo")
        await conn.transact([["db/purge", ["name", "Ann"], "note", MARKER]])
        await conn.transact([["db/purge", ["name", "Ann"], "note", "x"]])
        await client.database("people", "foo").transact(
            [["db/purge", ["name", "Ann"], "note", MARKER]]
        )
        await conn.erase()
        await conn.transact([["db/purge", ["name", "Ann"], "note", "a"]])
        assert await conn.q(NOTES) == {("Ann", "z")}
        assert marked(service) == []
    async with running(config) as service, natalog.connect(service.url) as client:
        assert await client.database("people").q(NOTES) == {("Ann", "z")}
        foo = client.database("people", "foo")
        assert await foo.q(NOTES) == {("Ann", "a"), ("Ann", "x"), ("Ann", "z")}
        await sound(client)


async def test_a_commit_that_can_no_longer_be_told_says_so(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        before = await conn.transact([{"name": "Ann"}])
        held = await conn.transact([{"name": "Ann", "note": MARKER}])
        old = await conn.db()
        await conn.branch("foo", from_=held.commit_id)
        later = await conn.transact([{"name": "Ann", "age": 5}])
        receipt = await conn.erase(containing=MARKER)
        assert receipt["commits"] == 2
        for commit in (held.commit_id, later.commit_id):
            with pytest.raises(Erased):
                await conn.commit_db(commit)
            with pytest.raises(Erased):
                await conn.branch("never", from_=commit)
        with pytest.raises(Erased):
            await conn.branch("never", from_=held.tx)
        told = await conn.commit_db(before.commit_id)
        assert await told.q("[:find ?n . :where [_ :name ?n]]") == "Ann"
        assert await (await conn.db()).as_of(held.tx).q(NOTES) == set()
        assert await (await conn.db()).as_of(later.tx).q(AGES) == {("Ann", 5)}
        assert await old.q(NOTES) == set()
    async with running(config) as service, natalog.connect(service.url) as client:
        foo = client.database("people", "foo")
        assert await foo.q("[:find ?n . :where [_ :name ?n]]") == "Ann"
        with pytest.raises(Erased):
            await client.database("people").commit_db(held.commit_id)
        await client.database("people").merge("foo")
        await sound(client)


async def test_a_subscriber_sees_purges_and_no_hole(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        first = await conn.transact([{"name": "Ann", "note": MARKER}])
        live: list[natalog.TxReport] = []
        async with conn.reports() as feed:
            receipt = await conn.erase(containing=MARKER)
            live.append(await anext(feed))
        assert (live[0].purged, [d.a for d in live[0].tx_data]) == (1, [kw("db/txInstant")])
        last = await conn.transact([{"name": "Bob"}])
        replayed = []
        async with conn.reports(since=0) as feed:
            async for report in feed:
                replayed.append(report)
                if report.tx == last.tx:
                    break
        assert [report.tx for report in replayed] == list(range(first.tx - 1, last.tx + 1))
        assert [report.erased for report in replayed] == [0, 1, 0, 0]
        assert [report.purged for report in replayed] == [0, 0, 1, 0]
        assert replayed[1].commit_id == first.commit_id
        assert MARKER not in repr(replayed) and receipt["facts"] == 1
        await conn.transact([{"name": "Cas"}])
        await service.port.erase("natalog=people=db=log", 4)  # nobody has a copy of that
        with pytest.raises(LogCorrupt):
            async with conn.reports(since=0) as feed:
                async for _ in feed:
                    pass


async def test_other_holes_of_an_erased_log_are_corruption(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        await conn.transact([{"name": "Ann", "note": MARKER}])
        await conn.erase(containing=MARKER)
        for number in range(3):
            await conn.transact([{"name": f"n{number}"}])
        stream = await service.port.stream_info("natalog=people=db=log")
        assert stream is not None
        await service.port.erase("natalog=people=db=log", stream["state"]["last_seq"] - 1)
        await service.snapshots.drop("people")
    async with running(config) as service, natalog.connect(service.url) as client:
        with pytest.raises(LogCorrupt):
            await client.database("people").db()


async def test_transactions_readers_and_producers_go_on(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        for number in range(20):
            await conn.transact([{"name": f"n{number}", "note": f"{MARKER} {number}"}])
        published: list[str] = []
        counts = {"transactions": 0, "reads": 0}
        stop = False

        async def transact() -> None:
            while not stop:
                await conn.transact([{"name": f"t{counts['transactions']}", "age": 1}])
                counts["transactions"] += 1

        async def read() -> None:
            while not stop:
                assert await conn.q("[:find (count ?e) . :where [?e :name]]") >= 20
                counts["reads"] += 1

        async def publish() -> None:
            while not stop:
                name = f"p{len(published)}"
                await conn.publish([{"name": name}], id=name)
                published.append(name)

        tasks = [asyncio.create_task(work()) for work in (transact, read, publish)]
        await asyncio.sleep(0.2)
        for turn in range(3):
            await conn.erase(containing=f"{MARKER} {turn}")
        await conn.erase(containing=MARKER)
        stop = True
        await asyncio.gather(*tasks)
        assert min(*counts.values(), len(published)) > 3
        assert marked(service) == []
        names = "[:find [?n ...] :where [_ :name ?n]]"
        async with asyncio.timeout(20):
            while not set(published) <= set(await conn.q(names)):
                await asyncio.sleep(0.05)
        streams = await service.port.stream_names("natalog.people.db.spent.*")
        assert streams == []
        reports = 0
        async with conn.reports(since=0) as feed:
            async for report in feed:
                reports += report.id is not None and report.id.startswith("p")
                if report.tx == (await conn.db()).basis:
                    break
        assert reports == len(published), "each once"
        await sound(client)


@pytest.mark.parametrize("what", ["containing", "facts", "tx_data"])
async def test_a_database_without_history_is_erased_too(service_config: Config, what: str) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("plain", keep_history=False, schema_flexibility="read")
        conn = client.database("plain")
        report = await conn.transact([{"db/id": "x", "note": MARKER, "age": 1}])
        e = report.tempids["x"]
        await conn.transact([{"db/id": e, "age": 2}])
        wish: dict[str, Any] = {
            "containing": {"containing": MARKER},
            "facts": {"facts": [[e, "note"]]},
            "tx_data": {"tx_data": [["db/purge", e, "note", MARKER]]},
        }[what]
        receipt = await conn.erase(**wish)
        assert receipt["purged"]["db"]["facts"] == 1
        assert receipt["facts"] == 2
        assert marked(service) == []
        assert (await conn.erase())["facts"] == 2  # of the age that was superseded
        assert await conn.q("[:find ?a . :where [_ :age ?a]]") == 2
        await sound(client, "plain")


async def test_a_dry_run_changes_nothing_and_says_what_would_be(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        await conn.transact([{"name": "Ann", "note": [MARKER, f"{MARKER} 2"]}])
        basis = (await conn.db()).basis
        found = await conn.erase(containing=MARKER, dry_run=True)
        assert (found["dry_run"], found["facts"], found["purged"]["db"]["facts"]) == (True, 2, 2)
        assert (await conn.db()).basis == basis
        assert len(await conn.q(NOTES)) == 2
        assert await conn.erasures() == []
        assert await service.port.stream_info("natalog=people=_=redactions") is None


async def test_the_same_id_answers_the_same_receipt(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        await conn.transact([{"name": "Ann", "note": MARKER}])
        first = await conn.erase(containing=MARKER, id="request-1")
        second = await conn.erase(containing=MARKER, id="request-1")
        assert second.pop("repeated") is True
        assert {key: second[key] for key in second} == {key: first[key] for key in second}
        assert [receipt["id"] for receipt in await conn.erasures()] == ["request-1"]


async def test_neither_errors_nor_logs_tell_the_values(
    service_config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "natalog")
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        await conn.transact([{"name": "Ann", "note": MARKER}])
        await conn.erase(containing=MARKER)
        for wish in (
            {"containing": ""},
            {"containing": MARKER, "id": f"for {MARKER}"},
            {"facts": [[MARKER, "name", MARKER, MARKER]]},
            {"facts": [[]]},
            {"tx_data": [["db/add", MARKER, MARKER, MARKER]]},
            {MARKER: 1},
        ):
            with pytest.raises((BadRequest, ErasureRefused)) as caught:
                await conn._upkeep("erase", wish, None)  # past the checks of the client
            assert MARKER not in repr(caught.value.to_wire())
        with pytest.raises(ErasureRefused) as refused:
            await conn.erase([["db/purge", kw("name"), "db/ident", kw("name")]])
        assert "name" not in refused.value.message
        with pytest.raises(BranchNotFound):
            await conn.erase(branches=["nowhere"])
        assert MARKER not in caplog.text
        assert service.ready


async def test_what_nobody_knows_is_erased_in_vain(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        basis = (await conn.db()).basis
        receipt = await conn.erase(
            [["db.purge/entity", ["name", "nobody"]]],
            facts=[[4711], [["name", "nobody"], "note"], [1, "undeclared"]],
            containing="nowhere",
        )
        assert (receipt["facts"], receipt["purged"]["db"]["transactions"]) == (0, 0)
        assert (await conn.db()).basis == basis


async def test_a_branch_that_is_made_meanwhile_keeps_what_it_began_with(
    service_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite = Rewriter.rewrite
    made: list[str] = []
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        held = await conn.transact([{"name": "Ann", "note": MARKER}])
        await conn.transact([["db/purge", ["name", "Ann"], "note", MARKER]])

        async def crossed(*args: Any, **options: Any) -> Any:
            found = await rewrite(*args, **options)
            if not made:
                made.append("foo")
                await conn.branch("foo", from_=held.commit_id)
            return found

        monkeypatch.setattr(Rewriter, "rewrite", crossed)
        receipt = await conn.erase()
        assert receipt["kept"] == {"foo": 1}
        assert await client.database("people", "foo").q(NOTES) == {("Ann", MARKER)}
        await sound(client)


async def test_no_branch_begins_where_an_erasure_is_about_to_happen(
    service_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = erasure.Eraser._lines
    refused: list[Exception] = []
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        held = await conn.transact([{"name": "Ann", "note": MARKER}])
        await conn.transact([["db/purge", ["name", "Ann"], "note", MARKER]])
        looks = 0

        async def crossed(self: erasure.Eraser, database: str) -> Any:
            nonlocal looks
            looks += 1
            if looks == 2:  # the commits are barred by now
                with pytest.raises(Unavailable) as caught:
                    await conn.branch("foo", from_=held.commit_id, timeout=2)
                refused.append(caught.value)
            return await commit(self, database)

        monkeypatch.setattr(erasure.Eraser, "_lines", crossed)
        await conn.erase()
        assert refused
        assert marked(service) == []
        with pytest.raises(Erased):
            await conn.branch("foo", from_=held.commit_id)
        assert await conn.branches() == {"db"}


async def test_a_branch_that_nobody_goes_on_making_keeps_nothing(
    service_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await make(client)
        held = await conn.transact([{"name": "Ann", "note": MARKER}])
        assert held.commit_id is not None
        lines = service.catalog.lines
        base = Base(0, held.commit_id, held.tx)
        await lines.make("people", "foo", 1, base)
        await lines.make("people", "db", 2, base, prepared=True)
        receipt = await conn.erase(containing=MARKER)
        assert receipt["kept"] == {"foo": 1, "db": 1}
        assert marked(service)
        monkeypatch.setattr(erasure, "EMPTY_GRACE_S", 0.0)
        receipt = await conn.erase()
        assert receipt["kept"] == {}
        assert marked(service) == []
        assert [line.lane for line in await lines.all("people")] == [0]

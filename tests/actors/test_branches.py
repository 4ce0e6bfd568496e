"""Branches through the service: cheap, apart from each other, and the same after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.lines import Lines
from natalog.actors.nats_port import NatsPort
from natalog.actors.service import Service, running
from natalog.core.codec import unpack
from natalog.core.errors import (
    BranchExists,
    BranchNotFound,
    BranchProtected,
    CommitNotFound,
    Fenced,
    Internal,
    InvalidName,
    InvalidTimePoint,
    Unavailable,
)
from natalog.core.limits import LANE_BITS, TX_BASE

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]

READ = {"schema_flexibility": "read"}
VALUES = "[:find ?v :where [_ :n ?v]]"


async def numbers(conn: natalog.Conn) -> set[int]:
    return {v for (v,) in await (await conn.db()).q(VALUES)}


async def dump(client: natalog.Client, branch: str) -> Any:
    """What a branch holds, past and present, and what it says of itself."""
    conn = client.database("people", branch)
    info = await conn.info()
    facts = await (await conn.db()).history().datoms("eavt")
    commits = await conn.branch_history()
    return (
        facts,
        {key: info[key] for key in ("commit_id", "parents", "max_tx", "max_eid", "lane")},
        [(c.commit_id, c.parents, c.tx, c.instant) for c in commits],
    )


def lane(number: int) -> int:
    return (number - TX_BASE if number >= TX_BASE else number) >> LANE_BITS


async def test_a_new_branch_shares_its_head_and_is_one_message(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        for number in range(3):
            await conn.transact([{"n": number}])
        await conn.branch("draft")
        assert await conn.branches() == {"db", "draft"}
        draft = client.database("people", "draft")
        main, mine = await conn.info(), await draft.info()
        for key in ("commit_id", "parents", "max_tx", "datoms", "config"):
            assert main[key] == mine[key], key
        assert await numbers(draft) == {0, 1, 2}
        assert await conn.branch_history() == await draft.branch_history()
        line = await service.catalog.lines.live("people", "draft")
        assert line.last_seq == 1 and line.bytes < 1000
        state = service.hub.state("people", "draft")
        assert state.db.indexes == service.hub.state("people", "db").db.indexes, (
            "shared, not copied"
        )


async def test_what_is_written_on_a_branch_stays_on_it(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.transact([{"n": 0}])
        await conn.branch("a")
        await conn.branch("b", from_="a")
        a, b = client.database("people", "a"), client.database("people", "b")
        feed: list[tuple[str, int]] = []
        await service.port.subscribe(
            "natalog.people.*.report",
            lambda m: feed.append((m.subject.split(".")[2], unpack(m.data)["tx"])),
        )
        await service.port.api("INFO")
        reports = {"db": [], "a": [], "b": []}
        for turn in range(4):
            for one in (conn, a, b):
                reports[one.branch_name].append(await one.transact([{"n": turn}], id=f"t{turn}"))
        for one in (conn, a, b):
            assert len(await (await one.db()).q("[:find ?e ?v :where [?e :n ?v]]")) == 5
            again = await one.transact([{"n": 99}], id="t0")
            assert again.repeated and again.tx == reports[one.branch_name][0].tx
            found = [r async for r in _first(one.reports(since=0), 4 + (one is conn))]
            assert [r.tx for r in found][-4:] == [r.tx for r in reports[one.branch_name]]
        ids = [r.tx for own in reports.values() for r in own]
        made = [e for own in reports.values() for r in own for e in _entities(r)]
        assert len(set(ids)) == 12 and len(set(made)) == 12, "no id is given twice"
        assert (
            {lane(r.tx) for r in reports["a"]}
            == {1}
            == {lane(e) for r in reports["a"] for e in _entities(r)}
        )
        assert {lane(r.tx) for r in reports["b"]} == {2}
        with anyio.fail_after(5):
            while len(feed) < 12:
                await asyncio.sleep(0.01)
        assert sorted(feed) == sorted((b, r.tx) for b, own in reports.items() for r in own)


def _entities(report: natalog.TxReport) -> list[int]:
    return [d.e for d in report.tx_data if d.e != report.tx]


async def _first(feed: Any, count: int) -> Any:
    async for report in feed:
        yield report
        count -= 1
        if not count:
            break
    await feed.aclose()


async def test_a_branch_begins_at_a_branch_a_commit_a_transaction_or_an_instant(
    service_config: Config,
) -> None:
    now = {"ms": 1_600_000_000_000}
    async with (
        running(service_config(), clock=lambda: now["ms"]) as service,
        natalog.connect(service.url) as client,
    ):
        await client.create_database("people", **READ)
        conn = client.database("people")
        reports = []
        for number in range(5):
            now["ms"] += 60_000
            reports.append(await conn.transact([{"n": number}]))
        await conn.branch("from-commit", from_=reports[2].commit_id)
        await conn.branch("from-tx", from_=reports[1].tx)
        await conn.branch("from-start", from_=TX_BASE)
        instant = datetime.fromtimestamp(1_600_000_000 + 3 * 60 + 30, UTC)
        await service.port.request("natalog.people._.branch", b"")  # answered, whatever it is
        await conn.branch("from-instant", from_=instant)  # type: ignore[arg-type]
        expected = {"commit": {0, 1, 2}, "tx": {0, 1}, "start": set(), "instant": {0, 1, 2}}
        for name, values in expected.items():
            branch = client.database("people", f"from-{name}")
            assert await numbers(branch) == values
            await branch.transact([{"n": 100}])
            assert await numbers(branch) == values | {100}
        deep = client.database("people", "from-tx")
        await conn.branch("deep", from_="from-tx")
        report = await client.database("people", "deep").transact([{"n": 7}])
        assert await numbers(client.database("people", "deep")) == {0, 1, 100, 7}
        old = await conn.commit_db(report.commit_id)
        assert {v for (v,) in await old.q(VALUES)} == {0, 1, 100, 7}
        with pytest.raises(InvalidTimePoint):
            await conn.branch("never", from_=TX_BASE + 999)
        with pytest.raises(InvalidTimePoint):
            await conn.branch("never", from_=datetime(2001, 1, 1, tzinfo=UTC))  # type: ignore[arg-type]
        history = await deep.branch_history()
        assert [c.tx for c in history[1:]] == [reports[1].tx, reports[0].tx, TX_BASE]


async def test_names_are_checked_and_taken_once(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        results = await asyncio.gather(
            *(conn.branch("draft") for _ in range(5)), return_exceptions=True
        )
        assert [r for r in results if r is not None and not isinstance(r, BranchExists)] == []
        assert results.count(None) == 1
        for name in ("", "_1", "a b", "a.b", "ä", "x" * 65):
            with pytest.raises(InvalidName):
                await conn.branch(name)
        with pytest.raises(BranchExists):
            await conn.branch("db")
        with pytest.raises(BranchProtected):
            await conn.delete_branch("db")
        with pytest.raises(BranchNotFound):
            await conn.delete_branch("nowhere")


async def test_a_deleted_branch_is_gone_at_once_and_its_name_is_free(
    service_config: Config,
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.transact([{"n": 0}])
        await conn.branch("draft")
        draft = client.database("people", "draft")
        report = await draft.transact([{"n": 1}], id="once")
        ack = await draft.publish([{"n": 2}], id="handed")
        assert ack.id == "handed"
        await conn.delete_branch("draft")
        assert await conn.branches() == {"db"}
        with anyio.fail_after(5):
            for work in (
                lambda: draft.transact([{"n": 3}]),
                lambda: draft.db(),
                lambda: draft.branch_history(),
                lambda: conn.delete_branch("draft"),
                lambda: conn.branch("x", from_="draft"),
                lambda: conn.merge({"draft"}, []),
                lambda: draft.publish([{"n": 4}]),
            ):
                with pytest.raises(BranchNotFound):
                    await work()
        old = await conn.commit_db(report.commit_id)
        assert {v for (v,) in await old.q(VALUES)} == {0, 1}
        await conn.transact([{"n": 10}])
        await conn.branch("draft")
        draft = client.database("people", "draft")
        assert await numbers(draft) == {0, 10}
        again = await draft.transact([{"n": 5}], id="once")
        assert not again.repeated and lane(again.tx) == 2, "a new branch, with ids of its own"
        await draft.publish([{"n": 6}], id="handed")
        with anyio.fail_after(5):
            while 6 not in await numbers(draft):
                await asyncio.sleep(0.01)
        assert await numbers(draft) == {0, 10, 5, 6}


async def test_branches_are_the_same_after_a_restart(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        first = await conn.transact([{"db/id": 1, "n": 0}])
        await conn.branch("a")
        a = client.database("people", "a")
        await a.transact([{"db/id": 1, "n": 1}, {"n": 2}])
        await a.transact([["db.purge/attribute", 1, "n"]])
        await conn.transact([{"n": 3}])
        await conn.merge({"a"}, [{"n": 4}])
        await conn.branch("b", from_="a")
        await conn.branch("old", from_=first.commit_id)
        base = (await a.db()).as_of(first.tx).with_([{"n": 50}]).with_([{"n": 51}])
        await conn.force_branch("forced", base, parents={"a", first.commit_id})
        await client.database("people", "forced").transact([{"n": 52}])
        await conn.branch("c", from_="forced")
        await conn.branch("gone", from_="c")
        await client.database("people", "gone").transact([{"n": 60}])
        await conn.branch("orphan", from_="gone")
        await conn.delete_branch("gone")
        names = await conn.branches()
        before = {name: await dump(client, name) for name in names}
        # 0 was purged on the branch that the forced value is a view of
        assert await numbers(client.database("people", "forced")) == {50, 51, 52}
        assert await numbers(client.database("people", "orphan")) == {50, 51, 52, 60}
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        assert await conn.branches() == names
        for name in sorted(names, reverse=True):  # the youngest first: bases are read when needed
            assert await dump(client, name) == before[name], name
        lanes = {(await client.database("people", n).info())["lane"] for n in names}
        assert len(lanes) == len(names)
        await conn.branch("new")
        assert (await client.database("people", "new").info())["lane"] == max(lanes) + 1


async def test_force_moves_a_branch_under_its_live_transactor(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.transact([{"n": 0}])
        await conn.branch("draft")
        draft = client.database("people", "draft")
        writing = True

        async def write() -> list[Any]:
            done = []
            number = 1000
            while writing:
                number += 1
                try:
                    done.append(await draft.transact([{"n": number}]))
                except (Unavailable, Fenced):
                    continue
            return done

        writers = [asyncio.create_task(write()) for _ in range(3)]
        await asyncio.sleep(0.05)
        for turn in range(5):
            await conn.transact([{"n": turn + 1}])
            await conn.force_branch("draft", await conn.db(), parents={"db"})
            forced = service.hub.state("people", "draft")
            assert forced is None or forced.lane >= turn + 2
            await asyncio.sleep(0.02)
        writing = False
        done = [r for own in await asyncio.gather(*writers) for r in own]
        info = await draft.info()
        assert info["lane"] == 6
        kept = [r for r in done if lane(r.tx) == 6]
        commits = await draft.branch_history()
        assert {r.commit_id for r in kept} <= {c.commit_id for c in commits}
        assert not {r.commit_id for r in done if lane(r.tx) < 6} & {c.commit_id for c in commits}
        below = {v for v in await numbers(draft) if v < 1000}
        assert below == {0, 1, 2, 3, 4, 5}
        forced_commit = commits[len(kept)]
        head = (await conn.info())["commit_id"]
        assert forced_commit.parents == (head,)


async def test_a_feed_follows_a_branch_that_is_moved_and_ends_with_it(
    service_config: Config,
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.branch("draft")
        draft = client.database("people", "draft")
        sent = [await draft.transact([{"n": 1}])]
        feed = draft.reports(since=0)
        with anyio.fail_after(10):
            assert (await anext(feed)).tx == sent[0].tx
            await conn.force_branch("draft", await conn.db(), parents=["db"])
            sent.append(await draft.transact([{"n": 2}]))
            assert (await anext(feed)).commit_id == sent[1].commit_id
            again = draft.reports(since=0)
            assert (await anext(again)).tx == sent[1].tx, "a replay begins with the forced branch"
            await conn.delete_branch("draft")
            for one in (feed, again):
                with pytest.raises(BranchNotFound):
                    await anext(one)
                await one.aclose()


async def test_the_main_branch_can_be_forced(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        first = await conn.transact([{"n": 0}])
        second = await conn.transact([{"n": 1}])
        await conn.force_branch(
            "db", await conn.commit_db(first.commit_id), parents=[first.commit_id]
        )
        assert await numbers(conn) == {0}
        await conn.transact([{"n": 2}])
        assert await numbers(conn) == {0, 2}
        old = await conn.commit_db(second.commit_id)
        assert {v for (v,) in await old.q(VALUES)} == {0, 1}
        before = await dump(client, "db")
        assert [d["database"] for d in await client.list_databases()] == ["people"]
        assert await service.catalog.orphans() == []
    async with running(config) as service, natalog.connect(service.url) as client:
        assert await dump(client, "db") == before
        assert (await client.delete_database("people")) in (True, None)
        assert await client.list_databases() == []
        left = await service.port.streams("natalog.people.>")
        assert left == [], "nothing is left of a database with branches"
        await client.create_database("people", **READ)
        assert await client.database("people").branches() == {"db"}


@pytest.mark.parametrize("step", ["retire", "promote", "append"])
async def test_a_move_that_was_cut_short_is_completed_or_never_happened(
    service_config: Config, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.transact([{"n": 0}])
        await conn.branch("forced")
        await conn.branch("deleted")
        await client.database("people", "forced").transact([{"n": 1}])

        async def crash(*_: Any, **__: Any) -> None:
            raise RuntimeError("The process died here.")

        with monkeypatch.context() as patch:
            if step == "append":
                from natalog.actors import branches, transactor

                patch.setattr(branches.Branches, "_append_end", crash)
                patch.setattr(transactor.Transactor, "_end", crash)
            else:
                patch.setattr(Lines, step, crash)
            with pytest.raises(Internal):
                await conn.force_branch("forced", await conn.db(), parents={"db"})
            if step != "promote":
                with pytest.raises(Internal):
                    await conn.delete_branch("deleted")
    happened = step != "append"
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        deleted = happened and step == "retire"
        assert await conn.branches() == {"db", "forced"} | (set() if deleted else {"deleted"})
        assert await numbers(client.database("people", "forced")) == ({0} if happened else {0, 1})
        await client.database("people", "forced").transact([{"n": 5}])
        if deleted:
            await conn.branch("deleted")
        assert await numbers(client.database("people", "deleted")) == {0}


async def test_a_branch_whose_making_was_cut_short_does_not_exist(
    service_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        from natalog.actors.branches import Branches

        async def crash(*_: Any, **__: Any) -> None:
            raise RuntimeError("The process died here.")

        with monkeypatch.context() as patch:
            patch.setattr(Branches, "_first", crash)
            with pytest.raises(Internal):
                await conn.branch("draft")
        assert await conn.branches() == {"db"}
        with pytest.raises(BranchNotFound):
            await client.database("people", "draft").db()
        await conn.branch("draft")
        assert await conn.branches() == {"db", "draft"}
        await client.database("people", "draft").transact([{"n": 1}])


async def test_a_handed_over_transaction_wakes_a_branch(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        await client.database("people").branch("draft")
        assert service.hub.state("people", "draft") is None, "it sleeps until somebody asks"
        draft = client.database("people", "draft")
        await draft.publish([{"n": 1}])
        with anyio.fail_after(5):
            while service.hub.state("people", "draft") is None:
                await asyncio.sleep(0.01)
            while 1 not in await numbers(draft):
                await asyncio.sleep(0.01)


async def test_processes_of_different_roles_agree_on_branches(service_config: Config) -> None:
    async with running(service_config(role="transactor")) as writer:
        reader_config = service_config(nats=writer.url, role="query")
        async with (
            running(reader_config) as reader,
            running(service_config(nats=writer.url, role="gc")),
            natalog.connect(writer.url) as client,
        ):
            await client.create_database("people", **READ)
            conn = client.database("people")
            await conn.transact([{"n": 0}])
            await conn.branch("draft")
            draft = client.database("people", "draft")
            await draft.transact([{"n": 1}])
            assert await numbers(draft) == {0, 1}
            followed = reader.hub.state("people", "draft")
            assert followed is not None and followed.lane == 1
            await conn.force_branch("draft", await conn.db(), parents={"db"})
            await draft.transact([{"n": 2}])
            assert await numbers(draft) == {0, 2}
            report = await draft.transact([{"n": 3}])
            await conn.delete_branch("draft")
            with anyio.fail_after(5):
                while True:
                    try:
                        await client.database("people", "draft").info()
                    except BranchNotFound:
                        break
                    await asyncio.sleep(0.01)
            assert await conn.branches() == {"db"}
            old = await conn.commit_db(report.commit_id)
            assert {v for (v,) in await old.q(VALUES)} == {0, 2, 3}
            assert (await conn.gc())["removed"] >= 3
            with pytest.raises(CommitNotFound):
                await conn.commit_db(report.commit_id)


async def test_a_deposed_transactor_of_a_moved_branch_writes_nothing(
    service_config: Config,
) -> None:
    """Two processes may write; the one that moves the branch fences the other."""
    async with running(service_config()) as one:
        other_config = service_config(nats=one.url, role="transactor")
        async with running(other_config) as other, natalog.connect(one.url) as client:
            await client.create_database("people", **READ)
            conn = client.database("people")
            await conn.transact([{"n": 0}])
            await conn.branch("draft")
            draft = client.database("people", "draft")
            for service in (one, other):
                await service.hub.open("people", "draft")
            for number in range(1, 9):
                await _send(draft, number)
            await conn.force_branch("draft", await conn.db(), parents={"db"})
            for number in range(11, 19):
                await _send(draft, number)
            assert await _settled(one, other, {0, *range(11, 19)})
            assert await numbers(draft) == {0, *range(11, 19)}


async def _send(conn: natalog.Conn, number: int) -> None:
    """A transaction that is sent again while the branch changes hands."""
    with anyio.fail_after(20):
        while True:
            try:
                await conn.transact([{"n": number}], id=f"n{number}")
                return
            except (Unavailable, Fenced):
                await asyncio.sleep(0.02)


async def _settled(one: Service, other: Service, expected: set[int]) -> bool:
    from natalog.core.query import q

    with anyio.move_on_after(5):
        for service in (one, other):
            seen: set[int] = set()
            while seen != expected:
                await asyncio.sleep(0.01)
                value = await service.hub.value("people", "draft", None, 5)
                seen = {v for (v,) in q(VALUES, value).python()}
        return True
    return False


async def test_a_hundred_branches_of_one_database_work(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.transact([{"n": 0}])
        for number in range(100):
            await conn.branch(f"b{number}")
        assert len(await conn.branches()) == 101
        for number in (0, 50, 99):
            branch = client.database("people", f"b{number}")
            await branch.transact([{"n": number + 1}])
            assert await numbers(branch) == {0, number + 1}
        port: NatsPort = service.port
        found = await port.streams("natalog.people.*.log")
        assert max(stream["state"]["bytes"] for stream in found) < 4096


async def test_a_branch_that_nobody_uses_rests_and_wakes(service_config: Config) -> None:
    config = service_config(branch_idle_s=0.05)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.branch("draft")
        draft = client.database("people", "draft")
        sent = 0
        for turn in range(4):
            for _ in range(5):
                sent += 1
                await draft.transact([{"n": sent}], id=f"n{sent}")
            if turn % 2:
                sent += 1
                await draft.publish([{"n": sent}])
                with anyio.fail_after(5):
                    while sent not in await numbers(draft):
                        await asyncio.sleep(0.01)
            with anyio.fail_after(10):
                while ("people", "draft") not in service.hub._resting:
                    await asyncio.sleep(0.02)
            names = {actor.name for actor in service.runtime.actors()}
            assert names >= {"transactor:people.db"} and "transactor:people.draft" not in names
        assert await numbers(draft) == set(range(1, sent + 1))
        again = await draft.transact([{"n": 1}], id="n1")
        assert again.repeated
        await conn.delete_branch("draft")
        await conn.branch("draft")
        assert await numbers(client.database("people", "draft")) == set()
        await asyncio.sleep(0.2)
        await client.delete_database("people")
        await client.create_database("people", **READ)
        await client.database("people").branch("draft")
        assert await numbers(client.database("people", "draft")) == set()


async def test_a_slow_opening_goes_on_when_its_first_asker_gives_up(
    service_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    from natalog.actors.archive import Archive

    begin = Archive.begin

    async def slow(self: Archive, *arguments: Any) -> None:
        await asyncio.sleep(0.6)
        await begin(self, *arguments)

    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.branch("draft")
        monkeypatch.setattr(Archive, "begin", slow)
        draft = client.database("people", "draft")
        for _ in range(2):
            with pytest.raises(natalog.NatalogError):
                await draft.info(timeout=0.1)
        await asyncio.sleep(0.8)
        assert (await draft.info(timeout=0.5))["lane"] == 1

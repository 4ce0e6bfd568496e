"""Collections: what nothing reaches goes, what anything reaches stays, and readers are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

import natalog
from natalog.actors.archive import Archive
from natalog.actors.collected import Collected, ranges_of
from natalog.actors.config import ServiceConfig
from natalog.actors.lines import Lines
from natalog.actors.service import running
from natalog.core.errors import CommitNotFound, DatabaseNotFound, InvalidTimePoint, Unavailable

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]

READ = {"schema_flexibility": "read"}
VALUES = "[:find ?v :where [_ :n ?v]]"
START = datetime(2020, 1, 1, tzinfo=UTC)


async def numbers(conn: natalog.Conn) -> set[int]:
    return {v for (v,) in await (await conn.db()).q(VALUES)}


async def at_commit(conn: natalog.Conn, report: natalog.TxReport) -> set[int]:
    assert report.commit_id is not None
    return {v for (v,) in await (await conn.commit_db(report.commit_id)).q(VALUES)}


class Days:
    """A clock that stands at a day until it is moved."""

    def __init__(self) -> None:
        self.day = 0

    def __call__(self) -> int:
        return int((START + timedelta(days=self.day)).timestamp() * 1000)

    def at(self, day: float) -> datetime:
        return START + timedelta(days=day)


async def test_ranges_tell_what_was_swept() -> None:
    assert ranges_of([0, 1, 2, 5, 7, 8]) == ((0, 2), (5, 5), (7, 8))
    found = Collected(1, 3, {0: ranges_of([0, 1, 2, 5, 7, 8])})
    assert [spot for spot in range(10) if found.has(0, spot)] == [0, 1, 2, 5, 7, 8]
    assert not found.has(1, 0)


async def test_a_collection_beside_a_writer_ends_and_sweeps_nothing_of_it(
    service_config: Config,
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn, writer = client.database("people"), client.database("people")
        reports: list[natalog.TxReport] = []

        async def write() -> None:
            while True:
                reports.append(await writer.transact([{"n": len(reports)}]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            for name in ("a", "b", "c"):
                await conn.branch(name)
                gone = await client.database("people", name).transact([{"n": -1}])
                await conn.delete_branch(name)
                done = await conn.gc(timeout=10)
                assert done["commits"] == [gone.commit_id]
            tasks.cancel_scope.cancel()
        history = await conn.branch_history()
        assert {report.commit_id for report in reports} <= {commit.commit_id for commit in history}


async def test_without_a_date_only_deleted_branches_go(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        first = await conn.transact([{"n": 0}])
        await conn.branch("keep")
        await conn.branch("gone")
        gone = client.database("people", "gone")
        reports = [await gone.transact([{"n": number}]) for number in (1, 2)]
        await conn.transact([{"n": 3}])
        assert (await conn.gc())["removed"] == 0
        await conn.delete_branch("gone")
        assert await at_commit(conn, reports[0]) == {0, 1}
        plan = await conn.gc(dry_run=True)
        assert (plan["removed"], plan["dry_run"], len(plan["streams"])) == (2, True, 1)
        assert plan["commits"] == [report.commit_id for report in reversed(reports)]
        assert await at_commit(conn, reports[1]) == {0, 1, 2}, "a dry run changes nothing"
        done = await conn.gc()
        assert (done["removed"], done["commits"]) == (2, plan["commits"])
        assert done["bytes"] > 0
        for report in reports:
            with pytest.raises(CommitNotFound):
                await at_commit(conn, report)
            with pytest.raises(CommitNotFound):
                await conn.branch("again", from_=report.commit_id)
        assert await service.port.stream_info(done["streams"][0]) is None
        assert (await conn.gc())["removed"] == 0
        assert await at_commit(conn, first) == {0}
        await conn.branch("gone")
        fresh = await client.database("people", "gone").info()
        assert fresh["lane"] == 3, "the lanes of what was freed are never used again"
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        with pytest.raises(CommitNotFound):
            await at_commit(conn, reports[0])
        assert await conn.branches() == {"db", "keep", "gone"}


async def test_with_a_date_older_commits_go_and_times_stay(service_config: Config) -> None:
    config, clock = service_config(), Days()
    async with running(config, clock=clock) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        reports = []
        for number in range(6):
            clock.day += 1
            reports.append(await conn.transact([{"db/id": 1, "n": number}]))
        await conn.branch("old", from_=reports[1].commit_id)
        clock.day += 1
        plan = await conn.gc(clock.at(4.5), dry_run=True)
        assert plan["removed"] == 3, "the beginning, day 1 and day 3; a head stays"
        found = await conn.gc(clock.at(4.5))
        assert set(found["commits"]) >= {reports[0].commit_id, reports[2].commit_id}
        for number in (1, 3, 4, 5):
            assert await at_commit(conn, reports[number]) == {number}
        for number in (0, 2):
            with pytest.raises(CommitNotFound):
                await at_commit(conn, reports[number])
            with pytest.raises(CommitNotFound):
                await conn.branch("x", from_=reports[number].commit_id)
            with pytest.raises(CommitNotFound):
                await conn.branch("x", from_=reports[number].tx)
            with pytest.raises(CommitNotFound):
                await conn.merge([reports[number].commit_id], [])
        history = await conn.branch_history()
        assert [c.tx for c in history] == [reports[n].tx for n in (5, 4, 3)], "it stops there"
        db = await conn.db()
        for number, report in enumerate(reports):
            assert await db.as_of(report.tx).q(VALUES) == {(number,)}, "as-of answers for ever"
        assert await db.history().q("[:find (count ?v) . :where [_ :n ?v _ true]]") == 6
        old = client.database("people", "old")
        assert await numbers(old) == {1}
        await old.transact([{"n": 100}])
        assert (await conn.gc(clock.at(4.5)))["removed"] == 0
        assert (await conn.gc(clock.at(100)))["removed"] == 3
        assert [c.tx for c in await conn.branch_history()] == [reports[5].tx]
    async with running(config, clock=clock) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        assert [c.tx for c in await conn.branch_history()] == [reports[5].tx]
        assert await numbers(client.database("people", "old")) == {1, 100}
        with pytest.raises(CommitNotFound):
            await at_commit(conn, reports[4])
        after = await conn.transact([{"n": 7}])
        assert (await conn.info())["parents"] == [reports[5].commit_id]
        assert await at_commit(conn, after) == {5, 7}


async def test_a_log_stays_while_another_begins_in_it(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.branch("a")
        a = client.database("people", "a")
        reports = [await a.transact([{"n": number}]) for number in range(3)]
        await conn.branch("b", from_=reports[1].commit_id)
        await conn.delete_branch("a")
        found = await conn.gc()
        assert found["commits"] == [reports[2].commit_id] and found["streams"] == []
        await client.database("people", "b").transact([{"n": 9}])
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        assert await numbers(client.database("people", "b")) == {0, 1, 9}
        assert await at_commit(conn, reports[0]) == {0}
        with pytest.raises(CommitNotFound):
            await at_commit(conn, reports[2])
        await conn.delete_branch("b")
        found = await conn.gc()
        assert len(found["streams"]) == 2 and found["removed"] == 3


async def test_what_force_left_behind_is_collected(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.transact([{"n": 0}])
        await conn.branch("a")
        report = await client.database("people", "a").transact([{"n": 1}])
        await conn.force_branch("a", await conn.db(), parents={"db"})
        assert await at_commit(conn, report) == {0, 1}
        found = await conn.gc()
        assert found["commits"] == [report.commit_id] and len(found["streams"]) == 1
        assert await numbers(client.database("people", "a")) == {0}


async def test_a_collection_that_was_cut_short_is_completed(
    service_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.branch("a")
        report = await client.database("people", "a").transact([{"n": 1}])
        await conn.delete_branch("a")

        async def crash(*_: Any) -> None:
            raise Unavailable("The process died here.")

        with monkeypatch.context() as patch:
            patch.setattr(Lines, "remove", crash)
            with pytest.raises(Unavailable):
                await conn.gc()
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        with pytest.raises(CommitNotFound):
            await at_commit(conn, report)
        found = await conn.gc()
        assert found["removed"] == 0 and len(found["streams"]) == 1
        assert (await conn.gc())["streams"] == []


async def test_a_branch_made_during_a_collection_is_never_cut_off(
    service_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused, or the log that it begins in stays."""
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        for turn in range(12):
            await conn.branch("a")
            report = await client.database("people", "a").transact([{"n": turn}])
            await conn.delete_branch("a")
            other = f"b{turn}"

            async def make(name: str = other, commit: Any = report.commit_id) -> bool:
                try:
                    await conn.branch(name, from_=commit)
                except CommitNotFound:
                    return False
                return True

            pause = 0.001 * turn

            async def collect(pause: float = pause) -> Any:
                await asyncio.sleep(pause)
                return await conn.gc()

            made, _ = await asyncio.gather(make(), collect())
            service.hub.archive._pinned.clear()  # nothing but the logs may help
            service.hub.archive._kept.clear()
            if made:
                assert turn in await numbers(client.database("people", other))
            else:
                assert other not in await conn.branches()


async def test_collections_of_two_processes_do_not_undo_each_other(
    service_config: Config,
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        other = service_config(nats=service.url, role="gc")
        async with running(other) as second:
            await client.create_database("people", **READ)
            conn = client.database("people")
            for turn in range(3):
                await conn.branch("a")
                await client.database("people", "a").transact([{"n": turn}])
                await conn.delete_branch("a")
                collectors = [one.gc._collector for one in (service, second)]
                await asyncio.gather(
                    *(one.collect("people") for one in collectors), return_exceptions=True
                )
                swept = await service.hub.archive.collected("people")
                assert swept.lanes == turn + 1
            left = await Lines(service.port, service.names).all("people")
            assert [line.lane for line in left] == [0]


async def test_the_schedule_collects(service_config: Config) -> None:
    async with (
        running(service_config(gc_interval_s=0.05)) as service,
        natalog.connect(service.url) as client,
    ):
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.branch("a")
        report = await client.database("people", "a").transact([{"n": 1}])
        await conn.delete_branch("a")
        with anyio.fail_after(10):
            while True:
                try:
                    await at_commit(conn, report)
                except CommitNotFound:
                    break
                await asyncio.sleep(0.02)


async def test_without_a_commit_graph_only_heads_are_read(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", commit_graph=False, **READ)
        conn = client.database("people")
        first = await conn.transact([{"n": 0}])
        second = await conn.transact([{"n": 1}])
        assert await at_commit(conn, second) == {0, 1}
        with pytest.raises(CommitNotFound):
            await at_commit(conn, first)
        assert [c.commit_id for c in await conn.branch_history()] == [second.commit_id]
        await conn.branch("a")
        report = await client.database("people", "a").transact([{"n": 2}])
        assert await at_commit(conn, report) == {0, 1, 2}
        await conn.delete_branch("a")
        assert len((await conn.gc())["streams"]) == 1
        assert await numbers(conn) == {0, 1}


async def test_a_collection_of_nothing_is_refused(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        with pytest.raises(DatabaseNotFound):
            await client.database("nobody").gc()
        await client.create_database("people", **READ)
        with pytest.raises(InvalidTimePoint):
            await client.database("people").gc("soon")  # type: ignore[arg-type]


async def test_commits_are_found_in_logs_that_nobody_has_open(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        await conn.branch("a")
        a = client.database("people", "a")
        reports = [await a.transact([{"n": number}]) for number in range(3)]
        lines = Lines(service.port, service.names)
        archive = Archive(service.port, service.names, lines, list)
        for number, report in enumerate(reports):
            assert report.commit_id is not None
            base = await archive.find("people", report.commit_id)
            assert (base.lane, base.tx) == (1, report.tx)
            value = await archive.value("people", base)
            assert value.max_tx == report.tx and value.commit_id == report.commit_id
            assert len(value.datoms("aevt", [natalog.kw("n")])) == number + 1
        graph = await archive.graph("people")
        assert len(graph) == 4 and {node.branch for node in graph.values()} == {"db", "a"}

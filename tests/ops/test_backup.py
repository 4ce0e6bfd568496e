"""A backup of a living database, restored: the same commits, and nothing else."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import natalog
from natalog.actors.backup import Backup
from natalog.actors.config import ServiceConfig
from natalog.actors.lines import Lines
from natalog.actors.refill import Refill
from natalog.actors.restore import Restore
from natalog.actors.service import Service, running
from natalog.cli import app
from natalog.cli.check import check_branch
from natalog.core.backup import Frame, Message, read_backup
from natalog.core.errors import (
    BackupCorrupt,
    DatabaseExists,
    DatabaseNotFound,
    LogCorrupt,
    NatalogError,
)

pytestmark = pytest.mark.asyncio

READ = {"schema_flexibility": "read"}


def config(directory: Path) -> ServiceConfig:
    return ServiceConfig(data=directory / "data", listen="127.0.0.1:0")


async def back_up(service: Service, database: str = "people") -> bytes:
    file = io.BytesIO()
    await Backup(service.port, service.names, database, file.write).run()
    return file.getvalue()


def frames(data: bytes) -> Iterator[Frame]:
    return read_backup(io.BytesIO(data).read)


async def restore(service: Service, data: bytes, name: str, **options: Any) -> Any:
    made = Restore(service.port, service.names, clock=lambda: 0)
    return await made.run(frames(data), name, **options)


async def fill(client: natalog.Client, name: str = "people", **settings: Any) -> natalog.Conn:
    """Branches that were made, merged, moved by force and deleted; something published."""
    await client.create_database(name, **READ, **settings)
    conn = client.database(name)
    reports = [await conn.transact([{"n": n, "text": f"t{n}"}], id=f"id{n}") for n in range(20)]
    await conn.branch("draft")
    await conn.branch("gone")
    await client.database(name, "gone").transact([{"n": 100}])
    draft = client.database(name, "draft")
    await draft.transact([{"n": 101}])
    await conn.merge(["draft", "gone"], [{"n": 102}])
    await conn.delete_branch("gone")
    await conn.branch("old", from_=reports[3].tx)
    await conn.force_branch("draft", (await conn.db()).with_([{"n": 103}]), parents=["db"])
    await draft.transact([{"n": 104}])
    await conn.publish([{"n": 105}], id="published")
    async with conn.reports(since=0) as feed:
        async for report in feed:
            if report.id == "published":
                break
    return conn


async def dump(client: natalog.Client, name: str) -> dict[str, Any]:
    """Heads, facts and histories of all branches."""
    found = {}
    for branch in sorted(await client.database(name).branches()):
        conn = client.database(name, branch)
        info = await conn.info()
        db = await conn.db()
        found[branch] = (
            await (db.history() if info["config"]["keep_history"] else db).datoms("eavt"),
            [info[key] for key in ("commit_id", "parents", "max_tx", "max_eid", "lane")],
            await conn.branch_history(),
        )
    return found


async def test_a_restored_database_has_the_same_commits_under_another_name(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service, natalog.connect(service.url) as client:
        conn = await fill(client)
        before = await dump(client, "people")
        data = await back_up(service)
        done = await restore(service, data, "again")
        assert done.origin.database == "people"
        assert sorted(done.branches) == sorted(before) == ["db", "draft", "old"]
        assert await dump(client, "again") == before
        for branch in before:
            findings = await check_branch(client, "again", branch)
            assert all(finding.good for finding in findings), findings
        other = client.database("again")
        assert (await other.transact([{"n": 3}], id="id3")).repeated, "ids are remembered"
        assert (await other.publish([{"n": 105}], id="published")).sequence >= 1
        await other.publish([{"n": 106}], id="new")
        async with other.reports(since=before["db"][1][2]) as feed:
            async for report in feed:
                if report.id == "new":
                    break
        assert await dump(client, "people") == before, "nothing happens to the other one"
        gone = before["db"][2][1].parents[1]
        assert await (await other.commit_db(gone)).q("[:find ?n :where [_ :n ?n]]")
        with pytest.raises(DatabaseExists):
            await restore(service, data, "again")
        assert (await conn.transact([{"n": 1}])).tx == (await other.transact([{"n": 1}])).tx - 1


async def test_a_restored_database_without_history_keeps_its_instants(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service, natalog.connect(service.url) as client:
        conn = await fill(client, keep_history=False)
        data = await back_up(service)
        await asyncio.sleep(1.2)  # that the messages are stored again must not show
        await restore(service, data, "again")
        mine = await client.database("again").branch_history()
        theirs = await conn.branch_history()
        assert [c.commit_id for c in mine] == [c.commit_id for c in theirs]
        for left, right in zip(mine, theirs, strict=True):
            assert abs((left.instant - right.instant).total_seconds()) < 1


async def test_a_backup_taken_under_load_is_of_one_moment(tmp_path: Path) -> None:
    """Whatever a branch refers to in another one is there."""
    async with running(config(tmp_path)) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        main = client.database("people")
        await main.transact([{"n": 0}])
        stop = False

        async def work(name: str) -> None:
            await main.branch(name)
            branch = client.database("people", name)
            n = 0
            while not stop:
                n += 1
                await branch.transact([{name: n}])
                await main.merge([name], [{"merged": n}])
                await main.publish([{"published": n}])

        workers = [asyncio.create_task(work(f"b{n}")) for n in range(3)]
        for turn in range(4):
            await asyncio.sleep(0.2)
            data = await back_up(service)
            await restore(service, data, f"copy{turn}")
        stop = True
        await asyncio.gather(*workers)
        for turn in range(4):
            copy = client.database(f"copy{turn}")
            for branch in await copy.branches():
                findings = await check_branch(client, f"copy{turn}", branch)
                assert all(finding.good for finding in findings), findings
            commits = {commit.commit_id for commit in await copy.branch_history()}
            for commit in await copy.branch_history():
                assert set(commit.parents) <= commits
            db = await copy.db()
            published = sorted(n for (n,) in await db.q("[:find ?n :where [_ :published ?n]]"))
            assert published == sorted(set(published))


async def test_a_damaged_backup_restores_nothing(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service, natalog.connect(service.url) as client:
        await fill(client)
        data = await back_up(service)
        places = [10, 30, len(data) // 3, len(data) // 2, len(data) - 40, len(data) - 1]
        for place in places:
            damaged = bytearray(data)
            damaged[place] ^= 0x10
            with pytest.raises(BackupCorrupt):
                await restore(service, bytes(damaged), "again")
        for length in (0, 5, 100, len(data) // 2, len(data) - 1):
            with pytest.raises(BackupCorrupt):
                await restore(service, data[:length], "again")
        with pytest.raises(BackupCorrupt):
            await restore(service, data + b"x", "again")
        assert await service.port.streams("natalog.again.>") == []
        assert not await client.database_exists("again")


async def test_what_a_cut_short_restore_left_is_removed_when_asked(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service, natalog.connect(service.url) as client:
        await fill(client)
        data = await back_up(service)
        half = Restore(service.port, service.names, clock=lambda: 0)
        half._discard = half._name = asyncio.sleep  # type: ignore[assignment]

        def cut() -> Iterator[Frame]:
            for count, frame in enumerate(frames(data)):
                if isinstance(frame, Message) and count > 20:
                    raise KeyboardInterrupt
                yield frame

        with pytest.raises((KeyboardInterrupt, TypeError)):
            await half.run(cut(), "again")
        assert not await client.database_exists("again")
        with pytest.raises(NatalogError) as caught:
            await client.database("again").info()
        assert caught.value.code == "DatabaseNotFound"
        with pytest.raises(DatabaseExists) as exists:
            await restore(service, data, "again")
        assert "--again" in exists.value.message
        await restore(service, data, "again", again=True)
        assert await dump(client, "again") == await dump(client, "people")


async def test_a_log_that_is_not_sound_is_not_backed_up(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service, natalog.connect(service.url) as client:
        await fill(client)
        stream = service.names.log_stream("people")
        await service.port.erase(stream, 5)
        with pytest.raises(LogCorrupt):
            await back_up(service)
        with pytest.raises(DatabaseNotFound):
            await back_up(service, "nobody")


async def test_numbers_and_holes_are_kept(tmp_path: Path) -> None:
    """What was removed from a stream stays removed, and everything else has its number."""
    async with running(config(tmp_path)) as service:
        port = service.port
        await port.stream_create({"name": "s", "subjects": ["s"], "allow_direct": True})
        refill = Refill(port, "s", "s")
        wanted = {3: b"c", 4: b"d", 200: b"x", 201: b"y"}
        for seq, data in wanted.items():
            await refill.put(seq, data, {"Nats-Msg-Id": f"m{seq}"})
        await refill.skip_to(205)
        await refill.finish()
        info = await port.stream_info("s")
        assert info is not None
        assert (info["state"]["last_seq"], info["state"]["messages"]) == (204, 4)
        for seq in (1, 3, 5, 200, 204):
            message = await port.read("s", seq=seq)
            assert (None if message is None else message.data) == wanted.get(seq)


async def test_the_command_line_backs_up_and_restores(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service, natalog.connect(service.url) as client:
        await fill(client)
        before = await dump(client, "people")

        def command(*words: str) -> Any:
            return CliRunner().invoke(app, [*words, "--nats", service.url])

        file = tmp_path / "people.natalog"
        done = await asyncio.to_thread(command, "backup", "people", str(file))
        assert done.exit_code == 0, done.output
        assert not list(tmp_path.glob("*.part"))
        into = await asyncio.to_thread(command, "backup", "people", str(tmp_path), "--json")
        assert into.exit_code == 0 and len(list(tmp_path.glob("people-*.natalog"))) == 1
        checked = await asyncio.to_thread(command, "restore", str(file), "--check", "--json")
        assert checked.exit_code == 0 and '"database": "people"' in checked.output
        made = await asyncio.to_thread(command, "restore", str(file), "--as", "again")
        assert made.exit_code == 0, made.output
        assert await dump(client, "again") == before
        exists = await asyncio.to_thread(command, "restore", str(file))
        assert exists.exit_code == 1
        file.write_bytes(file.read_bytes()[:-3])
        broken = await asyncio.to_thread(command, "restore", str(file), "--as", "more")
        assert broken.exit_code == 1 and not await client.database_exists("more")
        missing = await asyncio.to_thread(command, "backup", "nobody", str(tmp_path / "x"))
        assert missing.exit_code == 1 and not (tmp_path / "x").exists()


async def test_the_logs_of_deleted_and_moved_branches_are_part_of_a_backup(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service, natalog.connect(service.url) as client:
        await fill(client)
        await restore(service, await back_up(service), "again")
        lines = Lines(service.port, service.names)
        for left, right in zip(await lines.all("people"), await lines.all("again"), strict=True):
            assert (left.lane, left.phase, left.branch, left.base) == (
                *(right.lane, right.phase, right.branch, right.base),
            )
            assert left.last_seq == right.last_seq


async def test_what_was_erased_is_in_no_later_backup(tmp_path: Path) -> None:
    """The redacted copies come along: what stayed can be read, what went is nowhere."""
    async with running(config(tmp_path)) as service, natalog.connect(service.url) as client:
        conn = await fill(client)
        for n in range(3):
            await conn.transact([{"n": 200 + n, "text": f"zebra-4711 {n}"}])
        old = await back_up(service)
        await conn.erase(containing="zebra-4711")
        last = await conn.transact([{"n": 300}])
        new = await back_up(service)
        assert b"zebra-4711" in old and b"zebra-4711" not in new
        await restore(service, new, "again")
        assert await dump(client, "again") == await dump(client, "people")
        other = client.database("again")
        assert (await other.transact([{"n": 300}])).tx == last.tx + 1
        for branch in await other.branches():
            findings = await check_branch(client, "again", branch)
            assert all(finding.good for finding in findings), findings
        receipt = await other.erase(containing="t7")
        assert receipt and b"t7" not in await back_up(service, "again")

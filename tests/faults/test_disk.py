"""Disks that are full or that forget: refused, or harmless, never another answer."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import natalog
from natalog import errors
from natalog.actors.config import ServiceConfig
from natalog.actors.service import running

pytestmark = pytest.mark.asyncio

READ = {"schema_flexibility": "read"}
FACTS = "[:find ?t ?v :where [_ :text ?v ?t]]"
TRANSACTIONS = 60
LOG_DIRECTORY = "natalog=people=db=log"
REFUSALS = (errors.LogCorrupt, errors.Unavailable, errors.DatabaseNotFound, errors.BranchNotFound)


async def facts(client: natalog.Client, timeout: float = 10) -> set[tuple[int, str]]:
    db = await client.database("people").db(timeout=timeout)
    return {(t, v) for t, v in await db.q(FACTS, timeout=timeout)}


# --- a full disk ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.faults
async def test_a_full_disk_costs_typed_errors_and_nothing_that_was_acknowledged(
    lab: Any, small_disk: Path
) -> None:
    broker = lab.broker()
    broker.kill()
    broker.config = broker.config.replace(f"{broker.directory}/store", f"{small_disk}/store")
    broker.config = broker.config.replace("sync_interval", "max_file_store: 1GB, sync_interval")
    broker.start()
    service = lab.member(broker.url)
    await asyncio.to_thread(service.start)
    acknowledged: dict[str, int] = {}
    refused: list[str] = []
    async with natalog.connect(broker.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        filler = "x" * 100_000
        while not refused:
            text = f"{len(acknowledged) + len(refused)}{filler}"
            try:
                report = await conn.transact([{"text": text}], id=text[:8], timeout=28)
                acknowledged[text] = report.tx
            except (errors.CommitUnknown, errors.Unavailable, errors.DeadlineExceeded):
                refused.append(text)
            assert len(acknowledged) < 400, "the disk does not fill"
        assert len(acknowledged) > 10
        assert {v: t for t, v in await facts(client)}.items() >= acknowledged.items()
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        broker.kill()  # nats-server remembers a failed write of a stream until it starts again
        broker.start()
        for text in refused:  # the ids make this safe, whatever became of the first attempt
            acknowledged[text] = (await conn.transact([{"text": text}], id=text[:8])).tx
        assert {v: t for t, v in await facts(client)} == acknowledged
    assert service.alive


@pytest.mark.faults
async def test_a_service_with_its_own_server_goes_on_when_the_disk_has_room_again(
    small_disk: Path,
) -> None:
    config = ServiceConfig(
        data=small_disk / "data", listen="127.0.0.1:0", max_payload_bytes=1024 * 1024
    )
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        acknowledged: dict[str, int] = {}
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 1_200_000))
        text = ""
        for number in range(100):
            text = f"{number}" + "x" * 100_000
            try:
                acknowledged[text] = (await conn.transact([{"text": text}], timeout=5)).tx
            except (errors.CommitUnknown, errors.Unavailable, errors.DeadlineExceeded):
                break
        assert 0 < len(acknowledged) < 100
        await asyncio.sleep(1.5)  # the disk is looked at once a second
        ballast.unlink()
        report = await conn.transact([{"text": "after"}], id="after", timeout=60)
        found = {v: t for t, v in await facts(client)}
        assert found.items() >= {**acknowledged, "after": report.tx}.items()
        assert found.keys() <= {*acknowledged, "after", text}
        assert service.server is not None and service.server.restarts == 1


# --- damaged files -------------------------------------------------------------------------------


def flipped(at: float) -> Callable[[Path], None]:
    """Flip a bit at a fraction of the file."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(at * (len(data) - 1))] ^= 0x10
        path.write_bytes(data)

    return damage


def torn(missing: int) -> Callable[[Path], None]:
    """Cut the end off."""

    def damage(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[:-missing])

    return damage


def zeroed(at: float) -> Callable[[Path], None]:
    """A page that was never written."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        start = int(at * (len(data) - 1)) // 512 * 512
        end = min(len(data), start + 512)
        data[start:end] = bytes(end - start)
        path.write_bytes(data)

    return damage


async def filled(lab: Any, broker: Any, *, snapshot: bool) -> set[tuple[int, str]]:
    """A database whose service and server have ended; what it answered."""
    service = lab.member(broker.url)
    await asyncio.to_thread(service.start)
    async with natalog.connect(broker.url) as client:
        await client.create_database("people", **READ)
        conn = client.database("people")
        for number in range(TRANSACTIONS):
            await conn.transact([{"text": f"{number} " + "y" * 200}])
            if snapshot and number == TRANSACTIONS // 2:
                await conn.snapshot()
        truth = await facts(client)
    assert await asyncio.to_thread(service.terminate) == 0
    broker.kill()
    return truth


async def survives(
    lab: Any, broker: Any, truth: set[tuple[int, str]], damages: list[Callable[[Path], None]]
) -> list[str]:
    """Damage the log in several ways, each by itself; what became of the database each time."""
    kept = broker.directory / "kept"
    shutil.copytree(broker.directory / "store", kept)
    outcomes = []
    for damage in damages:
        shutil.rmtree(broker.directory / "store")
        shutil.copytree(kept, broker.directory / "store")
        (found,) = (broker.directory / "store").rglob(f"{LOG_DIRECTORY}/msgs/1.blk")
        damage(found)
        broker.start()
        service = lab.member(broker.url)
        await asyncio.to_thread(service.start)
        async with natalog.connect(broker.url) as client:
            try:
                assert await facts(client) == truth, "other answers than before"
                outcomes.append("harmless")
                # what goes on must go on from everything that was acknowledged
                report = await client.database("people").transact([{"text": "new"}])
                assert report.tx == max(t for t, _ in truth) + 1
            except REFUSALS as error:
                outcomes.append(error.code)
        service.kill()
        broker.kill()
    print(outcomes)
    return outcomes


async def test_a_flipped_bit_and_a_torn_end_are_noticed(lab: Any) -> None:
    broker = lab.broker()
    truth = await filled(lab, broker, snapshot=False)
    outcomes = await survives(lab, broker, truth, [flipped(0.5), torn(200)])
    assert "harmless" not in outcomes


@pytest.mark.faults
@pytest.mark.parametrize("snapshot", [False, True], ids=["log alone", "with a snapshot"])
async def test_damage_anywhere_in_a_log_changes_no_answer(lab: Any, snapshot: bool) -> None:
    broker = lab.broker()
    truth = await filled(lab, broker, snapshot=snapshot)
    chance = random.Random(3)
    damages = [flipped(chance.random()) for _ in range(10)]
    damages += [zeroed(chance.random()) for _ in range(4)]
    damages += [torn(chance.randrange(1, 5000)) for _ in range(6)]
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(broker.directory / "kept")
    outcomes = await survives(lab, broker, truth, damages)
    assert len(outcomes) == len(damages)

"""The log on a real stream: compare-and-set, contiguity, the chain, following."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from natalog.actors.log import BranchLog, Position
from natalog.actors.names import Names
from natalog.actors.reader import BATCH_MESSAGES, HURRIED_MESSAGES
from natalog.core.chain import FIRST_HASH, block_hash
from natalog.core.errors import DatabaseNotFound, Fenced, LogCorrupt, TooLarge
from natalog.core.record import ENTRY_COMMIT, Entry, encode_block

pytestmark = pytest.mark.asyncio
Lab = Callable[[], Any]


def block(at: Position, text: bytes) -> bytes:
    return encode_block(at.hash, [Entry(ENTRY_COMMIT, text)])


async def filled(log: BranchLog, count: int) -> Position:
    await log.create()
    at = Position()
    for number in range(count):
        at = await log.append(at, block(at, b"%d" % number))
    return at


async def contents(log: BranchLog) -> list[bytes]:
    return [b.block.entries[0].data async for batch in log.blocks() for b in batch]


async def test_what_is_appended_is_read_in_order(nats_lab: Lab) -> None:
    async with nats_lab() as (_, port):
        log = BranchLog(port, Names(), "people", "db")
        count = 2 * BATCH_MESSAGES + 7
        at = await filled(log, count)
        assert (at.seq, await log.last_seq()) == (count, count)
        assert await contents(log) == [b"%d" % number for number in range(count)]


async def test_a_log_is_read_to_the_block_that_was_named_and_no_further(nats_lab: Lab) -> None:
    async with nats_lab() as (_, port):
        log = BranchLog(port, Names(), "people", "db")
        await filled(log, 9)
        for until in (1, 4, 9):
            read = [b.seq async for batch in log.blocks(until=until) for b in batch]
            assert read == list(range(1, until + 1))


async def test_a_second_writer_is_fenced(nats_lab: Lab) -> None:
    async with nats_lab() as (_, port):
        log = BranchLog(port, Names(), "people", "db")
        at = await filled(log, 2)
        stale = Position(1, FIRST_HASH)
        with pytest.raises(Fenced):
            await log.append(stale, block(stale, b"late"))
        at = await log.append(at, block(at, b"mine"))
        assert await contents(log) == [b"0", b"1", b"mine"]


async def test_an_append_whose_receipt_was_lost_counts_once(nats_lab: Lab) -> None:
    async with nats_lab() as (_, port):
        log = BranchLog(port, Names(), "people", "db")
        at = await filled(log, 1)
        data = block(at, b"again")
        told: list[Position] = []
        first = await log.append(at, data, stored=told.append)
        assert told == [first]
        assert await log.append(at, data, stored=told.append) == first
        assert told == [first, first]
        assert await contents(log) == [b"0", b"again"]


async def test_an_append_survives_a_killed_server(nats_lab: Lab) -> None:
    async with nats_lab() as (server, port):
        log = BranchLog(port, Names(), "people", "db")
        at = await filled(log, 3)
        os.kill(server.pid, signal.SIGKILL)
        at = await log.append(at, block(at, b"after"))
        assert at.seq == 4
        assert await contents(log) == [b"0", b"1", b"2", b"after"]


async def test_a_block_larger_than_a_message_is_refused_before_it_is_sent(nats_lab: Lab) -> None:
    async with nats_lab() as (_, port):
        log = BranchLog(port, Names(), "people", "db")
        at = await filled(log, 1)
        with pytest.raises(TooLarge):
            await log.append(at, bytes(port.max_payload + 1))
        assert port.is_connected
        assert (await log.append(at, block(at, b"small"))).seq == 2


async def test_a_missing_block_is_a_hole_and_not_skipped(nats_lab: Lab) -> None:
    async with nats_lab() as (_, port):
        log = BranchLog(port, Names(), "people", "db")
        await filled(log, 5)
        await port.api(f"STREAM.MSG.DELETE.{log.stream}", {"seq": 3})
        with pytest.raises(LogCorrupt, match="3"):
            await contents(log)


async def test_a_missing_last_block_is_a_hole_too(nats_lab: Lab) -> None:
    async with nats_lab() as (_, port):
        log = BranchLog(port, Names(), "people", "db")
        await filled(log, 5)
        await port.api(f"STREAM.MSG.DELETE.{log.stream}", {"seq": 5})
        with pytest.raises(LogCorrupt, match="5"):
            await contents(log)


async def test_a_forged_block_breaks_the_chain(nats_lab: Lab) -> None:
    async with nats_lab() as (_, port):
        log = BranchLog(port, Names(), "people", "db")
        await filled(log, 2)
        await port.append(log.subject, encode_block(block_hash(b"other"), []))
        with pytest.raises(LogCorrupt, match="hash chain"):
            await contents(log)


async def test_bytes_that_are_no_block_are_corruption(nats_lab: Lab) -> None:
    async with nats_lab() as (_, port):
        log = BranchLog(port, Names(), "people", "db")
        await filled(log, 2)
        await port.append(log.subject, b"garbage")
        with pytest.raises(LogCorrupt, match="block 3"):
            await contents(log)


@pytest.mark.parametrize("waits", [None, False, True])
async def test_a_follower_sees_new_blocks_also_after_a_killed_server(
    nats_lab: Lab, waits: bool | None
) -> None:
    async with nats_lab() as (server, port):
        log = BranchLog(port, Names(), "people", "db")
        at = await filled(log, 2)
        many = 3 * HURRIED_MESSAGES + 1
        seen: list[bytes] = []

        async def follow() -> None:
            async for batch in log.blocks(follow=True, pause=None if waits is None else pause):
                seen.extend(placed.block.entries[0].data for placed in batch)

        async def pause() -> bool:
            await anyio.sleep(0 if waits else 0.01)
            return bool(waits)

        async def until(count: int) -> None:
            with anyio.fail_after(15):
                while len(seen) < count:
                    await anyio.sleep(0.005)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await until(2)
            at = await log.append(at, block(at, b"live"))
            await until(3)
            for number in range(3, 3 + many):
                at = await log.append(at, block(at, b"%d" % number))
            await until(3 + many)
            os.kill(server.pid, signal.SIGKILL)
            at = await log.append(at, block(at, b"after"))
            await until(4 + many)
            tasks.cancel_scope.cancel()
        between = [b"%d" % number for number in range(3, 3 + many)]
        assert seen == [b"0", b"1", b"live", *between, b"after"]


async def test_a_log_that_does_not_exist_is_no_database(nats_lab: Lab) -> None:
    async with nats_lab() as (_, port):
        log = BranchLog(port, Names(), "people", "db")
        with pytest.raises(DatabaseNotFound):
            await contents(log)
        with pytest.raises(DatabaseNotFound):
            await log.append(Position(), block(Position(), b"x"))


async def test_following_ends_when_the_log_is_deleted(nats_lab: Lab) -> None:
    async with nats_lab() as (_, port):
        log = BranchLog(port, Names(), "people", "db")
        await filled(log, 1)
        batches = log.blocks(follow=True)
        assert len(await anext(batches)) == 1
        await port.stream_delete(log.stream)
        with anyio.fail_after(10), pytest.raises(DatabaseNotFound):
            await anext(batches)

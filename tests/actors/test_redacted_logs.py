"""Readers beside an erasure: what they folded before it is continued only where that is right."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

import natalog
from natalog import kw
from natalog.actors.config import ServiceConfig
from natalog.actors.log import LogRedacted
from natalog.actors.redactions import Redactions
from natalog.actors.service import Service, running
from natalog.actors.state import BranchState
from natalog.actors.transactor import catch_up
from natalog.core.beginning import base_of
from natalog.core.database import Database
from natalog.core.errors import ErasureRefused, LogCorrupt
from natalog.core.record import TxRecord

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]
MARKER = "m-zebra-4711"


async def begun(client: natalog.Client) -> natalog.Conn:
    """A database with values of one cell of which a middle one is to go."""
    await client.create_database("people", schema_flexibility="read")
    conn = client.database("people")
    e = (await conn.transact([{"db/id": "x", "note": "a"}])).tempids["x"]
    for value in (MARKER, "y", "z"):
        await conn.transact([{"db/id": e, "note": value}])
    return conn


async def purged(conn: natalog.Conn) -> None:
    e = await conn.q("[:find ?e . :where [?e :note]]")
    await conn.transact([["db/purge", e, "note", MARKER]])
    await conn.transact([["db/purge", e, "note", "y"]])
    await conn.transact([{"after": 1}])


async def folded(service: Service, blocks: int, branch: str = "db") -> BranchState:
    """A state that has read so many blocks."""
    line = await service.hub.line("people", branch)
    state = BranchState("people", branch, line.lane)
    archive, branch_log = service.hub.archive, service.catalog.lines.log(line)
    index = await archive.redactions.index("people")
    state.epoch = index.epoch
    if line.lane:
        record = TxRecord.decode((await branch_log.read_block(1)).entries[0].data)
        state.base = await archive.value("people", base_of(record), index)
    async with aclosing(branch_log.blocks(until=blocks)) as batches:
        async for batch in batches:
            for placed in batch:
                state.fold(placed)
    return state


def facts(db: Database) -> list[Any]:
    return sorted((d.e, d.a.text, str(d.v), d.tx, d.added) for d in db.history().datoms("eavt"))


async def test_a_reader_that_lags_behind_an_erasure_begins_again(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await begun(client)
        lagging = await folded(service, 4)
        assert MARKER in repr(facts(lagging.db))
        await purged(conn)
        behind = await folded(service, 7)  # after the purges: nothing of it is different
        await conn.erase()
        line = await service.hub.line("people", "db")
        for state in (lagging, behind):
            await catch_up(state, service.catalog.lines.log(line), service.hub.archive)
            now = service.hub.state("people", "db")
            assert now is not None
            assert facts(state.db) == facts(now.db)
            assert MARKER not in repr(facts(state.db))
            assert (state.epoch, state.position.seq) == (1, now.position.seq)


async def test_a_log_that_is_redacted_while_it_is_read_says_so(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await begun(client)
        line = await service.hub.line("people", "db")
        branch_log = service.catalog.lines.log(line)
        old = await branch_log.table()
        await purged(conn)
        await conn.erase()
        with pytest.raises(LogRedacted):
            async with aclosing(branch_log.blocks(table=old)) as batches:
                async for _ in batches:
                    pass
        new = await branch_log.table()
        assert sorted(new.copies) == [3, 4, 5, 6, 7]
        told = [new.tells(2**52 + number) for number in range(8)]
        assert told == [True, True, False, False, False, False, True, True]
        blocks = [placed.seq async for batch in branch_log.blocks(table=new) for placed in batch]
        assert blocks == list(range(1, 9))
        await service.port.erase(line.stream, 2)
        with pytest.raises(LogCorrupt, match="missing"):
            async with aclosing(branch_log.blocks()) as batches:
                async for _ in batches:
                    pass
        with pytest.raises(LogCorrupt):
            await branch_log.read_block(2)
        assert (await branch_log.read_block(3)).hash == new.copies[3].hash


async def test_a_branch_begins_with_the_value_that_its_log_was_counted_on(
    service_config: Config,
) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await begun(client)
        await conn.branch("foo", from_=2**52 + 3)  # where the marker is past, and y present
        foo = client.database("people", "foo")
        await purged(conn)
        e = await foo.q("[:find ?e . :where [?e :note]]")
        await foo.transact([["db/purge", e, "note", MARKER]])
        await foo.transact([["db/purge", e, "note", "a"]])
        archive = service.hub.archive
        stale = await archive.value("people", base_of(await first(service, "foo")))
        assert MARKER in repr(facts(stale))
        await conn.erase()
        found = await folded(service, 3, "foo")
        assert facts(found.db) == facts(service.hub.state("people", "foo").db)  # type: ignore[union-attr]
        assert {d.v for d in found.db.history().datoms("aevt", [kw("note")])} == {"y"}


async def first(service: Service, branch: str) -> TxRecord:
    line = await service.hub.line("people", branch)
    block = await service.catalog.lines.log(line).read_block(1)
    return TxRecord.decode(block.entries[0].data)


async def test_two_erasures_never_undo_each_other(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await begun(client)
        await purged(conn)
        await conn.erase()
        redactions = Redactions(service.port, service.names)
        index = await redactions.index("people")
        assert index.epoch == 1
        await redactions.replace(index, replace(index.root, pending={"id": "other"}))
        with pytest.raises(ErasureRefused):
            await service.catalog.redactions.replace(index, index.root)
        assert await redactions.index("nobody") == await redactions.index("nobody")


async def test_a_piece_with_other_bytes_is_corruption(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        conn = await begun(client)
        await purged(conn)
        await conn.erase()
        stream = "natalog=people=_=redactions"
        subjects = await service.port.subjects(stream, "natalog.people._.redactions.*")
        for subject in subjects:
            await service.port.append(subject, b"something else", stream=stream)
        line = await service.hub.line("people", "db")
        fresh = Redactions(service.port, service.names)
        index = await fresh.index("people")
        with pytest.raises(LogCorrupt, match="other bytes"):
            await fresh.table(index, line.lane)

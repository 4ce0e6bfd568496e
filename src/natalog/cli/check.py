"""Verifying a branch from outside: fold its log again and compare with what the service says."""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import UUID

from natalog.cli.progress import Bar
from natalog.client import Client, Database
from natalog.client.erased_blocks import ErasedBlocks
from natalog.client.log_reader import LogReader, lane_stream
from natalog.core.errors import LogCorrupt, NatalogError, Unavailable
from natalog.core.record import ENTRY_COMMIT, FIRST_HASH, TxRecord
from natalog.core.values import Datom, value_key

log = logging.getLogger("natalog.check")

_PAGE_DATOMS = 20_000
_ATTEMPTS_MAX = 3


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    good: bool
    detail: str


class Folded(NamedTuple):
    """What a log makes, and how much of it there is."""

    value: Any
    blocks: int
    commits: int


async def check_branch(
    client: Client, database: str, branch: str, bar: Bar | None = None
) -> list[Finding]:
    """Read the whole log, check the chain, fold it, check the indexes, compare with the service.

    The logs that a branch's own begins in are read and checked too.  ``bar`` counts blocks.
    """
    for _ in range(_ATTEMPTS_MAX):
        try:
            return await _checked(client, database, branch, bar)
        except Unavailable as error:
            log.info("%s.%s is checked again: %s", database, branch, error.message)
    return await _checked(client, database, branch, bar)


async def _checked(client: Client, database: str, branch: str, bar: Bar | None) -> list[Finding]:
    findings: list[Finding] = []
    erased = ErasedBlocks(client.session, database, fixed=True)
    reader = LogReader(client.session, database, branch, erased=erased)
    conn = client.database(database, branch)
    db = await conn.db()
    try:
        value, blocks, commits = await _folded(client, database, reader, erased, db.basis, bar=bar)
        findings.append(Finding("log", True, f"{blocks} blocks, {commits} transactions"))
    except Unavailable:
        raise
    except NatalogError as error:
        findings.append(Finding("log", False, error.message))
        return findings
    try:
        value._check()
        findings.append(Finding("indexes", True, f"{len(value)} datoms, every invariant holds"))
    except AssertionError as error:
        findings.append(Finding("indexes", False, str(error) or "an invariant does not hold"))
    if bar is not None:
        bar.say("service")
    mine = value.datoms("eavt")
    theirs = await _all_datoms(db)
    differing = _first_difference(mine, theirs)
    findings.append(
        Finding(
            "service",
            differing is None,
            f"{len(theirs)} datoms equal those of the log at {db.basis}"
            if differing is None
            else differing,
        )
    )
    return findings


async def _folded(
    client: Client,
    database: str,
    reader: LogReader,
    erased: ErasedBlocks,
    basis: int,
    until: UUID | None = None,
    bar: Bar | None = None,
) -> Folded:
    """A log from its beginning to transaction ``basis`` or commit ``until``."""
    # the engine is heavy, and only this command needs it in the client's process
    from natalog.core.apply import apply_changes
    from natalog.core.beginning import base_of, begun
    from natalog.core.config import DatabaseConfig
    from natalog.core.database import Database as Value

    value = Value.empty()
    previous = FIRST_HASH
    blocks = commits = 0
    last = await reader.last_sequence()
    if bar is not None:
        bar.more(last)
    async with aclosing(reader.blocks(1, until=last)) as positions:
        async for position in positions:
            if position.block.previous != previous:
                raise LogCorrupt(f"block {position.sequence} does not follow the one before it")
            previous = position.block.hash
            blocks += 1
            if bar is not None:
                bar.advance(1)
            for entry in position.block.entries:
                if entry.type != ENTRY_COMMIT:
                    continue
                record = TxRecord.decode(entry.data)
                match record.kind:
                    case "genesis":
                        config = DatabaseConfig.from_mapping(record.config or {})
                        value = replace(
                            Value.empty(config, lane=record.lane), commit_id=entry.commit_id
                        )
                    case "branch" | "force":
                        base = base_of(record)
                        stream = lane_stream(client.session.prefix, database, base.lane)
                        below = LogReader(client.session, database, "", stream, erased)
                        found = await _folded(
                            client, database, below, erased, base.tx, base.commit, bar
                        )
                        blocks, commits = blocks + found.blocks, commits + found.commits
                        value = begun(record, found.value)
                        if record.is_commit:
                            value = replace(value, commit_id=entry.commit_id)
                    case "deleted":
                        continue
                    case _ if record.tx <= basis:
                        if record.parents[:1] != (value.commit_id,):
                            raise NatalogError(
                                f"transaction {record.tx} does not follow {value.commit_id}"
                            )
                        value = apply_changes(value, record.changes(value), entry.commit_id)
                        commits += 1
                if until is not None and value.commit_id == until:
                    return Folded(value, blocks, commits)
    if until is not None:
        raise NatalogError(f"there is no commit {until} where the log of a branch begins")
    return Folded(value, blocks, commits)


async def _all_datoms(db: Database) -> list[Datom]:
    found: list[Datom] = []
    start = 0
    while True:
        page = (
            await db.seek_datoms("eavt", start, limit=_PAGE_DATOMS)
            if start
            else (await db.datoms("eavt", limit=_PAGE_DATOMS))
        )
        if len(page) < _PAGE_DATOMS:
            return found + page
        last = page[-1].e
        found += [datom for datom in page if datom.e != last]
        found += await db.datoms("eavt", last)
        start = last + 1


def _first_difference(mine: list[Datom], theirs: list[Datom]) -> str | None:
    for left, right in zip(mine, theirs, strict=False):
        if value_key(tuple(left)) != value_key(tuple(right)):
            return f"the log has {tuple(left)!r} where the service has {tuple(right)!r}"
    if len(mine) != len(theirs):
        return f"the log has {len(mine)} datoms, the service {len(theirs)}"
    return None

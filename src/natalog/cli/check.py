"""Verifying a branch from outside: fold its log again and compare with what the service says."""

from __future__ import annotations

from typing import NamedTuple

from natalog.client import Client, Database
from natalog.client.log_reader import LogReader
from natalog.core.errors import NatalogError
from natalog.core.record import ENTRY_COMMIT, FIRST_HASH, TxRecord, decode_block
from natalog.core.values import Datom, value_key

_PAGE_DATOMS = 20_000


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    good: bool
    detail: str


async def check_branch(client: Client, database: str, branch: str) -> list[Finding]:
    """Read the whole log, check the chain, fold it, check the indexes, compare with the service."""
    # the engine is heavy, and only this command needs it in the client's process
    from natalog.core.apply import apply_changes
    from natalog.core.config import DatabaseConfig
    from natalog.core.database import Database as Value

    findings: list[Finding] = []
    reader = LogReader(client.session, database, branch)
    conn = client.database(database, branch)
    db = await conn.db()
    end = await reader.last_sequence()
    value = Value.empty()
    previous = FIRST_HASH
    blocks = commits = 0
    head = None
    try:
        async for position in reader.blocks(1, until=end):
            decode_block(position.data, previous)
            previous = position.block.hash
            blocks += 1
            for entry in position.block.entries:
                if entry.type != ENTRY_COMMIT:
                    continue
                record = TxRecord.decode(entry.data)
                if head is not None and record.parents[:1] != (head,):
                    raise NatalogError(f"transaction {record.tx} does not follow {head}")
                if record.kind == "genesis":
                    config = DatabaseConfig.from_mapping(record.config or {})
                    value = Value.empty(config, lane=record.lane)
                else:
                    if record.tx > db.basis:
                        continue
                    value = apply_changes(value, record.changes(value), entry.commit_id)
                    commits += 1
                head = entry.commit_id
        findings.append(Finding("log", True, f"{blocks} blocks, {commits} transactions"))
    except NatalogError as error:
        findings.append(Finding("log", False, error.message))
        return findings
    try:
        value._check()
        findings.append(Finding("indexes", True, f"{len(value)} datoms, every invariant holds"))
    except AssertionError as error:
        findings.append(Finding("indexes", False, str(error) or "an invariant does not hold"))
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

"""Verifying the snapshots of a branch: their segments, and that they are what the log says."""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from anyio import to_thread

from natalog.actors.archive import Archive
from natalog.actors.lines import Line, Lines
from natalog.actors.log import LogRedacted
from natalog.actors.names import Names
from natalog.actors.nats_port import NatsPort
from natalog.actors.pointers import JetStreamPointers
from natalog.actors.segments.places import Places
from natalog.actors.segments.store import Generations
from natalog.actors.segments.wire import Wire
from natalog.actors.snapshot_extra import restore
from natalog.actors.snapshot_refs import SnapshotRef
from natalog.actors.state import BranchState
from natalog.actors.tables import Commits, Idents
from natalog.actors.vault import Vault
from natalog.cli.check import Finding
from natalog.connection.access import Access
from natalog.core.database import Database
from natalog.core.errors import Forbidden, NatalogError, SegmentMissing
from natalog.core.index.residency import Residency
from natalog.core.storage import reachable
from natalog.core.values import value_key

log = logging.getLogger("natalog.check")

CACHE_BYTES = 256 * 1024 * 1024
ATTEMPTS_MAX = 3
NAME = "snapshots"


@dataclass(frozen=True, slots=True)
class Server:
    """Where to connect and as whom."""

    servers: list[str]
    access: Access
    prefix: str


async def check_snapshots(
    server: Server, database: str, branch: str, *, deep: bool = False
) -> list[Finding]:
    """Every snapshot of a branch names a block of its log, and its segments are all there.

    ``deep``: the bytes of every segment are those of its name, and every snapshot equals what the
    log folds to up to its block.
    """
    url = ",".join(server.servers)
    wire = Wire(url, name="natalog-check", access=server.access)
    try:
        port = await NatsPort.connect(url, name="natalog-check", access=server.access)
        try:
            return await _checked(port, wire, Names(server.prefix), database, branch, deep)
        finally:
            await port.close()
    except Forbidden as error:
        return [Finding(NAME, True, f"not looked at: {error.message}")]
    finally:
        await to_thread.run_sync(wire.close)


async def _checked(
    port: NatsPort, wire: Wire, names: Names, database: str, branch: str, deep: bool
) -> list[Finding]:
    lines = Lines(port, names)
    line = await lines.live(database, branch)
    pointers = JetStreamPointers(wire, names, database)
    pointer = await to_thread.run_sync(pointers.read, None)
    if line is None or pointer is None:
        return [Finding(NAME, True, "there are none")]
    try:
        kind = Generations.decode(pointer).kind
    except (NatalogError, TypeError, ValueError) as error:
        return [Finding(NAME, False, f"where segments lie cannot be read: {error}")]
    shelf, _ = Places(kind, wire, names)(database)
    vault = Vault(database, shelf, pointers, Residency(CACHE_BYTES), repairs=False)
    for attempt in range(ATTEMPTS_MAX):
        try:
            return await _look(lines, port, names, line, vault, deep=deep)
        except (SegmentMissing, LogRedacted) as error:
            # a compaction or an erasure may have come in between
            if attempt + 1 == ATTEMPTS_MAX:
                return [Finding(NAME, False, error.message)]
            log.info("the snapshots of %s are looked at again: %s", database, error.message)
    raise AssertionError("unreachable")


async def _look(
    lines: Lines, port: NatsPort, names: Names, line: Line, vault: Vault, *, deep: bool
) -> list[Finding]:
    listed = await to_thread.run_sync(vault.listed, line.lane)
    if not listed.refs:
        return [Finding(NAME, True, "there are none")]
    branch_log = lines.log(line)
    last = await branch_log.last_seq()
    for ref in listed.refs:
        found = (await branch_log.read_block(ref.seq)).hash if ref.seq <= last else None
        if found != ref.hash:
            said = f"the log ends at {last}" if found is None else "the log has another one there"
            return [Finding(NAME, False, f"a snapshot was taken after block {ref.seq}; {said}")]
    wanted = await to_thread.run_sync(_names, vault, listed.refs)
    missing = await to_thread.run_sync(vault.store.missing, wanted)
    if missing:
        raise SegmentMissing(f"{len(missing)} of {len(wanted)} segments are missing.")
    findings = [
        Finding(NAME, True, f"{len(listed.refs)}, the newest after block {listed.refs[0].seq}")
    ]
    if not deep:
        return [*findings, Finding("segments", True, f"{len(wanted)} segments are there")]
    corrupt = await to_thread.run_sync(_corrupt, vault, wanted)
    if corrupt:
        text = f"{len(corrupt)} of {len(wanted)} segments are corrupt, such as {corrupt[0]}"
        return [*findings, Finding("segments", False, text)]
    text = f"{len(wanted)} segments have the bytes of their names"
    archive = Archive(port, names, lines, tuple)
    return [
        *findings,
        Finding("segments", True, text),
        await _compared(archive, lines, line, vault, listed.refs),
    ]


def _names(vault: Vault, refs: tuple[SnapshotRef, ...]) -> set[str]:
    found: set[str] = set()
    for ref in refs:
        reachable(vault.store.segment(ref.manifest), vault.store.segment, found)
        found.add(ref.manifest)
    return found


def _corrupt(vault: Vault, names: set[str]) -> list[str]:
    """The segments that have not the bytes of their name."""
    return [name for name in sorted(names) if vault.store.get(name) is None]


async def _compared(
    archive: Archive, lines: Lines, line: Line, vault: Vault, refs: tuple[SnapshotRef, ...]
) -> Finding:
    """Fold the log and compare with each snapshot on the way."""
    name = "snapshots and log"
    branch_log = lines.log(line)
    state = BranchState(line.database, line.branch, line.lane)
    table = await archive.prepare(state, branch_log)
    wanted = {ref.seq: ref for ref in refs}
    async with aclosing(
        branch_log.blocks(state.position, until=refs[0].seq, table=table)
    ) as batches:
        async for batch in batches:
            for placed in batch:
                await to_thread.run_sync(state.fold, placed)
                ref = wanted.get(placed.seq)
                if ref is not None:
                    said = await to_thread.run_sync(partial(_difference, vault, ref, state))
                    if said is not None:
                        return Finding(name, False, f"at block {ref.seq}: {said}")
    return Finding(name, True, f"{len(refs)} snapshots equal what the log folds to")


def _difference(vault: Vault, ref: SnapshotRef, state: BranchState) -> str | None:
    """What a snapshot and the folded state have not in common."""
    loaded = vault.load(state.lane, ref, None, line=False)
    other = BranchState(state.database, state.branch, state.lane)
    restore(other, loaded.db, loaded.extra)
    try:
        other.db._check()
    except AssertionError as error:
        return f"an invariant does not hold: {error}"
    for what, mine, theirs in (
        ("position", state.position, other.position),
        ("base", state.began, other.began),
        ("creation", state.created_ms, other.created_ms),
        ("place in the ingest stream", state.ingest_seq, other.ingest_seq),
        ("first block", state.first_hash, other.first_hash),
        ("commits", _chunks(state.commits), _chunks(other.commits)),
        ("transaction ids", _chunks(state.ids), _chunks(other.ids)),
    ):
        if mine != theirs:
            return f"its {what} differs"
    return _database_difference(state.db, other.db)


def _chunks(table: Commits | Idents) -> list[bytes]:
    return list(table.chunks(len(table)))


def _database_difference(mine: Database, theirs: Database) -> str | None:
    for what in ("config", "lane", "max_tx", "max_eid", "instant_ms", "commit_id"):
        if getattr(mine, what) != getattr(theirs, what):
            return f"{what} is {getattr(theirs, what)}, not {getattr(mine, what)}"
    if mine.indexes.keys() != theirs.indexes.keys():
        return "its attributes differ"
    left, right = (db.history() if db.config.keep_history else db for db in (mine, theirs))
    for attr in mine.indexes:  # one after the other: all datoms at once would be too many
        ours, others = left.datoms("aevt", [attr]), right.datoms("aevt", [attr])
        if len(ours) != len(others):
            return f"{len(others)} facts of {attr}, not {len(ours)}"
        for one, other in zip(ours, others, strict=True):
            if value_key(tuple(one)) != value_key(tuple(other)):
                return f"{tuple(other)!r} where the log has {tuple(one)!r}"
    return None

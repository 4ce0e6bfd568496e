"""Which databases exist, what they are created with, and how they end.

The logs are the catalog: a database exists when the log of its main branch holds a genesis.  There
is no second place that could disagree.  A log without genesis is a creation that was cut short; the
next creation of that name completes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from natalog.actors.inlets import Inlets
from natalog.actors.lines import Lines
from natalog.actors.log import BranchLog, Position, no_log
from natalog.actors.names import (
    COLLECTED,
    GONE,
    HEAD,
    MAIN_BRANCH,
    NOBODY,
    PREPARED,
    REDACTIONS,
    SNAPSHOTS,
    SPENT,
    Names,
    check_name,
)
from natalog.actors.nats_port import NatsPort
from natalog.core.chain import commit_id
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.errors import (
    DatabaseExists,
    Fenced,
    InvalidConfig,
    LogCorrupt,
    NatalogError,
    TooLarge,
)
from natalog.core.record import (
    ENTRY_COMMIT,
    Entry,
    TxRecord,
    decode_block,
    encode_block,
    purge_refs,
)
from natalog.core.transact.report import TxReport
from natalog.core.values import Keyword

log = logging.getLogger("natalog.catalog")

Process = Callable[[Database, Any, Mapping[Any, Any] | None], TxReport]
"""`core.transact.process` with clock and functions bound: (database, tx-data, tx-meta)."""

CHANGED = "changed"
"""Endpoint on which creations and deletions are announced: ``natalog._._.changed``."""
OPENED = "opened"
"""What is announced there when a branch gets its transactor: who stands by follows it too."""
TX_INSTANT = Keyword("db/txInstant")


@dataclass(frozen=True, slots=True)
class DatabaseEntry:
    """A database that exists."""

    name: str
    created_ms: int
    config: DatabaseConfig
    branches: tuple[str, ...]


def record_of(
    report: TxReport,
    before: Database,
    ident: str | None = None,
    merged: tuple[UUID, ...] = (),
    kind: str = "transaction",
) -> TxRecord:
    """The record of a transaction that was processed on ``before``; ``merged``: more parents."""
    changes = report.changes
    return TxRecord(
        kind=kind,
        tx=report.tx,
        instant_ms=report.instant_ms,
        lane=before.lane,
        max_eid=changes.max_eid,
        parents=() if before.commit_id is None else (before.commit_id, *merged),
        datoms=changes.datoms,
        purges=purge_refs(before, changes.datoms, changes.purges),
        tempids=report.tempids,
        tx_meta={key: value for key, value in report.tx_meta.items() if key is not TX_INSTANT},
        id=ident,
        purged=report.purged,
    )


class Catalog:
    """Creates, lists and deletes databases on one NATS connection."""

    def __init__(
        self, port: NatsPort, names: Names, clock: Callable[[], int], *, replicas: int = 1
    ) -> None:
        self._port = port
        self._names = names
        self._clock = clock
        self._replicas = replicas
        self.lines = Lines(port, names, replicas=replicas)
        self.redactions = self.lines.redactions
        self.inlets = Inlets(port, names, replicas=replicas)

    async def create(
        self,
        name: object,
        settings: Mapping[Any, Any],
        initial_tx: Any = None,
        process: Process | None = None,
    ) -> DatabaseEntry:
        """Create a database, with a first transaction if one is given.

        Raises `InvalidName`, `InvalidConfig`, `DatabaseExists`, or what refuses the transaction;
        nothing exists then.
        """
        database = check_name(name)
        config = DatabaseConfig.from_mapping(settings)
        if await self.get(database) is not None:
            raise self._exists(database)
        now = self._clock()
        genesis = TxRecord(
            kind="genesis",
            tx=Database.empty(config).tx0,
            instant_ms=now,
            config={**config.to_mapping(), "name": database},
        )
        entries = [Entry(ENTRY_COMMIT, genesis.encode())]
        if initial_tx is not None:
            if process is None:
                raise InvalidConfig("initial_tx needs a transactor.", key="initial_tx")
            empty = replace(Database.empty(config), commit_id=commit_id(entries[0].data))
            report = process(empty, *split_transaction(initial_tx))
            entries.append(Entry(ENTRY_COMMIT, record_of(report, empty).encode()))
        block = encode_block(Position().hash, entries)
        if len(block) > self._port.payload_room:
            raise TooLarge(
                f"The first transaction of {database} has {len(block)} bytes; "
                f"{self._port.payload_room} fit a block.",
                bytes=len(block),
            )
        branch_log = BranchLog(self._port, self._names, database, MAIN_BRANCH)
        await branch_log.create(replicas=self._replicas)
        try:
            await branch_log.append(Position(), block)
        except Fenced:
            raise self._exists(database) from None
        # Messages that an earlier database of this name left behind must not reach the new one.
        await self.inlets.remove(database, MAIN_BRANCH)
        await self.ensure_ingest(database, MAIN_BRANCH, str(entries[0].commit_id))
        await self.announce("created", database)
        return DatabaseEntry(database, now, config, (MAIN_BRANCH,))

    async def ensure_ingest(self, database: str, branch: str, incarnation: str) -> None:
        """Create the ingest stream of a branch, in place of one of an earlier incarnation."""
        await self.inlets.ensure(database, branch, incarnation)

    async def get(self, database: str) -> DatabaseEntry | None:
        """A database, None when there is none."""
        first = await self._genesis(database)
        if first is None:
            return None
        streams = await self._port.streams(self._names.log(database, "*"))
        return self._entry(database, first, self._branches(streams, database))

    async def databases(self) -> list[DatabaseEntry]:
        """All databases, by name."""
        streams = await self._port.streams(self._names.any_branch("log"))
        found = []
        for stream in streams:
            database, branch = self._owner(stream)
            if branch != MAIN_BRANCH or not stream["state"]["last_seq"]:
                continue  # the main branch's log, wherever force has moved it
            try:
                first = await self._genesis(database)
            except LogCorrupt as error:
                log.error("database %s: %s", database, error.message)
                continue
            if first is not None:
                found.append(self._entry(database, first, self._branches(streams, database)))
        return sorted(found, key=lambda entry: entry.name)

    async def branches(self, database: str) -> list[str]:
        """The branches of a database, the main one first; `DatabaseNotFound`."""
        streams = await self._port.streams(self._names.log(database, "*"))
        branches = self._branches(streams, database)
        if MAIN_BRANCH not in branches:
            raise no_log(database, MAIN_BRANCH)
        return list(branches)

    async def has_branch(self, database: str, branch: str) -> bool:
        """Whether a branch exists, also one that nobody here has met."""
        return await self.lines.live(database, branch) is not None

    async def delete(self, name: object) -> bool:
        """Delete a database with everything it stored; False when there was none.

        The first log goes first: from then on the database does not exist, and what is left after
        a crash is garbage that the GC actor reports.
        """
        database = check_name(name)
        existed = await self._port.stream_delete(self._names.log_stream(database))
        for endpoint in ("log", "tx", GONE, PREPARED, COLLECTED, REDACTIONS, HEAD):
            pattern = self._names.subject(database, "*", endpoint)
            for stream in await self._port.streams(pattern):
                await self._port.stream_delete(str(stream["config"]["name"]))
        for name in await self._port.stream_names(self._names.spent(database, "*", "*")):
            await self._port.stream_delete(name)
        self.redactions.forget(database)
        if existed:
            await self.announce("deleted", database)
        return existed

    async def orphans(self) -> list[dict[str, Any]]:
        """Streams that belong to no database: what a sweep would free."""
        named = {
            "log": "log",
            "tx": "ingest",
            GONE: "log",
            PREPARED: "log",
            COLLECTED: "gc",
            REDACTIONS: "redactions",
            HEAD: "head",
            SNAPSHOTS: "snapshots",
        }
        streams = []
        for endpoint, what in named.items():
            for stream in await self._port.streams(self._names.any_branch(endpoint)):
                try:
                    database, branch = self._owner(stream)
                except ValueError:
                    continue  # a stream of somebody else that overlaps ours
                streams.append((what, database, branch, stream))
        for stream in await self._port.streams(self._names.segment("*", "*", "*")):
            owner = self._names.segments_of(str(stream["config"]["name"]))
            if owner is not None:
                streams.append(("segments", owner, NOBODY, stream))
        for stream in await self._port.streams(f"{self._names.any_branch(SPENT)}.*"):
            database, branch = self._names.owner(str(stream["config"]["subjects"][0]))
            streams.append(("ingest", database, branch, stream))
        # a database lives as long as its first log, whatever name that has by now
        alive = {
            database
            for _, database, _, stream in streams
            if stream["config"]["name"] == self._names.log_stream(database)
            and stream["state"]["last_seq"]
        }
        known = {(database, branch) for what, database, branch, _ in streams if what == "log"}
        return [
            {
                "stream": stream["config"]["name"],
                "what": what,
                "database": database,
                "branch": branch,
                "messages": int(stream["state"]["messages"]),
                "bytes": int(stream["state"]["bytes"]),
            }
            for what, database, branch, stream in streams
            if database not in alive or (what == "ingest" and (database, branch) not in known)
        ]

    # --- details -----------------------------------------------------------------------------

    async def _genesis(self, database: str) -> TxRecord | None:
        """The first record of a database; only a stream that does not exist makes it None."""
        stream = self._names.log_stream(database)
        if await self._port.stream_info(stream) is None:
            return None
        message = await self._port.read(stream, seq=1)
        if message is not None:
            block = decode_block(message.data, Position().hash)
        else:
            table = await self.redactions.table(await self.redactions.index(database), 0)
            if 1 not in table.copies:
                return None
            block = (await self.redactions.copy(database, table.copies[1]))[0].block
        first = TxRecord.decode(block.entries[0].data)
        if first.kind != "genesis":
            raise LogCorrupt(
                f"The log of {database} begins with a {first.kind}.", database=database
            )
        return first

    def _entry(self, database: str, first: TxRecord, branches: tuple[str, ...]) -> DatabaseEntry:
        config = DatabaseConfig.from_mapping(first.config or {})
        return DatabaseEntry(database, first.instant_ms or 0, config, branches)

    def _owner(self, stream: Mapping[str, Any]) -> tuple[str, str]:
        database, branch, _ = self._names.parse(str(stream["config"]["subjects"][0]))
        return database, branch

    def _branches(self, streams: Any, database: str) -> tuple[str, ...]:
        names = {
            branch
            for owner, branch in map(self._owner, (s for s in streams if s["state"]["last_seq"]))
            if owner == database
        }
        return tuple(sorted(names, key=lambda branch: (branch != MAIN_BRANCH, branch)))

    async def announce(self, event: str, database: str, branch: str = "") -> None:
        """Tell other processes that a database was created or deleted, or a branch moved."""
        subject = self._names.subject("_", "_", CHANGED)
        try:
            await self._port.publish(subject, f"{event} {database} {branch}".rstrip().encode())
        except NatalogError as error:
            log.warning("nobody was told that %s was %s: %s", database, event, error.message)

    def _exists(self, database: str) -> DatabaseExists:
        return DatabaseExists(f"The database {database} exists already.", database=database)


def split_transaction(body: Any) -> tuple[Any, Any]:
    """tx-data and tx-meta of a bare sequence or of ``{tx_data, tx_meta}`` in any spelling."""
    if isinstance(body, Mapping):
        fields = {str(key).lstrip(":").replace("-", "_"): value for key, value in body.items()}
        if "tx_data" in fields and fields.keys() <= {"tx_data", "tx_meta"}:
            return fields["tx_data"], fields.get("tx_meta")
    return body, None

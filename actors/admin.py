"""Requests about databases as a whole: create, delete, list, info, and their branches.

Creations and deletions are handled one after the other by one actor; what only reads answers at
once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from anyio import to_thread

from natalog.actors.branches import Branches
from natalog.actors.catalog import Catalog, DatabaseEntry, Process
from natalog.actors.hub import Hub
from natalog.actors.lease import Lease
from natalog.actors.metrics import Metrics
from natalog.actors.names import MAIN_BRANCH, check_name
from natalog.actors.payload import Struct, field_name, fields_of
from natalog.actors.requests import Request
from natalog.actors.runtime import Actor
from natalog.core.edn import parse_instant
from natalog.core.errors import BadRequest
from natalog.core.values import Keyword, Symbol, ms_instant

log = logging.getLogger("natalog.admin")

VERSIONING = ("branch", "delete-branch", "force-branch")
"""Verbs on branches that are handled one after the other."""


INSPECTED_AT_ONCE = 16


class AdminActor(Actor):
    """Creates and deletes databases and branches."""

    name = "admin"
    mailbox_size = 256

    def __init__(
        self,
        catalog: Catalog,
        hub: Hub,
        branches: Branches,
        metrics: Metrics,
        process: Process | None,
        lease: Lease,
    ) -> None:
        super().__init__()
        self._catalog = catalog
        self._hub = hub
        self._branches = branches
        self._metrics = metrics
        self._process = process
        self._lease = lease

    async def on_message(self, message: Any) -> None:
        assert isinstance(message, Request)
        handlers: dict[str, Callable[[Request], Awaitable[Struct]]] = {
            "create": self._create,
            "delete": self._delete,
            "branch": self._branch,
            "delete-branch": self._delete_branch,
            "force-branch": self._force_branch,
        }
        try:
            message.check_deadline()
            await self._lease.confirm()
            message.mine = True
            await message.reply(await handlers[message.endpoint](message))
        except Exception as error:
            await message.refuse(error)

    async def _create(self, request: Request) -> Struct:
        body = request.body()
        if not isinstance(body, dict):
            raise BadRequest("create takes a map with the name of the database.")
        fields = {field_name(key): value for key, value in body.items()}
        name = database_name(fields.pop("database", None))
        initial = fields.pop("initial_tx", None)
        settings = {key: value for key, value in fields.items() if value is not None}
        await self._catalog.create(name, settings, initial, self._process)
        return await info(self._hub, name, MAIN_BRANCH, request.remaining_s)

    async def _delete(self, request: Request) -> Struct:
        fields = fields_of(request.body(), ("database",), "delete")
        name = check_name(database_name(fields.get("database")))
        deleted = await self._catalog.delete(name)
        await self._hub.close(name)
        await self._hub.snapshots.remove(name)
        return Struct(database=name, deleted=deleted)

    async def _branch(self, request: Request) -> Struct:
        fields = fields_of(request.body(), ("from", "to"), "branch")
        source = fields.get("from")
        if isinstance(source, str):
            with contextlib.suppress(ValueError):
                source = parse_instant(source)
        return await self._branches.make(request.database, fields.get("to"), source)

    async def _delete_branch(self, request: Request) -> Struct:
        fields = fields_of(request.body(), ("branch",), "delete-branch")
        return await self._branches.delete(request.database, fields.get("branch"))

    async def _force_branch(self, request: Request) -> Struct:
        fields = fields_of(request.body(), ("branch", "view", "parents"), "force-branch")
        return await self._branches.force(
            request.database, fields.get("branch"), fields.get("view"), fields.get("parents")
        )


class Inspector:
    """Answers what only looks: list, info, branches."""

    def __init__(self, catalog: Catalog, hub: Hub, metrics: Metrics) -> None:
        self._catalog = catalog
        self._hub = hub
        self._metrics = metrics
        self._handlers: dict[str, Callable[[Request], Awaitable[Any]]] = {
            "list": self._list,
            "info": self._info,
            "branches": self._branches,
        }
        self._at_once = asyncio.Semaphore(INSPECTED_AT_ONCE)

    async def serve(self, request: Request) -> None:
        """Answer one request, whatever it is; not many at a time, since each asks JetStream."""
        try:
            async with self._at_once:
                request.check_deadline()
                await request.reply(await self._handlers[request.endpoint](request))
        except Exception as error:
            await request.refuse(error)

    async def _list(self, request: Request) -> Struct:
        fields_of(request.body(), (), "list")
        entries = await self._catalog.databases()
        for entry in entries:
            self._metrics.branches[entry.name] = len(entry.branches)
        return Struct(databases=[entry_struct(entry) for entry in entries])

    async def _info(self, request: Request) -> Struct:
        fields = fields_of(request.body(), ("branch",), "info")
        branch = fields.get("branch") or MAIN_BRANCH
        if request.branch != "_" and "branch" not in fields:
            branch = request.branch
        branch = check_name(database_name(branch), "branch")
        return await info(self._hub, request.database, branch, request.remaining_s)

    async def _branches(self, request: Request) -> Struct:
        fields_of(request.body(), (), "branches")
        await self._hub.settle(request.database)
        names = await self._catalog.branches(request.database)
        self._metrics.branches[request.database] = len(names)
        return Struct(branches=names)


async def info(hub: Hub, database: str, branch: str, timeout_s: float) -> Struct:
    """What ``info`` answers; the value it describes stays readable for a while."""
    await hub.value(database, branch, None, timeout_s)
    state = hub.state(database, branch)
    assert state is not None
    db = state.hold()
    return Struct(
        database=database,
        branch=branch,
        commit_id=db.commit_id,
        parents=list(await hub.archive.parents_of(state)),
        lane=state.lane,
        max_tx=db.max_tx,
        max_eid=db.max_eid,
        purge_horizon=db.purge_horizon,
        datoms=await to_thread.run_sync(len, db) if len(db.indexes) > 1000 else len(db),
        config=Struct(
            keep_history=db.config.keep_history,
            schema_flexibility=db.config.schema_flexibility,
            **{
                key: value
                for key, value in db.config.to_mapping().items()
                if key not in ("keep_history", "schema_flexibility", "name")
            },
        ),
        created=ms_instant(state.created_ms or 0),
        log_sequence=state.position.seq,
    )


def entry_struct(entry: DatabaseEntry) -> Struct:
    """What ``list`` answers about one database."""
    return Struct(
        database=entry.name,
        created=ms_instant(entry.created_ms),
        keep_history=entry.config.keep_history,
        schema_flexibility=entry.config.schema_flexibility,
        branches=list(entry.branches),
    )


def database_name(value: Any) -> Any:
    """A name that may be written as a keyword or symbol."""
    return value.text if isinstance(value, (Keyword, Symbol)) else value

"""The GC actor: looks, on its schedule and on request, for what nothing can reach any more.

It finds streams that belong to no database: what a deletion or creation that was cut short left
behind, and ingest streams of branches without a log.  It reports them; it removes nothing.
"""

from __future__ import annotations

import logging
from typing import Any

import anyio

from natalog.actors.catalog import Catalog
from natalog.actors.log import no_log
from natalog.actors.metrics import Metrics
from natalog.actors.names import MAIN_BRANCH
from natalog.actors.payload import Struct, fields_of
from natalog.actors.requests import Request
from natalog.actors.runtime import Actor
from natalog.core.errors import BadRequest, NatalogError

log = logging.getLogger("natalog.gc")


class GcActor(Actor):
    """Runs every ``interval_s`` seconds and on `Request`s to the endpoint ``gc``."""

    name = "gc"
    mailbox_size = 64

    def __init__(self, catalog: Catalog, metrics: Metrics, interval_s: float) -> None:
        super().__init__()
        self._catalog = catalog
        self._metrics = metrics
        self._interval_s = interval_s
        self.last: list[dict[str, Any]] = []

    async def schedule(self) -> None:
        """Send the actor its tick, for ever."""
        while True:
            await anyio.sleep(self._interval_s)
            try:
                self.tell("tick")
            except NatalogError as error:
                log.info("a run of the GC is left out: %s", error.message)

    async def on_message(self, message: Any) -> None:
        if not isinstance(message, Request):
            try:
                await self._look()
            except NatalogError as error:
                log.warning("the GC could not look: %s", error.message)
            return
        try:
            await message.reply(await self._answer(message))
        except Exception as error:
            await message.refuse(error)

    async def _look(self) -> list[dict[str, Any]]:
        found = await self._catalog.orphans()
        size = sum(item["bytes"] for item in found)
        self._metrics.gc_runs.inc()
        self._metrics.gc_garbage.set(size)
        log.info("gc: %d streams with %d bytes belong to no database", len(found), size)
        self.last = found
        return found

    async def _answer(self, request: Request) -> Struct:
        fields = fields_of(request.body(), ("before", "dry_run"), "gc")
        dry_run = fields.get("dry_run", False)
        if dry_run is not None and not isinstance(dry_run, bool):
            raise BadRequest("dry_run is true or false.", endpoint="gc")
        if not await self._catalog.has_branch(request.database, MAIN_BRANCH):
            raise no_log(request.database, MAIN_BRANCH)
        garbage = await self._look()
        return Struct(
            garbage=[Struct(item) for item in garbage],
            bytes=sum(item["bytes"] for item in garbage),
            freed=[item["stream"] for item in garbage] if dry_run else [],
            dry_run=bool(dry_run),
        )

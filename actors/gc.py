"""The GC actor: looks, on its schedule and on request, for what nothing can reach any more.

In every database it collects what no branch reaches (`collection`).  It also finds streams that
belong to no database: what a deletion or creation that was cut short left behind, and ingest
streams of branches without a log.  Those it reports; it does not remove them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import anyio

from natalog.actors.catalog import Catalog
from natalog.actors.collection import Collector, Swept
from natalog.actors.erase_request import read_erase_request
from natalog.actors.erasure import Eraser
from natalog.actors.keeper import Keeper
from natalog.actors.metrics import Metrics
from natalog.actors.payload import Struct, fields_of
from natalog.actors.requests import Request
from natalog.actors.runtime import Actor
from natalog.actors.snapshots import Snapshots
from natalog.actors.vault import Compacted
from natalog.core.edn import parse_instant
from natalog.core.errors import BadRequest, InvalidTimePoint, NatalogError
from natalog.core.values import instant_ms

log = logging.getLogger("natalog.gc")


class GcActor(Actor):
    """Runs every ``interval_s`` seconds and on `Request`s to the endpoint ``gc``.

    ``grace_s``: how long segments that nothing needs still serve slow readers.
    """

    name = "gc"
    mailbox_size = 64

    def __init__(
        self,
        catalog: Catalog,
        collector: Collector,
        eraser: Eraser,
        keeper: Keeper,
        snapshots: Snapshots,
        metrics: Metrics,
        its_turn: Callable[[], bool],
        *,
        interval_s: float,
        grace_s: float,
    ) -> None:
        """``its_turn``: whether this process is the one that runs by schedule."""
        super().__init__()
        self._catalog = catalog
        self._collector = collector
        self._eraser = eraser
        self._keeper = keeper
        self._snapshots = snapshots
        self._grace_s = grace_s
        self._metrics = metrics
        self._interval_s = interval_s
        self._its_turn = its_turn
        self.last: list[dict[str, Any]] = []

    async def on_start(self) -> None:
        with contextlib.suppress(NatalogError):
            self.tell("complete")

    async def schedule(self) -> None:
        """Send the actor its tick, for ever."""
        while True:
            await anyio.sleep(self._interval_s)
            if not self._its_turn():
                continue
            try:
                self.tell("tick")
            except NatalogError as error:
                log.info("a run of the GC is left out: %s", error.message)

    async def on_message(self, message: Any) -> None:
        if not isinstance(message, Request):
            if message == "complete":
                await self._complete()
            else:
                await self._tick()
            return
        try:
            if message.endpoint == "erase":
                message.check_deadline()
                wish = read_erase_request(message.body())
                await message.reply(await self._eraser.erase(message.database, wish))
            else:
                await message.reply(await self._answer(message))
        except Exception as error:
            await message.refuse(error)

    async def _complete(self) -> None:
        """Complete erasures that were cut short."""
        try:
            for entry in await self._catalog.databases():
                try:
                    await self._eraser.complete(entry.name)
                except NatalogError as error:
                    log.warning("an erasure of %s is incomplete: %s", entry.name, error.message)
        except NatalogError as error:
            log.warning("the GC could not look for erasures: %s", error.message)

    async def _tick(self) -> None:
        """What the schedule does: keep to the rules of retention, and collect every database."""
        await self._complete()
        try:
            for entry in await self._catalog.databases():
                try:
                    await self._keep(entry.name, list(entry.branches))
                except NatalogError as error:
                    log.warning("%s could not be collected: %s", entry.name, error.message)
            await self._look()
        except NatalogError as error:
            log.warning("the GC could not look: %s", error.message)

    async def _keep(self, database: str, branches: list[str]) -> None:
        purged = await self._keeper.apply(database, branches)
        before = self._keeper.commits_before(database)
        swept, _ = await self._collect(database, before, dry_run=False)
        await self._keeper.follow_up(database, bool(purged or swept.removed))

    async def _collect(
        self, database: str, before_ms: int | None, *, dry_run: bool
    ) -> tuple[Swept, Compacted]:
        found = await self._collector.collect(database, before_ms, dry_run=dry_run)
        if not dry_run:

            async def lanes() -> set[int]:
                return {line.lane for line in await self._catalog.lines.all(database)}

            await self._snapshots.drop_strangers(database, lanes)
        compacted = await self._snapshots.compact(database, grace_s=self._grace_s, dry_run=dry_run)
        if not dry_run:
            self._metrics.gc_swept.inc(found.bytes + compacted.freed)
        return found, compacted

    async def _look(self) -> list[dict[str, Any]]:
        found = await self._catalog.orphans()
        size = sum(item["bytes"] for item in found)
        self._metrics.gc_runs.inc()
        self._metrics.gc_last_run.set_to_current_time()
        self._metrics.gc_garbage.set(size)
        log.info("gc: %d streams with %d bytes belong to no database", len(found), size)
        self.last = found
        return found

    async def _answer(self, request: Request) -> Struct:
        fields = fields_of(request.body(), ("before", "dry_run"), "gc")
        dry_run = fields.get("dry_run", False)
        if dry_run is not None and not isinstance(dry_run, bool):
            raise BadRequest("dry_run is true or false.", endpoint="gc")
        before = _instant_ms(fields.get("before"))
        swept, segments = await self._collect(request.database, before, dry_run=bool(dry_run))
        garbage = await self._look()
        orphans = [item["stream"] for item in garbage] if dry_run else []
        return Struct(
            removed=swept.removed,
            commits=swept.commits,
            streams=swept.streams,
            garbage=[Struct(item) for item in garbage],
            segments=Struct(live=segments.live, dead=segments.dead, freed=segments.freed),
            bytes=swept.bytes + segments.freed + sum(item["bytes"] for item in garbage),
            freed=[*swept.streams, *orphans],
            dry_run=bool(dry_run),
            retention=await self._due(request.database) if dry_run else [],
        )

    async def _due(self, database: str) -> list[Struct]:
        """What the schedule would purge."""
        return await self._keeper.due(database, await self._catalog.branches(database))


def _instant_ms(value: Any) -> int | None:
    """An instant, also as text, in milliseconds; `InvalidTimePoint` for anything else."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, NatalogError):
            value = parse_instant(value)
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidTimePoint(f"{value!r} is no instant.", point=repr(value)[:80])
    return instant_ms(value)

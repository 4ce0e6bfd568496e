"""Keeps to the rules of retention.

Facts of an attribute that ended longer ago are purged by ordinary transactions of their branches;
commits that are older are collected.  Where it is asked for, an erasure follows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from anyio import to_thread

from natalog.actors.erase_request import EraseRequest
from natalog.actors.erasure import Eraser
from natalog.actors.metrics import Metrics
from natalog.actors.payload import Struct
from natalog.actors.retention import Retention
from natalog.core.errors import BranchNotFound, NatalogError
from natalog.core.transact.ended import ended_facts
from natalog.core.values import Keyword, kw, ms_instant

log = logging.getLogger("natalog.keeper")

DAY_MS: Final = int(timedelta(days=1) / timedelta(milliseconds=1))
FACTS_AT_ONCE: Final = 1_000
"""Facts that one transaction purges."""
_OPERATION: Final = kw("db.history.purge/ended")


class Keeper:
    """Applies the rules to one database after the other."""

    def __init__(
        self,
        retention: Retention,
        eraser: Eraser,
        metrics: Metrics,
        clock: Callable[[], int],
    ) -> None:
        self._retention = retention
        self._eraser = eraser
        self._purger = eraser.purger
        self._metrics = metrics
        self._clock = clock
        self._looked: set[str] = set()

    def commits_before(self, database: str) -> int | None:
        """The instant (ms) before which commits go; None without a rule."""
        days = self._retention.for_database(database).commits_days
        return None if days is None else self._clock() - int(days * DAY_MS)

    async def due(self, database: str, branches: list[str]) -> list[Struct]:
        """What the rules would purge now."""
        rules = self._retention.for_database(database)
        found = []
        for branch in branches if rules.history_days else ():
            try:
                db = await self._purger.value(database, branch)
            except BranchNotFound:
                continue
            if not db.config.keep_history:
                continue
            for name, days in rules.history_days.items():
                before = self._clock() - int(days * DAY_MS)
                facts = await to_thread.run_sync(ended_facts, db, Keyword(name), before)
                if facts:
                    found.append(Struct(branch=branch, attribute=name, facts=len(facts)))
        return found

    async def apply(self, database: str, branches: list[str]) -> int:
        """Purge what the rules no longer keep; how many facts."""
        rules = self._retention.for_database(database)
        total = 0
        for one in await self.due(database, branches):
            branch, attr = one["branch"], Keyword(one["attribute"])
            before = self._clock() - int(rules.history_days[one["attribute"]] * DAY_MS)
            operation = [_OPERATION, ms_instant(before), attr, FACTS_AT_ONCE]
            for _ in range(-(-one["facts"] // FACTS_AT_ONCE)):
                count = await self._purger.purge_once(database, branch, [operation])
                self._metrics.retention_purged.inc(count)
                total += count
                if not count:
                    break
        if total:
            log.info("retention purged %d facts of %s", total, database)
        return total

    async def follow_up(self, database: str, changed: bool) -> None:
        """Erase what was purged, where a rule says so; the first time whatever happened before."""
        rules = self._retention.for_database(database)
        if not rules.erase or not rules or not (changed or database not in self._looked):
            return
        self._looked.add(database)
        try:
            await self._eraser.erase(database, EraseRequest())
        except NatalogError as error:
            self._looked.discard(database)
            log.warning("%s could not be erased: %s", database, error.message)


__all__ = ["Keeper"]

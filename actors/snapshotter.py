"""When snapshots are written: after so many changes, or after some time with a few.

The process that holds the lease writes them.  It writes one at a time, and rests in
proportion to what the last one took, so that a long import is not spent on snapshots of itself.
"""

from __future__ import annotations

import logging
from typing import Final

import anyio

from natalog.actors.hub import Hub
from natalog.actors.names import MAIN_BRANCH, check_name
from natalog.actors.payload import Struct, fields_of
from natalog.actors.requests import Request
from natalog.actors.snapshots import Snapshots
from natalog.actors.state import BranchState
from natalog.actors.transactor import told
from natalog.core.errors import NatalogError, SegmentCorrupt, SegmentMissing
from natalog.core.values import Keyword, Symbol, ms_instant

log = logging.getLogger("natalog.snapshots")

TICK_S: Final = 0.5
CHANGES_MIN: Final = 1_000
"""Fewer are no reason for a snapshot, however old the last one is."""
REST_FACTOR: Final = 4.0
RETRY_S: Final = 30.0
"""After a snapshot that failed."""


class Snapshotter:
    """Writes snapshots of the branches of a `Hub`."""

    def __init__(self, hub: Hub, snapshots: Snapshots, *, datoms: int, interval_s: float) -> None:
        self._hub = hub
        self._snapshots = snapshots
        self._datoms = datoms
        self._interval_s = interval_s
        self._since: dict[tuple[str, int, str], float] = {}
        self._failed: dict[tuple[str, int, str], float] = {}

    async def run(self) -> None:
        """Look at all open branches, again and again."""
        while True:
            await anyio.sleep(TICK_S)
            states = self._hub.states()
            alive = {_key(state) for state in states}
            for noted in (self._since, self._failed):
                for key in noted.keys() - alive:
                    del noted[key]
            for state in states:
                if self._hub.writes and self._due(state):
                    await self._write(state)

    def _due(self, state: BranchState) -> bool:
        key, now = _key(state), anyio.current_time()
        changes = self._snapshots.changes(state)
        since = self._since.setdefault(key, now)
        if state.empty or now < self._failed.get(key, 0.0):
            return False
        if changes >= self._datoms:
            return True
        return changes >= CHANGES_MIN and now - since >= self._interval_s

    async def _write(self, state: BranchState) -> None:
        key = _key(state)
        try:
            found = await self._snapshots.write(state)
        except (SegmentMissing, SegmentCorrupt) as error:
            log.error("no snapshot of %s.%s: %s", *key[::2], error.message)
            state.lost()
        except NatalogError as error:
            log.warning("no snapshot of %s.%s: %s", state.database, state.branch, error.message)
            self._failed[key] = anyio.current_time() + RETRY_S
        else:
            self._since[key] = anyio.current_time()
            await anyio.sleep(found.seconds * REST_FACTOR)

    async def serve(self, request: Request) -> None:
        """Answer a request to write one now."""
        state: BranchState | None = None
        try:
            fields = fields_of(request.body(), ("branch",), "snapshot")
            named = fields.get("branch") or MAIN_BRANCH
            named = named.text if isinstance(named, (Keyword, Symbol)) else named
            branch = check_name(named, "branch")
            state, _ = await self._hub.open(request.database, branch)
            found = await self._snapshots.write(state)
            self._since[_key(state)] = anyio.current_time()
            await request.reply(
                Struct(
                    database=request.database,
                    branch=branch,
                    written=found.fresh,
                    tx=found.ref.tx,
                    log_sequence=found.ref.seq,
                    instant=ms_instant(found.ref.written_ms),
                    segments=found.segments,
                    bytes=found.bytes,
                )
            )
        except Exception as error:
            if state is not None and isinstance(error, (SegmentMissing, SegmentCorrupt)):
                state.lost()
            await request.refuse(told(error))


def _key(state: BranchState) -> tuple[str, int, str]:
    return state.database, state.lane, state.branch

"""Reads what simply is, for `Metrics.source`: states of branches, actors, connection and storage.

What this process knows is read when somebody looks.  What only NATS or the disk knows is asked for
every few seconds, and is left out while they do not answer.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio import to_thread

from natalog.actors.hub import Hub
from natalog.actors.inlets import Inlets
from natalog.actors.metrics import Metrics, State
from natalog.actors.monitoring import Monitored, look
from natalog.actors.names import Names
from natalog.actors.nats_port import NatsPort
from natalog.actors.nats_server import NatsServer
from natalog.actors.query import QueryActor
from natalog.actors.runtime import Runtime
from natalog.actors.state import BranchState
from natalog.core.database import Database
from natalog.core.errors import LogCorrupt, NatalogError
from natalog.core.limits import LANE_BITS, TX_BASE
from natalog.core.record import ENTRY_COMMIT, TxRecord, decode_block

log = logging.getLogger("natalog.sampler")

LOOK_INTERVAL_S = 5.0
PROBE_INTERVAL_S = 0.25
"""Between two looks at how punctually the event loop wakes a task."""
REPORT = "report"


@dataclass(frozen=True, slots=True)
class LogHead:
    """The end of a log as JetStream knows it; ``tx`` is its last transaction, if it is known."""

    seq: int
    bytes: int
    tx: int | None


class Sampler:
    """``source`` gives the values of one service; `run` asks NATS and the disk.

    ``port`` is asked; ``inlet`` is the connection that requests come in by.
    ``monitoring``: URL of the server's monitoring endpoint, None without one.  ``server``: the own
    nats-server, if there is one.
    """

    def __init__(
        self,
        port: NatsPort,
        inlet: NatsPort,
        names: Names,
        hub: Hub,
        query: QueryActor,
        runtime: Runtime,
        metrics: Metrics,
        *,
        server: NatsServer | None,
        monitoring: str | None,
    ) -> None:
        self._port = port
        self._inlet = inlet
        self._names = names
        self._inlets = Inlets(port, names)
        self._hub = hub
        self._query = query
        self._runtime = runtime
        self._metrics = metrics
        self._server = server
        self._monitoring = monitoring
        self._heads: dict[str, LogHead] = {}
        self._published: dict[tuple[str, str], int] = {}
        self._account: dict[str, float] = {}
        self._monitored: Monitored | None = None
        self._disk: tuple[int, int] | None = None

    # --- what is known here ------------------------------------------------------------------

    def source(self) -> Iterator[State]:
        """All values at this moment."""
        yield from self._of_branches()
        yield from self._of_snapshots()
        yield from self._of_actors()
        yield from self._of_nats()
        if self._disk is not None:
            yield "natalog_disk_free_bytes", (), self._disk[0]
            yield "natalog_disk_size_bytes", (), self._disk[1]

    def _of_snapshots(self) -> Iterator[State]:
        snapshots = self._hub.snapshots
        ages: dict[tuple[str, str], float] = {}
        for one in snapshots.ages():
            labels = self._metrics.labels.branch(one.database, one.branch)
            ages[labels] = max(ages.get(labels, 0.0), one.seconds)
        for labels, seconds in ages.items():
            yield "natalog_snapshot_age_seconds", labels, seconds
        if self._hub.writes:
            pending: Counter[tuple[str, str]] = Counter()
            for state in self._hub.states():
                labels = self._metrics.labels.branch(state.database, state.branch)
                pending[labels] += snapshots.changes(state)
            for labels, changes in pending.items():
                yield "natalog_snapshot_pending_datoms", labels, changes
        sizes: Counter[str] = Counter()
        for database, size in snapshots.store_bytes.items():
            sizes[self._metrics.labels.database(database)] += size
        for database, size in sizes.items():
            yield "natalog_segment_store_bytes", (database,), size
        stats = snapshots.residency.stats()
        yield "natalog_segment_cache_bytes", (), stats.resident_bytes
        yield "natalog_segment_cache_limit_bytes", (), stats.budget_bytes
        yield "natalog_segment_cache_hits_total", (), stats.hits
        yield "natalog_segment_cache_misses_total", (), stats.misses

    def _of_branches(self) -> Iterator[State]:
        """Branches that share a label are added up; of their lags the longest counts."""
        found: Counter[tuple[str, tuple[str, str]]] = Counter()
        lags: dict[tuple[str, str], int] = {}
        for state in self._hub.states():
            labels = self._metrics.labels.branch(state.database, state.branch)
            found["natalog_log_last_sequence", labels] += state.position.seq
            found["natalog_index_datoms", labels] += len(state.db)
            found["natalog_index_bytes", labels] += column_bytes(state.db)
            found["natalog_log_corrupt", labels] += 0
            head = self._heads.get(self._stream(state))
            if head is not None:
                found["natalog_log_bytes", labels] += head.bytes
                if head.tx is not None:
                    lags[labels] = max(lags.get(labels, 0), lag(state, head.tx))
            published = self._published.get((state.database, state.branch))
            if published is not None:
                waiting = max(0, published - state.ingest_seq)
                found["natalog_ingest_waiting_messages", labels] += waiting
            if self._monitored is not None:
                subject = self._names.report(state.database, state.branch)
                found["natalog_feed_subscribers", labels] += self._monitored.subscribers(subject)
        for key in self._hub.corrupt():
            found["natalog_log_corrupt", self._metrics.labels.branch(*key)] += 1
        for (name, labels), value in found.items():
            yield name, labels, value
        for labels, value in lags.items():
            yield "natalog_reader_basis_lag_transactions", labels, value

    def _of_actors(self) -> Iterator[State]:
        depths = {"query": self._query.waiting}
        running: Counter[str] = Counter()
        for actor in self._runtime.actors():
            kind = actor.name.partition(":")[0]
            running[kind] += 1
            self._metrics.actor_restarts.labels(kind)  # zero is a value, too
            depths[kind] = max(depths.get(kind, 0), actor.depth)
        for kind, depth in depths.items():
            yield "natalog_mailbox_depth", (kind,), depth
        for kind, count in running.items():
            yield "natalog_actors", (kind,), count

    def _of_nats(self) -> Iterator[State]:
        ports = (self._port, self._inlet)
        yield "natalog_nats_connected", (), all(port.is_connected for port in ports)
        yield "natalog_nats_disconnects_total", (), sum(port.disconnects for port in ports)
        yield "natalog_nats_reconnects_total", (), sum(port.reconnects for port in ports)
        yield "natalog_nats_errors_total", (), sum(port.errors for port in ports)
        for direction in ("in", "out"):
            for unit, key in (("messages", "msgs"), ("bytes", "bytes")):
                count = sum(port.traffic[f"{direction}_{key}"] for port in ports)
                yield f"natalog_nats_{unit}_total", (direction,), count
        if self._server is not None:
            yield "natalog_nats_server_restarts_total", (), self._server.restarts
        for name, value in self._account.items():
            yield f"natalog_jetstream_{name}", (), value
        if "storage_limit_bytes" not in self._account and self._monitored is not None:
            limit = self._monitored.storage_max_bytes
            if limit is not None:
                yield "natalog_jetstream_storage_limit_bytes", (), limit

    def _stream(self, state: BranchState) -> str:
        return self._names.lane_stream(state.database, state.lane)

    # --- what has to be asked for ------------------------------------------------------------

    async def run(self) -> None:
        """Ask every `LOOK_INTERVAL_S`, for ever."""
        while True:
            await self.look()
            await anyio.sleep(LOOK_INTERVAL_S)

    async def look(self) -> None:
        """Ask once; what cannot be told is forgotten."""
        try:
            await self._look_at_logs()
        except NatalogError as error:
            log.debug("NATS does not tell of the logs: %s", error.message)
            self._heads, self._published = {}, {}
        try:
            await self._look_at_account()
        except NatalogError as error:
            log.debug("NATS does not tell of the account: %s", error.message)
            self._account = {}
        self._monitored = await self._look_at_monitoring()
        if self._server is not None:
            self._disk = await to_thread.run_sync(_disk, self._server.data)

    async def _look_at_logs(self) -> None:
        heads: dict[str, LogHead] = {}
        published: dict[tuple[str, str], int] = {}
        for state in self._hub.states():
            stream = self._stream(state)
            info = await self._port.stream_info(stream)
            if info is not None:
                seq = int(info["state"]["last_seq"])
                heads[stream] = LogHead(
                    seq, int(info["state"]["bytes"]), await self._head_tx(state, stream, seq)
                )
            if self._hub.writes:
                inlet = await self._inlets.live(state.database, state.branch)
                if inlet is not None:
                    published[state.database, state.branch] = inlet.newest
        self._heads, self._published = heads, published

    async def _head_tx(self, state: BranchState, stream: str, seq: int) -> int | None:
        """The last transaction of a log that ends at ``seq``."""
        if seq <= state.position.seq:
            return state.db.max_tx
        known = self._heads.get(stream)
        if known is not None and known.seq == seq and known.tx is not None:
            return known.tx
        message = await self._port.read(stream, seq=seq)
        if message is None:
            return None
        try:
            entries = decode_block(message.data).entries
            # a block of nothing but rejections changes no value
            txs = [TxRecord.decode(one.data).tx for one in entries if one.type == ENTRY_COMMIT]
        except LogCorrupt:
            return None  # who reads the log says so, loudly
        return txs[-1] if txs else None

    async def _look_at_account(self) -> None:
        info = await self._port.api("INFO")
        found: dict[str, float] = {
            "storage_bytes": info.get("storage", 0),
            "streams": info.get("streams", 0),
            "consumers": info.get("consumers", 0),
        }
        limit = (info.get("limits") or {}).get("max_storage", -1)
        if limit > 0:
            found["storage_limit_bytes"] = limit
        self._account = found

    async def _look_at_monitoring(self) -> Monitored | None:
        url = self._monitoring
        if self._server is not None:
            url = self._server.monitoring_url
        if url is None:
            return None
        try:
            return await to_thread.run_sync(look, url.rstrip("/"), REPORT)
        except (OSError, ValueError) as error:
            log.debug("the monitoring of NATS does not tell: %s", error)
            return None

    async def probe(self) -> None:
        """Note how late the event loop wakes a task, for ever."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(PROBE_INTERVAL_S)
            late = time.monotonic() - began - PROBE_INTERVAL_S
            self._metrics.loop_lag.observe(max(0.0, late))


def lag(state: BranchState, head_tx: int) -> int:
    """Transactions of a log that its state lacks.  They count up by one within a log."""
    first = TX_BASE + (state.lane << LANE_BITS)
    return max(0, head_tx - max(state.db.max_tx, first))


def column_bytes(db: Database) -> int:
    """Bytes of the columns of a value's indexes, wherever they are.  O(attributes)."""
    trees = [db.entities]
    for index in db.indexes.values():
        trees.append(index.aevt)
        if index.avet is not None:
            trees.append(index.avet)
    return sum(8 * tree.width * tree.count for tree in trees)


def _disk(directory: Path) -> tuple[int, int] | None:
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return None
    return usage.free, usage.total

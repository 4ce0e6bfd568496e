"""Prometheus metrics, prefix ``natalog_``, base units, bounded labels.

Each service has a registry of its own, so that several can live in one process.  What happens is
counted here by whoever does it; what simply is (`STATES`) is read when somebody looks, from
``Metrics.source``.
"""

from __future__ import annotations

import contextlib
from collections import Counter as Counts
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from natalog.actors.labels import BranchLabels

LATENCY_BUCKETS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
COUNT_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 512)
ROW_BUCKETS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
JOB_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

DATABASE = ("database",)
BRANCH = ("database", "branch")

Samples = list[tuple[str, list[Sample]]]
"""What another process tells: the samples of each family."""

WORKER_FAMILIES: Final = frozenset(
    {
        *("natalog_reads", "natalog_query_duration_seconds", "natalog_query_rows"),
        *("natalog_query_rejected", "natalog_mailbox_depth", "natalog_event_loop_lag_seconds"),
        *("natalog_reader_basis_lag_transactions", "natalog_log_last_sequence"),
        *("natalog_nats_connected", "natalog_nats_disconnects", "natalog_nats_reconnects"),
        *("natalog_nats_errors", "natalog_nats_messages", "natalog_nats_bytes"),
        *("natalog_segment_cache_bytes", "natalog_segment_cache_limit_bytes"),
        *("natalog_segment_cache_hits", "natalog_segment_cache_misses"),
        *("process_cpu_seconds", "process_resident_memory_bytes", "process_start_time_seconds"),
        *("process_open_fds", "process_max_fds"),
    }
)
"""What is told of a query worker; its samples have the label ``worker`` beside the others."""

State = tuple[str, tuple[str, ...], float]
"""One value of `STATES`: the metric's name, the values of its labels, and the value."""

STATES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "natalog_log_last_sequence": ("Sequence of the last block that was read of the log.", BRANCH),
    "natalog_log_bytes": ("Bytes of the log in JetStream.", BRANCH),
    "natalog_log_corrupt": ("1 for a log that is not served because it is damaged.", BRANCH),
    "natalog_reader_basis_lag_transactions": (
        "Transactions of the log that this process has not read yet.",
        BRANCH,
    ),
    "natalog_index_datoms": ("Datoms in the current index.", BRANCH),
    "natalog_index_bytes": (
        "Bytes of the columns of the indexes, past facts included; branches share most of them.",
        BRANCH,
    ),
    "natalog_ingest_waiting_messages": (
        "Transactions that wait in the ingest stream of an open branch.",
        BRANCH,
    ),
    "natalog_feed_subscribers": (
        "Subscriptions on this NATS server that hear the live reports of an open branch.",
        BRANCH,
    ),
    "natalog_snapshot_age_seconds": (
        "Time since the newest snapshot of an open branch was written.",
        BRANCH,
    ),
    "natalog_snapshot_pending_datoms": (
        "Changes of an open branch that are in no snapshot yet, as the writer of snapshots knows.",
        BRANCH,
    ),
    "natalog_segment_store_bytes": (
        "Bytes of the segments of a database, as this process last saw them.",
        DATABASE,
    ),
    "natalog_segment_cache_bytes": ("Bytes of stored leaves and scans in memory.", ()),
    "natalog_segment_cache_limit_bytes": ("Bytes of stored leaves and scans at most.", ()),
    "natalog_segment_cache_hits_total": ("Reads of stored leaves that were in memory.", ()),
    "natalog_segment_cache_misses_total": ("Segments that were read from the store.", ()),
    "natalog_branches": ("Branches of a database.", DATABASE),
    "natalog_mailbox_depth": (
        "Messages that wait in the fullest mailbox of a kind of actor.",
        ("actor",),
    ),
    "natalog_actors": ("Actors that run.", ("actor",)),
    "natalog_service_ready": ("1 while requests are answered.", ("role",)),
    "natalog_lease_held": ("1 for the process that takes the transactions.", ()),
    "natalog_takeovers_total": ("Times this process began to take the transactions.", ()),
    "natalog_nats_connected": ("1 while the connections to NATS are up.", ()),
    "natalog_nats_disconnects_total": ("Times a connection to NATS broke.", ()),
    "natalog_nats_reconnects_total": ("Times a connection to NATS was made again.", ()),
    "natalog_nats_errors_total": (
        "Errors that NATS told outside of any call: slow consumers, missing permissions.",
        (),
    ),
    "natalog_nats_messages_total": ("Messages from and to NATS.", ("direction",)),
    "natalog_nats_bytes_total": ("Payload bytes from and to NATS.", ("direction",)),
    "natalog_nats_server_restarts_total": ("Unplanned restarts of the own nats-server.", ()),
    "natalog_jetstream_storage_bytes": ("Bytes that JetStream stores for this account.", ()),
    "natalog_jetstream_storage_limit_bytes": ("Bytes that JetStream may store.", ()),
    "natalog_jetstream_streams": ("Streams of this account.", ()),
    "natalog_jetstream_consumers": ("Consumers of this account.", ()),
    "natalog_disk_free_bytes": ("Free bytes where the own nats-server stores.", ()),
    "natalog_disk_size_bytes": ("Size of the disk where the own nats-server stores.", ()),
}
"""What is read when somebody looks, with its documentation and labels."""


def package_version() -> str:
    """The installed version of natalog."""
    try:
        return version("natalog")
    except PackageNotFoundError:
        return "unknown"


class Metrics:
    """The metrics of one service.

    ``labels`` gives the label values of branches.  ``branches``: how many a database has.
    ``source`` gives the values of all other `STATES`.  ``workers``: what query workers tell.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.labels = BranchLabels()
        self.source: Callable[[], Iterable[State]] = tuple
        self.branches: dict[str, int] = {}
        self.workers: Mapping[int, Samples] = {}
        self.registry.register(_States(self))
        self.transactions = Counter(
            "natalog_transactions_total",
            "Transactions by outcome: committed, repeated, rejected, failed, busy.",
            (*BRANCH, "outcome"),
            registry=self.registry,
        )
        self.transaction_seconds = Histogram(
            "natalog_transaction_duration_seconds",
            "From the arrival of a transaction to its report.",
            BRANCH,
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.block_transactions = Histogram(
            "natalog_commit_block_transactions",
            "Transactions committed in one block.",
            BRANCH,
            buckets=COUNT_BUCKETS,
            registry=self.registry,
        )
        self.append_seconds = Histogram(
            "natalog_log_append_duration_seconds",
            "Appending one block, until it is on disk.",
            BRANCH,
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.reads = Counter(
            "natalog_reads_total",
            "Read requests answered, by endpoint and outcome: ok, error.",
            (*DATABASE, "endpoint", "outcome"),
            registry=self.registry,
        )
        self.query_seconds = Histogram(
            "natalog_query_duration_seconds",
            "From the arrival of a read request to its answer.",
            ("outcome",),
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.query_rows = Histogram(
            "natalog_query_rows",
            "Rows of query answers.",
            buckets=ROW_BUCKETS,
            registry=self.registry,
        )
        self.query_rejected = Counter(
            "natalog_query_rejected_total",
            "Read requests refused.",
            ("reason",),
            registry=self.registry,
        )
        self.actor_restarts = Counter(
            "natalog_actor_restarts_total",
            "Actors started again.",
            ("actor",),
            registry=self.registry,
        )
        self.loop_lag = Histogram(
            "natalog_event_loop_lag_seconds",
            "How much later than it wished a task was woken.",
            buckets=LAG_BUCKETS,
            registry=self.registry,
        )
        self.gc_runs = Counter(
            "natalog_gc_runs_total", "Runs of the GC actor.", registry=self.registry
        )
        self.gc_swept = Counter(
            "natalog_gc_swept_bytes_total", "Bytes that GC freed.", registry=self.registry
        )
        self.gc_garbage = Gauge(
            "natalog_gc_garbage_bytes",
            "Bytes of streams that belong to no database, as the last GC run saw them.",
            registry=self.registry,
        )
        self.gc_last_run = Gauge(
            "natalog_gc_last_run_timestamp_seconds",
            "When the GC actor last ran; 0 before its first run.",
            registry=self.registry,
        )
        self.snapshots = Counter(
            "natalog_snapshots_total",
            "Snapshots by outcome: written, unchanged, failed; loaded, ignored as unreadable.",
            ("outcome",),
            registry=self.registry,
        )
        self.snapshot_seconds = Histogram(
            "natalog_snapshot_duration_seconds",
            "Writing a snapshot, while transactions go on.",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.purged = Counter(
            "natalog_purge_datoms_total", "Facts removed by purges.", BRANCH, registry=self.registry
        )
        self.erasures = Counter(
            "natalog_erasures_total",
            "Erasures by outcome: done, repeated, failed.",
            ("outcome",),
            registry=self.registry,
        )
        self.erasure_seconds = Histogram(
            "natalog_erasure_duration_seconds",
            "From the request of an erasure to its receipt.",
            buckets=JOB_BUCKETS,
            registry=self.registry,
        )
        self.erased_facts = Counter(
            "natalog_erased_facts_total",
            "Facts that erasures took out of logs.",
            registry=self.registry,
        )
        self.retention_purged = Counter(
            "natalog_retention_purged_total",
            "Facts purged because a rule of retention no longer keeps them.",
            registry=self.registry,
        )
        self.build = Gauge(
            "natalog_build_info", "The running version.", ("version",), registry=self.registry
        )
        self.build.labels(package_version()).set(1)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(_Shown(self))

    def told(self, families: Container[str]) -> Samples:
        """What another process shows of this one."""
        return [
            (metric.name, metric.samples)
            for metric in _Shown(self).collect()
            if metric.name in families
        ]

    def forget_branch(self, database: str, branch: str) -> None:
        """Drop the series of a branch that is closed, and give its place to another one."""
        labels = self.labels.named(database, branch)
        if labels is None:
            return
        self.labels.release_branch(database, branch)
        for outcome in OUTCOMES:
            with contextlib.suppress(KeyError):
                self.transactions.remove(*labels, outcome)
        for metric in (
            self.transaction_seconds,
            self.block_transactions,
            self.append_seconds,
            self.purged,
        ):
            with contextlib.suppress(KeyError):
                metric.remove(*labels)

    def forget_database(self, database: str) -> None:
        """Drop the series of a database that is gone."""
        self.branches.pop(database, None)
        if self.labels.known(database) != database:
            return
        self.labels.release_database(database)
        self.reads.remove_by_labels({"database": database})


OUTCOMES: Final = ("committed", "repeated", "rejected", "failed", "busy")
"""What becomes of a transaction; ``busy``: the mailbox was full."""


class _States(Collector):
    """Gives `STATES` the values that hold at this moment."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for name, (text, labels) in STATES.items():
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            families[name] = family(name, text, labels=labels)
        counted: Counts[str] = Counts()
        for database, count in self._metrics.branches.items():
            counted[self._metrics.labels.database(database)] += count
        for database, count in counted.items():
            families["natalog_branches"].add_metric((database,), count)
        for name, values, value in self._metrics.source():
            families[name].add_metric(values, value)
        yield from families.values()


class _Shown(CollectorRegistry):
    """A registry with the samples of query workers.

    It leaves the instants out at which series began: nobody asks for them.
    """

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        told: dict[str, list[Sample]] = {}
        for worker, families in self._metrics.workers.items():
            for name, samples in families:
                told.setdefault(name, []).extend(
                    sample._replace(labels={**sample.labels, "worker": str(worker)})
                    for sample in samples
                )
        for metric in self._metrics.registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            metric.samples += told.get(metric.name, ())
            yield metric

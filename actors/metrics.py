"""Prometheus metrics, prefix ``natalog_``, base units, bounded labels.

Each service has a registry of its own, so that several can live in one process.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCY_BUCKETS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
COUNT_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 512)
ROW_BUCKETS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)

BRANCH = ("database", "branch")


def package_version() -> str:
    """The installed version of natalog."""
    try:
        return version("natalog")
    except PackageNotFoundError:
        return "unknown"


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.transactions = Counter(
            "natalog_transactions_total",
            "Transactions by outcome: committed, repeated, rejected, failed.",
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
        self.log_sequence = Gauge(
            "natalog_log_last_sequence",
            "Sequence of the last block of the log.",
            BRANCH,
            registry=self.registry,
        )
        self.basis_lag = Gauge(
            "natalog_reader_basis_lag_transactions",
            "Transactions that a reader was asked for and does not have yet.",
            BRANCH,
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
        self.index_datoms = Gauge(
            "natalog_index_datoms", "Datoms in the current index.", BRANCH, registry=self.registry
        )
        self.mailbox_depth = Gauge(
            "natalog_mailbox_depth",
            "Messages that wait in a mailbox.",
            ("actor",),
            registry=self.registry,
        )
        self.actor_restarts = Counter(
            "natalog_actor_restarts_total",
            "Actors started again.",
            ("actor",),
            registry=self.registry,
        )
        self.server_restarts = Gauge(
            "natalog_nats_server_restarts",
            "Unplanned restarts of the child nats-server.",
            registry=self.registry,
        )
        self.disconnects = Gauge(
            "natalog_nats_disconnects",
            "Times the connection to NATS broke.",
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
            "Bytes that the last GC run would have freed.",
            registry=self.registry,
        )
        self.purged = Counter(
            "natalog_purge_datoms_total", "Facts removed by purges.", BRANCH, registry=self.registry
        )
        self.branches = Gauge(
            "natalog_branches", "Branches of a database.", ("database",), registry=self.registry
        )
        self.build = Gauge(
            "natalog_build_info", "The running version.", ("version",), registry=self.registry
        )
        self.build.labels(package_version()).set(1)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)

    def forget_database(self, database: str) -> None:
        """Drop the gauges of a database that is gone."""
        with contextlib.suppress(KeyError):
            self.branches.remove(database)

    def forget_branch(self, database: str, branch: str) -> None:
        """Drop the gauges of a branch that is gone."""
        for gauge in (self.log_sequence, self.basis_lag, self.index_datoms):
            try:
                gauge.remove(database, branch)
            except KeyError:
                continue

"""The dashboard that says whether Natalog is well, and what it does."""

from __future__ import annotations

from parts import Json, dashboard, lines, stat, table, thresholds
from promql import (
    COMMITTED,
    OUTCOMES,
    VARIABLES,
    B,
    D,
    P,
    quantile,
    quantiles,
    rate,
    rejected_ratio,
)


def overview() -> Json:
    now = [
        stat(
            "Processes ready",
            "Processes that answer requests, of those that run.",
            "percentunit",
            f"sum (natalog_service_ready{{{P}}}) / count (natalog_build_info{{{P}}})",
            marks=thresholds(1, falling=True),
        ),
        stat(
            "Alerts",
            "Alerts of config/prometheus/rules that fire; 0 also when the rules are not loaded.",
            "short",
            'count (ALERTS{alertname=~"Natalog.*",alertstate="firing",job=~"$job|"}) or vector(0)',
            marks=thresholds(1),
        ),
        stat(
            "Transactions",
            "Transactions committed per second.",
            "ops",
            f"sum ({rate('natalog_transactions_total', COMMITTED)})",
            link="natalog-transactor",
        ),
        stat(
            "Transaction time",
            "99 of 100 transactions have their report after this time.",
            "s",
            quantile(0.99, "natalog_transaction_duration_seconds", B),
            marks=thresholds(0.5, 2),
            link="natalog-transactor",
        ),
        stat(
            "Reads",
            "Read requests answered per second, of all endpoints.",
            "reqps",
            f"sum ({rate('natalog_reads_total', D)})",
            link="natalog-queries",
        ),
        stat(
            "Read time",
            "99 of 100 reads are answered within this time; of all databases.",
            "s",
            quantile(0.99, "natalog_query_duration_seconds", P),
            marks=thresholds(1, 5),
            link="natalog-queries",
        ),
        stat(
            "Refused transactions",
            "Share of the transactions that were refused or failed.",
            "percentunit",
            rejected_ratio(),
            marks=thresholds(0.05, 0.2),
            decimals=1,
        ),
        stat(
            "Reader lag",
            "Transactions that the reader furthest behind has not read yet.",
            "short",
            f"max (natalog_reader_basis_lag_transactions{{{B}}})",
            marks=thresholds(100, 1000),
        ),
        stat(
            "Datoms",
            "Datoms in the current indexes of the open branches.",
            "short",
            f"sum (max by (job, database, branch) (natalog_index_datoms{{{B}}}))",
            link="natalog-storage",
        ),
        stat(
            "Branches",
            "Branches of the chosen databases.",
            "short",
            f"sum (max by (job, database) (natalog_branches{{{D}}}))",
        ),
        stat(
            "JetStream storage",
            "Share of JetStream's storage limit that is used.",
            "percentunit",
            f"max (natalog_jetstream_storage_bytes{{{P}}})"
            f" / max (natalog_jetstream_storage_limit_bytes{{{P}}})",
            marks=thresholds(0.7, 0.85),
            decimals=1,
            link="natalog-storage",
        ),
        stat(
            "Damaged logs",
            "Branches that are not served because their log is damaged.",
            "short",
            f"sum (max by (job, database, branch) (natalog_log_corrupt{{{B}}}))",
            marks=thresholds(1),
        ),
    ]
    work = [
        lines(
            "Transactions by outcome",
            "Transactions per second. Refused ones cost their producer an error; repeated ones had "
            "been committed before.",
            "ops",
            [(f"sum by (outcome) ({rate('natalog_transactions_total', B)})", "{{outcome}}")],
            colors=OUTCOMES,
            stack=True,
        ),
        lines(
            "Time of transactions",
            "From the arrival of a transaction to its report.",
            "s",
            quantiles("natalog_transaction_duration_seconds", B),
        ),
        lines(
            "Reads by endpoint",
            "Read requests answered per second.",
            "reqps",
            [(f"sum by (endpoint) ({rate('natalog_reads_total', D)})", "{{endpoint}}")],
            stack=True,
        ),
        lines(
            "Time of reads",
            "From the arrival of a read to its answer; of all databases.",
            "s",
            quantiles("natalog_query_duration_seconds", P),
        ),
    ]
    processes = [
        table(
            "Processes",
            "Role and version of each process, and whether it answers.",
            "short",
            [
                (f"natalog_service_ready{{{P}}}", "ready"),
                (
                    f"natalog_build_info{{{P}}} * on (job, instance) group_left ()"
                    f' (time() - process_start_time_seconds{{{P},worker=""}})',
                    "up for (s)",
                ),
            ],
            hide=("__name__",),
            w=8,
        ),
        lines(
            "Connection to NATS",
            "1 while it is up, that of query workers included.",
            "short",
            [(f"min by (instance) (natalog_nats_connected{{{P}}})", "{{instance}}")],
            top=1,
            w=4,
            h=7,
        ),
        lines(
            "Who takes transactions",
            "1 for the process that holds the lease. Exactly one should, but for the moments of a "
            "takeover.",
            "short",
            [(f"natalog_lease_held{{{P}}}", "{{instance}}")],
            top=1,
            w=4,
            h=7,
        ),
        lines(
            "Connections broken and made again",
            "Times per minute that a process lost or found NATS, and unplanned starts of an own "
            "nats-server.",
            "short",
            [
                (
                    f"60 * sum by (instance) ({rate('natalog_nats_disconnects_total', P)})",
                    "{{instance}} lost",
                ),
                (
                    f"60 * sum by (instance) ({rate('natalog_nats_reconnects_total', P)})",
                    "{{instance}} found",
                ),
                (
                    f"60 * sum by (instance) ({rate('natalog_nats_server_restarts_total', P)})",
                    "{{instance}} nats-server started",
                ),
                (
                    f"60 * sum by (instance) ({rate('natalog_nats_errors_total', P)})",
                    "{{instance}} errors",
                ),
            ],
            w=8,
            h=7,
        ),
        lines(
            "Processors",
            "Processor time per second, query workers included; one core is 100 %.",
            "percentunit",
            [(f"sum by (instance) ({rate('process_cpu_seconds_total', P)})", "{{instance}}")],
            w=8,
        ),
        lines(
            "Memory",
            "Resident memory, query workers included.",
            "bytes",
            [(f"sum by (instance) (process_resident_memory_bytes{{{P}}})", "{{instance}}")],
            w=8,
        ),
        lines(
            "Event loop",
            "99 of 100 tasks are woken with less delay. Long delays mean that something holds the "
            "loop up.",
            "s",
            [(quantile(0.99, "natalog_event_loop_lag_seconds", P, "instance"), "{{instance}}")],
            w=8,
        ),
        lines(
            "Open files",
            "Share of the files that a process may open; connections count.",
            "percentunit",
            [
                (
                    f"max by (instance) (process_open_fds{{{P}}} / process_max_fds{{{P}}})",
                    "{{instance}}",
                )
            ],
            marks=thresholds(0.8),
            w=8,
        ),
        lines(
            "Actors",
            "Actors that run. Branches that nobody uses have none.",
            "short",
            [(f"sum by (actor) (natalog_actors{{{P}}})", "{{actor}}")],
            stack=True,
            w=8,
        ),
        lines(
            "Actors started again",
            "Restarts after failures, per minute.",
            "short",
            [(f"60 * sum by (actor) ({rate('natalog_actor_restarts_total', P)})", "{{actor}}")],
            w=8,
        ),
    ]
    return dashboard(
        "natalog-overview",
        "Natalog overview",
        "Whether Natalog is well, and what it does.",
        VARIABLES,
        [("Now", now), ("Work", work), ("Inside", processes)],
    )

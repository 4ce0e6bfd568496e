"""The dashboard of reads: how many, how fast, how fresh, and which are refused."""

from __future__ import annotations

from parts import Json, dashboard, heatmap, lines, stat, thresholds
from promql import VARIABLES, B, D, P, quantile, quantiles, rate, read_errors


def queries() -> Json:
    rows = f"sum ({rate('natalog_query_rows_sum', P)})"
    now = [
        stat(
            "Answered",
            "Read requests answered per second, of all endpoints.",
            "reqps",
            f"sum ({rate('natalog_reads_total', D)})",
        ),
        stat(
            "Half within",
            "Half of the reads are answered within this time; of all databases.",
            "s",
            quantile(0.5, "natalog_query_duration_seconds", P),
            marks=thresholds(0.5, 2),
        ),
        stat(
            "Nearly all within",
            "99 of 100 reads are answered within this time; of all databases.",
            "s",
            quantile(0.99, "natalog_query_duration_seconds", P),
            marks=thresholds(1, 5),
        ),
        stat(
            "Errors",
            "Share of the reads that end with an error.",
            "percentunit",
            read_errors(),
            marks=thresholds(0.05, 0.2),
            decimals=1,
        ),
        stat(
            "Rows an answer",
            "Rows of an answer, on average; of all databases.",
            "short",
            f"{rows} / sum ({rate('natalog_query_rows_count', P)})",
            decimals=1,
        ),
        stat(
            "Being answered",
            "Reads that the busiest process works on or that wait there for a worker.",
            "short",
            f'max (sum by (instance) (natalog_mailbox_depth{{{P},actor="query"}}))',
            marks=thresholds(100, 1000),
        ),
    ]
    work = [
        lines(
            "Reads by endpoint",
            "Read requests answered per second.",
            "reqps",
            [(f"sum by (endpoint) ({rate('natalog_reads_total', D)})", "{{endpoint}}")],
            stack=True,
        ),
        lines(
            "Reads by database",
            "Read requests answered per second. Those for databases that do not exist, and beyond "
            "the hundred that a process names, are under _other.",
            "reqps",
            [(f"sum by (database) ({rate('natalog_reads_total', D)})", "{{database}}")],
            stack=True,
        ),
        lines(
            "Reads by process",
            "How the work is shared; NATS gives each request to one process of the queue group.",
            "reqps",
            [(f"sum by (instance) ({rate('natalog_reads_total', D)})", "{{instance}}")],
            stack=True,
        ),
        lines(
            "Refused reads by reason",
            "Codes of docs/errors.md, per second. Busy and QueryTimeout speak of load, most others "
            "of the question.",
            "reqps",
            [(f"sum by (reason) ({rate('natalog_query_rejected_total', P)})", "{{reason}}")],
            stack=True,
        ),
    ]
    time = [
        lines(
            "Time of reads that succeed",
            "From the arrival of a read to its answer; of all databases.",
            "s",
            quantiles("natalog_query_duration_seconds", P + ',outcome="ok"'),
            w=8,
        ),
        lines(
            "Time of reads that fail",
            "From the arrival of a read to its error; of all databases.",
            "s",
            quantiles("natalog_query_duration_seconds", P + ',outcome="error"'),
            w=8,
        ),
        heatmap(
            "Reads by their time",
            "How many reads took how long, per second.",
            "s",
            f"sum by (le) ({rate('natalog_query_duration_seconds_bucket', P)})",
            w=8,
        ),
        lines(
            "Rows of answers",
            "Rows of one answer; of all databases.",
            "short",
            quantiles("natalog_query_rows", P),
            w=8,
        ),
        lines(
            "Rows answered",
            "Rows per second, of all answers.",
            "ops",
            [(f"sum by (instance) ({rate('natalog_query_rows_sum', P)})", "{{instance}}")],
            stack=True,
            w=8,
        ),
        lines(
            "Reads being answered",
            "Reads that a process is working on or that wait for a worker.",
            "short",
            [
                (
                    f'sum by (instance) (natalog_mailbox_depth{{{P},actor="query"}})',
                    "{{instance}}",
                )
            ],
            w=8,
        ),
    ]
    freshness = [
        lines(
            "Reader lag",
            "Transactions of the log that a process has not read yet: how old its answers are.",
            "short",
            [
                (
                    "max by (instance, database, branch)"
                    f" (natalog_reader_basis_lag_transactions{{{B}}})",
                    "{{instance}} {{database}}.{{branch}}",
                )
            ],
            marks=thresholds(1000),
            w=8,
        ),
        lines(
            "Subscribers of the feed",
            "Subscriptions to the live reports of an open branch. Only a NATS server whose "
            "monitoring can be asked tells.",
            "short",
            [
                (
                    f"max by (database, branch) (natalog_feed_subscribers{{{B}}})",
                    "{{database}}.{{branch}}",
                )
            ],
            w=8,
        ),
        lines(
            "Messages to and from NATS",
            "Messages per second.",
            "ops",
            [
                (
                    f"sum by (instance, direction) ({rate('natalog_nats_messages_total', P)})",
                    "{{instance}} {{direction}}",
                )
            ],
            w=8,
        ),
    ]
    return dashboard(
        "natalog-queries",
        "Natalog queries",
        "Reads: how many, how fast, how fresh, and which are refused.",
        VARIABLES,
        [("Now", now), ("Reads", work), ("Time and size", time), ("Freshness", freshness)],
    )

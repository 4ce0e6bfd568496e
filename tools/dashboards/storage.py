"""The dashboard of what is stored where, how full it is, and what is given back."""

from __future__ import annotations

from parts import Json, dashboard, gauge, lines, stat, thresholds
from promql import VARIABLES, B, D, P, quantiles, rate


def storage() -> Json:
    each = "{{database}}.{{branch}}"
    by = "database, branch"
    full = [
        gauge(
            "JetStream",
            "Share of JetStream's storage limit that is used.",
            "percentunit",
            [
                (
                    f"max by (job) (natalog_jetstream_storage_bytes{{{P}}})"
                    f" / max by (job) (natalog_jetstream_storage_limit_bytes{{{P}}})",
                    "{{job}}",
                )
            ],
            marks=thresholds(0.7, 0.85),
        ),
        gauge(
            "Disk",
            "Share of the disk in use where the own nats-server stores.",
            "percentunit",
            [
                (
                    f"1 - natalog_disk_free_bytes{{{P}}} / natalog_disk_size_bytes{{{P}}}",
                    "{{instance}}",
                )
            ],
            marks=thresholds(0.8, 0.9),
        ),
        lines(
            "Stored in JetStream",
            "Bytes that JetStream stores for this account: logs, ingest streams, segments.",
            "bytes",
            [
                (f"max by (job) (natalog_jetstream_storage_bytes{{{P}}})", "used"),
                (f"max by (job) (natalog_jetstream_storage_limit_bytes{{{P}}})", "limit"),
            ],
            w=6,
            h=6,
        ),
        lines(
            "Streams and consumers",
            "Of this account. A branch has a log and an ingest stream, each reader a consumer.",
            "short",
            [
                (f"max by (job) (natalog_jetstream_streams{{{P}}})", "streams"),
                (f"max by (job) (natalog_jetstream_consumers{{{P}}})", "consumers"),
            ],
            w=6,
            h=6,
        ),
    ]
    sizes = [
        lines(
            "Logs",
            "Bytes of each open branch's log.",
            "bytes",
            [(f"max by ({by}) (natalog_log_bytes{{{B}}})", each)],
            stack=True,
            w=8,
        ),
        lines(
            "Datoms",
            "Datoms in the current index of each open branch.",
            "short",
            [(f"max by ({by}) (natalog_index_datoms{{{B}}})", each)],
            w=8,
        ),
        lines(
            "Indexes",
            "Bytes of the columns of each open branch's indexes, past facts included. Branches "
            "share most of them, so the sum is more than is kept.",
            "bytes",
            [(f"max by ({by}) (natalog_index_bytes{{{B}}})", each)],
            w=8,
        ),
        lines(
            "Free on the disk",
            "Free bytes where the own nats-server stores.",
            "bytes",
            [(f"natalog_disk_free_bytes{{{P}}}", "{{instance}}")],
            w=8,
        ),
        lines(
            "Bytes to and from NATS",
            "Payload bytes per second.",
            "Bps",
            [
                (
                    f"sum by (instance, direction) ({rate('natalog_nats_bytes_total', P)})",
                    "{{instance}} {{direction}}",
                )
            ],
            w=8,
        ),
        lines(
            "Branches",
            "Branches of each database.",
            "short",
            [(f"max by (database) (natalog_branches{{{D}}})", "{{database}}")],
            w=8,
        ),
    ]
    snapshots = [
        lines(
            "Age of snapshots",
            "Time since the newest snapshot of each open branch was written. Branches that change "
            "little need none.",
            "s",
            [(f"min by ({by}) (natalog_snapshot_age_seconds{{{B}}})", each)],
            w=6,
        ),
        lines(
            "Changes in no snapshot",
            "Changes of each open branch since its newest snapshot: what a start has to read from "
            "the log.",
            "short",
            [(f"max by ({by}) (natalog_snapshot_pending_datoms{{{B}}})", each)],
            w=6,
        ),
        lines(
            "Segments",
            "Bytes of each database's segments, those that wait to be freed included.",
            "bytes",
            [(f"max by (database) (natalog_segment_store_bytes{{{D}}})", "{{database}}")],
            w=6,
        ),
        lines(
            "Segment cache",
            "Bytes of stored leaves and scans in memory, and how many there may be.",
            "bytes",
            [
                (f"sum by (instance) (natalog_segment_cache_bytes{{{P}}})", "{{instance}}"),
                (
                    f"sum by (instance) (natalog_segment_cache_limit_bytes{{{P}}})",
                    "{{instance}} limit",
                ),
            ],
            w=6,
        ),
        lines(
            "Reads of leaves",
            "Reads of stored leaves per second: from memory (hits, approximately) and from the "
            "store (misses).",
            "ops",
            [
                (f"sum ({rate('natalog_segment_cache_hits_total', P)})", "hits"),
                (f"sum ({rate('natalog_segment_cache_misses_total', P)})", "misses"),
            ],
            w=8,
        ),
        lines(
            "Snapshots taken",
            "Snapshots per second, by outcome; ignored ones could not be read.",
            "ops",
            [(f"sum by (outcome) ({rate('natalog_snapshots_total', P)})", "{{outcome}}")],
            w=8,
        ),
        lines(
            "Writing a snapshot",
            "How long it took, while transactions went on.",
            "s",
            quantiles("natalog_snapshot_duration_seconds", P),
            w=8,
        ),
    ]
    collection = [
        stat(
            "Since the last collection",
            "Time since the GC last ran; it runs every gc_interval_s seconds.",
            "s",
            f"time() - max (natalog_gc_last_run_timestamp_seconds{{{P}}} > 0)",
            marks=thresholds(2 * 3600, 4 * 3600),
            w=6,
        ),
        stat(
            "Garbage",
            "Bytes of streams that belong to no database, as the last run saw them.",
            "bytes",
            f"max (natalog_gc_garbage_bytes{{{P}}})",
            w=6,
        ),
        stat(
            "Swept in a day",
            "Bytes that GC freed within 24 hours.",
            "bytes",
            f"sum (increase(natalog_gc_swept_bytes_total{{{P}}}[24h]))",
            w=6,
        ),
        stat(
            "Runs in a day",
            "Runs of the GC within 24 hours.",
            "short",
            f"sum (increase(natalog_gc_runs_total{{{P}}}[24h]))",
            decimals=0,
            w=6,
        ),
        lines(
            "Swept",
            "Bytes that GC freed, per second.",
            "Bps",
            [(f"sum ({rate('natalog_gc_swept_bytes_total', P)})", "swept")],
            w=12,
        ),
        lines(
            "Python's own collector",
            "Collections per second, by generation.",
            "ops",
            [(f"sum by (generation) ({rate('python_gc_collections_total', P)})", "{{generation}}")],
            w=12,
        ),
    ]
    removal = [
        lines(
            "Purged",
            "Facts removed by purges, per second; among them those that a rule of retention no "
            "longer keeps.",
            "ops",
            [
                (f"sum by ({by}) ({rate('natalog_purge_datoms_total', B)})", each),
                (f"sum ({rate('natalog_retention_purged_total', P)})", "by retention"),
            ],
            w=6,
        ),
        lines(
            "Erasures",
            "Per minute, by outcome; repeated ones had been done before.",
            "short",
            [(f"60 * sum by (outcome) ({rate('natalog_erasures_total', P)})", "{{outcome}}")],
            w=6,
        ),
        lines(
            "Time of an erasure",
            "From the request of an erasure to its receipt: it reads every log of its database.",
            "s",
            quantiles("natalog_erasure_duration_seconds", P),
            w=6,
        ),
        lines(
            "Erased",
            "Facts that erasures took out of logs, per second.",
            "ops",
            [(f"sum ({rate('natalog_erased_facts_total', P)})", "facts")],
            w=6,
        ),
    ]
    return dashboard(
        "natalog-storage",
        "Natalog storage and GC",
        "What is stored where, how full it is, and what is given back.",
        VARIABLES,
        [
            ("How full", full),
            ("Sizes", sizes),
            ("Snapshots", snapshots),
            ("Collection", collection),
            ("Removal", removal),
        ],
    )

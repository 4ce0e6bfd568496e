"""The dashboard of transactions: how many, how fast, and what holds them up."""

from __future__ import annotations

from parts import Json, dashboard, heatmap, lines, stat, thresholds
from promql import COMMITTED, OUTCOMES, VARIABLES, B, P, quantile, quantiles, rate, rejected_ratio


def transactor() -> Json:
    each = "{{database}}.{{branch}}"
    by = "database, branch"
    now = [
        stat(
            "Committed",
            "Transactions committed per second.",
            "ops",
            f"sum ({rate('natalog_transactions_total', COMMITTED)})",
        ),
        stat(
            "Time of a transaction",
            "Half of the transactions have their report after this time.",
            "s",
            quantile(0.5, "natalog_transaction_duration_seconds", B),
            marks=thresholds(0.1, 1),
        ),
        stat(
            "Time of an append",
            "Half of the blocks are on disk after this time.",
            "s",
            quantile(0.5, "natalog_log_append_duration_seconds", B),
            marks=thresholds(0.05, 0.25),
        ),
        stat(
            "Transactions a block",
            "How many are committed together, on average.",
            "short",
            f"sum ({rate('natalog_commit_block_transactions_sum', B)})"
            f" / sum ({rate('natalog_commit_block_transactions_count', B)})",
            decimals=1,
        ),
        stat(
            "Refused",
            "Share of the transactions that were refused or failed.",
            "percentunit",
            rejected_ratio(),
            marks=thresholds(0.05, 0.2),
            decimals=1,
        ),
        stat(
            "Waiting",
            "Transactions in the fullest mailbox and in ingest streams.",
            "short",
            f'max (natalog_mailbox_depth{{{P},actor="transactor"}})'
            f" + sum (max by (job, database, branch) (natalog_ingest_waiting_messages{{{B}}}))",
            marks=thresholds(1000, 4000),
        ),
    ]
    work = [
        lines(
            "Transactions by branch",
            "Transactions committed per second. Branches beyond the hundred that a process names "
            "are together under _other.",
            "ops",
            [
                (
                    f"sum by ({by}) ({rate('natalog_transactions_total', COMMITTED)})",
                    each,
                )
            ],
            stack=True,
        ),
        lines(
            "Outcomes",
            "Transactions per second: rejected ones break a rule of the schema or of their sender, "
            "failed ones met an error of the service, busy ones found the mailbox full.",
            "ops",
            [(f"sum by (outcome) ({rate('natalog_transactions_total', B)})", "{{outcome}}")],
            colors=OUTCOMES,
        ),
        lines(
            "Share refused by branch",
            "Share of the transactions that were refused or failed.",
            "percentunit",
            [(rejected_ratio(by), each)],
            marks=thresholds(0.2),
            top=1,
        ),
        lines(
            "Purged",
            "Facts removed by purges, per second.",
            "ops",
            [(f"sum by ({by}) ({rate('natalog_purge_datoms_total', B)})", each)],
        ),
    ]
    time = [
        lines(
            "Time of transactions",
            "From the arrival of a transaction to its report.",
            "s",
            quantiles("natalog_transaction_duration_seconds", B),
            w=8,
        ),
        lines(
            "Time of transactions by branch",
            "99 of 100 transactions have their report within this time.",
            "s",
            [(quantile(0.99, "natalog_transaction_duration_seconds", B, by), each)],
            marks=thresholds(2),
            w=8,
        ),
        heatmap(
            "Transactions by their time",
            "How many transactions took how long, per second.",
            "s",
            f"sum by (le) ({rate('natalog_transaction_duration_seconds_bucket', B)})",
            w=8,
        ),
        lines(
            "Time of appends",
            "Appending one block, until it is on disk: the disk of NATS.",
            "s",
            quantiles("natalog_log_append_duration_seconds", B),
            marks=thresholds(0.25),
            w=8,
        ),
        lines(
            "Size of blocks",
            "Transactions committed in one block. Large blocks under load are good: each costs one "
            "write.",
            "short",
            quantiles("natalog_commit_block_transactions", B),
            w=8,
        ),
        lines(
            "Blocks by branch",
            "Blocks appended per second.",
            "ops",
            [(f"sum by ({by}) ({rate('natalog_log_append_duration_seconds_count', B)})", each)],
            w=8,
        ),
    ]
    queues = [
        lines(
            "Mailboxes",
            "Messages in the fullest mailbox of each kind. A full mailbox answers Busy.",
            "short",
            [(f"max by (actor) (natalog_mailbox_depth{{{P}}})", "{{actor}}")],
            w=6,
        ),
        lines(
            "Published and not yet applied",
            "Transactions that wait in the ingest streams of open branches.",
            "short",
            [(f"max by ({by}) (natalog_ingest_waiting_messages{{{B}}})", each)],
            w=6,
        ),
        lines(
            "Takeovers",
            "Times per minute that a process began to take the transactions.",
            "short",
            [(f"60 * sum by (instance) ({rate('natalog_takeovers_total', P)})", "{{instance}}")],
            w=6,
        ),
        lines(
            "Logs",
            "Sequence of the last block. A flat line under load is a log that stands still.",
            "short",
            [(f"max by ({by}) (natalog_log_last_sequence{{{B}}})", each)],
            w=6,
        ),
    ]
    return dashboard(
        "natalog-transactor",
        "Natalog transactor",
        "Transactions: how many, how fast, and what holds them up.",
        VARIABLES,
        [("Now", now), ("Transactions", work), ("Time", time), ("Queues", queues)],
    )

"""The queries that the panels share: selections, rates, quantiles, shares."""

from __future__ import annotations

from parts import variable

P = 'job=~"$job",instance=~"$instance"'
"""The chosen processes."""
D = f'{P},database=~"$database"'
B = f'{D},branch=~"$branch"'
COMMITTED = f'{B},outcome="committed"'
FAILED_READS = f'{D},outcome="error"'

JOB = variable("job", "Job", "label_values(natalog_build_info, job)")
INSTANCE = variable(
    "instance", "Process", 'label_values(natalog_build_info{job=~"$job"}, instance)'
)
DATABASE = variable("database", "Database", 'label_values(natalog_branches{job=~"$job"}, database)')
BRANCH = variable(
    "branch",
    "Branch",
    'label_values(natalog_index_datoms{job=~"$job",database=~"$database"}, branch)',
)
VARIABLES = [JOB, INSTANCE, DATABASE, BRANCH]
OUTCOMES = {
    "committed": "green",
    "repeated": "blue",
    "rejected": "orange",
    "busy": "purple",
    "failed": "red",
}
"""The colors of what becomes of a transaction."""


def rate(metric: str, which: str) -> str:
    return f"rate({metric}{{{which}}}[$__rate_interval])"


def quantile(q: float, metric: str, which: str, by: str = "") -> str:
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) ({rate(metric + '_bucket', which)}))"


def quantiles(metric: str, which: str) -> list[tuple[str, str]]:
    named = ((0.5, "half below"), (0.95, "95 % below"), (0.99, "99 % below"))
    return [(quantile(q, metric, which), text) for q, text in named]


def rejected_ratio(by: str = "") -> str:
    refused = B + ',outcome=~"rejected|failed|busy"'
    group = f" by ({by})" if by else ""
    return (
        f"sum{group} ({rate('natalog_transactions_total', refused)})"
        f" / sum{group} ({rate('natalog_transactions_total', B)})"
    )


def read_errors() -> str:
    return (
        f"sum ({rate('natalog_reads_total', FAILED_READS)})"
        f" / sum ({rate('natalog_reads_total', D)})"
    )

"""The ratio table: Natalog beside the systems of the same run, and Datahike as estimated.

Datahike does not run from a registry.  `REFERENCE` has medians of Datahike, DataScript on the JVM
and DataScript in JavaScript that were taken together on one machine; their ratios to DataScript in
JavaScript, which runs here too, give estimates for this machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from measure import Line

REFERENCE: dict[str, tuple[float | None, float | None, float | None]] = {
    "q1": (0.213, 0.694, 7.72),
    "q2": (0.542, 1.73, 14.6),
    "q2-switch": (0.274, 4.76, 25.7),
    "q3": (0.363, 3.46, 18.0),
    "q4": (0.402, 4.97, 25.0),
    "q5": (11.5, 153.0, 733.0),
    "q5-shortcircuit": (0.0328, 0.245, 0.751),
    "qpred1": (1.66, 3.31, 30.1),
    "qpred2": (1.74, 5.77, 33.8),
    "q-or": (1.68, 1.29, 15.5),
    "q-not": (2.99, 7.83, 56.7),
    "q-or-join": (7.31, 10.9, 106.0),
    "q-not-join": (3.4, 6.67, 75.6),
    "q-pred-range": (1.58, 3.44, 40.7),
    "q-5-merge": (4.92, 20.7, 137.0),
    "q-agg-avg": (18.4, 7.42, 42.0),
    "q-agg-group": (38.5, 14.7, 73.7),
    "q-agg-filter": (13.6, 8.66, 42.0),
    "q-agg-pred": (25.3, 12.7, 56.1),
    "q-agg-multi": (52.3, 32.8, 119.0),
    "q-agg-stats": (39.3, 8.66, 67.8),
    "q-join-ref-1": (1.15, 0.608, 1.9),
    "q-join-ref-10": (1.75, 1.83, 10.1),
    "q-join-pred": (1.78, 2.89, 15.8),
    "q-join-chain": (40.7, 15.4, 105.0),
    "q-join-selective": (2.84, 4.39, 21.7),
    "rules-wide-3x3": (1.47, 0.527, 0.762),
    "rules-wide-5x3": (7.9, 3.13, 6.65),
    "rules-wide-7x3": (48.7, 38.2, 121.0),
    "rules-wide-4x6": (11.2, 12.4, 24.1),
    "rules-long-10x3": (1.03, 1.48, 2.7),
    "rules-long-30x3": (3.86, 13.1, 22.7),
    "rules-long-30x5": (4.42, 26.6, 31.6),
    "rules-rand-100x200": (26.4, None, None),
    "sip-single": (5.57, 2.45, 2.37),
    "sip-entity-group": (2.16, 0.782, 1.72),
    "recursive-ground": (131.0, 33.7, 47.0),
    "pull-one": (12.2, 0.454, 4.26),
    "pull-many": (35.4, 0.749, 14.2),
    "pull-many-1000-wildcard": (9.54, 2.14, 23.7),
    "find-datoms-1000": (2.17, 0.254, 2.55),
    "lookup-entity-x1000": (4.69, 1.76, 7.53),
    "lookup-pull-x1000": (15.3, 1.81, 12.4),
    "lookup-q-x1000": (420.0, 20.7, 64.1),
    "lookup-datoms-x1000": (2.86, 0.569, 4.72),
    "add-1": (71000.0, 690.0, 1310.0),
    "add-5": (17000.0, 693.0, 1180.0),
    "add-all": (1090.0, 746.0, 1110.0),
    "init": (None, 68.4, 144.0),
    "retract-5": (None, 586.0, 725.0),
    "load-1": (2100.0, 1720.0, 2040.0),
    "load-10": (3520.0, 1360.0, 1970.0),
    "load-100": (2090.0, 1310.0, 2120.0),
    "load-1000": (1990.0, 1320.0, 2270.0),
    "tx-latency-new-entity": (0.641, 0.0347, 0.047),
    "tx-latency-update": (0.563, 0.011, 0.0205),
    "1m-load-1000": (14900.0, 8620.0, 10900.0),
    "1m-q1": (0.723, 10.6, 95.8),
    "1m-q2": (12.4, 29.4, 168.0),
    "1m-q2-switch": (13.9, 46.1, 210.0),
    "1m-q3": (12.9, 49.1, 197.0),
    "1m-q4": (15.3, 105.0, 280.0),
    "1m-qpred1": (41.3, 57.1, 395.0),
    "1m-q-5-merge": (38.5, 536.0, 1200.0),
    "1m-q-agg-avg": (286.0, 158.0, 528.0),
    "1m-q-agg-group": (486.0, 311.0, 921.0),
}
"""Workload: milliseconds of Datahike, DataScript (JVM), DataScript (JavaScript)."""
MEASURED = ("natalog", "datascript-js", "datalevin")
ESTIMATED = ("datascript-jvm (est.)", "datahike (est.)")


def figures(lines: Iterable[Line]) -> dict[str, dict[str, float]]:
    """Medians by workload and system, estimates among them."""
    found: dict[str, dict[str, float]] = {}
    for line in lines:
        found.setdefault(line.workload, {})[line.system] = line.median_ms
    for workload, row in found.items():
        datahike, jvm, javascript = REFERENCE.get(workload, (None, None, None))
        here = row.get("datascript-js")
        if here is None or javascript is None:
            continue
        if jvm is not None:
            row["datascript-jvm (est.)"] = jvm * here / javascript
        if datahike is not None:
            row["datahike (est.)"] = datahike * here / javascript
    return found


def ratio_table(lines: Sequence[Line]) -> str:
    """Markdown: medians in ms; the last column is the fastest other system over Natalog."""
    systems = [*MEASURED, *ESTIMATED]
    head = [*systems, "fastest other ÷ natalog", "datahike ÷ natalog"]
    out = [f"| workload | {' | '.join(head)} |", "|---|" + "---:|" * len(head)]
    ratios: list[float] = []
    to_datahike: list[float] = []
    for workload, row in figures(lines).items():
        if "natalog" not in row:
            continue
        cells = [f"{row[system]:.3g}" if system in row else "–" for system in systems]
        others = [row[system] for system in systems[1:] if system in row]
        ratio = min(others) / row["natalog"] if others else None
        datahike = row[ESTIMATED[1]] / row["natalog"] if ESTIMATED[1] in row else None
        for value, all_of_them in ((ratio, ratios), (datahike, to_datahike)):
            cells.append("–" if value is None else f"{value:.2f}")
            if value is not None:
                all_of_them.append(value)
        out.append(f"| {workload} | {' | '.join(cells)} |")
    for name, values in (("fastest other", ratios), ("Datahike (est.)", to_datahike)):
        if values:
            mean = math.exp(sum(map(math.log, values)) / len(values))
            out.append(
                f"\nGeometric mean of {name} ÷ natalog: {mean:.2f} ({len(values)} workloads)"
            )
    return "\n".join(out)

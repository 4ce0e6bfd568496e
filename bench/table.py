"""The ratio table: Natalog beside the systems of the same run, and those that do not run here.

Datahike, and DataScript on the JVM, come from no registry that this uses.  `REFERENCE` has medians
of theirs that were taken together with those of the systems that do run here, on one machine.  They
are brought to this machine in two ways: ``by row``, with the ratio to DataScript in JavaScript on
the same workload, which is exact where both were equally warm and wild where they were not; and
``scaled``, with one factor for all, the median of (here ÷ reference) over the systems that ran.

    python bench/table.py [bench/results/reference.jsonl]      # the tables of a run, as Markdown
    python bench/table.py --docs                              # written into the documents
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from measure import Line

Figures = tuple[float | None, float | None, float | None, float | None]

REFERENCE: dict[str, Figures] = {
    "q1": (0.213, 0.694, 7.72, 0.545),
    "q2": (0.542, 1.73, 14.6, 4.5),
    "q2-switch": (0.274, 4.76, 25.7, 4.96),
    "q3": (0.363, 3.46, 18.0, 11.4),
    "q4": (0.402, 4.97, 25.0, 10.4),
    "q5": (11.5, 153.0, 733.0, 91.1),
    "q5-shortcircuit": (0.0328, 0.245, 0.751, 0.173),
    "qpred1": (1.66, 3.31, 30.1, 3.14),
    "qpred2": (1.74, 5.77, 33.8, 2.67),
    "q-or": (1.68, 1.29, 15.5, 0.815),
    "q-not": (2.99, 7.83, 56.7, 6.29),
    "q-or-join": (7.31, 10.9, 106.0, 3.67),
    "q-not-join": (3.4, 6.67, 75.6, 4.33),
    "q-pred-range": (1.58, 3.44, 40.7, 1.51),
    "q-5-merge": (4.92, 20.7, 137.0, 2.58),
    "q-agg-avg": (18.4, 7.42, 42.0, 5.3),
    "q-agg-group": (38.5, 14.7, 73.7, 6.56),
    "q-agg-filter": (13.6, 8.66, 42.0, 13.3),
    "q-agg-pred": (25.3, 12.7, 56.1, 3.21),
    "q-agg-multi": (52.3, 32.8, 119.0, 10.6),
    "q-agg-stats": (39.3, 8.66, 67.8, 7.63),
    "q-join-ref-1": (1.15, 0.608, 1.9, 0.183),
    "q-join-ref-10": (1.75, 1.83, 10.1, 0.442),
    "q-join-pred": (1.78, 2.89, 15.8, 0.793),
    "q-join-chain": (40.7, 15.4, 105.0, 4.37),
    "q-join-selective": (2.84, 4.39, 21.7, 7.95),
    "rules-wide-3x3": (1.47, 0.527, 0.762, 0.292),
    "rules-wide-5x3": (7.9, 3.13, 6.65, 0.701),
    "rules-wide-7x3": (48.7, 38.2, 121.0, 10.4),
    "rules-wide-4x6": (11.2, 12.4, 24.1, 2.09),
    "rules-long-10x3": (1.03, 1.48, 2.7, 0.0964),
    "rules-long-30x3": (3.86, 13.1, 22.7, 0.226),
    "rules-long-30x5": (4.42, 26.6, 31.6, 0.436),
    "rules-rand-100x200": (26.4, None, None, 3.46),
    "sip-single": (5.57, 2.45, 2.37, 1.71),
    "sip-entity-group": (2.16, 0.782, 1.72, 2.09),
    "recursive-ground": (131.0, 33.7, 47.0, None),
    "pull-one": (12.2, 0.454, 4.26, 2.73),
    "pull-many": (35.4, 0.749, 14.2, 8.58),
    "pull-many-1000-wildcard": (9.54, 2.14, 23.7, 31.7),
    "find-datoms-1000": (2.17, 0.254, 2.55, 7.23),
    "lookup-entity-x1000": (4.69, 1.76, 7.53, 6.86),
    "lookup-pull-x1000": (15.3, 1.81, 12.4, 7.28),
    "lookup-q-x1000": (420.0, 20.7, 64.1, 571.0),
    "lookup-datoms-x1000": (2.86, 0.569, 4.72, 4.38),
    "add-1": (71000.0, 690.0, 1310.0, 1650.0),
    "add-5": (17000.0, 693.0, 1180.0, 482.0),
    "add-all": (1090.0, 746.0, 1110.0, 1320.0),
    "init": (None, 68.4, 144.0, 185.0),
    "retract-5": (None, 586.0, 725.0, 958.0),
    "load-1": (2100.0, 1720.0, 2040.0, 1190.0),
    "load-10": (3520.0, 1360.0, 1970.0, 507.0),
    "load-100": (2090.0, 1310.0, 2120.0, 312.0),
    "load-1000": (1990.0, 1320.0, 2270.0, 260.0),
    "tx-latency-new-entity": (0.641, 0.0347, 0.047, 0.0423),
    "tx-latency-update": (0.563, 0.011, 0.0205, 0.0351),
    "1m-load-1000": (14900.0, 8620.0, 10900.0, 5290.0),
    "1m-q1": (0.723, 10.6, 95.8, 22.3),
    "1m-q2": (12.4, 29.4, 168.0, 117.0),
    "1m-q2-switch": (13.9, 46.1, 210.0, 75.7),
    "1m-q3": (12.9, 49.1, 197.0, 213.0),
    "1m-q4": (15.3, 105.0, 280.0, 169.0),
    "1m-qpred1": (41.3, 57.1, 395.0, 115.0),
    "1m-q-5-merge": (38.5, 536.0, 1200.0, 84.0),
    "1m-q-agg-avg": (286.0, 158.0, 528.0, 372.0),
    "1m-q-agg-group": (486.0, 311.0, 921.0, 373.0),
}
"""Workload: ms of Datahike, DataScript on the JVM, DataScript in JavaScript, Datalevin."""
DATAHIKE, JVM, JAVASCRIPT, DATALEVIN = range(4)
MEASURED = ("natalog", "datascript-js", "datalevin")
SQL = ("sqlite-eavt", "duckdb-wide")
"""Hand-written SQL: for orientation, not among the fastest of its kind."""
BLOCKS = {
    "service": ("service-",),
    "memory": ("memory-", "disk-1m", "restart-"),
    "storage": ("leaf-encode", "leaf-decode", "1m-snapshot-", "point-"),
    "snapshots": (
        *("branch-at-", "snapshot-", "leaf-from-", "leaf-in-", "disk-log", "disk-segments"),
        *("open-", "erase-"),
    ),
    "scale": ("scale-",),
}
"""What no other system has: the name of a table, and how the names of its workloads begin."""
OWN = ("yardstick", *(name for beginnings in BLOCKS.values() for name in beginnings))
BY_ROW = "datahike by row"
SCALED = ("datahike scaled", "datascript-jvm scaled")
PLACES = {"datascript-js": JAVASCRIPT, "datalevin": DATALEVIN}


def scale(found: dict[str, dict[str, float]]) -> float | None:
    """How much longer things take here than where the reference was taken."""
    factors = []
    for workload, row in found.items():
        for system, place in PLACES.items():
            reference = REFERENCE.get(workload, (None,) * 4)[place]
            if reference is not None and system in row:
                factors.append(row[system] / reference)
    return statistics.median(factors) if factors else None


def figures(lines: Iterable[Line]) -> dict[str, dict[str, float]]:
    """Medians by workload and system, estimates among them."""
    found: dict[str, dict[str, float]] = {}
    for line in lines:
        found.setdefault(line.workload, {})[line.system] = line.median_ms
    factor = scale(found)
    for workload, row in found.items():
        known = REFERENCE.get(workload, (None,) * 4)
        datahike, javascript = known[DATAHIKE], known[JAVASCRIPT]
        if datahike is not None and javascript is not None and "datascript-js" in row:
            row[BY_ROW] = datahike * row["datascript-js"] / javascript
        for system, reference in zip(SCALED, known, strict=False):
            if reference is not None and factor is not None:
                row[system] = reference * factor
    return found


def ratio_table(lines: Sequence[Line]) -> str:
    """Markdown: medians in ms, then the fastest other system and Datahike (both over Natalog).

    Above 1 means that Natalog is faster; the fastest is looked for among measured systems and
    scaled estimates.
    """
    found = figures(lines)
    head = [*MEASURED, *SQL, BY_ROW, *SCALED, "fastest ÷ natalog", "datahike scaled ÷ natalog"]
    out = [f"| workload | {' | '.join(head)} |", "|---|" + "---:|" * len(head)]
    fastest: list[float] = []
    datahike: list[float] = []
    for workload, row in found.items():
        if "natalog" not in row:
            continue
        cells = [f"{row[name]:.3g}" if name in row else "–" for name in head[:-2]]
        others = [row[name] for name in (*MEASURED[1:], *SCALED) if name in row]
        for value, values in (
            (min(others, default=None), fastest),
            (row.get(SCALED[0]), datahike),
        ):
            cells.append("–" if value is None else f"{value / row['natalog']:.2f}")
            if value is not None:
                values.append(value / row["natalog"])
        out.append(f"| {workload} | {' | '.join(cells)} |")
    out.append("")
    for name, values in (("fastest", fastest), ("Datahike scaled", datahike)):
        if values:
            mean = math.exp(sum(map(math.log, values)) / len(values))
            out.append(f"Geometric mean of {name} ÷ natalog: {mean:.2f} ({len(values)} workloads).")
    factor = scale(found)
    if factor is not None:
        out.append(f"Factor of the scaled figures: {factor:.2f}.")
    return "\n".join(out)


def own_table(lines: Sequence[Line]) -> str:
    """Markdown: what has no peer, with what it tells beside its time."""
    out = ["| workload | ms | |", "|---|---:|---|"]
    for line in lines:
        more = ", ".join(f"{name} {value:,}" for name, value in line.extra.items())
        shown = f"{line.median_ms:.3g}" if line.median_ms else "–"
        out.append(f"| {line.workload} | {shown} | {more.replace('_', ' ')} |")
    return "\n".join(out)


def scale_table(lines: Sequence[Line]) -> str:
    """Markdown: a row for each cost, a column for each size."""
    rows: dict[str, dict[int, Line]] = {}
    for line in lines:
        cost, _, size = line.workload.removeprefix("scale-").rpartition("-")
        rows.setdefault(cost, {})[int(size)] = line
    sizes = sorted({size for row in rows.values() for size in row})
    out = [f"| ms | {' | '.join(f'{size:,}' for size in sizes)} |", "|---|" + "---:|" * len(sizes)]
    for cost, row in rows.items():
        cells = [f"{row[size].median_ms:.3g}" if size in row else "–" for size in sizes]
        out.append(f"| {cost} | {' | '.join(cells)} |")
        for unit in ("us_per_datom", "bytes_per_datom", "bytes"):
            if any(unit in line.extra for line in row.values()):
                cells = [f"{row[size].extra[unit]:,}" if size in row else "–" for size in sizes]
                out.append(f"| {cost}: {unit.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(out)


def blocks(lines: Sequence[Line]) -> dict[str, str]:
    """All tables, by the name of the block of a document that shows them."""
    found = {"ratios": ratio_table([one for one in lines if not one.workload.startswith(OWN)])}
    for name, beginnings in BLOCKS.items():
        part = [line for line in lines if line.workload.startswith(beginnings)]
        found[name] = scale_table(part) if name == "scale" else own_table(part)
    return found


def written(text: str, tables: Mapping[str, str]) -> str:
    """A document with its tables replaced: what stands between ``<!-- table: NAME -->`` and the
    next ``<!-- end -->``."""
    for name, table in tables.items():
        begin = f"<!-- table: {name} -->\n"
        if begin in text:
            before, _, rest = text.partition(begin)
            _, _, after = rest.partition("<!-- end -->")
            text = f"{before}{begin}\n{table}\n\n<!-- end -->{after}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    here = Path(__file__).resolve().parent
    default = here / "results" / "reference.jsonl"
    parser.add_argument("file", type=Path, nargs="?", default=default)
    parser.add_argument("--docs", action="store_true", help="write them into the documents instead")
    given = parser.parse_args()
    tables = blocks([Line(**json.loads(text)) for text in given.file.read_text().splitlines()])
    if not given.docs:
        print("\n\n".join(tables.values()))
        return
    for name in ("performance.md", "scale.md"):
        path = here.parent / "docs" / name
        path.write_text(written(path.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()

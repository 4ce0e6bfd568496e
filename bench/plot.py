"""Draw the results of a run, on logarithmic scales.

``ratios.svg`` has a dot for each system and workload, ``scale.svg`` a line for each cost over the
size of the database.

    python bench/plot.py [bench/results/reference.jsonl] [--out bench/results]
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

Rows = dict[str, dict[str, float]]
"""Milliseconds by workload and system."""

RESULTS = Path(__file__).resolve().parent / "results"
SYSTEMS = {
    "datascript-js": ("DataScript (JavaScript)", "#7570b3", "s"),
    "datalevin": ("Datalevin", "#1b9e77", "D"),
    "sqlite-eavt": ("SQLite, facts (SQL)", "#999999", "v"),
    "duckdb-wide": ("DuckDB, wide tables (SQL)", "#e6ab02", "^"),
}


COSTS = {
    "load": "loading all of it",
    "point": "one person by id",
    "as-of-point": "the same, as of an earlier transaction",
    "join": "people with a name, a last name and an age",
    "range": "people who earn less than 500",
    "sum": "the sum of all salaries",
    "update": "a transaction of one fact",
    "snapshot": "a snapshot of all of it",
    "snapshot-next": "a snapshot after 107 transactions",
    "snapshot-load": "opening a snapshot",
}


def saved(figure: Figure, path: Path) -> None:
    """Without a date inside, so that the same results make the same file."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    print(path)


def ratios(rows: Rows) -> Figure:
    """A dot for each system and workload."""
    shown = [name for name, row in rows.items() if "natalog" in row and len(row) > 1]
    figure, axes = plt.subplots(figsize=(9, 0.19 * len(shown) + 1.4))
    for system, (label, colour, marker) in SYSTEMS.items():
        spots = [n for n, name in enumerate(shown) if system in rows[name]]
        found = [rows[shown[n]][system] / rows[shown[n]]["natalog"] for n in spots]
        axes.plot(found, spots, marker, color=colour, label=label, markersize=4.5, alpha=0.85)
    axes.axvline(1, color="#d95f02", linewidth=1.5, label="Natalog")
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), shown, fontsize=7)
    axes.set_ylim(len(shown), -1)
    axes.grid(axis="x", which="major", alpha=0.3)
    axes.set_xlabel("time ÷ Natalog's time (right of the line: slower than Natalog)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, frameon=False)
    return figure


def scale(rows: Rows) -> Figure:
    """A line for each cost, over the number of datoms."""
    figure, axes = plt.subplots(figsize=(9, 6))
    colours = plt.get_cmap("tab10")
    for number, (cost, label) in enumerate(COSTS.items()):
        sizes = sorted(
            int(name.rpartition("-")[2])
            for name in rows
            if name.rpartition("-")[0] == f"scale-{cost}"
        )
        times = [rows[f"scale-{cost}-{size}"]["natalog"] for size in sizes]
        axes.plot(sizes, times, "o-", color=colours(number), label=label, markersize=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(which="major", alpha=0.3)
    axes.set_xlabel("datoms")
    axes.set_ylabel("milliseconds")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", default=RESULTS / "reference.jsonl")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder to write to")
    given = parser.parse_args()
    rows: Rows = defaultdict(dict)
    for text in given.file.read_text().splitlines():
        line = json.loads(text)
        rows[line["workload"]][line["system"]] = line["median_ms"]
    saved(ratios(rows), given.out / "ratios.svg")
    if any(name.startswith("scale-") for name in rows):
        saved(scale(rows), given.out / "scale.svg")


if __name__ == "__main__":
    main()

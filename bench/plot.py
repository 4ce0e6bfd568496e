"""Draw the results of a run: a dot for each system and workload, on a logarithmic scale.

python bench/plot.py [bench/results/reference.jsonl] [--out bench/results/ratios.svg]
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).resolve().parent / "results"
SYSTEMS = {
    "datascript-js": ("DataScript (JavaScript)", "#7570b3", "s"),
    "datalevin": ("Datalevin", "#1b9e77", "D"),
    "sqlite-eavt": ("SQLite, facts (SQL)", "#999999", "v"),
    "duckdb-wide": ("DuckDB, wide tables (SQL)", "#e6ab02", "^"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", default=RESULTS / "reference.jsonl")
    parser.add_argument("--out", type=Path, default=RESULTS / "ratios.svg")
    given = parser.parse_args()
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for text in given.file.read_text().splitlines():
        line = json.loads(text)
        rows[line["workload"]][line["system"]] = line["median_ms"]
    shown = [name for name, row in rows.items() if "natalog" in row and len(row) > 1]
    figure, axes = plt.subplots(figsize=(9, 0.19 * len(shown) + 1.4))
    for system, (label, colour, marker) in SYSTEMS.items():
        spots = [n for n, name in enumerate(shown) if system in rows[name]]
        ratios = [rows[shown[n]][system] / rows[shown[n]]["natalog"] for n in spots]
        axes.plot(ratios, spots, marker, color=colour, label=label, markersize=4.5, alpha=0.85)
    axes.axvline(1, color="#d95f02", linewidth=1.5, label="Natalog")
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), shown, fontsize=7)
    axes.set_ylim(len(shown), -1)
    axes.grid(axis="x", which="major", alpha=0.3)
    axes.set_xlabel("time ÷ Natalog's time (right of the line: slower than Natalog)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, frameon=False)
    figure.tight_layout()
    # no date inside, so that the same results make the same file
    figure.savefig(given.out, metadata={"Date": None} if given.out.suffix == ".svg" else None)
    print(given.out)


if __name__ == "__main__":
    main()

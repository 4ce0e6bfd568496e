"""Fail when a workload has become slower than it was, measured against this machine.

    python bench/check.py [--suite NAME ...] [--times 1.5]

Runs the suites beside DataScript and a NumPy yardstick and compares the ratios of Natalog to both
with those of ``bench/results/reference.jsonl``.  A workload is slower when both ratios are worse by
more than ``--times``; what looks slower is measured once more before it counts.  Exit code 1 names
the workloads.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets import Files
from measure import Line, Protocol
from peers import PEERS, Unavailable, run_peer
from run import suite_lines
from workloads import yardstick
from workloads.base import Bench

REFERENCE = Path(__file__).resolve().parent / "results" / "reference.jsonl"
SUITES = ("queries", "rules", "aggregates", "temporal", "joins", "pull")
PROTOCOL = Protocol(samples=5, runs=1)
YARDSTICKS = ("datascript-js", "numpy")

Medians = dict[tuple[str, str], float]


def medians(lines: Iterable[Line]) -> Medians:
    """Milliseconds by system and workload."""
    return {(line.system, line.workload): line.median_ms for line in lines}


def read(path: Path) -> Medians:
    lines = map(json.loads, path.read_text().splitlines())
    return {(line["system"], line["workload"]): line["median_ms"] for line in lines}


def measured(suites: Sequence[str]) -> Medians:
    """One run of Natalog, DataScript where it can be had, and the yardstick."""
    bench = Bench(Files(), PROTOCOL)
    found = list(yardstick.run(bench))
    for suite in suites:
        found += suite_lines(bench, suite)
    try:
        found += run_peer(bench, suites, "datascript-js", PEERS["datascript-js"]())
    except Unavailable as error:
        print(f"DataScript is left out: {error}", file=sys.stderr)
    return medians(found)


def worse(before: Medians, now: Medians) -> dict[str, float]:
    """How many times worse each workload is, by the yardstick that says least."""
    found: dict[str, float] = {}
    for system, workload in now:
        if system != "natalog" or (system, workload) not in before:
            continue
        factors = []
        for other in YARDSTICKS:
            key = (other, "yardstick" if other == "numpy" else workload)
            if key in before and key in now:
                then = before["natalog", workload] / before[key]
                factors.append(now["natalog", workload] / now[key] / then)
        if factors:
            found[workload] = min(factors)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", choices=SUITES, action="append")
    parser.add_argument("--times", type=float, default=1.5)
    parser.add_argument("--reference", type=Path, default=REFERENCE)
    given = parser.parse_args()
    before = read(given.reference)
    suites = given.suite or SUITES
    found = worse(before, measured(suites))
    if any(factor > given.times for factor in found.values()):
        again = worse(before, measured(suites))
        found = {name: min(factor, again.get(name, factor)) for name, factor in found.items()}
    slow = {name: factor for name, factor in found.items() if factor > given.times}
    for name, factor in sorted(found.items(), key=lambda pair: -pair[1]):
        print(f"{factor:6.2f}  {name}{'  SLOWER' if name in slow else ''}")
    print(f"{len(slow)} of {len(found)} workloads are more than {given.times} times slower")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())

"""Measure Natalog, beside other systems if asked.

    python bench/run.py [--suite NAME] [--data PEOPLE.json] [--json OUT] [--peers] [--quick]

Prints a JSON line for each workload: ``{system, workload, median_ms, n, extra}``.  Answers are
checked against ones computed in plain Python before their time counts; exit code 1 when one is
wrong.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from datasets import Files
from measure import FULL, QUICK, Line, WrongAnswer
from peers import run_peers
from table import ratio_table
from workloads.base import Bench

SUITES = (
    *("yardstick", "queries", "rules", "aggregates", "temporal", "joins"),
    *("pull", "transact", "service", "memory", "load", "storage", "snapshots", "scale"),
)


def suite_lines(bench: Bench, suite: str) -> Iterator[Line]:
    """The figures of one suite."""
    found: Iterator[Line] = importlib.import_module(f"workloads.{suite}").run(bench)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", choices=SUITES, action="append", help="all when not given")
    parser.add_argument("--data", type=Path, help="people as a JSON list instead of made ones")
    parser.add_argument("--json", type=Path, help="also write the lines to this file")
    parser.add_argument("--peers", action="store_true", help="other systems on the same data")
    parser.add_argument("--quick", action="store_true", help="few, short samples: a smoke test")
    arguments = parser.parse_args()
    bench = Bench(Files(arguments.data), QUICK if arguments.quick else FULL)
    lines: list[Line] = []

    def done(line: Line) -> None:
        lines.append(line)
        print(json.dumps(line.json()), flush=True)

    wrong = False
    suites = arguments.suite or SUITES
    for suite in suites:
        try:
            for line in suite_lines(bench, suite):
                done(line)
        except WrongAnswer as error:
            print(f"wrong answer: {error}", file=sys.stderr)
            wrong = True
        if arguments.peers:  # at once: other work on the machine comes and goes
            for line in run_peers(bench, [suite]):
                done(line)
    if arguments.peers:
        print(ratio_table(lines), file=sys.stderr)
    if arguments.json is not None:
        arguments.json.write_text("".join(json.dumps(line.json()) + "\n" for line in lines))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

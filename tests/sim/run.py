"""Simulate thousands of schedules: ``python tests/sim/run.py [--count N] [--first N] [--seed N]``.

Every schedule is one seed; a failing one is printed and comes back, step by step, with ``--seed``.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from sim_world import Result, simulate

COUNT = 5000
CHUNK = 25
FAILURES_SHOWN = 5


def _begin() -> None:
    """What a killed process leaves behind is cleared away in silence, and seldom."""
    sys.unraisablehook = lambda _: None
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _chunk(first: int, count: int) -> list[Result]:
    return [simulate(seed) for seed in range(first, first + count)]


def show(result: Result) -> None:
    """Print what failed."""
    print(f"seed {result.seed} failed: python tests/sim/run.py --seed {result.seed}")
    for failure in result.failures[:FAILURES_SHOWN]:
        print("   ", failure.replace("\n", "\n    "))


def many(first: int, count: int, workers: int) -> int:
    """Run ``count`` schedules; the number of those that failed."""
    began = time.monotonic()
    faults: Counter[str] = Counter()
    told: Counter[str] = Counter()
    failed = blocks = done = 0
    virtual = 0.0
    with ProcessPoolExecutor(workers, initializer=_begin) as pool:
        starts = range(first, first + count, CHUNK)
        sizes = [min(CHUNK, first + count - start) for start in starts]
        for results in pool.map(_chunk, starts, sizes):
            for result in results:
                done += 1
                faults.update(result.faults)
                told.update(result.told)
                blocks += result.blocks
                virtual += result.virtual_s
                if result.failures:
                    failed += 1
                    show(result)
            print(f"{done} of {count}, {failed} failed", end="\r", file=sys.stderr, flush=True)
    print(
        f"{done} schedules, {failed} failed; {virtual / 3600:.1f} simulated hours, {blocks} blocks "
        f"in {time.monotonic() - began:.0f} s"
    )
    print("transactions:", ", ".join(f"{n} {what}" for what, n in told.most_common()))
    print("faults:", ", ".join(f"{n} {what}" for what, n in faults.most_common()))
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=int(os.environ.get("SIM_COUNT", COUNT)))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="run this one and tell what happens")
    given = parser.parse_args()
    if given.seed is None:
        return 1 if many(given.first, given.count, given.workers) else 0
    _begin()
    result = simulate(given.seed, notes=True)
    print(result)
    if result.failures:
        show(result)
    return 1 if result.failures else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of strings are to have one order
        os.execve(
            sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"}
        )
    sys.exit(main())

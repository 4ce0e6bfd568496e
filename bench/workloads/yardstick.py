"""What NumPy alone takes for the kinds of work that queries are made of: a measure of the machine.

Ratios to it, unlike milliseconds, can be compared between machines.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from measure import Line, median_ms

from workloads.base import Bench

ROWS = 200_000


def run(bench: Bench) -> Iterator[Line]:
    chance = np.random.default_rng(11)
    values = chance.integers(0, 100_000, ROWS)
    keys = np.sort(chance.permutation(10 * ROWS)[:ROWS])
    probes = np.sort(chance.permutation(10 * ROWS)[: ROWS // 10])

    def work() -> int:
        kept = values[values > 50_000]
        spots = np.minimum(keys.searchsorted(probes), ROWS - 1)
        found = probes[keys[spots] == probes]
        groups, counts = np.unique(values % 97, return_counts=True)
        rows = list(zip(kept[:20_000].tolist(), values[:20_000].tolist(), strict=True))
        return len(kept) + len(found) + len(groups) + int(counts[0]) + len(rows)

    median, samples = median_ms(work, bench.protocol)
    yield Line("numpy", "yardstick", median, samples, {"rows": ROWS})

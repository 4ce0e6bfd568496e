"""How a time is taken, and how an answer is checked before its time counts.

A sample runs the work again and again for ``sample_s`` seconds and divides; a figure is the median
of ``samples`` of them, after a warm-up.  `Answer` is what is compared: the number of rows and a
checksum that does not depend on their order.
"""

from __future__ import annotations

import gc
import hashlib
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Protocol:
    """Samples of a figure, seconds of each, and seconds of warm-up before."""

    samples: int = 7
    sample_s: float = 0.3
    warm_s: float = 0.3
    runs: int = 3
    """Repetitions of a workload that is measured as a whole, such as a load."""


FULL = Protocol()
QUICK = Protocol(samples=3, sample_s=0.01, warm_s=0.0, runs=1)


class WrongAnswer(Exception):
    """An answer that is not the expected one; its time does not count."""


class Answer(NamedTuple):
    """Rows and a checksum of them that is the same in any order."""

    rows: int
    checksum: str


@dataclass(frozen=True)
class Line:
    """A figure: what is printed as one JSON line."""

    system: str
    workload: str
    median_ms: float
    n: int
    extra: dict[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        return {
            "system": self.system,
            "workload": self.workload,
            "median_ms": float(f"{self.median_ms:.4g}"),
            "n": self.n,
            "extra": self.extra,
        }


def cell(value: Any, kind: str) -> str:
    """One value as text that is the same in every system.

    ``kind``: ``v`` a plain value; ``n`` a number that may be a float, as seven digits.
    """
    if kind == "n":
        mantissa, exponent = f"{float(value):.6e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return str(value).removeprefix(":")


def answer(rows: Iterable[Sequence[Any]], kinds: str) -> Answer:
    """What is compared of ``rows``; ``kinds`` has a letter for each column."""
    lines = sorted("\t".join(map(cell, row, kinds)) for row in rows)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return Answer(len(lines), digest[:16])


def check(workload: str, found: Answer, expected: Answer) -> None:
    """Raises `WrongAnswer` when they differ."""
    if found != expected:
        raise WrongAnswer(
            f"{workload}: {found.rows} rows, checksum {found.checksum}; "
            f"expected {expected.rows} rows, checksum {expected.checksum}"
        )


def settle() -> None:
    """Keep what is there out of garbage collections to come.

    The neutral data and expected answers of the bench are millions of Python objects that no user
    of the database has; going through them again and again would be counted as its time.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def median_ms(work: Callable[[], Any], protocol: Protocol) -> tuple[float, int]:
    """Milliseconds of one call of ``work`` (median of the samples) and the samples taken."""
    began = time.perf_counter()
    work()
    while time.perf_counter() - began < protocol.warm_s:
        work()
    times = []
    settle()
    for _ in range(protocol.samples):
        calls = 0
        began = now = time.perf_counter()
        while now - began < protocol.sample_s:
            work()
            calls += 1
            now = time.perf_counter()
        times.append((now - began) * 1000 / calls)
    return statistics.median(times), len(times)


def whole_runs_ms(work: Callable[[], Any], runs: int) -> list[float]:
    """Milliseconds of each of ``runs`` calls of something that takes long."""
    times = []
    for _ in range(runs):
        settle()
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return times


def percentile(times: Sequence[float], share: float) -> float:
    """The value that ``share`` of the sorted ``times`` do not exceed."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

"""The benchmark runs, says what it measured, and takes no time of a wrong answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
PEOPLE = [
    {
        "id": number,
        "name": ("Ivan", "Petr", "Oleg")[number % 3],
        "last-name": ("Ivanov", "Petrov")[number % 2],
        "full-name": f"Person {number}",
        "alias": ["Aaron Wolfe"] * (number % 2),
        "sex": ("male", "female")[number % 2],
        "age": number % 20,
        "salary": number * 1_000,
    }
    for number in range(1, 100)
]
WRONG = """
import sys
from dataclasses import replace
import run
from workloads import queries
queries.WORKLOADS[:] = [
    replace(queries.WORKLOADS[0], expect=lambda _: [[1], [2]]),
    queries.WORKLOADS[1],
]
sys.exit(run.main())
"""


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.json"
    path.write_text(json.dumps(PEOPLE))
    return path


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=BENCH, capture_output=True, text=True, check=False
    )


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_for_each_workload_is_printed_and_written(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    suites = ("--suite", "queries", "--suite", "rules")
    done = bench("run.py", *suites, "--quick", "--data", str(people), "--json", str(out))
    assert done.returncode == 0, done.stderr
    found = lines(done.stdout)
    assert lines(out.read_text()) == found
    assert all(set(line) == {"system", "workload", "median_ms", "n", "extra"} for line in found)
    assert {line["system"] for line in found} == {"natalog"}
    assert all(line["median_ms"] > 0 and line["n"] >= 1 for line in found)
    rows = {line["workload"]: line["extra"]["rows"] for line in found}
    assert rows["q1"] == rows["q2"] == sum(one["name"] == "Ivan" for one in PEOPLE)
    assert rows["qpred1"] == sum(one["salary"] > 50_000 for one in PEOPLE)
    assert rows["rules-wide-3x3"] == 102
    assert {"q-5-merge", "rules-rand-100x200", "recursive-ground"} <= set(rows)


def test_a_wrong_answer_is_refused_and_fails_the_run(people: Path) -> None:
    done = bench("-c", WRONG, "--suite", "queries", "--quick", "--data", str(people))
    assert done.returncode == 1
    assert lines(done.stdout) == []
    assert done.stderr.startswith("wrong answer: q1: 33 rows")

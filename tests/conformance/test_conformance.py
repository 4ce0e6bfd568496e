"""Every recorded scenario answers as recorded, but for a list of known failures that must shrink.

``known_failures.txt`` names them for the database in this process; the service may only do better.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from run import SCENARIOS, ScenarioResult, read_known, replay_files, scenario_files  # noqa: E402

FILES = [path.name for path in scenario_files([SCENARIOS])]
KNOWN = read_known(HERE / "known_failures.txt")


@functools.cache
def results(mode: str) -> dict[str, list[ScenarioResult]]:
    """The outcome of every scenario by file; each mode runs once."""

    async def everything() -> list[ScenarioResult]:
        return [result async for result in replay_files(scenario_files([SCENARIOS]), mode)]

    found: dict[str, list[ScenarioResult]] = {}
    for result in asyncio.run(everything()):
        found.setdefault(result.file, []).append(result)
    return found


def failures(result: ScenarioResult) -> str:
    return "\n".join(
        f"{result.key}, step {failure.index}: {failure.reason}\n"
        f"  expected {failure.expected}\n  got      {failure.got}"
        for failure in result.failures
    )


@pytest.mark.parametrize("mode", ["local", "service"])
@pytest.mark.parametrize("file", FILES)
def test_scenarios_answer_as_recorded(mode, file):
    new = [r for r in results(mode)[file] if r.failures and r.key not in KNOWN]
    assert not new, "\n".join(map(failures, new))


@pytest.mark.parametrize("file", FILES)
def test_known_failures_still_fail(file):
    passing = [r.key for r in results("local")[file] if not r.failures and r.key in KNOWN]
    assert not passing, f"take them off known_failures.txt: {passing}"


def test_known_failures_are_sorted_and_exist():
    lines = (HERE / "known_failures.txt").read_text(encoding="utf-8").splitlines()
    assert lines == sorted(lines)
    existing = {result.key for found in results("local").values() for result in found}
    assert existing >= KNOWN

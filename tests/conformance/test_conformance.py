"""Every recorded scenario answers as recorded, but for known failures, whose lists must shrink.

``known_failures.txt`` is for the database in this process, ``known_failures_service.txt`` for the
service; ``run.py --write-failing FILE`` writes such a list.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
# by a name of its own: other directories have a run.py too
spec = importlib.util.spec_from_file_location("conformance_run", HERE / "run.py")
assert spec is not None
assert spec.loader is not None
run = sys.modules["conformance_run"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)

FILES = [path.name for path in run.scenario_files([run.SCENARIOS])]
LISTS = {
    "local": HERE / "known_failures.txt",
    "service": HERE / "known_failures_service.txt",
}
KNOWN = {mode: run.read_known(path) for mode, path in LISTS.items()}


@functools.cache
def results(mode: str) -> dict[str, list[Any]]:
    """The outcome of every scenario by file; each mode runs once."""

    async def everything() -> list[Any]:
        files = run.scenario_files([run.SCENARIOS])
        return [result async for result in run.replay_files(files, mode)]

    found: dict[str, list[Any]] = {}
    for result in asyncio.run(everything()):
        found.setdefault(result.file, []).append(result)
    return found


def failures(result: Any) -> str:
    return "\n".join(
        f"{result.key}, step {failure.index}: {failure.reason}\n"
        f"  expected {failure.expected}\n  got      {failure.got}"
        for failure in result.failures
    )


@pytest.mark.parametrize("mode", list(LISTS))
@pytest.mark.parametrize("file", FILES)
def test_scenarios_answer_as_recorded(mode, file):
    new = [r for r in results(mode)[file] if r.failures and r.key not in KNOWN[mode]]
    assert not new, "\n".join(map(failures, new))


@pytest.mark.parametrize("mode", list(LISTS))
def test_known_failures_still_fail(mode):
    found = [result for of_file in results(mode).values() for result in of_file]
    passing = [r.key for r in found if not r.failures and r.key in KNOWN[mode]]
    assert not passing, f"take them off {LISTS[mode].name}: {passing}"
    assert {r.key for r in found} >= KNOWN[mode], "the lists name scenarios that do not exist"


@pytest.mark.parametrize("mode", list(LISTS))
def test_known_failures_are_sorted(mode):
    lines = LISTS[mode].read_text(encoding="utf-8").splitlines()
    assert lines == sorted(lines)

"""Schedules of the real service in a simulated world; `run.py` runs thousands more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
BROKEN = """
import sys
sys.path.insert(0, {here!r})
sys.unraisablehook = lambda _: None
from natalog.actors.log import BranchLog
from sim_world import simulate

async def look(self, made, deadline, sent):
    return made.seq, {found}

BranchLog._look = look
print([seed for seed in (5, 13, 19, 22, 35, 38, 40, 46, 55) if simulate(seed).failures])
"""
MINE = 'f"{made.hash.hex()}.{self._writer}"'


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Clocks and threads are replaced while a schedule runs: not in this process."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )


def test_nothing_is_lost_or_doubled_in_sixty_schedules() -> None:
    done = run(str(HERE / "run.py"), "--count", "60", "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 schedules, 0 failed" in done.stdout


def test_a_seed_is_one_schedule() -> None:
    first, second = (run(str(HERE / "run.py"), "--seed", "24").stdout for _ in range(2))
    assert "trace=" in first
    assert first == second


@pytest.mark.parametrize(
    "found", ["None", MINE], ids=["believes it was not stored", "believes it was stored"]
)
def test_a_transactor_that_does_not_look_after_a_lost_receipt_is_found(found: str) -> None:
    done = run("-c", BROKEN.format(here=str(HERE), found=found))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() not in ("", "[]")

"""Replay scenario files against Natalog and count the steps that answer as recorded.

    python tests/conformance/run.py [--mode local|service] [--known FILE] [--only TEXT] [PATH...]

PATH is a scenario file or a directory of them (default: ``scenarios`` beside this file).  Names
every failing scenario and step with both answers and ends with the line ``N passed, N failed``.
With ``--known`` failures of the scenarios that FILE lists are counted but not printed.  Exit code
0 whatever fails, 2 when the run itself could not be made.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from conformance_compare import ANY, ERROR, OK, K, Outcome, Pairs, SetOf, normal
from conformance_steps import Clock, Scenario
from conformance_systems import system

from natalog.core.edn import read, write
from natalog.core.errors import NatalogError
from natalog.core.values import Tagged, make_set

SCENARIOS = Path(__file__).resolve().parent / "scenarios"
SHOWN_CHARACTERS_MAX = 1500
STEP_TIMEOUT_S = 60


@dataclass
class StepFailure:
    """A step whose answer is not the recorded one."""

    index: int
    step: dict[Any, Any]
    reason: str
    expected: str
    got: str


@dataclass
class ScenarioResult:
    """How a scenario went."""

    file: str
    name: str
    steps: int
    failures: list[StepFailure] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The scenario as lists of known failures name it."""
        return f"{self.file} :: {self.name}"


def scenario_files(paths: Iterable[str | Path]) -> list[Path]:
    """The scenario files that ``paths`` name, directories expanded; `FileNotFoundError`."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(path.glob("*.edn"))
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path} does not exist")
    return found


def read_known(path: Path) -> set[str]:
    """The scenarios that a list of known failures names, one a line; ``#`` starts a comment."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line and not line.startswith("#")}


def _short(text: str) -> str:
    if len(text) <= SHOWN_CHARACTERS_MAX:
        return text
    return text[:SHOWN_CHARACTERS_MAX] + f"... ({len(text)} characters)"


def _edn(value: Any) -> str:
    try:
        return write(value, ordered=True)
    except Exception:
        return repr(value)


def _shown(outcome: Outcome, scenario: Scenario) -> str:
    if outcome.crash is not None:
        last = traceback.extract_tb(outcome.crash.__traceback__)[-1:]
        where = f" ({Path(last[0].filename).name}:{last[0].lineno})" if last else ""
        return f"crash {type(outcome.crash).__name__}: {outcome.crash}{where}"
    if outcome.error is not None:
        return f"error {outcome.error.type} {outcome.error.code}: {outcome.error.message}"
    return _edn(_plain(normal(outcome.ok, ours=True), scenario))


def _plain(value: Any, scenario: Scenario) -> Any:
    """A normal value as data again, commits by their labels."""
    if isinstance(value, SetOf):
        members = [_plain(item, scenario) for item in value]
        try:
            return make_set(tuple(m) if isinstance(m, list) else m for m in members)
        except TypeError:
            return Tagged("set", members)
    if isinstance(value, Pairs):
        return {_key(_plain(k, scenario)): _plain(v, scenario) for k, v in value}
    if isinstance(value, list):
        return [_plain(item, scenario) for item in value]
    label = scenario.comparison.ids.get(value) if hasattr(value, "bytes_le") else None
    return value if label is None else label


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _expected(want: dict[Any, Any]) -> str:
    if ANY in want:
        return "anything"
    if ERROR in want:
        return f"error {_edn(want[ERROR])}"
    return _edn(want.get(OK))


def _overdue(*_: Any) -> None:
    raise TimeoutError(f"the step took longer than {STEP_TIMEOUT_S} seconds")


async def replay(
    on: Any,
    clock: Clock,
    file: str,
    name: str,
    body: dict[Any, Any],
    prefix: str,
    alarm: bool = False,
) -> ScenarioResult:
    """Run one scenario and compare every step; with ``alarm`` even a busy step ends.

    Without expected results a step only must not crash.
    """
    steps = body[K("steps")]
    expected = body.get(K("expect")) or [{ANY: True}] * len(steps)
    result = ScenarioResult(file, name, len(steps))
    scenario = Scenario(on, clock, prefix)
    try:
        for index, (step, want) in enumerate(zip(steps, expected, strict=True)):
            if alarm:
                signal.setitimer(signal.ITIMER_REAL, STEP_TIMEOUT_S + 5)
            try:
                outcome = await asyncio.wait_for(scenario.run(step), STEP_TIMEOUT_S)
            except TimeoutError as error:
                outcome = Outcome(crash=error)
            reason = scenario.comparison.differs(step, want, outcome)
            if reason is not None:
                result.failures.append(
                    StepFailure(index, step, reason, _expected(want), _shown(outcome, scenario))
                )
    finally:
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
        await scenario.close()
    return result


async def replay_files(
    files: Sequence[Path], mode: str, only: str | None = None, alarm: bool = False
) -> AsyncIterator[ScenarioResult]:
    """Run every scenario of the files, in order, on one system."""
    clock = Clock()
    async with system(mode, clock) as on:
        number = 0
        for path in files:
            try:
                scenarios = read(path.read_text(encoding="utf-8"))
            except NatalogError as error:
                result = ScenarioResult(path.name, "the whole file", 1)
                result.failures.append(StepFailure(0, {}, "unreadable", "EDN", error.message))
                yield result
                continue
            for name, body in scenarios.items():
                number += 1
                if only is not None and only not in f"{path.name} :: {name}":
                    continue
                yield await replay(on, clock, path.name, name, body, f"s{number}", alarm)


def print_failure(result: ScenarioResult) -> None:
    """Name a failing scenario with its steps and both answers."""
    print(f"FAILED {result.key}")
    for failure in result.failures:
        print(f"  step {failure.index}: {failure.reason}")
        print(f"    {_short(_edn(failure.step))}")
        print(f"    expected {_short(failure.expected)}")
        print(f"    got      {_short(failure.got)}")


async def run(arguments: argparse.Namespace) -> int:
    """The whole run; returns the exit code."""
    alarm = hasattr(signal, "setitimer")
    if alarm:
        signal.signal(signal.SIGALRM, _overdue)
    files = scenario_files(arguments.paths or [SCENARIOS])
    known = read_known(arguments.known) if arguments.known else set()
    passed = failed = 0
    counts: dict[str, tuple[int, int]] = {}
    failing: list[str] = []
    async for result in replay_files(files, arguments.mode, arguments.only, alarm):
        bad = len(result.failures)
        good = result.steps - bad
        passed, failed = passed + good, failed + bad
        before = counts.get(result.file, (0, 0))
        counts[result.file] = (before[0] + good, before[1] + bad)
        if bad:
            failing.append(result.key)
            if result.key not in known:
                print_failure(result)
        elif result.key in known:
            print(f"PASSED {result.key} (a known failure no longer)")
    for file, (good, bad) in counts.items():
        print(f"{file}: {good} passed, {bad} failed")
    if arguments.write_failing:
        text = "".join(f"{key}\n" for key in sorted(failing))
        arguments.write_failing.write_text(text, encoding="utf-8")
    print(f"{passed} passed, {failed} failed")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="*", metavar="PATH")
    parser.add_argument("--mode", choices=("local", "service"), default="service")
    parser.add_argument("--known", type=Path, metavar="FILE")
    parser.add_argument("--only", metavar="TEXT", help="only scenarios whose name holds TEXT")
    parser.add_argument("--write-failing", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    try:
        return asyncio.run(run(arguments))
    except (OSError, ImportError, NatalogError) as error:
        print(f"the scenarios could not be run: {type(error).__name__}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

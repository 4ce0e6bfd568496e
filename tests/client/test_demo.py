"""The demonstration runs by itself and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

DEMO = [sys.executable, "-m", "natalog", "demo", "--sample"]


def processes_with(text: str) -> list[int]:
    """The processes whose command line has ``text``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in command and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def directory_of(output: str) -> str:
    match = re.search(r"durable, in (\S+)\.\n", output)
    assert match is not None, output
    return match.group(1)


def test_the_demo_shows_everything_and_cleans_up(tmp_path: Path) -> None:
    done = subprocess.run(
        DEMO, capture_output=True, text=True, cwd=tmp_path, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for promised in (
        "60 commits",
        "Commits per author",
        "changed most often",
        "changed since",
        "order-17 was sent twice and applied once",
        "replays the same 2 transactions",
        "nats req natalog.people.db.query",
    ):
        assert promised in done.stdout
    directory = directory_of(done.stdout)
    assert not Path(directory).exists()
    assert processes_with(directory) == []
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_demo_cleans_up_too(tmp_path: Path) -> None:
    with subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        output = ""
        while "durable, in" not in output:
            line = process.stdout.readline()
            assert line, output
            output += line
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(60) != 0
    directory = directory_of(output)
    end = time.monotonic() + 30
    while processes_with(directory) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes_with(directory) == []
    assert not Path(directory).exists()

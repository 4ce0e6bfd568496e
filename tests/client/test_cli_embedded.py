"""Commands on a data directory, without a service that runs beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(data: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "natalog", *command, "--embedded", str(data)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_commands_run_on_a_directory_and_leave_nothing_running(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run(data, "db", "create", "people", "--schema", "read").returncode == 0
    done = run(data, "transact", "people", '[{:name "Ada"}]')
    assert done.returncode == 0, done.stderr
    done = run(data, "q", "people", "[:find ?n . :where [_ :name ?n]]", "--edn")
    assert done.stdout.strip() == '"Ada"'
    done = run(data, "q", "nowhere", "[:find ?n . :where [_ :name ?n]]")
    assert done.returncode == 1 and "DatabaseNotFound" in done.stderr


def test_what_reads_the_streams_itself_runs_on_a_directory_too(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "people.natalog"
    assert run(data, "db", "create", "people", "--schema", "read").returncode == 0
    for command in (
        ("check", "people", "--deep"),
        ("backup", "people", str(backup)),
        ("restore", str(backup), "--as", "people2"),
        ("check", "people2"),
        ("recover", "people"),
    ):
        done = run(data, *command)
        assert done.returncode == 0, done.stderr
    assert "healthy" in done.stdout or "sound" in done.stdout


def test_what_is_no_directory_is_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a directory")
    done = run(file, "db", "list")
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr

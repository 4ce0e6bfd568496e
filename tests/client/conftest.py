"""A real service, in a process of its own, that the tests of this directory share."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_STOP_TIMEOUT_S = 30

_names = itertools.count(1)


def start_service(directory: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A running `natalog serve` and its address."""
    command = [sys.executable, "-m", "natalog", "serve", "--listen", "127.0.0.1:0"]
    with (directory / "service.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--data", str(directory / "data"), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=directory,
            env={key: value for key, value in os.environ.items() if key != "NATS_URL"},
        )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line.startswith("natalog ready nats://"):
        stop_service(process)
        raise AssertionError(f"{line!r}; {(directory / 'service.log').read_text()[-2000:]}")
    return process, line.removeprefix("natalog ready ")


def stop_service(process: subprocess.Popen[str]) -> int:
    """Stop a service as an operator would; its exit code."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(_STOP_TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def service_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the shared service."""
    process, url = start_service(tmp_path_factory.mktemp("service"))
    yield url
    assert stop_service(process) == 0


Service = tuple[Callable[[], int], str]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services of a test's own, all on one data directory; gives how to stop, and the URL."""
    running: list[subprocess.Popen[str]] = []

    def start(*options: str) -> Service:
        process, url = start_service(tmp_path, *options)
        running.append(process)
        return lambda: stop_service(process), url

    yield start
    for process in running:
        if process.poll() is None:
            stop_service(process)


@pytest.fixture
def fresh_name() -> Callable[[], str]:
    """Names for databases that no other test uses."""
    return lambda: f"test-{os.getpid()}-{next(_names)}"

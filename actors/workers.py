"""Processes that answer reads beside the service: they can be killed, and use more cores.

A worker is a service of role ``query`` on the same NATS server.  It gets its settings through its
standard input, which it also watches: when the service is gone, so is the worker.  One that reads
too long past a deadline ends itself after the asker has been told; one that does not even answer a
ping is killed.  Either is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio

from natalog.actors.config import ServiceConfig
from natalog.actors.metrics import WORKER_FAMILIES, Samples
from natalog.core.errors import NatalogError, ServerFailed

if TYPE_CHECKING:
    from natalog.actors.service import Service

log = logging.getLogger("natalog.workers")

PING_INTERVAL_S: Final = 2.0
SILENT_S: Final = 8.0
"""A worker that has not answered for so long is killed."""
STUCK_S: Final = 5.0
"""A read that goes on for so long after it was given up ends its worker."""
START_S: Final = 60.0
STOP_S: Final = 5.0
PAUSE_S: Final = 0.2
PAUSE_MAX_S: Final = 10.0
STUCK_EXIT: Final = 75
_PING, _PONG = b"?\n", b"!\n"
_MEASURE, _MEASURED = b"#\n", b"#"
"""A ping that is answered with the size of what follows: metrics."""


class Workers:
    """Keeps ``count`` workers alive."""

    def __init__(
        self,
        config: ServiceConfig,
        url: str,
        pinned_ms: int | None,
        restarted: Callable[[], None],
        *,
        measured: bool = False,
    ) -> None:
        """``url``: of the NATS server; ``pinned_ms``: the instant of a clock that stands still.

        ``measured``: workers tell their metrics with every answer to a ping.
        """
        self._count = config.query_workers
        settings = replace(
            config,
            nats=url,
            role="query",
            query_workers=0,
            metrics_port=None,
            server_config=None,
            console=False,
        )
        self._settings = pickle.dumps((settings, pinned_ms, measured))
        self._ping = _MEASURE if measured else _PING
        self.samples: dict[int, Samples] = {}
        """The metrics of each worker, as it last told them."""
        self._restarted = restarted
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = False

    @property
    def pids(self) -> list[int]:
        """The processes that answer now."""
        return [process.pid for process in self._processes.values()]

    async def run(self) -> None:
        """Keep all alive until `stop`."""
        async with anyio.create_task_group() as tasks:
            for number in range(self._count):
                tasks.start_soon(self._keep, number)

    async def ready(self) -> None:
        """Wait until all answer for the first time; `ServerFailed` when they do not."""
        with anyio.move_on_after(START_S) as waiting:
            while len(self._processes) < self._count and not self._stopping:
                await anyio.sleep(0.01)
        if waiting.cancelled_caught:
            raise ServerFailed("The query workers did not start.", workers=self._count)

    async def stop(self) -> None:
        """End all of them."""
        self._stopping = True
        processes = list(self._processes.values())
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in processes:
            with anyio.move_on_after(STOP_S):
                await process.wait()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _keep(self, number: int) -> None:
        pause = PAUSE_S
        while not self._stopping:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "natalog.actors.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            began = time.monotonic()
            try:
                await self._attend(number, process)
            finally:
                self._processes.pop(number, None)
                self.samples.pop(number, None)
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    with anyio.CancelScope(shield=True):
                        await process.wait()
            if self._stopping:
                return
            self._restarted()
            log.warning("query worker %d ended with %s", process.pid, process.returncode)
            pause = PAUSE_S if time.monotonic() - began > 30 else min(2 * pause, PAUSE_MAX_S)
            await anyio.sleep(pause)

    async def _attend(self, number: int, process: asyncio.subprocess.Process) -> None:
        """Give a worker its settings and ping it until it ends or falls silent."""
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            size = len(self._settings)
            await _told(process.stdin, size.to_bytes(4, "big") + self._settings)
            limit = START_S
            while True:
                with anyio.move_on_after(limit) as waiting:
                    said = await process.stdout.readline()
                    if said.startswith(_MEASURED):
                        size = int(said.removeprefix(_MEASURED))
                        self.samples[number] = pickle.loads(await process.stdout.readexactly(size))
                    elif said != _PONG:
                        await process.wait()
                        return
                if waiting.cancelled_caught:
                    log.error("query worker %d does not answer: it is killed", process.pid)
                    return
                self._processes[number] = process
                await anyio.sleep(PING_INTERVAL_S)
                await _told(process.stdin, self._ping)
                limit = SILENT_S


async def _told(pipe: asyncio.StreamWriter, words: bytes) -> None:
    """Write to a worker; `OSError` when it is gone."""
    try:
        pipe.write(words)
    except RuntimeError as error:  # uvloop's word for a closed pipe
        raise BrokenPipeError(str(error)) from None
    await pipe.drain()


async def serve_as_worker() -> int:
    """The life of a worker; its exit code."""
    from natalog.actors.service import running

    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    size = int.from_bytes(await reader.readexactly(4), "big")
    settings, pinned_ms, measured = pickle.loads(await reader.readexactly(size))
    clock = None if pinned_ms is None else (lambda: int(pinned_ms))
    end = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is the service's to handle

    async def answer_pings(service: Service) -> None:
        while (asked := await reader.readline()) in (_PING, _MEASURE):
            if asked == _PING:
                _say(_PONG)
                continue
            told = pickle.dumps(service.metrics.told(WORKER_FAMILIES))
            _say(b"%b%d\n%b" % (_MEASURED, len(told), told))
        end.set()  # the service is gone

    async with running(settings, clock=clock) as service:
        if measured:
            service.measure()
        _say(_PONG)
        pings = asyncio.create_task(answer_pings(service))
        while not end.is_set():
            with anyio.move_on_after(0.5):
                await end.wait()
            if service.query.stuck_s() > STUCK_S:
                log.error("a read does not end: the worker ends itself")
                os._exit(STUCK_EXIT)
        pings.cancel()
    return 0


def _say(words: bytes) -> None:
    with contextlib.suppress(OSError, RuntimeError):  # uvloop's word for a closed pipe
        while words:
            words = words[os.write(sys.stdout.fileno(), words) :]


def main() -> None:
    """The entry point of the process."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s query worker %(process)d: %(message)s",
    )
    try:
        import uvloop

        code = uvloop.run(serve_as_worker())
    except (asyncio.IncompleteReadError, NatalogError) as error:
        log.error("the worker ends: %s", error)
        code = 1
    # a read that does not end must not keep the process
    os._exit(code)

"""A service of one's own, for tests and demonstrations: a real one, in a process beside this one.

async with own_service(Path(directory)) as url, natalog.connect(url) as client:
    await client.create_database("people")
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from natalog.core.errors import ServerFailed

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0


@asynccontextmanager
async def own_service(
    directory: Path, *options: str, data: Path | None = None
) -> AsyncIterator[str]:
    """Run `natalog serve` with its log and, without ``data``, its data under ``directory``.

    Yields its address.  ``options`` are those of the command.  The service is stopped whatever
    happens; `ServerFailed` when it does not start or does not end well.
    """
    command = [sys.executable, "-m", "natalog", "serve", "--listen", "127.0.0.1:0", "--no-console"]
    log_path = directory / "service.log"
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            *options,
            "--data",
            str(data or directory / "data"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield await _ready(process, log_path)
        finally:
            code = await _stop(process)
        if code != 0:
            raise ServerFailed(
                f"the service ended with exit code {code}: {_last_line(log_path)}", exit_code=code
            )


@contextmanager
def service(directory: Path, *options: str) -> Iterator[str]:
    """`own_service` for code that does not await."""
    with asyncio.Runner() as runner:
        running = own_service(directory, *options)
        url = runner.run(running.__aenter__())
        try:
            yield url
        finally:
            runner.run(running.__aexit__(None, None, None))


async def _ready(process: asyncio.subprocess.Process, log_path: Path) -> str:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            line = (await process.stdout.readline()).decode().strip()
    except TimeoutError:
        line = ""
    if not line.startswith("natalog ready "):
        raise ServerFailed(f"the service did not start: {_last_line(log_path)}")
    return line.removeprefix("natalog ready ")


async def _stop(process: asyncio.subprocess.Process) -> int:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("natalog: ") if lines else "it said nothing"

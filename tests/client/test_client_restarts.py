"""A client lives through restarts of the service that it talks to."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import natalog
from natalog.core.errors import DeadlineExceeded, Unavailable

pytestmark = pytest.mark.asyncio

NAMES = "[:find [?n ...] :where [_ :name ?n]]"
Start = Callable[..., tuple[Callable[[], int], str]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def service_process(directory: Path) -> int:
    """The id of the process that serves the data of a directory."""
    wanted = str(directory / "data")
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "serve" in arguments and wanted in arguments:
            return int(entry.name)
    raise AssertionError("the service does not run")


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_feeds_and_transactions_go_on(service: Start, tmp_path: Path, how: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    stop, url = await asyncio.to_thread(service, "--listen", address)
    async with natalog.connect(url, timeout=60) as client, asyncio.timeout(100):
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        async with conn.reports(since=0) as log_feed, conn.reports() as live_feed:
            first = await conn.transact([{"name": "before"}], id="1")
            assert (await anext(log_feed)).tx == (await anext(live_feed)).tx == first.tx
            db = await conn.db()
            if how == "stopped":
                assert await asyncio.to_thread(stop) == 0
            else:
                os.kill(service_process(tmp_path), signal.SIGKILL)
                await asyncio.to_thread(_wait_until_gone, stop)
            during = asyncio.create_task(conn.transact([{"name": "during"}], id="2"))
            unsafe = asyncio.create_task(conn.transact([{"name": "lost"}], timeout=0.5))
            with pytest.raises((Unavailable, DeadlineExceeded)):
                await unsafe
            await asyncio.to_thread(service, "--listen", address)
            second = await during
            assert second.tx == first.tx + 1
            assert (await anext(log_feed)).tx_data == second.tx_data
            third = await conn.transact([{"name": "after"}], id="3")
            assert (await anext(log_feed)).tx == third.tx
            while (report := await anext(live_feed)).tx < third.tx:
                assert report.tx == second.tx
        assert (await conn.transact([{"name": "again"}], id="1")).tx == first.tx
        assert await db.q(NAMES) == ["before"]
        assert set(await (await conn.db()).q(NAMES)) == {"before", "during", "after"}


def _wait_until_gone(stop: Callable[[], int]) -> None:
    try:
        stop()
    except (ProcessLookupError, subprocess.TimeoutExpired):
        return

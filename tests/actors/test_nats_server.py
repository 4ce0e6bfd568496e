"""The child nats-server: configured, locked, supervised, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from natalog.actors.nats_port import NatsPort
from natalog.actors.nats_server import NatsServer, server_config
from natalog.core.errors import DataDirectoryInUse, PortInUse, ServerFailed, Unavailable

pytestmark = pytest.mark.asyncio


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for is not alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


async def test_it_starts_on_a_free_port_and_stops_without_a_trace(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    await server.start()
    pid = server.pid
    assert pid is not None and server.port > 0
    port = await NatsPort.connect(server.url)
    assert (await port.api("INFO"))["streams"] == 0
    await port.close()
    await server.stop()
    assert not alive(pid)


async def test_it_writes_every_append_to_disk_before_the_receipt() -> None:
    text = server_config(
        host="127.0.0.1",
        port=-1,
        store=Path("s"),
        run=Path("r"),
        max_payload=1,
        sync_interval="always",
    )
    assert "sync_interval: always" in text


async def test_a_data_directory_serves_one_process(tmp_path: Path) -> None:
    first, second = NatsServer(tmp_path), NatsServer(tmp_path)
    await first.start()
    try:
        with pytest.raises(DataDirectoryInUse, match=str(os.getpid())):
            await second.start()
    finally:
        await first.stop()
    await second.start()
    await second.stop()


async def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        server = NatsServer(tmp_path, port=number)
        with pytest.raises(PortInUse, match=str(number)):
            await server.start()
    await server.start()
    assert server.port == number
    await server.stop()


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, sync_interval="nonsense")
    with pytest.raises(ServerFailed, match=r"sync_interval|nonsense|code"):
        await server.start()
    good = NatsServer(tmp_path)
    await good.start()
    await good.stop()


async def test_nobody_at_an_address_is_found_out_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    with pytest.raises(Unavailable):
        await NatsPort.connect(f"nats://127.0.0.1:{number}")


async def test_a_killed_server_comes_back_on_its_port_with_its_data(nats_lab) -> None:  # type: ignore[no-untyped-def]
    async with nats_lab() as (server, port):
        await port.stream_create({"name": "s", "subjects": ["s"], "storage": "file"})
        assert (await port.append("s", b"one")).seq == 1
        before = server.port
        os.kill(server.pid, signal.SIGKILL)
        with anyio.fail_after(10):
            while server.restarts == 0 or not port.is_connected:
                await asyncio.sleep(0.01)
        assert server.port == before
        assert (await port.append("s", b"two", expected_last=1)).seq == 2


async def test_a_request_in_flight_hears_of_a_broken_connection_early(nats_lab) -> None:  # type: ignore[no-untyped-def]
    from natalog.core.errors import DeadlineExceeded

    async with nats_lab() as (server, port):
        await port.subscribe("silent", lambda message: None)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:

                async def ask() -> None:
                    with pytest.raises(DeadlineExceeded) as caught:
                        await port.request("silent", b"", timeout_s=60)
                    assert caught.value.data["disconnected"]

                tasks.start_soon(ask)
                await asyncio.sleep(0.1)
                os.kill(server.pid, signal.SIGKILL)


async def test_the_server_of_a_killed_process_does_not_stay(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from natalog.actors.nats_server import NatsServer\n"
        "async def main():\n"
        "    server = NatsServer(Path(sys.argv[1]))\n"
        "    await server.start()\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as out:
        child = int(out.readline())
    process.kill()
    process.wait()
    again = NatsServer(tmp_path)
    await again.start()
    try:
        assert again.pid != child and not alive(child)
    finally:
        await again.stop()


async def test_what_is_wrong_with_an_included_configuration_is_told(tmp_path: Path) -> None:
    include = tmp_path / "users.conf"
    include.write_text("authorization { user: ann, password: $NOBODY_SAID_IT }")
    with pytest.raises(ServerFailed, match="NOBODY_SAID_IT"):
        await NatsServer(tmp_path / "data", include=include).start()

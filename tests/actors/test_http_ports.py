"""The port of a service's pages."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from natalog.actors.http import USUAL_PORT, HttpServer, application, listening
from natalog.core.errors import PortInUse

pytestmark = pytest.mark.asyncio


def server(port: int) -> HttpServer:
    return HttpServer("127.0.0.1", port, application(lambda path: (200, "text/plain", b"")))


async def test_services_that_start_together_each_get_a_port() -> None:
    servers = [server(0) for _ in range(4)]
    await asyncio.gather(*(one.start() for one in servers))
    ports = [one.port for one in servers]
    for one in servers:
        await one.stop()
    assert len(set(ports)) == 4


async def test_the_usual_port_is_taken_where_it_is_free() -> None:
    taken: socket.socket | None = None
    with contextlib.suppress(OSError):  # another service of this machine may have it
        taken = listening("127.0.0.1", USUAL_PORT)
    free = taken is not None
    if taken is not None:
        taken.close()
    one = server(0)
    await one.start()
    port = one.port
    await one.stop()
    assert port == USUAL_PORT or not free


async def test_a_port_that_was_asked_for_and_is_taken_is_refused() -> None:
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            await server(port).start()

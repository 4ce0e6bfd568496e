"""The HTTP port of a service: metrics, health and, where it is wanted, the web console.

uvicorn speaks HTTP (its h11 engine, in the event loop of the service), Starlette routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from natalog.core.errors import PortInUse

HEAD_BYTES_MAX = 16 * 1024
"""Request line and headers."""
CONNECTIONS_MAX = 512
KEEP_ALIVE_S = 30
STOP_TIMEOUT_S = 2

Respond = Callable[[str], tuple[int, str, bytes]]
"""A path to status, content type and body."""

USUAL_PORT = 9464
"""What a service takes of all ports, if it is free, when nobody named one."""
PAGES = ("/metrics", "/healthz/live", "/healthz/ready")


def application(respond: Respond, routes: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The pages of ``respond``, and ``routes``."""

    def page(request: Request) -> Response:
        status, kind, body = respond(request.url.path)
        return Response(body, status, headers={"Content-Type": kind})

    async def serve(request: Request) -> Response:
        return page(request)

    async def missing(request: Request, error: Exception) -> Response:
        return page(request)

    async def refused(request: Request, error: Exception) -> Response:
        return PlainTextResponse("this page does not take that method\n", 405)

    return Starlette(
        routes=[*(Route(path, serve) for path in PAGES), *routes],
        exception_handlers={404: missing, 405: refused},
    )


class HttpServer:
    """Serves an ASGI application; `start`, then `stop`."""

    def __init__(self, host: str, port: int, app: ASGIApp) -> None:
        self._host = host
        self._wanted = port
        self._server = _Server(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=STOP_TIMEOUT_S,
                h11_max_incomplete_event_size=HEAD_BYTES_MAX,
            )
        )
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Listen; `PortInUse` when the address is taken."""
        try:
            self._socket = self._listening()
        except OSError as error:
            raise PortInUse(
                f"The address {self._host}:{self._wanted} cannot be listened on: {error.strerror}.",
                host=self._host,
                port=self._wanted,
            ) from error
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.005)

    def _listening(self) -> socket.socket:
        if self._wanted == 0:  # taken at once: another service may start at the same time
            with contextlib.suppress(OSError):
                return listening(self._host, USUAL_PORT)
        return listening(self._host, self._wanted)

    async def stop(self) -> None:
        """Answer what is being answered, then close every connection."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the command decides what a signal means."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens on the first address of ``host``; raises `OSError`."""
    family, kind, proto, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    found = socket.socket(family, kind, proto)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found

"""Metrics and health over HTTP: ``/metrics``, ``/healthz/live``, ``/healthz/ready``.

A few lines of HTTP/1.1 on asyncio: three fixed answers need no framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from natalog.core.errors import PortInUse

log = logging.getLogger("natalog.http")

REQUEST_BYTES_MAX = 8192
REQUEST_TIMEOUT_S = 5.0

Respond = Callable[[str], tuple[int, str, bytes]]
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class HttpServer:
    """Serves ``respond(path)``, a function to ``(status, content type, body)``."""

    def __init__(self, host: str, port: int, respond: Respond) -> None:
        self._host = host
        self._port = port
        self._respond = respond
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen; `PortInUse` when the address is taken."""
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host, self._port, limit=REQUEST_BYTES_MAX
            )
        except OSError as error:
            raise PortInUse(
                f"The address {self._host}:{self._port} cannot be listened on: {error.strerror}.",
                host=self._host,
                port=self._port,
            ) from error

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                method, _, rest = head.partition(b" ")
                path = rest.partition(b" ")[0].decode("latin-1").partition("?")[0]
                if method in (b"GET", b"HEAD"):
                    status, kind, body = self._respond(path)
                else:
                    status, kind, body = 405, "text/plain", b"only GET and HEAD\n"
                writer.write(
                    f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\n"
                    f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                if method != b"HEAD":
                    writer.write(body)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            log.debug("a scraper went away or sent no request")
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

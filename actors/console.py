"""The web console's side of the service: its page, its API, the live feed.

``POST /api/DATABASE/BRANCH/ENDPOINT`` is a request on ``PREFIX.DATABASE.BRANCH.ENDPOINT``, sent
over NATS like anybody's, so that the same handlers answer it.  Bodies are JSON that loses nothing
(`natalog.core.codec_tagged`).  Only reads pass, and ``transact`` where the operator allows it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive

from natalog.actors.caller import Caller, Reply
from natalog.actors.console_assets import Assets
from natalog.actors.console_feed import Feeds
from natalog.actors.console_guard import Guard, Handler
from natalog.actors.metrics import package_version
from natalog.actors.names import NOBODY, Names, check_name
from natalog.actors.nats_port import NatsPort
from natalog.actors.payload import error_struct
from natalog.actors.requests import status_of
from natalog.actors.runtime import as_natalog
from natalog.core.codec import pack, unpack
from natalog.core.codec_tagged import from_json_with_edn, to_tagged_json
from natalog.core.errors import BadRequest, Busy, Forbidden, NatalogError, TooLarge
from natalog.core.query.aggregates import AGGREGATES
from natalog.core.query.functions import FUNCTIONS
from natalog.core.registry import Registry

log = logging.getLogger("natalog.console")

READS: Final = frozenset(
    (
        *("query", "pull", "entity", "datoms", "schema", "with", "history", "diff"),
        *("tx-range", "metrics", "schema-conflicts", "info", "branches", "list"),
    )
)
WRITES: Final = frozenset({"transact"})

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024
BODY_TIMEOUT_S: Final = 15.0
ANSWER_TIMEOUT_S: Final = 60.0
CALLS_MAX: Final = 64
"""Requests of all pages that are being answered."""
IN_LOOP_BYTES: Final = 64 * 1024
"""An answer up to this size is turned into JSON at once, a larger one in a thread."""


class Console:
    """Routes of the console; `start` and `stop` with the service."""

    def __init__(
        self,
        port: NatsPort,
        names: Names,
        functions: Registry,
        *,
        write: bool,
        hosts: tuple[str, ...],
        ready: Callable[[], bool],
    ) -> None:
        self._names = names
        self._functions = functions
        self._ready = ready
        self._endpoints = READS | WRITES if write else READS
        self._write = write
        self._caller = Caller(port)
        self._feeds = Feeds(port, names)
        self._guard = Guard(hosts)
        self._assets = Assets()
        self._running = 0

    async def start(self) -> None:
        await self._caller.start()

    async def stop(self) -> None:
        """End feeds and requests; the connections themselves end with the HTTP server."""
        await self._feeds.stop()
        await self._caller.stop()

    def routes(self) -> list[BaseRoute]:
        """For `natalog.actors.http.application`."""
        call = "/api/{database}/{branch}/{endpoint}"
        feed = "/api/{database}/feed"
        return [
            Route("/", self._guard.page(self._assets.index)),
            Route("/assets/{name}", self._guard.asset(self._assets.asset)),
            Route("/api/about", self._guard.api(_answering(self._about))),
            Route(feed, self._guard.api(_answering(self._feed))),
            Route(call, self._guard.api(_answering(self._call)), methods=["POST"]),
        ]

    # --- handlers ----------------------------------------------------------------------------

    async def _about(self, request: Request) -> Response:
        """What the page must know before its first request."""
        functions = {*FUNCTIONS, *self._functions.functions}
        aggregates = {*AGGREGATES, *self._functions.aggregates}
        return _json(
            {
                "version": package_version(),
                "prefix": self._names.prefix,
                "write": self._write,
                "ready": self._ready(),
                "functions": sorted(functions),
                "aggregates": sorted(aggregates),
            }
        )

    async def _feed(self, request: Request) -> Response:
        return self._feeds.response(check_name(request.path_params["database"]))

    async def _call(self, request: Request) -> Response:
        subject = self._subject(request)
        if self._running >= CALLS_MAX:
            raise Busy("Too many requests of the console are being answered.", retry_after_ms=500)
        self._running += 1
        try:
            payload = pack(from_json_with_edn(await _body(request)))
            call = self._caller.call(subject, payload, timeout_s=ANSWER_TIMEOUT_S)
            return await _answer(await _unless_gone(call, request.receive))
        finally:
            self._running -= 1

    def _subject(self, request: Request) -> str:
        """The subject of the request; only what the console may ask has one."""
        words = request.path_params
        database, branch, endpoint = words["database"], words["branch"], words["endpoint"]
        if database != NOBODY:
            check_name(database)
        if branch != NOBODY:
            check_name(branch, "branch")
        if endpoint not in self._endpoints:
            if endpoint in WRITES:
                raise Forbidden(
                    "This console only reads; natalog serve --console-write lets it write.",
                    endpoint=endpoint,
                )
            raise BadRequest(
                f"The console has no {endpoint!r}; it has {', '.join(sorted(self._endpoints))}.",
                endpoint=endpoint,
            )
        return self._names.subject(database, branch, endpoint)


# --- answers -------------------------------------------------------------------------------------


def _json(body: Any, status: int = 200) -> Response:
    return Response(to_tagged_json(body), status, media_type="application/json")


def _answering(handler: Handler) -> Handler:
    """``handler`` with its errors as answers."""

    async def answering(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            known = as_natalog(error)
            if known is not error:
                log.error("%s failed", request.url.path, exc_info=error)
            return _error(known)

    return answering


def _error(error: NatalogError) -> Response:
    return _json(error_struct(error), status_of(error))


async def _answer(reply: Reply) -> Response:
    """The answer of a handler as JSON without loss."""
    if len(reply.data) > ANSWER_BYTES_MAX:
        raise TooLarge(
            f"The answer has {len(reply.data)} bytes; the console takes {ANSWER_BYTES_MAX}. "
            "Ask for fewer rows.",
            bytes=len(reply.data),
            bytes_max=ANSWER_BYTES_MAX,
        )

    def work() -> str:
        return to_tagged_json(unpack(reply.data))

    text = work() if len(reply.data) <= IN_LOOP_BYTES else await to_thread.run_sync(work)
    code = reply.headers.get("Nats-Service-Error-Code", "200")
    status = int(code) if code.isdigit() and 400 <= int(code) < 600 else 200
    return Response(text, status, media_type="application/json")


async def _body(request: Request) -> bytes:
    """The body, within bounds of size and time."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                size += len(part)
                if size > BODY_BYTES_MAX:
                    raise TooLarge(
                        f"A request of the console has at most {BODY_BYTES_MAX} bytes.",
                        bytes_max=BODY_BYTES_MAX,
                    )
                parts.append(part)
    except TimeoutError:
        raise BadRequest("The body of the request did not come.") from None
    return b"".join(parts) or b"{}"


async def _unless_gone(call: Any, receive: Receive) -> Reply:
    """The result of ``call``, which is cancelled when the browser closes its connection."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    calling, watching = asyncio.ensure_future(call), asyncio.ensure_future(gone())
    try:
        await asyncio.wait([calling, watching], return_when=asyncio.FIRST_COMPLETED)
        if not calling.done():
            raise ClientDisconnect()
        reply: Reply = calling.result()
        return reply
    finally:
        watching.cancel()
        calling.cancel()
        await asyncio.wait([calling, watching])
        if not calling.cancelled():
            calling.exception()  # an error that nobody waits for is not news

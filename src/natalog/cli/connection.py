"""Where a command finds its service, how it runs, and what its errors look like."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from natalog.cli.access import embedded, given
from natalog.cli.completion import branch_names
from natalog.client import Client, connect
from natalog.client.client import DEFAULT_PREFIX, DEFAULT_URL
from natalog.client.timeouts import Timeout
from natalog.connection import access
from natalog.connection.access import Access, shown_url
from natalog.core.errors import (
    Busy,
    CommitUnknown,
    DataDirectoryInUse,
    DeadlineExceeded,
    Fenced,
    Forbidden,
    Internal,
    InvalidConfig,
    NatalogError,
    PortInUse,
    ServerFailed,
    Unavailable,
)

T = TypeVar("T")

REFUSED, USAGE, UNAVAILABLE = 1, 2, 3
"""Exit codes: the database said no, the command line is wrong, nobody answers."""

_UNAVAILABLE = (
    Busy,
    CommitUnknown,
    DataDirectoryInUse,
    DeadlineExceeded,
    Fenced,
    Forbidden,
    Internal,
    PortInUse,
    ServerFailed,
    Unavailable,
)

NatsOption = Annotated[
    str | None,
    typer.Option("--nats", metavar="URL", envvar="NATS_URL", help="NATS server to connect to."),
]
ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME",
        envvar="NATS_CONTEXT",
        help="Context of the nats command line to use.",
        autocompletion=lambda incomplete: context_names(incomplete),
    ),
]
BranchOption = Annotated[
    str,
    typer.Option(
        "--branch",
        "-b",
        metavar="NAME",
        help="Branch of the database.",
        autocompletion=branch_names,
    ),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait for an answer.")
]


@dataclass(frozen=True, slots=True)
class Place:
    """A service to talk to: servers, who we are there, subject prefix."""

    servers: list[str]
    access: Access = field(default_factory=Access)
    prefix: str = DEFAULT_PREFIX


def place(nats: str | None, context: str | None) -> Place:
    """The service that is meant; ``--nats`` wins over the URL of the context.

    Who we are is said by options, the context and the environment, the first that says it.
    """
    try:
        return resolved(nats, context, given())
    except NatalogError as error:
        usage_error(error.message)


def resolved(nats: str | None, context: str | None, who: Access) -> Place:
    """As `place`, for somebody in particular; raises what is wrong with the context."""
    url = nats
    if context is not None:
        settings = access.read_context(context)
        who = who.over(Access.from_context(settings))
        url = nats or settings.get("url")
    who = who.over(Access.from_environment())
    prefix = os.environ.get("NATALOG_PREFIX", DEFAULT_PREFIX)
    return Place(_urls(url or DEFAULT_URL), who, prefix)


_SCHEMES = ("nats", "tls", "ws", "wss")


def _urls(text: str) -> list[str]:
    urls = [
        url if "://" in url else f"nats://{url}"
        for url in (part.strip() for part in text.split(","))
        if url
    ]
    for url in urls:
        if (scheme := url.partition("://")[0]) not in _SCHEMES:
            raise InvalidConfig(
                f"{shown_url(url)} is no address of a NATS server: nats://HOST:PORT",
                scheme=scheme,
            )
    return urls


def context_names(incomplete: str = "") -> list[str]:
    """The contexts there are, for completion."""
    return [name for name in access.context_names() if name.startswith(incomplete)]


# --- running -------------------------------------------------------------------------------------


def run_with_client(
    nats: str | None,
    context: str | None,
    timeout_s: float,
    work: Callable[[Client], Awaitable[T]],
) -> T:
    """Connect, do ``work``, close; errors become one line on stderr and an exit code."""

    async def connected() -> T:
        async with located(nats, context) as target:
            return await with_client(target, timeout_s, work)

    return run(connected())


async def with_client(target: Place, timeout_s: float, work: Callable[[Client], Awaitable[T]]) -> T:
    """Do ``work`` with a client of the service that is there."""
    limits = Timeout(connect_s=min(5.0, timeout_s), request_s=timeout_s)
    async with connect(
        target.servers,
        prefix=target.prefix,
        timeout=limits,
        name="natalog-cli",
        access=target.access,
    ) as client:
        return await work(client)


@asynccontextmanager
async def located(nats: str | None, context: str | None) -> AsyncIterator[Place]:
    """Where the service of a command is; with ``--embedded`` one that runs meanwhile."""
    directory = embedded()
    if directory is None:
        yield place(nats, context)
        return
    from natalog.testing import own_service

    if not directory.exists():
        typer.echo(f"natalog: {directory} is a new data directory", err=True)
    with TemporaryDirectory(prefix="natalog-") as scratch:
        try:
            async with own_service(Path(scratch), data=directory) as url:
                yield place(url, None)
        except ServerFailed as error:
            if DataDirectoryInUse.code not in error.message:
                raise
            raise DataDirectoryInUse(
                f"A service runs on {directory} already: ask it without --embedded, or stop it.",
                directory=str(directory),
            ) from None


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work`` on an event loop, errors as the command line shows them."""
    try:
        return event_loop_run(work)
    except NatalogError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except asyncio.CancelledError:
        raise typer.Exit(143) from None
    except BrokenPipeError:
        # the reader of our output has gone: nothing is wrong, nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def event_loop_run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on uvloop, where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def fail(error: NatalogError) -> NoReturn:
    """Say what went wrong on one line and end with the exit code for it."""
    kind = f" [{error.type}]" if error.type else ""
    sentence = " ".join(error.message.split())
    typer.echo(f"natalog: {error.code}: {sentence}{kind}{_advice(error)}", err=True)
    raise typer.Exit(UNAVAILABLE if isinstance(error, _UNAVAILABLE) else REFUSED)


def _advice(error: NatalogError) -> str:
    """What somebody at a prompt may do about it."""
    match error:
        case Unavailable() if "servers" in error.data:
            return "; `natalog serve` starts a service, --nats URL names another one"
        case Forbidden() if "servers" in error.data:
            return "; --user, --creds, --nkey or --context say who connects"
        case PortInUse():
            return "; --listen 127.0.0.1:0 takes any free port"
        case _:
            return ""


def confirm(question: str) -> None:
    """Ask for a yes; everything else ends the command, also nobody who could answer."""
    try:
        typer.confirm(question, abort=True)
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        usage_error("given up, nothing was done: say yes, or --yes")


def usage_error(sentence: str) -> NoReturn:
    """End with the exit code for a wrong command line."""
    typer.echo(f"natalog: {sentence}", err=True)
    raise typer.Exit(USAGE)

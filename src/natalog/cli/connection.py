"""Where a command finds its service, how it runs, and what its errors look like."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from natalog.client import Client, connect
from natalog.client.client import DEFAULT_PREFIX, DEFAULT_URL
from natalog.client.timeouts import Timeout
from natalog.core.errors import (
    Busy,
    CommitUnknown,
    DataDirectoryInUse,
    DeadlineExceeded,
    Fenced,
    Forbidden,
    Internal,
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
        help="Context of the nats command line to use.",
        autocompletion=lambda incomplete: context_names(incomplete),
    ),
]
BranchOption = Annotated[
    str, typer.Option("--branch", "-b", metavar="NAME", help="Branch of the database.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait for an answer.")
]


@dataclass(frozen=True, slots=True)
class Place:
    """A service to talk to: servers, subject prefix, options for the connection."""

    servers: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    prefix: str = DEFAULT_PREFIX


def place(nats: str | None, context: str | None) -> Place:
    """The service that is meant; ``--nats`` wins over the URL of the context."""
    prefix = os.environ.get("NATALOG_PREFIX", DEFAULT_PREFIX)
    if context is None:
        return Place(_urls(nats or DEFAULT_URL), prefix=prefix)
    settings = _read_context(context)
    return Place(_urls(nats or settings.get("url") or DEFAULT_URL), _options(settings), prefix)


def _urls(text: str) -> list[str]:
    return [
        url if "://" in url else f"nats://{url}"
        for url in (part.strip() for part in text.split(","))
        if url
    ]


def context_directory() -> Path:
    """Where the nats command line keeps its contexts."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "nats" / "context"


def context_names(incomplete: str = "") -> list[str]:
    """The contexts there are, for completion."""
    directory = context_directory()
    found = sorted(path.stem for path in directory.glob("*.json")) if directory.is_dir() else []
    return [name for name in found if name.startswith(incomplete)]


def _read_context(name: str) -> dict[str, Any]:
    path = context_directory() / f"{name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(context_names()) or "none"
        usage_error(f"there is no NATS context {name} (known: {known})")
    except (OSError, ValueError) as error:
        usage_error(f"cannot read the NATS context {path}: {error}")
    if not isinstance(found, dict):
        usage_error(f"cannot read the NATS context {path}: it is no JSON object")
    return found


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    named = {
        "user": "user",
        "password": "password",
        "token": "token",
        "creds": "user_credentials",
        "nkey": "nkeys_seed",
        "inbox_prefix": "inbox_prefix",
    }
    options = {ours: settings[theirs] for theirs, ours in named.items() if settings.get(theirs)}
    for key in ("user_credentials", "nkeys_seed"):
        if key in options:
            options[key] = str(Path(options[key]).expanduser())
    if any(settings.get(key) for key in ("ca", "cert", "key")):
        import ssl

        tls = ssl.create_default_context(cafile=settings.get("ca") or None)
        if settings.get("cert"):
            tls.load_cert_chain(settings["cert"], settings.get("key") or None)
        options["tls"] = tls
    return options


# --- running -------------------------------------------------------------------------------------


def run_with_client(
    nats: str | None,
    context: str | None,
    timeout_s: float,
    work: Callable[[Client], Awaitable[T]],
) -> T:
    """Connect, do ``work``, close; errors become one line on stderr and an exit code."""

    async def connected() -> T:
        target = place(nats, context)
        limits = Timeout(connect_s=min(5.0, timeout_s), request_s=timeout_s)
        async with connect(
            target.servers,
            prefix=target.prefix,
            timeout=limits,
            name="natalog-cli",
            **target.options,
        ) as client:
            return await work(client)

    return run(connected())


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
    typer.echo(f"natalog: {error.code}: {sentence}{kind}", err=True)
    raise typer.Exit(UNAVAILABLE if isinstance(error, _UNAVAILABLE) else REFUSED)


def usage_error(sentence: str) -> NoReturn:
    """End with the exit code for a wrong command line."""
    typer.echo(f"natalog: {sentence}", err=True)
    raise typer.Exit(USAGE)

"""``natalog serve`` and ``natalog demo``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from natalog.cli.access import embedded, given
from natalog.cli.connection import ContextOption, place, run, usage_error
from natalog.cli.parsing import clock_argument
from natalog.connection.access import Access
from natalog.core.errors import InvalidConfig

log = logging.getLogger("natalog.serve")


class Role(StrEnum):
    """Which actors a process runs."""

    ALL = "all"
    TRANSACTOR = "transactor"
    QUERY = "query"
    GC = "gc"


def serve(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", exists=True, dir_okay=False, help="TOML file."),
    ] = None,
    nats: Annotated[
        str | None,
        typer.Option("--nats", metavar="URL", help="Use this NATS server, start none."),
    ] = None,
    context: ContextOption = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen", metavar="HOST:PORT", help="Where the own server listens; port 0: any."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Where the own server stores.")
    ] = None,
    server_config: Annotated[
        Path | None,
        typer.Option(
            "--server-config",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="What the own server's configuration includes: users, TLS.",
        ),
    ] = None,
    role: Annotated[
        Role | None, typer.Option("--role", help="Actors to run; all unless this names some.")
    ] = None,
    query_workers: Annotated[
        int | None, typer.Option("--query-workers", min=0, help="Processes that answer reads.")
    ] = None,
    segment_store: Annotated[
        str | None,
        typer.Option(
            "--segment-store",
            metavar="WHERE",
            help="Where snapshots lie: jetstream, memory, or a URL (file://, s3://, gs://, az://).",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port", metavar="PORT", help="HTTP: console, Prometheus and health; 0: any."
        ),
    ] = None,
    console: Annotated[
        bool | None,
        typer.Option(
            "--console/--no-console", help="Serve the web console; by default on loopback."
        ),
    ] = None,
    console_write: Annotated[
        bool, typer.Option("--console-write", help="Let the web console transact.")
    ] = False,
    console_host: Annotated[
        list[str] | None,
        typer.Option(
            "--console-host", metavar="NAME", help="Another name under which it is reached."
        ),
    ] = None,
    pin_clock: Annotated[
        str | None,
        typer.Option(
            "--pin-clock", metavar="INSTANT", help="Stop the clock here: instants repeat."
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run the service.

    Without --nats it starts its own durable nats-server.  When it can serve, it prints one line,
    `natalog ready nats://HOST:PORT`, on stdout; SIGTERM or Ctrl-C stop it cleanly.

    Every setting can also stand in the file, or in a variable such as NATALOG_METRICS_PORT.

    Its web console is at http://127.0.0.1:9464/, or on the port that it logs when that is taken.

    Examples:

    natalog serve --data /var/lib/natalog

    natalog serve --console-write --metrics-port 8080

    natalog serve --nats nats://nats.example.com:4222 --role query
    """
    if embedded() is not None:
        usage_error("serve runs on the directory of --data; --embedded is for other commands")
    elsewhere = nats is not None or context is not None
    if elsewhere and (listen is not None or data is not None or server_config is not None):
        usage_error(
            "--nats and --context use a server that runs elsewhere; --listen, --data and "
            "--server-config start one"
        )
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    pinned = clock_argument(pin_clock)
    target = place(nats, context)
    settings: dict[str, Any] = {
        "nats": ",".join(target.servers) if elsewhere else None,
        "listen": listen,
        "data": data,
        "server_config": server_config,
        "role": None if role is None else role.value,
        "query_workers": query_workers,
        "segment_store": segment_store,
        "metrics_port": metrics_port,
        "console": console,
        "console_write": console_write or None,
        "console_hosts": tuple(console_host) if console_host else None,
    }
    run(_serve(config, {k: v for k, v in settings.items() if v is not None}, pinned, target.access))


async def _serve(
    path: Path | None, settings: dict[str, Any], pinned_ms: int | None, who: Access
) -> None:
    # the actors and the engine are heavy; no other command needs them
    from natalog.actors.config import LOOPBACK, ServiceConfig
    from natalog.actors.service import running

    try:
        config = ServiceConfig.load(path, os.environ, **settings)
    except InvalidConfig as error:
        usage_error(error.message)
    # what the command line says goes before the file, the file before the environment
    config = replace(config, access=given().over(config.access).over(who))
    if config.metrics_port is None and config.role == "all" and config.serves_console:
        config = replace(config, metrics_port=0)
    clock = None if pinned_ms is None else (lambda: pinned_ms)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    async with running(config, clock=clock) as service:
        if service.metrics_port is not None:
            log.info("metrics at http://%s:%d/metrics", config.metrics_host, service.metrics_port)
        if service.console_url is not None:
            log.info("console at %s", service.console_url)
            if config.metrics_host not in LOOPBACK:
                log.warning(
                    "whoever reaches the console can %s every database",
                    "read and change" if config.console_write else "read",
                )
        # what is there now stays: looking through it for garbage takes 20 ms each time
        gc.collect()
        gc.freeze()
        print(f"natalog ready {service.url}", flush=True)
        await stop.wait()


def demo(
    path: Annotated[
        Path | None,
        typer.Option("--git", metavar="PATH", help="Repository to import instead of this one."),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Import the bundled sample of a git history.")
    ] = False,
) -> None:
    """Show what Natalog does: some seconds, on a service of its own, nothing left behind.

    Examples:

    natalog demo

    natalog demo --git ~/src/linux
    """
    from natalog.cli.demo import find_repository, show

    run(show(None if sample else path or find_repository()))

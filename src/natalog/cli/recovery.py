"""``natalog recover``: what is wrong with a log, and going on with what is left of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from natalog.cli.access import embedded
from natalog.cli.connection import (
    REFUSED,
    BranchOption,
    ContextOption,
    NatsOption,
    confirm,
    place,
    run,
    usage_error,
)
from natalog.cli.output import EdnOption, JsonOption, Output
from natalog.cli.read import DatabaseArgument

if TYPE_CHECKING:
    from natalog.actors.names import Names
    from natalog.actors.nats_port import NatsPort


def recover(
    database: DatabaseArgument,
    branch: BranchOption = "db",
    accept_loss_after: Annotated[
        int | None,
        typer.Option(
            "--accept-loss-after", metavar="BLOCK", min=1, help="Keep the log up to this block."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Of a stopped service with a server of its own."
        ),
    ] = None,
    replicas: Annotated[
        int, typer.Option("--replicas", min=1, help="Copies of each stream, on a cluster.")
    ] = 1,
    nats: NatsOption = None,
    context: ContextOption = None,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Say what is wrong with the log of a branch; go on without what it has lost.

    Without --accept-loss-after nothing is changed: the log is read as far as it is sound, and
    compared with what is known to have been acknowledged.  With it, blocks behind that number are
    given up for good, and the log says so.  No service may be taking transactions meanwhile.

    Restoring a backup may lose less. Keep a copy of JetStream's files before you accept anything.

    Examples:

    natalog recover people --data ./data

    natalog recover people --data ./data --accept-loss-after 41
    """
    out = Output(json, edn)
    if accept_loss_after is not None and not yes:
        confirm(
            f"Give up everything behind block {accept_loss_after} of {database}.{branch} for good?"
        )

    async def work() -> tuple[dict[str, Any], bool]:
        from natalog.actors.recovery import Recovery

        async with _streams(data, nats, context) as (port, names):
            port.replicated = replicas > 1
            recovery = Recovery(port, names, _now_ms, replicas=replicas)
            if accept_loss_after is None:
                found = await recovery.examine(database, branch)
                return _shown(found), found.healthy
            done = await recovery.recover(database, branch, accept_loss_after)
            return {
                "database": done.database,
                "branch": done.branch,
                "lost": [done.first, done.last],
                "tx": done.tx,
                "log_sequence": done.sequence,
            }, True

    found, well = run(work())
    if out.for_people:
        out.table(["", "found"], list(found.items()))
    else:
        out.fields(found)
    if not well:
        raise typer.Exit(REFUSED)


def _shown(found: Any) -> dict[str, Any]:
    return {
        "database": found.database,
        "branch": found.branch,
        "lane": found.lane,
        "sound_until": found.sound,
        "fault": found.fault,
        "last_block": found.last,
        "published_head": found.head,
        "newest_snapshot": found.snapshot,
        "contradiction": found.contradiction,
        "healthy": found.healthy,
    }


@asynccontextmanager
async def _streams(
    data: Path | None, nats: str | None, context: str | None
) -> AsyncIterator[tuple[NatsPort, Names]]:
    """A connection to the streams; with ``data`` to a server that is started for that."""
    from natalog.actors.names import Names
    from natalog.actors.nats_port import NatsPort
    from natalog.actors.nats_server import NatsServer

    target = place(nats, context)
    data = data or embedded()
    server = None
    url = ",".join(target.servers)
    if data is not None:
        if not data.is_dir():
            usage_error(f"there is no directory {data}")
        server = NatsServer(data)
        await server.start()
        url = server.url
    try:
        port = await NatsPort.connect(url, name="natalog-cli", access=target.access)
        try:
            yield port, Names(target.prefix)
        finally:
            await port.close()
    finally:
        if server is not None:
            await server.stop()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

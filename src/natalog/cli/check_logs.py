"""Verifying all logs of a database, those of deleted branches too."""

from __future__ import annotations

from natalog.actors.checks import LogChecks
from natalog.actors.names import Names
from natalog.actors.nats_port import NatsPort
from natalog.cli.check import Finding
from natalog.cli.check_snapshots import Server
from natalog.core.errors import Forbidden


async def check_logs(server: Server, database: str) -> list[Finding]:
    """Names, chains, records, commit graph and published heads of every log."""
    try:
        url = ",".join(server.servers)
        port = await NatsPort.connect(url, name="natalog-check", access=server.access)
        try:
            checks = LogChecks(port, Names(server.prefix), database)
            return [Finding(seen.name, seen.good, seen.detail) async for seen in checks.run()]
        finally:
            await port.close()
    except Forbidden as error:
        return [Finding("logs", True, f"not looked at: {error.message}")]

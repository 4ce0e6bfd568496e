"""The two systems that scenarios run against: in this process, and the service behind NATS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from conformance_steps import Clock, System


class LocalSystem:
    """`natalog.local`: the same verbs without NATS, in a registry of its own."""

    def __init__(self, clock: Clock) -> None:
        from natalog.local import Registry

        self.clock = clock
        self.registry = Registry()

    async def create(self, name: str, config: dict[str, Any]) -> None:
        self.registry.create_database(name, clock=self.clock, **config)

    async def drop(self, name: str) -> None:
        self.registry.delete_database(name)

    async def exists(self, name: str) -> bool:
        return self.registry.database_exists(name)

    async def connect(self, name: str, branch: str) -> Any:
        return self.registry.database(name, branch)

    async def q(self, db: Any, query: Any, inputs: list[Any], options: dict[str, Any]) -> Any:
        from natalog.local import run_query

        return run_query(query, inputs, **options)


class ServiceSystem:
    """The real service, reached only through the public client."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def create(self, name: str, config: dict[str, Any]) -> None:
        await self.client.create_database(name, **config)

    async def drop(self, name: str) -> None:
        await self.client.delete_database(name)

    async def exists(self, name: str) -> bool:
        return bool(await self.client.database_exists(name))

    async def connect(self, name: str, branch: str) -> Any:
        return self.client.database(name, branch)

    async def q(self, db: Any, query: Any, inputs: list[Any], options: dict[str, Any]) -> Any:
        return await db.run(query, inputs, **options)


@asynccontextmanager
async def system(mode: str, clock: Clock) -> AsyncIterator[System]:
    """The system of ``mode`` (``local`` or ``service``) with ``clock`` for its transactions."""
    if mode == "local":
        yield LocalSystem(clock)
        return
    import tempfile
    from pathlib import Path

    import natalog
    from natalog.actors.config import ServiceConfig
    from natalog.actors.service import running

    with tempfile.TemporaryDirectory(prefix="natalog-conformance-") as directory:
        config = ServiceConfig(data=Path(directory), listen="127.0.0.1:0")
        async with (
            running(config, clock=clock) as service,
            natalog.connect(service.url) as client,
        ):
            yield ServiceSystem(client)

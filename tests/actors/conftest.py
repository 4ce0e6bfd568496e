"""A real nats-server for each test that wants one; never a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from natalog.actors.config import ServiceConfig
from natalog.actors.nats_port import NatsPort
from natalog.actors.nats_server import NatsServer
from natalog.core.codec import pack, unpack

NatsLab = Callable[[], AbstractAsyncContextManager[tuple[NatsServer, NatsPort]]]


@pytest.fixture
def nats_lab(tmp_path: Path) -> NatsLab:
    """``async with nats_lab() as (server, port)``: a supervised server and a connection."""

    @asynccontextmanager
    async def lab():  # type: ignore[no-untyped-def]
        server = NatsServer(tmp_path / "lab")
        await server.start()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.watch)
                port = await NatsPort.connect(server.url)
                try:
                    yield server, port
                finally:
                    await port.close()
                    tasks.cancel_scope.cancel()
        finally:
            await server.stop()

    return lab


@pytest.fixture
def service_config(tmp_path: Path) -> Callable[..., ServiceConfig]:
    """Settings of a service on a free port with its data in a temporary directory."""

    def make(**settings: Any) -> ServiceConfig:
        return ServiceConfig(**{"data": tmp_path / "data", "listen": "127.0.0.1:0", **settings})

    return make


class Asker:
    """Sends raw requests, so that tests see what travels."""

    def __init__(self, port: NatsPort) -> None:
        self.port = port

    async def raw(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None
    ) -> tuple[dict[str, str], bytes]:
        message = await self.port.request(
            f"natalog.{subject}", payload, headers=headers, timeout_s=20
        )
        return dict(message.headers or {}), message.data

    async def ask(self, subject: str, body: Any) -> Any:
        """The msgpack answer to a msgpack body."""
        return unpack((await self.raw(subject, pack(body)))[1])

    async def edn(self, subject: str, text: str) -> str:
        """The EDN answer to EDN text."""
        return (await self.raw(subject, text.encode()))[1].decode()


@pytest.fixture
def asker() -> type[Asker]:
    return Asker


@pytest.fixture
def dump() -> Callable[[Asker, str], Any]:
    """All datoms of a database, past and present."""

    async def dump(asker: Asker, database: str) -> list[Any]:
        answer = await asker.ask(
            f"{database}.db.datoms", {"index": "eavt", "view": {"history": True}}
        )
        return answer["result"]  # type: ignore[no-any-return]

    return dump

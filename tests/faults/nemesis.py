"""What can go wrong between clients, services and the NATS server; each fault ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

PAUSE_S = 1.5


class Proxy:
    """TCP between services and a server, which can be cut or go silent.

    ``cut``: connections end and new ones are refused.  ``silent``: bytes stay on the way, as when
    packets are lost; they arrive when the silence ends.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._refusing = False

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._server.close()
        self._drop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def cut(self, seconds: float) -> None:
        self._refusing = True
        self._drop()
        await asyncio.sleep(seconds)
        self._refusing = False

    async def silent(self, seconds: float) -> None:
        self._open.clear()
        await asyncio.sleep(seconds)
        self._open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            other, onward = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        for source, target in ((reader, onward), (other, writer)):
            self._writers.add(target)
            task = asyncio.create_task(self._pump(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._open.wait()
                target.write(data)
                await target.drain()
        self._writers.discard(target)
        with contextlib.suppress(OSError, RuntimeError):
            target.close()


class Nemesis:
    """Breaks one thing after the other, by name or by a seed."""

    ACTIONS = (
        *("kill_member", "kill_broker", "pause_member", "pause_broker"),
        *("stop_member", "cut", "silence"),
    )

    def __init__(self, broker: Any, members: list[Any], proxy: Proxy | None, seed: int) -> None:
        self._broker = broker
        self._members = members
        self._proxy = proxy
        self._chance = random.Random(seed)

    def schedule(self, count: int) -> list[str]:
        """Names of ``count`` faults, the same for the same seed."""
        able = [name for name in self.ACTIONS if self._proxy or name not in ("cut", "silence")]
        return [self._chance.choice(able) for _ in range(count)]

    async def run(self, name: str) -> None:
        await getattr(self, name)()

    async def kill_member(self) -> None:
        """kill -9 of a service, started again a moment later."""
        member = self._chance.choice(self._members)
        await asyncio.to_thread(member.kill)
        await asyncio.sleep(self._chance.random())
        await asyncio.to_thread(member.start)

    async def stop_member(self) -> None:
        """SIGTERM, and a new start."""
        member = self._chance.choice(self._members)
        assert await asyncio.to_thread(member.terminate) == 0
        await asyncio.to_thread(member.start)

    async def kill_broker(self) -> None:
        """kill -9 of the NATS server, started again with the same data."""
        await asyncio.to_thread(self._broker.kill)
        await asyncio.sleep(self._chance.random())
        await asyncio.to_thread(self._broker.start)

    async def pause_member(self) -> None:
        """SIGSTOP for longer than a lease holds or for a moment, then SIGCONT."""
        member = self._chance.choice(self._members)
        member.pause()
        await asyncio.sleep(self._chance.choice((0.3, PAUSE_S, 4 * PAUSE_S)))
        member.go_on()

    async def pause_broker(self) -> None:
        self._broker.pause()
        await asyncio.sleep(PAUSE_S)
        self._broker.go_on()

    async def cut(self) -> None:
        assert self._proxy is not None
        await self._proxy.cut(PAUSE_S)

    async def silence(self) -> None:
        assert self._proxy is not None
        await self._proxy.silent(2 * PAUSE_S)

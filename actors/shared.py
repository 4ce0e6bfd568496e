"""Work that many ask for at the same time and that one run does for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Shared:
    """Runs ``work`` one time after the other; whoever asks during a run shares the next one.

    The run that answers began after the question, so that it sees all that happened before it.
    """

    def __init__(self, work: Callable[[], Awaitable[object]]) -> None:
        self._work = work
        self._next: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Wait for a run that begins from now on; raises what it raises."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        waited = self._next
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        await asyncio.shield(waited)

    async def _run(self) -> None:
        try:
            while self._next is not None:
                asked, self._next = self._next, None
                try:
                    await self._work()
                except Exception as error:
                    asked.set_exception(error)
                    asked.exception()  # who asked may be gone
                else:
                    asked.set_result(None)
        finally:
            self._task = None

"""Sending many transactions: many in flight, applied in order, safe to interrupt and repeat."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any, Protocol, TypeVar

from natalog.client.session import RETRYABLE
from natalog.report import TxReport

WINDOW_TRANSACTIONS = 128
"""Transactions that may be on their way at once."""
_RETRIES_MAX = 8
_BACKOFF_S = 0.1


class Item(Protocol):
    """A transaction to send; the id makes sending it again harmless."""

    @property
    def id(self) -> str: ...
    @property
    def tx_data(self) -> list[Any]: ...
    @property
    def tx_meta(self) -> dict[str, Any]: ...


class Target(Protocol):
    """What takes transactions: `natalog.Conn`."""

    async def transact(
        self, tx_data: Any, tx_meta: Any = None, *, id: str | None = None
    ) -> TxReport: ...


I = TypeVar("I", bound=Item)  # noqa: E741


async def pipelined(
    conn: Target, items: Iterator[I], *, window: int = WINDOW_TRANSACTIONS
) -> AsyncIterator[tuple[I, TxReport]]:
    """Transact every item in order and yield each with its report.

    Items are pulled in a thread, so they may come from a slow file or process.  After an error that
    passes, everything from the failed transaction on is sent again in order; their ids keep those
    that had arrived from being applied twice.  Any other error ends the import where it stands.
    """
    flying: deque[tuple[I, asyncio.Task[TxReport]]] = deque()
    exhausted = False
    failures = 0

    def launch(item: I) -> None:
        work = conn.transact(item.tx_data, item.tx_meta, id=item.id)
        flying.append((item, asyncio.ensure_future(work)))

    try:
        while True:
            while not exhausted and len(flying) <= window // 2:
                fresh = await asyncio.to_thread(lambda: list(islice(items, window // 2)))
                exhausted = not fresh
                for item in fresh:
                    launch(item)
            if not flying:
                return
            item, task = flying[0]
            try:
                report = await task
            except RETRYABLE:
                failures += 1
                if failures > _RETRIES_MAX:
                    raise
                await asyncio.gather(*(later for _, later in flying), return_exceptions=True)
                await asyncio.sleep(_BACKOFF_S * failures)
                again = [item for item, _ in flying]
                flying.clear()
                for item in again:
                    launch(item)
                continue
            failures = 0
            flying.popleft()
            yield item, report
    finally:
        for _, task in flying:
            task.cancel()
        await asyncio.gather(*(task for _, task in flying), return_exceptions=True)

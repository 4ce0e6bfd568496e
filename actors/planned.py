"""Merges whose changes are known, on their way through the transactor of their branch.

What was planned holds for one head.  The transactor commits it only on that head; where the head
has moved, whoever planned hears so and plans again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import anyio

from natalog.actors.requests import Request
from natalog.actors.runtime import as_natalog
from natalog.core.errors import NatalogError


@dataclass(frozen=True, slots=True)
class Wish:
    """What a submission asks for; ``parents`` is None unless it is a merge."""

    tx_data: Any
    tx_meta: Any
    ident: str | None
    parents: Any = None


class Planned(Request):
    """A merge that was planned on ``head``; its outcome goes to who planned it, not to NATS.

    ``body``: the report once it is committed.  ``error``: why it was refused.  Neither: the head
    has moved.
    """

    __slots__ = ("_settled", "basis", "error", "head", "report", "wish")

    def __init__(self, request: Request, wish: Wish, head: UUID | None) -> None:
        super().__init__(
            request.port, request.message, request.database, request.branch, request.endpoint
        )
        self.arrived = request.arrived
        self.wish = wish
        self.head = head
        self.report: Any = None
        self.basis: int | None = None
        self.error: NatalogError | None = None
        self._settled = anyio.Event()

    async def settled(self) -> None:
        """Wait for the outcome."""
        await self._settled.wait()

    def moved(self) -> None:
        """The branch has another head than the one that was planned on."""
        self._settle()

    def _settle(self) -> None:
        self.answered = True
        self._settled.set()

    async def reply(self, body: Any, basis: int | None = None) -> None:
        self.report, self.basis = body, basis
        self._settle()

    async def refuse(self, error: BaseException) -> None:
        self.fail(as_natalog(error))

    def fail(self, error: NatalogError) -> None:
        if not self.answered:
            self.error = error
            self._settle()


@dataclass(frozen=True, slots=True)
class Alone:
    """Asks a transactor to wait for a plan and to commit it before anything else."""

    plan: Callable[[], Awaitable[Planned | None]]


__all__ = ["Alone", "Planned", "Wish"]

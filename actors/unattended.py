"""Transactions that nobody waits for: an answer only marks them as answered."""

from __future__ import annotations

from typing import Any

from natalog.core.errors import NatalogError


class Unattended:
    """What a request has that came by itself: no deadline, and nobody to tell."""

    __slots__ = ("answered",)

    answered: bool

    def check_deadline(self) -> None:
        """It waits for ever."""

    async def reply(self, body: Any, basis: int | None = None) -> None:
        self.answered = True

    async def refuse(self, error: BaseException) -> None:
        self.answered = True

    def fail(self, error: NatalogError) -> None:
        self.answered = True

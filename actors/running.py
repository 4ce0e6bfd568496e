"""Reads that are being answered, by the ids under which they can be cancelled.

A read goes by its reply subject, which only its sender knows, and by the ``request_id`` that a
query may give.  Whoever sends ``{request_id}`` to ``.cancel`` ends it: a thread cannot be stopped
from outside, so the read notices at its next step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from natalog.core.errors import BadRequest, QueryCancelled

REQUEST_ID_LENGTH_MAX: Final = 128

Expired = Callable[[], bool]


class Ticket:
    """One read; ``cancelled`` once nobody wants its answer."""

    __slots__ = ("cancelled", "ids")

    def __init__(self) -> None:
        self.cancelled = False
        self.ids: list[str] = []

    def check(self) -> None:
        """Raise `QueryCancelled` once the read was cancelled."""
        if self.cancelled:
            raise QueryCancelled("The query was cancelled.")

    def until(self, deadline: float) -> Expired:
        """For operators: whether ``deadline`` has passed; raises when the read was cancelled."""

        def expired() -> bool:
            self.check()
            return time.monotonic() > deadline

        return expired


class Running:
    """The reads of one process."""

    def __init__(self) -> None:
        self._tickets: dict[str, Ticket] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def open(self, ident: str) -> Ticket:
        """A ticket under the id that every request has; empty for one that wants no answer."""
        ticket = Ticket()
        if ident:
            self._add(ticket, ident)
        return ticket

    def name(self, ticket: Ticket, ident: Any) -> None:
        """Also know a read by the id that its sender chose; `BadRequest` for one in use."""
        if not isinstance(ident, str) or not 0 < len(ident) <= REQUEST_ID_LENGTH_MAX:
            raise BadRequest(
                f"request_id is text of up to {REQUEST_ID_LENGTH_MAX} characters.",
                field="request_id",
            )
        if ident in self._tickets:
            raise BadRequest(f"A read with the id {ident} is running.", request_id=ident)
        self._add(ticket, ident)

    def close(self, ticket: Ticket) -> None:
        """Forget a read that was answered."""
        for ident in ticket.ids:
            del self._tickets[ident]
        ticket.ids.clear()

    def cancel(self, ident: Any) -> bool:
        """Cancel the read of this id; false when there is none here."""
        ticket = self._tickets.get(ident) if isinstance(ident, str) else None
        if ticket is None:
            return False
        ticket.cancelled = True
        return True

    def _add(self, ticket: Ticket, ident: str) -> None:
        if ident not in self._tickets:
            self._tickets[ident] = ticket
            ticket.ids.append(ident)

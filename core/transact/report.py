"""What one transaction did: the value that `process` returns and that listeners receive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from natalog.core.changes import Changes
from natalog.core.values import Datom, Keyword

if TYPE_CHECKING:
    from natalog.core.database import Database


@dataclass(slots=True)  # frozen ones take a microsecond to make
class TxReport:
    """The outcome of one transaction.

    ``datoms``: the transaction entity's first, then in the order of the operations; purged facts
    never appear.  ``tempids``: what was written as a temporary id (strings, negative integers) to
    entity ids, and ``:db/current-tx`` to the transaction.  ``tx_meta``: the caller's with
    ``:db/txInstant``; empty, and ``instant_ms`` None, in a database without history.  ``purged``
    counts the facts that left the history.
    """

    db_before: Database
    db_after: Database
    tx: int
    instant_ms: int | None
    datoms: list[Datom]
    tempids: dict[Any, int]
    tx_meta: dict[Keyword, Any]
    purged: int
    changes: Changes

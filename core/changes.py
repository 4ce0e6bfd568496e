"""What a transaction does to a database, as data: the only thing that `core.apply` takes.

The transactor, followers, replay and speculative transactions all turn a database value into the
next one by applying the same `Changes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from natalog.core.values import Datom, Keyword


@dataclass(frozen=True, slots=True)
class Purge:
    """A fact that leaves the current and the historical indexes.

    ``closed_before_ms`` None removes every interval of the fact (e, attr, value).  A number
    removes only closed intervals, those with a retraction, whose assertion has an instant strictly
    before it (milliseconds since 1970); assertion and retraction go together, so no orphan
    retraction keeps the value.
    """

    e: int
    attr: Keyword
    value: Any
    closed_before_ms: int | None = None


class Block(NamedTuple):
    """Datoms of new entities with the same attributes, one value each, as columns.

    ``start``: the number of the first of these datoms in the transaction; they come entity by
    entity, each with its ``attributes`` in this order.  ``first``: the first entity, the others
    follow it.  ``columns``: the values of each attribute.
    """

    start: int
    first: int
    attributes: tuple[Keyword, ...]
    columns: list[tuple[Any, ...]]

    @property
    def stop(self) -> int:
        """The number of the datom after the last."""
        return self.start + len(self.attributes) * len(self.columns[0])


@dataclass(slots=True)  # frozen ones take a microsecond to make
class Changes:
    """One transaction, expanded: nothing in it needs a function, a schema or a clock to apply.

    ``instant_ms`` is None in a database without history.  ``datoms`` come in the order of the
    report: the transaction entity first, then as the operations made them, the retraction of a
    replaced value before its successor.  ``purges`` apply first, to the database before the
    transaction; no datom contradicts them.  ``max_eid`` is the highest entity id after the
    transaction in the database's lane, None when it does not change.  ``purged``: how many facts
    the transaction purged when it was made; some may be erased since and not be in ``purges``.
    ``blocks``: which of the datoms are known as columns too; none need be.
    """

    tx: int
    instant_ms: int | None
    datoms: list[Datom]
    purges: list[Purge] = field(default_factory=list)
    max_eid: int | None = None
    purged: int = 0
    blocks: Sequence[Block] = ()

"""What is derived from parts of parsed queries, kept as long as these are likely to be asked again.

Parsed queries are immutable and shared (`natalog.core.query.parse` parses equal text once), so what
was found out about one of their parts holds for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from natalog.core.limits import DERIVED_MAX

Part = TypeVar("Part")
Derived = TypeVar("Derived")


_ALL: Final[list[Kept[Any, Any]]] = []


def forget() -> None:
    """Let go of what was derived: after a large query, whose parts would be held with it."""
    for one in _ALL:
        one.clear()


class Kept(Generic[Part, Derived]):
    """``derive(part)`` for parts of queries, by the identity of the part."""

    __slots__ = ("_derive", "_known")

    def __init__(self, derive: Callable[[Part], Derived]) -> None:
        self._derive = derive
        self._known: dict[int, tuple[Part, Derived]] = {}
        _ALL.append(self)

    def clear(self) -> None:
        self._known.clear()

    def __call__(self, part: Part) -> Derived:
        found = self._known.get(id(part))
        if found is not None:
            return found[1]
        made = self._derive(part)
        if len(self._known) >= DERIVED_MAX:
            self._known.clear()
        self._known[id(part)] = (part, made)  # the part is held, so its id stays its own
        return made

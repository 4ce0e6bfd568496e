"""Where segments lie: a shelf for each database, in generations.

Only a whole generation can be removed so that its bytes are gone, so freeing space means copying
what lives into a new one.  A shelf knows nothing of which generation counts; `store` does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Protocol

Segment = tuple[str, bytes]
"""The name of a segment and its bytes."""


class GenerationGone(Exception):
    """The generation was removed: somebody has moved the segments to a new one."""


class Shelf(Protocol):
    """Thread-safe and blocking.  ``kind`` names the place, without secrets."""

    kind: str

    def create(self, generation: int) -> None:
        """Make a generation; one that is there stays as it is."""

    def get(self, generation: int, name: str) -> bytes | None:
        """The bytes of a segment, unverified; None when it is not there."""

    def put_many(self, generation: int, segments: Iterable[Segment]) -> int:
        """Lay segments down, each once; returns the bytes laid.  Raises `GenerationGone`.

        What is there already stays as it is.  Nothing counts before the call returns.
        """

    def names(self, generation: int) -> set[str]:
        """The names of all segments of a generation."""

    def sizes(self, generation: int) -> dict[str, int]:
        """The bytes of every segment of a generation."""

    def discard(self, generation: int, name: str) -> None:
        """Remove one segment, so that it can be laid down again."""

    def copy(self, source: int, target: int, names: Iterable[str]) -> None:
        """Lay segments of one generation into another; those that are missing are left out."""

    def generations(self) -> Mapping[int, int]:
        """Every generation that exists and the bytes it takes."""

    def drop(self, generation: int) -> None:
        """Remove a generation: afterwards none of its bytes are left."""


class MemoryShelf:
    """Segments in this process: they end with it."""

    kind = "memory"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, dict[str, bytes]] = {}

    def create(self, generation: int) -> None:
        with self._lock:
            self._held.setdefault(generation, {})

    def get(self, generation: int, name: str) -> bytes | None:
        return self._held.get(generation, {}).get(name)

    def put_many(self, generation: int, segments: Iterable[Segment]) -> int:
        size = 0
        for name, data in segments:
            with self._lock:
                held = self._held.get(generation)
                if held is None:
                    raise GenerationGone
                if name not in held:
                    held[name] = data
                    size += len(data)
        return size

    def names(self, generation: int) -> set[str]:
        with self._lock:
            return set(self._held.get(generation, ()))

    def sizes(self, generation: int) -> dict[str, int]:
        with self._lock:
            held = self._held.get(generation, {})
            return {name: len(data) for name, data in held.items()}

    def discard(self, generation: int, name: str) -> None:
        with self._lock:
            self._held.get(generation, {}).pop(name, None)

    def copy(self, source: int, target: int, names: Iterable[str]) -> None:
        found = ((name, self.get(source, name)) for name in names)
        self.put_many(target, [(name, data) for name, data in found if data is not None])

    def generations(self) -> Mapping[int, int]:
        with self._lock:
            return {number: sum(map(len, held.values())) for number, held in self._held.items()}

    def drop(self, generation: int) -> None:
        with self._lock:
            self._held.pop(generation, None)

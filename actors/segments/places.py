"""Where the segments and pointers of each database are, as the settings say."""

from __future__ import annotations

from natalog.actors.names import Names
from natalog.actors.pointers import JetStreamPointers, MemoryPointers, Pointers
from natalog.actors.segments.jetstream import JetStreamShelf
from natalog.actors.segments.objects import ObjectShelf, open_store
from natalog.actors.segments.shelf import MemoryShelf, Shelf
from natalog.actors.segments.wire import Wire


class Places:
    """``store``: ``jetstream``, ``memory`` or a URL, as `ServiceConfig.segment_store`.

    Raises `InvalidConfig` for a URL that cannot be used.
    """

    def __init__(self, store: str, wire: Wire, names: Names, *, replicas: int = 1) -> None:
        self._store = store
        self._wire = wire
        self._names = names
        self._replicas = replicas
        self._held: dict[str, tuple[Shelf, Pointers]] = {}
        if "://" in store:
            open_store(store)

    def __call__(self, database: str) -> tuple[Shelf, Pointers]:
        """Those of one database."""
        if self._store == "memory":
            # pointers must not outlive what they point to
            return self._held.setdefault(database, (MemoryShelf(), MemoryPointers()))
        pointers = JetStreamPointers(self._wire, self._names, database, replicas=self._replicas)
        shelf: Shelf
        if self._store == "jetstream":
            shelf = JetStreamShelf(self._wire, self._names, database, replicas=self._replicas)
        else:
            shelf = ObjectShelf(self._store, self._names.prefix, database)
        return shelf, pointers

    def close(self) -> None:
        """Close the connection; blocks."""
        self._wire.close()

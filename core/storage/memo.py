"""What the last snapshot of a lane wrote, so that the next one writes only what is new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from natalog.core.index.pool import ValuePool
from natalog.core.storage.manifest import Table

Bools = NDArray[np.bool_]


class Described(NamedTuple):
    """What a stored `RowTree` is made of."""

    table: Table
    leaves: tuple[str, ...]
    """Names of its leaves, in order; none where the rows are part of the table."""
    chunks: tuple[str, ...]
    """Names of the chunks of its directory."""
    coded: bool
    """Whether its second column holds codes of a pool."""


@dataclass(frozen=True, slots=True, eq=False)
class Memo:
    """Empty for a first snapshot.  Belongs to the database value that was written or loaded.

    A branch may begin with the memo of the line it comes from.  A memo never makes a snapshot
    wrong: what it does not know is written (again), and what it knows of another pool is not used.
    It holds names and no rows, and shares them with the tables.
    """

    pool: ValuePool | None = None
    """The pool whose codes the dictionary is about."""
    used: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))
    """By code a bit, whether a leaf had it."""
    replaced: int = 0
    """Leaves with codes that went since ``used`` was made from all leaves."""
    parts: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """The dictionary: by chunk the names of its parts."""
    purge_horizon: int | None = None
    tables: tuple[Described, ...] = ()
    attributes: tuple[str, ...] = ()
    pieces: Mapping[bytes, str] = field(default_factory=dict)
    """Segments of further tables, by the SHA-256 of what is in them."""

    def names(self) -> set[str]:
        """Every segment that the snapshot needs.  O(leaves)."""
        found = {*self.attributes, *self.pieces.values()}
        for parts in self.parts.values():
            found.update(parts)
        for table in self.tables:
            found.update(table.leaves)
            found.update(table.chunks)
        return found

    def covered(self) -> set[str]:
        """The leaves whose codes are in ``used``.  O(leaves)."""
        found: set[str] = set()
        for table in self.tables:
            if table.coded:
                found.update(table.leaves)
        return found

    def codes(self, size: int) -> Bools:
        """``used`` as flags of at least ``size`` codes."""
        flags = np.zeros(max(size, 8 * len(self.used)), dtype=np.bool_)
        flags[: 8 * len(self.used)] = np.unpackbits(self.used).view(np.bool_)
        return flags

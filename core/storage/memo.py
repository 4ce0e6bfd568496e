"""What the last snapshot of a lane wrote, so that the next one writes only what is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from natalog.core.index.pool import ValuePool
from natalog.core.index.tree import RowTree
from natalog.core.storage.manifest import AttributeTables, Table

Bools = NDArray[np.bool_]


class Described(NamedTuple):
    """A `RowTree` that was written: its table, and the names of all segments that it needs."""

    table: Table
    leaves: tuple[str, ...]
    chunks: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Memo:
    """Empty for a first snapshot.  Belongs to the database value that was written or loaded.

    A branch may begin with the memo of the line it comes from.  A memo never makes a snapshot
    wrong: what it does not know is written (again), what it knows of another pool is not used.
    """

    pool: ValuePool | None = None
    """The pool whose codes the dictionary is about."""
    used: Bools = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    """By code, whether a leaf had it."""
    covered: frozenset[str] = frozenset()
    """Leaves whose codes are in ``used``."""
    replaced: int = 0
    """Leaves that were covered and are no more, since ``used`` was made from all leaves."""
    parts: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    purge_horizon: int | None = None
    trees: WeakKeyDictionary[RowTree, Described] = field(default_factory=WeakKeyDictionary)
    groups: Sequence[tuple[tuple[AttributeTables, ...], str]] = ()
    pieces: Mapping[bytes, str] = field(default_factory=dict)
    """Segments of further tables, by the SHA-256 of what is in them."""
    names: frozenset[str] = frozenset()
    """Every segment that the snapshot needs."""

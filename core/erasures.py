"""What erasures have done to the logs of a database, as data.  ``docs/log_format.md`` is the law.

The `Root` is one small message: it replaces the one before it, and with it an erasure happens in
all logs at once.  It names a `Table` for each log that lost something: which blocks are to be read
from a redacted copy, and which commits can no longer be told.  Tables and copies are *pieces*,
named by the SHA-256 of their bytes; what does not fit one message is several pieces.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NoReturn

from natalog.core.chain import HASH_BYTES
from natalog.core.codec import pack, unpack
from natalog.core.errors import LogCorrupt, NatalogError

ROOT_VERSION: Final = 1
TABLE_VERSION: Final = 1

Ranges = tuple[tuple[int, int], ...]
"""Numbers as ranges with both ends."""
Pieces = tuple[bytes, ...]
"""Names of the pieces that make up some bytes."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A redacted copy: the hash of the original block, and the pieces of the copy."""

    hash: bytes
    pieces: Pieces


@dataclass(frozen=True, slots=True)
class Table:
    """What one log lost.

    ``copies``: by sequence number.  ``untold``: transactions of the commits whose values the log no
    longer tells.  ``digested``: block and entry of each id that was replaced by a digest.
    """

    copies: Mapping[int, Copy] = field(default_factory=dict)
    untold: Ranges = ()
    digested: tuple[tuple[int, int], ...] = ()

    def tells(self, tx: int) -> bool:
        """Whether the value of the commit of a transaction can still be told."""
        return not within(self.untold, tx)

    def encode(self) -> bytes:
        copies = [[seq, c.hash, list(c.pieces)] for seq, c in sorted(self.copies.items())]
        untold, digested = [list(r) for r in self.untold], [list(d) for d in self.digested]
        return pack([TABLE_VERSION, copies, untold, digested])

    @classmethod
    def decode(cls, data: bytes) -> Table:
        """The table of its bytes; `LogCorrupt` when they are none."""
        try:
            version, copies, untold, digested = unpack(data)
            if version != TABLE_VERSION:
                _corrupt(f"a table of erasures of version {version!r}")
            found = {
                int(seq): Copy(_digest(own), tuple(map(_digest, pieces)))
                for seq, own, pieces in copies
            }
            return cls(
                found,
                tuple((int(a), int(b)) for a, b in untold),
                tuple((int(a), int(b)) for a, b in digested),
            )
        except (NatalogError, TypeError, ValueError) as error:
            if isinstance(error, LogCorrupt):
                raise
            _corrupt("a malformed table of erasures")


@dataclass(frozen=True, slots=True)
class Root:
    """Where everything is.

    ``epoch`` counts erasures.  ``barred``: by lane, transactions of commits at which no branch may
    begin while an erasure is about to happen.  ``pending``: what is known of an erasure that
    happened and of which not everything is cleared away yet; free of values.
    """

    epoch: int = 0
    tables: Mapping[int, Pieces] = field(default_factory=dict)
    barred: Mapping[int, Ranges] = field(default_factory=dict)
    pending: Mapping[str, Any] | None = None

    def encode(self) -> bytes:
        tables = {lane: list(pieces) for lane, pieces in sorted(self.tables.items())}
        barred = {lane: [list(r) for r in ranges] for lane, ranges in sorted(self.barred.items())}
        pending = None if self.pending is None else dict(self.pending)
        return pack([ROOT_VERSION, self.epoch, tables, barred, pending])

    @classmethod
    def decode(cls, data: bytes) -> Root:
        """The root of its bytes; `LogCorrupt` when they are none."""
        try:
            version, epoch, tables, barred, pending = unpack(data)
            if version != ROOT_VERSION:
                _corrupt(f"an index of erasures of version {version!r}")
            return cls(
                int(epoch),
                {int(lane): tuple(map(_digest, pieces)) for lane, pieces in tables.items()},
                {
                    int(lane): tuple((int(a), int(b)) for a, b in ranges)
                    for lane, ranges in barred.items()
                },
                None if pending is None else {str(key): v for key, v in pending.items()},
            )
        except (NatalogError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, LogCorrupt):
                raise
            _corrupt("a malformed index of erasures")


# --- pieces --------------------------------------------------------------------------------------


def cut(data: bytes, room: int) -> list[tuple[bytes, bytes]]:
    """Name and bytes of the pieces, of at most ``room`` bytes, that make up ``data``."""
    found = []
    for at in range(0, max(len(data), 1), room):
        piece = data[at : at + room]
        found.append((sha256(piece).digest(), piece))
    return found


def checked(name: bytes, piece: bytes) -> bytes:
    """The piece itself; `LogCorrupt` when its bytes are not those of its name."""
    if sha256(piece).digest() != name:
        _corrupt(f"a piece {name.hex()} with other bytes than it was named for")
    return piece


# --- ranges --------------------------------------------------------------------------------------


def within(ranges: Ranges, number: int) -> bool:
    """Whether a number is in one of the ranges.  O(log n)."""
    at = bisect_right(ranges, (number, 2**62)) - 1
    return at >= 0 and ranges[at][0] <= number <= ranges[at][1]


def ranges_of(numbers: Iterable[int]) -> Ranges:
    """Ascending numbers as ranges.

    >>> ranges_of([1, 2, 3, 7])
    ((1, 3), (7, 7))
    """
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] >= number - 1:
            found[-1] = (found[-1][0], max(number, found[-1][1]))
        else:
            found.append((number, number))
    return tuple(found)


def joined(left: Ranges, right: Ranges) -> Ranges:
    """The ranges that hold what either side holds.

    >>> joined(((1, 3), (7, 7)), ((3, 5),))
    ((1, 5), (7, 7))
    """
    found: list[tuple[int, int]] = []
    for first, last in sorted((*left, *right)):
        if found and found[-1][1] >= first - 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def _digest(name: Any) -> bytes:
    if type(name) is not bytes or len(name) != HASH_BYTES:
        _corrupt("a name that is no SHA-256")
    return name


def _corrupt(what: str) -> NoReturn:
    raise LogCorrupt(f"The redactions hold {what}.")


__all__ = [
    "Copy",
    "Pieces",
    "Ranges",
    "Root",
    "Table",
    "checked",
    "cut",
    "joined",
    "ranges_of",
    "within",
]

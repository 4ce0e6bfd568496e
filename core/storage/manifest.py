"""The manifest of a snapshot, and the tables of attributes that it names.

A manifest names everything that a database value is made of; what it names names the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from natalog.core.codec import pack, unpack
from natalog.core.errors import NatalogError, SegmentCorrupt
from natalog.core.storage.leaves import unpack_directory
from natalog.core.storage.segment import (
    ATTRIBUTES,
    DIRECTORY,
    MANIFEST,
    names_bytes,
    names_in,
    opened,
    sealed,
    verified,
)

INLINE_ROWS: Final = 32
"""A table of so few rows stands in the table of attributes itself."""
INLINE_LEAVES: Final = 8
"""So does the directory of a table of so few leaves."""
GROUP_ATTRIBUTES: Final = 64
"""Attributes that share one segment, in the order in which the database has them."""
PIECE_BYTES: Final = 256 * 1024
"""Further tables are cut into pieces of this size (before compression)."""
INLINE_BYTES: Final = 1024
"""A further table of so few bytes stands in the manifest."""

ROWS, DIRECT, CHUNKED = range(3)
"""Forms of a table: its rows, its directory, or the names of its directory's chunks."""


class Table(NamedTuple):
    """Where the rows of a `RowTree` are."""

    rows: int
    open: int
    form: int
    body: bytes
    """An unsealed leaf, an unsealed directory, or names of directory chunks."""

    @property
    def chunks(self) -> list[str]:
        """The names of the directory's chunks."""
        return names_in(self.body) if self.form == CHUNKED else []


class AttributeTables(NamedTuple):
    """The index of one attribute."""

    attr: str
    """Its name, without the colon."""
    kind: str
    aevt: Table
    avet: Table | None


def pack_attributes(attributes: Sequence[AttributeTables]) -> bytes:
    """The body of a segment of attributes."""
    return pack(
        [
            [attr, kind, list(aevt), None if avet is None else list(avet)]
            for attr, kind, aevt, avet in attributes
        ]
    )


def unpack_attributes(body: bytes) -> list[AttributeTables]:
    """The attributes of `pack_attributes`; `SegmentCorrupt` for bytes that are none."""
    with Reading("A table of attributes"):
        return [
            AttributeTables(attr, kind, Table(*aevt), None if avet is None else Table(*avet))
            for attr, kind, aevt, avet in unpack(body)
        ]


class Further(NamedTuple):
    """A further table of bytes: as it is, or in pieces."""

    inline: bytes | None
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The fields of a database value, and the names of its parts."""

    config: Mapping[str, Any]
    lane: int
    max_tx: int
    max_eid: int
    instant_ms: int | None
    latest_ms: int | None
    monotonic: bool
    commit_id: UUID | None
    purge_horizon: int | None
    entities: Table
    attributes: tuple[str, ...]
    """Segments of attributes, in the order in which the database has them."""
    dictionary: Mapping[int, tuple[str, ...]]
    """By chunk the names of its parts."""
    schema: Further
    extra: Mapping[str, Further]

    def encode(self) -> bytes:
        """The manifest as a segment."""
        body = {
            "config": dict(self.config),
            "lane": self.lane,
            "max-tx": self.max_tx,
            "max-eid": self.max_eid,
            "instant": self.instant_ms,
            "latest": self.latest_ms,
            "monotonic": self.monotonic,
            "commit": None if self.commit_id is None else self.commit_id.bytes,
            "purge-horizon": self.purge_horizon,
            "entities": list(self.entities),
            "attributes": names_bytes(self.attributes),
            "dictionary": [[k, names_bytes(names)] for k, names in self.dictionary.items()],
            "schema": _further(self.schema),
            "extra": {name: _further(further) for name, further in self.extra.items()},
        }
        return sealed(MANIFEST, pack(body))

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """The manifest of a segment; `SegmentCorrupt` when it is none."""
        body = opened(MANIFEST, data)
        with Reading("A manifest"):
            held = unpack(body)
            commit = held["commit"]
            return cls(
                config=held["config"],
                lane=held["lane"],
                max_tx=held["max-tx"],
                max_eid=held["max-eid"],
                instant_ms=held["instant"],
                latest_ms=held["latest"],
                monotonic=held["monotonic"],
                commit_id=None if commit is None else UUID(bytes=commit),
                purge_horizon=held["purge-horizon"],
                entities=Table(*held["entities"]),
                attributes=tuple(names_in(held["attributes"])),
                dictionary={k: tuple(names_in(names)) for k, names in held["dictionary"]},
                schema=_read_further(held["schema"]),
                extra={name: _read_further(f) for name, f in held["extra"].items()},
            )


def reachable(
    manifest: bytes, read: Callable[[str], bytes], seen: set[str] | None = None
) -> set[str]:
    """The names of all segments that a manifest needs, without its own.

    ``read`` gets the bytes of a segment and is called for directories only, never for leaves or
    values.  ``seen``: names found before, with all that they need; they are not read again, and
    the new ones are added to the set, which is what is returned.  Raises `SegmentCorrupt`, and
    what ``read`` raises.
    """
    found: set[str] = set() if seen is None else seen
    top = Manifest.decode(manifest)
    for names in (*top.dictionary.values(), top.schema.pieces):
        found.update(names)
    for further in top.extra.values():
        found.update(further.pieces)
    tables = [top.entities]
    for name in top.attributes:
        if name not in found:
            attributes = unpack_attributes(opened(ATTRIBUTES, verified(name, read(name))))
            tables += [table for one in attributes for table in one[2:] if table is not None]
    for table in tables:
        found.update(_leaves_of(table, read, found))
    found.update(top.attributes)  # last: what was cut short by an error is not taken for complete
    return found


def _leaves_of(table: Table, read: Callable[[str], bytes], found: set[str]) -> Iterator[str]:
    if table.form == DIRECT:
        yield from (entry.name for entry in unpack_directory(table.body))
    for name in table.chunks:
        if name not in found:
            body = opened(DIRECTORY, verified(name, read(name)))
            yield from (entry.name for entry in unpack_directory(body))
            yield name


def _further(further: Further) -> bytes | list[bytes]:
    return [names_bytes(further.pieces)] if further.inline is None else further.inline


def _read_further(held: Any) -> Further:
    return Further(None, tuple(names_in(held[0]))) if type(held) is list else Further(held)


class Reading:
    """Whatever bytes of the right frame but the wrong shape raise becomes `SegmentCorrupt`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, SegmentCorrupt):
            return
        if isinstance(error, (NatalogError, TypeError, ValueError, KeyError, AttributeError)):
            raise SegmentCorrupt(f"{self._what} that cannot be read: {error}") from error

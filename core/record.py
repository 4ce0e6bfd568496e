"""What the log holds: records of commits, packed into blocks.  ``docs/log_format.md`` is the law.

A record describes one commit: expanded datoms (replaying it runs no function), tempids, tx-meta,
parents.  Purged facts are named by their place, never by their value.  A block is the unit of an
append: the records of the transactions that were committed together, and the hash of the block
before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn
from uuid import UUID

import msgpack

from natalog.core.chain import FIRST_HASH, HASH_BYTES, block_hash, commit_id
from natalog.core.changes import Changes, Purge
from natalog.core.codec import pack, unpack
from natalog.core.errors import LogCorrupt, NatalogError
from natalog.core.values import Datom, Keyword, sort_key, value_key

if TYPE_CHECKING:
    from natalog.core.database import Database

BLOCK_VERSION: Final = 1
RECORD_VERSION: Final = 1

ENTRY_COMMIT: Final = 1
ENTRY_REJECTION: Final = 2

KINDS: Final = ("genesis", "transaction", "branch", "force", "merge", "deleted", "recovered")
"""Kinds of records; their places are their numbers, for ever."""
COMMIT_KINDS: Final = frozenset({"genesis", "transaction", "force", "merge", "recovered"})
"""Kinds of records that are commits; the others begin or end the log of a branch."""


@dataclass(frozen=True, slots=True)
class PurgeRef:
    """A purged fact without its value.

    ``place`` counts the distinct values that (e, attr) ever had before the transaction, in index
    order, from 0; a negative one, -1 - i, is the value of datom i of the same record.
    """

    e: int
    attr: Keyword
    place: int
    closed_before_ms: int | None = None


@dataclass(slots=True)  # frozen ones take microseconds to make
class TxRecord:
    """One commit, or the beginning or end of a branch.

    ``tx``: the transaction id, of a genesis the id that stands before the first transaction, of a
    ``branch``, ``force`` or ``deleted`` the newest transaction of the value that the log begins or
    ends with.  ``parents``: commit ids, the branch's own head first.  ``id``: the producer's
    transaction id.  ``tx_meta`` is without ``:db/txInstant``, which is ``instant_ms``.
    ``config``: settings of the database, in a genesis; of a ``branch`` or ``force`` where it
    begins, of a ``deleted`` what follows, of a ``recovered`` which blocks were lost.  ``purged``:
    how many facts the purges removed.
    """

    kind: str
    tx: int
    instant_ms: int | None
    lane: int = 0
    max_eid: int | None = None
    parents: tuple[UUID, ...] = ()
    datoms: Sequence[Datom] = ()
    purges: Sequence[PurgeRef] = ()
    tempids: Mapping[Any, int] = field(default_factory=dict)
    tx_meta: Mapping[Any, Any] = field(default_factory=dict)
    id: str | None = None
    config: Mapping[str, Any] | None = None
    purged: int = 0

    def encode(self) -> bytes:
        """The bytes of the record; `CodecError` for values that have no encoding."""
        attrs: dict[Keyword, int] = {}
        entities: list[int] = []
        places: list[int] = []
        values: list[Any] = []
        flags = bytearray()
        for e, a, v, tx, added in self.datoms:
            if tx != self.tx:
                raise ValueError(f"a datom of transaction {tx} in the record of {self.tx}")
            entities.append(e)
            places.append(attrs.setdefault(a, len(attrs)))
            values.append(v)
            flags.append(added)
        purges = [
            [p.e, attrs.setdefault(p.attr, len(attrs)), p.place, p.closed_before_ms]
            for p in self.purges
        ]
        return pack(
            [
                RECORD_VERSION,
                KINDS.index(self.kind),
                self.tx,
                self.instant_ms,
                self.lane,
                self.max_eid,
                [parent.bytes for parent in self.parents],
                [attr.text for attr in attrs],
                entities,
                places,
                values,
                bytes(flags) if 0 in flags else None,
                purges,
                dict(self.tempids),
                dict(self.tx_meta),
                self.id,
                None if self.config is None else dict(self.config),
                self.purged,
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> TxRecord:
        """The record of its bytes; `LogCorrupt` when they are none."""
        try:
            fields = unpack(data)
            if fields[0] != RECORD_VERSION:
                _corrupt(f"a record of version {fields[0]!r}")
            (kind, tx, instant_ms, lane, max_eid, parents, attrs, *columns) = fields[1:]
            entities, places, values, flags, purges, *rest = columns
            tempids, tx_meta, ident, config, purged = rest
            keywords = [Keyword(":" + text) for text in attrs]
            added = map(bool, flags) if flags is not None else (True for _ in entities)
            return cls(
                kind=KINDS[kind],
                tx=tx,
                instant_ms=instant_ms,
                lane=lane,
                max_eid=max_eid,
                parents=tuple(UUID(bytes=parent) for parent in parents),
                datoms=[
                    Datom(e, keywords[place], as_value(v), tx, flag)
                    for e, place, v, flag in zip(entities, places, values, added, strict=True)
                ],
                purges=[
                    PurgeRef(e, keywords[place], spot, before) for e, place, spot, before in purges
                ],
                tempids=tempids,
                tx_meta={key: as_value(value) for key, value in tx_meta.items()},
                id=ident,
                config=config,
                purged=purged,
            )
        except NatalogError as error:
            if isinstance(error, LogCorrupt):
                raise
            _corrupt(f"a record that cannot be read: {error.message}")
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            _corrupt(f"a malformed record: {error}")

    @property
    def is_commit(self) -> bool:
        """Whether this is a commit, and not the beginning or end of a branch."""
        return self.kind in COMMIT_KINDS

    @property
    def successor(self) -> int | None:
        """The lane that a ``deleted`` record says the branch's name moved to."""
        lane = (self.config or {}).get("successor")
        return None if lane is None else int(lane)

    def changes(self, before: Database) -> Changes:
        """What `core.apply` takes to make the value after this record from that before it."""
        return Changes(
            tx=self.tx,
            instant_ms=self.instant_ms,
            datoms=list(self.datoms),
            purges=purge_values(before, self.datoms, self.purges),
            max_eid=self.max_eid,
            purged=self.purged,
        )


def peek(data: bytes) -> tuple[str, int, tuple[bytes, ...]]:
    """Kind, transaction id and parents of the bytes of a record, without reading its datoms."""
    try:
        unpacker = msgpack.Unpacker(max_buffer_size=0, max_array_len=len(data))
        unpacker.feed(data)
        unpacker.read_array_header()
        version, kind, tx, _, _, _, parents = (unpacker.unpack() for _ in range(7))
        if version != RECORD_VERSION:
            _corrupt(f"a record of version {version!r}")
        return KINDS[kind], int(tx), tuple(map(bytes, parents))
    except LogCorrupt:
        raise
    except Exception as error:
        _corrupt(f"a malformed record: {error}")


def as_value(decoded: Any) -> Any:
    """A decoded value as databases hold it: sequences are tuples."""
    if type(decoded) is list:
        return tuple(map(as_value, decoded))
    return decoded


# --- purges ------------------------------------------------------------------------------------


def purge_refs(
    before: Database, datoms: Sequence[Datom], purges: Sequence[Purge]
) -> list[PurgeRef]:
    """Name purged facts by their places; facts that exist nowhere are left out.

    ``before`` is the value before the transaction, ``datoms`` the transaction's own.
    """
    found: list[PurgeRef] = []
    history = before.history() if purges else before
    for purge in purges:
        wanted = value_key(purge.value)
        keys = [value_key(value) for value in _ever(history, purge.e, purge.attr)]
        if wanted in keys:
            place = keys.index(wanted)
        else:
            for spot, datom in enumerate(datoms):
                same = datom.e == purge.e and datom.a is purge.attr
                if same and value_key(datom.v) == wanted:
                    place = -1 - spot
                    break
            else:
                continue
        found.append(PurgeRef(purge.e, purge.attr, place, purge.closed_before_ms))
    return found


def purge_values(
    before: Database, datoms: Sequence[Datom], refs: Sequence[PurgeRef]
) -> list[Purge]:
    """The inverse of `purge_refs`; `LogCorrupt` for a place that does not exist."""
    found: list[Purge] = []
    history = before.history() if refs else before
    for ref in refs:
        if ref.place < 0:
            values: Sequence[Any] = [datom.v for datom in datoms]
            place = -1 - ref.place
        else:
            values = _ever(history, ref.e, ref.attr)
            place = ref.place
        if place >= len(values):
            _corrupt(f"a purge of value {place} of {ref.attr} of entity {ref.e}")
        found.append(Purge(ref.e, ref.attr, values[place], ref.closed_before_ms))
    return found


def _ever(history: Database, e: int, attr: Keyword) -> list[Any]:
    """The distinct values that (e, attr) ever had, in an order that every replay finds again."""
    distinct = {value_key(value): value for value in history.values(e, attr)}
    return sorted(distinct.values(), key=lambda value: (sort_key(value), type(value).__name__))


# --- blocks --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rejection:
    """An ingested transaction that was refused: kept so that it is refused once, for ever."""

    id: str | None
    error_code: str
    error_type: str | None

    def encode(self) -> bytes:
        return pack([self.id, self.error_code, self.error_type])

    @classmethod
    def decode(cls, data: bytes) -> Rejection:
        try:
            ident, code, kind = unpack(data)
        except (NatalogError, TypeError, ValueError) as error:
            _corrupt(f"a malformed rejection: {error}")
        return cls(ident, code, kind)


@dataclass(slots=True)
class Entry:
    """One entry of a block: the bytes of a record or rejection.

    ``ingest_seq``: the place in the ingest stream that it answers, None for a request.
    ``original``: of an entry from which facts were erased, the id of the commit as it was written;
    ``erased``: how many of its datoms are gone.
    """

    type: int
    data: bytes
    ingest_seq: int | None = None
    original: UUID | None = None
    erased: int = 0

    @property
    def commit_id(self) -> UUID:
        """The id of the commit that the record describes."""
        return commit_id(self.data) if self.original is None else self.original


@dataclass(frozen=True, slots=True)
class Block:
    """A decoded block; ``hash`` is its own, ``previous`` that of the block before it."""

    previous: bytes
    entries: tuple[Entry, ...]
    hash: bytes


def encode_block(previous: bytes, entries: Sequence[Entry]) -> bytes:
    """The bytes of a block that follows the block with hash ``previous``."""
    if len(previous) != HASH_BYTES:
        raise ValueError(f"a hash has {HASH_BYTES} bytes, not {len(previous)}")
    return pack(
        [BLOCK_VERSION, previous, [[entry.type, entry.ingest_seq, entry.data] for entry in entries]]
    )


def decode_block(data: bytes, previous: bytes | None = None) -> Block:
    """The block of its bytes; `LogCorrupt` when they are none or do not follow ``previous``."""
    try:
        version, before, listed = unpack(data)
        if version != BLOCK_VERSION:
            _corrupt(f"a block of version {version!r}")
        entries = tuple(Entry(kind, raw, seq) for kind, seq, raw in listed)
    except LogCorrupt:
        raise
    except (NatalogError, TypeError, ValueError) as error:
        _corrupt(f"a malformed block: {error}")
    if type(before) is not bytes or len(before) != HASH_BYTES:
        _corrupt("a block without the hash of the block before it")
    for entry in entries:
        if entry.type not in (ENTRY_COMMIT, ENTRY_REJECTION) or type(entry.data) is not bytes:
            _corrupt(f"an entry of type {entry.type!r}")
    if previous is not None and before != previous:
        _corrupt(
            "a block that does not follow the one before it: the hash chain is broken",
            expected=previous.hex(),
            found=before.hex(),
        )
    return Block(before, entries, block_hash(data))


def _corrupt(what: str, **data: Any) -> NoReturn:
    raise LogCorrupt(f"The log holds {what}.", **data)


__all__ = [
    "COMMIT_KINDS",
    "ENTRY_COMMIT",
    "ENTRY_REJECTION",
    "FIRST_HASH",
    "KINDS",
    "Block",
    "Entry",
    "PurgeRef",
    "Rejection",
    "TxRecord",
    "as_value",
    "decode_block",
    "encode_block",
    "peek",
    "purge_refs",
    "purge_values",
]

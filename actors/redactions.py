"""Redacted copies of blocks, where a reader of logs finds them, and who puts them there.

One stream for each database that something was erased from.  The message on
``natalog.<db>._.redactions`` is the `Root`; replacing it by compare-and-set is what makes an
erasure happen.  Everything else in the stream is named by the hash of its bytes.  Without an
erasure there is no stream, and a log costs one request more to open.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import anyio

from natalog.actors.names import Names
from natalog.actors.nats_port import WRONG_LAST_SEQUENCE, JetStreamError, NatsPort, seconds
from natalog.core.erasures import Copy, Pieces, Root, Table, checked, cut, within
from natalog.core.errors import DeadlineExceeded, ErasureRefused, LogCorrupt, Unavailable
from natalog.core.redacted import RedactedBlock, decode_redacted

log = logging.getLogger("natalog.redactions")

EMPTY: Final = Table()
IN_FLIGHT: Final = 32
"""Copies that are read or written at once."""
START_ATTEMPTS: Final = 50
START_PAUSE_S: Final = 0.02
TABLES_KEPT_MAX: Final = 256
BAR_S: Final = 10.0
"""An erasure takes less time than this between barring commits and happening."""


@dataclass(frozen=True, slots=True)
class Index:
    """What erasures have done to a database, as one reader saw it.

    ``version``: sequence of the root in its stream, 0 without one; ``stored_s``: when it was put
    there, in seconds since 1970.
    """

    database: str
    version: int = 0
    root: Root = field(default_factory=Root)
    stored_s: float = 0.0

    @property
    def epoch(self) -> int:
        return self.root.epoch

    @property
    def age_s(self) -> float:
        """How long ago the root was put there."""
        return time.time() - self.stored_s

    def barred(self, lane: int, tx: int) -> bool:
        """Whether an erasure is about to take the value of a commit.

        One that was cut short bars nothing after a while.
        """
        if self.age_s > BAR_S:
            return False
        return within(self.root.barred.get(lane, ()), tx)


class Redactions:
    """The redactions of every database, as this process knows them.

    ``on_erased`` is called with a database when one is noticed that happened meanwhile, before
    anything is read by it.
    """

    def __init__(self, port: NatsPort, names: Names, *, replicas: int = 1) -> None:
        self._port = port
        self._names = names
        self._replicas = replicas
        self._seen: dict[str, Index] = {}
        self._tables: OrderedDict[Pieces, Table] = OrderedDict()
        self.on_erased: list[Callable[[Index], None]] = []

    # --- reading -----------------------------------------------------------------------------

    async def index(self, database: str, *, surely: bool = False) -> Index:
        """What erasures have done up to now; one request, two the first time.

        ``surely``: it must be known whether there was one.  That nobody answers means that there is
        no stream, but for a server that is starting: so the first time it is asked for.
        """
        surely = surely or database not in self._seen or self._port.replicated
        stream, subject = self._names.redactions_stream(database), self._names.redactions(database)
        for attempt in range(START_ATTEMPTS):
            try:
                message = await self._port.read(stream, last_by_subject=subject)
                break
            except Unavailable:
                # no stream; or one that does not answer yet, after a restart of the server
                if not surely and not self._known(database) and self._port.is_connected:
                    return self._noticed(Index(database))
                if await self._port.stream_info(stream) is None:
                    return self._noticed(Index(database))
                if attempt + 1 == START_ATTEMPTS:
                    raise
                await anyio.sleep(START_PAUSE_S)
        if message is None:
            return self._noticed(Index(database))
        headers = message.headers or {}
        version = int(headers["Nats-Sequence"])
        seen = self._seen.get(database)
        if seen is not None and seen.version == version:
            return seen
        stored_s = seconds(headers.get("Nats-Time-Stamp"))
        return self._noticed(Index(database, version, Root.decode(message.data), stored_s))

    def _known(self, database: str) -> bool:
        seen = self._seen.get(database)
        return seen is not None and seen.version > 0

    def _noticed(self, index: Index) -> Index:
        seen = self._seen.get(index.database)
        self._seen[index.database] = index
        if index.epoch != (0 if seen is None else seen.epoch):
            for hook in self.on_erased:
                hook(index)
        return index

    def forget(self, database: str) -> None:
        """Drop what is known of a database that is gone."""
        self._seen.pop(database, None)

    async def table(self, index: Index, lane: int) -> Table:
        """What one log lost."""
        pieces = index.root.tables.get(lane)
        if pieces is None:
            return EMPTY
        found = self._tables.get(pieces)
        if found is None:
            found = Table.decode(await self._joined(index.database, pieces))
            self._tables[pieces] = found
            if len(self._tables) > TABLES_KEPT_MAX:
                self._tables.popitem(last=False)
        return found

    async def copy(self, database: str, copy: Copy) -> tuple[RedactedBlock, int]:
        """The block that a copy holds, and its size in bytes."""
        data = await self._joined(database, copy.pieces)
        redacted = decode_redacted(data)
        if redacted.block.hash != copy.hash:
            raise LogCorrupt(f"A redacted copy in {database} is of another block.")
        return redacted, len(data)

    async def copies(
        self, database: str, wanted: Mapping[int, Copy]
    ) -> dict[int, tuple[RedactedBlock, int]]:
        """Several copies, by sequence."""
        found: dict[int, tuple[RedactedBlock, int]] = {}
        items = list(wanted.items())
        for at in range(0, len(items), IN_FLIGHT):
            some = items[at : at + IN_FLIGHT]
            read = await asyncio.gather(*(self.copy(database, copy) for _, copy in some))
            found.update(zip((seq for seq, _ in some), read, strict=True))
        return found

    async def _joined(self, database: str, pieces: Pieces) -> bytes:
        parts = [await self._piece(database, name) for name in pieces]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _piece(self, database: str, name: bytes) -> bytes:
        stream = self._names.redactions_stream(database)
        subject = self._names.redaction(database, name.hex())
        message = await self._port.read(stream, last_by_subject=subject)
        if message is None:
            raise LogCorrupt(
                f"The redactions of {database} lack the piece {name.hex()}.",
                database=database,
                piece=name.hex(),
            )
        return checked(name, message.data)

    # --- writing -----------------------------------------------------------------------------

    async def prepare(self, database: str) -> None:
        """See that there is a stream, and that it answers."""
        stream = self._names.redactions_stream(database)
        await self._port.stream_create(
            {
                "name": stream,
                "subjects": [
                    self._names.redactions(database),
                    self._names.redaction(database, "*"),
                    self._names.erasure(database, "*"),
                ],
                "storage": "file",
                "retention": "limits",
                "discard": "old",
                "num_replicas": self._replicas,
                "allow_direct": True,
                "duplicate_window": 120_000_000_000,
            }
        )
        for attempt in range(START_ATTEMPTS):
            try:
                await self._port.read(stream, last_by_subject=self._names.redactions(database))
                return
            except Unavailable:
                if attempt + 1 == START_ATTEMPTS:
                    raise
                await anyio.sleep(START_PAUSE_S)

    async def put(self, database: str, many: Iterable[bytes]) -> list[Pieces]:
        """Store copies or tables; their pieces, in order."""
        found: list[Pieces] = []
        waiting: list[tuple[bytes, bytes]] = []
        for data in many:
            pieces = cut(data, self._port.payload_room - 1024)
            found.append(tuple(name for name, _ in pieces))
            waiting += pieces
            if len(waiting) >= IN_FLIGHT:
                await self._put(database, waiting)
                waiting = []
        await self._put(database, waiting)
        return found

    async def _put(self, database: str, pieces: Iterable[tuple[bytes, bytes]]) -> None:
        await asyncio.gather(*(self._put_piece(database, *piece) for piece in pieces))

    async def _put_piece(self, database: str, name: bytes, piece: bytes) -> None:
        await self.put_once(database, self._names.redaction(database, name.hex()), piece)

    async def put_once(self, database: str, subject: str, data: bytes) -> None:
        """Store a message on a subject that nobody uses otherwise.

        A second one on it would leave bytes of the first behind, so it is refused; that it is there
        already is no error.
        """
        stream = self._names.redactions_stream(database)
        for attempt in range(START_ATTEMPTS):
            try:
                await self._port.append(
                    subject, data, expected_last_of_subject=0, stream=stream, timeout_s=15
                )
                return
            except JetStreamError as error:
                if error.err_code == WRONG_LAST_SEQUENCE:
                    return
                raise
            except (DeadlineExceeded, Unavailable):
                if attempt + 1 == START_ATTEMPTS:
                    raise
                await anyio.sleep(START_PAUSE_S)

    async def replace(self, index: Index, root: Root) -> Index:
        """Put a root in the place of that of ``index``: the moment in which an erasure happens.

        `ErasureRefused` when somebody else has replaced it.
        """
        database, data = index.database, root.encode()
        for attempt in range(START_ATTEMPTS):
            try:
                await self._port.append(
                    self._names.redactions(database),
                    data,
                    expected_last_of_subject=index.version,
                    stream=self._names.redactions_stream(database),
                )
            except (DeadlineExceeded, Unavailable):
                if attempt + 1 == START_ATTEMPTS:
                    raise
                await anyio.sleep(START_PAUSE_S)
            except JetStreamError as error:
                if error.err_code != WRONG_LAST_SEQUENCE:
                    raise
            # the receipt may have been lost: what stands there decides
            found = await self.index(database, surely=True)
            if found.version > index.version and found.root == root:
                return found
            if found.version != index.version:
                raise ErasureRefused(
                    f"Another erasure of {database} came first; nothing was erased.",
                    database=database,
                )
        raise AssertionError("unreachable")

    async def sweep(self, index: Index) -> int:
        """Erase pieces that the root no longer names; how many there were."""
        keep = {piece.hex() for pieces in index.root.tables.values() for piece in pieces}
        for lane in index.root.tables:
            for copy in (await self.table(index, lane)).copies.values():
                keep.update(piece.hex() for piece in copy.pieces)
        stream = self._names.redactions_stream(index.database)
        prefix = self._names.redaction(index.database, "")
        gone = 0
        for subject in await self._port.subjects(stream, f"{prefix}*"):
            if subject[len(prefix) :] in keep:
                continue
            message = await self._port.read(stream, last_by_subject=subject)
            if message is not None:
                await self._port.erase(stream, int((message.headers or {})["Nats-Sequence"]))
                gone += 1
        body = {"filter": self._names.redactions(index.database), "keep": 1}
        await self._port.api(f"STREAM.PURGE.{stream}", body)
        return gone


__all__ = ["EMPTY", "Index", "Redactions"]

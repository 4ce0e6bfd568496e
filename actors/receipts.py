"""Receipts of erasures: what was erased, never which values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from natalog.actors.names import Names
from natalog.actors.nats_port import NatsPort
from natalog.actors.payload import Struct
from natalog.actors.redactions import Redactions
from natalog.core.codec import pack, unpack
from natalog.core.errors import LogCorrupt, NatalogError

RECEIPT_VERSION: Final = 1
NOT_COVERED: Final = (
    "backups of the data directory and of the streams",
    "mirrors and sources that others made of the streams",
    "what clients, subscribers and exports have received",
    "the memory of processes that run, until they end",
    "free space of the disk: files that were rewritten or removed can be recovered until their "
    "blocks are used again or discarded (fstrim)",
)
"""What no erasure here reaches."""
REPLICAS_NOT_COVERED: Final = (
    "the Raft logs of replicated streams until the servers compact them, which they do every two "
    "to three minutes"
)

_EPOCH: Final = datetime.min.replace(tzinfo=UTC)


class Receipts:
    """Kept in the stream of redactions, one on a subject."""

    def __init__(self, port: NatsPort, names: Names, redactions: Redactions) -> None:
        self._port = port
        self._names = names
        self._redactions = redactions

    async def keep(self, database: str, receipt: Mapping[str, Any]) -> None:
        """Store a receipt; one with the same id stays as it is."""
        subject = self._names.erasure(database, _token(receipt["id"]))
        await self._redactions.prepare(database)
        data = pack([RECEIPT_VERSION, _plain(receipt)])
        await self._redactions.put_once(database, subject, data)

    async def of(self, database: str, ident: str) -> Struct | None:
        """The receipt of an id."""
        return await self._read(database, self._names.erasure(database, _token(ident)))

    async def all(self, database: str) -> list[Struct]:
        """All receipts of a database, oldest first."""
        stream = self._names.redactions_stream(database)
        if await self._port.stream_info(stream) is None:
            return []
        found = []
        for subject in await self._port.subjects(stream, self._names.erasure(database, "*")):
            receipt = await self._read(database, subject)
            if receipt is not None:
                found.append(receipt)
        return sorted(found, key=lambda receipt: (receipt.get("began") or _EPOCH, receipt["id"]))

    async def _read(self, database: str, subject: str) -> Struct | None:
        stream = self._names.redactions_stream(database)
        if await self._port.stream_info(stream) is None:
            return None
        message = await self._port.read(stream, last_by_subject=subject)
        if message is None:
            return None
        try:
            version, receipt = unpack(message.data)
            if version != RECEIPT_VERSION:
                raise ValueError(f"version {version!r}")
            found = _struct(receipt)
            assert isinstance(found, Struct)
            return found
        except (NatalogError, TypeError, ValueError, AssertionError) as error:
            raise LogCorrupt(f"A receipt of {database} cannot be read.") from error


def _token(ident: str) -> str:
    return sha256(ident.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _struct(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Struct({str(key): _struct(inner) for key, inner in value.items()})
    return [_struct(inner) for inner in value] if isinstance(value, list) else value


__all__ = ["NOT_COVERED", "REPLICAS_NOT_COVERED", "Receipts"]

"""The first step of an erasure: what it names is purged on every branch that holds it.

Purges are ordinary transactions of the branches' transactors, sent as requests; whichever process
serves them, their reports and feeds say what every purge says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import anyio
from anyio import to_thread

from natalog.actors.erase_request import EraseRequest
from natalog.actors.hub import Hub
from natalog.actors.names import Names
from natalog.actors.nats_port import NatsPort
from natalog.core.codec import pack, unpack
from natalog.core.database import Database
from natalog.core.errors import (
    BranchNotFound,
    Busy,
    CommitUnknown,
    DeadlineExceeded,
    Fenced,
    NatalogError,
    Unavailable,
    error_from_wire,
)
from natalog.core.redaction.purging import (
    Pattern,
    finds,
    operations,
    patterns,
    refused,
    removals,
)
from natalog.core.transact import process

log = logging.getLogger("natalog.purging")

CHUNK_OPERATIONS: Final = 500
CHUNK_BYTES: Final = 128 * 1024
ATTEMPTS_MAX: Final = 20
PAUSE_S: Final = 0.25
TRANSACT_TIMEOUT_S: Final = 30.0
OPEN_TIMEOUT_S: Final = 120.0
ROUNDS_MAX: Final = 1000

_PLAIN: Final = EraseRequest()
_PASSING: Final = (Busy, CommitUnknown, DeadlineExceeded, Fenced, Unavailable)


@dataclass(slots=True)
class Purged:
    """What was purged on one branch."""

    branch: str
    facts: int = 0
    transactions: int = 0
    left: int = 0
    """Facts that the request names and that may not be purged: something else needs them."""


class Purger:
    """Purges what a request names."""

    def __init__(self, port: NatsPort, names: Names, hub: Hub, clock: Callable[[], int]) -> None:
        self._port = port
        self._names = names
        self._hub = hub
        self._clock = clock

    async def patterns(
        self, database: str, branches: Sequence[str], request: EraseRequest
    ) -> list[Pattern]:
        """What a request names, with entities as the branches know them before the purge."""
        found: dict[str, Pattern] = {}
        for branch in branches:
            try:
                db = await self.value(database, branch)
            except BranchNotFound:
                continue  # deleted meanwhile
            for pattern in patterns(db, request.tx_data, request.facts):
                found.setdefault(repr(pattern), pattern)
        return list(found.values())

    async def purge(self, database: str, branch: str, request: EraseRequest, ident: str) -> Purged:
        """Purge on one branch.  Raises `ErasureRefused`, which does not repeat what is named."""
        found = Purged(branch)
        db = await self.value(database, branch)
        for count, data in enumerate(await self._planned(db, request)):
            await self._transact(database, branch, data, f"erase.{ident}.{count}", found, request)
        if request.containing is not None and not request.dry_run:
            db = await self.value(database, branch)
            found.left = await to_thread.run_sync(_count, db, request.containing)
        return found

    async def _planned(self, db: Database, request: EraseRequest) -> list[list[Any]]:
        """The transactions that purge what a value holds."""

        def work() -> list[list[Any]]:
            chunks = []
            named = operations(db, request.tx_data, request.facts)
            held = [one for one in named if finds(db, one, self._clock())]
            if held:
                chunks.append(held)
            if request.containing is not None:
                chunks += _chunks(removals(db, request.containing))
            return chunks

        return await to_thread.run_sync(work)

    async def _transact(
        self,
        database: str,
        branch: str,
        data: list[Any],
        ident: str,
        found: Purged,
        request: EraseRequest,
    ) -> None:
        if request.dry_run:
            db = await self.value(database, branch)
            report = await to_thread.run_sync(
                lambda: process(db.scratch(), data, None, now_ms=self._clock())
            )
            found.transactions += 1
            found.facts += report.purged or sum(not datom.added for datom in report.datoms)
            return
        subject = self._names.subject(database, branch, "transact")
        headers = {
            "Content-Type": "application/msgpack",
            "Natalog-Timeout-Ms": str(int(TRANSACT_TIMEOUT_S * 1000)),
        }
        payload = pack({"tx_data": data, "id": ident})
        for attempt in range(ATTEMPTS_MAX):
            try:
                message = await self._port.request(
                    subject, payload, headers=headers, timeout_s=TRANSACT_TIMEOUT_S
                )
                body = unpack(message.data)
                if (message.headers or {}).get("Nats-Service-Error-Code"):
                    raise error_from_wire(body)
            except _PASSING as error:
                if attempt + 1 == ATTEMPTS_MAX:
                    raise refused(error, branch) from None
                log.info("a purge on %s.%s is tried again: %s", database, branch, error.code)
                await anyio.sleep(PAUSE_S)
                continue
            except BranchNotFound:
                return  # it was deleted meanwhile
            except NatalogError as error:
                raise refused(error, branch) from None
            found.transactions += 1
            purged = int(body.get("purged") or 0)
            found.facts += purged or sum(1 for row in body["tx_data"] if not row[4])
            return

    async def purge_once(self, database: str, branch: str, data: list[Any]) -> int:
        """Purge by one transaction; how many facts.  `ErasureRefused`."""
        found = Purged(branch)
        await self._transact(database, branch, data, f"retention.{uuid4().hex}", found, _PLAIN)
        return found.facts

    async def value(self, database: str, branch: str) -> Database:
        """The head of a branch."""
        return await self._hub.value(database, branch, None, OPEN_TIMEOUT_S)


def _chunks(found: Iterator[list[Any]]) -> Iterator[list[Any]]:
    """Operations in transactions that fit any message."""
    chunk: list[Any] = []
    size = 0
    for operation in found:
        cost = len(pack(operation))
        if chunk and (len(chunk) >= CHUNK_OPERATIONS or size + cost > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(operation)
        size += cost
    if chunk:
        yield chunk


def _count(db: Database, text: str) -> int:
    return sum(1 for _ in removals(db, text))


__all__ = ["Purged", "Purger"]

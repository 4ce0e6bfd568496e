"""What was erased from the logs of a database, for who reads them from the client.

``docs/log_format.md`` says where redacted copies are.  A database without erasures has none, and
costs one call to find that out.
"""

from __future__ import annotations

from natalog.client.consumer import STREAM_NOT_FOUND, Consumer
from natalog.client.session import Session
from natalog.client.transport import JetStreamRefused
from natalog.core.erasures import Copy, Pieces, Root, Table, checked
from natalog.core.errors import LogCorrupt, Unavailable
from natalog.core.record import Block
from natalog.core.redacted import decode_redacted

_NOTHING = Table()


class ErasedBlocks:
    """The erasures of one database.

    ``fixed``: what was found first counts as long as this lives; `Unavailable` when an erasure
    changes the logs meanwhile.
    """

    def __init__(self, session: Session, database: str, *, fixed: bool = False) -> None:
        self._session = session
        self._subject = session.subject(database, "_", "redactions")
        self._stream = "=".join([session.prefix.replace(".", "="), database, "_", "redactions"])
        self._database = database
        self._fixed = fixed
        self._root: Root | None = None
        self._tables: dict[Pieces, Table] = {}

    async def table(self, lane: int, *, fresh: bool = False) -> Table:
        """What a log lost; ``fresh``: look again."""
        if self._root is None or fresh:
            found = await self._last(self._subject)
            root = Root() if found is None else Root.decode(found)
            if self._fixed and self._root is not None and root.epoch != self._root.epoch:
                raise Unavailable("something was erased meanwhile; ask again")
            self._root = root
        pieces = self._root.tables.get(lane)
        if pieces is None:
            return _NOTHING
        if pieces not in self._tables:
            self._tables[pieces] = Table.decode(await self._joined(pieces))
        return self._tables[pieces]

    async def block(self, copy: Copy) -> Block:
        """The block that a redacted copy stands for."""
        block = decode_redacted(await self._joined(copy.pieces)).block
        if block.hash != copy.hash:
            raise LogCorrupt(f"a redacted copy in {self._database} is of another block")
        return block

    async def _joined(self, pieces: Pieces) -> bytes:
        parts = []
        for name in pieces:
            found = await self._last(f"{self._subject}.{name.hex()}")
            if found is None:
                raise LogCorrupt(f"the redactions of {self._database} lack a piece")
            parts.append(checked(name, found))
        return b"".join(parts)

    async def _last(self, subject: str) -> bytes | None:
        """The last message of a subject; None without one."""
        try:
            start = {"deliver_policy": "last"}
            async with Consumer(self._session, self._stream, subject, start) as consumer:
                found = await consumer.one()
        except JetStreamRefused as error:
            if error.err_code == STREAM_NOT_FOUND:
                return None
            raise
        return None if found is None else found.data

"""The first reading: which cells (entity and attribute) an erasure may touch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from natalog.core.beginning import base_of
from natalog.core.config import DatabaseConfig
from natalog.core.record import ENTRY_REJECTION, Block, TxRecord
from natalog.core.redaction.fold import Cell, Fact, fact_of
from natalog.core.schema import IDENT, NO_HISTORY, TX_INSTANT
from natalog.core.scrub import contains, written_alike
from natalog.core.values import Datom, Keyword


class Wanted:
    """What a request names besides what was purged.

    ``facts``: patterns ``(e,)``, ``(e, a)`` or ``(e, a, v)``; ``text``: every value that is it or
    holds it.
    """

    __slots__ = ("_patterns", "text")

    def __init__(self, facts: Iterable[tuple[Any, ...]] = (), text: str | None = None) -> None:
        self._patterns: dict[int, list[tuple[Any, ...]]] = {}
        for pattern in facts:
            self._patterns.setdefault(pattern[0], []).append(pattern[1:])
        self.text = text

    def __bool__(self) -> bool:
        return bool(self._patterns or self.text)

    def names(self, datom: Datom) -> bool:
        """Whether a datom is meant."""
        if datom.a is TX_INSTANT:
            return False
        for pattern in self._patterns.get(datom.e, ()):
            attr_fits = not pattern or pattern[0] is datom.a
            if attr_fits and (len(pattern) < 2 or written_alike(pattern[1], datom.v)):
                return True
        return self.text is not None and contains(datom.v, self.text)


class Survey:
    """Which cells an erasure may touch, and where other logs begin."""

    def __init__(self, wanted: Wanted | None = None) -> None:
        self.wanted = wanted or Wanted()
        self.cells: set[Cell] = set()
        self.targets: dict[Fact, Any] = {}
        """What the request names, with the value."""
        self.bases: set[UUID] = set()
        """Commits at which logs begin."""
        self.records = 0
        self._keeps_history = True
        self._idents: dict[int, set[Keyword]] = {}
        self._forgetting: set[int] = set()
        self._forgetful: set[Keyword] = set()
        self._superseded: dict[int, set[Keyword]] = {}
        self._purged: set[int] = set()

    def read(self, block: Block) -> None:
        """Take notice of one block."""
        for entry in block.entries:
            if entry.type != ENTRY_REJECTION:
                self._record(TxRecord.decode(entry.data))

    def _record(self, record: TxRecord) -> None:
        self.records += 1
        if record.kind == "genesis":
            self._keeps_history = DatabaseConfig.from_mapping(record.config or {}).keep_history
        elif record.kind in ("branch", "force"):
            self.bases.add(base_of(record).commit)
            for nested in tried_records(record):
                self._record(nested)
        for ref in record.purges:
            self.cells.add((ref.e, ref.attr))
            self._purged.add(ref.e)
        wanted = self.wanted if self.wanted else None
        for datom in record.datoms:
            if datom.a is NO_HISTORY or datom.a is IDENT:
                self._declare(datom)
            if not datom.added and (not self._keeps_history or datom.a in self._forgetful):
                self._superseded.setdefault(datom.e, set()).add(datom.a)
            if wanted is not None and wanted.names(datom):
                self.cells.add((datom.e, datom.a))
                self.targets[fact_of(datom)] = datom.v

    def finish(self) -> None:
        """All records were read: which superseded values count as purged.

        Without history nothing but the log has them: those of entities that were purged, which
        a purge finds no more; and all of a database without history, if nothing is named.
        """
        every = not self._keeps_history and not self.wanted
        for e in self._superseded if every else self._purged:
            self.cells.update((e, attr) for attr in self._superseded.get(e, ()))

    def _declare(self, datom: Datom) -> None:
        """Attributes that were ever declared to keep no history; too many do no harm."""
        if datom.a is IDENT:
            self._idents.setdefault(datom.e, set()).add(datom.v)
            if datom.e in self._forgetting:
                self._forgetful.add(datom.v)
        elif datom.v is True:
            self._forgetting.add(datom.e)
            self._forgetful |= self._idents.get(datom.e, set())

    @property
    def needed(self) -> bool:
        """Whether there can be anything to erase."""
        return bool(self.cells or self.wanted.text)


def tried_records(record: TxRecord) -> Iterator[TxRecord]:
    """The records of transactions that were tried on the way to a forced branch."""
    for word, argument in (record.config or {}).get("steps") or ():
        if word == "with":
            yield TxRecord.decode(argument)

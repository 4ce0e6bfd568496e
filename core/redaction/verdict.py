"""What goes: decided once, applied to one transaction after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from natalog.core.changes import Purge
from natalog.core.database import Database
from natalog.core.index.attribute import AttributeIndex
from natalog.core.index.residency import Kept
from natalog.core.index.tree import OPEN, RowTree
from natalog.core.redaction.fold import Cell, Fact, fact_of, rows_of
from natalog.core.values import Datom, Keyword, value_key


@dataclass(slots=True)
class Verdict:
    """``targets``: facts that were purged or are named, with their values; they are in ``cells``.
    ``held``: transactions whose assertion of a target some living branch still holds.
    """

    cells: set[Cell] = field(default_factory=set)
    targets: dict[Fact, Any] = field(default_factory=dict)
    held: dict[Fact, set[int]] = field(default_factory=dict)

    def goes(self, fact: Fact, tx: int) -> bool:
        """Whether the assertion of a target in a transaction is erased."""
        return tx not in self.held.get(fact, ())

    def hold(self, head: Database, but: Iterable[Fact] = ()) -> int:
        """Spare what a living head holds; how many targets that are.  ``but``: not these."""
        count = 0
        given_up = set(but)
        for fact, value in self.targets.items():
            if fact in given_up:
                continue
            rows = rows_of(head, fact, value)
            if rows.shape[1]:
                self.held.setdefault(fact, set()).update(rows[2].tolist())
                count += 1
        return count

    def split(
        self, before: Database, tx: int, datoms: Sequence[Datom], purges: Sequence[Purge]
    ) -> tuple[Sequence[Datom], list[Datom]]:
        """The datoms of a transaction on ``before`` that stay, and those that go.

        A retraction stays where there is still something that it ends.
        """
        whole = {(p.e, p.attr, value_key(p.value)) for p in purges if p.closed_before_ms is None}
        open_: dict[Fact, bool] = {}
        kept: list[Datom] = []
        gone: list[Datom] = []
        for datom in datoms:
            if (datom.e, datom.a) not in self.cells:
                kept.append(datom)
                continue
            fact = fact_of(datom)
            if fact not in self.targets:
                kept.append(datom)
            elif datom.added:
                stays = not self.goes(fact, tx)
                if stays:
                    open_[fact] = True
                (kept if stays else gone).append(datom)
            else:
                stays = open_.get(fact, False)
                if fact not in open_ and fact not in whole:
                    stays = bool((rows_of(before, fact, datom.v)[3] == OPEN).any())
                open_[fact] = False
                (kept if stays else gone).append(datom)
        return (kept, gone) if gone else (datoms, gone)

    def without(self, value: Database) -> Database:
        """A value without what goes, where no transactions are at hand to fold it from again.

        The value itself when it holds nothing of it.
        """
        doomed: dict[Keyword, list[tuple[Fact, Any]]] = {}
        for fact, one in self.targets.items():
            added = rows_of(value, fact, one)[2].tolist()
            if any(self.goes(fact, tx) for tx in added):
                doomed.setdefault(fact[1], []).append((fact, one))
        if not doomed:
            return value
        indexes = dict(value.indexes)
        for attr, facts in doomed.items():
            index = indexes[attr]
            rows = index.aevt.flat()
            keep = np.ones(rows.shape[1], dtype=np.bool_)
            for fact, one in facts:
                mine = rows_of(value, fact, one)
                same = (rows[0] == fact[0]) & (rows[1] == mine[1, 0])
                for tx in mine[2].tolist():
                    if self.goes(fact, tx):
                        keep &= ~(same & (rows[2] == tx))
            left = RowTree.from_rows(rows[:, keep])
            avet = None if index.avet is None else RowTree.from_rows(rows[[1, 0, 2, 3]][:, keep])
            indexes[attr] = AttributeIndex(index.kind, left, avet)
        pairs = [
            np.stack((entities, np.full(len(entities), value.pool.code(attr))))
            for attr, index in indexes.items()
            if len(entities := np.unique(index.aevt.flat()[0]))
        ]
        together = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), dtype=np.int64)
        directory = RowTree.from_rows(together)
        return replace(value, indexes=indexes, entities=directory, _cache=Kept())


__all__ = ["Verdict"]

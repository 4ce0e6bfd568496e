"""The index of one attribute: its facts by entity, and by value where it is indexed."""

from __future__ import annotations

from typing import NamedTuple

from natalog.core.index.encoding import Kind
from natalog.core.index.tree import RowTree


class AttributeIndex(NamedTuple):
    """AEVT rows ``e v added retracted``; AVET rows ``v e added retracted`` or None."""

    kind: Kind
    aevt: RowTree
    avet: RowTree | None

    @classmethod
    def empty(cls, kind: Kind, indexed: bool) -> AttributeIndex:
        return cls(kind, RowTree.empty(), RowTree.empty() if indexed else None)

    def with_avet(self, indexed: bool) -> AttributeIndex:
        """The same facts with or without AVET; O(n log n) where it has to be built."""
        if indexed == (self.avet is not None):
            return self
        avet = RowTree.from_rows(self.aevt.flat()[[1, 0, 2, 3]]) if indexed else None
        return AttributeIndex(self.kind, self.aevt, avet)

    def forget(self, shared: AttributeIndex | None) -> None:
        """Give up what scans kept, but for the tables that ``shared`` has too."""
        for mine, others in (
            (self.aevt, shared and shared.aevt),
            (self.avet, shared and shared.avet),
        ):
            if mine is not None and mine is not others:
                mine.forget()

    def _check(self) -> None:
        """Raise AssertionError unless both orders hold the same facts."""
        self.aevt._check()
        if self.avet is not None:
            self.avet._check()
            left = sorted(zip(*self.aevt.flat().tolist(), strict=True))
            right = sorted(zip(*self.avet.flat()[[1, 0, 2, 3]].tolist(), strict=True))
            assert left == right, "AEVT and AVET differ"

"""The second reading: which facts purges meant, and what living branches still hold."""

from __future__ import annotations

from collections.abc import Container
from typing import Any
from uuid import UUID

from natalog.core.beginning import after_step, ground
from natalog.core.database import Database
from natalog.core.index.pool import ValuePool
from natalog.core.materialise import materialised
from natalog.core.record import ENTRY_REJECTION, Block, TxRecord
from natalog.core.redaction.fold import Fact, Fold, Step, fact_of
from natalog.core.redaction.survey import Survey
from natalog.core.redaction.verdict import Verdict
from natalog.core.values import value_key


class Trace:
    """What purges meant, and what living branches still hold."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self.verdict = Verdict(survey.cells, dict(survey.targets))
        self.kept: dict[int, int] = {}
        """By lane how many of the targets a living branch holds."""
        self.values: list[Any] = []
        """The values of which something will be erased."""
        self._asserted: dict[Fact, set[int]] = {}
        self._forks: dict[UUID, Database] = {}
        self._heads: dict[int, Database] = {}
        self._pool = ValuePool()
        self._fold: Fold | None = None
        self._lane = 0

    def lane(self, lane: int, base: UUID | None) -> None:
        """A lane begins to be read; ``base``: the commit that its log begins at."""
        self._lane = lane
        self._fold = Fold(
            self.verdict.cells, self._pool, None if base is None else self._forks.get(base)
        )

    def read(self, block: Block) -> None:
        """Fold one block."""
        fold = self._fold
        assert fold is not None
        for entry in block.entries:
            if entry.type == ENTRY_REJECTION:
                continue
            record = TxRecord.decode(entry.data)
            match record.kind:
                case "genesis":
                    fold.genesis(record)
                case "deleted":
                    continue
                case "branch" | "force":
                    fold.begin(self._begun(fold, record), record)
                case _:
                    self._note(fold.take(record), record.tx)
            if entry.commit_id in self._survey.bases:
                self._forks[entry.commit_id] = fold.settle()

    def _begun(self, fold: Fold, record: TxRecord) -> Database:
        value = fold.ground()
        if record.kind == "branch":
            return value
        for step in (record.config or {}).get("steps") or ():
            if step[0] != "with":
                value = after_step(value, step, record.lane)
                continue
            value = ground(value, record.lane)
            nested = TxRecord.decode(step[1])
            made = fold.applied(value, nested)
            self._note(made, nested.tx)
            value = value if made is None else made.after
        return materialised(value)

    def _note(self, step: Step | None, tx: int) -> None:
        if step is None:
            return
        for purge in step.purges:
            self.verdict.targets[purge.e, purge.attr, value_key(purge.value)] = purge.value
        config, schema = step.after.config, step.after.schema
        for datom in step.datoms:
            if (datom.e, datom.a) not in self.verdict.cells:
                continue
            fact = fact_of(datom)
            if datom.added:
                self._asserted.setdefault(fact, set()).add(tx)
                continue
            declared = schema.get(datom.a)
            if not config.keep_history or (declared is not None and declared.no_history):
                self.verdict.targets[fact] = datom.v

    def end(self, *, living: bool) -> None:
        """The lane was read; ``living``: a branch has it as its history."""
        assert self._fold is not None
        if living:
            self._heads[self._lane] = self._fold.settle()

    def begins_here(self, lane: int, base: UUID) -> None:
        """A log that has nothing in it yet, whose branch begins at a commit."""
        if base in self._forks:
            self._heads[lane] = self._forks[base]

    def finish(self, yielding: Container[int] = ()) -> None:
        """All lanes were read.

        ``yielding``: lanes on which the facts that the request names are about to be purged.
        """
        for lane, head in self._heads.items():
            given_up = self._survey.targets if lane in yielding else ()
            self.kept[lane] = self.verdict.hold(head, given_up)
        for fact, value in self.verdict.targets.items():
            if self._asserted.get(fact, set()) - self.verdict.held.get(fact, set()):
                self.values.append(value)

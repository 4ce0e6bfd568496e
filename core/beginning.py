"""What the log of a branch begins with: a commit of another line, perhaps seen and changed.

A branch begins with the value of a commit.  A forced branch begins with a value that was made from
one by *steps*: views over time, and transactions that were only tried.  Steps are data and stand
in the record, so that every replay makes the same value again:

``["as_of", t]``, ``["since", t]`` (a transaction id or an instant) and ``["with", bytes]``, the
bytes of a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from natalog.core.apply import apply_changes
from natalog.core.changes import Changes
from natalog.core.database import Database
from natalog.core.errors import LogCorrupt, NatalogError
from natalog.core.materialise import materialised
from natalog.core.record import TxRecord, purge_refs
from natalog.core.versioning import forked

Steps = Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Base:
    """The commit that a branch begins at, and the lane in whose log it stands."""

    lane: int
    commit: UUID
    tx: int

    def to_mapping(self) -> dict[str, Any]:
        return {"lane": self.lane, "commit": self.commit, "tx": self.tx}


def base_of(record: TxRecord) -> Base:
    """Where a ``branch`` or ``force`` record begins; `LogCorrupt` when it does not say."""
    try:
        base = (record.config or {})["base"]
        return Base(int(base["lane"]), base["commit"], int(base["tx"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LogCorrupt(f"A {record.kind} record does not say where it begins.") from error


def begun(record: TxRecord, base: Database) -> Database:
    """The value that a ``branch`` or ``force`` record begins with, made from its base's.

    O(log n) for a branch; a force takes what its steps take.
    """
    value = base
    if record.kind != "branch":
        for step in (record.config or {}).get("steps") or ():
            value = after_step(value, step, record.lane)
        value = materialised(value)
    value = forked(value, record.lane)
    if record.max_eid is not None and record.max_eid > value.max_eid:
        # the entities that had the highest ids are erased; their ids are not used again
        value = replace(value, max_eid=record.max_eid)
    return value


def after_step(value: Database, step: Sequence[Any], lane: int) -> Database:
    """The value after one step."""
    try:
        word, argument = step
        if word == "as_of":
            return value.as_of(argument)
        if word == "since":
            return value.since(argument)
        if word == "with":
            before = ground(value, lane)
            return apply_changes(before, TxRecord.decode(argument).changes(before))
    except LogCorrupt:
        raise
    except (NatalogError, TypeError, ValueError) as error:
        raise LogCorrupt(f"The log holds a step that cannot be taken: {error}") from error
    raise LogCorrupt(f"The log holds a step of an unknown kind: {word!r}.")


def ground(value: Database, lane: int) -> Database:
    """What a tried transaction on ``lane`` starts from."""
    return forked(materialised(value), lane)


def tried(changes: Changes, before: Database) -> list[Any]:
    """The step that makes again what a transaction tried on ``before`` (see `ground`)."""
    record = TxRecord(
        kind="transaction",
        tx=changes.tx,
        instant_ms=changes.instant_ms,
        lane=before.lane,
        max_eid=changes.max_eid,
        datoms=changes.datoms,
        purges=purge_refs(before, changes.datoms, changes.purges),
    )
    return ["with", record.encode()]


def branch_record(name: str, lane: int, base: Base, created_ms: int) -> TxRecord:
    """The first record of a branch that begins at a commit; it is no commit itself."""
    return TxRecord(
        kind="branch",
        tx=base.tx,
        instant_ms=None,
        lane=lane,
        parents=(base.commit,),
        config={"branch": name, "base": base.to_mapping(), "created": created_ms},
    )


def force_record(
    name: str,
    value: Database,
    base: Base,
    steps: Steps,
    parents: Sequence[UUID],
    created_ms: int,
) -> TxRecord:
    """The first record of a forced branch, a commit with ``parents``; ``value`` is on its lane."""
    return TxRecord(
        kind="force",
        tx=value.max_tx,
        instant_ms=value.instant_ms,
        lane=value.lane,
        max_eid=value.max_eid,
        parents=tuple(parents),
        config={
            "branch": name,
            "base": base.to_mapping(),
            "steps": [list(step) for step in steps],
            "created": created_ms,
        },
    )


def deleted_record(name: str, lane: int, tx: int, head: UUID, successor: int | None) -> TxRecord:
    """The last record of a branch; ``successor``: the lane that its name moved to, if it did."""
    return TxRecord(
        kind="deleted",
        tx=tx,
        instant_ms=None,
        lane=lane,
        parents=(head,),
        config={"branch": name, "successor": successor},
    )

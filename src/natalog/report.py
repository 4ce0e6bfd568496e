"""What a transaction returns, as users see it: the same from a service and a local database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from natalog.core.errors import NatalogError, error_from_wire
from natalog.core.values import Datom, Keyword


@dataclass(frozen=True, slots=True)
class TxReport:
    """The outcome of one transaction.

    ``tx_data`` has the datoms in the order of the report: the transaction entity first, then as the
    operations made them.  ``tempids`` maps what the transaction called its new entities to their
    ids.  ``repeated`` is true when the transaction's ``id`` had been applied before; nothing was
    applied again.  ``instant`` is None in a database without history; a speculative transaction
    has no ``commit_id``.  ``purged``: how many facts it purged; ``erased``: how many of its own
    datoms were erased since and are not in ``tx_data``.
    """

    tx: int
    instant: datetime | None
    commit_id: UUID | None
    tx_data: list[Datom]
    tempids: dict[Any, int]
    tx_meta: dict[Keyword, Any]
    purged: int = 0
    id: str | None = None
    repeated: bool = False
    database: str | None = None
    branch: str | None = None
    erased: int = 0

    def resolve(self, tempid: Any) -> int:
        """The entity that ``tempid`` became; `KeyError` when the transaction did not use it."""
        return self.tempids[tempid]


_Draft: Final = make_dataclass(
    "_Draft", [(one.name, one.type) for one in fields(TxReport)], slots=True
)
"""A report that is being made: a frozen one takes microseconds to fill."""


@dataclass(frozen=True, slots=True)
class MergeReport(TxReport):
    """The outcome of a merge.

    ``up_to_date``: the branch had the other side's commits already; nothing was written, and the
    report is about the head as it stands.  ``fast_forward``: only the other side had changed.
    ``base``: the commits that both sides descend from, several where histories crossed.
    ``unified``: their entities that became ours, since both were created under one identity.  A
    merge with given data has none of these.
    """

    up_to_date: bool = False
    fast_forward: bool = False
    base: tuple[UUID, ...] = ()
    unified: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A transaction handed over with ``publish`` that could not be applied."""

    error: NatalogError
    id: str | None = None
    database: str | None = None
    branch: str | None = None


@dataclass(frozen=True, slots=True)
class PublishAck:
    """A transaction is stored, to be applied or rejected; ``duplicate`` if its id was known."""

    id: str
    sequence: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of a branch's history."""

    commit_id: UUID
    parents: tuple[UUID, ...] = ()
    tx: int | None = None
    instant: datetime | None = None


class Transaction(NamedTuple):
    """What one transaction did: its id, its instant, its datoms in EAVT order."""

    tx: int
    instant: datetime | None
    datoms: list[Datom]


@dataclass(frozen=True, slots=True)
class Diff:
    """How two database values differ: facts ``(e, a, v)`` only in the second, only in the first."""

    added: list[tuple[int, Keyword, Any]] = field(default_factory=list)
    removed: list[tuple[int, Keyword, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class QueryStats:
    """What a query cost.

    ``rows`` of the answer, ``steps`` that ran, ``rows_touched``: rows that all steps together made
    (what ``fuel`` limits), ``elapsed_ms``: milliseconds in the engine.
    """

    rows: int
    steps: int
    rows_touched: int
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """What a query did: ``text`` for people, ``steps`` in the order in which they ran.

    A step has ``clause``, ``depth`` (0 in ``:where``, more inside rules, ``or`` and ``not``),
    ``estimated`` rows that made the planner choose it (None without a choice), ``bound`` rows that
    went in and ``rows`` that came out.
    """

    text: str
    steps: list[dict[str, Any]]
    stats: QueryStats

    def __str__(self) -> str:
        return self.text


class QueryAnswer(NamedTuple):
    """The answer of a query together with what it cost."""

    result: Any
    stats: QueryStats


_datom: Final = tuple.__new__


def datoms_from_rows(rows: Any) -> list[Datom]:
    """Datoms from rows ``[e a v tx added]``."""
    return [
        _datom(Datom, row)
        if len(row) == 5 and type(row[2]) is not list
        else Datom(row[0], row[1], as_value(row[2]), row[3], row[4] if len(row) > 4 else True)
        for row in rows
    ]


def as_value(value: Any) -> Any:
    """A value as a database holds it: what arrived as a list is a tuple."""
    return tuple(map(as_value, value)) if isinstance(value, list) else value


def report_from_map(body: Mapping[str, Any]) -> TxReport:
    """The report that a service's answer describes."""
    made: Any = _Draft(**_report_fields(body))
    made.__class__ = TxReport
    report: TxReport = made
    return report


def merge_report_from_map(body: Mapping[str, Any]) -> MergeReport:
    """The report that a service's answer to a merge describes."""
    return MergeReport(
        **_report_fields(body),
        up_to_date=bool(body.get("up_to_date")),
        fast_forward=bool(body.get("fast_forward")),
        base=tuple(body.get("base") or ()),
        unified=dict(body.get("unified") or {}),
    )


def _report_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tx": body["tx"],
        "instant": body.get("instant"),
        "commit_id": body.get("commit_id"),
        "tx_data": datoms_from_rows(body.get("tx_data") or ()),
        "tempids": dict(body.get("tempids") or {}),
        "tx_meta": {k: as_value(v) for k, v in (body.get("tx_meta") or {}).items()},
        "purged": body.get("purged") or 0,
        "erased": body.get("erased") or 0,
        "id": body.get("id"),
        "repeated": bool(body.get("repeated")),
        "database": body.get("database"),
        "branch": body.get("branch"),
    }


def stats_from_map(body: Mapping[str, Any]) -> QueryStats:
    """The cost that a service's answer describes."""
    return QueryStats(body["rows"], body["steps"], body["rows_touched"], body["elapsed_ms"])


def rejection_from_map(body: Mapping[str, Any]) -> Rejection:
    """The rejection that a service's message describes."""
    return Rejection(
        error=error_from_wire(dict(body["rejected"])),
        id=body.get("id"),
        database=body.get("database"),
        branch=body.get("branch"),
    )

"""Promises beyond types: attribute predicates, entity specs, valid-time windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from natalog.core.errors import (
    EntityIdMissing,
    TransactEnsure,
    TransactPredicate,
    TransactSyntax,
)
from natalog.core.schema import ENTITY_ATTRS, ENTITY_PREDS, IDENT, VALID_FROM, VALID_TO
from natalog.core.shown import brief, shown
from natalog.core.values import Keyword, sorted_values

if TYPE_CHECKING:
    from natalog.core.database import Database
    from natalog.core.transact.plans import Plan
    from natalog.core.transact.report import TxReport
    from natalog.core.transact.state import Work


def check_value(work: Work, plan: Plan, value: Any) -> None:
    """Ask the attribute's ``:db.attr/preds``; raises `TransactPredicate`."""
    for name in plan.attribute.preds:
        predicate = work.functions.values.get(name.text)
        if predicate is None:
            raise TransactPredicate(
                f"The predicate {name} of {plan.ident} is not registered.",
                type="transact/attr-pred-unresolved",
                attribute=plan.ident,
                predicate=name,
            )
        if not predicate(value):
            raise TransactPredicate(
                f"The predicate {name} refuses {shown(value)} for {plan.ident}.",
                attribute=plan.ident,
                predicate=name,
                value=brief(value),
            )


def check_specs(work: Work) -> list[tuple[int, Keyword, Any]]:
    """Check the attributes that the ``:db/ensure`` specs of entities demand, in the final state.

    Returns the ``(entity, spec, predicate name)`` that are left to ask.  Raises `TransactEnsure`.
    """
    asks: list[tuple[int, Keyword, Any]] = []
    for e, raw in work.ensures:
        spec = Keyword(raw) if type(raw) is str and raw.lstrip(":") else raw
        if type(spec) is not Keyword:
            raise TransactSyntax(
                f":db/ensure takes the ident of a spec, not {shown(raw)}.", spec=raw
            )
        holder = work.holder(IDENT, spec)
        if holder is None:
            raise EntityIdMissing(f"There is no entity spec {spec}.", entity=spec)
        needed = sorted_values(work.cell(holder, ENTITY_ATTRS).values())
        missing = [attr for attr in needed if not work.cell(e, attr)]
        if missing:
            raise TransactEnsure(
                f"Entity {e} lacks {', '.join(map(str, missing))}, which {spec} demands.",
                entity=e,
                spec=spec,
                missing=missing,
            )
        names = sorted_values(work.cell(holder, ENTITY_PREDS).values())
        asks.extend((e, spec, name) for name in names)
    return asks


def ask_specs(work: Work, asks: list[tuple[int, Keyword, Any]], after: Database) -> None:
    """Ask the predicates of entity specs about the database after the transaction."""
    for e, spec, name in asks:
        predicate = work.functions.entities.get(name.text)
        if predicate is None:
            raise TransactPredicate(
                f"The predicate {name} of {spec} is not registered.",
                type="transact/entity-pred-unresolved",
                spec=spec,
                predicate=name,
            )
        if not predicate(after, e):
            raise TransactEnsure(
                f"The predicate {name} of {spec} refuses entity {e}.",
                entity=e,
                spec=spec,
                predicate=name,
            )


def ask_reports(work: Work, report: TxReport) -> None:
    """Ask the registered report predicates; raises `TransactPredicate`."""
    for name, predicate in work.functions.reports.items():
        if not predicate(report):
            raise TransactPredicate(
                f"The transaction is refused by {name}.",
                type="transact/tx-pred",
                predicate=name,
            )


def check_valid_times(work: Work) -> None:
    """Raise `TransactSyntax` where ``:db.valid/from`` is not before ``:db.valid/to``."""
    for e in work.valid:
        start = next(iter(work.cell(e, VALID_FROM).values()), None)
        end = next(iter(work.cell(e, VALID_TO).values()), None)
        if start is not None and end is not None and start >= end:
            raise TransactSyntax(
                f":db.valid/from of {e} must lie before its :db.valid/to.",
                type="transact/invalid-valid-times" + ("" if e == work.tx else "-cross-tx"),
                entity=e,
                start=start,
                end=end,
            )

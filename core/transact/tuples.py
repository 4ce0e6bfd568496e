"""Composite tuples: kept in step with their parts by the transaction itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from natalog.core.errors import TransactSyntax
from natalog.core.shown import brief, shown
from natalog.core.values import value_key

if TYPE_CHECKING:
    from natalog.core.schema import Attribute
    from natalog.core.transact.state import Work


def composite_value(work: Work, e: int, composite: Attribute) -> tuple[Any, ...] | None:
    """The parts of a composite that ``e`` has now, nil for a missing one; None without any."""
    slots = []
    for part in composite.tuple_attrs or ():
        held = work.cell(e, part)
        slots.append(next(iter(held.values())) if held else None)
    return None if all(slot is None for slot in slots) else tuple(slots)


def flush(work: Work) -> None:
    """Rewrite the composites whose parts changed since the last call.

    Raises `TransactUnique` if the new value of a unique composite is taken.
    """
    while work.pending:
        pending, work.pending = work.pending, {}
        for (e, ident), composite in pending.items():
            value = composite_value(work, e, composite)
            plan = work.plan(ident)
            if value is not None:
                work.put(e, plan, value)
            else:
                for old in list(work.cell(e, ident).values()):
                    work.drop(e, plan, old)


def check_expected(work: Work) -> None:
    """Raise `TransactSyntax` unless composites that diff rows named have the value they named."""
    for e, plan, value in work.expected:
        if value_key(value) not in work.cell(e, plan.ident):
            raise TransactSyntax(
                f"{plan.ident} of {e} follows its parts and cannot be set to {shown(value)}.",
                attribute=plan.ident,
                value=brief(value),
                entity=e,
            )

"""What names an entity in a transaction: ids, idents, lookup refs, temporary ids, the current tx.

Lookup refs and idents see the operations before them, never those after.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from natalog.core.errors import (
    EntityIdMissing,
    EntityIdSyntax,
    LookupRefSyntax,
    LookupRefUnique,
    TransactError,
    TransactSchema,
    TransactSyntax,
)
from natalog.core.limits import LANE_BITS, LONG_MAX, TX_BASE
from natalog.core.schema import IDENT
from natalog.core.shown import brief, shown
from natalog.core.transact.coerce import stored_value
from natalog.core.transact.tempids import entity_of
from natalog.core.transact.tuples import flush
from natalog.core.values import Keyword, is_long, kw

if TYPE_CHECKING:
    from natalog.core.transact.plans import Plan
    from natalog.core.transact.state import Work

CURRENT_TX: Final = kw("db/current-tx")
CURRENT_TX_NAMES: Final = frozenset(
    {":db/current-tx", "db/current-tx", "datomic.tx", "datahike.tx", "natalog.tx"}
)


def is_tempid(raw: Any) -> bool:
    """Whether ``raw`` is written like a temporary id: any string, any negative integer."""
    kind = type(raw)
    return kind is str or (kind is int and raw < 0)


def current_tx(work: Work, raw: Any) -> int | None:
    """The transaction's own id when ``raw`` is one of its aliases."""
    if raw is CURRENT_TX:
        return work.tx
    if type(raw) is str and raw in CURRENT_TX_NAMES:
        work.tempids[raw] = work.tx
        return work.tx
    return None


def find_entity(work: Work, raw: Any, operation: Any, *, text: bool = False) -> int | None:
    """The entity that ``raw`` names, None if there is none; temporary ids are refused.

    Any positive number names an entity.  ``text``: the operation is written in strings, so
    ``":name"`` is an ident.  Raises `EntityIdSyntax`, `LookupRefSyntax`, `LookupRefUnique`,
    `TransactSyntax`.
    """
    kind = type(raw)
    if kind is int:
        if raw > 0:
            return raw  # type: ignore[no-any-return]
        if raw < 0:
            raise _misplaced(raw, operation)
    elif kind is Keyword:
        return work.tx if raw is CURRENT_TX else work.holder(IDENT, raw)
    elif kind is str:
        found = current_tx(work, raw)
        if found is not None:
            return found
        if text and len(raw) > 1 and raw[0] == ":":
            return work.holder(IDENT, Keyword(raw))
        raise _misplaced(raw, operation)
    elif isinstance(raw, list | tuple):
        return lookup(work, raw, text=text)
    raise EntityIdSyntax(
        f"{shown(raw)} is no entity id; a number, an ident or a lookup ref is expected: "
        f"{shown(operation)}.",
        entity=brief(raw),
        operation=shown(operation),
    )


def known_entity(work: Work, raw: Any, operation: Any, *, text: bool = False) -> int:
    """As `find_entity`; raises `EntityIdMissing` for what names nothing."""
    found = find_entity(work, raw, operation, text=text)
    if found is None:
        raise EntityIdMissing(f"Nothing has the entity id {shown(raw)}.", entity=brief(raw))
    return found


def target_entity(work: Work, raw: Any, operation: Any, *, text: bool, diff: bool = False) -> int:
    """The entity of an explicit id, ident or lookup ref that facts are asserted about.

    ``diff``: the operation is a row of a diff, which may speak of another branch's transactions.
    """
    e = known_entity(work, raw, operation, text=text)
    if e < TX_BASE or e == work.tx or work.is_transaction(e):
        return e
    foreign = e >> LANE_BITS != work.tx >> LANE_BITS
    if diff and foreign and is_transaction_id(e):
        return e
    raise EntityIdSyntax(
        f"{e} lies in the range of transaction ids and is no transaction of this database.",
        entity=e,
        operation=shown(operation),
    )


def is_transaction_id(number: int) -> bool:
    """Whether a number could be the id of a transaction, on whatever lane."""
    return TX_BASE < number < 2 * TX_BASE and number & ((1 << LANE_BITS) - 1) != 0


def lookup(work: Work, ref: Any, *, text: bool = False) -> int | None:
    """The entity that the lookup ref ``[attribute value]`` names now, None if there is none."""
    if len(ref) != 2:
        raise LookupRefSyntax(f"Lookup ref {shown(ref)} must have two elements.", ref=brief(ref))
    raw, value = ref
    if type(raw) is not Keyword and (type(raw) is not str or not raw):
        raise LookupRefSyntax(
            f"Lookup ref {shown(ref)} must begin with an attribute.", ref=brief(ref)
        )
    entry = work.plans.get(raw)
    if entry is None:
        with suppress(TransactError):
            entry = work.entry(raw, ref)
    if entry is None or entry.reverse or not entry.plan.unique:
        raise LookupRefUnique(f"Lookup ref {shown(ref)} needs a unique attribute.", ref=brief(ref))
    plan = entry.plan
    if value is None:
        return None
    if plan.ref:
        value = find_entity(work, value, ref, text=text or entry.text)
        return None if value is None else work.holder(plan.ident, value)
    if plan.composite:
        flush(work)
    if type(value) is not plan.exact or (entry.ranged and not is_long(value)):
        try:
            value = stored_value(plan, value, text or entry.text, work.caps)
        except TransactError:
            return None
    return work.holder(plan.ident, value)


def looks_like_lookup(work: Work, value: Any) -> bool:
    """Whether a two-element sequence begins with a unique attribute, so is one lookup ref."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    raw = value[0]
    if type(raw) is not Keyword and type(raw) is not str:
        return False
    try:
        entry = work.entry(raw, value)
    except TransactError:
        return False
    return entry.plan.unique and not entry.reverse


def reference(work: Work, plan: Plan, raw: Any, operation: Any, *, text: bool) -> int:
    """The entity that a value of a reference attribute names; temporary ids are welcome.

    Raises `TransactSchema` for what is of no class that names entities, `EntityIdMissing` for an
    ident or lookup ref without an entity.
    """
    kind = type(raw)
    if kind is int and 0 < raw <= LONG_MAX:
        return raw  # type: ignore[no-any-return]
    if kind is Keyword or isinstance(raw, list | tuple):
        return known_entity(work, raw, operation, text=text)
    if kind is str:
        found = current_tx(work, raw)
        if found is not None:
            return found
        if text and len(raw) > 1 and raw[0] == ":":
            return known_entity(work, raw, operation, text=True)
    if is_tempid(raw):
        work.used_as_value.setdefault(raw, operation)
        return entity_of(work, raw)
    if raw is None:
        raise TransactSyntax(
            f"Attribute {plan.ident} was given nil, which is no value.", attribute=plan.ident
        )
    raise TransactSchema(
        f"Value {shown(raw)} of {plan.ident} names no entity.",
        attribute=plan.ident,
        value=brief(raw),
    )


def _misplaced(raw: Any, operation: Any) -> TransactSyntax:
    return TransactSyntax(
        f"Temporary id {shown(raw)} has no place in {shown(operation)}; "
        "only additions may use one.",
        tempid=raw,
        operation=shown(operation),
    )

"""``[:db/load rows]``: facts of another database, whose entities get ids of this one.

A row is ``[e a v]``, ``[e a v t]`` or ``[e a v t added]``, or any of these after ``:db/add`` or
``:db/retract``.  The ids are foreign: each becomes a new entity, or the one that has its ident or
its value of an identity attribute here.  What the other database said about its transactions is
left out, and a reference to one of them becomes a reference to the current transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from natalog.core.errors import TransactError, TransactSchema, TransactSyntax
from natalog.core.limits import LONG_MAX
from natalog.core.schema import PROPERTIES, TX_INSTANT
from natalog.core.schema_rules import check_property
from natalog.core.shown import brief, shown
from natalog.core.transact.coerce import stored_value
from natalog.core.transact.ensure import check_value
from natalog.core.transact.plans import Plan, keyword_of
from natalog.core.transact.resolve import is_transaction_id, known_entity
from natalog.core.transact.tempids import Identity, entity_of, upsert
from natalog.core.transact.tuples import flush
from natalog.core.values import Keyword, is_long, kw, sort_key, value_key

if TYPE_CHECKING:
    from natalog.core.transact.state import Work

FOREIGN_TX_MIN: Final = 1 << 29
"""Where the transaction ids of Datahike begin; a smaller entity id is never a transaction's."""

_NAMES: Final = {
    spelling: added
    for name, added in (("db/add", True), ("db/retract", False))
    for spelling in (name, ":" + name, kw(name))
}
_RETRACTION, _DECLARATION, _ASSERTION = range(3)


class Row(NamedTuple):
    """A fact of the other database; ``t`` is -1 where the row names no transaction."""

    e: int
    attr: Any
    value: Any
    t: int
    added: bool
    written: Any


def load(work: Work, operation: Sequence[Any]) -> None:
    """Apply the rows of ``[:db/load rows]``.  Sorting the rows dominates: O(n log n).

    They apply in the order of t, those without one first.  Within a t retractions come before
    assertions, so that a unique value can move, and declarations before what may need them; facts
    that a t both asserts and retracts, and otherwise all of equal rank, keep the order written.
    Raises `TransactSyntax` for a malformed row, and what additions raise.
    """
    if len(operation) != 2:
        raise TransactSyntax(
            f"{shown(operation)} does not have the form [:db/load rows].",
            operation=shown(operation),
        )
    rows = arranged(parsed(operation[1]))
    if work.pending:
        flush(work)
    if work.dirty:
        work.refresh()
    transactions = _transactions(rows)
    rows = [row for row in rows if row.e not in transactions]
    _recognise(work, rows)
    for row in rows:
        _apply(work, row, transactions)


# --- reading rows --------------------------------------------------------------------------------


def parsed(raw: Any) -> list[Row]:
    """The rows as written, checked for their shape; those of a set in a fixed order."""
    if isinstance(raw, Set):
        raw = sorted(raw, key=sort_key)
    if not isinstance(raw, list | tuple) or hasattr(raw, "_fields"):
        raise TransactSyntax(f"Rows to load are a list, not {shown(raw)}.", rows=shown(raw))
    return [_row(row) for row in raw]


def _row(written: Any) -> Row:
    if not isinstance(written, list | tuple):
        raise _malformed(written, "is no row")
    fields = list(written)
    said: bool | None = None
    if fields and isinstance(fields[0], str | Keyword):
        if fields[0] not in _NAMES:
            raise _malformed(written, "begins with neither an entity id nor :db/add")
        said = _NAMES[fields.pop(0)]
    if not 3 <= len(fields) <= 5 - (said is not None):
        raise _malformed(written, "does not have the form [e a v t added]")
    e, attr, value = fields[:3]
    t = fields[3] if len(fields) > 3 else None
    added = fields[4] if len(fields) > 4 else said is not False
    if type(e) is not int or not 0 < e <= LONG_MAX:
        raise _malformed(written, "names no entity by a positive number")
    if t is not None and (not is_long(t) or t < 0):
        raise _malformed(written, "names no transaction by a number")
    if type(added) is not bool:
        raise _malformed(written, "does not end with true or false")
    if value is None:
        raise _malformed(written, "has nil as its value")
    keyword_of(attr, written)
    return Row(e, attr, value, -1 if t is None else t, added, written)


def _malformed(row: Any, why: str) -> TransactSyntax:
    return TransactSyntax(f"The row {shown(row)} {why}.", operation=shown(row), row=brief(row))


def arranged(rows: list[Row]) -> list[Row]:
    """Rows in the order in which they apply."""
    retracted = {(row.t, _fact(row)) for row in rows if not row.added}
    both = {(row.t, _fact(row)) for row in rows if row.added} & retracted if retracted else set()

    def rank(row: Row) -> tuple[int, int]:
        if not row.added and (row.t, _fact(row)) not in both:
            return row.t, _RETRACTION
        declares = keyword_of(row.attr, row.written) in PROPERTIES
        return row.t, _DECLARATION if declares else _ASSERTION

    return sorted(rows, key=rank)


def _fact(row: Row) -> tuple[int, Keyword, Any]:
    return row.e, keyword_of(row.attr, row.written), value_key(row.value)


def _transactions(rows: Iterable[Row]) -> set[int]:
    """The ids that are transactions of the other database."""
    found = {row.t for row in rows if row.t >= FOREIGN_TX_MIN}
    for row in rows:
        if is_transaction_id(row.e) or keyword_of(row.attr, row.written) is TX_INSTANT:
            found.add(row.e)
    return found


# --- naming entities -----------------------------------------------------------------------------


def _recognise(work: Work, rows: Iterable[Row]) -> None:
    """Let foreign ids name the entities that have their identities here already.

    Where several have one identity, one after the other, the first to have it is that entity.
    """
    taken: set[Identity] = set()
    for row in rows:
        if not row.added:
            continue
        try:
            entry = work.entry(row.attr, row.written)
            plan = entry.plan
            if not plan.identity or plan.composite or entry.reverse:
                continue
            if plan.ref:
                value = work.tempids.get(row.value) if type(row.value) is int else None
            else:
                value = stored_value(plan, row.value, entry.text, work.caps)
        except TransactError:
            continue  # declared by these rows, or refused when the row applies
        if value is None:
            continue
        identity = (plan.ident, value_key(value))
        holder = work.holder(plan.ident, value)
        if holder is not None and identity not in taken:
            upsert(work, row.e, holder, identity)
        taken.add(identity)


def _target(work: Work, plan: Plan, raw: Any, row: Row, transactions: set[int], text: bool) -> int:
    """The entity that a reference of the other database names here."""
    if type(raw) is int and 0 < raw <= LONG_MAX:
        if raw in transactions or is_transaction_id(raw):
            return work.tx
        return entity_of(work, raw)
    if type(raw) is Keyword or (text and type(raw) is str and raw[:1] == ":" and len(raw) > 1):
        return known_entity(work, raw, row.written, text=text)
    raise TransactSchema(
        f"Value {shown(raw)} of {plan.ident} names no entity.",
        attribute=plan.ident,
        value=brief(raw),
    )


# --- applying ------------------------------------------------------------------------------------


def _apply(work: Work, row: Row, transactions: set[int]) -> None:
    entry = work.entry(row.attr, row.written)
    plan, text = entry.plan, entry.text
    if entry.reverse:
        raise _malformed(row.written, "has a reverse attribute")
    if plan.composite:  # follows its parts here as it did there
        return
    if not row.added and row.e not in work.tempids:
        return
    value: Any
    if plan.ref:
        value = _target(work, plan, row.value, row, transactions, text)
    else:
        value = stored_value(
            plan,
            row.value,
            text,
            work.caps,
            lambda slot: _target(work, plan, slot, row, transactions, text),
        )
    if not row.added:
        work.drop(work.tempids[row.e], plan, value)
        return
    if plan.schema:
        check_property(plan.ident, value)
    if plan.attribute.preds:
        check_value(work, plan, value)
    work.put(entity_of(work, row.e), plan, value)

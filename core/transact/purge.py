"""Purges: facts leave the past as well as the present.

Entities are found in the history, so a retracted entity is reachable by its former key.  A purge
produces no datoms; what it removes is listed in `Changes.purges`, and facts that the transaction
itself said before the purge are taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from natalog.core.changes import Purge
from natalog.core.errors import (
    EntityIdSyntax,
    TransactError,
    TransactPurge,
    TransactSyntax,
)
from natalog.core.index.encoding import decode_one
from natalog.core.index.tree import OPEN
from natalog.core.schema import IDENT, TX_INSTANT
from natalog.core.shown import brief, shown
from natalog.core.transact.coerce import stored_value
from natalog.core.transact.ended import ended_facts
from natalog.core.transact.resolve import CURRENT_TX, current_tx, find_entity, is_tempid, lookup
from natalog.core.transact.tuples import flush
from natalog.core.values import Keyword, instant_ms, value_key

if TYPE_CHECKING:
    from natalog.core.database import Database
    from natalog.core.transact.plans import Plan
    from natalog.core.transact.state import Work

Operation = Sequence[Any]


def purge_value(work: Work, operation: Operation) -> None:
    """``[:db/purge e a v]``; without a value, all values of the attribute.

    Of a composite tuple only a value that it no longer has: the others go with their parts.
    """
    past = _past(work, operation)
    if not 3 <= len(operation) <= 4:
        raise _size(operation, "[:db/purge entity attribute value?]")
    value = operation[3] if len(operation) == 4 else None
    plan = _plan(work, operation, past_only=value is not None)
    e = _entity(work, past, operation)
    if plan.composite:
        _purge_past_composite(work, past, e, plan, operation)
        return
    if value is None:
        for _, old in _values(work, past, e, plan.ident):
            _purge_fact(work, past, e, plan, old)
        flush(work)
        return
    text = type(operation[0]) is str
    known: Any
    if plan.ref:
        known = _named(work, past, value, operation)
    else:
        try:
            known = stored_value(plan, value, text, work.caps)
        except TransactError:
            known = None
    if known is not None:
        key = value_key(known)
        for held, old in _values(work, past, e, plan.ident):
            if held == key:
                _purge_fact(work, past, e, plan, old)
        flush(work)


def purge_attribute(work: Work, operation: Operation) -> None:
    """``[:db.purge/attribute e a]``: all values past and present, components too."""
    past = _past(work, operation)
    if len(operation) != 3:
        raise _size(operation, "[:db.purge/attribute entity attribute]")
    plan = _plan(work, operation)
    e = _entity(work, past, operation)
    children = [old for _, old in _values(work, past, e, plan.ident)] if plan.component else []
    for _, old in _values(work, past, e, plan.ident):
        _purge_fact(work, past, e, plan, old)
    _purge_entities(work, past, children)
    flush(work)


def purge_entity(work: Work, operation: Operation) -> None:
    """``[:db.purge/entity e]``: the entity, every reference to it, its components likewise."""
    past = _past(work, operation)
    if len(operation) != 2:
        raise _size(operation, "[:db.purge/entity entity]")
    _purge_entities(work, past, [_entity(work, past, operation)])
    flush(work)


def purge_before(work: Work, operation: Operation) -> None:
    """``[:db.history.purge/before instant]``: retracted facts that were asserted before it.

    Current facts and transaction times stay.  Looks at the database before the transaction.
    """
    past = _past(work, operation)
    if len(operation) != 2:
        raise _size(operation, "[:db.history.purge/before instant]")
    cutoff = _instant(operation)
    for e, attr, value in _closed_before(past.current(), cutoff):
        work.purges.append(Purge(e, attr, value, cutoff))


def purge_ended(work: Work, operation: Operation) -> None:
    """``[:db.history.purge/ended instant attribute limit?]``: facts that ended before it.

    Of one attribute, and of composites that hold it.  Current facts stay.  Looks at the database
    before the transaction.
    """
    past = _past(work, operation)
    if not 3 <= len(operation) <= 4:
        raise _size(operation, "[:db.history.purge/ended instant attribute limit?]")
    cutoff = _instant(operation)
    plan = _plan(work, operation)
    limit = operation[3] if len(operation) == 4 else None
    if limit is not None and (type(limit) is not int or limit < 1):
        raise TransactSyntax(
            f"{shown(operation)} has a limit that is no positive number.",
            operation=shown(operation),
        )
    work.purges.extend(ended_facts(past.current(), plan.ident, cutoff, limit))


def _instant(operation: Operation) -> int:
    """The instant that an operation names first, in milliseconds."""
    at = operation[1]
    if type(operation[0]) is str and type(at) is str:
        try:
            at = datetime.fromisoformat(at)
        except ValueError:
            at = None
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise TransactSyntax(
            f"{shown(operation)} needs an instant with a time zone.", operation=shown(operation)
        )
    return instant_ms(at)


def _closed_before(db: Database, cutoff: int) -> Iterable[tuple[int, Keyword, Any]]:
    """Facts with a retracted assertion made before ``cutoff`` (ms); O(facts), by column."""
    instants = db.instants()
    for attr, index in db.indexes.items():
        rows = index.aevt.flat()
        hit = (rows[3] != OPEN) & (instants.of(rows[2]) < cutoff)
        if not hit.any():
            continue
        facts = dict.fromkeys(zip(rows[0][hit].tolist(), rows[1][hit].tolist(), strict=True))
        for e, code in facts:
            yield e, attr, decode_one(code, index.kind, db.pool)


# --- the facts of an entity ------------------------------------------------------------------


def _purge_entities(work: Work, past: Database, entities: Iterable[int]) -> None:
    waiting = list(entities)
    seen: set[int] = set()
    while waiting:
        e = waiting.pop()
        if e in seen:
            continue
        seen.add(e)
        known = dict.fromkeys([*past.attributes_of(e), *work.cells_of(e)])
        for attr in known:
            plan = work.plan(attr)
            for _, old in _values(work, past, e, attr):
                if plan.component:
                    waiting.append(old)
                _purge_fact(work, past, e, plan, old)
        referrers = dict.fromkeys([*past.referrers(e), *work.incoming.get(e, ())])
        for source, attr in referrers:
            _purge_fact(work, past, source, work.plan(attr), e)


def _values(work: Work, past: Database, e: int, attr: Keyword) -> list[tuple[Any, Any]]:
    """``(value_key, value)`` of every value that an attribute has or ever had."""
    found = {value_key(value): value for value in past.values(e, attr)}
    found.update(work.cell(e, attr))
    return list(found.items())


def _purge_fact(work: Work, past: Database, e: int, plan: Plan, value: Any) -> None:
    attr = plan.ident
    if attr is TX_INSTANT:
        raise TransactPurge(
            f":db/txInstant of {e} cannot be purged: transaction time is immutable.",
            entity=e,
            attribute=attr,
        )
    key = value_key(value)
    fact = (e, attr, key)
    if fact not in work.purged:
        work.purges.append(Purge(e, attr, value))
    work.purged[fact] = len(work.datoms)
    if work.cell(e, attr).pop(key, None) is not None:
        work.forget(e, plan, key)
    elif plan.schema:
        work.schema_changes(e)
    for composite in plan.parts:
        position = (composite.tuple_attrs or ()).index(attr)
        whole = work.plan(composite.ident)
        for _, old in _values(work, past, e, composite.ident):
            if value_key(old[position]) == key:
                _purge_fact(work, past, e, whole, old)


# --- reading the operation -------------------------------------------------------------------


def _past(work: Work, operation: Operation) -> Database:
    """The history; raises `TransactPurge` when none is kept."""
    if not work.keep_history:
        raise TransactPurge(
            f"{operation[0]} needs a database that keeps history.", operation=str(operation[0])
        )
    flush(work)
    if work.dirty:
        work.refresh()
    return work.db.history()


def _purge_past_composite(
    work: Work, past: Database, e: int, plan: Plan, operation: Operation
) -> None:
    """A tuple that was superseded may outlive its parts, where those keep no history."""
    value = operation[3]
    key = value_key(tuple(value) if isinstance(value, list) else value)
    if key in work.cell(e, plan.ident):
        raise _composite(plan, operation)
    for held, old in _values(work, past, e, plan.ident):
        if held == key:
            _purge_fact(work, past, e, plan, old)


def _composite(plan: Plan, operation: Operation) -> TransactSyntax:
    return TransactSyntax(
        f"{plan.ident} follows its parts; purge those: {shown(operation)}.", attribute=plan.ident
    )


def _plan(work: Work, operation: Operation, *, past_only: bool = False) -> Plan:
    entry = work.entry(operation[2], operation)
    if entry.reverse:
        raise TransactSyntax(
            f"The reverse attribute {operation[2]} has a place only in maps: {shown(operation)}.",
            attribute=operation[2],
        )
    if entry.plan.composite and not past_only:
        raise _composite(entry.plan, operation)
    return entry.plan


def _entity(work: Work, past: Database, operation: Operation) -> int:
    found = _named(work, past, operation[1], operation)
    if found is None:
        raise TransactPurge(
            f"Nothing has or had the id {shown(operation[1])}; there is nothing to purge.",
            entity=operation[1],
        )
    return found


def _named(work: Work, past: Database, raw: Any, operation: Operation) -> int | None:
    """The entity that ``raw`` names now, else the one that it named last."""
    if is_tempid(raw):
        found = current_tx(work, raw)
        if found is not None:
            return found
        if type(operation[0]) is str and type(raw) is str and raw[:1] == ":" and len(raw) > 1:
            raw = Keyword(raw)
        else:
            raise TransactSyntax(
                f"Temporary id {shown(raw)} has no place in {shown(operation)}.",
                operation=shown(operation),
            )
    if raw is None or type(raw) is bool:
        raise EntityIdSyntax(
            f"{shown(raw)} is no entity id: {shown(operation)}.", entity=brief(raw)
        )
    if type(raw) is int or raw is CURRENT_TX:
        return find_entity(work, raw, operation)
    if type(raw) is Keyword:
        return find_entity(work, raw, operation) or _latest(past, IDENT, raw)
    if isinstance(raw, list | tuple):
        text = type(operation[0]) is str
        found = lookup(work, raw, text=text)
        if found is not None:
            return found
        entry = work.entry(raw[0], raw)
        if raw[1] is None:
            return None
        if entry.plan.ref:
            target = _named(work, past, raw[1], operation)
            return None if target is None else _latest(past, entry.plan.ident, target)
        try:
            value = stored_value(entry.plan, raw[1], text or entry.text, work.caps)
        except TransactError:
            return None
        return _latest(past, entry.plan.ident, value)
    raise EntityIdSyntax(f"{shown(raw)} is no entity id: {shown(operation)}.", entity=brief(raw))


def _latest(past: Database, attr: Keyword, value: Any) -> int | None:
    """The entity that had ``value`` last."""
    held = past.holders(attr, value)
    if len(held) < 2:
        return held[0] if held else None
    key = value_key(value)

    def last_said(e: int) -> int:
        return max(tx for said, tx in past.facts(e, attr) if value_key(said) == key)

    return max(held, key=last_said)


def _size(operation: Operation, form: str) -> TransactSyntax:
    return TransactSyntax(
        f"{shown(operation)} does not have the form {form}.", operation=shown(operation)
    )

"""The vector form: ``[:db/add e a v]`` and its relatives, one function an operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from natalog.core.errors import (
    NatalogError,
    TransactCas,
    TransactError,
    TransactSchema,
    TransactSyntax,
)
from natalog.core.limits import LANE_BITS, TX_BASE
from natalog.core.shown import brief, shown
from natalog.core.transact import purge
from natalog.core.transact.functions import function_name
from natalog.core.transact.load import load
from natalog.core.transact.maps import additive_entity, assert_one, scalar, transact_map
from natalog.core.transact.plans import Entry, Plan
from natalog.core.transact.resolve import (
    find_entity,
    is_tempid,
    is_transaction_id,
    known_entity,
    lookup,
    reference,
)
from natalog.core.transact.shapes import assert_block
from natalog.core.transact.tempids import upsert
from natalog.core.transact.tuples import flush
from natalog.core.values import Datom, Keyword, is_long, kw, value_key

if TYPE_CHECKING:
    from natalog.core.transact.state import Work

Operation = Sequence[Any]

BLOCK_MIN: Final = 64
"""Operations that are looked at together first."""
_SEQUENCE: Final = (list, tuple)
FUNCTION_CALLS_MAX: Final = 64
"""Transaction functions that may be called from within each other."""


def transact_all(work: Work, operations: Sequence[Any]) -> None:
    """Apply operations in order; nil is skipped.  Composites are brought up to date after each."""
    whole = work.depth == 0
    if len(operations) >= BLOCK_MIN and assert_block(work, operations):
        return
    for operation in operations:
        if whole and work.pending:
            flush(work)
        if isinstance(operation, dict):
            transact_map(work, operation)
        elif isinstance(operation, _SEQUENCE):
            transact_vector(work, operation)
        elif operation is not None:
            raise TransactSyntax(
                f"{shown(operation)} is no operation; a map or a vector is expected.",
                operation=shown(operation),
            )


def transact_vector(work: Work, operation: Operation) -> None:
    """Apply one operation in vector form, or one `Datom`."""
    if type(operation) is Datom:
        e, a, v, tx, added = operation
        _add(work, (":db/add", e, a, v, tx)) if added else _retract(work, (_RETRACT, e, a, v))
        return
    if not operation:
        raise TransactSyntax("An empty vector is no operation.", operation=shown(operation))
    name = operation[0]
    try:
        handler = _HANDLERS.get(name)
    except TypeError:
        handler = None
    if handler is not None:
        handler(work, operation)
        return
    called = function_name(name)
    if called is not None and called in work.functions.transaction:
        _run(work, called, operation[1:])
        return
    raise TransactSyntax(
        f"{name!r} is no operation: {shown(operation)}.", operation=shown(operation)
    )


# --- adding --------------------------------------------------------------------------------------


def _add(work: Work, operation: Operation) -> None:
    size = len(operation)
    if size == 4:  # the short way: an entity that is known, and a scalar of the right class
        _, raw, attr, value = operation
        known = work.plans.get(attr) if type(attr) is Keyword else None
        if known is not None and type(value) is known.fast and (not known.ranged or is_long(value)):
            kind = type(raw)
            e: int | None = None
            if kind is int:
                e = raw
            elif kind is list or kind is tuple:
                e = lookup(work, raw, text=type(operation[0]) is str)
            if e is None or not 0 < e < TX_BASE:
                e = additive_entity(work, raw, operation, text=type(operation[0]) is str)
            work.put(e, known.plan, value)
            return
    if not 4 <= size <= 5:
        raise _size(operation, "[:db/add entity attribute value]")
    entry, text = _attribute(work, operation, asserted=True)
    plan = entry.plan
    raw, value = operation[1], operation[3]
    if value is None:
        raise TransactSyntax(
            f"Attribute {plan.ident} was given nil, which is no value.", attribute=plan.ident
        )
    diff = size == 5 and operation[4] is not None
    if diff:
        _check_transaction(work, operation[4], operation)
    if plan.identity and is_tempid(raw):
        _upsert(work, entry, operation, text)
    e = additive_entity(work, raw, operation, text=type(operation[0]) is str, diff=diff)
    if plan.composite and diff:
        work.expected.append((e, plan, scalar(work, plan, value, operation, text)))
        return
    if plan.ref and isinstance(value, dict) and not value:
        return
    assert_one(work, e, plan, value, operation, text)


def _upsert(work: Work, entry: Entry, operation: Operation, text: bool) -> None:
    """Let the temporary id of an addition name the entity that has the identity already."""
    plan = entry.plan
    raw, value = operation[1], operation[3]
    if plan.composite:
        return
    if plan.ref:
        if is_tempid(value):
            return
        known: Any = find_entity(work, value, operation, text=text)
        if known is None:
            return
    else:
        known = scalar(work, plan, value, operation, text)
    holder = work.holder(plan.ident, known)
    if holder is not None:
        upsert(work, raw, holder, (plan.ident, value_key(known)))


def _check_transaction(work: Work, tx: Any, operation: Operation) -> None:
    """The fifth element of an addition names where the fact was read, as a diff does.

    The fact gets the current transaction all the same: nothing is written into the past.
    """
    if type(tx) is int and is_transaction_id(tx):
        own = tx >> LANE_BITS == work.tx >> LANE_BITS
        if not own or tx <= work.tx:
            return
    raise TransactSyntax(
        f"{tx!r} is no transaction: {shown(operation)}.", operation=shown(operation)
    )


def _attribute(work: Work, operation: Operation, *, asserted: bool) -> tuple[Entry, bool]:
    """The attribute of an operation, and whether the operation is written in strings.

    An operation named by a keyword names its attributes in the same language, so that a string in
    its place is not declared; reverse attributes belong to maps.
    """
    raw = operation[2]
    if raw is None:
        raise TransactSyntax(
            f"nil is no attribute: {shown(operation)}.",
            attribute=brief(raw),
            operation=shown(operation),
        )
    keyword_language = type(operation[0]) is Keyword
    if asserted and keyword_language and work.write and type(raw) is str and raw[:1] != ":":
        raise TransactSchema(
            f"Attribute {shown(raw)} is not declared; in an operation named by a keyword it is "
            f"written :{raw[:100]}: {shown(operation)}.",
            attribute=brief(raw),
            operation=shown(operation),
        )
    entry = work.entry(raw, operation)
    if entry.reverse:
        raise TransactSyntax(
            f"The reverse attribute {raw} has a place only in maps: {shown(operation)}.",
            attribute=brief(raw),
            operation=shown(operation),
        )
    return entry, entry.text and not keyword_language


def _size(operation: Operation, form: str) -> TransactSyntax:
    return TransactSyntax(
        f"{shown(operation)} does not have the form {form}.", operation=shown(operation)
    )


# --- retracting ----------------------------------------------------------------------------------


def _retract(work: Work, operation: Operation) -> None:
    if not 3 <= len(operation) <= 5:
        raise _size(operation, "[:db/retract entity attribute value?]")
    entry, text = _attribute(work, operation, asserted=False)
    plan = entry.plan
    e = find_entity(work, operation[1], operation, text=type(operation[0]) is str)
    if e is None:
        return
    if plan.composite:
        raise _composite(plan, operation)
    value = operation[3] if len(operation) > 3 else None
    if value is None:
        work.drop_all(e, plan)
        return
    known: Any
    if not plan.ref:
        known = scalar(work, plan, value, operation, text)
    elif is_tempid(value) and value in work.tempids:
        known = work.tempids[value]
    else:
        known = known_entity(work, value, operation, text=text)
    work.drop(e, plan, known)


def _composite(plan: Plan, operation: Operation) -> TransactSyntax:
    return TransactSyntax(
        f"{plan.ident} follows its parts and cannot be changed: {shown(operation)}.",
        attribute=plan.ident,
        operation=shown(operation),
    )


def _retract_attribute(work: Work, operation: Operation) -> None:
    if len(operation) != 3:
        raise _size(operation, "[:db.fn/retractAttribute entity attribute]")
    entry, _ = _attribute(work, operation, asserted=False)
    e = find_entity(work, operation[1], operation, text=type(operation[0]) is str)
    if e is None:
        return
    if entry.plan.composite:
        raise _composite(entry.plan, operation)
    _retract_values(work, e, entry.plan.ident, set())


def _retract_entity(work: Work, operation: Operation) -> None:
    if len(operation) != 2:
        raise _size(operation, "[:db/retractEntity entity]")
    e = find_entity(work, operation[1], operation, text=type(operation[0]) is str)
    if e is not None:
        retract_entity(work, e, set())


def retract_entity(work: Work, e: int, seen: set[int]) -> None:
    """Retract an entity's facts, the references to it, and its components likewise."""
    waiting = [e]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for attr in work.attributes_of(one):
            waiting.extend(_retract_values(work, one, attr, None))
        for source, attr in list(work.referrers(one)):
            work.drop(source, work.plan(attr), one)


def _retract_values(work: Work, e: int, attr: Keyword, seen: set[int] | None) -> list[int]:
    """Retract all values of an attribute; components follow, unless they are left to the caller.

    Returns the components that the values named.
    """
    plan = work.plan(attr)
    values = work.drop_all(e, plan)
    children: list[int] = values if plan.component else []
    if seen is not None:
        for child in children:
            retract_entity(work, child, seen)
    return children


# --- compare and set -----------------------------------------------------------------------------


def _compare_and_set(work: Work, operation: Operation) -> None:
    if len(operation) != 5:
        raise _size(operation, "[:db/cas entity attribute old new]")
    _, raw, _, old, new = operation
    entry, text = _attribute(work, operation, asserted=True)
    plan = entry.plan
    e = known_entity(work, raw, operation, text=type(operation[0]) is str)
    if new is None:
        raise TransactSyntax(
            f"Attribute {plan.ident} was given nil, which is no value.", attribute=plan.ident
        )
    if plan.ref:
        if is_tempid(old) or is_tempid(new):
            find_entity(work, old if is_tempid(old) else new, operation)  # names the misplaced one
        new = reference(work, plan, new, operation, text=text)
    elif not plan.composite:
        new = scalar(work, plan, new, operation, text)
    held = work.cell(e, plan.ident)
    if old is not None:
        matches = _expected_key(work, entry, old, operation, text) in held
    else:
        matches = not held
    if not matches:
        raise TransactCas(
            f"{plan.ident} of {e} is {_shown(list(held.values()), plan.many)}, not {shown(old)}.",
            entity=e,
            attribute=plan.ident,
            expected=brief(old),
            found=list(held.values()),
        )
    additive_entity(work, e, operation, text=False)
    assert_one(work, e, plan, new, operation, text)


def _expected_key(work: Work, entry: Entry, old: Any, operation: Operation, text: bool) -> Any:
    """The `value_key` of an expected value; a value of another class equals nothing."""
    if entry.plan.ref:
        return known_entity(work, old, operation, text=text)
    try:
        return value_key(scalar(work, entry.plan, old, operation, text))
    except TransactError:
        return _NOTHING


def _shown(values: list[Any], many: bool) -> str:
    if not values:
        return "nothing"
    return repr(values) if many else repr(values[0])


# --- transaction functions -----------------------------------------------------------------------


def _call(work: Work, operation: Operation) -> None:
    if len(operation) < 2:
        raise _size(operation, "[:db.fn/call function argument ...]")
    name = function_name(operation[1])
    if name is None or name not in work.functions.transaction:
        raise TransactSyntax(
            f"No transaction function {shown(operation[1])} is registered.",
            function=shown(operation[1]),
        )
    _run(work, name, operation[2:])


def _run(work: Work, name: str, arguments: Sequence[Any]) -> None:
    from natalog.core.apply import apply_changes

    if work.depth >= FUNCTION_CALLS_MAX:
        raise TransactSyntax(
            f"Transaction functions call each other more than {FUNCTION_CALLS_MAX} deep.",
            function=name,
        )
    flush(work)
    if work.dirty:
        work.refresh()
    between = apply_changes(work.db, work.changes())
    try:
        produced = work.functions.transaction[name](between, *arguments)
    except NatalogError:
        raise
    except Exception as error:
        raise TransactError(
            f"The transaction function {name} failed: {error}",
            type="transact/function",
            function=name,
        ) from error
    if produced is None:
        return
    if not isinstance(produced, list | tuple):
        raise TransactSyntax(
            f"The transaction function {name} returned {shown(produced)}, which is no list of "
            "operations.",
            function=name,
        )
    work.depth += 1
    transact_all(work, produced)
    work.depth -= 1


# --- dispatch ------------------------------------------------------------------------------------

Handler = Callable[["Work", Operation], None]
_RETRACT: Final = kw("db/retract")
_NOTHING: Final = object()

_NAMED: Final[dict[str, Handler]] = {
    "db/add": _add,
    "db/retract": _retract,
    "db/retractEntity": _retract_entity,
    "db.fn/retractEntity": _retract_entity,
    "db.fn/retractAttribute": _retract_attribute,
    "db/cas": _compare_and_set,
    "db.fn/cas": _compare_and_set,
    "db.fn/call": _call,
    "db/load": load,
    "db/purge": purge.purge_value,
    "db.purge/attribute": purge.purge_attribute,
    "db.purge/entity": purge.purge_entity,
    "db.history.purge/before": purge.purge_before,
    "db.history.purge/ended": purge.purge_ended,
}


def _spellings() -> dict[Any, Handler]:
    table: dict[Any, Handler] = {}
    for name, handler in _NAMED.items():
        table[name] = table[":" + name] = table[kw(name)] = handler
    return table


_HANDLERS: Final = _spellings()

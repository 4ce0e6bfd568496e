"""The map form: one entity with its attributes, nested entities and reverse references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from natalog.core.errors import TransactError, TransactSyntax, TransactUpsert
from natalog.core.limits import LANE_BITS
from natalog.core.schema_rules import check_property
from natalog.core.shown import brief, shown
from natalog.core.transact.coerce import is_collection, members, stored_value
from natalog.core.transact.ensure import check_value
from natalog.core.transact.plans import PLAIN, Entry, Plan
from natalog.core.transact.resolve import (
    current_tx,
    find_entity,
    is_tempid,
    known_entity,
    looks_like_lookup,
    reference,
    target_entity,
)
from natalog.core.transact.shapes import assert_shape
from natalog.core.transact.tempids import Identity, allocate, claimed, entity_of, upsert
from natalog.core.transact.tuples import flush
from natalog.core.values import Datom, Keyword, is_long, kw, value_key

if TYPE_CHECKING:
    from natalog.core.transact.state import Work

NESTED_MAPS_MAX: Final = 128
"""Levels of maps within maps."""

_ID_KEYS: Final = frozenset({kw("db/id"), "db/id", ":db/id"})
_ENSURE_KEYS: Final = frozenset({kw("db/ensure"), "db/ensure", ":db/ensure"})
_new_datom: Final = tuple.__new__

Pairs = list[tuple[Entry, Any]]


def transact_map(work: Work, operation: dict[Any, Any]) -> int | None:
    """Assert what a map says; returns its entity, None for an empty map."""
    if not operation:
        return None
    made = assert_shape(work, operation)
    if made is not None:
        return made
    work.depth += 1
    if work.depth > NESTED_MAPS_MAX:
        raise TransactSyntax(f"Maps are nested deeper than {NESTED_MAPS_MAX} levels.")
    entity: Any = None
    specs: Any = None
    identifies = False
    pairs: Pairs = []
    plans = work.plans
    for raw, value in operation.items():
        entry = plans.get(raw)
        if entry is None:
            if raw in _ID_KEYS:
                entity = value
                continue
            if raw in _ENSURE_KEYS:
                specs = value
                continue
            entry = work.entry(raw, operation)
            plans = work.plans
        if entry.plan.identifies and not entry.reverse:
            identifies = True
        pairs.append((entry, value))
    e, new = _entity_of_map(work, operation, entity, pairs, identifies)
    if specs is not None:
        work.ensures.extend((e, spec) for spec in (specs if is_collection(specs) else [specs]))
    if new:
        _assert_new(work, e, pairs, operation)
    else:
        for entry, value in pairs:
            assert_entry(work, e, entry, value, operation)
    work.depth -= 1
    return e


def _assert_new(work: Work, e: int, pairs: Pairs, operation: Any) -> None:
    """The pairs of an entity that has no facts yet; plain scalars take the short way."""
    cells = work.cells[e] = {}
    datoms = work.datoms
    tx = work.tx
    for entry, value in pairs:
        if (
            type(value) is entry.fast
            and (not entry.ranged or is_long(value))
            and entry.plan.ident not in cells
        ):
            plan = entry.plan
            cells[plan.ident] = {value if plan.plain else value_key(value): value}
            datoms.append(_new_datom(Datom, (e, plan.ident, value, tx, True)))
        else:
            assert_entry(work, e, entry, value, operation)


def assert_entry(work: Work, e: int, entry: Entry, value: Any, operation: Any) -> None:
    """What a map says about one attribute: one value, several, a nested map, or backwards."""
    plan = entry.plan
    if entry.reverse:
        several = is_collection(value) and not looks_like_lookup(work, value)
        for source in members(value) if several else [value]:
            _assert_reverse(work, e, plan, source, operation, entry.text)
        return
    if plan.many and is_collection(value) and not (plan.ref and looks_like_lookup(work, value)):
        for one in members(value):
            assert_one(work, e, plan, one, operation, entry.text)
        return
    assert_one(work, e, plan, value, operation, entry.text)


def assert_one(work: Work, e: int, plan: Plan, value: Any, operation: Any, text: bool) -> None:
    """Assert one value, as written."""
    if plan.ref:
        if isinstance(value, dict):
            child = transact_map(work, value)
            if child is None:
                return
            value = child
        else:
            value = reference(work, plan, value, operation, text=text)
    else:
        if plan.composite:
            raise TransactSyntax(
                f"{plan.ident} follows its parts and cannot be written: {shown(operation)}.",
                attribute=plan.ident,
                operation=shown(operation),
            )
        if type(value) is not plan.exact or plan.value_type == "long":
            value = scalar(work, plan, value, operation, text)
        if plan.schema:
            check_property(plan.ident, value)
    if plan.attribute.preds:
        check_value(work, plan, value)
    work.put(e, plan, value)


def scalar(work: Work, plan: Plan, value: Any, operation: Any, text: bool) -> Any:
    """The stored form of a value that is no reference; references inside tuples are resolved."""
    return stored_value(
        plan,
        value,
        text,
        work.caps,
        lambda slot: reference(work, plan, slot, operation, text=text),
    )


def _assert_reverse(
    work: Work, e: int, plan: Plan, source: Any, operation: Any, text: bool
) -> None:
    if isinstance(source, dict):
        child = transact_map(work, source)
        if child is None:
            return
        origin = child
    else:
        origin = additive_entity(work, source, operation, text=text)
    work.put(origin, plan, e)


def additive_entity(work: Work, raw: Any, operation: Any, *, text: bool, diff: bool = False) -> int:
    """The entity that facts are added to; temporary ids are welcome."""
    if is_tempid(raw):
        if type(raw) is str:
            found = current_tx(work, raw)
            if found is not None:
                return found
            if text and len(raw) > 1 and raw[0] == ":":
                return known_entity(work, raw, operation, text=True)
        work.used_as_entity.add(raw)
        return entity_of(work, raw)
    return target_entity(work, raw, operation, text=text, diff=diff)


def _entity_of_map(
    work: Work, operation: dict[Any, Any], raw: Any, pairs: Pairs, identifies: bool
) -> tuple[int, bool]:
    """The entity that a map describes, and whether it is new and without facts."""
    found = None
    identities: list[Identity] = []
    if identifies:
        if work.pending:
            flush(work)
        found, identities = _identified(work, operation, pairs)
    if raw is None:
        if found is not None:
            return found[0], False
        claim = claimed(work, identities)
        if claim is not None:
            return entity_of(work, claim), False
        return allocate(work), True
    if is_tempid(raw) and current_tx(work, raw) is None:
        text = type(raw) is str and len(raw) > 1 and raw[0] == ":"
        if not (text and ("db/id" in operation or ":db/id" in operation)):
            work.used_as_entity.add(raw)
            if found is not None:
                upsert(work, raw, found[0], found[1])
                return found[0], False
            before = work.max_eid
            e = entity_of(work, raw)
            return e, e > before and e not in work.cells and e not in work.spans
    e = target_entity(work, raw, operation, text=type(raw) is str)
    if found is not None and found[0] != e:
        raise TransactUpsert(
            f"{found[1][0]} of {shown(operation)} belongs to entity {found[0]}, "
            f"but the map is about entity {e}.",
            attribute=found[1][0],
            entity=e,
            holder=found[0],
        )
    if e > work.max_eid and e >> LANE_BITS == work.lane:
        work.max_eid = e
    return e, False


def _identified(
    work: Work, operation: dict[Any, Any], pairs: Pairs
) -> tuple[tuple[int, Identity] | None, list[Identity]]:
    """The entity that has the identities a map names, and the identities that nobody has."""
    found: tuple[int, Identity] | None = None
    vacant: list[Identity] = []
    values: dict[Keyword, Any] = {}
    for spot, (entry, value) in enumerate(pairs):
        plan = entry.plan
        if not plan.identifies or entry.reverse:
            continue
        if plan.identity and plan.many and is_collection(value):
            candidates = list(value)
        else:
            candidates = [value]
        for candidate in candidates:
            known = _known_value(work, plan, candidate, operation, entry.text)
            if known is None:
                continue
            if plan.parts:
                values[plan.ident] = known
            if candidate is value and not plan.ref:
                pairs[spot] = (entry, known)
            if plan.identity:
                found = _merge(work, plan.ident, known, found, vacant, operation)
    if values:
        composites = {part.ident: part for entry, _ in pairs for part in entry.plan.parts}
        for composite in composites.values():
            parts = composite.tuple_attrs or ()
            if composite.unique == "identity" and all(part in values for part in parts):
                whole = tuple(values[part] for part in parts)
                found = _merge(work, composite.ident, whole, found, vacant, operation)
    return found, vacant


def _merge(
    work: Work,
    attr: Keyword,
    value: Any,
    found: tuple[int, Identity] | None,
    vacant: list[Identity],
    operation: Any,
) -> tuple[int, Identity] | None:
    holder = work.holder(attr, value)
    identity = (attr, value if type(value) in PLAIN else value_key(value))
    if holder is None:
        vacant.append(identity)
        return found
    if found is not None and found[0] != holder:
        raise TransactUpsert(
            f"{attr} {shown(value)} belongs to entity {holder}, but {found[1][0]} of the same map "
            f"belongs to entity {found[0]}.",
            attribute=attr,
            value=brief(value),
            entities=[found[0], holder],
        )
    return found or (holder, identity)


def _known_value(work: Work, plan: Plan, value: Any, operation: Any, text: bool) -> Any:
    """The value that may identify an entity already; None for what only the operation will make."""
    if plan.ref:
        if isinstance(value, dict):
            return None
        if type(value) is int and value > 0:
            return value
        if is_tempid(value):
            return work.tempids.get(value)
        try:
            return find_entity(work, value, operation, text=text)
        except TransactError:
            return None
    if plan.composite:
        return None
    if type(value) is plan.exact and plan.value_type != "long":
        return value
    return scalar(work, plan, value, operation, text)

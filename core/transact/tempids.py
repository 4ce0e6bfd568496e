"""Temporary ids: one name for one entity of a transaction, whichever comes first, use or upsert.

A temporary id may be used before the operation that shows that it names an existing entity.  Then
the transaction starts again with what was learned, its `Bindings`; so the order of the operations
does not matter, and no id is spent on an entity that is not new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from natalog.core.errors import TransactError, TransactUpsert
from natalog.core.values import Keyword

if TYPE_CHECKING:
    from natalog.core.transact.state import Work

Identity = tuple[Keyword, Any]
"""A unique attribute and the `value_key` of a value."""


@dataclass(slots=True)
class Bindings:
    """What earlier attempts at the transaction learned about its temporary ids.

    ``existing``: entities they name.  ``aliases``: other temporary ids they equal.  ``claims``:
    the temporary id whose entity gets an identity that no entity has yet.
    """

    existing: dict[Any, int] = field(default_factory=dict)
    aliases: dict[Any, Any] = field(default_factory=dict)
    claims: dict[Identity, Any] = field(default_factory=dict)

    def root(self, tempid: Any) -> Any:
        """The temporary id that stands for this one and its aliases."""
        while tempid in self.aliases:
            tempid = self.aliases[tempid]
        return tempid


class StartAgain(Exception):
    """A temporary id that was in use turned out to name another entity; `Bindings` know it now."""


def allocate(work: Work) -> int:
    """The id of a new entity: one above the highest of the lane."""
    work.max_eid = e = work.max_eid + 1
    work.fresh.add(e)
    return e


def entity_of(work: Work, tempid: Any) -> int:
    """The entity that a temporary id names, new when it is first needed."""
    found = work.tempids.get(tempid)
    if found is not None:
        return found
    root = work.bindings.root(tempid)
    if root != tempid:
        found = entity_of(work, root)
    elif tempid in work.bindings.existing:
        found = work.upserted[tempid] = work.bindings.existing[tempid]
    else:
        found = allocate(work)
        work.owners[found] = tempid
    work.tempids[tempid] = found
    return found


def claimed(work: Work, identities: list[Identity]) -> Any:
    """The temporary id that an earlier attempt found to have one of these identities, or None."""
    claims = work.bindings.claims
    if claims:
        for identity in identities:
            if identity in claims:
                return claims[identity]
    return None


def upsert(work: Work, tempid: Any, e: int, identity: Identity) -> None:
    """Let a temporary id name the entity ``e`` that has ``identity``.

    Raises `TransactUpsert` if it already names another existing entity, `StartAgain` if it was
    given a new one.
    """
    named = work.tempids.get(tempid)
    if named is None:
        root = work.bindings.root(tempid)
        named = work.tempids.get(root)
        if named is None:
            named = work.bindings.existing.get(root)
        if named is None:
            work.tempids[tempid] = work.upserted[tempid] = e
            return
    if named == e:
        work.tempids[tempid] = e
        return
    if tempid in work.upserted or named not in work.fresh:
        raise TransactUpsert(
            f"Temporary id {tempid!r} names both {named} and {e}.",
            tempid=tempid,
            entities=[named, e],
            attribute=identity[0],
        )
    root = work.bindings.root(tempid)
    if e not in work.fresh:
        work.bindings.existing[root] = e
    elif e in work.owners:
        other = work.bindings.root(work.owners[e])
        if other == root:
            raise TransactUpsert(
                f"Temporary id {tempid!r} names both {named} and {e}.",
                tempid=tempid,
                entities=[named, e],
                attribute=identity[0],
            )
        work.bindings.aliases[root] = other
    elif work.bindings.claims.get(identity) == root:
        raise TransactUpsert(
            f"Temporary id {tempid!r} names both {named} and {e}.",
            tempid=tempid,
            entities=[named, e],
            attribute=identity[0],
        )
    else:
        work.bindings.claims[identity] = root
    raise StartAgain


def foresee(work: Work, operations: Sequence[Any]) -> None:
    """Bind all temporary ids that the database's identities name already.

    Without it a transaction would start again once for each.  Only for transactions of additions:
    retractions could make an identity vacant first.  ``work`` must have done nothing yet.
    """
    found: dict[Any, int] = {}
    for operation in operations:
        if isinstance(operation, dict) or operation is None:
            continue
        if not isinstance(operation, list | tuple) or len(operation) != 4:
            return
        name, tempid, attr, value = operation
        if str(name).removeprefix(":") != "db/add":
            return
        if not isinstance(tempid, str) and (type(tempid) is not int or tempid >= 0):
            continue
        try:
            plan = work.entry(attr, operation).plan
        except TransactError:
            continue
        if plan.identity and not plan.ref and type(value) is plan.exact:
            holder = work.holder(plan.ident, value)
            if holder is not None and found.setdefault(tempid, holder) != holder:
                return
    for tempid, holder in found.items():
        work.bindings.existing.setdefault(work.bindings.root(tempid), holder)

"""The database as it stands in the middle of a transaction.

`Work` lays the facts of the transaction over an immutable database value.  A *cell* holds the
current values of one attribute of one entity, by `value_key`; it is read from the database when it
is first touched and then follows every operation.  All changes go through `put` and `drop`, which
also write the report's datoms and keep the uniques, references, composites and schema in step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from natalog.core.changes import Block, Changes, Purge
from natalog.core.errors import TransactSchema, TransactSyntax, TransactUnique
from natalog.core.limits import CONFLICTS_MAX, LANE_BITS, TX_BASE
from natalog.core.schema import IDENT, TX_INSTANT, VALID_FROM, VALID_TO, Attribute
from natalog.core.shown import brief, shown
from natalog.core.transact.functions import Registry
from natalog.core.transact.plans import (
    PLAIN,
    SYSTEM_ENTRIES,
    Caps,
    Entry,
    Plan,
    keyword_of,
    plan_of,
    straight,
)
from natalog.core.transact.schema_check import refreshed
from natalog.core.values import Datom, Keyword, instant_ms, value_key

if TYPE_CHECKING:
    from natalog.core.database import Database
    from natalog.core.transact.shapes import Shape
    from natalog.core.transact.tempids import Bindings

Cell = dict[Any, Any]
"""Current values of one attribute of one entity: `value_key` to value."""

_UNKNOWN: Final = object()
_new_datom: Final = tuple.__new__


class Work:
    """One transaction in progress."""

    __slots__ = (
        "_caps",
        "base",
        "bindings",
        "blocks",
        "cells",
        "conflicts",
        "conflicts_max",
        "datoms",
        "db",
        "depth",
        "dirty",
        "ensures",
        "expected",
        "first_eid",
        "fresh",
        "functions",
        "incoming",
        "instant_ms",
        "keep_history",
        "lane",
        "max_eid",
        "owners",
        "pending",
        "plans",
        "purged",
        "purges",
        "schema",
        "schema_mark",
        "shapes",
        "spans",
        "tempids",
        "touched_schema",
        "tx",
        "uniques",
        "upserted",
        "used_as_entity",
        "used_as_value",
        "valid",
        "write",
    )

    def __init__(
        self,
        db: Database,
        tx: int,
        instant_ms: int | None,
        functions: Registry,
        bindings: Bindings,
    ) -> None:
        self.db = db
        self.tx = tx
        self.instant_ms = instant_ms
        self.functions = functions
        self.bindings = bindings
        self.base = db.schema
        self.schema = db.schema
        self.keep_history = db.config.keep_history
        self.write = db.config.schema_flexibility == "write"
        self._caps: Caps | None = None
        if not self.schema.plans:
            self.schema.plans.update(SYSTEM_ENTRIES)
        self.plans: dict[Any, Entry] = self.schema.plans
        self.shapes: dict[Any, Shape | None] = self.schema.shapes
        self.lane = db.lane
        # a new lane continues its ancestors' entities but counts from its own start
        self.first_eid = self.max_eid = max(db.max_eid, self.lane << LANE_BITS)
        self.datoms: list[Datom] = []
        self.blocks: list[Block] = []
        self.purges: list[Purge] = []
        self.cells: dict[int, dict[Keyword, Cell]] = {}
        # new entities whose cells nobody asked for: where in ``datoms`` their facts are
        self.spans: dict[int, tuple[int, int]] = {}
        # entities made in this transaction: the database has nothing of them
        self.fresh: set[int] = set()
        self.uniques: dict[tuple[Keyword, Any], int | None] = {}
        self.incoming: dict[int, list[tuple[int, Keyword]]] = {}
        # composite tuples to recompute, in order: (entity, composite)
        self.pending: dict[tuple[int, Keyword], Attribute] = {}
        self.expected: list[tuple[int, Plan, Any]] = []
        self.purged: dict[tuple[int, Keyword, Any], int] = {}
        self.ensures: list[tuple[int, Any]] = []
        self.valid: set[int] = set()
        self.tempids: dict[Any, int] = {}
        self.upserted: dict[Any, int] = {}
        self.owners: dict[int, Any] = {}
        self.used_as_entity: set[Any] = set()
        self.used_as_value: dict[Any, Any] = {}
        self.dirty = False
        self.schema_mark = (0, 0)
        self.touched_schema: set[int] = set()
        self.depth = 0
        # refused changes of declarations, where they are collected instead of raised
        self.conflicts: list[TransactSchema] | None = None
        self.conflicts_max = CONFLICTS_MAX

    @property
    def caps(self) -> Caps:
        """Bounds on the length of values."""
        found = self._caps
        if found is None:
            found = self._caps = Caps(self.db.config)
        return found

    # --- attributes --------------------------------------------------------------------------

    def entry(self, raw: Any, operation: Any) -> Entry:
        """How the spelling ``raw`` of an attribute is to be read, reverse forms included.

        Raises `TransactSyntax` for what names no attribute, `TransactSchema` for an undeclared one.
        """
        try:
            found = self.plans.get(raw)
        except TypeError:
            found = None
        if found is not None:
            return found
        ident = keyword_of(raw, operation)
        if self.dirty:
            self.refresh()
            found = self.plans.get(raw)
            if found is not None:
                return found
        if ident.text in ("db/id", "db/ensure"):
            raise TransactSyntax(
                f"{ident} is no attribute; it has a place only in maps: {shown(operation)}.",
                attribute=ident,
            )
        back = straight(ident)
        plan = plan_of(self.schema, back or ident, self.caps, write=self.write)
        if plan is None:
            raise TransactSchema(
                f"Attribute {back or ident} is not declared: {shown(operation)}.",
                attribute=back or ident,
                operation=shown(operation),
            )
        if back is not None and not plan.ref:
            raise TransactSyntax(
                f"{ident} is the reverse of {back}, which is no reference.", attribute=ident
            )
        found = Entry(plan, reverse=back is not None, text=type(raw) is str)
        self.schema.plans[raw] = found
        return found

    def plan(self, ident: Keyword) -> Plan:
        """The plan of an attribute that is declared, or need not be."""
        return self.entry(ident, ident).plan

    def refresh(self) -> None:
        """Bring the schema up to the operations so far; raises `TransactSchema` if they may not."""
        self.dirty = False
        self.schema = refreshed(self)
        self.schema_mark = (len(self.datoms), len(self.purges))
        if not self.schema.plans:
            self.schema.plans.update(SYSTEM_ENTRIES)
        self.plans = self.schema.plans
        self.shapes = self.schema.shapes

    def schema_changes(self, e: int) -> None:
        """A schema fact of ``e`` changes: from now on only system attributes are known surely."""
        self.dirty = True
        self.plans = SYSTEM_ENTRIES
        self.shapes = {}
        self.touched_schema.add(e)

    # --- reading -----------------------------------------------------------------------------

    def cell(self, e: int, attr: Keyword) -> Cell:
        """The current values of an attribute of an entity; O(1) once it was read."""
        entity = self.cells.get(e)
        if entity is None:
            entity = self.cells_of(e)
        cell = entity.get(attr)
        if cell is None:
            cell = entity[attr] = {} if e in self.fresh else _read(self.db, e, attr)
        return cell

    def cells_of(self, e: int) -> dict[Keyword, Cell]:
        """The cells of an entity that were touched."""
        entity = self.cells.get(e)
        if entity is None:
            entity = self.cells[e] = {}
            for _, attr, value, _, _ in self.datoms[slice(*self.spans.pop(e, (0, 0)))]:
                key = value if type(value) in PLAIN else value_key(value)
                entity.setdefault(attr, {})[key] = value
        return entity

    def all_cells(self) -> dict[int, dict[Keyword, Cell]]:
        """The cells of all entities."""
        for e in list(self.spans):
            self.cells_of(e)
        return self.cells

    def attributes_of(self, e: int) -> list[Keyword]:
        """The attributes that an entity has now."""
        cells = self.cells_of(e)
        touched = list(cells)
        known: list[Keyword] = []
        if e not in self.fresh:
            source = self.db.source_of(e)
            for attr in source.attributes_ever(e):
                if attr in cells:
                    if source.has(e, attr):
                        known.append(attr)
                    continue
                cell = cells[attr] = _read(source, e, attr)
                if cell:
                    known.append(attr)
        return [attr for attr in dict.fromkeys([*known, *touched]) if cells[attr]]

    def holder(self, attr: Keyword, value: Any) -> int | None:
        """The entity that has this value of a unique attribute now."""
        slot = (attr, value if type(value) in PLAIN else value_key(value))
        found: Any = self.uniques.get(slot, _UNKNOWN)
        if found is _UNKNOWN:
            if attr is IDENT:
                found = self.base.idents.get(value)
            else:
                held = self.db.holders(attr, value)
                found = held[0] if held else None
            self.uniques[slot] = found
        return found  # type: ignore[no-any-return]

    def are_vacant(self, attr: Keyword, values: Sequence[Any]) -> bool:
        """Whether values that are their own keys differ and no entity has one of them."""
        if len(set(values)) < len(values) or attr is IDENT:
            return False
        known = self.uniques.keys()
        if known and not known.isdisjoint(zip(repeat(attr), values)):
            return False
        return self.db.settled().are_vacant(attr, values)

    def referrers(self, e: int) -> Iterator[tuple[int, Keyword]]:
        """``(entity, attribute)`` of every reference to ``e`` now."""
        known = [] if e in self.fresh else self.db.referrers(e)
        for source, attr in dict.fromkeys([*known, *self.incoming.get(e, ())]):
            if e in self.cell(source, attr):
                yield source, attr

    def is_transaction(self, e: int) -> bool:
        """Whether ``e`` is a transaction that this database knows, the current one included."""
        return e == self.tx or (e > TX_BASE and e <= self.db.max_tx and self.db.has_entity(e))

    # --- changing ----------------------------------------------------------------------------

    def put(self, e: int, plan: Plan, value: Any) -> None:
        """Assert a fact: nothing if it holds already, else a datom, after that of a replaced value.

        Raises `TransactUnique` if another entity has the value.
        """
        attr = plan.ident
        key = value if type(value) in PLAIN else value_key(value)
        if plan.unique:
            held = self.holder(attr, value)
            if held == e:
                return
            if held is not None:
                raise TransactUnique(
                    f"{attr} {shown(value)} is taken by entity {held}; entity {e} cannot have it.",
                    attribute=attr,
                    value=brief(value),
                    entity=e,
                    holder=held,
                )
        cell = self.cell(e, attr)
        if key in cell:
            return
        if attr is TX_INSTANT:
            self.guard_instant(e)
            self.set_instant(value, instant_ms(value))
            return
        if cell and not plan.many:
            self.drop_all(e, plan)
        cell[key] = value
        self.datoms.append(_new_datom(Datom, (e, attr, value, self.tx, True)))
        if e > self.max_eid and e >> LANE_BITS == self.lane:
            self.max_eid = e
        if plan.unique:
            self.uniques[attr, key] = e
        if plan.ref:
            self.incoming.setdefault(value, []).append((e, attr))
        for composite in plan.parts:
            self.pending[e, composite.ident] = composite
        if plan.schema:
            self.schema_changes(e)
        elif attr is VALID_FROM or attr is VALID_TO:
            self.valid.add(e)

    def drop(self, e: int, plan: Plan, value: Any) -> None:
        """Retract a fact; nothing if it does not hold."""
        attr = plan.ident
        key = value if type(value) in PLAIN else value_key(value)
        cell = self.cell(e, attr)
        if key not in cell:
            return
        if attr is TX_INSTANT:
            raise self.immutable_instant(e)
        old = cell.pop(key)
        self.datoms.append(_new_datom(Datom, (e, attr, old, self.tx, False)))
        self.forget(e, plan, key)

    def drop_all(self, e: int, plan: Plan) -> list[Any]:
        """Retract all values of an attribute; returns them."""
        attr = plan.ident
        cell = self.cell(e, attr)
        if cell and attr is TX_INSTANT:
            raise self.immutable_instant(e)
        values = list(cell.values())
        tx, datoms = self.tx, self.datoms
        for old in values:
            datoms.append(_new_datom(Datom, (e, attr, old, tx, False)))
        if not plan.quiet:
            for key in cell:
                self.forget(e, plan, key)
        cell.clear()
        return values

    def forget(self, e: int, plan: Plan, key: Any) -> None:
        """Keep the indexes of the overlay in step with a fact that no longer holds."""
        attr = plan.ident
        if plan.unique:
            slot = (attr, key)
            if self.uniques.get(slot, e) == e:
                self.uniques[slot] = None
        for composite in plan.parts:
            self.pending[e, composite.ident] = composite
        if plan.schema:
            self.schema_changes(e)

    def guard_instant(self, e: int) -> None:
        """Raise unless the ``:db/txInstant`` of ``e`` may still be said: only the current one's."""
        if e != self.tx or not self.keep_history:
            raise self.immutable_instant(e)

    def immutable_instant(self, e: int) -> TransactSchema:
        return TransactSchema(
            f":db/txInstant of {e} cannot be changed: transaction time is immutable.",
            entity=e,
            attribute=TX_INSTANT,
        )

    def set_instant(self, instant: datetime, ms: int) -> None:
        """Say when the transaction happened; it is the first fact of its report."""
        self.instant_ms = ms
        self.cells.setdefault(self.tx, {})[TX_INSTANT] = {("i", ms): instant}
        said = _new_datom(Datom, (self.tx, TX_INSTANT, instant, self.tx, True))
        if self.datoms:
            self.datoms[0] = said
        else:
            self.datoms.append(said)

    # --- results -----------------------------------------------------------------------------

    def final_datoms(self) -> list[Datom]:
        """The datoms of the report, without what was purged after it was said."""
        if not self.purged:
            return self.datoms
        never = -1
        return [
            datom
            for at, datom in enumerate(self.datoms)
            if at >= self.purged.get((datom.e, datom.a, value_key(datom.v)), never)
        ]

    def changes(self) -> Changes:
        """The transaction so far, ready to apply."""
        return Changes(
            self.tx,
            self.instant_ms,
            self.final_datoms(),
            list(self.purges),
            self.max_eid if self.max_eid != self.first_eid else None,
            blocks=() if self.purged else tuple(self.blocks),
        )


def _read(db: Database, e: int, attr: Keyword) -> Cell:
    cell: Cell = {}
    for value, _ in db.facts(e, attr):
        cell[value if type(value) in PLAIN else value_key(value)] = value
    return cell

"""What the schema allows: the form of a declaration, and how one may change.

The rules hold for every way of writing a declaration, maps and single facts alike.  An attribute
is *used* when a fact with it exists, now or in the history.  `refusals` names what is in the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

from natalog.core.errors import TransactSchema
from natalog.core.schema import (
    CARDINALITY,
    IDENT,
    MANY,
    MAX_LENGTH,
    ONE,
    SHAPE,
    TUPLE_ATTRS,
    TUPLE_TYPE,
    TUPLE_TYPES,
    UNIQUE,
    UNIQUE_IDENTITY,
    UNIQUE_VALUE,
    VALUE_TYPE,
    Attribute,
    Props,
    Schema,
)
from natalog.core.values import VALUE_TYPES, Keyword

_CHOICES: Final = {
    CARDINALITY: frozenset({ONE, MANY}),
    UNIQUE: frozenset({UNIQUE_IDENTITY, UNIQUE_VALUE}),
}
_SLOT_TYPES: Final = VALUE_TYPES - {"tuple"}


class Usage(Protocol):
    """What the data say about an attribute, asked only when a change depends on it."""

    def users(self, attr: Keyword) -> list[int]:
        """Entities that have or had a fact with ``attr``; a bounded number of them."""

    def crowded(self, attr: Keyword) -> list[int]:
        """Entities with more than one value of ``attr``; a bounded number of them."""

    def shared(self, attr: Keyword) -> list[tuple[Any, list[int]]]:
        """Values of ``attr`` that several entities have; a bounded number, with these entities."""


def is_reserved(ident: Keyword) -> bool:
    """Whether a name belongs to the system: in the namespace ``db`` or below it."""
    space = ident.namespace
    return space is not None and (space == "db" or space.startswith("db."))


def check_property(prop: Keyword, value: Any) -> None:
    """Raise `TransactSchema` unless ``value`` is one that the schema fact ``prop`` may have."""
    if prop is IDENT:
        if is_reserved(value):
            raise TransactSchema(
                f"{value} cannot be declared: the namespace db is reserved.", attribute=value
            )
        if value.name.startswith("_"):
            raise TransactSchema(
                f"{value} cannot be declared: a name with a leading underscore is a reverse "
                "reference.",
                attribute=value,
            )
    elif prop is VALUE_TYPE or prop is TUPLE_TYPE:
        _check_type(prop, value, VALUE_TYPES if prop is VALUE_TYPE else _SLOT_TYPES)
    elif prop is TUPLE_TYPES:
        for slot in value:
            _check_type(prop, slot, _SLOT_TYPES)
    elif prop in _CHOICES:
        if value not in _CHOICES[prop]:
            choices = " or ".join(sorted(map(str, _CHOICES[prop])))
            raise TransactSchema(
                f"{prop} must be {choices}, not {value}.", attribute=prop, value=value
            )
    elif prop is MAX_LENGTH and value < 1:
        raise TransactSchema(
            f":db/maxLength must be positive, not {value}.", attribute=prop, value=value
        )


def _check_type(prop: Keyword, value: Keyword, allowed: frozenset[str]) -> None:
    if value.namespace != "db.type" or value.name not in allowed:
        raise TransactSchema(f"{prop} knows no type {value}.", attribute=prop, value=value)


def check_declaration(eid: int, props: Props, schema: Schema, *, write: bool) -> None:
    """Raise `TransactSchema` unless the schema facts of an entity make a whole declaration.

    ``write``: the database demands declarations, so ident, type and cardinality are required.
    """
    if SHAPE.isdisjoint(props):
        return
    if IDENT not in props:
        raise TransactSchema(
            f"Entity {eid} has schema facts but no :db/ident.", entity=eid, missing=[IDENT]
        )
    ident = props[IDENT][-1]
    if write:
        missing = [prop for prop in (VALUE_TYPE, CARDINALITY) if prop not in props]
        if missing:
            raise TransactSchema(
                f"The declaration of {ident} lacks {', '.join(map(str, missing))}.",
                attribute=ident,
                entity=eid,
                missing=missing,
            )
    attribute = schema.get(ident)
    assert attribute is not None, f"{ident} is declared"
    _check_tuple(attribute, schema)


def _check_tuple(attribute: Attribute, schema: Schema) -> None:
    ident = attribute.ident
    shapes = [
        prop
        for prop, value in (
            (TUPLE_ATTRS, attribute.tuple_attrs),
            (TUPLE_TYPES, attribute.tuple_types),
            (TUPLE_TYPE, attribute.tuple_type),
        )
        if value is not None
    ]
    if (attribute.value_type == "tuple") != (len(shapes) == 1):
        raise TransactSchema(
            f"{ident} must be a tuple with exactly one of :db/tupleAttrs, :db/tupleTypes and "
            ":db/tupleType, or none of these.",
            attribute=ident,
        )
    for part in attribute.tuple_attrs or ():  # one that is declared later is nil until then
        declared = schema.get(part)
        if declared is not None and (declared.many or declared.value_type == "tuple"):
            raise TransactSchema(
                f":db/tupleAttrs of {ident} names {part}, which has many values or is itself a "
                "tuple.",
                attribute=ident,
                part=part,
            )
    if attribute.tuple_attrs is not None and attribute.many:
        raise TransactSchema(f"The composite {ident} cannot have many values.", attribute=ident)


def refusals(
    old: Attribute, new: Attribute | None, schema: Schema, usage: Usage, *, backfill: bool
) -> Iterator[TransactSchema]:
    """Why a declared attribute may not change from ``old`` to ``new``; nothing when it may.

    ``new`` is None when it is removed; ``schema`` is the one after the change.  ``backfill``: an
    index or uniqueness may be added to data that exist.  Facts in the way are named by ``entities``
    and ``values`` in the data of an error.
    """
    ident = old.ident
    if new is None or new.ident is not ident:
        yield from _if_used(old, usage, "removed or renamed")
        if schema.composites.get(ident) and schema.get(ident) is None:
            yield _refused(ident, "it is part of a composite tuple")
        if new is None:
            return
    if new.declared_type != old.declared_type:
        yield from _if_used(old, usage, "given another type")
    shape = (new.tuple_attrs, new.tuple_types, new.tuple_type)
    if shape != (old.tuple_attrs, old.tuple_types, old.tuple_type):
        yield _refused(ident, "the shape of a tuple is fixed")
    if new.many and not old.many:
        if new.unique is not None:
            yield _refused(ident, "a unique attribute has one value")
        if schema.composites.get(ident):
            yield _refused(ident, "a part of a composite tuple has one value")
    if old.many and not new.many:
        crowded = usage.crowded(ident)
        if crowded:
            yield TransactSchema(
                f"{ident} cannot be limited to one value: entity {crowded[0]} has several.",
                attribute=ident,
                entity=crowded[0],
                entities=crowded,
            )
    if old.index and not new.index:
        yield from _while_used(ident, usage, "the index of a used attribute stays")
    if new.index and not old.index and not old.has_avet and not backfill:
        why = "an index can be added to a used attribute only with backfill"
        yield from _while_used(ident, usage, why)
    if new.unique is not None and old.unique is None:
        if new.many:
            yield _refused(ident, "only an attribute with one value can become unique")
        elif not backfill:
            why = "uniqueness can be added to a used attribute only with backfill"
            yield from _while_used(ident, usage, why)
        else:
            shared = usage.shared(ident)
            if shared:
                yield TransactSchema(
                    f"{ident} cannot become unique: several entities have {shared[0][0]!r}.",
                    attribute=ident,
                    value=shared[0][0],
                    values=[value for value, _ in shared],
                    entities=sorted({e for _, entities in shared for e in entities}),
                )


def _if_used(old: Attribute, usage: Usage, what: str) -> Iterator[TransactSchema]:
    users = usage.users(old.ident)
    if users:
        yield TransactSchema(
            f"{old.ident} cannot be {what}: facts with it exist, now or in the history.",
            attribute=old.ident,
            entity=old.eid,
            entities=users,
        )


def _while_used(ident: Keyword, usage: Usage, why: str) -> Iterator[TransactSchema]:
    users = usage.users(ident)
    if users:
        yield _refused(ident, why, entities=users)


def _refused(ident: Keyword, why: str, **data: Any) -> TransactSchema:
    return TransactSchema(f"{ident} cannot be changed like this: {why}.", attribute=ident, **data)

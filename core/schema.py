"""The schema: which attributes exist and what they promise, read from the facts that declare them.

An attribute is an entity with a ``:db/ident`` and at least one property (``:db/valueType``,
``:db/cardinality`` ...).  `Schema` is immutable and follows the facts by itself: `Schema.after`
takes the datoms of a transaction and needs no index.  The system's own attributes exist in code,
not as facts, so an empty database has no datoms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from natalog.core.changes import Purge
from natalog.core.values import Datom, FrozenMap, Keyword, Symbol, kw, make_set, value_key

IDENT: Final = kw("db/ident")
VALUE_TYPE: Final = kw("db/valueType")
CARDINALITY: Final = kw("db/cardinality")
UNIQUE: Final = kw("db/unique")
INDEX: Final = kw("db/index")
COMPONENT: Final = kw("db/isComponent")
NO_HISTORY: Final = kw("db/noHistory")
DOC: Final = kw("db/doc")
TUPLE_ATTRS: Final = kw("db/tupleAttrs")
TUPLE_TYPES: Final = kw("db/tupleTypes")
TUPLE_TYPE: Final = kw("db/tupleType")
MAX_LENGTH: Final = kw("db/maxLength")
ATTR_PREDS: Final = kw("db.attr/preds")
ENTITY_ATTRS: Final = kw("db.entity/attrs")
ENTITY_PREDS: Final = kw("db.entity/preds")
TX_INSTANT: Final = kw("db/txInstant")
VALID_FROM: Final = kw("db.valid/from")
VALID_TO: Final = kw("db.valid/to")
DB_ID: Final = kw("db/id")

MANY: Final = kw("db.cardinality/many")
ONE: Final = kw("db.cardinality/one")
UNIQUE_IDENTITY: Final = kw("db.unique/identity")
UNIQUE_VALUE: Final = kw("db.unique/value")

SHAPE: Final = frozenset(
    {
        VALUE_TYPE,
        CARDINALITY,
        UNIQUE,
        INDEX,
        COMPONENT,
        NO_HISTORY,
        TUPLE_ATTRS,
        TUPLE_TYPES,
        TUPLE_TYPE,
        MAX_LENGTH,
        ATTR_PREDS,
    }
)
"""Properties that make an entity with an ident an attribute."""
PROPERTIES: Final = SHAPE | {IDENT, DOC, ENTITY_ATTRS, ENTITY_PREDS}
"""Facts that the schema follows."""

Props = Mapping[Keyword, tuple[Any, ...]]
"""The schema facts of one entity: property to values."""

Uniqueness = Literal["identity", "value"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """What an attribute promises.  ``eid`` is the entity that declares it, 0 for system attributes.

    ``value_type`` is the name after ``:db.type/`` of the class that values must have, None where
    any will do: under flexibility ``read`` only references and tuples are held to their type.
    ``declared_type`` is the type as declared.
    """

    ident: Keyword
    eid: int = 0
    value_type: str | None = None
    many: bool = False
    unique: Uniqueness | None = None
    index: bool = False
    component: bool = False
    no_history: bool = False
    doc: str | None = None
    tuple_attrs: tuple[Keyword, ...] | None = None
    tuple_types: tuple[str, ...] | None = None
    tuple_type: str | None = None
    max_length: int | None = None
    preds: tuple[Symbol, ...] = ()
    declared_type: str | None = None

    @property
    def is_ref(self) -> bool:
        return self.value_type == "ref"

    @property
    def is_unique(self) -> bool:
        return self.unique is not None

    @property
    def has_avet(self) -> bool:
        """Whether facts are also indexed by value."""
        return self.index or self.unique is not None or self.value_type == "ref"


def _system() -> dict[Keyword, Attribute]:
    declared = [
        Attribute(IDENT, value_type="keyword", unique="identity"),
        Attribute(VALUE_TYPE, value_type="keyword"),
        Attribute(CARDINALITY, value_type="keyword"),
        Attribute(UNIQUE, value_type="keyword"),
        Attribute(INDEX, value_type="boolean"),
        Attribute(COMPONENT, value_type="boolean"),
        Attribute(NO_HISTORY, value_type="boolean"),
        Attribute(DOC, value_type="string"),
        Attribute(TUPLE_ATTRS, value_type="tuple", tuple_type="keyword"),
        Attribute(TUPLE_TYPES, value_type="tuple", tuple_type="keyword"),
        Attribute(TUPLE_TYPE, value_type="keyword"),
        Attribute(MAX_LENGTH, value_type="long"),
        Attribute(ATTR_PREDS, value_type="symbol", many=True),
        Attribute(ENTITY_ATTRS, value_type="keyword", many=True),
        Attribute(ENTITY_PREDS, value_type="symbol", many=True),
        Attribute(TX_INSTANT, value_type="instant", index=True),
        Attribute(VALID_FROM, value_type="instant", index=True),
        Attribute(VALID_TO, value_type="instant", index=True),
    ]
    return {attribute.ident: attribute for attribute in declared}


SYSTEM: Final[Mapping[Keyword, Attribute]] = MappingProxyType(_system())
"""The attributes that every database has."""


class Schema:
    """The attributes and idents of one database value.

    >>> schema = Schema.empty().after([
    ...     Datom(1, IDENT, kw("name"), 9), Datom(1, VALUE_TYPE, kw("db.type/string"), 9),
    ...     Datom(1, CARDINALITY, ONE, 9)])
    >>> schema.get(kw("name")).value_type, schema.idents
    ('string', {:name: 1})
    """

    __slots__ = (
        *("_attributes", "_by_eid", "_props", "composites", "flexible", "get", "idents", "known"),
        *("plans", "refs", "shapes"),
    )

    _props: Mapping[int, Props]
    _attributes: Mapping[Keyword, Attribute]
    _by_eid: Mapping[int, Keyword]
    known: Mapping[Keyword, Attribute]
    """The user's attributes and the system's."""
    get: Callable[[Keyword], Attribute | None]
    """The attribute of a name, the system's included.  A method of ``known``: it needs no frame."""
    idents: Mapping[Keyword, int]
    """Every ``:db/ident`` of the database to its entity; also of entities that are no attribute."""
    composites: Mapping[Keyword, tuple[Attribute, ...]]
    """Attribute to the composite tuples that it is a part of."""
    refs: frozenset[Keyword]
    """The attributes that refer to entities."""
    flexible: bool
    """Whether undeclared attributes and values of any class are welcome."""
    plans: dict[Keyword, Any]
    """Scratch space of the transaction processor: what it derived from an attribute."""
    shapes: dict[Any, Any]
    """The same: what it derived from the keys of maps."""

    def __init__(
        self, props: Mapping[int, Props], before: Schema | None = None, *, flexible: bool = False
    ) -> None:
        """``before``: a schema whose attributes are kept, as objects, where their facts are."""
        attributes: dict[Keyword, Attribute] = {}
        by_eid: dict[int, Keyword] = {}
        composites: dict[Keyword, tuple[Attribute, ...]] = {}
        for eid, own in props.items():
            names = own.get(IDENT)
            if not names:
                continue
            ident = names[-1]
            by_eid[eid] = ident
            if not SHAPE.isdisjoint(own):
                if before is not None and before._props.get(eid) is own:
                    attribute = before._attributes[ident]
                else:
                    attribute = attribute_of(eid, own, flexible=flexible)
                attributes[ident] = attribute
                for part in attribute.tuple_attrs or ():
                    composites[part] = (*composites.get(part, ()), attribute)
        self._props = props
        self._attributes = attributes
        self._by_eid = by_eid
        self.known = known = {**SYSTEM, **attributes}
        self.get = known.get
        self.idents = {ident: eid for eid, ident in by_eid.items()}
        self.composites = composites
        self.refs = frozenset(ident for ident, found in attributes.items() if found.is_ref)
        self.flexible = flexible
        self.plans = {}
        self.shapes = {}

    @classmethod
    def of(cls, props: Mapping[int, Props], *, flexible: bool = False) -> Schema:
        """The schema of these schema facts; the order of entities is kept."""
        return cls(props, flexible=flexible)

    @classmethod
    def empty(cls, *, flexible: bool = False) -> Schema:
        """The schema of a database without facts; ``flexible`` under flexibility ``read``."""
        return cls({}, flexible=flexible)

    def ident_of(self, eid: int) -> Keyword | None:
        """The ``:db/ident`` of an entity."""
        return self._by_eid.get(eid)

    def attributes(self) -> list[Attribute]:
        """The user's attributes, in keyword order."""
        return [self._attributes[ident] for ident in sorted(self._attributes)]

    def attribute_at(self, eid: int) -> Attribute | None:
        """The user's attribute that the entity ``eid`` declares."""
        ident = self._by_eid.get(eid)
        return None if ident is None else self._attributes.get(ident)

    def declared(self) -> list[int]:
        """The entities with schema facts, in the order in which they got their first."""
        return list(self._props)

    def props_of(self, eid: int) -> Props:
        """The schema facts of an entity."""
        return self._props.get(eid, {})

    def after(
        self, datoms: Iterable[Datom], db: object = None, purges: Iterable[Purge] = ()
    ) -> Schema:
        """The schema once these facts are applied, in order; ``self`` when none concerns it.

        Purges come first, as in `core.apply`.  ``db`` is not needed and not looked at.
        """
        changed: dict[int, dict[Keyword, tuple[Any, ...]]] = {}
        for purge in purges:
            if purge.attr in PROPERTIES and purge.closed_before_ms is None:
                self._drop(changed, purge.e, purge.attr, purge.value)
        for datom in datoms:
            if datom[1] not in PROPERTIES:
                continue
            e, attr, value, _, added = datom
            self._drop(changed, e, attr, value)
            if added:
                own = changed[e]
                own[attr] = (*own.get(attr, ()), value)
        if not changed:
            return self
        props = dict(self._props)
        for e, own in changed.items():
            if own:
                props[e] = own
            else:
                props.pop(e, None)
        return Schema(props, self, flexible=self.flexible)

    def _drop(
        self,
        changed: dict[int, dict[Keyword, tuple[Any, ...]]],
        e: int,
        attr: Keyword,
        value: Any,
    ) -> None:
        own = changed.get(e)
        if own is None:
            own = changed[e] = dict(self._props.get(e, {}))
        held = own.get(attr)
        if held:
            key = value_key(value)
            kept = tuple(v for v in held if value_key(v) != key)
            if kept:
                own[attr] = kept
            else:
                del own[attr]

    # --- what users read ---------------------------------------------------------------------

    def read_out(self) -> dict[Keyword, dict[Keyword, Any]]:
        """``{ident {:db/id n, :db/ident ident, property value ...}}`` of every ident, in order.

        Idents that name no attribute have no ``:db/valueType``; several values are a list.
        """
        out: dict[Keyword, dict[Keyword, Any]] = {}
        for ident in sorted(self.idents):
            eid = self.idents[ident]
            entry: dict[Keyword, Any] = {DB_ID: eid}
            for prop, values in self._props[eid].items():
                entry[prop] = list(values) if SYSTEM[prop].many else values[-1]
            out[ident] = entry
        return out

    def reverse_read_out(self) -> dict[Keyword, Any]:
        """Property to the set of the user's attributes that have it.

        ``:db/ident`` names all idents, ``:db/index`` all attributes with an index by value;
        ``:db/attrTuples`` has ``[part {tuple position}]`` for every part of composite tuples.
        """
        out: dict[Keyword, Any] = {IDENT: set(self.idents)} if self.idents else {}
        for attribute in self.attributes():
            for prop in _properties_of(attribute):
                out.setdefault(prop, set()).add(attribute.ident)
        parts: dict[Keyword, dict[Keyword, int]] = {}
        for part, composites in self.composites.items():
            for composite in composites:
                position = (composite.tuple_attrs or ()).index(part)
                parts.setdefault(part, {})[composite.ident] = position
        if parts:
            out[kw("db/attrTuples")] = make_set(
                (part, FrozenMap(places)) for part, places in parts.items()
            )
        return out


def attribute_of(eid: int, props: Props, *, flexible: bool = False) -> Attribute:
    """The attribute that the schema facts of an entity declare; tolerant of missing properties."""
    declared = props.get(VALUE_TYPE)
    kind = declared[-1].name if declared else None

    def last(prop: Keyword) -> Any:
        values = props.get(prop)
        return values[-1] if values else None

    def name(prop: Keyword) -> Any:
        value = last(prop)
        return value.name if isinstance(value, Keyword) else None

    types = last(TUPLE_TYPES)
    parts = last(TUPLE_ATTRS)
    return Attribute(
        ident=last(IDENT),
        eid=eid,
        value_type=kind if not flexible or kind in ("ref", "tuple") else None,
        declared_type=kind,
        many=last(CARDINALITY) is MANY,
        unique=name(UNIQUE),
        index=last(INDEX) is True,
        component=last(COMPONENT) is True,
        no_history=last(NO_HISTORY) is True,
        doc=last(DOC),
        tuple_attrs=tuple(parts) if parts is not None else None,
        tuple_types=tuple(kind.name for kind in types) if types is not None else None,
        tuple_type=name(TUPLE_TYPE),
        max_length=last(MAX_LENGTH),
        preds=tuple(props.get(ATTR_PREDS, ())),
    )


def _properties_of(attribute: Attribute) -> list[Keyword]:
    found: list[Keyword] = []
    if attribute.unique is not None:
        found += [UNIQUE, kw(f"db.unique/{attribute.unique}")]
    if attribute.has_avet:
        found.append(INDEX)
    if attribute.many:
        found.append(MANY)
    if attribute.value_type in ("ref", "tuple"):
        found.append(kw(f"db.type/{attribute.value_type}"))
    if attribute.component:
        found.append(COMPONENT)
    if attribute.no_history:
        found.append(NO_HISTORY)
    return found

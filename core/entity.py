"""Entities as lazy maps: attributes are read when they are asked for.

>>> from natalog.core.database import Database
>>> entity(Database.empty(), 7).to_dict()
{:db/id: 7}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any, Final

from natalog.core.database import Database
from natalog.core.errors import ViewRefused
from natalog.core.forms import forward_attribute, frozen_set
from natalog.core.pull.fetch import values_of
from natalog.core.values import FrozenMap, Keyword

DB_ID: Final = Keyword("db/id")


class Entity(Mapping[Keyword, Any]):
    """The attributes of one entity of a database value.

    Keys are keywords; strings such as ``"name"`` and ``":name"`` are taken for them.  References
    are entities themselves, many-valued attributes are frozen sets, ``:ns/_a`` is the set of the
    entities that refer here (of a component attribute: the one).  Entities cannot be changed;
    they are equal when they are the same entity of the same database value.
    """

    __slots__ = ("_cache", "_db", "_id")

    def __init__(self, db: Database, eid: int) -> None:
        self._db = db
        self._id = eid
        self._cache: dict[Keyword, Any] = {}

    @property
    def db(self) -> Database:
        """The database value that this entity belongs to."""
        return self._db

    @property
    def id(self) -> int:
        """The entity id, which is also the value of ``:db/id``."""
        return self._id

    def __getitem__(self, key: Keyword | str) -> Any:
        attr = key if isinstance(key, Keyword) else Keyword(key)
        cache = self._cache
        if attr in cache:
            found = cache[attr]
        elif attr is DB_ID:
            return self._id
        else:
            found = cache[attr] = self._read(attr)
        if found is None:
            raise KeyError(attr)
        return found

    def __call__(self, key: Keyword | str, default: Any = None) -> Any:
        """The value of an attribute, or ``default``."""
        return self.get(key, default)

    def get(self, key: Keyword | str, default: Any = None) -> Any:
        """The value of an attribute, or ``default``."""
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        return isinstance(key, (Keyword, str)) and self.get(key) is not None

    def __iter__(self) -> Iterator[Keyword]:
        return iter(self._db.attributes_of(self._id))

    def __len__(self) -> int:
        return len(self._db.attributes_of(self._id))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entity) and self._id == other._id and self._db == other._db

    def __hash__(self) -> int:
        return hash((id(self._db), self._id))

    def __repr__(self) -> str:
        return f"Entity({self._id})"

    def _read(self, attr: Keyword) -> Any:
        """The value, None when there is none."""
        db = self._db
        forward = forward_attribute(attr)
        declared = db.schema.get(forward or attr)
        is_ref = declared is not None and declared.is_ref
        if forward is not None:
            if declared is None or not is_ref:
                return None
            holders = [Entity(db, e) for e in db.holders(forward, self._id)]
            if declared.component:
                return holders[0] if holders else None
            return frozenset(holders) or None
        values = values_of(db, self._id, attr)
        if not values:
            return None
        if declared is None or not declared.many:
            return Entity(db, values[0]) if is_ref else values[0]
        return frozen_set([Entity(db, e) for e in values] if is_ref else values)

    def touch(self) -> Entity:
        """Read all attributes now, those of component entities too; returns the entity itself."""
        pending = [self]
        touched: set[int] = set()
        while pending:
            entity = pending.pop()
            if entity._id in touched:
                continue
            touched.add(entity._id)
            for attr in entity:
                value = entity[attr]
                declared = self._db.schema.get(attr)
                if declared is not None and declared.is_ref and declared.component:
                    pending.extend(value if isinstance(value, Set) else (value,))
        return self

    def to_dict(self) -> dict[Keyword, Any]:
        """All attributes with ``:db/id``; references as ``{:db/id n}``, many values as sets."""
        found: dict[Keyword, Any] = {DB_ID: self._id}
        for attr in self:
            value = self[attr]
            if isinstance(value, Entity):
                found[attr] = FrozenMap({DB_ID: value._id})
            elif isinstance(value, Set):
                found[attr] = frozen_set(
                    FrozenMap({DB_ID: item._id}) if isinstance(item, Entity) else item
                    for item in value
                )
            else:
                found[attr] = value
        return found


def entity(db: Database, ref: Any) -> Entity | None:
    """The entity that an id, ident or lookup ref names; None when there is none.

    Any number names an entity, if only an empty one.  Raises `EntityIdSyntax` and others for what
    can name nothing, `ViewRefused` on a history.
    """
    if db.is_history:
        raise ViewRefused(
            "entity has no meaning on a history: an attribute has many values", view="history"
        )
    if ref is None:
        return None
    eid = db.entid(ref)
    return None if eid is None else Entity(db, eid)

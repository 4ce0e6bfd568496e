"""Functions that read a database, one row at a time: ``get-else get-some missing?``."""

from __future__ import annotations

from typing import Any

from natalog.core.database import Database
from natalog.core.errors import QueryWhere
from natalog.core.forms import forward_attribute
from natalog.core.query.mismatch import TypeMismatch
from natalog.core.values import Keyword


def _entity(db: Any, entity: Any, function: str) -> int | None:
    if not isinstance(db, Database):
        raise QueryWhere(f"{function} reads a database, not {type(db).__name__}", function=function)
    if isinstance(entity, bool) or not isinstance(entity, (int, Keyword, list, tuple)):
        raise TypeMismatch(function, entity)
    return db.entid(entity)


def _attribute(attr: Any, function: str) -> Keyword:
    if not isinstance(attr, Keyword):
        raise TypeMismatch(function, attr)
    return attr


def get_else(db: Any, entity: Any, attr: Any, default: Any) -> Any:
    """The value of an attribute, of several the first; ``default`` when the entity has none.

    Raises `QueryWhere` for a default of nil.
    """
    if default is None:
        raise QueryWhere("get-else needs a default other than nil", attribute=attr)
    e = _entity(db, entity, "get-else")
    found = db.values(e, _attribute(attr, "get-else")) if e is not None else ()
    return found[0] if found else default


def get_some(db: Any, entity: Any, *attrs: Any) -> tuple[Keyword, Any] | None:
    """``[attribute value]`` of the first of the attributes that the entity has; or nil."""
    e = _entity(db, entity, "get-some")
    if e is None:
        return None
    for attr in attrs:
        found = db.values(e, _attribute(attr, "get-some"))
        if found:
            return (attr, found[0])
    return None


def is_missing(db: Any, entity: Any, attr: Any) -> bool:
    """Whether an entity has no value of an attribute; ``:ns/_a``: whether nothing refers to it."""
    e = _entity(db, entity, "missing?")
    if e is None:
        return True
    attr = _attribute(attr, "missing?")
    forward = forward_attribute(attr)
    if forward is not None:
        return not db.holders(forward, e)
    return not db.values(e, attr)

"""What an empty answer may be about: attributes that the schema does not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from natalog.client import Conn
from natalog.core.edn import read
from natalog.core.values import EdnList, Keyword, Symbol


async def unknown_attributes(conn: Conn, query: str) -> list[str]:
    """The attributes that a query asks for and that a database with declared ones lacks."""
    asked = set(attributes_of(query))
    if not asked or (await conn.info())["config"].get("schema_flexibility") != "write":
        return []
    declared = await (await conn.db()).schema()
    return sorted(str(name) for name in asked if name not in declared)


def attributes_of(query: str) -> Iterator[Keyword]:
    """The attributes that are constants in the patterns of a query, save those of the database.

    >>> list(attributes_of("[:find ?n :where (not [$ ?e :name ?n]) [?e :db/ident]]"))
    [:name]
    """
    form = read(query)
    if isinstance(form, dict):
        where = form.get(Keyword("where"), [])
    elif not isinstance(form, list):
        return
    else:
        start = form.index(Keyword("where")) if Keyword("where") in form else len(form)
        where = form[start + 1 :]
    yield from _attributes(where)


def _attributes(clauses: Any) -> Iterator[Keyword]:
    for clause in clauses:
        if isinstance(clause, EdnList):
            yield from _attributes(part for part in clause if isinstance(part, list))
        elif isinstance(clause, list):
            terms = clause[1:] if _is_source(clause[:1]) else clause
            if len(terms) > 1 and isinstance(terms[1], Keyword) and not _is_ours(terms[1]):
                yield terms[1]


def _is_source(head: list[Any]) -> bool:
    return bool(head) and isinstance(head[0], Symbol) and head[0].text.startswith("$")


def _is_ours(name: Keyword) -> bool:
    return str(name).startswith((":db/", ":db."))

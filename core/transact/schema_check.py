"""Schema changes inside a transaction: the schema follows the operations, the rules are asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from natalog.core.schema import Schema
from natalog.core.schema_rules import check_declaration, refusals
from natalog.core.values import Keyword, value_key

if TYPE_CHECKING:
    from natalog.core.transact.state import Work


class WorkUsage:
    """How the data of a transaction in progress use an attribute."""

    __slots__ = ("_limit", "_work")

    def __init__(self, work: Work) -> None:
        self._work = work
        self._limit = work.conflicts_max

    def users(self, attr: Keyword) -> list[int]:
        """Entities with facts that are left in the result: in the history if there is one."""
        found: dict[int, None] = {}
        for e in self._entities(attr):
            found[e] = None
            if len(found) >= self._limit:
                break
        return list(found)

    def _entities(self, attr: Keyword) -> Iterator[int]:
        work = self._work
        if not work.keep_history:
            yield from (e for e, _ in self._facts(attr))
            return
        past = work.db.history().datoms("aevt", [attr]) if attr in work.db.indexes else []
        for d in past:
            if not work.purged or (d.e, attr, value_key(d.v)) not in work.purged:
                yield d.e
        yield from (datom[0] for datom in work.final_datoms() if datom[1] is attr)

    def crowded(self, attr: Keyword) -> list[int]:
        seen: set[int] = set()
        found: dict[int, None] = {}
        for e, _ in self._facts(attr):
            if e in seen:
                found[e] = None
                if len(found) >= self._limit:
                    break
            seen.add(e)
        return list(found)

    def shared(self, attr: Keyword) -> list[tuple[Any, list[int]]]:
        first: dict[Any, int] = {}
        found: dict[Any, tuple[Any, list[int]]] = {}
        for e, value in self._facts(attr):
            key = value_key(value)
            holder = first.setdefault(key, e)
            if holder == e:
                continue
            if key not in found:
                if len(found) >= self._limit:
                    continue
                found[key] = (value, [holder])
            if len(found[key][1]) < self._limit:
                found[key][1].append(e)
        return list(found.values())

    def _facts(self, attr: Keyword) -> Iterator[tuple[int, Any]]:
        """Every fact of an attribute that holds now; O(facts)."""
        work = self._work
        touched = {e for e, entity in work.all_cells().items() if attr in entity}
        for e in touched:
            for value in work.cells[e][attr].values():
                yield e, value
        if attr in work.db.indexes:
            for d in work.db.datoms("aevt", [attr]):
                if d.e not in touched:
                    yield d.e, d.v


def refreshed(work: Work) -> Schema:
    """The schema after the operations so far.

    Raises `TransactSchema` for a change of a declared attribute that the rules or the data refuse,
    unless conflicts are being collected.
    """
    seen_datoms, seen_purges = work.schema_mark
    before = work.schema
    after = before.after(work.datoms[seen_datoms:], None, work.purges[seen_purges:])
    usage = WorkUsage(work)
    for e in work.touched_schema:
        old, new = before.attribute_at(e), after.attribute_at(e)
        if old is None or old == new:
            continue
        backfill = work.db.config.allow_index_backfill
        for refusal in refusals(old, new, after, usage, backfill=backfill):
            if work.conflicts is None:
                raise refusal
            work.conflicts.append(refusal)
        if new is not None and new.unique is not None and old.unique is None:
            _claim_uniques(work, new.ident)
    return after


def _claim_uniques(work: Work, attr: Keyword) -> None:
    """Values asserted earlier in the transaction hold their place from now on."""
    for e, entity in work.all_cells().items():
        for key in entity.get(attr, ()):
            work.uniques[attr, key] = e


def check_declarations(work: Work) -> None:
    """Raise `TransactSchema` unless every declaration that was touched is whole in the end."""
    if not work.touched_schema:
        return
    if work.dirty:
        work.refresh()
    schema = work.schema
    for e in sorted(work.touched_schema):
        was_declared = work.base.attribute_at(e) is not None
        if was_declared and schema.ident_of(e) is None:
            continue
        check_declaration(e, schema.props_of(e), schema, write=work.write)

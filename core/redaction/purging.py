"""What to purge before an erasure: a request's operations, patterns and text, on one value.

A database without history has nothing but the present: there facts are retracted instead, and what
is superseded counts as purged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from natalog.core.database import Database
from natalog.core.errors import (
    BadRequest,
    EntityError,
    ErasureRefused,
    NatalogError,
    TransactPurge,
)
from natalog.core.index.tree import OPEN
from natalog.core.schema import IDENT
from natalog.core.scrub import contains
from natalog.core.transact import process
from natalog.core.values import Keyword, as_keyword, kw

PURGES: Final = {
    "db/purge": (3, 4),
    "db.purge/attribute": (3, 3),
    "db.purge/entity": (2, 2),
    "db.history.purge/before": (2, 2),
    "db.history.purge/ended": (3, 4),
}
"""Purges, with how many words they have at least and at most."""

Pattern = tuple[Any, ...]
"""``(e,)``, ``(e, a)`` or ``(e, a, v)``."""

_BY_LENGTH: Final = ("", "db.purge/entity", "db.purge/attribute", "db/purge")
_RETRACTIONS: Final = ("", "db/retractEntity", "db.fn/retractAttribute", "db/retract")


def checked_purges(tx_data: Any) -> list[list[Any]]:
    """The operations of a request, each with a plain name first; `BadRequest` without values."""
    if not isinstance(tx_data, (list, tuple)):
        raise BadRequest("tx_data is a list of purges.", field="tx_data")
    found = []
    for operation in tx_data:
        name = _name(operation)
        low, high = PURGES.get(name, (0, 0))
        if not low <= len(operation) <= high:
            raise BadRequest(
                "tx_data takes nothing but purges: " + ", ".join(PURGES) + ".", field="tx_data"
            )
        found.append([name, *operation[1:]])
    return found


def checked_patterns(facts: Any) -> list[Pattern]:
    """The patterns of a request; `BadRequest` without values."""
    if not isinstance(facts, (list, tuple)):
        raise BadRequest("facts is a list of [e], [e a] or [e a v].", field="facts")
    for pattern in facts:
        if not isinstance(pattern, (list, tuple)) or not 1 <= len(pattern) <= 3:
            raise BadRequest("A fact is named by [e], [e a] or [e a v].", field="facts")
    return [tuple(pattern) for pattern in facts]


def operations(
    db: Database, tx_data: Sequence[Sequence[Any]], facts: Sequence[Pattern]
) -> list[list[Any]]:
    """Tx-data that remove from ``db`` what purges and patterns name."""
    found = [list(operation) for operation in tx_data]
    found += [[_BY_LENGTH[len(pattern)], *pattern] for pattern in facts]
    if db.config.keep_history:
        return [_spelled(operation) for operation in found]
    retracted = []
    for name, *words in found:
        if not name.startswith("db.history.purge/"):
            pattern = [word for word in words if word is not None]
            retracted.append(_spelled([_RETRACTIONS[len(pattern)], *pattern]))
    return retracted


def finds(db: Database, operation: Sequence[Any], now_ms: int) -> bool:
    """Whether an operation would remove anything; `ErasureRefused` when it is not allowed.

    Nothing is found by who does not know the entity or attribute.
    """
    try:
        report = process(db.scratch(), [operation], None, now_ms=now_ms)
    except NatalogError as error:
        attr = as_keyword(operation[2]) if len(operation) > 2 else None
        unknown = isinstance(attr, Keyword) and db.schema.get(attr) is None
        if unknown or isinstance(error, (TransactPurge, EntityError)):
            return False
        raise refused(error) from None
    return bool(report.purged or any(not datom.added for datom in report.datoms))


def refused(error: NatalogError, branch: str | None = None) -> ErasureRefused:
    """An error of a purge without what it may repeat of the values."""
    where = "" if branch is None else f" on {branch}"
    return ErasureRefused(
        f"What is to be erased could not be purged{where}: {error.code}.",
        code=error.code,
        error=error.type,
        branch=branch,
    )


def removals(db: Database, text: str) -> Iterator[list[Any]]:
    """Operations that remove every fact of ``db``, past or present, that holds a text.

    Composite tuples go with their parts; those that outlived their parts come last.  Names of
    attributes stay: something uses them.
    """
    name = kw("db/purge" if db.config.keep_history else "db/retract")
    coded = [attr for attr, index in db.indexes.items() if index.kind == "code"]
    for attr in sorted(coded, key=lambda attr: _composite(db, attr)):
        rows = db.indexes[attr].aevt.flat()
        if _composite(db, attr):
            rows = rows[:, rows[3] != OPEN]
        codes = np.unique(rows[1])
        values = db.pool.decode(codes).tolist()
        hits = [code for code, value in zip(codes, values, strict=True) if contains(value, text)]
        if not hits:
            continue
        hit = np.isin(rows[1], hits)
        for e, code in dict.fromkeys(zip(*rows[:2, hit].tolist(), strict=True)):
            value = db.pool.values[code]
            if attr is not IDENT or db.schema.get(value) is None:
                yield [name, e, attr, value]


def _composite(db: Database, attr: Keyword) -> bool:
    declared = db.schema.get(attr)
    return declared is not None and bool(declared.tuple_attrs)


def patterns(
    db: Database, tx_data: Sequence[Sequence[Any]], facts: Sequence[Pattern]
) -> list[Pattern]:
    """The patterns of a request with entities and attributes as ``db`` knows them."""
    found: list[Pattern] = []
    wanted = [tuple(op[1:]) for op in tx_data if not op[0].startswith("db.history.purge/")]
    for pattern in [*wanted, *facts]:
        e = _entity(db, pattern[0])
        if e is not None:
            attr = [as_keyword(name) for name in pattern[1:2]]
            found.append((e, *attr, *(v for v in pattern[2:] if v is not None)))
    return found


def _entity(db: Database, ref: Any) -> int | None:
    """The entity that has or had an id."""
    if isinstance(ref, str):
        ref = Keyword(ref)
    try:
        found = db.entid(ref)
        if found is None and isinstance(ref, (list, tuple)):
            past = db.history() if db.config.keep_history else db
            held = past.holders(as_keyword(ref[0]), ref[1])
            found = held[-1] if held else None
    except NatalogError:
        return None
    return found


def _spelled(operation: list[Any]) -> list[Any]:
    """An operation on attributes that are keywords takes its values as they are."""
    name, *words = operation
    typed = len(words) > 1 and isinstance(words[1], Keyword)
    return [kw(name) if typed else name, *words]


def _name(operation: Any) -> str:
    if not isinstance(operation, (list, tuple)) or not operation:
        return ""
    return str(operation[0]).lstrip(":")


__all__ = [
    "PURGES",
    "Pattern",
    "checked_patterns",
    "checked_purges",
    "finds",
    "operations",
    "patterns",
    "refused",
    "removals",
]

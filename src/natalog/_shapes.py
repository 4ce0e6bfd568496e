"""Arguments as the engine wants them, and answers as Python wants them.

The client and the local database share this file, so that both take and give the same shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any
from uuid import UUID

from natalog.core.edn import read
from natalog.core.errors import (
    BadRequest,
    InvalidName,
    InvalidTimePoint,
    ParentsRequired,
    TransactSyntax,
)
from natalog.core.forms import freeze
from natalog.core.limits import NAME_LENGTH_MAX
from natalog.core.values import Datom, Keyword, Symbol, make_set
from natalog.report import TxReport

MAIN_BRANCH = "db"
PURGES = (
    *("db/purge", "db.purge/entity", "db.purge/attribute"),
    *("db.history.purge/before", "db.history.purge/ended"),
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")
_TX_DATA_KEYS = ("tx_data", "tx-data", ":tx-data", Keyword("tx-data"))
_TX_META_KEYS = ("tx_meta", "tx-meta", ":tx-meta", Keyword("tx-meta"))
_COLLECTIONS = frozenset({list, dict, set})
_ATTRIBUTE_POSITION = {"eavt": 1, "aevt": 0, "avet": 0}


def checked_name(name: Any, what: str = "database") -> str:
    """``name`` if it may name a database or branch; `InvalidName` otherwise."""
    text = name.text if isinstance(name, Keyword) else name
    if not isinstance(text, str) or len(text) > NAME_LENGTH_MAX or not _NAME.match(text):
        raise InvalidName(
            f"{name!r} cannot name a {what}: letters, digits, - and _ are allowed, the first one "
            f"a letter or digit, at most {NAME_LENGTH_MAX}",
            name=str(name),
        )
    return text


# --- transactions --------------------------------------------------------------------------------


def transaction(tx_data: Any, tx_meta: Any) -> tuple[list[Any], dict[Any, Any] | None]:
    """Tx-data as a list and tx-meta as a dict.

    Takes a list of operations, one map of facts in a list, the map form
    ``{"tx_data": [...], "tx_meta": {...}}``, or any of these as EDN text.
    """
    if isinstance(tx_data, str):
        tx_data = read(tx_data)
    if isinstance(tx_meta, str):
        tx_meta = read(tx_meta)
    if isinstance(tx_data, Mapping):
        inner = _first(tx_data, _TX_DATA_KEYS)
        if inner is None:
            raise TransactSyntax(
                "a transaction is a list of operations, or a map with tx_data", keys=_keys(tx_data)
            )
        meta = _first(tx_data, _TX_META_KEYS)
        return transaction(inner, tx_meta if tx_meta is not None else meta)
    if isinstance(tx_data, (bytes, Set)) or not isinstance(tx_data, Iterable):
        raise TransactSyntax(
            f"a transaction is a list of operations, not {type(tx_data).__name__}",
            given=repr(tx_data)[:200],
        )
    if tx_meta is not None and not isinstance(tx_meta, Mapping):
        raise TransactSyntax("tx_meta is a map of facts about the transaction", given=repr(tx_meta))
    return list(tx_data), None if tx_meta is None else dict(tx_meta)


def load_operation(rows: Any) -> list[Any]:
    """Tx-data that load the rows of another database, given as a collection or EDN text."""
    if isinstance(rows, str):
        rows = read(rows)
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise TransactSyntax(
            f"rows to load are a list, not {type(rows).__name__}", given=repr(rows)[:200]
        )
    if isinstance(rows, Set):
        return [[Keyword("db/load"), rows]]
    return [[Keyword("db/load"), [list(row) if type(row) is Datom else row for row in rows]]]


def purges(operations: Any) -> list[Any]:
    """Tx-data of purges and nothing else; `BadRequest`."""
    data, _ = transaction(operations, None)
    for operation in data:
        vector = isinstance(operation, (list, tuple)) and len(operation) > 0
        if not vector or str(operation[0]).lstrip(":") not in PURGES:
            raise BadRequest(
                f"only purges are done on every branch, not {operation!r}",
                operation=repr(operation)[:200],
            )
    return data


def _first(found: Mapping[Any, Any], keys: Iterable[Any]) -> Any:
    return next((found[key] for key in keys if key in found), None)


def _keys(found: Mapping[Any, Any]) -> list[str]:
    return [str(key) for key in found]


def parents_of(given: Any, branch: str) -> list[Any]:
    """The parents that a merge into ``branch`` names: one, or a collection of them."""
    found = [given] if isinstance(given, (str, UUID, Keyword)) else list(given)
    if not found:
        raise ParentsRequired("A merge needs at least one parent.", branch=branch)
    return found


# --- reads ---------------------------------------------------------------------------------------


def time_point(t: Any) -> int | datetime:
    """A tx id or an aware datetime; a report stands for its transaction."""
    if isinstance(t, TxReport):
        return t.tx
    if isinstance(t, bool) or not isinstance(t, (int, datetime)):
        raise InvalidTimePoint(
            f"{t!r} is no time point: give a transaction id or an aware datetime", given=repr(t)
        )
    if isinstance(t, datetime) and t.tzinfo is None:
        raise InvalidTimePoint(f"{t!r} has no time zone", given=repr(t))
    return t


def tx_id(t: Any) -> int | None:
    """A tx id, that of a report, or None."""
    point = None if t is None else time_point(t)
    if isinstance(point, datetime):
        raise InvalidTimePoint(f"{t!r} is no transaction id", given=repr(t))
    return point


def components(index: Any, parts: Sequence[Any]) -> tuple[str, list[Any]]:
    """The index by its bare name, and its components; strings in place of attributes are names."""
    name = str(index).lstrip(":")
    position = _ATTRIBUTE_POSITION.get(name)
    found = list(parts)
    if position is not None and len(found) > position and isinstance(found[position], str):
        found[position] = Keyword(found[position])
    return name, found


def attribute(ident: Any) -> Any:
    """``"name"``, ``":name"`` or a keyword as a keyword."""
    return Keyword(ident) if isinstance(ident, str) and ident.strip(":") else ident


def order_by(keys: Any) -> Any:
    """Sort keys: EDN text (``"?age"``, ``"[?age :desc]"``), or a list with words as strings.

    ``["?age", "desc"]`` and ``[1, "asc"]`` are such lists.
    """
    if isinstance(keys, str):
        return read(keys)
    if isinstance(keys, (list, tuple)):
        return [_order_word(key) if isinstance(key, str) else key for key in keys]
    return keys


def _order_word(word: str) -> Any:
    bare = word.lstrip(":")
    return Keyword(bare) if bare in ("asc", "desc") else Symbol(word)


def pull_pattern(pattern: Any) -> Any:
    """A pull pattern, read if it is EDN text."""
    return read(pattern) if isinstance(pattern, str) else pattern


# --- answers -------------------------------------------------------------------------------------


def query_answer(kind: str, result: Any) -> Any:
    """A query's answer in Python's terms.

    A relation is a set of tuples, or a list of tuples where order or repetition matters; a
    collection a list; a tuple a tuple or None; maps a list of dicts.  Vectors among the values are
    tuples.
    """
    match kind:
        case "set":
            return make_set(map(_frozen_row, result))
        case "rows":
            return [_row(row) for row in result]
        case "tuple":
            return None if result is None else _row(result)
        case "collection":
            return [vectors_as_tuples(value) for value in result]
        case "maps":
            return [{key: vectors_as_tuples(value) for key, value in row.items()} for row in result]
        case _:
            return vectors_as_tuples(result)


def _frozen_row(row: Any) -> tuple[Any, ...]:
    """A row of a set; the collections inside it become hashable."""
    if _COLLECTIONS.isdisjoint(map(type, row)):
        return tuple(row)
    return tuple(freeze(value) if type(value) in _COLLECTIONS else value for value in row)


def _row(row: Any) -> tuple[Any, ...]:
    return tuple(map(vectors_as_tuples, row)) if list in map(type, row) else tuple(row)


def vectors_as_tuples(value: Any) -> Any:
    """Lists, also inside lists, as tuples: values are hashable wherever they come from."""
    return tuple(map(vectors_as_tuples, value)) if type(value) is list else value

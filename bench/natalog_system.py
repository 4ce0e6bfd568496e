"""Natalog in process: loading a data set through transactions, and asking the value it gave."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, Entity

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.query import q
from natalog.core.transact import process
from natalog.core.values import Keyword

K = Keyword
ID = K("id")
Row = tuple[Any, ...]


def schema_tx(dataset: Dataset) -> list[dict[Keyword, Any]]:
    """The schema of a data set as transaction data."""
    found = []
    for name, a in dataset.schema.items():
        entry: dict[Keyword, Any] = {
            K("db/ident"): K(name),
            K("db/valueType"): K(f"db.type/{a.kind}"),
            K("db/cardinality"): K("db.cardinality/many" if a.many else "db.cardinality/one"),
        }
        if a.unique:
            entry[K("db/unique")] = K("db.unique/identity")
        elif a.index:
            entry[K("db/index")] = True
        found.append(entry)
    return found


def tx_maps(dataset: Dataset, entities: Sequence[Entity]) -> list[dict[Keyword, Any]]:
    """Entities as transaction data."""
    keywords = {name for name, a in dataset.schema.items() if a.kind == "keyword"}
    names = {name: K(name) for name in dataset.schema}
    return [
        {
            names[name]: K(value) if name in keywords else value
            for name, value in one.items()
            if value != []
        }
        for one in entities
    ]


def prepared(dataset: Dataset, size: int) -> list[list[dict[Keyword, Any]]]:
    """All entities as transaction data, ``size`` entities a transaction."""
    return [tx_maps(dataset, batch) for batch in dataset.batches(size)]


def empty(dataset: Dataset, *, history: bool = True) -> Database:
    """An empty database with the schema of ``dataset``."""
    db = Database.empty(DatabaseConfig(keep_history=history))
    return process(db, schema_tx(dataset), now_ms=1).db_after


def applied(db: Database, transactions: Sequence[Any]) -> Database:
    """The value after ``transactions``, one after the other."""
    for number, tx in enumerate(transactions):
        db = process(db, tx, now_ms=1_000 + number).db_after
    return db


@dataclass
class Loaded:
    """A data set in Natalog, with the id of each of its entities."""

    db: Database
    ids: dict[int, int]
    before_updates: int
    """The transaction before the updates."""
    middle: int
    """The transaction in the middle of the updates."""
    last: int
    eids: dict[int, int] = field(default_factory=dict)


def load(dataset: Dataset, *, history: bool = True) -> Loaded:
    """``dataset`` through transactions."""
    db = applied(empty(dataset, history=history), prepared(dataset, 1_000))
    for batch in dataset.link_batches():
        operations = [[K("db/add"), [ID, e], K(a), [ID, v]] for e, a, v in batch]
        db = process(db, operations, now_ms=2_000_000).db_after
    before = middle = db.max_tx
    for number, step in enumerate(dataset.updates, 1):
        db = process(db, tx_maps(dataset, step), now_ms=3_000_000 + number).db_after
        if number == len(dataset.updates) // 2:
            middle = db.max_tx
    ids = ids_of(db, dataset)
    gc.collect()
    eids = {number: e for e, number in ids.items()}
    return Loaded(db, ids, before, middle, db.max_tx, eids)


def ids_of(db: Database, dataset: Dataset) -> dict[int, int]:
    """The id of each entity."""
    if dataset.ids is None:
        return {datom.e: datom.v for datom in db.datoms("aevt", [ID])}
    entities = sorted(datom.e for datom in db.datoms("aevt", [K("name")]))
    return dict(zip(entities, dataset.ids, strict=True))


def asked(query: str, inputs: Sequence[Any]) -> Callable[[], Any]:
    """The query as something to call; its result is fully built, as rows."""

    def ask() -> Any:
        return q(query, *inputs).rows

    return ask

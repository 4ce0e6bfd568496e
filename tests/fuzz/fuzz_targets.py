"""What is fuzzed: functions of bytes that may raise nothing but `NatalogError`.

Each target also checks that what was read can be written and read again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from natalog.core.codec import pack, unpack
from natalog.core.codec_json import from_json, to_json
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read, write
from natalog.core.errors import NatalogError
from natalog.core.pull import parse_pull, pull
from natalog.core.query import q
from natalog.core.query.parse import parse_query
from natalog.core.query.parse_rules import parse_rules
from natalog.core.transact import process
from natalog.core.values import Keyword, value_key

Target = Callable[[bytes], None]

SCHEMA: Final = """
    [{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
      :db/unique :db.unique/identity}
     {:db/ident :age  :db/valueType :db.type/long   :db/cardinality :db.cardinality/one
      :db/index true}
     {:db/ident :tag  :db/valueType :db.type/keyword :db/cardinality :db.cardinality/many}
     {:db/ident :boss :db/valueType :db.type/ref    :db/cardinality :db.cardinality/one}
     {:db/ident :part :db/valueType :db.type/ref    :db/cardinality :db.cardinality/many
      :db/isComponent true}
     {:db/ident :pair :db/valueType :db.type/tuple  :db/cardinality :db.cardinality/one
      :db/tupleAttrs [:name :age]}]
"""
FACTS: Final = """
    [{:db/id -1 :name "Ann" :age 30 :tag [:a :b]}
     {:db/id -2 :name "Bob" :age 40 :boss -1 :part [{:name "Hat"}]}]
"""
CHECKS_MAX: Final = 300
"""How often a query may look at its deadline before it has passed."""


@cache
def database(flexibility: str) -> Database:
    """A small database, the same every time."""
    db = Database.empty(DatabaseConfig(schema_flexibility=flexibility))
    db = process(db, read(SCHEMA), now_ms=1).db_after
    return process(db, read(FACTS), now_ms=2).db_after


def text_of(data: bytes) -> str:
    """Any bytes as text; most of it is UTF-8."""
    return data.decode("utf-8", "replace")


def edn(data: bytes) -> None:
    """The EDN reader and writer."""
    value = read(text_of(data))
    assert value_key(read(write(value))) == value_key(value)


def msgpack(data: bytes) -> None:
    """The msgpack codec."""
    packed = pack(unpack(data))
    assert pack(unpack(packed)) == packed


def json(data: bytes) -> None:
    """The JSON codec."""
    value = from_json(text_of(data))
    pack(value)
    again = to_json(value)
    assert to_json(from_json(again)) == again


def query(data: bytes) -> None:
    """The query parser, and the engine on a small database."""
    form = parse_query(text_of(data))
    left = iter(range(CHECKS_MAX))
    q(
        text_of(data),
        *[database("write")] * len(form.inputs),
        expired=lambda: next(left, None) is None,
        fuel=20_000,
        rows_max=10_000,
    )


def pull_pattern(data: bytes) -> None:
    """The pull parser, and a pull."""
    pattern = read(text_of(data))
    parse_pull(pattern)
    pull(database("write"), pattern, 8)


def rules(data: bytes) -> None:
    """The rule parser, and a query that has the rules."""
    text = text_of(data)
    parse_rules(text)
    left = iter(range(CHECKS_MAX))
    q(
        "[:find ?e :in $ % :where [?e :name] (rule ?e)]",
        database("write"),
        text,
        expired=lambda: next(left, None) is None,
        fuel=20_000,
        rows_max=10_000,
    )


def transaction(data: bytes) -> None:
    """The validator of transactions, in both kinds of database."""
    form = read(text_of(data))
    for flexibility in ("write", "read"):
        _applied(database(flexibility), form)


def _applied(db: Database, form: Any) -> None:
    try:
        report = process(db, form, now_ms=3)
    except NatalogError:
        return
    made = {(d.e, d.a, write(d.v)) for d in report.db_after.datoms("eavt")}
    for datom in report.datoms:
        pack(datom.v)
        assert isinstance(datom.a, Keyword)
    assert len(made) == len(report.db_after)


TARGETS: Final[dict[str, Target]] = {
    "edn": edn,
    "msgpack": msgpack,
    "json": json,
    "query": query,
    "pull": pull_pattern,
    "rules": rules,
    "transaction": transaction,
}


def tried(target: Target, data: bytes) -> bool:
    """Whether a target accepts ``data``; what is not one of our errors is raised."""
    try:
        target(data)
    except NatalogError:
        return False
    return True

"""Whatever a client writes, the answer is a report or a typed error, and the value stays intact."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.errors import NatalogError
from natalog.core.transact import TxReport, process
from natalog.core.values import Float32, Int32, Keyword, Symbol, kw, value_key

SCHEMA: list[Any] = [
    {"db/ident": f":{name}", "db/valueType": f":db.type/{kind}", "db/cardinality": f":db.{many}"}
    | extra
    for name, kind, many, extra in [
        ("name", "string", "cardinality/one", {"db/unique": ":db.unique/identity"}),
        ("code", "long", "cardinality/one", {"db/unique": ":db.unique/value"}),
        ("age", "long", "cardinality/one", {}),
        ("tag", "keyword", "cardinality/many", {}),
        ("boss", "ref", "cardinality/one", {}),
        ("part", "ref", "cardinality/many", {"db/isComponent": True}),
        ("at", "instant", "cardinality/one", {}),
        ("pair", "tuple", "cardinality/one", {"db/tupleAttrs": [":name", ":age"]}),
        ("days", "tuple", "cardinality/one", {"db/tupleType": ":db.type/long"}),
    ]
]

NAMES = ["name", "code", "age", "tag", "boss", "part", "at", "pair", "days", "nosuch", "_boss"]
SYSTEM = [
    "db/ident",
    "db/valueType",
    "db/cardinality",
    "db/unique",
    "db/index",
    "db/txInstant",
    "db/doc",
    "db/tupleAttrs",
    "db/maxLength",
]
OPERATIONS = [
    "db/add",
    "db/retract",
    "db/retractEntity",
    "db.fn/retractAttribute",
    "db/cas",
    "db.fn/call",
    "db/purge",
    "db.purge/attribute",
    "db.purge/entity",
    "db.history.purge/before",
    "db/nosuch",
]

attributes = st.sampled_from(NAMES * 3 + SYSTEM).flatmap(
    lambda name: st.sampled_from([kw(name), name, ":" + name])
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 30),
    st.sampled_from([2**52, 2**52 + 1, 2**52 + 2, 2**63, -(2**70), 0]),
    st.floats(),
    st.sampled_from(["a", "b", "t1", ":name", ":x", "", "datomic.tx", "2020-01-01"]),
    st.sampled_from([kw("a"), kw("name"), kw("db/current-tx"), kw("db.type/long")]),
    st.sampled_from([kw("db.cardinality/one"), kw("db.cardinality/many"), kw("db.unique/value")]),
    st.sampled_from([Symbol("s"), Decimal("1.0"), UUID(int=5), b"x", Float32(1.5), Int32(5)]),
    st.sampled_from([datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1)]),
)
lookups = st.tuples(attributes, scalars).flatmap(lambda p: st.sampled_from([p, list(p)]))
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(scalars, lookups),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(attributes | st.sampled_from(["db/id"]), inner, max_size=3),
    ),
    max_leaves=6,
)
vectors = st.sampled_from(OPERATIONS).flatmap(
    lambda name: st.tuples(
        st.sampled_from([kw(name), name, ":" + name]),
        st.lists(st.one_of(values, attributes), max_size=4),
    ).map(lambda pair: [pair[0], *pair[1]])
)
additions = st.tuples(
    st.sampled_from([kw("db/add"), "db/add"]), scalars | lookups, attributes, values
).map(list)
maps = st.dictionaries(attributes | st.sampled_from(["db/id", ":db/ensure"]), values, max_size=4)
wild = st.one_of(maps, additions, vectors, scalars)

# what a client means to write: right types, entities that exist, amid some that do not
FITTING: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["a", "b", "c", "d", "e"]),
    "code": st.integers(5, 9),
    "age": st.integers(0, 3),
    "tag": st.sampled_from([":x", ":y", kw("z")]),
    "boss": st.sampled_from([10, 11, 12, 13, "t1", "t2", -1, ["name", "a"], ["code", 7]]),
    "at": st.sampled_from([datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)]),
    "days": st.lists(st.integers(0, 3), min_size=1, max_size=3),
}
FITTING["part"] = FITTING["boss"]
names = st.sampled_from(sorted(FITTING))
entities = st.sampled_from(
    [10, 11, 12, 13, 14, ["name", "a"], ["name", "b"], ["code", 7], kw("age"), "datomic.tx"]
)
tempids = st.sampled_from(["t1", "t2", -1, -2])
facts = names.flatmap(lambda name: st.tuples(st.just(name), FITTING[name]))
fitting_maps = st.tuples(
    st.lists(facts, max_size=4), st.none() | entities | tempids, st.none() | st.lists(facts)
).map(
    lambda parts: (
        dict(parts[0])
        | ({} if parts[1] is None else {"db/id": parts[1]})
        | ({} if parts[2] is None else {"part": [dict(parts[2])]})
    )
)
fitting_additions = st.tuples(st.just("db/add"), entities | tempids, facts).map(
    lambda parts: [parts[0], parts[1], *parts[2]]
)
fitting_removals = st.tuples(
    st.sampled_from(["db/retract", "db/purge"]), entities, facts, st.booleans()
).map(lambda parts: [parts[0], parts[1], *parts[2]][: 4 if parts[3] else 3])
whole_removals = st.tuples(
    st.sampled_from(["db/retractEntity", "db.purge/entity", "db.fn/retractEntity"]), entities
).map(list)
attribute_removals = st.tuples(
    st.sampled_from(["db.fn/retractAttribute", "db.purge/attribute"]), entities, names
).map(list)
fitting = st.one_of(
    fitting_maps,
    fitting_maps,
    fitting_additions,
    fitting_additions,
    fitting_removals,
    whole_removals,
    attribute_removals,
)
transactions = st.one_of(
    st.lists(fitting, max_size=6), st.lists(wild, max_size=5), st.lists(fitting | wild, max_size=4)
)


def filled(config: DatabaseConfig) -> Database:
    db = process(Database.empty(config), SCHEMA, now_ms=0).db_after
    people = [
        {"name": "a", "age": 1, "tag": [":x", ":y"], "part": [{"name": "b", "code": 7}]},
        {"name": "c", "boss": ["name", "a"], "days": [1, 2]},
    ]
    db = process(db, people, now_ms=0).db_after
    return process(db, [{"name": "a", "age": 2}, ["db/retract", 11, "code"]], now_ms=0).db_after


BASES = [
    filled(DatabaseConfig()),
    filled(DatabaseConfig(schema_flexibility="read")),
    filled(DatabaseConfig(keep_history=False)),
]


def facts_of(db: Database) -> set[Any]:
    return {(d.e, d.a, value_key(d.v)) for d in db.datoms("eavt")}


def check_report(report: TxReport) -> None:
    """The datoms lead from one value to the other, each changes something, promises are kept."""
    after = report.db_after
    facts = facts_of(report.db_before)
    facts -= {(p.e, p.attr, value_key(p.value)) for p in report.changes.purges}
    for datom in report.datoms:
        assert datom.tx == report.tx
        assert type(datom.a) is Keyword
        fact = (datom.e, datom.a, value_key(datom.v))
        assert (fact in facts) != datom.added, datom
        facts ^= {fact}
    assert facts_of(after) == facts
    held: dict[Any, set[Any]] = {}
    for e, attr, key in facts:
        held.setdefault((e, attr), set()).add(key)
        declared = after.schema.get(attr)
        if declared is None or not declared.many:
            assert len(held[e, attr]) == 1, (e, attr)
        if declared is not None and declared.unique:
            assert held.setdefault((attr, key), {e}) == {e}, (attr, key)
    pair = after.schema.get(kw("pair"))
    for e in {e for e, _, _ in facts} if pair is not None and pair.tuple_attrs else ():
        slots = [next(iter(after.values(e, part)), None) for part in pair.tuple_attrs or ()]
        assert after.values(e, kw("pair")) == ([] if slots == [None, None] else [tuple(slots)])


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(BASES), transactions, st.none() | st.just({"db/doc": "why"}) | maps)
def test_any_input_makes_a_sound_value_or_a_typed_error(
    db: Database, tx_data: list[Any], tx_meta: dict[Any, Any] | None
) -> None:
    before = db.datoms("eavt")
    try:
        report = process(db, tx_data, tx_meta, now_ms=5)
    except NatalogError as error:
        assert error.message
    else:
        report.db_after._check()
        check_report(report)
    assert db.datoms("eavt") == before

"""Database values: what each view shows, raw index access, and that values never change."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import (
    EntityIdMissing,
    EntityIdSyntax,
    IndexError_,
    InvalidConfig,
    InvalidTimePoint,
    LookupRefSyntax,
    LookupRefUnique,
    NatalogError,
    NoHistory,
)
from natalog.core.query import q
from natalog.core.transact import process
from natalog.core.values import Datom, Keyword, kw, ms_instant

NAME, AGE, FRIEND, SCORE, TAG = map(kw, ("name", "age", "friend", "score", "tag"))


def attribute(name: str, value_type: str, *, many: bool = False, **extra: Any) -> dict[Any, Any]:
    return {
        kw("db/ident"): kw(name),
        kw("db/valueType"): kw(f"db.type/{value_type}"),
        kw("db/cardinality"): kw("db.cardinality/many" if many else "db.cardinality/one"),
        **{kw(f"db/{key}"): value for key, value in extra.items()},
    }


SCHEMA = [
    attribute("name", "string", unique=kw("db.unique/identity")),
    attribute("age", "long", index=True),
    attribute("friend", "ref", many=True),
    attribute("score", "double", index=True),
    attribute("tag", "string", many=True),
]


def database(**config: Any) -> Database:
    return process(Database.empty(DatabaseConfig(**config)), SCHEMA, now_ms=1000).db_after


def transact(db: Database, *ops: Any, at: int = 0, **meta: Any) -> Database:
    return process(db, list(ops), meta or None, now_ms=at).db_after


def updated() -> tuple[Database, Database]:
    """Al is 25, then 30."""
    first = transact(database(), {NAME: "Al", AGE: 25, TAG: ["x", "a"]}, {NAME: "Bo"})
    return first, transact(first, {kw("db/id"): [NAME, "Al"], AGE: 30})


def test_an_empty_database_has_no_datoms_and_begins_at_entity_one() -> None:
    db = Database.empty()
    assert len(db) == 0 and db.datoms("eavt") == [] and db.max_tx == db.tx0
    assert transact(db, {kw("db/ident"): kw("x")}).entid(kw("x")) == 1


def test_a_value_does_not_change_when_its_successor_is_made() -> None:
    first, second = updated()
    e = first.entid_strict([NAME, "Al"])
    assert first.values(e, AGE) == [25] and second.values(e, AGE) == [30]
    first._check()
    second._check()


def test_as_of_is_inclusive_and_since_exclusive() -> None:
    first, second = updated()
    e = first.entid_strict([NAME, "Al"])
    assert second.as_of(first.max_tx).values(e, AGE) == [25]
    assert second.as_of(second.max_tx).values(e, AGE) == [30]
    assert second.since(first.max_tx).values(e, AGE) == [30]
    assert second.since(first.max_tx).values(e, NAME) == []
    assert second.since(second.max_tx).values(e, AGE) == []


def test_instants_cut_like_the_transactions_they_belong_to() -> None:
    first, second = updated()
    e = first.entid_strict([NAME, "Al"])
    assert second.instant_ms is not None and first.instant_ms is not None
    assert second.as_of(ms_instant(first.instant_ms)).values(e, AGE) == [25]
    assert second.as_of(ms_instant(0)).values(e, AGE) == []
    assert second.since(ms_instant(first.instant_ms)).values(e, AGE) == [30]


def test_history_shows_assertions_and_retractions_of_one_update() -> None:
    first, second = updated()
    e = first.entid_strict([NAME, "Al"])
    assert second.history().datoms("eavt", [e, AGE]) == [
        Datom(e, AGE, 25, first.max_tx, True),
        Datom(e, AGE, 25, second.max_tx, False),
        Datom(e, AGE, 30, second.max_tx, True),
    ]
    assert second.history().since(first.max_tx).datoms("eavt", [e, AGE]) == [
        Datom(e, AGE, 25, second.max_tx, False),
        Datom(e, AGE, 30, second.max_tx, True),
    ]
    assert second.as_of(first.max_tx).history().datoms("eavt", [e, AGE]) == [
        Datom(e, AGE, 25, first.max_tx, True)
    ]


def test_the_narrower_of_two_views_wins_in_either_order() -> None:
    first, second = updated()
    e = first.entid_strict([NAME, "Al"])
    for view in (
        second.as_of(first.max_tx).as_of(second.max_tx),
        second.as_of(second.max_tx).as_of(first.max_tx),
    ):
        assert view.values(e, AGE) == [25]
    assert second.since(first.max_tx).as_of(second.max_tx).values(e, AGE) == [30]


def test_as_of_an_instant_is_membership_when_instants_went_backwards() -> None:
    db = database()
    meta = kw("db/txInstant")
    db = process(db, [{NAME: "Al", AGE: 1}], {meta: ms_instant(5000)}, now_ms=0).db_after
    late = db
    db = process(db, [[kw("db/add"), [NAME, "Al"], AGE, 2]], {meta: ms_instant(3000)}, now_ms=0)
    db = db.db_after
    e = late.entid_strict([NAME, "Al"])
    assert not db.monotonic
    assert db.as_of(ms_instant(4000)).values(e, AGE) == [2]
    assert db.as_of(ms_instant(4000)).values(e, NAME) == []
    assert db.as_of(ms_instant(6000)).values(e, AGE) == [2]
    assert db.as_of(late.max_tx).values(e, AGE) == [1]


def test_views_need_history_and_a_real_point_in_time() -> None:
    db = database(keep_history=False)
    for view in (lambda: db.as_of(db.max_tx), lambda: db.since(db.max_tx), db.history):
        with pytest.raises(NoHistory):
            view()
    kept = database()
    for point in (3, 0, "yesterday", None, True, datetime(2020, 1, 1)):
        with pytest.raises(InvalidTimePoint):
            kept.as_of(point)  # type: ignore[arg-type]
    assert len(kept.as_of(kept.max_tx + 5)) == len(kept)


def test_without_history_a_replaced_value_is_gone() -> None:
    db = transact(database(keep_history=False), {NAME: "Al", AGE: 25})
    db = transact(db, {NAME: "Al", AGE: 26})
    db._check()
    assert db.indexes[AGE].aevt.count == 1
    assert db.instant_ms is None


def test_lookup_refs_idents_and_ids_name_entities() -> None:
    db, _ = updated()
    e = db.entid([NAME, "Al"])
    assert db.entid(("name", "Al")) == e and db.entid(NAME) == 1 and db.entid(e) == e
    assert db.entid([NAME, "Nobody"]) is None and db.entid([NAME, None]) is None
    with pytest.raises(EntityIdMissing):
        db.entid_strict([NAME, "Nobody"])
    with pytest.raises(LookupRefUnique):
        db.entid([AGE, 25])
    with pytest.raises(LookupRefSyntax):
        db.entid([NAME])
    for wrong in (True, 1.5, None, {}):
        with pytest.raises(EntityIdSyntax):
            db.entid(wrong)


def test_indexes_order_by_entity_attribute_and_value() -> None:
    db, _ = updated()
    found = db.datoms("eavt", [[NAME, "Al"]])
    assert [(d.a, d.v) for d in found] == [(AGE, 25), (NAME, "Al"), (TAG, "a"), (TAG, "x")]
    everything = db.datoms("eavt")
    assert [(d.e, d.a) for d in everything] == sorted((d.e, d.a) for d in everything)
    assert [d.v for d in db.datoms("avet", [NAME])] == ["Al", "Bo"]
    assert db.datoms("avet", [TAG]) == []
    assert [d.v for d in db.datoms("aevt", [TAG])] == ["a", "x"]


def test_seeks_run_to_the_end_of_the_index_in_both_directions() -> None:
    db, _ = updated()
    everything = db.datoms("eavt")
    half = everything[len(everything) // 2]
    after = db.seek_datoms("eavt", [half.e, half.a, half.v])
    before = db.rseek_datoms("eavt", [half.e, half.a, half.v])
    assert after == everything[everything.index(half) :]
    assert before == everything[: everything.index(half) + 1][::-1]
    assert db.seek_datoms("eavt", [half.e], 2) == [d for d in everything if d.e >= half.e][:2]


def test_index_range_includes_both_ends_and_needs_an_index() -> None:
    db = database()
    for number in range(5):
        db = transact(db, {NAME: f"n{number}", SCORE: float(number) - 2.0})
    assert [d.v for d in db.index_range(SCORE, -1.0, 1.0)] == [-1.0, 0.0, 1.0]
    assert [d.v for d in db.index_range(NAME, None, "n1")] == ["n0", "n1"]
    assert db.index_range(SCORE, 2.0, 1.0) == []
    with pytest.raises(IndexError_):
        db.index_range(TAG)


def test_an_index_added_later_holds_the_older_facts() -> None:
    db = transact(database(allow_index_backfill=True), {NAME: "Al", TAG: ["b", "a"]})
    later = transact(db, {kw("db/id"): TAG, kw("db/index"): True})
    later._check()
    assert [d.v for d in later.datoms("avet", [TAG])] == ["a", "b"]


def test_equal_numbers_of_different_classes_are_different_values() -> None:
    db = Database.empty(DatabaseConfig(schema_flexibility="read"))
    db = transact(db, {kw("v"): 1}, {kw("v"): 1.0}, {kw("v"): True})
    holders = [db.holders(kw("v"), value) for value in (1, 1.0, True)]
    assert [len(found) for found in holders] == [1, 1, 1]
    assert len({found[0] for found in holders}) == 3


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(InvalidConfig):
        DatabaseConfig.from_mapping({kw("keep-histry?"): True})
    read = DatabaseConfig.from_mapping({kw("schema-flexibility"): kw("read")})
    assert read.schema_flexibility == "read"
    with pytest.raises(InvalidConfig):
        DatabaseConfig(schema_flexibility="sometimes")


def test_metrics_count_datoms_by_attribute_and_entity() -> None:
    _, db = updated()
    found = db.metrics()
    assert found[kw("count")] == len(db) == sum(found[kw("per-attr-counts")].values())
    assert found[kw("temporal-count")] == len(db.history())
    assert found[kw("per-attr-counts")][Keyword("age")] == 1


KINDS = """[{:db/id 1 :db/ident :kind :db/valueType :db.type/keyword
             :db/cardinality :db.cardinality/one :db/unique :db.unique/identity}]"""


@pytest.mark.parametrize("text", ["", ":"])
def test_text_without_a_name_names_no_attribute_and_no_keyword(text: str) -> None:
    db = process(Database.empty(), read(KINDS), now_ms=0).db_after
    kind = Keyword("kind")
    assert db.entid([kind, text]) is None
    assert db.datoms("avet", [kind, text]) == []
    assert db.index_range(kind, text, text) == []
    for ask in (
        lambda: db.entid([text, 1]),
        lambda: db.datoms("aevt", [text]),
        lambda: q(f'[:find ?e :where [?e "{text}" ?v]]', db),
    ):
        with pytest.raises(NatalogError):
            ask()


def test_a_value_that_forgets_its_columns_answers_as_before() -> None:
    before = Database.empty(DatabaseConfig(schema_flexibility="read"))
    first = process(before, [{"n": number, "m": 1} for number in range(5000)], None, now_ms=1)
    old = first.db_after
    new = process(old, [{"n": 5000}], None, now_ms=2).db_after
    wanted = [old.datoms("aevt"), new.datoms("aevt")]
    kept = new.indexes[Keyword("m")].aevt.flat()
    for db in (old, new):
        db.scan(Keyword("n"))
    old.forget(new)
    assert new.indexes[Keyword("m")].aevt.flat() is kept, "what is shared is left alone"
    assert [old.datoms("aevt"), new.datoms("aevt")] == wanted
    new.forget(new)
    assert new.datoms("aevt") == wanted[1]

"""Snapshots: a loaded value is the one that was written, and what did not change is not written."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from snapshot_store import Store, same

from natalog.core.apply import apply_changes
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.diff import diff
from natalog.core.edn import read
from natalog.core.errors import SegmentCorrupt, SegmentMissing, ViewRefused
from natalog.core.index.pool import ValuePool
from natalog.core.merge import plan_merge
from natalog.core.query import q
from natalog.core.storage import Memo, Residency, load_snapshot, reachable, write_snapshot
from natalog.core.transact import process
from natalog.core.values import Keyword
from natalog.core.versioning import forked

K = Keyword

SCHEMA = read("""
    [{:db/ident :id    :db/valueType :db.type/long    :db/cardinality :db.cardinality/one
      :db/unique :db.unique/identity}
     {:db/ident :name  :db/valueType :db.type/string  :db/cardinality :db.cardinality/one
      :db/index true :db/doc "what it is called"}
     {:db/ident :score :db/valueType :db.type/double  :db/cardinality :db.cardinality/one}
     {:db/ident :tag   :db/valueType :db.type/keyword :db/cardinality :db.cardinality/many}
     {:db/ident :boss  :db/valueType :db.type/ref     :db/cardinality :db.cardinality/one}
     {:db/ident :pass  :db/valueType :db.type/string  :db/cardinality :db.cardinality/one
      :db/noHistory true}
     {:db/ident :id+name :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one
      :db/tupleAttrs [:id :name]}]
""")


def people(count: int) -> Database:
    """A database of people with all kinds of columns, some of them changed since."""
    config = DatabaseConfig(allow_index_backfill=True)
    db = process(Database.empty(config), SCHEMA, now_ms=1).db_after
    for start in range(0, count, 1000):
        rows = [
            {
                K("id"): n,
                K("name"): f"name {n % 500}",
                K("score"): n / 7,
                K("tag"): [K("a"), K(f"t/{n % 3}")],
                K("boss"): 1,
                K("pass"): f"pass {n}",
            }
            for n in range(start, min(start + 1000, count))
        ]
        db = transacted(db, rows)
    return transacted(db, [{K("id"): n, K("name"): "changed"} for n in range(0, count, 9)])


def transacted(db: Database, data: Any) -> Database:
    return process(db, data, now_ms=10 * (db.max_tx - db.tx0 + 1)).db_after


def eid(db: Database, number: int) -> int:
    return db.entid_strict([K("id"), number])


# --- the same value ------------------------------------------------------------------------------


def test_a_loaded_value_answers_as_the_one_that_was_written() -> None:
    store, db = Store(), people(3_000)
    snapshot, _, _ = store.write(db)
    loaded = store.load(snapshot)
    same(db, loaded)
    loaded._check()


def test_an_empty_database_is_restored() -> None:
    for config in (DatabaseConfig(), DatabaseConfig(keep_history=False, max_string_length=7)):
        store, db = Store(), Database.empty(config)
        loaded = store.load(store.write(db)[0])
        same(db, loaded)
        same(process(db, SCHEMA, now_ms=5).db_after, process(loaded, SCHEMA, now_ms=5).db_after)


def test_settings_and_lanes_are_restored() -> None:
    config = DatabaseConfig(
        schema_flexibility="read", name=K("people"), store={K("backend"): K("x")}
    )
    db = process(
        Database.empty(config), [{"a": 1, "b": [1, "x"]}, {"a": "text"}], now_ms=5
    ).db_after
    branch = transacted(forked(db, 3), [{"a": 2.5, "c": {"deep": 1}}])
    for one in (db, branch):
        store = Store()
        same(one, store.load(store.write(one)[0]))


def test_a_database_goes_on_from_its_snapshot() -> None:
    store, db = Store(), people(2_000)
    snapshot, _, _ = store.write(db)
    loaded = store.load(snapshot, budget=0)
    steps: list[Any] = [
        [{K("id"): 7, K("name"): "later", K("pass"): "new"}],
        [[K("db/retractEntity"), [K("id"), 8]]],
        [{K("id"): 5_000, K("tag"): [K("new"), K("a")]}],
        [[K("db.purge/entity"), [K("id"), 9]]],
        [{K("db/ident"): K("more"), K("db/valueType"): K("db.type/string"),
          K("db/cardinality"): K("db.cardinality/one"), K("db/index"): True}],
        [{K("id"): 10, K("more"): "text"}],
        [{K("db/id"): K("score"), K("db/index"): True}],
    ]  # fmt: skip
    for step in steps:
        db, loaded = transacted(db, step), transacted(loaded, step)
        same(db, loaded)
        loaded._check()


def test_a_view_is_not_written() -> None:
    db = people(10)
    with pytest.raises(ViewRefused):
        write_snapshot(db.history(), Memo())


def test_a_value_that_was_only_tried_is_not_written() -> None:
    db = people(10)
    with pytest.raises(ViewRefused):
        write_snapshot(transacted(db.scratch(), [{K("id"): 1, K("name"): "tried"}]), Memo())


def test_a_schema_of_very_many_attributes_is_restored() -> None:
    """What reads msgpack bounds the collections in it."""
    kinds = {K("db/valueType"): K("db.type/string"), K("db/cardinality"): K("db.cardinality/one")}
    data = [{K("db/ident"): K(f"a{n}"), K("db/doc"): f"number {n}", **kinds} for n in range(2_000)]
    db = process(Database.empty(), data, now_ms=5).db_after
    store = Store()
    loaded = store.load(store.write(db)[0])
    assert loaded.schema.read_out() == db.schema.read_out()
    assert loaded.schema.declared() == db.schema.declared()


# --- what is shared ------------------------------------------------------------------------------


def test_a_value_that_did_not_change_is_not_written_again() -> None:
    store, db = Store(), people(5_000)
    first, memo, new = store.write(db)
    assert len(new) > 20
    for residency in (None, Residency(10**9), Residency(0)):
        again, memo, new = store.write(db, memo, residency)
        assert not new
        assert again.manifest == first.manifest
        assert again.name == first.name


def test_a_small_change_writes_only_what_it_touched() -> None:
    store, db = Store(), people(5_000)
    _, memo, whole = store.write(db, None, Residency(10**9))
    db = transacted(db, [[K("db/add"), eid(db, 77), K("score"), 1.5]])
    _, memo, new = store.write(db, memo, Residency(10**9))
    assert len(whole) > 50
    assert len(new) <= 6  # score, transaction instants by entity and value, entities, attributes
    db = transacted(db, [[K("db/add"), eid(db, 77), K("name"), "never seen"]])
    _, memo, new = store.write(db, memo, Residency(10**9))
    parts = {name for name in new if b"never seen" in store.opened(name)}
    assert len(parts) == 1, "one part of the dictionary"


def test_a_loaded_value_shares_with_its_snapshot() -> None:
    store, db = Store(), people(5_000)
    snapshot, _, _ = store.write(db)
    loaded, memo, _ = load_snapshot(snapshot.manifest, store, Residency(10**6))
    again, memo, new = store.write(loaded, memo, Residency(10**6))
    assert not new
    assert again.name == snapshot.name
    loaded = transacted(loaded, [[K("db/add"), eid(loaded, 77), K("score"), 1.5]])
    store.reads.clear()
    _, _, new = store.write(loaded, memo)
    assert len(new) <= 6
    assert len(store.reads) <= 2, "what was written before is not read to be written"


def test_a_branch_shares_with_its_parent() -> None:
    store, db = Store(), people(5_000)
    _, memo, whole = store.write(db, None, Residency(10**9))
    branch = transacted(forked(db, 1), [{K("id"): 9_000, K("name"): "on the branch"}])
    for known in (memo, Memo()):  # the parent's memo saves work, not segments
        snapshot = write_snapshot(branch, known, stored=store)
        new = dict(snapshot.segments())
        assert len(new) <= 14
        assert sum(map(len, new.values())) < sum(len(store[name]) for name in whole) / 3
    store.update(new)
    same(branch, store.load(snapshot))


def test_leaves_of_a_newer_value_are_stored_leaves_too() -> None:
    """Transactions go on while a snapshot is written."""
    store, db = Store(), people(3_000)
    snapshot = write_snapshot(db, Memo())
    drawn = snapshot.segments()
    store.update([next(drawn) for _ in range(10)])
    newer = transacted(db, [{K("id"): 9_000, K("name"): "meanwhile"}])
    store.update(drawn)
    memo = snapshot.confirm(store, Residency(0))
    evicted = [leaf for leaf in newer.entities.leaves if leaf.array is None]
    assert evicted or len(newer.entities.leaves) < 3
    _, _, new = store.write(newer, memo)
    assert len(new) <= 16
    newer._check()


def test_a_hundred_small_attributes_are_a_handful_of_segments() -> None:
    config = DatabaseConfig(schema_flexibility="read")
    data = [{f"attribute-{n}": row * n for n in range(100)} for row in range(5)]
    db = process(Database.empty(config), data, now_ms=5).db_after
    store = Store()
    snapshot, memo, new = store.write(db)
    assert len(new) <= 6
    same(db, store.load(snapshot))
    db = transacted(db, [{"attribute-50": "x"}])
    assert len(store.write(db, memo)[2]) <= 4


def test_what_a_store_lost_is_written_again() -> None:
    store, db = Store(), people(3_000)
    residency = Residency(10**9)
    snapshot, memo, _ = store.write(db, None, residency)
    for name in sorted(snapshot.names)[::3]:
        del store[name]
    again, _, new = store.write(db, memo, residency, stored=frozenset(store))
    assert new
    assert again.names <= store.keys()
    assert again.name == snapshot.name


def test_further_tables_share_their_beginning() -> None:
    store, db = Store(), people(10)
    noise = random.Random(1).randbytes(900_000)
    extra = {"commits": noise, "small": b"abc", "empty": b""}
    snapshot, memo, new = store.write(db, extra=extra)
    loaded = load_snapshot(snapshot.manifest, store, Residency(10**6))
    assert loaded[2] == extra
    extra["commits"] += b"and more"
    for known in (memo, loaded[1]):
        later = write_snapshot(db, known, extra=extra)
        new = dict(later.segments())
        assert len(new) == 1
        both = Store()
        both.update({**store, **new})
        assert load_snapshot(later.manifest, both, Residency(0))[2] == extra


def test_names_seen_before_are_not_read_again() -> None:
    store, db = Store(), people(12_000)
    first, memo, _ = store.write(db, None, Residency(10**9))
    db = transacted(db, [[K("db/add"), eid(db, 77), K("score"), 1.5]])
    second, _, _ = store.write(db, memo, Residency(10**9))
    read: list[str] = []

    def reading(name: str) -> bytes:
        read.append(name)
        return store[name]

    seen: set[str] = set()
    assert reachable(first.manifest, reading, seen) is seen
    assert seen == first.names
    before = len(read)
    reachable(second.manifest, reading, seen)
    assert seen == first.names | second.names
    assert len(read) - before <= 8
    assert len(set(read)) == len(read)


# --- the dictionary ------------------------------------------------------------------------------


def test_values_that_were_only_tried_are_not_stored() -> None:
    store, db = Store(), people(100)
    transacted(db, [{K("id"): 1, K("name"): "only tried"}])
    snapshot, memo, _ = store.write(db)
    assert not store.holds(snapshot, b"only tried")
    assert store.holds(snapshot, b"name 77")
    loaded = store.load(snapshot)
    assert loaded.pool.find("only tried") == -1
    assert loaded.pool.find("name 77") == db.pool.find("name 77"), "codes stay what they are"
    db = transacted(db, [{K("id"): 1, K("name"): "only tried"}])
    assert store.holds(store.write(db, memo)[0], b"only tried")


@pytest.mark.parametrize("count", [20, 3_000])
def test_purged_values_are_in_no_segment_of_the_next_snapshot(count: int) -> None:
    store, db = Store(), people(count)
    db = transacted(db, [{K("id"): 5, K("name"): "the marker", K("tag"): K("the/marker")}])
    db = transacted(db, [{K("id"): 5, K("name"): "something else"}])
    before, memo, _ = store.write(db, None, Residency(0))
    assert store.holds(before, b"the marker")
    assert store.holds(before, b"the/marker")
    db = transacted(
        db, [[K("db/purge"), [K("id"), 5], K("name"), "the marker"],
             [K("db/purge"), [K("id"), 5], K("tag"), K("the/marker")]]
    )  # fmt: skip
    after, memo, _ = store.write(db, memo, Residency(0))
    assert not store.holds(after, b"the marker")
    assert not store.holds(after, b"the/marker")
    same(db, store.load(after))
    db = transacted(db, [{K("id"): 6, K("name"): "more"}])
    assert not store.holds(store.write(db, memo)[0], b"the marker")


def test_values_of_facts_that_keep_no_history_leave_the_dictionary() -> None:
    store, db = Store(), people(3_000)
    db = transacted(db, [{K("id"): 5, K("pass"): "the marker"}])
    _, memo, _ = store.write(db)
    db = transacted(db, [{K("id"): 5, K("pass"): "other"}])
    fresh, _, _ = store.write(db, Memo(), stored=store)
    assert not store.holds(fresh, b"the marker"), "a memo of nothing counts codes afresh"
    for number in range(40):
        many = [{K("id"): n, K("pass"): f"{number} {n}"} for n in range(0, 3_000, 50)]
        db = transacted(db, many)
        last, memo, _ = store.write(db, memo)
    assert not store.holds(last, b"the marker"), "in the long run they are counted anyway"


def test_large_values_are_cut_into_parts() -> None:
    store, db = Store(), people(10)
    texts = [random.Random(n).randbytes(60_000).hex() for n in range(40)]
    db = transacted(db, [{K("id"): n, K("name"): text} for n, text in enumerate(texts)])
    snapshot, memo, new = store.write(db)
    assert max(len(store.opened(name)) for name in new) < 600_000
    loaded = store.load(snapshot)
    assert [loaded.values(eid(loaded, n), K("name")) for n in range(40)] == [[t] for t in texts]
    db = transacted(db, [{K("id"): 0, K("score"): 3.0}])
    _, _, new = store.write(db, memo)
    assert sum(len(store[name]) for name in new) < 20_000


# --- pools ---------------------------------------------------------------------------------------


def test_snapshots_of_one_database_share_a_pool_where_codes_agree() -> None:
    store, db = Store(), people(3_000)
    main, memo, _ = store.write(db)
    branch = transacted(forked(db, 1), [{K("id"): 9_000, K("name"): "on the branch"}])
    other, _, _ = store.write(branch, memo)
    residency = Residency(10**9)
    one = load_snapshot(main.manifest, store, residency)[0]
    two = load_snapshot(other.manifest, store, residency, one.pool)[0]
    assert two.pool is one.pool
    same(db, one)
    same(branch, two)
    assert one.indexes[K("tag")].aevt.leaves[0] is two.indexes[K("tag")].aevt.leaves[0]
    live = transacted(one, [{K("id"): 9_001, K("name"): "on main, meanwhile"}])
    again = load_snapshot(other.manifest, store, residency, live.pool)[0]
    same(branch, again)


def test_a_snapshot_whose_codes_disagree_gets_a_pool_of_its_own() -> None:
    store, db = Store(), people(3_000)
    main, memo, _ = store.write(db)
    branch = transacted(forked(db, 1), [{K("id"): 9_000, K("name"): "on the branch"}])
    other, _, _ = store.write(branch, memo)
    residency = Residency(10**9)
    one = load_snapshot(main.manifest, store, residency)[0]
    one = transacted(one, [{K("id"): 9_001, K("name"): "on main"}]).settled()
    two = load_snapshot(other.manifest, store, residency, one.pool)[0]
    assert two.pool is not one.pool
    same(branch, two)


def two_pools() -> tuple[Database, Database, Database, Database]:
    """A base and a branch that share a pool; and the same two with a pool each."""
    base = people(3_000)
    branch = transacted(
        forked(base, 1),
        [{K("id"): 9_000, K("name"): "new here"}, {K("id"): 7, K("name"): "changed here"},
         [K("db/retract"), [K("id"), 8], K("tag"), K("a")]],
    )  # fmt: skip
    store, residency = Store(), Residency(200_000)
    one = load_snapshot(store.write(base)[0].manifest, store, residency)[0]
    noise = people(50).settled()
    two = load_snapshot(store.write(branch)[0].manifest, store, residency, noise.pool)[0]
    assert two.pool is not one.pool
    assert two.pool is not noise.pool
    return base, branch, one, two


def test_values_with_different_pools_are_compared_by_value() -> None:
    base, branch, one, two = two_pools()
    assert diff(one, two) == diff(base, branch)
    assert diff(two, one) == diff(branch, base)
    assert diff(one.as_of(one.max_tx - 1), two) == diff(base.as_of(base.max_tx - 1), branch)
    assert diff(one, store_again(one)) == ([], [])


def store_again(db: Database) -> Database:
    store = Store()
    return store.load(store.write(db, stored=store)[0])


def test_values_with_different_pools_are_merged_and_queried_together() -> None:
    base, branch, one, two = two_pools()
    ours = transacted(base, [{K("id"): 10, K("name"): "ours"}, {K("id"): 7, K("score"): 0.5}])
    mine = transacted(one, [{K("id"): 10, K("name"): "ours"}, {K("id"): 7, K("score"): 0.5}])
    wanted, found = plan_merge(base, ours, branch), plan_merge(one, mine, two)
    assert found.tx_data == wanted.tx_data
    assert found.conflicts == wanted.conflicts
    same(transacted(ours, wanted.tx_data), transacted(mine, found.tx_data))
    for query in (
        "[:find ?i ?n :in $ $b :where [?e :id ?i] [?e :name ?n] [$b ?f :name ?n] [$b ?f :id ?i]]",
        '[:find ?i :in $ $b :where [$b ?f :name "new here"] [$b ?f :id ?i] (not [_ :id ?i])]',
        "[:find ?n (count ?e) :in $ $b :where (or [?e :name ?n] [$b ?e :name ?n])]",
        "[:find ?a :in $ $b :where [?e :id 8] [?e ?a] [$b ?f :id 8] [$b ?f ?a]]",
    ):
        assert set(q(query, one, two).rows) == set(q(query, base, branch).rows)


def test_a_follower_with_another_pool_arrives_at_the_same_value() -> None:
    _, branch, _, two = two_pools()
    report = process(branch, [{K("id"): 11, K("name"): "told"}], now_ms=10**6)
    same(report.db_after, apply_changes(two, report.changes))


def test_a_pool_takes_only_what_agrees() -> None:
    pool = ValuePool()
    codes = [pool.code(value) for value in ("a", 1.5, K("k"))]
    assert pool.adopt(np.array([0, 5, 7]), ["a", "later", ("t", 1)])
    assert pool.find("later") == 5
    assert pool.values[7] == ("t", 1)
    assert len(pool) == 8
    assert not pool.adopt(np.array([3, 5]), ["free", "other"]), "a code has another value"
    assert not pool.adopt(np.array([3, 6]), ["free", "a"]), "a value has another code"
    assert pool.find("free") == -1
    assert pool.decode(np.array([7, 0])).tolist() == [("t", 1), "a"]
    assert pool.adopt(np.array([3]), ["free"]), "a code in between may still get its value"
    assert pool.code("next") == 8
    assert pool.decode(np.array([3, 8, 1])).tolist() == ["free", "next", 1.5]
    assert [pool.code(value) for value in ("a", 1.5, K("k"))] == codes
    ranks = pool.ranks(np.array([0, 3, 5, 8]))
    assert np.argsort(ranks).tolist() == [0, 1, 2, 3]


# --- what is read, and what is wrong -------------------------------------------------------------


def test_loading_reads_no_leaf_and_a_plan_does_not_either() -> None:
    store, db = Store(), people(12_000)
    snapshot, _, _ = store.write(db)
    store.reads.clear()
    loaded = store.load(snapshot)
    leaves = {leaf.stored.name for i in loaded.indexes.values() for leaf in i.aevt.leaves
              if leaf.stored is not None}  # fmt: skip
    assert leaves
    assert not leaves & set(store.reads)
    assert len(store.reads) < 60
    store.reads.clear()
    for attr, index in db.indexes.items():
        twin = loaded.indexes[attr]
        assert twin.aevt.distinct_first() == index.aevt.distinct_first()
        assert twin.aevt.count == index.aevt.count
    assert not store.reads
    q('[:find ?e :where [?e :name "name 77"] [?e :tag :a]]', loaded)
    assert len(store.reads) < len(leaves) / 2


def test_a_large_database_answers_with_a_small_budget() -> None:
    """200,000 datoms of which a few hundred KiB are in memory."""
    store, db = Store(), people(26_000)
    assert sum(index.aevt.count for index in db.indexes.values()) > 200_000
    snapshot, _, _ = store.write(db)
    budget = 400 * 1024
    residency = Residency(budget)
    loaded = load_snapshot(snapshot.manifest, store, residency)[0]
    r = random.Random(3)
    for _ in range(300):
        number = r.randrange(26_000)
        e = eid(db, number)
        assert eid(loaded, number) == e
        assert loaded.facts(e, K("name")) == db.facts(e, K("name"))
        assert loaded.datoms("eavt", [e]) == db.datoms("eavt", [e])
        assert residency.resident_bytes <= budget
    for query in (
        "[:find (sum ?s) . :with ?e :where [?e :score ?s]]",
        "[:find ?n (count ?e) :where [?e :name ?n] [?e :tag :t/1]]",
        "[:find (max ?i) . :where [?e :id ?i]]",
    ):
        assert sorted(q(query, loaded).rows, key=repr) == sorted(q(query, db).rows, key=repr)
        assert residency.resident_bytes <= budget
    assert loaded.history().datoms("aevt", [K("name")]) == db.history().datoms("aevt", [K("name")])
    assert residency.resident_bytes <= budget
    stats = residency.stats()
    assert stats.evictions > 100
    assert stats.misses > stats.evictions / 2
    assert stats.hits


def test_a_damaged_segment_is_found_out() -> None:
    store, db = Store(), people(3_000)
    snapshot, _, _ = store.write(db)
    whole = dict(store)
    for name in sorted(snapshot.names):
        store.clear()
        store.update(whole)
        store[name] = whole[name][:-1] + bytes([whole[name][-1] ^ 1])
        with pytest.raises(SegmentCorrupt) as caught:
            store.load(snapshot).history().datoms("eavt")
            store.load(snapshot).datoms("avet", [K("name")])
            for index in store.load(snapshot).indexes.values():
                if index.avet is not None:
                    index.avet.flat()
        assert caught.value.data["segment"] == name


def test_equal_segments_of_two_stores_are_kept_apart() -> None:
    """Two databases with the same facts: one goes, the other stays readable."""
    one, two, db = Store(), Store(), people(2_000)
    snapshot, _, _ = one.write(db)
    two.update(one)
    residency = Residency(0)
    first = load_snapshot(snapshot.manifest, one, residency)[0]
    second = load_snapshot(snapshot.manifest, two, residency)[0]
    one.clear()
    same(db, second)
    with pytest.raises(SegmentMissing):
        first.scan(K("score"))


def test_a_missing_segment_is_named() -> None:
    store, db = Store(), people(3_000)
    snapshot, _, _ = store.write(db)
    loaded = store.load(snapshot, budget=0)
    gone = loaded.indexes[K("score")].aevt.leaves[0].stored
    assert gone is not None
    del store[gone.name]
    assert loaded.values(eid(loaded, 2_999), K("score")) == [2_999 / 7]
    with pytest.raises(SegmentMissing) as caught:
        loaded.scan(K("score"))
    assert caught.value.data["segment"] == gone.name


def test_bytes_that_are_no_manifest_are_refused() -> None:
    store, db = Store(), people(10)
    snapshot, _, _ = store.write(db)
    data = snapshot.manifest
    for bad in (b"", b"NS", data[:10], b"NS\x02" + data[3:], b"NS\x01\x01" + data[4:], data[:-3]):
        with pytest.raises(SegmentCorrupt):
            load_snapshot(bad, store, Residency(0))

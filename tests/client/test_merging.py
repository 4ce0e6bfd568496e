"""Three-way merges, the same from a service and from a database in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import natalog
import natalog.sync
from natalog import local
from natalog.core.errors import (
    BadRequest,
    BranchNotFound,
    EntityIdMissing,
    MergeConflict,
    ParentsRequired,
)
from natalog.core.values import Keyword, kw

PEOPLE = "[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]"
SCHEMA = [
    {
        "db/ident": kw("name"),
        "db/valueType": kw("db.type/string"),
        "db/cardinality": kw("db.cardinality/one"),
        "db/unique": kw("db.unique/identity"),
    },
    {
        "db/ident": kw("phone"),
        "db/valueType": kw("db.type/string"),
        "db/cardinality": kw("db.cardinality/one"),
        "db/unique": kw("db.unique/value"),
    },
    *(
        {
            "db/ident": kw(name),
            "db/valueType": kw(f"db.type/{kind}"),
            "db/cardinality": kw(f"db.cardinality/{count}"),
        }
        for name, kind, count in (
            ("why", "string", "one"),
            ("age", "long", "one"),
            ("tag", "keyword", "many"),
            ("friend", "ref", "one"),
        )
    ),
]


class Branches:
    """A database with Al on ``db``, and its connections by branch."""

    def __init__(self, client: Any, name: str) -> None:
        client.create_database(name, initial_tx=SCHEMA)
        self._client, self.name = client, name
        self.conn("db").transact([{"name": "Al", "age": 1, "tag": [kw("a"), kw("b")]}])

    def conn(self, branch: str) -> Any:
        return self._client.database(self.name, branch)

    def fork(self, branch: str = "foo") -> tuple[Any, Any]:
        """``db`` and a branch made from it."""
        self.conn("db").branch(branch)
        return self.conn("db"), self.conn(branch)


@pytest.fixture(params=["local", "service"])
def made(
    request: pytest.FixtureRequest, service_url: str, fresh_name: Callable[[], str]
) -> Iterator[Branches]:
    name = fresh_name()
    if request.param == "local":
        registry = local.Registry()
        yield Branches(registry, name)
        return
    with natalog.sync.connect(service_url) as client:
        yield Branches(client, name)
        client.delete_database(name)


def people(conn: Any) -> set[Any]:
    return set(conn.db().q(PEOPLE))


def age(conn: Any, value: int) -> Any:
    return conn.transact([{"name": "Al", "age": value}])


def test_what_only_one_side_changed_is_joined(made: Branches) -> None:
    db, foo = made.fork()
    forked_at = db.info()["commit_id"]
    age(foo, 2)
    theirs = foo.transact(
        [{"name": "Bo", "age": 5}, ["db/retract", ["name", "Al"], "tag", kw("a")]]
    )
    ours = db.transact([{"name": "Al", "tag": [kw("c")]}, {"name": "Cy", "age": 7}])
    preview = db.merge_preview("foo")
    assert preview["conflicts"] == [] and preview["unified"] == {}
    assert preview["base"] == [forked_at]
    assert (preview["up_to_date"], preview["fast_forward"]) == (False, False)
    assert len(preview["tx_data"]) == 5  # a retraction of an age too
    assert db.info()["commit_id"] == ours.commit_id, "a preview writes nothing"
    merged = db.merge("foo", tx_meta={"why": "both"})
    assert isinstance(merged, natalog.MergeReport)
    assert (merged.up_to_date, merged.fast_forward) == (False, False)
    assert merged.base == (forked_at,)
    assert merged.tx == ours.tx + 1 and merged.branch == "db"
    assert merged.tx_meta[Keyword("why")] == "both"
    assert {d.tx for d in merged.tx_data} == {merged.tx}
    assert people(db) == {("Al", 2), ("Bo", 5), ("Cy", 7)}
    tags = db.db().pull("[:tag]", ["name", "Al"])
    assert set(tags[Keyword("tag")]) == {kw("b"), kw("c")}
    head = db.branch_history()[0]
    assert head.parents == (ours.commit_id, theirs.commit_id)
    assert people(foo) == {("Al", 2), ("Bo", 5)}, "the other side stays as it is"


def test_nothing_is_written_where_the_branch_has_everything(made: Branches) -> None:
    db, foo = made.fork()
    for other in ("foo", foo.info()["commit_id"]):
        before = db.info()
        report = db.merge(other)
        assert report.up_to_date and not report.fast_forward and report.tx_data == []
        assert (report.tx, report.commit_id) == (before["max_tx"], before["commit_id"])
        assert report.base == (before["commit_id"],)
        assert db.info() == before
    age(db, 3)
    assert db.merge("foo").up_to_date
    assert db.merge_preview("foo")["up_to_date"]
    age(foo, 4)
    db.merge("foo", policy="theirs")
    assert db.merge("foo", policy="theirs").up_to_date


def test_a_branch_that_only_lags_behind_gets_one_merge_commit(made: Branches) -> None:
    db, foo = made.fork()
    before = db.info()["commit_id"]
    age(foo, 2)
    theirs = age(foo, 3)
    assert db.merge_preview("foo")["fast_forward"]
    merged = db.merge("foo")
    assert merged.fast_forward and not merged.up_to_date
    assert db.branch_history()[0].parents == (before, theirs.commit_id)
    assert people(db) == people(foo) == {("Al", 3)}
    back = foo.merge("db")
    assert back.fast_forward and len(back.tx_data) == 1, "the facts are there already"
    age(foo, 4)
    assert db.merge("foo").fast_forward, "foo had merged everything"


def test_conflicts_are_told_and_nothing_is_written(made: Branches) -> None:
    db, foo = made.fork()
    al = db.db().q("[:find ?e . :where [?e :name]]")
    age(db, 2)
    age(foo, 3)
    before = db.info()
    with pytest.raises(MergeConflict) as caught:
        db.merge("foo")
    expected = {
        "kind": "value",
        "entity": al,
        "attribute": Keyword("age"),
        "base": [1],
        "ours": [2],
        "theirs": [3],
    }
    assert caught.value.data["conflicts"] == [expected]
    preview = db.merge_preview("foo")
    assert preview["conflicts"] == [expected] and preview["tx_data"] == []
    assert db.info() == before
    assert db.merge_preview("foo", policy="theirs")["conflicts"] == []


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ({"policy": "ours"}, 2),
        ({"policy": "theirs"}, 3),
        ({"take": "theirs"}, 3),
        ({"take": "base"}, 1),
        ({"value": 9}, 9),
        ({"value": None}, None),
    ],
    ids=str,
)
def test_conflicts_are_decided(made: Branches, how: dict[str, Any], left: int | None) -> None:
    db, foo = made.fork()
    age(db, 2)
    age(foo, 3)
    if "policy" in how:
        db.merge("foo", **how)
    else:
        db.merge("foo", resolutions=[{"entity": ["name", "Al"], "attribute": "age", **how}])
    assert people(db) == (set() if left is None else {("Al", left)})
    assert db.merge("foo").up_to_date


def test_one_identity_made_on_both_sides_is_one_entity(made: Branches) -> None:
    db, foo = made.fork()
    ours = db.transact([{"db/id": "bo", "name": "Bo", "age": 5}]).tempids["bo"]
    theirs = foo.transact([{"db/id": "bo", "name": "Bo", "tag": [kw("x")]}]).tempids["bo"]
    foo.transact([{"name": "Cy", "friend": ["name", "Bo"], "age": 1}])
    merged = db.merge("foo")
    assert merged.unified == {theirs: ours}
    cy = db.db().pull("[{:friend [:db/id :name :age]}]", ["name", "Cy"])
    assert cy[Keyword("friend")] == {
        Keyword("db/id"): ours,
        Keyword("name"): "Bo",
        Keyword("age"): 5,
    }


def test_an_entity_that_two_branches_made_stays_one_in_every_merge(made: Branches) -> None:
    db, foo = made.fork()
    ours = db.transact([{"db/id": "bo", "name": "Bo", "age": 5}]).tempids["bo"]
    theirs = foo.transact([{"db/id": "bo", "name": "Bo", "age": 5}]).tempids["bo"]
    assert ours != theirs
    db.merge("foo")
    foo.transact([{"name": "Bo", "age": 6}, {"name": "Cy", "friend": ["name", "Bo"]}])
    assert db.merge("foo").unified == {theirs: ours}
    assert people(db) == {("Al", 1), ("Bo", 6)}
    friend = '[:find ?f . :where [?e :name "Cy"] [?e :friend ?f]]'
    assert db.db().q(friend) == ours
    db.transact([{"name": "Bo", "age": 7}])
    foo.transact([{"name": "Bo", "tag": [kw("x")]}])
    foo.merge("db")
    assert people(foo) == {("Al", 1), ("Bo", 7)}
    assert foo.db().q(friend) == theirs, "each branch keeps its own id"
    db.transact([{"name": "Bo", "age": 8}])
    foo.transact([{"name": "Bo", "age": 9}])
    with pytest.raises(MergeConflict) as caught:
        db.merge("foo")
    (conflict,) = caught.value.data["conflicts"]
    assert (conflict["entity"], conflict["base"]) == (ours, [7])
    db.merge("foo", policy="theirs")
    foo.transact([["db/retractEntity", ["name", "Bo"]]])
    db.merge("foo")
    assert people(db) == people(foo) == {("Al", 1)}
    assert db.db().q(friend) is None
    for conn in (db, foo):
        named = conn.db().q("[:find [?n ...] :where [_ :name ?n]]")
        assert sorted(named) == ["Al", "Cy"]


def test_composite_tuples_follow_their_parts(made: Branches) -> None:
    made.conn("db").transact(
        [
            {
                "db/ident": kw("name+age"),
                "db/valueType": kw("db.type/tuple"),
                "db/tupleAttrs": [kw("name"), kw("age")],
                "db/cardinality": kw("db.cardinality/one"),
                "db/unique": kw("db.unique/value"),
            },
            {"name": "Bo", "age": 5},
        ]
    )
    db, foo = made.fork()
    db.transact([{"name": "Bo", "age": 6}])
    foo.transact([["db/add", ["name", "Bo"], "name", "Bob"], {"name": "Cy", "age": 1}])
    db.merge("foo")
    assert db.db().q("[:find [?t ...] :where [_ :name+age ?t]]").count(("Bob", 6)) == 1
    foo.merge("db")
    assert people(db) == people(foo) == {("Al", 1), ("Bob", 6), ("Cy", 1)}


def test_a_unique_value_taken_on_both_sides_names_its_holder(made: Branches) -> None:
    db, foo = made.fork()
    holder = db.transact([{"db/id": "x", "name": "X", "phone": "1"}]).tempids["x"]
    other = foo.transact([{"db/id": "y", "name": "Y", "phone": "1"}]).tempids["y"]
    with pytest.raises(MergeConflict) as caught:
        db.merge("foo")
    (conflict,) = caught.value.data["conflicts"]
    assert (conflict["kind"], conflict["entity"], conflict["holder"]) == ("unique", other, holder)
    db.merge("foo", policy="theirs")
    assert db.db().q("[:find [?n ...] :where [?e :phone] [?e :name ?n]]") == ["Y"]


@pytest.mark.parametrize(("take", "friends"), [("ours", 0), ("theirs", 1)])
def test_a_reference_to_what_is_gone_is_a_conflict(made: Branches, take: str, friends: int) -> None:
    made.conn("db").transact([{"name": "Bo", "age": 5}])
    db, foo = made.fork()
    db.transact([["db/retractEntity", ["name", "Bo"]]])
    foo.transact([{"name": "Al", "friend": ["name", "Bo"]}])
    with pytest.raises(MergeConflict) as caught:
        db.merge("foo")
    assert [c["kind"] for c in caught.value.data["conflicts"]] == ["dangling"]
    db.merge("foo", resolutions=[{"entity": ["name", "Al"], "attribute": "friend", "take": take}])
    assert len(db.db().q("[:find ?e ?f :where [?e :friend ?f]]")) == friends


@pytest.mark.parametrize(("policy", "left"), [("ours", False), ("theirs", True)])
def test_what_one_side_removed_and_the_other_changed_is_never_half_there(
    made: Branches, policy: str, left: bool
) -> None:
    db, foo = made.fork()
    db.transact([["db/retractEntity", ["name", "Al"]]])
    foo.transact([{"name": "Al", "tag": [kw("new")]}])
    for into, other, keeps in ((db, "foo", left), (foo, "db", not left)):
        with pytest.raises(MergeConflict) as caught:
            into.merge(other)
        told = {c["attribute"].text for c in caught.value.data["conflicts"]}
        assert told == {"name", "age", "tag"}
        into.branch(f"{other}-in")
        merged = made.conn(f"{other}-in")
        merged.merge(other, policy=policy)
        everything = merged.db().q(
            "[:find ?n ?a ?t :where [?e :name ?n] [?e :age ?a] [?e :tag ?t]]"
        )
        assert everything == ({("Al", 1, kw(t)) for t in ("a", "b", "new")} if keeps else set())
        assert merged.db().q("[:find ?e :where (or [?e :tag] [?e :age])]") == (
            {(e,) for e in merged.db().q("[:find [?e ...] :where [?e :name]]")}
        )


def test_histories_that_crossed_have_two_bases(made: Branches) -> None:
    db, foo = made.fork()
    one = db.transact([{"name": "Al", "age": 2}])
    two = foo.transact([{"name": "Bo", "age": 5}])
    db.merge(two.commit_id)
    foo.merge(one.commit_id)
    foo.transact([{"name": "Bo", "age": 6}])
    assert people(foo) == {("Al", 2), ("Bo", 6)}
    preview = db.merge_preview("foo")
    assert set(preview["base"]) == {one.commit_id, two.commit_id}
    assert preview["conflicts"] == []
    merged = db.merge("foo")
    assert set(merged.base) == {one.commit_id, two.commit_id}
    assert people(db) == {("Al", 2), ("Bo", 6)}


def test_bases_are_found_across_several_branches(made: Branches) -> None:
    db, foo = made.fork()
    age(foo, 2)
    foo.branch("bar")
    bar = made.conn("bar")
    bar.transact([{"name": "Bo", "age": 5}])
    fork = foo.info()["commit_id"]
    db.transact([{"name": "Cy", "age": 7}])
    foo.merge("db")
    merged = foo.merge("bar")
    assert merged.base == (fork,)
    assert people(foo) == {("Al", 2), ("Bo", 5), ("Cy", 7)}
    foo.delete_branch("bar")
    assert db.merge("foo").fast_forward
    assert people(db) == people(foo)


def test_attributes_declared_on_the_other_side_come_along(made: Branches) -> None:
    db, foo = made.fork()
    foo.transact(
        [
            {
                "db/ident": kw("size"),
                "db/valueType": kw("db.type/long"),
                "db/cardinality": kw("db.cardinality/one"),
            }
        ]
    )
    foo.transact([{"name": "Al", "size": 4}])
    db.merge("foo")
    assert db.db().q("[:find ?s . :where [?e :size ?s]]") == 4
    db.transact([{"name": "Al", "size": 5}])


def test_malformed_merges_are_refused(made: Branches) -> None:
    db, foo = made.fork()
    age(foo, 3)
    age(db, 2)
    before = db.info()
    for error, refused in (
        (ParentsRequired, lambda: db.merge([])),
        (BranchNotFound, lambda: db.merge("nowhere")),
        (BadRequest, lambda: db.merge(["foo", "db"])),
        (BadRequest, lambda: db.merge("foo", policy="mine")),
        (BadRequest, lambda: db.merge("foo", [{"name": "Al", "age": 3}], policy="ours")),
        (BadRequest, lambda: db.merge("foo", resolutions=[{"entity": 1, "attribute": "age"}])),
        (BadRequest, lambda: db.merge("foo", resolutions=["age"])),
        (
            EntityIdMissing,
            lambda: db.merge(
                "foo",
                resolutions=[{"entity": ["name", "?"], "attribute": "age", "take": "ours"}],
            ),
        ),
    ):
        with pytest.raises(error):
            refused()
    assert db.info() == before


def test_purges_reach_every_branch(made: Branches) -> None:
    db, foo = made.fork()
    db.branch("none", from_=db.branch_history()[1].commit_id)
    none = made.conn("none")
    db.transact([["db/retractEntity", ["name", "Al"]]])
    foo.transact([{"name": "Al", "age": 77}])
    heads = {name: made.conn(name).info()["commit_id"] for name in ("db", "foo", "none")}
    found = db.purge_everywhere([["db.purge/attribute", ["name", "Al"], "age"]])
    assert list(found) == ["db", "foo", "none"]
    assert isinstance(found["none"], natalog.NatalogError)
    assert [found[name].branch for name in ("db", "foo")] == ["db", "foo"]
    assert [found[name].purged for name in ("db", "foo")] == [1, 2]
    for conn in (db, foo):
        assert conn.db().history().q("[:find ?a :where [_ :age ?a]]") == set()
    assert none.info()["commit_id"] == heads["none"]
    for wrong in ([["db/retract", ["name", "Al"], "age"]], [{"name": "Al"}], [[]]):
        with pytest.raises(BadRequest):
            db.purge_everywhere(wrong)

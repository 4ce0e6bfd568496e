"""Three-way merges: nothing is lost, nothing is overwritten silently."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natalog.core.database import Database
from natalog.core.errors import BadRequest, MergeConflict
from natalog.core.merge import plan_merge, virtual_base
from natalog.core.transact import process
from natalog.core.values import Keyword, kw
from natalog.core.versioning import forked

ADD, RETRACT, ID = kw("db/add"), kw("db/retract"), kw("db/id")
NAME, AGE, TAG, FRIEND, PHONE = map(kw, ("name", "age", "tag", "friend", "phone"))


def attribute(name: str, value_type: str, *, many: bool = False, **extra: Any) -> dict[Any, Any]:
    return {
        kw("db/ident"): kw(name),
        kw("db/valueType"): kw(f"db.type/{value_type}"),
        kw("db/cardinality"): kw("db.cardinality/many" if many else "db.cardinality/one"),
        **{kw(f"db/{key}"): value for key, value in extra.items()},
    }


def base_with(*operations: Any) -> Database:
    schema = [
        attribute("name", "string", unique=kw("db.unique/identity")),
        attribute("phone", "string", unique=kw("db.unique/value")),
        attribute("age", "long"),
        attribute("tag", "string", many=True),
        attribute("friend", "ref", many=True),
    ]
    db = process(Database.empty(), schema, now_ms=1).db_after
    return process(db, list(operations), now_ms=2).db_after


def after(db: Database, *operations: Any, lane: int = 0) -> Database:
    start = forked(db, lane) if lane else db
    return process(start, list(operations), now_ms=3).db_after


def merged(base: Database, ours: Database, theirs: Database, *args: Any) -> Database:
    plan = plan_merge(base, ours, theirs, *args)
    plan.require_clean()
    return process(ours, plan.tx_data, now_ms=9).db_after


def test_changes_of_different_attributes_are_joined() -> None:
    base = base_with({ID: 10, NAME: "Al", AGE: 1})
    ours = after(base, {ID: 10, AGE: 2})
    theirs = after(base, {ID: 10, TAG: ["x"]}, {NAME: "Bo"}, lane=1)
    db = merged(base, ours, theirs)
    assert db.values(10, AGE) == [2] and db.values(10, TAG) == ["x"]
    assert len(db.holders(NAME, "Bo")) == 1


def test_the_same_change_on_both_sides_is_no_conflict() -> None:
    base = base_with({ID: 10, AGE: 1})
    ours, theirs = after(base, {ID: 10, AGE: 5}), after(base, {ID: 10, AGE: 5}, lane=1)
    assert plan_merge(base, ours, theirs).tx_data == []


def test_different_changes_of_one_value_are_a_conflict_that_shows_all_three() -> None:
    base = base_with({ID: 10, AGE: 1})
    ours, theirs = after(base, {ID: 10, AGE: 2}), after(base, {ID: 10, AGE: 3}, lane=1)
    plan = plan_merge(base, ours, theirs)
    (conflict,) = plan.conflicts
    assert (conflict.kind, conflict.base, conflict.ours, conflict.theirs) == (
        "value",
        [1],
        [2],
        [3],
    )
    assert plan.tx_data == []
    with pytest.raises(MergeConflict) as caught:
        plan.require_clean()
    assert caught.value.data["conflicts"][0]["attribute"] is AGE


@pytest.mark.parametrize(("policy", "age"), [("ours", 2), ("theirs", 3)])
def test_a_policy_decides_conflicts(policy: str, age: int) -> None:
    base = base_with({ID: 10, AGE: 1})
    ours, theirs = after(base, {ID: 10, AGE: 2}), after(base, {ID: 10, AGE: 3}, lane=1)
    assert merged(base, ours, theirs, policy).values(10, AGE) == [age]


@pytest.mark.parametrize(
    ("resolution", "age"),
    [
        ({"take": "theirs"}, [3]),
        ({"take": "base"}, [1]),
        ({"value": 7}, [7]),
        ({"value": None}, []),
    ],
)
def test_a_resolution_decides_one_conflict(resolution: dict[str, Any], age: list[int]) -> None:
    base = base_with({ID: 10, AGE: 1})
    ours, theirs = after(base, {ID: 10, AGE: 2}), after(base, {ID: 10, AGE: 3}, lane=1)
    decided = [{"entity": 10, "attribute": "age", **resolution}]
    assert merged(base, ours, theirs, "fail", decided).values(10, AGE) == age


def test_many_valued_attributes_merge_as_sets() -> None:
    base = base_with({ID: 10, TAG: ["a", "b", "c"]})
    ours = after(base, [RETRACT, 10, TAG, "a"], [ADD, 10, TAG, "d"])
    theirs = after(base, [RETRACT, 10, TAG, "b"], [ADD, 10, TAG, "e"], lane=1)
    assert merged(base, ours, theirs).values(10, TAG) == ["c", "d", "e"]


def test_a_change_against_a_removal_is_a_conflict() -> None:
    base = base_with({ID: 10, AGE: 1})
    ours = after(base, {ID: 10, AGE: 2})
    theirs = after(base, [kw("db/retractEntity"), 10], lane=1)
    (conflict,) = plan_merge(base, ours, theirs).conflicts
    assert conflict.theirs == [] and conflict.ours == [2]


def test_entities_created_under_one_identity_are_unified() -> None:
    base = base_with()
    ours = after(base, {NAME: "Al", AGE: 1})
    theirs = after(base, {NAME: "Al", TAG: ["x"]}, {NAME: "Bo", FRIEND: [[NAME, "Al"]]}, lane=1)
    plan = plan_merge(base, ours, theirs)
    db = merged(base, ours, theirs)
    (al,) = db.holders(NAME, "Al")
    (bo,) = db.holders(NAME, "Bo")
    assert list(plan.unified.values()) == [al]
    assert db.values(al, AGE) == [1] and db.values(al, TAG) == ["x"]
    assert db.values(bo, FRIEND) == [al]


def test_unified_entities_with_different_values_conflict() -> None:
    base = base_with()
    ours = after(base, {NAME: "Al", AGE: 1})
    theirs = after(base, {NAME: "Al", AGE: 2}, lane=1)
    (conflict,) = plan_merge(base, ours, theirs).conflicts
    assert conflict.attribute is AGE


def test_entities_created_apart_are_never_mixed() -> None:
    base = base_with()
    ours, theirs = after(base, {AGE: 1}), after(base, {AGE: 2}, lane=1)
    db = merged(base, ours, theirs)
    assert len(db.holders(AGE, 1)) == len(db.holders(AGE, 2)) == 1
    assert db.holders(AGE, 1) != db.holders(AGE, 2)


def test_a_unique_value_taken_on_both_sides_is_a_conflict() -> None:
    base = base_with()
    ours, theirs = after(base, {AGE: 1, PHONE: "1"}), after(base, {AGE: 2, PHONE: "1"}, lane=1)
    plan = plan_merge(base, ours, theirs)
    (conflict,) = plan.conflicts
    assert conflict.kind == "unique" and conflict.holder == ours.holders(PHONE, "1")[0]
    mine = merged(base, ours, theirs, "ours")
    assert mine.holders(PHONE, "1") == ours.holders(PHONE, "1")
    others = merged(base, ours, theirs, "theirs")
    assert others.holders(PHONE, "1") == theirs.holders(PHONE, "1")


def test_a_unique_value_that_they_moved_arrives_where_they_put_it() -> None:
    base = base_with({ID: 10, PHONE: "1"}, {ID: 11, AGE: 3})
    ours = after(base, {ID: 11, AGE: 4})
    theirs = after(base, [RETRACT, 10, PHONE, "1"], [ADD, 11, PHONE, "1"], lane=1)
    assert merged(base, ours, theirs).holders(PHONE, "1") == [11]


def test_a_reference_to_what_the_other_side_removed_is_a_conflict() -> None:
    base = base_with({ID: 10, AGE: 1}, {ID: 11, AGE: 2})
    removal = [kw("db/retractEntity"), 11]
    link = [ADD, 10, FRIEND, 11]
    for ours, theirs in (
        (after(base, removal), after(base, link, lane=1)),
        (after(base, link), after(base, removal, lane=1)),
    ):
        kinds = [conflict.kind for conflict in plan_merge(base, ours, theirs).conflicts]
        assert kinds == ["dangling"]


def test_attributes_declared_on_the_other_side_arrive_with_their_facts() -> None:
    base = base_with()
    theirs = after(base, attribute("size", "long"), {kw("size"): 4}, lane=1)
    db = merged(base, after(base, {AGE: 1}), theirs)
    declared = db.schema.get(kw("size"))
    assert declared is not None and declared.value_type == "long"
    assert len(db.holders(kw("size"), 4)) == 1


def test_one_attribute_declared_with_two_types_is_a_conflict() -> None:
    base = base_with()
    ours = after(base, attribute("size", "long"))
    theirs = after(base, attribute("size", "string"), {kw("size"): "x"}, lane=1)
    kinds = {conflict.kind for conflict in plan_merge(base, ours, theirs).conflicts}
    assert "schema" in kinds or "value" in kinds
    with pytest.raises(MergeConflict):
        plan_merge(base, ours, theirs).require_clean()


def test_crossed_histories_merge_against_a_virtual_base() -> None:
    root = base_with({ID: 10, AGE: 1}, {ID: 11, AGE: 1})
    left = after(root, {ID: 10, AGE: 2})
    right = after(root, {ID: 11, AGE: 3}, lane=1)
    one, two = merged(root, left, right), merged(root, right, left)
    base = virtual_base(root, [left, right])
    assert plan_merge(base, one, two).conflicts == []
    changed = after(two, {ID: 10, AGE: 9})
    assert merged(base, one, changed).values(10, AGE) == [9]


def test_unknown_policies_and_malformed_resolutions_are_refused() -> None:
    base = base_with()
    with pytest.raises(BadRequest):
        plan_merge(base, base, base, "mine")
    for resolution in (
        {},
        {"entity": 1, "attribute": "age"},
        {"entity": 1, "attribute": "age", "take": "nobody"},
    ):
        with pytest.raises(BadRequest):
            plan_merge(base, base, base, "fail", [resolution])


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "retract"]),
        st.integers(10, 13),
        st.sampled_from([AGE, TAG]),
        st.integers(0, 3),
    ),
    max_size=6,
)


def operations(drawn: list[tuple[str, int, Keyword, int]]) -> list[Any]:
    return [[kw(f"db/{what}"), e, a, f"t{v}" if a is TAG else v] for what, e, a, v in drawn]


@settings(max_examples=80, deadline=None)
@given(OPERATIONS, OPERATIONS, OPERATIONS)
def test_merging_either_way_round_ends_in_the_same_facts(one: Any, two: Any, three: Any) -> None:
    base = base_with(*operations(one))
    ours = after(base, *operations(two))
    theirs = after(base, *operations(three), lane=1)
    there = plan_merge(base, ours, theirs)
    back = plan_merge(base, theirs, ours)
    places = [{(c.entity, c.attribute) for c in plan.conflicts} for plan in (there, back)]
    assert places[0] == places[1]
    left = merged(base, ours, theirs, "theirs")
    right = merged(base, theirs, ours, "ours")
    for e in range(10, 14):
        for attr in (AGE, TAG):
            assert left.values(e, attr) == right.values(e, attr)
            took = {str(v) for v in left.values(e, attr)}
            known = {str(v) for db in (base, ours, theirs) for v in db.values(e, attr)}
            assert took <= known

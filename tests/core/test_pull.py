"""Pull: patterns, references, recursion, limits, views."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import (
    EntityIdMissing,
    EntityIdSyntax,
    LimitExceeded,
    LookupRefUnique,
    PullParse,
    QueryLimit,
    TransactSchema,
    ViewRefused,
)
from natalog.core.limits import PULL_DEPTH_MAX
from natalog.core.pull import parse_pull, pull, pull_many
from natalog.core.registry import Registry
from natalog.core.transact.process import process
from natalog.core.values import Keyword, kw

SCHEMA = """
[{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/ident :on :db/valueType :db.type/boolean :db/cardinality :db.cardinality/one}
 {:db/ident :aka :db/valueType :db.type/string :db/cardinality :db.cardinality/many}
 {:db/ident :mark :db/valueType :db.type/long :db/cardinality :db.cardinality/many}
 {:db/ident :boss :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
 {:db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
 {:db/ident :enemy :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
 {:db/ident :part :db/valueType :db.type/ref :db/cardinality :db.cardinality/many
  :db/isComponent true}
 {:db/ident :lid :db/valueType :db.type/ref :db/cardinality :db.cardinality/one
  :db/isComponent true}]
"""
PEOPLE = """
[{:db/id 101 :name "ann" :age 40 :aka ["a" "b"] :friend [102 103] :on false}
 {:db/id 102 :name "ben" :boss 101 :friend 103}
 {:db/id 103 :name "cat" :boss 101 :age 7}
 {:db/id 104 :name "dan" :boss 104}
 {:db/id 201 :name "box" :part [202 203] :lid 204}
 {:db/id 202 :name "side" :part 205}
 {:db/id 203 :name "base"}
 {:db/id 204 :name "lid"}
 {:db/id 205 :name "nail" :friend 101}]
"""


def after(db: Database, tx_data: str | list[Any]) -> Database:
    data = read(tx_data) if isinstance(tx_data, str) else tx_data
    return process(db, data, None, now_ms=0).db_after


@pytest.fixture(scope="module")
def db() -> Database:
    return after(after(Database.empty(DatabaseConfig()), SCHEMA), PEOPLE)


def plain(value: Any) -> Any:
    """Results with short keys: ``:db/id`` as ``id``, other keywords by their name."""
    if isinstance(value, dict):
        return {
            "id" if key is kw("db/id") else key.text if isinstance(key, Keyword) else key: plain(v)
            for key, v in value.items()
        }
    return [plain(item) for item in value] if isinstance(value, list) else value


def pulled(db: Database, pattern: str, eid: Any = 101) -> Any:
    return plain(pull(db, read(pattern), eid))


class TestAttributes:
    def test_named_attributes(self, db: Database) -> None:
        assert pulled(db, "[:name :age]") == {"name": "ann", "age": 40}
        assert pulled(db, "[:aka]") == {"aka": ["a", "b"]}
        assert pulled(db, "[:on]") == {"on": False}
        assert pulled(db, "[:name :age]", 102) == {"name": "ben"}

    def test_nothing_there_is_none(self, db: Database) -> None:
        assert pulled(db, "[:age]", 102) is None
        assert pulled(db, "[]") is None
        assert pulled(db, "[:name]", 99999) is None

    def test_the_entity_id(self, db: Database) -> None:
        assert pulled(db, "[:db/id :name]", 102) == {"id": 102, "name": "ben"}
        assert pulled(db, "[:db/id]", 102) == {"id": 102}
        assert pulled(db, "[:db/id]", 99999) is None
        assert pulled(db, "[*]", 99999) == {"id": 99999}

    def test_strings_name_attributes_in_python(self, db: Database) -> None:
        assert plain(pull(db, ["name", ":age"], 101)) == {"name": "ann", "age": 40}
        assert plain(pull(db, [{"boss": ["name"]}], 102)) == {"boss": {"name": "ann"}}
        assert plain(pull(db, ["*"], 103))["age"] == 7

    def test_which_entity(self, db: Database) -> None:
        assert pulled(db, "[:age]", ["name", "ann"]) == {"age": 40}
        assert pulled(db, "[:age]", [kw("name"), "ann"]) == {"age": 40}
        assert pulled(db, "[:db/ident]", kw("age")) == {"db/ident": kw("age")}
        for missing in ([kw("name"), "zoe"], kw("no/ident")):
            with pytest.raises(EntityIdMissing):
                pulled(db, "[:age]", missing)
        with pytest.raises(LookupRefUnique):
            pulled(db, "[:name]", [kw("age"), 40])
        for bad in (None, "101", 1.5, True):
            with pytest.raises(EntityIdSyntax):
                pulled(db, "[:age]", bad)

    def test_an_undeclared_attribute_is_an_error(self, db: Database) -> None:
        for pattern in ("[:colour]", "[:name {:colour [:x]}]", "[:_colour]", "[{:boss [:x]}]"):
            with pytest.raises(TransactSchema):
                pulled(db, pattern, 102)

    def test_without_a_strict_schema_it_is_absent(self) -> None:
        loose = after(
            Database.empty(DatabaseConfig(schema_flexibility="read")),
            [{kw("db/id"): 5, kw("n"): 1, kw("link"): 6}],
        )
        assert pulled(loose, "[:n :colour]", 5) == {"n": 1}
        assert pulled(loose, "[:link]", 5) == {"link": 6}
        assert pulled(loose, "[{:colour [:n]}]", 5) is None
        with pytest.raises(PullParse):
            pulled(loose, "[{:link [:n]}]", 5)


class TestReferences:
    def test_without_a_pattern_they_are_ids(self, db: Database) -> None:
        assert pulled(db, "[:boss]", 102) == {"boss": {"id": 101}}
        assert pulled(db, "[:friend]") == {"friend": [{"id": 102}, {"id": 103}]}

    def test_sub_patterns(self, db: Database) -> None:
        assert pulled(db, "[:name {:boss [:name {:friend [:age]}]}]", 102) == {
            "name": "ben",
            "boss": {"name": "ann", "friend": [{"age": 7}]},
        }

    def test_what_matches_nothing(self, db: Database) -> None:
        assert pulled(db, "[{:friend [:on]}]") == {"friend": []}
        assert pulled(db, "[{:boss [:boss]}]", 102) is None
        assert pulled(db, "[{:friend [:name]}]", 103) is None

    def test_backwards(self, db: Database) -> None:
        assert pulled(db, "[:_boss]") == {"_boss": [{"id": 102}, {"id": 103}]}
        assert pulled(db, "[{:_boss [:name]}]") == {"_boss": [{"name": "ben"}, {"name": "cat"}]}
        assert pulled(db, "[:_boss]", 102) is None
        assert pulled(db, "[:_name]", 102) is None

    def test_components_expand(self, db: Database) -> None:
        nail = {"id": 205, "name": "nail", "friend": [{"id": 101}]}
        parts = [{"id": 202, "name": "side", "part": [nail]}, {"id": 203, "name": "base"}]
        assert pulled(db, "[:part]", 201) == {"part": parts}
        assert pulled(db, "[*]", 201) == {
            "id": 201,
            "name": "box",
            "part": parts,
            "lid": {"id": 204, "name": "lid"},
        }
        assert pulled(db, "[{:part [:name]}]", 201) == {
            "part": [{"name": "side"}, {"name": "base"}]
        }

    def test_the_owner_of_a_component_is_one(self, db: Database) -> None:
        assert pulled(db, "[:_part]", 202) == {"_part": {"id": 201}}
        assert pulled(db, "[{:_part [:name {:_part [:name]}]}]", 205) == {
            "_part": {"name": "side", "_part": {"name": "box"}}
        }

    def test_cycles_of_components_end(self, db: Database) -> None:
        cyclic = after(db, "[[:db/add 205 :part 201]]")
        found = pulled(cyclic, "[:part]", 201)
        assert found["part"][0]["part"][0]["part"] == [{"id": 201}]

    def test_a_pattern_below_a_value_is_refused(self, db: Database) -> None:
        for pattern in ("[{:age [:name]}]", "[{:name 1}]", "[{:mark ...}]"):
            with pytest.raises(PullParse):
                pulled(db, pattern)


class TestWildcard:
    def test_all_attributes(self, db: Database) -> None:
        assert pulled(db, "[*]") == {
            "id": 101,
            "name": "ann",
            "age": 40,
            "aka": ["a", "b"],
            "friend": [{"id": 102}, {"id": 103}],
            "on": False,
        }

    def test_with_others(self, db: Database) -> None:
        assert pulled(db, "[* :_boss {:boss [:age]}]", 102) == {
            "id": 102,
            "name": "ben",
            "friend": [{"id": 103}],
            "boss": {"age": 40},
        }
        assert pulled(db, "[* :_boss]", 103)["boss"] == {"id": 101}
        assert pulled(db, "[* {:_boss [:name]}]")["_boss"] == [{"name": "ben"}, {"name": "cat"}]
        assert pulled(db, "[[:aka :limit 1 :as :x] *]")["x"] == ["a"]

    def test_below_a_reference(self, db: Database) -> None:
        assert pulled(db, "[{:boss [*]}]", 103) == {"boss": pulled(db, "[*]")}


class TestOptions:
    def test_limits(self, db: Database) -> None:
        marked = after(db, [[kw("db/add"), 101, kw("mark"), n] for n in range(1500)])
        assert pulled(marked, "[:mark]")["mark"] == list(range(1000))
        assert pulled(marked, "[[:mark :limit 2]]") == {"mark": [0, 1]}
        assert pulled(marked, "[(limit :mark 1200)]")["mark"] == list(range(1200))
        assert pulled(marked, '[["limit" :mark nil]]')["mark"] == list(range(1500))
        assert pulled(marked, "[{[:friend :limit 1] [:name]}]") == {"friend": [{"name": "ben"}]}
        assert pulled(marked, "[[:_boss :limit 1]]") == {"_boss": [{"id": 102}]}

    def test_defaults(self, db: Database) -> None:
        assert pulled(db, "[[:age :default 0]]", 102) == {"age": 0}
        assert pulled(db, "[(default :age false)]", 102) == {"age": False}
        assert pulled(db, "[[:on :default nil]]", 102) == {"on": None}
        assert pulled(db, "[[:age :default 0]]") == {"age": 40}
        assert pulled(db, '[{[:boss :default "none"] [:name]}]') == {"boss": "none"}
        assert pulled(db, "[[:_boss :default []]]", 103) == {"_boss": ()}

    def test_other_keys(self, db: Database) -> None:
        assert pull(db, read('[[:name :as "Name"] [:aka :as 5] [:age :as [1 2]]]'), 101) == {
            "Name": "ann",
            5: ["a", "b"],
            (1, 2): 40,
        }
        assert pulled(db, "[{[:boss :as :chief] [:name]}]", 102) == {"chief": {"name": "ann"}}
        assert pulled(db, '[[:age :as "a" :default 1]]', 102) == {"a": 1}

    def test_registered_functions_transform(self, db: Database) -> None:
        functions = Registry({"upper": str.upper, "size": len})

        def found(pattern: str) -> Any:
            return plain(pull(db, read(pattern), 101, functions=functions))

        assert found("[[:name :xform upper] [:aka :xform size]]") == {"name": "ANN", "aka": 2}
        assert found('[{[:friend :xform "size"] [:name]}]') == {"friend": 2}
        with pytest.raises(PullParse):
            found("[[:name :xform os/system]]")


class TestRecursion:
    def test_levels(self, db: Database) -> None:
        team = after(db, "[[:db/add 103 :boss 102] [:db/add 104 :boss 103]]")
        assert pulled(team, "[:name {:boss 1}]", 104) == {"name": "dan", "boss": {"name": "cat"}}
        whole = {"name": "cat", "boss": {"name": "ben", "boss": {"name": "ann"}}}
        assert pulled(team, "[:name {:boss 3}]", 104) == {"name": "dan", "boss": whole}
        assert pulled(team, "[:name {:boss ...}]", 104) == {"name": "dan", "boss": whole}
        assert pulled(team, '[:name {"boss" "..."}]', 104) == {"name": "dan", "boss": whole}
        assert pulled(team, "[:name {:_boss 1}]") == {"name": "ann", "_boss": [{"name": "ben"}]}

    def test_the_bound_holds_under_another_name(self, db: Database) -> None:
        team = after(db, "[[:db/add 103 :boss 102] [:db/add 104 :boss 103]]")
        assert pulled(team, "[:name {[:boss :as :b] 1}]", 104) == {
            "name": "dan",
            "b": {"name": "cat"},
        }

    def test_cycles_end_where_they_were_entered_before(self, db: Database) -> None:
        assert pulled(db, "[:name {:boss ...}]", 104) == {
            "name": "dan",
            "boss": {"name": "dan", "boss": {"id": 104}},
        }
        ring = after(db, "[[:db/add 103 :friend 101]]")
        third = {"name": "cat", "friend": [{"name": "ann", "friend": [{"id": 102}, {"id": 103}]}]}
        assert pulled(ring, "[:name {:friend ...}]")["friend"][0] == {
            "name": "ben",
            "friend": [third],
        }

    def test_paths_are_told_apart(self, db: Database) -> None:
        assert pulled(db, "[:name {:friend ...}]") == {
            "name": "ann",
            "friend": [{"name": "ben", "friend": [{"name": "cat"}]}, {"name": "cat"}],
        }

    def test_several_recursions_in_one_pattern(self, db: Database) -> None:
        both = after(db, "[[:db/add 101 :enemy 104] [:db/add 102 :enemy 104]]")
        dan = {"name": "dan"}
        assert pulled(both, "[:name {:friend 1 :enemy 1}]") == {
            "name": "ann",
            "friend": [{"name": "ben", "enemy": [dan]}, {"name": "cat"}],
            "enemy": [dan],
        }

    def test_a_sub_pattern_starts_afresh(self, db: Database) -> None:
        assert pulled(db, "[{:friend [:name {:boss ...}]}]", 102) == {
            "friend": [{"name": "cat", "boss": {"name": "ann"}}]
        }

    def test_depth_costs_no_stack(self) -> None:
        chain = [
            {kw("db/id"): e, kw("mark"): e, kw("boss"): e + 1} for e in range(1000, 1000 + 5000)
        ]
        deep = after(after(Database.empty(DatabaseConfig()), SCHEMA), chain)
        found = pull(deep, read("[:mark {:boss ...}]"), 1000)
        depth = 0
        while found is not None:
            depth, found = depth + 1, found.get(kw("boss"))
        assert depth == 5000

    def test_depth_is_limited(self) -> None:
        chain = [{kw("db/id"): e, kw("boss"): e + 1} for e in range(1, PULL_DEPTH_MAX + 10)]
        deep = after(
            after(Database.empty(DatabaseConfig()), SCHEMA),
            [{**link, kw("db/id"): link[kw("db/id")] + 1000, kw("boss"): link[kw("boss")] + 1000}
             for link in chain],
        )  # fmt: skip
        with pytest.raises(QueryLimit, match="levels"):
            pull(deep, read("[:mark {:boss ...}]"), 1001)

    def test_the_number_of_entities_is_limited(self) -> None:
        people = [
            {kw("db/id"): e, kw("friend"): [o for o in range(100, 140) if o != e]}
            for e in range(100, 140)
        ]
        dense = after(after(Database.empty(DatabaseConfig()), SCHEMA), people)
        with pytest.raises(QueryLimit, match="entities"):
            pull(dense, read("[:name {:friend ...}]"), 100)


class TestPullMany:
    def test_positions_are_kept(self, db: Database) -> None:
        found = pull_many(db, read("[:age]"), [101, 102, 99999, [kw("name"), "cat"], 101])
        assert plain(found) == [{"age": 40}, None, None, {"age": 7}, {"age": 40}]

    def test_a_missing_lookup_ref_is_an_error(self, db: Database) -> None:
        with pytest.raises(EntityIdMissing):
            pull_many(db, read("[:age]"), [101, [kw("name"), "zoe"]])

    def test_many_are_the_same_as_one_by_one(self, db: Database) -> None:
        patterns = ["[*]", "[:name :_boss {:friend [:name]}]", "[:db/id {:boss ...} :part :aka]"]
        eids = [101, 102, 103, 104, 201, 202, 203, 204, 205, 999, 101]
        for view in (db, db.as_of(db.max_tx), db.since(db.tx0)):
            for pattern in map(read, patterns):
                assert pull_many(view, pattern, eids) == [pull(view, pattern, e) for e in eids]

    def test_no_entities(self, db: Database) -> None:
        assert pull_many(db, read("[*]"), []) == []

    def test_results_are_not_shared(self, db: Database) -> None:
        first, second = pull_many(db, read("[{:boss [:name :aka]}]"), [102, 103])
        assert first == second and first is not None and second is not None
        first[kw("boss")][kw("aka")].append("changed")
        assert "changed" not in second[kw("boss")][kw("aka")]
        assert "changed" not in (pull(db, read("[:aka]"), 101) or {})[kw("aka")]


class TestViews:
    def test_past_and_since(self, db: Database) -> None:
        now = after(db, "[[:db/add 101 :age 41] [:db/retract 101 :aka]]")
        then = now.as_of(db.max_tx)
        assert pulled(then, "[:age :aka]") == {"age": 40, "aka": ["a", "b"]}
        assert pulled(now, "[:age :aka]") == {"age": 41}
        assert pulled(now.since(db.max_tx), "[:name :age]") == {"age": 41}
        assert pulled(now.since(db.max_tx), "[*]") == {"id": 101, "age": 41}

    def test_retracted_entities_are_empty(self, db: Database) -> None:
        gone = after(db, "[[:db/retractEntity 103]]")
        assert pulled(gone, "[*]", 103) == {"id": 103}
        assert pulled(gone, "[:db/id]", 103) is None
        assert pulled(gone, "[:friend]") == {"friend": [{"id": 102}]}

    def test_a_history_is_refused(self, db: Database) -> None:
        for pattern in ("[:name]", "[*]"):
            with pytest.raises(ViewRefused):
                pulled(db.history(), pattern)
            with pytest.raises(ViewRefused):
                pull_many(db.history(), read(pattern), [101])


class TestPatterns:
    @pytest.mark.parametrize(
        "pattern",
        [
            ":name",
            '"[:name]"',
            "nil",
            "5",
            "{:boss [:name]}",
            "[5]",
            "[nil]",
            "[[]]",
            "[[:name]]",
            "[[:name :as]]",
            "[[:name :shout true]]",
            "[[:name 5 true]]",
            "[[:name :xform 5]]",
            "[[5 :as :x]]",
            "[[:name :limit 0]]",
            "[[:name :limit -1]]",
            "[[:name :limit 1.5]]",
            "[(limit :name 0)]",
            "[(limit 5 1)]",
            "[(default 5 1)]",
            "[{:boss 0}]",
            "[{:boss -1}]",
            "[{:boss 1.5}]",
            "[{:boss true}]",
            "[{:boss nil}]",
            "[{:boss :name}]",
            "[{5 [:name]}]",
            "[{* [:name]}]",
        ],
    )
    def test_what_is_no_pattern_is_refused(self, pattern: str) -> None:
        with pytest.raises(PullParse):
            parse_pull(read(pattern))

    def test_equal_patterns_are_parsed_once(self) -> None:
        for pattern in ("[:name {:boss [:name]}]", "[:name :age]"):
            assert parse_pull(read(pattern)) is parse_pull(read(pattern))
        assert parse_pull(parse_pull(["name"])) is parse_pull(["name"])

    def test_defaults_of_different_classes_are_different_patterns(self) -> None:
        patterns: Iterable[Any] = ([["a", kw("default"), value]] for value in (1, 1.0, True))
        assert len({id(parse_pull(pattern)) for pattern in patterns}) == 3

    def test_nesting_is_limited(self) -> None:
        form: list[Any] = [kw("name")]
        for _ in range(80):
            form = [{kw("boss"): form}]
        with pytest.raises(LimitExceeded, match="nest"):
            parse_pull(form)

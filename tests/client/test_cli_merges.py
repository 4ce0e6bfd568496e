"""``natalog merge`` and ``diff``: what they print and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import natalog.sync
from natalog.cli import app
from natalog.cli.merges import resolution_argument
from natalog.core.edn import read
from natalog.core.values import Keyword, kw


@pytest.fixture
def run(service_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("NATS_URL", service_url)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.fixture
def people(service_url: str, fresh_name: Callable[[], str]) -> str:
    """Alice is 26 on ``db`` and 27 on ``draft``, where Bob is new."""
    name = fresh_name()
    with natalog.sync.connect(service_url) as client:
        ident = {
            "db/ident": kw("name"),
            "db/unique": kw("db.unique/identity"),
            "db/valueType": kw("db.type/string"),
            "db/cardinality": kw("db.cardinality/one"),
        }
        client.create_database(name, schema_flexibility="read", initial_tx=[ident])
        db, draft = client.database(name), client.database(name, "draft")
        db.transact([{"name": "Alice", "age": 25}])
        db.branch("draft")
        db.transact([{"name": "Alice", "age": 26}])
        draft.transact([{"name": "Alice", "age": 27}, {"name": "Bob", "age": 30}])
    return name


def test_conflicts_are_a_table_and_exit_code_1(run: Callable[..., Any], people: str) -> None:
    for more in ([], ["--dry-run"]):
        done = run("merge", people, "draft", *more)
        assert done.exit_code == 1
        (row,) = [line for line in done.stdout.splitlines() if ":age" in line]
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        assert cells == ["value", "2", ":age", "25", "26", "27", ""]
    assert "MergeConflict: The merge has 1 conflict" in run("merge", people, "draft").output
    conflict = {"kind": "value", "entity": 2, "attribute": ":age"}
    conflict |= {"base": [25], "ours": [26], "theirs": [27]}
    for more in ([], ["--dry-run"]):
        done = run("merge", people, "draft", "--json", *more)
        assert done.exit_code == 1
        assert json.loads(done.stdout)["conflicts"] == [conflict]
        found = read(run("merge", people, "draft", "--edn", *more).stdout)
        assert found[Keyword("conflicts")][0][Keyword("theirs")] == [27]


def test_merges_are_previewed_decided_and_done(run: Callable[..., Any], people: str) -> None:
    seen = run("merge", people, "draft", "--dry-run", "--policy", "theirs")
    assert seen.exit_code == 0, seen.output
    assert "3 facts would be added and 1 retracted; 0 conflicts" in seen.stdout
    done = run("merge", people, "draft", "--resolve", '[:name "Alice"]:age=theirs', "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert not report["fast_forward"] and len(report["base"]) == 1
    again = run("merge", people, "draft")
    assert (again.exit_code, again.stdout) == (0, "nothing to merge: db has all of it\n")
    back = run("merge", people, "db", "--into", "draft")
    assert "only the other side had changed since draft (fast-forward)" in back.stdout
    same = run("diff", people, "db", "draft")
    assert (same.exit_code, same.stdout) == (0, "0 facts removed, 0 added\n")
    head = json.loads(run("history", people, "--json").stdout)[0]
    assert head["commit_id"] == report["commit_id"] and len(head["parents"]) == 2
    assert json.loads(run("branches", people, "--json").stdout) == ["db", "draft"]


def test_differences_are_a_table(run: Callable[..., Any], people: str, service_url: str) -> None:
    found = run("diff", people, "db", "draft").stdout
    assert "1 fact removed, 3 added" in found
    with natalog.sync.connect(service_url) as client:
        first = client.database(people).branch_history()[1]
    commit = json.loads(run("diff", people, str(first.commit_id), "db", "--json").stdout)
    assert [row for row in commit["added"] if row[1] != ":db/txInstant"] == [[2, ":age", 26]]
    assert commit["removed"] == [[2, ":age", 25]]
    then = run("diff", people, "db", "draft", "--as-of", str(first.tx), "--json")
    assert json.loads(then.stdout) == {"added": [], "removed": []}


def test_purges_reach_every_branch(run: Callable[..., Any], people: str) -> None:
    arguments = ("purge", people, '[:name "Bob"]', "--all-branches", "--yes", "--json")
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    db, draft = json.loads(done.stdout)
    assert (db["branch"], db["error"]) == ("db", "TransactPurge")
    assert (draft["branch"], draft["purged"], draft["error"]) == ("draft", 2, None)
    assert run(*arguments).exit_code == 1, "nothing is left"


def test_resolutions_name_entity_attribute_and_decision() -> None:
    age = Keyword("age")
    for text, entity, decided in (
        ("17:age=ours", 17, {"take": "ours"}),
        ("17::age=26", 17, {"value": 26}),
        ("17:age=nil", 17, {"value": None}),
        ("17:age=old", 17, {"value": "old"}),
        ('[:name "a]b"]:age="x=y"', [Keyword("name"), "a]b"], {"value": "x=y"}),
    ):
        expected = {"entity": entity, "attribute": age, **decided}
        assert resolution_argument(text) == expected
    for text in ("age=ours", "17:age", "[:name:age=1", ":x", ""):
        with pytest.raises(typer.BadParameter):
            resolution_argument(text)


def test_wrong_merges_are_usage_errors(run: Callable[..., Any], people: str) -> None:
    for more in (
        ["draft", "--tx-data", "[]", "--dry-run"],
        ["draft", "db", "--dry-run"],
        ["draft", "--resolve", "nonsense"],
    ):
        assert run("merge", people, *more).exit_code == 2
    assert run("merge", people, "nowhere").exit_code == 1

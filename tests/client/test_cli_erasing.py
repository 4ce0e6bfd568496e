"""``natalog erase``: what it prints, and that it does not print what it erases."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

import natalog.sync
from natalog.cli import app

MARKER = "zebra-4711-marker"
Run = Callable[..., Any]


@pytest.fixture
def run(service_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("NATS_URL", service_url)
    return lambda *arguments, stdin=None: CliRunner().invoke(app, list(arguments), input=stdin)


@pytest.fixture
def people(service_url: str, fresh_name: Callable[[], str]) -> str:
    """Ann and Bob, whose notes hold the marker, on ``db`` and ``draft``."""
    name = fresh_name()
    with natalog.sync.connect(service_url) as client:
        client.create_database(name, schema_flexibility="read")
        conn = client.database(name)
        conn.transact([{"name": "Ann", "note": MARKER}, {"name": "Bob", "note": f"also {MARKER}"}])
        conn.branch("draft")
    return name


def notes(run: Run, name: str) -> int:
    done = run("q", name, "[:find [?x ...] :where [_ :note ?x]]", "--json")
    return len(json.loads(done.stdout))


def test_a_text_is_erased_and_the_receipt_shown(run: Run, people: str) -> None:
    dry = run("erase", people, "--containing", MARKER, "--dry-run")
    assert dry.exit_code == 0 and "would be erased" in dry.stdout
    assert notes(run, people) == 2
    done = run("erase", people, "--containing", "-", "-y", stdin=f"{MARKER}\n")
    assert done.exit_code == 0
    assert "2 facts in" in done.stdout and "purged on draft" in done.stdout
    assert MARKER not in done.stdout
    assert notes(run, people) == 0
    listed = json.loads(run("erase", people, "--list", "--json").stdout)
    assert [receipt["facts"] for receipt in listed] == [2]
    assert "facts" in run("erase", people, "--list").stdout
    assert run("check", people).exit_code == 0


def test_facts_are_named_by_entity_attribute_and_value(run: Run, people: str) -> None:
    e = run("q", people, '[:find ?e . :where [?e :name "Ann"]]', "--json").stdout.strip()
    named = ("--entity", e, "--attribute", ":note", "--value", f'"{MARKER}"')
    done = run("erase", people, *named, "--branch", "db", "-y", "--json")
    receipt = json.loads(done.stdout)
    assert (receipt["purged"]["db"]["facts"], receipt["kept"]) == (1, {"draft": 1})
    assert notes(run, people) == 1


def test_it_asks_first_and_refuses_half_a_name(run: Run, people: str) -> None:
    assert run("erase", people, "--containing", MARKER, stdin="n\n").exit_code != 0
    assert run("erase", people, "--value", "1", "-y").exit_code != 0
    assert run("erase", people, "--all", "--branch", "db", "-y").exit_code != 0
    assert notes(run, people) == 2

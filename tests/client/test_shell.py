"""The prompt: what is complete, what completes, and what it does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from natalog.cli.shell import completions, piped, unfinished

SESSION = """
[{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity :db/doc "what it is called"}]
[{:name "Ada"}]
[[:db/add [:name "Ada"] :name "Grace"]]
[:find ?n
 :where [_ :name ?n]]
:as-of {tx}
[:find ?n :where [_ :name ?n]]
[{:name "Eve"}]
:now
(pull [:name] [:name "Grace"])
:schema
:history
[:find ?n ?added :where [_ :name ?n _ ?added]]
:now
:explain [:find ?n :where [_ :name ?n]]
:nonsense
[:find ?n :where
"""


def run(url: str, text: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "natalog", *command, "--nats", url],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("[:find ?e", True),
        ('[{:name "a]"}]', False),
        ('"half', True),
        (r'"a\" b"', False),
        ("[1 ; ]\n", True),
        ("]", False),
    ],
)
def test_a_form_runs_when_its_brackets_are_closed(text: str, is_open: bool) -> None:
    assert unfinished(text) is is_open


def test_attributes_and_commands_complete() -> None:
    assert completions(":na", [":name", ":nature", ":age"], ["now"]) == [":name", ":nature"]
    assert completions(":no", [], ["now"]) == [":now"]
    assert completions("na", [":name"], []) == []


def test_piped_text_is_cut_into_commands_and_forms() -> None:
    assert piped(":now\n[:find ?e\n :where [?e]]\n\n(pull [*] 1)") == [
        ":now",
        "[:find ?e\n :where [?e]]",
        "(pull [*] 1)",
    ]


def test_a_session_queries_transacts_and_travels(service_url: str) -> None:
    assert run(service_url, "", "db", "create", "shelled").returncode == 0
    assert run(service_url, ":schema", "shell", "shelled").returncode == 0
    first = 2**52 + 2
    done = run(service_url, SESSION.replace("{tx}", str(first)), "shell", "shelled")
    assert done.returncode == 1, "some of it is refused"
    said = done.stdout
    assert f"transaction {first}" in said
    assert said.index("Grace") < said.rindex("Ada")
    assert "The past cannot be changed" in said
    assert "what it is called" in said
    assert "{:name " in said and "There is no :nonsense" in said
    assert "EdnSyntax" in said, "what never ends is an error, not a hang"


def test_a_shell_of_a_database_that_is_not_there_says_so(service_url: str) -> None:
    done = run(service_url, "", "shell", "nowhere")
    assert done.returncode == 1 and "DatabaseNotFound" in done.stderr


def test_top_tells_rates_of_databases_and_endpoints(service_url: str) -> None:
    run(service_url, "", "db", "create", "busy", "--schema", "read")
    run(service_url, "", "transact", "busy", "[{:n 1}]")
    done = run(service_url, "", "top", "--once", "--json", "--interval", "0.2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["processes"] == 1
    busy = next(one for one in found["databases"] if one["database"] == "busy")
    assert busy["transactions"] == 1 and busy["datoms"] >= 2
    assert {"transact", "query"} <= {one["endpoint"] for one in found["endpoints"]}
    table = run(service_url, "", "top", "--once", "--interval", "0.1")
    assert "busy" in table.stdout and "requests/s" in table.stdout

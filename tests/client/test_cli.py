"""The command line: what it prints, how it ends, what it says when something is wrong."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from natalog import local as natalog_local
from natalog import sync as natalog_sync
from natalog.cli import app, main
from natalog.cli.connection import context_names, place
from natalog.connection import Access
from natalog.core.edn import read
from natalog.core.values import Keyword

Names = Callable[[], str]
NAME_AGE = "[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]"


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def natalog(
    *arguments: str, url: str | None = None, stdin: str = "", cwd: Path | None = None
) -> Done:
    """Run the command in this process: starting Python takes longer than most commands."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NATS_URL", raising=False)
        if url is not None:
            patch.setenv("NATS_URL", url)
        if cwd is not None:
            patch.chdir(cwd)
        patch.setattr(sys, "argv", ["natalog", *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as ended:
            main()
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, *texts)


@pytest.fixture
def people(service_url: str, fresh_name: Names) -> str:
    name = fresh_name()
    assert natalog("db", "create", name, "--schema", "read", url=service_url).code == 0
    tx = '[{:name "Alice" :age 25} {:name "Bob" :age 30}]'
    assert natalog("transact", name, tx, url=service_url).code == 0
    return name


def test_a_snapshot_is_written_and_looked_at(service_url: str, people: str) -> None:
    first = natalog("snapshot", people, url=service_url)
    assert first.code == 0 and "written" in first.out
    again = json.loads(natalog("snapshot", people, "--json", url=service_url).out)
    assert (again["written"], again["branch"], again["segments"]) == (False, "db", 0)
    looked = natalog("check", people, "--deep", "--json", url=service_url)
    assert looked.code == 0
    found = {finding["check"]: finding["found"] for finding in json.loads(looked.out)}
    assert found["snapshots and log"] == "1 snapshots equal what the log folds to"
    assert "BranchNotFound" in natalog("snapshot", people, "--branch", "x", url=service_url).err
    with natalog_sync.connect(service_url) as client:
        conn = client.database(people)
        conn.transact([{"name": "Carol"}])
        assert conn.snapshot()["written"]
        assert not conn.snapshot()["written"]
    local = natalog_local.create_database("people", schema_flexibility="read")
    assert not local.snapshot()["written"], "there is nowhere to write it"


def test_answers_are_tables_json_or_edn(service_url: str, people: str) -> None:
    table = natalog("q", people, NAME_AGE, url=service_url)
    assert table.code == 0
    assert "Alice" in table.out
    assert "?a" in table.out
    as_json = natalog("q", people, NAME_AGE, "--json", url=service_url)
    assert sorted(json.loads(as_json.out)) == [["Alice", 25], ["Bob", 30]]
    as_edn = natalog("q", people, NAME_AGE, "--edn", url=service_url)
    assert read(as_edn.out) == {("Alice", 25), ("Bob", 30)}
    report = natalog("transact", people, "[:db/add 1 :age 26]", "--edn", url=service_url)
    assert read(report.out)[Keyword("tx-data")][-1][2] == 26
    assert natalog("q", people, NAME_AGE, "--json", "--edn", url=service_url).code == 2


def test_arguments_and_times(service_url: str, people: str) -> None:
    log = natalog("log", people, "--json", url=service_url)
    first = json.loads(log.out.splitlines()[0])
    natalog("transact", people, "-", url=service_url, stdin="[{:db/id 1 :age 26}]")
    query = "[:find ?a . :in $ ?n :where [?e :name ?n] [?e :age ?a]]"
    assert natalog("q", people, query, "Alice", "--json", url=service_url).out.strip() == "26"
    past = natalog(
        "q", people, query, "Alice", "--json", "--as-of", str(first["tx"]), url=service_url
    )
    assert past.out.strip() == "25"
    early = natalog("q", people, query, "Alice", "--json", "--as-of", "2001-01-01", url=service_url)
    assert early.out.strip() == "null"
    ordered = natalog(
        *("q", people, NAME_AGE, "--order-by", "[?a :desc]", "--limit", "1", "--json"),
        url=service_url,
    )
    assert json.loads(ordered.out) == [["Bob", 30]]


def test_every_reading_command(service_url: str, people: str) -> None:
    pulled = natalog("pull", people, "[*]", "1", "--json", url=service_url)
    assert json.loads(pulled.out) == {":db/id": 1, ":name": "Alice", ":age": 25}
    datoms = natalog("datoms", people, "aevt", ":name", "--limit", "1", "--json", url=service_url)
    assert json.loads(datoms.out)[0][:3] == [1, ":name", "Alice"]
    history = natalog("history", people, "--json", url=service_url)
    assert len(json.loads(history.out)) == 2
    assert json.loads(natalog("branches", people, "--json", url=service_url).out) == ["db"]
    assert json.loads(natalog("db", "info", people, "--json", url=service_url).out)["max_eid"] == 2
    counted = natalog("db", "info", people, "--counts", "--json", url=service_url)
    assert json.loads(counted.out)["counts"][":name"] == 2
    listed = json.loads(natalog("db", "list", "--json", url=service_url).out)
    assert people in [entry["database"] for entry in listed]
    watched = natalog("watch", people, "--since", "0", "--count", "1", "--json", url=service_url)
    assert len(json.loads(watched.out)["tx_data"]) == 5
    checked = natalog("check", people, "--json", url=service_url)
    assert checked.code == 0
    assert all(finding["ok"] for finding in json.loads(checked.out))
    assert natalog("gc", people, "--dry-run", url=service_url).code == 0


def test_branches_from_the_command_line(service_url: str, people: str) -> None:
    def run(*words: str, code: int = 0) -> str:
        found = natalog(*words, url=service_url)
        assert found.code == code, found.err
        return found.out

    run("branch", people, "draft")
    run("transact", people, '[{:name "Dan"}]', "--branch", "draft")
    run("branch", people, "copy", "--from", "draft")
    run("branch", people, "copy", "--force", "db")
    run("transact", people, '[{:name "Cas"}]', "--branch", "copy")
    assert json.loads(run("branches", people, "--json")) == ["copy", "db", "draft"]
    report = json.loads(run("merge", people, "draft", "--tx-data", '[{:name "Dan"}]', "--json"))
    newest = json.loads(run("history", people, "--limit", "1", "--json"))[0]
    assert newest["commit_id"] == report["commit_id"] and len(newest["parents"]) == 2
    for branch in ("db", "draft", "copy"):
        checked = json.loads(run("check", people, "--branch", branch, "--json"))
        assert all(finding["ok"] for finding in checked), checked
        watched = run("watch", people, "--branch", branch, "--since", "0", "--count", "1", "--json")
        assert json.loads(watched)["tx_data"], branch
    assert "Cas" in run("diff", people, "db", "copy")
    run("branch", people, "copy", "--delete")
    assert json.loads(run("gc", people, "--dry-run", "--json"))["removed"] == 2
    assert "commits" in run("gc", people)
    assert "BranchNotFound" in natalog("check", people, "--branch", "copy", url=service_url).err


def test_a_publish_with_a_known_id_says_so(service_url: str, people: str) -> None:
    acks = [
        json.loads(
            natalog(
                "publish", people, '[{:name "Eve"}]', "--id", "e", "--json", url=service_url
            ).out
        )
        for _ in range(2)
    ]
    assert [ack["duplicate"] for ack in acks] == [False, True]


def test_a_purge_leaves_no_trace_in_the_past(service_url: str, people: str) -> None:
    assert natalog("purge", people, "1", "--yes", url=service_url).code == 0
    history = natalog("q", people, NAME_AGE, "--history", "--json", url=service_url)
    assert json.loads(history.out) == [["Bob", 30]]


def test_exit_codes_tell_who_is_wrong(service_url: str, people: str) -> None:
    refused = natalog("q", "nowhere", NAME_AGE, url=service_url)
    assert refused.code == 1
    assert refused.err.startswith("natalog: DatabaseNotFound: ")
    assert len(refused.err.splitlines()) == 1
    usage = natalog("q", people, "[:find", url=service_url)
    assert usage.code == 2
    assert "not EDN" in usage.err
    assert len(usage.err.splitlines()) == 1
    assert natalog("frobnicate").code == 2
    assert natalog("q", people, url=service_url).code == 2
    nobody = natalog("q", people, NAME_AGE, url="nats://127.0.0.1:1")
    assert nobody.code == 3
    assert "connection refused" in nobody.err
    assert natalog("branch", people, "db", url=service_url).code == 1
    assert natalog("--help").code == 0
    assert natalog("import", "--help").code == 0


@pytest.mark.parametrize("form", ["edn", "jsonl"])
def test_an_export_can_be_imported(
    service_url: str, people: str, fresh_name: Names, tmp_path: Path, form: str
) -> None:
    path = tmp_path / f"people.{form}"
    export = natalog("export", people, "--format", form, "-o", str(path), url=service_url)
    assert export.code == 0
    other = fresh_name()
    natalog("db", "create", other, "--schema", "read", url=service_url)
    options = ["--no-infer"] if form == "jsonl" else []
    done = natalog("import", form, str(path), "--db", other, *options, "--json", url=service_url)
    assert done.code == 0, done.err
    assert json.loads(done.out)["added"] == 2
    both = [
        json.loads(natalog("q", db, NAME_AGE, "--json", url=service_url).out)
        for db in (people, other)
    ]
    assert both[0] == both[1]


def test_csv_is_imported_with_types_and_only_once(
    service_url: str, fresh_name: Names, tmp_path: Path
) -> None:
    path = tmp_path / "people.csv"
    path.write_text(
        "email,full name,age,zip,since\n"
        'a@example.org,"Alice, A.",25,01234,2024-01-01T00:00:00Z\n'
        "b@example.org,Bob,,99999,2024-02-01T00:00:00Z\n"
    )
    name = fresh_name()
    arguments = ("import", "csv", str(path), "--db", name, "--ns", "p", "--identity", "email")
    first = natalog(*arguments, "--json", url=service_url)
    assert first.code == 0, first.err
    assert json.loads(first.out)["added"] == 2
    second = json.loads(natalog(*arguments, "--json", url=service_url).out)
    assert (second["added"], second["known"]) == (0, 2)
    found = natalog("pull", name, "[*]", '[:p/email "a@example.org"]', "--json", url=service_url)
    facts = json.loads(found.out)
    del facts[":db/id"]
    assert facts == {
        ":p/email": "a@example.org",
        ":p/full-name": "Alice, A.",
        ":p/age": 25,
        ":p/zip": "01234",
        ":p/since": "2024-01-01T00:00:00.000Z",
    }


def test_jsonl_is_imported_and_a_bad_line_is_named(
    service_url: str, fresh_name: Names, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"n": n, "tags": ["a", "b"], "ratio": n / 2} for n in range(2500)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    name = fresh_name()
    done = natalog("import", "jsonl", str(path), "--db", name, "--json", url=service_url)
    assert json.loads(done.out)["added"] == 2500, done.err
    count = natalog(
        "q", name, '[:find (count ?e) . :where [?e :tags "a"]]', "--json", url=service_url
    )
    assert count.out.strip() == "2500"
    path.write_text('{"n": 1}\n{"n": \n')
    broken = natalog("import", "jsonl", str(path), "--db", name, url=service_url)
    assert broken.code == 1
    assert "rows.jsonl:2 is not JSON" in broken.err


def test_a_git_history_is_imported_and_resumed(
    service_url: str, fresh_name: Names, tmp_path: Path
) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    git("init", "-q")
    for step in range(3):
        (tmp_path / "file").write_text(str(step))
        git("add", "-A")
        git("commit", "-q", "-m", f"step {step}")
    name = fresh_name()
    done = natalog("import", "git", str(tmp_path), "--db", name, "--json", url=service_url)
    assert done.code == 0, done.err
    assert json.loads(done.out)["added"] == 3
    git("commit", "-q", "--allow-empty", "-m", "one more")
    again = json.loads(
        natalog("import", "git", str(tmp_path), "--db", name, "--json", url=service_url).out
    )
    assert (again["added"], again["known"]) == (1, 3)
    authors = natalog(
        "q",
        name,
        "[:find ?n (count ?c) :where [?c :commit/author ?p] [?p :author/name ?n]]",
        "--json",
        url=service_url,
    )
    assert json.loads(authors.out) == [["Ada", 4]]


def test_contexts_of_the_nats_tool_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = tmp_path / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "lab.json").write_text(
        json.dumps({"url": "nats://lab:4222,tls://lab2:4222", "user": "u", "password": "p"})
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    found = place(None, "lab")
    assert found.servers == ["nats://lab:4222", "tls://lab2:4222"]
    assert found.access == Access(user="u", password="p")
    assert place("other:1", "lab").servers == ["nats://other:1"]
    assert context_names("l") == ["lab"]


def test_a_pinned_clock_and_a_restart(
    service: Callable[..., tuple[Callable[[], int], str]], tmp_path: Path
) -> None:
    options = ("--pin-clock", "2020-01-01T00:00:00Z")
    stop, url = service(*options)
    natalog("db", "create", "people", "--schema", "read", url=url)
    report = natalog("transact", "people", '[{:name "Alice"}]', "--json", url=url)
    assert json.loads(report.out)["instant"] == "2020-01-01T00:00:00.000Z"
    before = natalog("datoms", "people", "--json", url=url).out
    taken = natalog("serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
    assert taken.code == 3
    assert "DataDirectoryInUse" in taken.err
    assert stop() == 0
    stop, url = service(*options)
    assert natalog("datoms", "people", "--json", url=url).out == before
    assert stop() == 0


def test_what_a_database_declares_stands(
    service_url: str, fresh_name: Names, tmp_path: Path
) -> None:
    name = fresh_name()
    natalog("db", "create", name, url=service_url)
    declare = (
        "[{:db/ident :code :db/valueType :db.type/string :db/cardinality :db.cardinality/one}"
        " {:db/ident :n :db/valueType :db.type/double :db/cardinality :db.cardinality/one}]"
    )
    natalog("transact", name, declare, url=service_url)
    path = tmp_path / "rows.csv"
    path.write_text("code,n\n12,3\n")
    for option in ("--infer", "--no-infer"):
        done = natalog("import", "csv", str(path), "--db", name, option, url=service_url)
        assert done.code == 0, done.err
    rows = natalog(
        "q", name, "[:find ?c ?n :where [?e :code ?c] [?e :n ?n]]", "--edn", url=service_url
    )
    assert rows.out.strip() == '#{["12" 3.0]}'


def test_nested_json_becomes_entities(service_url: str, fresh_name: Names, tmp_path: Path) -> None:
    path = tmp_path / "nested.jsonl"
    row = {"name": "Ada", "home": {"city": "Oslo"}, "pets": [{"pet": "cat"}, {"pet": "dog"}]}
    path.write_text(json.dumps(row) + "\n")
    name = fresh_name()
    done = natalog("import", "jsonl", str(path), "--db", name, url=service_url)
    assert done.code == 0, done.err
    query = '[:find ?c . :where [?e :name "Ada"] [?e :home ?h] [?h :city ?c]]'
    assert natalog("q", name, query, "--json", url=service_url).out.strip() == '"Oslo"'
    pets = "[:find [?p ...] :where [?e :pets ?x] [?x :pet ?p]]"
    found = json.loads(natalog("q", name, pets, "--json", url=service_url).out)
    assert sorted(found) == ["cat", "dog"]


def test_edn_files_of_every_layout(service_url: str, fresh_name: Names, tmp_path: Path) -> None:
    path = tmp_path / "rows.edn"
    long_form = "[" + "\n".join(f'{{:n {n} :text "a ] b"}}' for n in range(200)) + "]\n"
    path.write_text(f"; a comment\n{{:n -1}} {{:n -2}}\n{{:n\n -3}}\n{long_form}{{:n -4}}\n")
    name = fresh_name()
    natalog("db", "create", name, "--schema", "read", url=service_url)
    done = natalog("import", "edn", str(path), "--db", name, "--json", url=service_url)
    assert json.loads(done.out)["added"] == 204, done.err
    path.write_text("{:n 1}\n{:n\n")
    broken = natalog("import", "edn", str(path), "--db", name, url=service_url)
    assert broken.code == 1
    assert "rows.edn is not EDN" in broken.err


def completed(line: str, url: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What Tab offers behind the line, as bash asks for it."""
    words = line.split(" ")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_NATALOG_COMPLETE", "complete_bash")
    done = natalog(url=url)
    return set(done.out.split())


def test_names_of_databases_and_branches_complete(
    service_url: str, people: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with natalog_sync.connect(service_url) as client:
        client.database(people).branch("draft")

    def offered(line: str) -> set[str]:
        return completed(line, service_url, monkeypatch)

    for line in ("q ", "shell ", "db info ", "import csv people.csv --db ", "backup "):
        assert people in offered(f"natalog {line}{people[:-1]}"), line
    for line in ("q {} -b ", "branch {} ", "diff {} db ", "merge {} ", "erase {} --branch "):
        assert offered(f"natalog {line.format(people)}dr") == {"draft"}, line
    assert offered("natalog datoms people a") == {"aevt", "avet"}
    assert offered("natalog --embedded /nowhere q ") == set()
    assert completed("natalog q ", "nats://127.0.0.1:1", monkeypatch) == set()


def test_every_command_has_a_help_text_with_an_example() -> None:
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    assert groups.keys() == {"db", "import"}
    for typer in (app, *groups.values()):
        for command in typer.registered_commands:
            assert command.callback is not None
            assert "natalog " in (command.callback.__doc__ or "").split("Example")[-1], command


def test_what_goes_wrong_is_told_with_what_to_do(
    service_url: str, fresh_name: Names, tmp_path: Path
) -> None:
    name = fresh_name()
    assert natalog("db", "create", name, url=service_url).code == 0

    def tell(*command: str, code: int, url: str = service_url) -> str:
        done = natalog(*command, url=url)
        assert done.code == code, done
        assert len(done.err.splitlines()) <= 1
        return done.out + done.err

    query = "[:find ?e :where [?e :nope]]"
    assert ":nope: no such attribute is declared" in tell("q", name, query, code=0)
    assert "no such" not in tell("q", name, "[:find ?e :where [?e :db/doc]]", code=0)
    assert "(?x $)" in tell("q", name, "[:find ?x :in ?x $ :where [?x]]", code=1)
    assert "[1 is not EDN" in tell("q", name, "[:find ?x :in $ ?x]", "[1", code=2)
    assert "--limit" in tell("q", name, query, "--limit", "-1", code=2)
    assert "no directory" in tell("export", name, "-o", str(tmp_path / "no" / "file"), code=2)
    assert "cannot be written" in tell("export", name, "-o", str(tmp_path), code=2)
    assert "--yes" in tell("purge", name, "1", code=2)
    assert "is read or write" in tell("db", "create", "x", "--schema", "foo", code=2)
    assert "no policy" in tell("merge", name, "db", "--policy", "foo", code=2)
    assert "before 2020-01-01" in tell("branch", name, "b", "--from", "2020-01-01", code=1)
    assert "--data" in tell("serve", "--embedded", str(tmp_path), code=2)
    assert "nats://HOST:PORT" in tell("db", "list", code=2, url="http://localhost")
    assert "natalog serve" in tell("top", "--once", code=3, url="nats://127.0.0.1:1")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{")
    tell("import", "jsonl", str(bad), "--db", fresh := fresh_name(), code=1)
    tell("import", "git", str(tmp_path), "--db", fresh, code=1)
    assert fresh not in tell("db", "list", code=0)


def test_transactions_can_be_named_as_the_console_names_them(service_url: str, people: str) -> None:
    with natalog_sync.connect(service_url) as client:
        conn = client.database(people)
        conn.transact([{"name": "Carol"}])
    names = "[:find [?n ...] :where [_ :name ?n]]"
    then = natalog("q", people, names, "--as-of", "1", "--json", url=service_url)
    assert json.loads(then.out) == ["Alice", "Bob"]
    later = natalog("log", people, "--from", "2", "--json", url=service_url)
    assert json.loads(later.out)["tx"] == 2**52 + 2
    assert natalog("log", people, "--since", "x", url=service_url).code == 2

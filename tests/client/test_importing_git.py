"""A git history becomes transactions that tell the same story."""

from __future__ import annotations

import io
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from natalog import local
from natalog.core.errors import ReadError
from natalog.importing import git as git_import
from natalog.importing.git import (
    SCHEMA,
    Commit,
    FileChange,
    count_commits,
    parse_log,
    read_commits,
    transactions,
)
from natalog.importing.sample import sample_commits

START = datetime(2024, 1, 1, tzinfo=UTC)
FILES = "[:find ?p ?b :where [?f :file/blob ?b] [?f :file/path ?p]]"


class Repository:
    """A repository that a test writes; every commit is one hour after the one before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hours = 0
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str, author: str = "Ada", hours: int | None = None) -> str:
        moment = START + timedelta(hours=self.hours if hours is None else hours)
        date = moment.isoformat()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": author,
            "GIT_AUTHOR_EMAIL": f"{author.lower()}@example.org",
            "GIT_AUTHOR_DATE": date,
            "GIT_COMMITTER_NAME": author,
            "GIT_COMMITTER_EMAIL": f"{author.lower()}@example.org",
            "GIT_COMMITTER_DATE": date,
        }
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def write(self, name: str, text: str) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def commit(self, message: str, author: str = "Ada", hours: int | None = None) -> str:
        self.hours += 1
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message, author=author, hours=hours)
        return self.git("rev-parse", "HEAD")

    def tree(self, commit: str) -> set[tuple[str, str]]:
        listed = self.git("ls-tree", "-r", "-z", commit)
        found = set()
        for line in filter(None, listed.split("\0")):
            head, path = line.split("\t")
            found.add((path, head.split()[2]))
        return found


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def imported(path: Path, conn: local.Conn | None = None) -> local.Conn:
    if conn is None:
        conn = local.Registry().create_database("history")
        conn.transact(SCHEMA)
    known = set(conn.db().q(git_import.SHAS_QUERY))
    for item in transactions(read_commits(path), known):
        conn.transact(item.tx_data, item.tx_meta, id=item.id)
    return conn


def test_every_commit_is_one_transaction_dated_by_the_commit(repository: Repository) -> None:
    repository.write("a.txt", "1")
    first = repository.commit("Begin\n\nWith a body.")
    repository.write("a.txt", "2")
    repository.write("dir/name with blank.txt", "x")
    second = repository.commit("Go on", author="Bob")
    conn = imported(repository.path)
    db = conn.db()
    dated = "[:find ?sha ?t :where [_ :commit/sha ?sha ?tx] [?tx :db/txInstant ?t]]"
    assert db.q(dated) == {
        (first, START + timedelta(hours=1)),
        (second, START + timedelta(hours=2)),
    }
    assert len(db.q("[:find ?tx :where [?tx :db/txInstant]]")) == 3
    assert db.q(
        "[:find ?m . :in $ ?s :where [?c :commit/sha ?s] [?c :commit/message ?m]]", first
    ) == ("Begin\n\nWith a body.")
    authors = "[:find ?sha ?n ?m :where [?c :commit/sha ?sha] [?c :commit/author ?p]" + (
        " [?p :author/name ?n] [?p :author/email ?m]]"
    )
    assert db.q(authors) == {
        (first, "Ada", "ada@example.org"),
        (second, "Bob", "bob@example.org"),
    }
    parents = "[:find ?c ?p :where [?x :commit/sha ?c] [?x :commit/parents ?y] [?y :commit/sha ?p]]"
    assert db.q(parents) == {(second, first)}
    touched = "[:find ?p :in $ ?s ?a :where [?c :commit/sha ?s] [?c ?a ?f] [?f :file/path ?p]]"
    assert db.q(touched, first, git_import.Keyword("commit/added")) == {("a.txt",)}
    assert db.q(touched, second, git_import.Keyword("commit/changed")) == {("a.txt",)}
    assert db.q(touched, second, git_import.Keyword("commit/added")) == {
        ("dir/name with blank.txt",)
    }


def test_the_past_has_exactly_the_files_of_that_day(repository: Repository) -> None:
    shas = []
    for step in range(6):
        repository.write(f"f{step % 3}", str(step))
        if step == 3:
            (repository.path / "f1").unlink()
        shas.append(repository.commit(f"step {step}"))
    db = imported(repository.path).db()
    for step, sha in enumerate(shas, 1):
        moment = START + timedelta(hours=step, minutes=30)
        assert db.as_of(moment).q(FILES) == repository.tree(sha)


def test_side_branches_arrive_with_their_merge(repository: Repository) -> None:
    repository.write("base", "1")
    base = repository.commit("base")
    repository.git("checkout", "-q", "-b", "side")
    repository.write("side-file", "s")
    side = repository.commit("on the side")
    repository.git("checkout", "-q", "main")
    repository.write("main-file", "m")
    main = repository.commit("on main")
    repository.hours += 1
    repository.git("merge", "-q", "--no-ff", "-m", "join", "side")
    merge = repository.git("rev-parse", "HEAD")
    db = imported(repository.path).db()
    before_merge = START + timedelta(hours=repository.hours - 1, minutes=30)
    assert db.as_of(before_merge).q(FILES) == repository.tree(main)
    assert db.q(FILES) == repository.tree(merge)
    parents = "[:find [?p ...] :in $ ?s :where [?c :commit/sha ?s] [?c :commit/parents ?y]" + (
        " [?y :commit/sha ?p]]"
    )
    assert set(db.q(parents, merge)) == {main, side}
    assert set(db.q(git_import.SHAS_QUERY)) == {base, side, main, merge}


def test_a_second_import_adds_only_what_is_new(repository: Repository) -> None:
    repository.write("a", "1")
    repository.commit("one")
    conn = imported(repository.path)
    before = conn.info()
    imported(repository.path, conn)
    assert conn.info() == before
    repository.write("a", "2")
    repository.commit("two")
    imported(repository.path, conn)
    assert conn.info()["max_tx"] == before["max_tx"] + 1


def test_dates_may_go_backwards(repository: Repository) -> None:
    repository.write("a", "1")
    first = repository.commit("one", hours=10)
    repository.write("a", "2")
    second = repository.commit("two", hours=5)
    commits = list(read_commits(repository.path))
    assert [c.sha for c in commits] == [first, second]
    db = imported(repository.path).db()
    assert db.q(FILES) == repository.tree(second)


def test_a_huge_commit_is_announced_file_by_file(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_import, "FILES_PER_TRANSACTION_MAX", 4)
    for n in range(10):
        repository.write(f"f{n}", str(n))
    sha = repository.commit("many")
    items = list(transactions(read_commits(repository.path)))
    assert [item.commit is not None for item in items] == [False, False, False, True]
    assert imported(repository.path).db().q(FILES) == repository.tree(sha)


def test_empty_commits_and_odd_messages_are_read(repository: Repository) -> None:
    repository.commit("nothing\n\n:100644 looks like a file\nbut is not")
    repository.commit("Grüße, 世界")
    commits = list(read_commits(repository.path))
    assert [c.subject for c in commits] == ["nothing", "Grüße, 世界"]
    assert all(not c.changes for c in commits)
    assert count_commits(repository.path) == 2


def test_what_is_no_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="cannot read the git history"):
        list(read_commits(tmp_path / "nowhere"))


def test_a_log_is_parsed_whatever_the_chunks() -> None:
    fields = ["a" * 40, "", "Ada", "ada@example.org", "60", "120", "subject", "body\n"]
    entry = "\n:000000 100644 " + "0" * 40 + " " + "b" * 40 + " A"
    raw = "\0".join([*fields, "", entry, "path", ""]).encode()
    assert list(parse_log(io.BytesIO(raw))) == [
        Commit(
            sha="a" * 40,
            parents=(),
            author="Ada",
            email="ada@example.org",
            authored_at=datetime(1970, 1, 1, 0, 1, tzinfo=UTC),
            committed_at=datetime(1970, 1, 1, 0, 2, tzinfo=UTC),
            subject="subject",
            message="body",
            changes=(FileChange("A", "path", "b" * 40),),
        )
    ]


def test_the_bundled_sample_is_a_history() -> None:
    commits = list(sample_commits())
    assert len(commits) == 60
    known: set[str] = set()
    for commit in commits:
        assert set(commit.parents) <= known
        known.add(commit.sha)
    conn = local.Registry().create_database("sample")
    conn.transact(SCHEMA)
    for item in transactions(commits):
        conn.transact(item.tx_data, item.tx_meta, id=item.id)
    assert set(conn.db().q(git_import.SHAS_QUERY)) == known

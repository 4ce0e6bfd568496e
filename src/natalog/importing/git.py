"""A git history as transactions: every commit becomes one transaction dated by the commit.

Facts of a commit: ``:commit/sha`` (identity), ``:commit/subject``, ``:commit/message``,
``:commit/author`` (an entity with ``:author/email`` and ``:author/name``),
``:commit/authored-at``, ``:commit/parents``, and the files it touched as ``:commit/added``,
``:commit/changed`` and ``:commit/deleted``.

A file is an entity with ``:file/path`` (identity).  While it exists on the main line (the chain of
first parents) it has ``:file/blob``, the hash of its content.  Because the transaction carries the
commit's date, an as-of view of a past date has exactly the files of that day.

Commits of side branches touch no ``:file/blob``: their files arrive with the merge, and the merge
itself lists no files as its own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from natalog.core.errors import ReadError
from natalog.core.values import Keyword

FILES_PER_TRANSACTION_MAX = 10_000
"""Files of a larger commit are announced in transactions of their own, ahead of the commit."""

_FIELDS = 8
_FORMAT = "%H%x00%P%x00%an%x00%ae%x00%at%x00%ct%x00%s%x00%B%x00"
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file of a commit: ``status`` is ``A``, ``M`` or ``D``; a deleted file has no blob."""

    status: str
    path: str
    blob: str | None


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit; ``changes`` are relative to the first parent."""

    sha: str
    parents: tuple[str, ...]
    author: str
    email: str
    authored_at: datetime
    committed_at: datetime
    subject: str
    message: str
    changes: tuple[FileChange, ...] = field(default=())
    on_main_line: bool = True


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one call of ``transact`` needs; ``commit`` is set on the transaction that records it."""

    id: str
    tx_data: list[Any]
    tx_meta: dict[str, Any]
    commit: Commit | None


def _attribute(ident: str, value_type: str, doc: str, **more: Any) -> dict[str, Any]:
    return {
        "db/ident": Keyword(ident),
        "db/valueType": Keyword(f"db.type/{value_type}"),
        "db/cardinality": Keyword("db.cardinality/many" if more.pop("many", False) else _ONE),
        "db/doc": doc,
        **{f"db/{name}": value for name, value in more.items()},
    }


_ONE = "db.cardinality/one"
_IDENTITY = Keyword("db.unique/identity")

SCHEMA: list[dict[str, Any]] = [
    _attribute("commit/sha", "string", "hash of the commit", unique=_IDENTITY),
    _attribute("commit/subject", "string", "first line of the message"),
    _attribute("commit/message", "string", "the whole message"),
    _attribute("commit/author", "ref", "who wrote it"),
    _attribute("commit/authored-at", "instant", "when it was written"),
    _attribute("commit/parents", "ref", "the commits before it", many=True),
    _attribute("commit/added", "ref", "files it added", many=True),
    _attribute("commit/changed", "ref", "files it changed", many=True),
    _attribute("commit/deleted", "ref", "files it deleted", many=True),
    _attribute("author/email", "string", "address, or the name without one", unique=_IDENTITY),
    _attribute("author/name", "string", "name as last written", index=True),
    _attribute("file/path", "string", "path in the repository", unique=_IDENTITY),
    _attribute("file/blob", "string", "hash of the content while the file exists"),
]
"""Tx-data that declares the attributes; transact it once with the id `SCHEMA_ID`."""

SCHEMA_ID = "git-schema-1"

SHAS_QUERY = "[:find [?sha ...] :where [_ :commit/sha ?sha]]"
"""The commits that a database has."""

_ATTRIBUTE_OF = {"A": "commit/added", "M": "commit/changed", "D": "commit/deleted"}


# --- reading -------------------------------------------------------------------------------------


def count_commits(path: Path | str, ref: str = "HEAD") -> int:
    """How many commits ``ref`` reaches.  `ReadError` when ``path`` is no repository."""
    return int(_git(path, "rev-list", "--count", ref, "--"))


def read_commits(path: Path | str, ref: str = "HEAD") -> Iterator[Commit]:
    """The commits that ``ref`` reaches, parents first, older dates first, read in a stream.

    Raises `ReadError` when ``path`` is no repository or ``ref`` no revision.
    """
    main_line = set(_git(path, "rev-list", "--first-parent", ref, "--").split())
    command = [
        *("git", "-C", str(path), "-c", "i18n.logOutputEncoding=UTF-8"),
        *("-c", "log.showSignature=false", "log", "-z", "--reverse", "--date-order", "--raw"),
        *("--no-renames", "--no-abbrev", "--no-color", "--no-ext-diff", "--root"),
        *("--diff-merges=first-parent", f"--format={_FORMAT}", ref, "--"),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            for commit in parse_log(process.stdout):
                yield (
                    commit
                    if commit.sha in main_line
                    else Commit(**{**_as_dict(commit), "on_main_line": False})
                )
        finally:
            process.stdout.close()
            if process.poll() is None:
                process.terminate()
    if process.returncode not in (0, -15):
        raise ReadError(f"git log failed in {path}", path=str(path), exit_code=process.returncode)


def parse_log(stream: IO[bytes]) -> Iterator[Commit]:
    """The commits of ``git log -z --raw`` output in this module's format."""
    fields: list[str] = []
    changes: list[FileChange] = []
    status: tuple[str, str] | None = None
    for token in _tokens(stream):
        if len(fields) < _FIELDS:
            if fields or token.strip():
                fields.append(token if fields else token.strip())
            continue
        entry = token.lstrip("\n")
        if status is not None:
            changes.append(_change(status, token))
            status = None
        elif entry.startswith(":"):
            parts = entry.split(" ")
            status = (parts[4][:1], parts[3])
        elif entry:
            yield _commit(fields, changes)
            fields, changes = [entry], []
    if len(fields) == _FIELDS:
        yield _commit(fields, changes)


def _tokens(stream: IO[bytes]) -> Iterator[str]:
    rest = b""
    while chunk := stream.read(_CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\0")
        for token in whole:
            yield token.decode("utf-8", "backslashreplace")
    if rest:
        yield rest.decode("utf-8", "backslashreplace")


def _change(status: tuple[str, str], path: str) -> FileChange:
    letter, blob = status
    if letter == "D":
        return FileChange("D", path, None)
    return FileChange("A" if letter == "A" else "M", path, blob)


def _commit(fields: list[str], changes: list[FileChange]) -> Commit:
    sha, parents, author, email, authored, committed, subject, message = fields
    return Commit(
        sha=sha,
        parents=tuple(parents.split()),
        author=author,
        email=email,
        authored_at=_instant(authored),
        committed_at=_instant(committed),
        subject=subject,
        message=message.strip(),
        changes=tuple(changes),
    )


def _instant(seconds: str) -> datetime:
    return datetime.fromtimestamp(int(seconds or 0), UTC)


def _as_dict(commit: Commit) -> dict[str, Any]:
    return {name: getattr(commit, name) for name in Commit.__dataclass_fields__}


def _git(path: Path | str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(path), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise ReadError("git is not installed", path=str(path)) from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["git failed"])[0]
        raise ReadError(f"cannot read the git history of {path}: {reason}", path=str(path))
    return done.stdout


# --- as transactions -----------------------------------------------------------------------------


def transactions(
    commits: Iterator[Commit] | list[Commit], known: Container[str] = ()
) -> Iterator[Transaction]:
    """One transaction for each commit that is not in ``known``, in the order given.

    The transaction id is ``git-<sha>``, so that sending it twice applies it once.  A commit with
    more than `FILES_PER_TRANSACTION_MAX` files is preceded by transactions that hold the facts of
    its files, under ids ``git-<sha>-files-<n>``.
    """
    for commit in commits:
        if commit.sha not in known:
            yield from _commit_transactions(commit)


def _commit_transactions(commit: Commit) -> Iterator[Transaction]:
    meta = {"db/txInstant": commit.committed_at}
    files = _file_facts(commit)
    step = FILES_PER_TRANSACTION_MAX
    if len(commit.changes) > step:
        for n, start in enumerate(range(0, len(files), step), 1):
            name = f"git-{commit.sha}-files-{n}"
            yield Transaction(name, files[start : start + step], meta, None)
        files = []
    author = {"db/id": "author", "author/email": commit.email or commit.author}
    if commit.author:
        author["author/name"] = commit.author
    facts: dict[str, Any] = {
        "db/id": "commit",
        "commit/sha": commit.sha,
        "commit/subject": commit.subject,
        "commit/message": commit.message,
        "commit/authored-at": commit.authored_at,
    }
    if commit.email or commit.author:
        facts["commit/author"] = "author"
    refs = [
        ["db/add", "commit", Keyword("commit/parents"), [Keyword("commit/sha"), parent]]
        for parent in commit.parents
    ]
    if len(commit.parents) < 2:
        refs += [
            ["db/add", "commit", Keyword(_ATTRIBUTE_OF[change.status]), _file(change.path)]
            for change in commit.changes
        ]
    people = [author] if commit.email or commit.author else []
    yield Transaction(f"git-{commit.sha}", [*people, *files, facts, *refs], meta, commit)


def _file(path: str) -> list[Any]:
    return [Keyword("file/path"), path]


def _file_facts(commit: Commit) -> list[Any]:
    facts: list[Any] = []
    for change in commit.changes:
        if not commit.on_main_line or (change.status == "D"):
            facts.append({"file/path": change.path})
        else:
            facts.append({"file/path": change.path, "file/blob": change.blob})
        if commit.on_main_line and change.status == "D":
            facts.append(["db/retract", _file(change.path), Keyword("file/blob")])
    return facts

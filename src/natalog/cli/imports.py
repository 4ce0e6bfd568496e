"""``natalog import``: git histories, EDN, JSON lines and CSV, with a progress bar."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from natalog.cli.completion import database_names
from natalog.cli.connection import (
    BranchOption,
    ContextOption,
    NatsOption,
    TimeoutOption,
    run_with_client,
    usage_error,
)
from natalog.cli.output import JsonOption
from natalog.cli.progress import Bar, progress_bar
from natalog.client import Client, Conn
from natalog.core.codec_json import to_json
from natalog.core.errors import DatabaseExists, ReadError
from natalog.core.limits import ASK_TIMEOUT_S, NAME_LENGTH_MAX
from natalog.importing import git as git_history
from natalog.importing import rows as row_files
from natalog.importing.pipeline import pipelined

app = typer.Typer(no_args_is_help=True, help="Import git histories and files.")

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="What to read.")
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--db",
        "-d",
        metavar="NAME",
        help="Database, made if it does not exist; named like the file unless given.",
        autocompletion=database_names,
    ),
]
BatchOption = Annotated[
    int, typer.Option("--batch", min=1, max=100_000, help="Rows in one transaction.")
]
NamespaceOption = Annotated[
    str | None, typer.Option("--ns", metavar="NAME", help="Namespace for the attributes.")
]
IdentityOption = Annotated[
    str | None,
    typer.Option("--identity", metavar="COLUMN", help="Column that identifies a row: upsert."),
]
InferOption = Annotated[
    bool, typer.Option("--infer/--no-infer", help="Declare the attributes from the first rows.")
]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    database: str
    added: int
    known: int
    datoms: int
    seconds: float
    unit: str

    def show(self, json: bool) -> None:
        if json:
            fields = ("database", "added", "known", "datoms")
            summary: dict[str, Any] = {name: getattr(self, name) for name in fields}
            print(to_json({**summary, "seconds": round(self.seconds, 3), "unit": self.unit}))
            return
        known = f", {self.known} were there already" if self.known else ""
        rate = self.added / self.seconds if self.seconds else 0
        typer.echo(
            f"{self.database}: {self.added} {self.unit} added{known}; {self.datoms} datoms in "
            f"{self.seconds:.1f} s ({rate:.0f} {self.unit}/s)"
        )


# --- git -----------------------------------------------------------------------------------------


@app.command()
def git(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A git repository.", exists=True)],
    db: DatabaseOption = None,
    ref: Annotated[str, typer.Option("--ref", help="Branch, tag or commit to import.")] = "HEAD",
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
) -> None:
    """Import a git history: every commit becomes one transaction dated by the commit.

    A second run adds only the commits that are new.

    Example: natalog import git . --db history
    """
    name = db or database_name(path.resolve().name)

    async def work(client: Client) -> Imported:
        # what cannot be read leaves no empty database
        git_history.count_commits(path, ref)
        await ensure_database(client, name)
        with progress_bar("commits") as bar:
            return await import_git(client.database(name, branch), path, ref, bar)

    run_with_client(nats, context, timeout, work).show(json)


async def import_git(
    conn: Conn, path: Path | str, ref: str = "HEAD", bar: Bar | None = None
) -> Imported:
    """Import every commit that ``ref`` reaches and the database lacks."""
    return await import_commits(
        conn,
        git_history.read_commits(path, ref),
        total=git_history.count_commits(path, ref),
        bar=bar,
    )


async def import_commits(
    conn: Conn,
    commits: Iterator[git_history.Commit],
    *,
    total: int,
    bar: Bar | None = None,
) -> Imported:
    """Import commits from any source, those left out that the database has."""
    began = time.monotonic()
    await conn.transact(git_history.SCHEMA, id=git_history.SCHEMA_ID)
    known = set(await (await conn.db()).q(git_history.SHAS_QUERY))
    if bar is not None:
        bar.start(total)
        bar.advance(min(len(known), total))
    added = datoms = 0
    async for item, report in pipelined(conn, git_history.transactions(commits, known)):
        datoms += len(report.tx_data)
        if item.commit is not None:
            added += 1
            if bar is not None:
                bar.advance(1)
    seconds = time.monotonic() - began
    return Imported(conn.database, added, min(len(known), total), datoms, seconds, "commits")


# --- files ---------------------------------------------------------------------------------------


@app.command()
def jsonl(
    path: FileArgument,
    db: DatabaseOption = None,
    ns: NamespaceOption = None,
    identity: IdentityOption = None,
    infer: InferOption = True,
    batch: BatchOption = 1000,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
) -> None:
    """Import JSON lines: every object becomes an entity.

    Example: natalog import jsonl people.jsonl --ns person --identity email
    """
    source = RowSource(path, "jsonl", ns, identity, infer, row_files.Columns(typed=True))
    _import_rows(source, db, batch, branch, nats, context, timeout).show(json)


@app.command()
def csv(
    path: FileArgument,
    db: DatabaseOption = None,
    ns: NamespaceOption = None,
    identity: IdentityOption = None,
    infer: InferOption = True,
    batch: BatchOption = 1000,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
) -> None:
    """Import CSV with a header: every row becomes an entity; empty cells are left out.

    Example: natalog import csv people.csv --ns person --identity id
    """
    source = RowSource(path, "csv", ns, identity, infer, row_files.Columns(typed=False))
    _import_rows(source, db, batch, branch, nats, context, timeout).show(json)


@app.command()
def edn(
    path: FileArgument,
    db: DatabaseOption = None,
    batch: BatchOption = 1000,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
) -> None:
    """Import EDN: maps and operations, one after the other or in a vector.

    Tempids hold within one batch.

    Example: natalog import edn people.edn --batch 500
    """
    source = RowSource(path, "edn", None, None, False, None)
    _import_rows(source, db, batch, branch, nats, context, timeout).show(json)


@dataclass(frozen=True, slots=True)
class RowSource:
    """A file of rows, and how they become facts."""

    path: Path
    form: str
    namespace: str | None
    identity: str | None
    infer: bool
    columns: row_files.Columns | None
    """None in EDN, which says what it means."""

    def rows(self, progress: row_files.Progress = lambda _: None) -> Iterator[Any]:
        readers: dict[str, Any] = {
            "jsonl": row_files.read_jsonl,
            "csv": row_files.read_csv,
            "edn": row_files.read_edn,
        }
        found: Iterator[Any] = readers[self.form](self.path, progress)
        return found

    def name(self, column: str) -> str:
        return row_files.attribute_name(column, self.namespace)

    def learn(self) -> None:
        """Look at the first rows: whether they can be read, and the types of the columns."""
        for row in islice(self.rows(), row_files.ROWS_SAMPLED_MAX):
            if self.columns is not None:
                self.columns.see(row)

    def facts(self, row: Any) -> Any:
        return (
            row if self.columns is None else row_files.rename(self.columns.convert(row), self.name)
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one transaction."""

    id: str
    tx_data: list[Any]
    tx_meta: dict[str, Any]


def _import_rows(
    source: RowSource,
    db: str | None,
    size: int,
    branch: str,
    nats: str | None,
    context: str | None,
    timeout: float,
) -> Imported:
    name = db or database_name(source.path.stem)

    async def work(client: Client) -> Imported:
        source.learn()
        await ensure_database(client, name)
        with progress_bar("bytes", of_bytes=True) as bar:
            return await import_rows(client.database(name, branch), source, size, bar)

    return run_with_client(nats, context, timeout, work)


async def import_rows(conn: Conn, source: RowSource, size: int, bar: Bar | None = None) -> Imported:
    """Import the rows of a file in transactions of ``size`` rows; its columns are known.

    The transactions' ids come from the file's content: importing the same file again adds nothing.
    """
    began = time.monotonic()
    if source.columns is not None:
        await _declare(conn, source)
    digest = row_files.file_digest(source.path)[:24]
    read = 0

    def seen(count: int) -> None:
        nonlocal read
        read = count

    def batches() -> Iterator[Batch]:
        for number, rows in enumerate(row_files.batches(source.rows(seen), size)):
            yield Batch(f"import-{digest}-{size}-{number}", [source.facts(r) for r in rows], {})

    if bar is not None:
        bar.start(source.path.stat().st_size)
    added = datoms = known = 0
    async for item, report in pipelined(conn, batches(), window=16):
        if report.repeated:
            known += len(item.tx_data)
        else:
            added += len(item.tx_data)
            datoms += len(report.tx_data)
        if bar is not None:
            bar.reach(read)
    seconds = time.monotonic() - began
    return Imported(conn.database, added, known, datoms, seconds, "rows")


async def _declare(conn: Conn, source: RowSource) -> None:
    """Declare the columns that the database does not know yet; what it knows of others stands."""
    assert source.columns is not None
    if source.identity is not None and source.identity not in source.columns.kinds:
        raise ReadError(f"{source.path} has no column {source.identity}", column=source.identity)
    there = await (await conn.db()).schema()
    schema = source.columns.schema(source.name, source.identity)
    fresh = [entry for entry in schema if entry["db/ident"] not in there]
    source.columns.known(source.name, there)
    if not source.infer:
        source.columns.forget(source.name, there)
    elif fresh:
        await conn.transact(fresh)


# --- shared --------------------------------------------------------------------------------------


def database_name(text: str) -> str:
    """A database name made from the name of a file or directory.

    >>> database_name("my repo.git")
    'my-repo'
    """
    bare = re.sub(r"[^A-Za-z0-9_-]+", "-", text.removesuffix(".git")).strip("-_")
    if not bare:
        usage_error("cannot make a database name from the path: give one with --db")
    return bare[:NAME_LENGTH_MAX]


async def ensure_database(client: Client, name: str) -> None:
    """Create the database if it does not exist."""
    if not await client.database_exists(name):
        try:
            await client.create_database(name)
        except DatabaseExists:
            return

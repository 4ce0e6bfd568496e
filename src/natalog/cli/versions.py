"""Versioning and upkeep: ``branch``, ``branches``, ``diff``, ``history``, ``gc``, ..."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import typer

from natalog.cli.check import Finding, check_branch
from natalog.cli.completion import branch_names
from natalog.cli.connection import (
    REFUSED,
    BranchOption,
    ContextOption,
    NatsOption,
    Place,
    TimeoutOption,
    located,
    run,
    run_with_client,
    with_client,
)
from natalog.cli.output import EdnOption, JsonOption, Output, commit_fields, counted, shown
from natalog.cli.parsing import (
    instant_argument,
    point_argument,
    ref_argument,
)
from natalog.cli.progress import progress_bar, working
from natalog.cli.read import DatabaseArgument
from natalog.client import Client, Conn, Database
from natalog.core.limits import ASK_TIMEOUT_S
from natalog.core.values import Keyword
from natalog.report import Commit, Diff

TX_INSTANT = Keyword("db/txInstant")


def branch(
    database: DatabaseArgument,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The branch to make or to delete.", autocompletion=branch_names
        ),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="REF",
            help="Branch, commit, tx or instant to begin at; db unless given.",
            autocompletion=branch_names,
        ),
    ] = None,
    force_from: Annotated[
        str | None,
        typer.Option(
            "--force",
            metavar="REF",
            help="Make NAME point here, even if it exists.",
            autocompletion=branch_names,
        ),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the branch instead.")] = False,
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
) -> None:
    """Make a branch, or delete one with --delete.

    Examples:

    natalog branch people experiment --from db

    natalog branch people experiment --delete
    """
    if delete and (source or force_from):
        raise typer.BadParameter("--delete goes with neither --from nor --force")

    async def work(client: Client) -> str:
        conn = client.database(database)
        if delete:
            await conn.delete_branch(name)
            return f"deleted branch {name}"
        if force_from is not None:
            db, parent = await _resolve(client, database, force_from)
            await conn.force_branch(name, db, parents=[parent])
            return f"branch {name} is now {force_from}"
        await conn.branch(name, from_=None if source is None else ref_argument(source))
        return f"made branch {name}"

    typer.echo(run_with_client(nats, context, timeout, work))


def branches(
    database: DatabaseArgument,
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """List the branches of a database.

    Example: natalog branches people
    """
    out = Output(json, edn)
    found = run_with_client(
        nats, context, timeout, lambda client: client.database(database).branches()
    )
    if out.for_people:
        out.table(["branch"], [[name] for name in sorted(found)])
    else:
        out.data(sorted(found))


def diff(
    database: DatabaseArgument,
    left: Annotated[
        str,
        typer.Argument(
            metavar="FROM", help="Branch, commit, tx or instant.", autocompletion=branch_names
        ),
    ],
    right: Annotated[
        str,
        typer.Argument(
            metavar="TO", help="Branch, commit, tx or instant.", autocompletion=branch_names
        ),
    ],
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="T", help="Both as they were: tx id or instant."),
    ] = None,
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Show the facts in which two database values differ.

    Tables leave out the instants of transactions; --json and --edn have everything.

    Examples:

    natalog diff people 2026-01-01 db

    natalog diff people db experiment

    natalog diff people db experiment --as-of 2026-01-01
    """
    out = Output(json, edn)
    point = point_argument(as_of)

    async def work(client: Client) -> Diff:
        first, _ = await _resolve(client, database, left)
        second, _ = await _resolve(client, database, right)
        if point is not None:
            first, second = first.as_of(point), second.as_of(point)
        return await client.database(database).diff(first, second)

    found = run_with_client(nats, context, timeout, work)
    if out.for_people:
        # every transaction has an instant of its own, which tells people nothing
        removed = [row for row in found.removed if row[1] != TX_INSTANT]
        added = [row for row in found.added if row[1] != TX_INSTANT]
        rows: list[tuple[Any, ...]] = [("-", *row) for row in removed]
        rows += [("+", *row) for row in added]
        if rows:
            out.table(["", "e", "a", "v"], rows)
        out.note(f"{counted(len(removed), 'fact')} removed, {len(added)} added")
    else:
        out.fields(
            {"added": [list(r) for r in found.added], "removed": [list(r) for r in found.removed]}
        )


async def _resolve(client: Client, database: str, text: str) -> tuple[Database, str | UUID]:
    """The database value that a branch, commit id, tx id or instant means, and its parent name."""
    conn: Conn = client.database(database)
    ref = ref_argument(text)
    if isinstance(ref, int):
        return (await conn.db()).as_of(ref), conn.branch_name
    if isinstance(ref, UUID):
        return await conn.commit_db(ref), ref
    if text[:4].isdigit() and "-" in text:
        return (await conn.db()).as_of(instant_argument(text)), conn.branch_name
    return await client.database(database, text).db(), text


def history(
    database: DatabaseArgument,
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="At most this many.")] = None,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """List the commits of a branch, newest first.

    Example: natalog history people --branch draft --limit 10
    """
    out = Output(json, edn)

    async def work(client: Client) -> list[Commit]:
        return await client.database(database, branch).branch_history(limit=limit)

    found = run_with_client(nats, context, timeout, work)
    if out.for_people:
        rows = [
            (commit.commit_id, commit.tx, commit.instant, " ".join(map(str, commit.parents)))
            for commit in found
        ]
        out.table(["commit", "tx", "instant", "parents"], rows)
    else:
        out.fields([commit_fields(commit) for commit in found])


def gc(
    database: DatabaseArgument,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="INSTANT", help="Also free commits older than this."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Free what no branch needs any more.

    Example: natalog gc people --dry-run
    """
    out = Output(json, edn)
    limit = None if before is None else instant_argument(before)
    with working(f"collecting {database}"):
        found = run_with_client(
            nats,
            context,
            timeout,
            lambda client: client.database(database).gc(limit, dry_run=dry_run),
        )
    if out.for_people:
        rows = [["commits", found.get("removed", 0)]]
        rows += [["stream", name] for name in found.get("freed") or []]
        rows += [["bytes", found.get("bytes", 0)]]
        rows += [
            [
                f"facts of {shown(rule['attribute'])} on {rule['branch']}, by retention",
                rule["facts"],
            ]
            for rule in found.get("retention") or []
        ]
        out.table(["", "would be freed" if dry_run else "freed"], rows)
    else:
        out.fields(found)


def snapshot(
    database: DatabaseArgument,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Write a snapshot of a branch now; the service otherwise does so by itself.

    Example: natalog snapshot people
    """
    out = Output(json, edn)
    with working(f"snapshot of {database}"):
        found = run_with_client(
            nats, context, timeout, lambda client: client.database(database, branch).snapshot()
        )
    if out.for_people:
        said = "written" if found["written"] else "there already"
        rows = [[found["tx"], said, found.get("segments", 0), found.get("bytes", 0)]]
        out.table(["tx", "snapshot", "new segments", "bytes"], rows)
    else:
        out.fields(found)


def check(
    database: DatabaseArgument,
    branch: BranchOption = "db",
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every log, every segment and every snapshot.")
    ] = False,
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Verify a branch: its log, the hash chain, the indexes, what the service answers, snapshots.

    The log is read from its beginning and folded again; the result must equal, fact by fact, what
    the service answers from.  Every snapshot must name a block of the log, and its segments must
    be there; with --deep their bytes are read, and each snapshot must equal what the log folds to.
    --deep also reads all other logs of the database and compares each with its published head.
    Exit code 1 when anything differs.

    Examples:

    natalog check people

    natalog check people --deep
    """
    out = Output(json, edn)

    async def work(client: Client, target: Place) -> list[Finding]:
        # the actors are heavy; few commands need them
        from natalog.cli.check_snapshots import Server, check_snapshots

        server = Server(target.servers, target.access, target.prefix)
        with progress_bar("log") as bar:
            found = await check_branch(client, database, branch, bar)
        if deep:
            from natalog.cli.check_logs import check_logs

            with working("all logs"):
                found += await check_logs(server, database)
        with working("snapshots"):
            return [*found, *await check_snapshots(server, database, branch, deep=deep)]

    async def located_work() -> list[Finding]:
        async with located(nats, context) as target:
            return await with_client(target, timeout, lambda client: work(client, target))

    findings = run(located_work())
    if out.for_people:
        rows = [("ok" if good else "BROKEN", name, detail) for name, good, detail in findings]
        out.table(["", "what", "found"], rows)
    else:
        out.fields([{"check": name, "ok": good, "found": text} for name, good, text in findings])
    if not all(good for _, good, _ in findings):
        raise typer.Exit(REFUSED)

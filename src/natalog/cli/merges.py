"""``merge``: three-way merges with conflicts as a table, and merges with given data."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import typer

from natalog.cli.completion import branch_names, one_of
from natalog.cli.connection import (
    REFUSED,
    ContextOption,
    NatsOption,
    TimeoutOption,
    run_with_client,
)
from natalog.cli.output import EdnOption, JsonOption, Output, counted, report_fields, shown
from natalog.cli.parsing import map_argument, ref_argument, tx_data_argument, value_argument
from natalog.cli.progress import working
from natalog.cli.read import DatabaseArgument
from natalog.cli.write import MetaOption, show_report
from natalog.client import Client
from natalog.core.edn import read
from natalog.core.errors import MergeConflict, ReadError
from natalog.core.limits import ASK_TIMEOUT_S
from natalog.core.values import Keyword
from natalog.report import MergeReport

CONFLICT_COLUMNS = ("kind", "entity", "attribute", "base", "ours", "theirs", "held by")
SIDES = ("ours", "theirs", "base")

IntoOption = Annotated[
    str,
    typer.Option(
        "--into",
        "--branch",
        "-b",
        metavar="BRANCH",
        help="The branch to change.",
        autocompletion=branch_names,
    ),
]


def merge(
    database: DatabaseArgument,
    parents: Annotated[
        list[str],
        typer.Argument(
            metavar="FROM...",
            help="Branch or commit id to merge in.",
            autocompletion=branch_names,
        ),
    ],
    into: IntoOption = "db",
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="fail|ours|theirs",
            help="Who wins where both sides changed.",
            autocompletion=one_of("fail", "ours", "theirs"),
        ),
    ] = None,
    resolve: Annotated[
        list[str] | None,
        typer.Option(
            "--resolve",
            metavar="E:ATTR=WHAT",
            help="Decide one conflict: ours, theirs, base, or a value; nil for none.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be merged, store nothing.")
    ] = False,
    tx_data: Annotated[
        str | None,
        typer.Option("--tx-data", metavar="EDN", help="The merge consists of exactly this."),
    ] = None,
    meta: MetaOption = None,
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Merge what another branch changed into a branch; exit code 1 on conflicts.

    Examples:

    natalog merge people experiment --dry-run

    natalog merge people experiment --into db --resolve '17:age=theirs'

    natalog merge people experiment --resolve '[:name "Alice"]:age=30' --policy ours
    """
    out = Output(json, edn)
    data = None if tx_data is None else tx_data_argument(tx_data, None)
    about = map_argument(meta, "--meta")
    if policy not in (None, "fail", "ours", "theirs"):
        raise typer.BadParameter(f"{policy} is no policy: choose fail, ours or theirs")
    decided = [resolution_argument(text) for text in resolve or ()]
    if data is not None and (policy or decided or dry_run):
        raise typer.BadParameter("--tx-data goes with none of --policy, --resolve and --dry-run")
    named: list[str | UUID] = []
    for text in parents:
        ref = ref_argument(text)
        named.append(text if isinstance(ref, int) else ref)
    if dry_run and len(named) > 1:
        raise typer.BadParameter("--dry-run takes one branch or commit")

    async def work(client: Client) -> MergeReport | dict[str, Any] | MergeConflict:
        conn = client.database(database, into)
        if dry_run:
            return await conn.merge_preview(
                named[0], policy=policy or "fail", resolutions=decided or None
            )
        try:
            return await conn.merge(named, data, about, policy=policy, resolutions=decided or None)
        except MergeConflict as conflict:
            return conflict

    with working(f"merging into {into}"):
        found = run_with_client(nats, context, timeout, work)
    if isinstance(found, MergeReport):
        _show_merged(out, found, into)
    elif isinstance(found, MergeConflict):
        _show_refused(out, found)
    else:
        _show_preview(out, found, into)


def resolution_argument(text: str) -> dict[str, Any]:
    """A resolution from ``E:ATTR=WHAT``; E is an id or a lookup ref."""
    entity, rest = _entity(text)
    attr, equals, what = rest.partition("=")
    attr = attr.strip().lstrip(":")
    if not equals or not attr:
        raise _malformed(text)
    found: dict[str, Any] = {"entity": entity, "attribute": Keyword(attr)}
    if what in SIDES:
        found["take"] = what
    else:
        found["value"] = value_argument(what)
    return found


def _entity(text: str) -> tuple[Any, str]:
    """What names the entity, and what follows it."""
    if not text.startswith("["):
        number, _, rest = text.partition(":")
        if not number.isdigit():
            raise _malformed(text)
        return int(number), rest
    end = text.find("]")
    while end >= 0:
        try:
            return read(text[: end + 1]), text[end + 1 :].lstrip(":")
        except ReadError:
            end = text.find("]", end + 1)
    raise _malformed(text)


def _malformed(text: str) -> typer.BadParameter:
    return typer.BadParameter(
        f"{text!r} decides nothing; write 17:age=theirs or '[:name \"Alice\"]:age=30'"
    )


# --- showing -------------------------------------------------------------------------------------


def _show_merged(out: Output, report: MergeReport, into: str) -> None:
    if not out.for_people:
        out.fields(
            {
                **report_fields(report),
                "up_to_date": report.up_to_date,
                "fast_forward": report.fast_forward,
                "base": list(report.base),
                "unified": report.unified,
            }
        )
    elif report.up_to_date:
        out.note(f"nothing to merge: {into} has all of it")
    else:
        show_report(out, report)
        if report.fast_forward:
            out.note(f"only the other side had changed since {into} (fast-forward)")


def _show_refused(out: Output, error: MergeConflict) -> None:
    conflicts = error.data.get("conflicts") or []
    if not out.for_people:
        out.fields({"conflicts": _spelled(out, conflicts)})
    elif conflicts:
        _table(out, conflicts)
    typer.echo(f"natalog: {error.code}: {error.message} [{error.type}]", err=True)
    raise typer.Exit(REFUSED)


def _show_preview(out: Output, found: dict[str, Any], into: str) -> None:
    conflicts = found["conflicts"]
    if not out.for_people:
        out.fields({**found, "conflicts": _spelled(out, conflicts)})
    elif found["up_to_date"]:
        out.note(f"nothing to merge: {into} has all of it")
    else:
        if conflicts:
            _table(out, conflicts)
        rows = list(_changes(found["tx_data"]))
        if rows:
            out.table(["", "e", "a", "v"], rows)
        gone = sum(1 for row in rows if row[0] == "-")
        out.note(
            f"{counted(len(rows) - gone, 'fact')} would be added and {gone} retracted; "
            f"{len(conflicts)} conflicts"
        )
    if conflicts:
        raise typer.Exit(REFUSED)


def _table(out: Output, conflicts: list[dict[str, Any]]) -> None:
    rows = [
        (
            conflict["kind"],
            conflict["entity"],
            conflict["attribute"],
            *(", ".join(map(shown, conflict[side])) for side in ("base", "ours", "theirs")),
            conflict.get("holder"),
        )
        for conflict in conflicts
    ]
    out.table(CONFLICT_COLUMNS, rows, "conflicts")


def _spelled(out: Output, conflicts: list[dict[str, Any]]) -> list[Any]:
    """Conflicts with their words as the chosen form spells them."""
    if out.form != "edn":
        return conflicts
    return [{Keyword(word): item for word, item in c.items()} for c in conflicts]


def _changes(tx_data: list[Any]) -> Any:
    """Rows ``+/- e a v`` of planned operations."""
    for operation in tx_data:
        if not isinstance(operation, dict):
            verb, *fact = operation
            yield ("-" if verb == Keyword("db/retract") else "+", *fact)
            continue
        e = operation[Keyword("db/id")]
        for attr, value in operation.items():
            if attr != Keyword("db/id"):
                for one in value if isinstance(value, list) else [value]:
                    yield ("+", e, attr, one)

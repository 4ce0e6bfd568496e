"""Writing commands: ``transact``, ``publish``, ``purge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from natalog.cli.connection import (
    REFUSED,
    BranchOption,
    ContextOption,
    NatsOption,
    TimeoutOption,
    confirm,
    run_with_client,
    usage_error,
)
from natalog.cli.output import (
    DATOM_COLUMNS,
    EdnOption,
    JsonOption,
    Output,
    counted,
    datom_rows,
    report_fields,
    shown,
)
from natalog.cli.parsing import (
    edn_argument,
    instant_argument,
    map_argument,
    tx_data_argument,
)
from natalog.cli.read import DatabaseArgument
from natalog.client import Client
from natalog.core.errors import NatalogError
from natalog.core.limits import ASK_TIMEOUT_S
from natalog.core.schema_conflict import SchemaConflict
from natalog.core.values import Keyword
from natalog.report import PublishAck, TxReport

TxDataArgument = Annotated[
    str | None,
    typer.Argument(metavar="[TX-DATA]", help="Operations in EDN; - or nothing reads stdin."),
]
FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="Read the tx-data from a file.")
]
MetaOption = Annotated[
    str | None,
    typer.Option("--meta", metavar="MAP", help="Facts about the transaction, in EDN."),
]
IdOption = Annotated[
    str | None,
    typer.Option("--id", help="Name of the transaction: sent again, it is not applied again."),
]


def transact(
    database: DatabaseArgument,
    tx_data: TxDataArgument = None,
    file: FileOption = None,
    meta: MetaOption = None,
    id: IdOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the report, store nothing.")
    ] = False,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Apply one transaction and show its report.

    Examples:

    natalog transact people '[{:name "Alice" :age 25}]'

    natalog transact people '[[:db/retract [:name "Alice"] :age 25]]' --meta '{:source "form"}'
    """
    out = Output(json, edn)
    data, about = tx_data_argument(tx_data, file), map_argument(meta, "--meta")

    async def work(client: Client) -> TxReport | list[SchemaConflict]:
        conn = client.database(database, branch)
        if dry_run:
            db = await conn.db()
            return await db.schema_conflicts(data) or await db.with_report(data, about)
        return await conn.transact(data, about, id=id)

    found = run_with_client(nats, context, timeout, work)
    if isinstance(found, TxReport):
        show_report(out, found)
        return
    if out.for_people:
        columns = ["attribute", "why not", "entities", "values"]
        out.table(columns, [(shown(c.attribute), *c[1:]) for c in found])
    else:
        out.fields([conflict._asdict() for conflict in found])
    raise typer.Exit(REFUSED)


def show_report(out: Output, report: TxReport) -> None:
    """Print a report: a table and a line for people, data for programs."""
    if not out.for_people:
        out.fields(report_fields(report))
        return
    out.table(DATOM_COLUMNS, datom_rows(report.tx_data))
    again = " (applied before, not again)" if report.repeated else ""
    purged = f", {counted(report.purged, 'fact')} purged" if report.purged else ""
    out.note(f"transaction {report.tx} at {shown(report.instant)}{purged}{again}")


def publish(
    database: DatabaseArgument,
    tx_data: TxDataArgument = None,
    file: FileOption = None,
    meta: MetaOption = None,
    id: IdOption = None,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Hand a transaction over durably; it is applied as soon as a transactor is there.

    Example: natalog publish orders '[{:order/number 17}]' --id order-17
    """
    out = Output(json, edn)
    data, about = tx_data_argument(tx_data, file), map_argument(meta, "--meta")

    async def work(client: Client) -> PublishAck:
        return await client.database(database, branch).publish(data, about, id=id)

    ack = run_with_client(nats, context, timeout, work)
    if out.for_people:
        known = " (this id was known)" if ack.duplicate else ""
        out.note(
            f"stored as {ack.sequence}, id {ack.id}{known}; `natalog watch` tells what became of it"
        )
    else:
        out.fields({"id": ack.id, "sequence": ack.sequence, "duplicate": ack.duplicate})


def purge(
    database: DatabaseArgument,
    entity: Annotated[
        str | None, typer.Argument(metavar="[ENTITY]", help="Id or lookup ref, in EDN.")
    ] = None,
    attribute: Annotated[
        str | None, typer.Argument(metavar="[ATTRIBUTE]", help="Only this attribute.")
    ] = None,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="Only this value, in EDN.")
    ] = None,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="INSTANT", help="Instead: the past before an instant."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    all_branches: Annotated[
        bool, typer.Option("--all-branches", help="Purge on every branch of the database.")
    ] = False,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Remove facts from the present and the past of a branch, or of all, for good.

    Examples:

    natalog purge people '[:name "Alice"]'

    natalog purge people '[:name "Alice"]' :age 25

    natalog purge people --before 2020-01-01

    natalog purge people '[:name "Alice"]' --all-branches
    """
    out = Output(json, edn)
    operation = _purge_operation(entity, attribute, value, before)
    if not yes:
        confirm("Purged facts cannot be brought back. Go on?")

    async def work(client: Client) -> TxReport:
        return await client.database(database, branch).transact([operation])

    async def everywhere(client: Client) -> dict[str, TxReport | NatalogError]:
        return await client.database(database).purge_everywhere([operation])

    if all_branches:
        _show_purged(out, run_with_client(nats, context, timeout, everywhere))
        return
    show_report(out, run_with_client(nats, context, timeout, work))


def _show_purged(out: Output, found: dict[str, TxReport | NatalogError]) -> None:
    """What became of each branch; exit code 1 when none had anything to purge."""
    rows = [
        {"branch": branch, "tx": one.tx, "purged": one.purged, "error": None}
        if isinstance(one, TxReport)
        else {"branch": branch, "tx": None, "purged": 0, "error": one.code}
        for branch, one in found.items()
    ]
    if out.for_people:
        out.table(["branch", "tx", "facts purged", "error"], [list(row.values()) for row in rows])
    else:
        out.fields(rows)
    if not any(isinstance(one, TxReport) for one in found.values()):
        raise typer.Exit(REFUSED)


def _purge_operation(
    entity: str | None, attribute: str | None, value: str | None, before: str | None
) -> list[Any]:
    if before is not None:
        if entity is not None:
            usage_error("give an entity or --before, not both")
        return [Keyword("db.history.purge/before"), instant_argument(before)]
    if entity is None:
        usage_error("name an entity to purge, or --before an instant")
    eid = edn_argument(entity, "the entity")
    if attribute is None:
        return [Keyword("db.purge/entity"), eid]
    attr = Keyword(attribute)
    if value is None:
        return [Keyword("db.purge/attribute"), eid, attr]
    return [Keyword("db/purge"), eid, attr, edn_argument(value, "the value")]

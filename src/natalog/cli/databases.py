"""``natalog db``: databases as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from natalog.cli.completion import database_names, one_of
from natalog.cli.connection import (
    BranchOption,
    ContextOption,
    NatsOption,
    TimeoutOption,
    confirm,
    run_with_client,
)
from natalog.cli.output import EdnOption, JsonOption, Output
from natalog.cli.parsing import tx_data_argument
from natalog.client import Client
from natalog.core.limits import ASK_TIMEOUT_S
from natalog.core.values import Keyword

app = typer.Typer(no_args_is_help=True, help="Create, list, describe and delete databases.")

NewNameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the database.")]
NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the database.", autocompletion=database_names),
]


@app.command()
def create(
    name: NewNameArgument,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Keep past facts readable.")
    ] = True,
    schema: Annotated[
        str,
        typer.Option(
            "--schema",
            metavar="write|read",
            help="write: only declared attributes; read: any attribute, any value.",
            autocompletion=one_of("read", "write"),
        ),
    ] = "write",
    initial_tx: Annotated[
        Path | None,
        typer.Option("--initial-tx", metavar="FILE", help="EDN file with the first transaction."),
    ] = None,
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Create a database.

    Examples:

    natalog db create people --schema read

    natalog db create shop --initial-tx schema.edn
    """
    out = Output(json, edn)
    if schema not in ("read", "write"):
        raise typer.BadParameter(f"--schema is read or write, not {schema}")
    first = tx_data_argument(None, initial_tx) if initial_tx is not None else None

    async def work(client: Client) -> dict[str, Any]:
        return await client.create_database(
            name, keep_history=history, schema_flexibility=schema, initial_tx=first
        )

    made = run_with_client(nats, context, timeout, work)
    if out.for_people:
        out.note(f"created {name}")
    else:
        out.fields(made)


@app.command(name="list")
def list_(
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """List the databases.

    Example: natalog db list --json
    """
    out = Output(json, edn)
    found = run_with_client(nats, context, timeout, lambda client: client.list_databases())
    if not out.for_people:
        out.fields(found)
        return
    columns = ["database", "keep_history", "schema_flexibility", "branches", "created"]
    rows = [[_cell(entry.get(column)) for column in columns] for entry in found]
    out.table(["database", "history", "schema", "branches", "created"], rows)


def _cell(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, (list, set, frozenset)) else value


@app.command()
def info(
    name: NameArgument,
    branch: BranchOption = "db",
    counts: Annotated[
        bool, typer.Option("--counts", help="Count the facts of each attribute.")
    ] = False,
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Describe a branch of a database: newest transaction, size, settings.

    Example: natalog db info people --counts
    """
    out = Output(json, edn)

    async def work(client: Client) -> dict[str, Any]:
        conn = client.database(name, branch)
        described = dict(await conn.info())
        if counts:
            metrics = await (await conn.db()).metrics()
            described["counts"] = metrics[Keyword("per-attr-counts")]
        return described

    found = run_with_client(nats, context, timeout, work)
    if not out.for_people:
        out.fields(found)
        return
    counted = found.pop("counts", {})
    by_size = sorted(counted.items(), key=lambda entry: (-entry[1], str(entry[0])))
    out.table(["", "value"], [*found.items(), *by_size])


@app.command()
def delete(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Delete a database with all its branches and its log.

    Example: natalog db delete people
    """
    out = Output(json, edn)
    if not yes:
        confirm(f"Delete {name} with everything in it?")
    gone = run_with_client(nats, context, timeout, lambda client: client.delete_database(name))
    if out.for_people:
        out.note(f"deleted {name}" if gone else f"there was no database {name}")
    else:
        out.fields({"database": name, "deleted": gone})

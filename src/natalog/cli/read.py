"""Reading commands: ``q``, ``pull``, ``datoms``, ``log``, ``watch``, ``export``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from natalog.cli.completion import database_names, one_of
from natalog.cli.connection import (
    BranchOption,
    ContextOption,
    NatsOption,
    TimeoutOption,
    run_with_client,
    usage_error,
)
from natalog.cli.hints import unknown_attributes
from natalog.cli.output import (
    DATOM_COLUMNS,
    EdnOption,
    JsonOption,
    Output,
    datom_rows,
    in_order,
    report_fields,
    shown,
)
from natalog.cli.parsing import (
    all_arguments,
    edn_argument,
    point_argument,
    tx_argument,
    value_argument,
)
from natalog.cli.progress import progress_bar
from natalog.client import Client, Conn, Database
from natalog.client.reports import read_log
from natalog.core.codec_json import to_json
from natalog.core.edn import write
from natalog.core.limits import ASK_TIMEOUT_S, TX_BASE
from natalog.core.values import Datom, Keyword
from natalog.report import QueryPlan, Rejection, TxReport
from natalog.rows import find_columns

DatabaseArgument = Annotated[
    str,
    typer.Argument(metavar="DB", help="Name of the database.", autocompletion=database_names),
]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="POINT",
        help="See the past: an instant or a transaction (id, or N for the N-th).",
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="POINT", help="Only what came after: an instant or a transaction."
    ),
]
HistoryOption = Annotated[
    bool, typer.Option("--history", help="Every assertion and retraction there was.")
]

_PAGE_DATOMS = 20_000


async def _view(conn: Conn, as_of: str | None, since: str | None, history: bool) -> Database:
    upper, lower = point_argument(as_of), point_argument(since)
    db = await conn.db()
    if upper is not None:
        db = db.as_of(upper)
    if lower is not None:
        db = db.since(lower)
    return db.history() if history else db


def q(
    database: DatabaseArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The query, in EDN.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARG]...", help="Values for :in after the database, in EDN."),
    ] = None,
    as_of: AsOfOption = None,
    since: SinceOption = None,
    history: HistoryOption = False,
    order_by: Annotated[
        str | None,
        typer.Option("--order-by", metavar="KEYS", help="Such as '?age' or '[?age :desc ?name]'."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=0, help="At most this many rows.")
    ] = None,
    offset: Annotated[
        int | None, typer.Option("--offset", min=0, help="Leave out rows first.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell what the query does instead of its answer.")
    ] = False,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Run a Datalog query.

    Examples:

    natalog q people '[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]'

    natalog q people '[:find ?e . :in $ ?n :where [?e :name ?n]]' Alice --as-of 2026-01-31

    natalog q people '[:find ?n :where [?e :age 30] [?e :name ?n]]' --explain
    """
    out = Output(json, edn)
    edn_argument(query, "the query")
    inputs = all_arguments(arguments)

    lacking: list[str] = []

    async def work(client: Client) -> Any:
        conn = client.database(database, branch)
        db = await _view(conn, as_of, since, history)
        ask = db.explain if explain else db.q
        found = await ask(
            query, *inputs, order_by=order_by, limit=limit, offset=offset, timeout=timeout
        )
        if out.for_people and not explain and (found is None or _is_empty(found)):
            lacking.extend(await unknown_attributes(conn, query))
        return found

    answer = run_with_client(nats, context, timeout, work)
    if isinstance(answer, QueryPlan):
        _print_plan(out, answer)
        return
    if not out.for_people:
        out.data(answer)
        return
    _print_answer(out, query, answer)
    if lacking:
        out.note(f"{', '.join(lacking)}: no such attribute is declared")


def _is_empty(answer: Any) -> bool:
    return not isinstance(answer, (int, float, str)) and hasattr(answer, "__len__") and not answer


def _print_plan(out: Output, plan: QueryPlan) -> None:
    if not out.for_people:
        out.fields({"steps": plan.steps, "stats": asdict(plan.stats)})
        return
    rows = [
        (
            None if step["estimated"] is None else round(step["estimated"]),
            step["bound"],
            step["rows"],
            "  " * step["depth"] + step["clause"],
        )
        for step in plan.steps
    ]
    out.table(["estimated", "in", "out", "clause"], rows)
    cost = plan.stats
    out.note(f"{cost.rows} rows of answer, {cost.rows_touched} touched, {cost.elapsed_ms:.1f} ms")


def _print_answer(out: Output, query: str, answer: Any) -> None:
    if isinstance(answer, tuple):
        rows: list[Any] = [answer]
    elif isinstance(answer, (list, set, frozenset)) or hasattr(answer, "__contains__"):
        rows = in_order(answer) if not isinstance(answer, (str, bytes, Mapping)) else [(answer,)]
    else:
        rows = [(answer,)]
    if rows and isinstance(rows[0], Mapping):
        columns = list(rows[0])
        out.table([shown(c) for c in columns], [[row.get(c) for c in columns] for row in rows])
        return
    rows = [row if isinstance(row, tuple) else (row,) for row in rows]
    width = len(rows[0]) if rows else 0
    columns = find_columns(query, width) if width else find_columns(query, 1)
    out.table(columns, rows)


def pull(
    database: DatabaseArgument,
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Pull pattern, in EDN.")],
    entity: Annotated[
        str,
        typer.Argument(metavar="ENTITY", help="Id, ident or lookup ref such as '[:name \"x\"]'."),
    ],
    as_of: AsOfOption = None,
    since: SinceOption = None,
    history: HistoryOption = False,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Pull the facts of one entity as a tree.

    Example: natalog pull people '[*]' '[:name "Alice"]'
    """
    out = Output(json, edn)
    form, eid = edn_argument(pattern, "the pattern"), edn_argument(entity, "the entity")

    async def work(client: Client) -> Any:
        db = await _view(client.database(database, branch), as_of, since, history)
        return await db.pull(form, eid, timeout=timeout)

    found = run_with_client(nats, context, timeout, work)
    if out.for_people and isinstance(found, Mapping):
        out.table(["attribute", "value"], [(shown(k), v) for k, v in found.items()])
    elif out.for_people:
        out.note("nothing is there")
    else:
        out.data(found)


def datoms(
    database: DatabaseArgument,
    index: Annotated[
        str,
        typer.Argument(
            metavar="INDEX",
            help="eavt, aevt or avet.",
            autocompletion=one_of("aevt", "avet", "eavt"),
        ),
    ] = "eavt",
    components: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMPONENT]...", help="What the datoms begin with, in EDN."),
    ] = None,
    as_of: AsOfOption = None,
    since: SinceOption = None,
    history: HistoryOption = False,
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="At most this many.")] = None,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """List datoms in index order.

    Example: natalog datoms people aevt :name --limit 10
    """
    out = Output(json, edn)
    if index.lstrip(":") not in ("eavt", "aevt", "avet"):
        usage_error(f"{index} is no index: choose eavt, aevt or avet")
    parts = [value_argument(text) for text in components or ()]

    async def work(client: Client) -> list[Datom]:
        db = await _view(client.database(database, branch), as_of, since, history)
        return await db.datoms(index, *parts, limit=limit, timeout=timeout)

    found = run_with_client(nats, context, timeout, work)
    if out.for_people:
        out.table(DATOM_COLUMNS, datom_rows(found))
    else:
        out.data(datom_rows(found))


def log(
    database: DatabaseArgument,
    since: Annotated[str, typer.Option("--since", metavar="TX", help="Begin after this.")] = "0",
    start: Annotated[
        str | None, typer.Option("--from", metavar="TX", help="Begin with this.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TX", help="End before this.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="At most this many.")] = None,
    with_datoms: Annotated[bool, typer.Option("--datoms", help="Show the facts too.")] = False,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Show the transactions in the log, oldest first.

    Examples:

    natalog log people --limit 20 --datoms

    natalog log people --from 2 --to 4
    """
    out = Output(json, edn)
    first, last = tx_argument(since), None if end is None else tx_argument(end)
    if start is not None:
        first = max(first, tx_argument(start) - 1)

    async def work(client: Client) -> None:
        reports = _before(read_log(client.session, database, branch, first, limit), last)
        await _print_reports(out, reports, with_datoms)

    run_with_client(nats, context, timeout, work)


async def _before(reports: AsyncIterator[TxReport], end: int | None) -> AsyncIterator[TxReport]:
    async for report in reports:
        if end is None or report.tx < end:
            yield report


async def _print_reports(out: Output, reports: AsyncIterator[TxReport], with_datoms: bool) -> None:
    rows = []
    async for report in reports:
        if not out.for_people:
            out.fields(report_fields(report))
        elif with_datoms:
            out.table(DATOM_COLUMNS, datom_rows(report.tx_data), title=_title(report))
        else:
            rows.append(
                (report.tx, report.instant, len(report.tx_data), report.id, report.commit_id)
            )
    if out.for_people and not with_datoms:
        out.table(["tx", "instant", "datoms", "id", "commit"], rows)


def _title(report: TxReport) -> str:
    named = f" id {report.id}" if report.id else ""
    return f"transaction {report.tx} at {shown(report.instant)}{named}"


def watch(
    database: DatabaseArgument,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TX", help="Replay from here first.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", min=0, help="Stop after so many.")] = None,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Follow the transactions as they are committed; end with Ctrl-C.

    Example: natalog watch people --json
    """
    out = Output(json, edn)
    first = None if since is None else tx_argument(since)

    async def work(client: Client) -> None:
        seen = 0
        async with client.database(database, branch).reports(first, rejections=True) as feed:
            if count == 0:
                return
            async for report in feed:
                _print_event(out, report)
                seen += 1
                if count is not None and seen >= count:
                    return

    run_with_client(nats, context, timeout, work)


def _print_event(out: Output, report: TxReport | Rejection) -> None:
    if isinstance(report, Rejection):
        if out.for_people:
            out.note(f"rejected {report.id}: {report.error.message}")
        else:
            out.fields({"rejected": report.error.to_wire(), "id": report.id})
    elif out.for_people:
        out.table(DATOM_COLUMNS, datom_rows(report.tx_data), title=_title(report))
    else:
        out.fields(report_fields(report))


def export(
    database: DatabaseArgument,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="edn|jsonl",
            help="Form of the export.",
            autocompletion=one_of("edn", "jsonl"),
        ),
    ] = "edn",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write.")
    ] = None,
    as_of: AsOfOption = None,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
) -> None:
    """Write every entity, one a line; `natalog import edn` reads it back.

    Transaction entities and the past are left out.

    Example: natalog export people -o people.edn
    """
    if form not in ("edn", "jsonl"):
        usage_error(f"{form} is no format: choose edn or jsonl")
    if output is not None and not output.parent.is_dir():
        usage_error(f"there is no directory {output.parent}")
    encode = to_json if form == "jsonl" else _edn_line

    async def work(client: Client) -> int:
        conn = client.database(database, branch)
        db = await _view(conn, as_of, None, False)
        many = {
            ident
            for ident, properties in (await db.schema()).items()
            if properties.get(Keyword("db/cardinality")) is Keyword("db.cardinality/many")
        }
        with _opened(output) as stream, progress_bar("entities") as bar:
            written = 0
            # an attribute must be declared before a line uses it
            for declarations in (True, False):
                async for entity in _entities(db, many):
                    if (Keyword("db/valueType") in entity) is declarations:
                        print(encode(entity), file=stream)
                        written += 1
                        bar.advance(1)
        return written

    count = run_with_client(nats, context, timeout, work)
    typer.echo(f"exported {count} entities", err=True)


def _edn_line(entity: dict[Keyword, Any]) -> str:
    return write(entity)


class _opened:
    """The output file, or standard output, which is not closed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __enter__(self) -> TextIO:
        if self._path is None:
            self._stream: TextIO = sys.stdout
            return self._stream
        try:
            self._stream = self._path.open("w", encoding="utf-8")
        except OSError as error:
            usage_error(f"{self._path} cannot be written: {error.strerror}")
        return self._stream

    def __exit__(self, *_: object) -> None:
        if self._path is None:
            self._stream.flush()
        else:
            self._stream.close()


async def _entities(db: Database, many: set[Any]) -> AsyncIterator[dict[Keyword, Any]]:
    """Every entity below the transactions as one map, read page by page."""
    current: dict[Keyword, Any] = {}
    entity = 0
    start = 1
    while True:
        page = await db.seek_datoms("eavt", start, limit=_PAGE_DATOMS)
        whole = len(page) < _PAGE_DATOMS
        # the last entity of a full page may go on behind it, unless it fills the page alone
        last = page[-1].e if page else 0
        for datom in page:
            if datom.e >= TX_BASE:
                whole = True
                break
            if not whole and datom.e == last and page[0].e != last:
                break
            if datom.e != entity:
                if current:
                    yield current
                entity, current = datom.e, {Keyword("db/id"): datom.e}
            if datom.a in many:
                current.setdefault(datom.a, []).append(datom.v)
            else:
                current[datom.a] = datom.v
        if whole:
            break
        if page[0].e == last:
            rest = await db.datoms("eavt", last)
            current = {Keyword("db/id"): last}
            for datom in rest:
                if datom.a in many:
                    current.setdefault(datom.a, []).append(datom.v)
                else:
                    current[datom.a] = datom.v
            start = last + 1
        else:
            start = last
    if current:
        yield current

"""What commands print: tables for people, JSON or EDN for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from natalog.core.codec_json import to_json
from natalog.core.edn import write
from natalog.core.values import Datom, Keyword, sort_key
from natalog.report import Commit, TxReport

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EdnOption = Annotated[bool, typer.Option("--edn", help="Print EDN.")]

_PIPE_WIDTH = 180


class Output:
    """Where and how a command prints."""

    def __init__(self, json: bool = False, edn: bool = False) -> None:
        if json and edn:
            raise typer.BadParameter("choose one of --json and --edn")
        self.form = "json" if json else "edn" if edn else "table"
        self.console = make_console()

    @property
    def for_people(self) -> bool:
        return self.form == "table"

    def data(self, value: Any) -> None:
        """Print a value in the chosen form of text; for people as EDN."""
        if self.form == "json":
            # JSON knows no sets: a stable order makes equal answers equal texts
            ordered = in_order(value) if isinstance(value, Set) else value
            print(to_json(_plain(ordered)), flush=True)
        else:
            print(write(_plain(value), ordered=True), flush=True)

    def fields(self, value: Any) -> None:
        """Print maps of our own, as the wire spells them: words in JSON, keywords in EDN."""
        self.data(_as_keywords(value) if self.form == "edn" else value)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None
    ) -> None:
        """Print rows as a table."""
        self.console.print(make_table(columns, rows, title))

    def note(self, sentence: str) -> None:
        """A sentence for people; programs do not see it."""
        if self.for_people:
            self.console.print(escape(sentence))


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number of things.

    >>> counted(1, "fact"), counted(0, "fact"), counted(2, "process", "processes")
    ('1 fact', '0 facts', '2 processes')
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def make_console(*, stderr: bool = False) -> Console:
    """A console that never cuts a table to 80 columns when its output is piped."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False)


def make_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None
) -> Table:
    """A table of values; numbers to the right."""
    listed = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", header_style="bold", show_edge=True)
    for place, column in enumerate(columns):
        numbers = bool(listed) and all(_is_number(row[place]) for row in listed)
        table.add_column(escape(column), justify="right" if numbers else "left", overflow="fold")
    for row in listed:
        table.add_row(*(escape(shown(value)) for value in row))
    return table


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value as a table shows it: strings bare, instants short, the rest as EDN."""
    match value:
        case str():
            return value
        case None:
            return ""
        case datetime():
            at = value.astimezone(UTC)
            text = at.isoformat(sep=" ", timespec="milliseconds" if at.microsecond else "seconds")
            return text.removesuffix("+00:00") + "Z"
        case UUID():
            return str(value)
        case _:
            return write(_plain(value), ordered=True)


def in_order(rows: Any) -> list[Any]:
    """Rows of an unordered answer in a stable order."""
    return sorted(rows, key=sort_key) if isinstance(rows, Set) else list(rows)


def report_fields(report: TxReport) -> dict[str, Any]:
    """A report as data."""
    return {
        "tx": report.tx,
        "instant": report.instant,
        "commit_id": report.commit_id,
        "tx_data": datom_rows(report.tx_data),
        "tempids": report.tempids,
        "tx_meta": report.tx_meta,
        "purged": report.purged,
        "id": report.id,
        "repeated": report.repeated,
    }


def commit_fields(commit: Commit) -> dict[str, Any]:
    """A commit as data."""
    return {
        "commit_id": commit.commit_id,
        "parents": list(commit.parents),
        "tx": commit.tx,
        "instant": commit.instant,
    }


def datom_rows(datoms: Iterable[Datom]) -> list[list[Any]]:
    """Datoms as rows of five columns."""
    return [list(datom) for datom in datoms]


DATOM_COLUMNS = ("e", "a", "v", "tx", "added")


def _plain(value: Any) -> Any:
    """Named tuples and read-only maps as what the writers know."""
    if isinstance(value, Datom):
        return list(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


_OURS = ("config", "steps", "stats")


def _as_keywords(value: Any) -> Any:
    """Our own words as keywords; what a map holds, such as tempids, keeps its keys."""
    if isinstance(value, list):
        return [_as_keywords(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        Keyword(key.replace("_", "-")): _as_keywords(item) if key in _OURS else item
        for key, item in value.items()
    }

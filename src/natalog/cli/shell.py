"""``natalog shell``: queries and transactions at a prompt, with history and completion."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from natalog.cli.connection import (
    REFUSED,
    BranchOption,
    ContextOption,
    NatsOption,
    TimeoutOption,
    run_with_client,
)
from natalog.cli.hints import unknown_attributes
from natalog.cli.output import DATOM_COLUMNS, Output, counted, datom_rows, shown
from natalog.cli.parsing import point_argument
from natalog.cli.read import DatabaseArgument
from natalog.client import Client, Conn, Database
from natalog.core.edn import read
from natalog.core.errors import NatalogError
from natalog.core.limits import ASK_TIMEOUT_S
from natalog.core.values import EdnList, Keyword, Symbol
from natalog.rows import rows_of

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document

ROWS_SHOWN = 200
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_QUERY_WORDS = (":find", ":where", ":in", ":with", ":keys", ":order-by", ":limit", ":offset")

HELP = """[:find ... :where ...]      a query on the value that the prompt names
{:find [...] ...}           the same as a map
[{...} [:db/add ...] ...]   a transaction, when the prompt shows the present
(pull [*] 1)                an entity, or (pull [...] [:attr value])
:db NAME   :branch NAME     go somewhere else
:as-of POINT   :since POINT see the past: a transaction id or an instant
:history                    see everything that ever was
:now                        see the present again
:schema                     the attributes
:explain QUERY              what a query does
:log [N]                    the latest transactions
:help   :quit"""


@dataclass(slots=True)
class Shell:
    """Where the prompt stands and what it sees."""

    client: Client
    conn: Conn
    out: Output
    views: list[tuple[str, Any]] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    databases: list[str] = field(default_factory=list)
    branches: list[str] = field(default_factory=list)
    done: bool = False
    refused: int = 0
    """How many lines could not be done."""

    @property
    def prompt(self) -> str:
        seen = "".join(f" {name}{'' if at is None else f' {shown(at)}'}" for name, at in self.views)
        return f"{self.conn.database}.{self.conn.branch_name}{seen}> "

    async def value(self) -> Database:
        """The database value that queries ask."""
        db = await self.conn.db()
        for name, point in self.views:
            match name:
                case "as-of":
                    db = db.as_of(point)
                case "since":
                    db = db.since(point)
                case _:
                    db = db.history()
        return db

    async def learn(self) -> None:
        """Ask for attributes and names, for completion."""
        # each may be forbidden by itself
        with suppress(NatalogError):
            schema = await (await self.conn.db()).schema()
            self.attributes = sorted(str(name) for name in schema if isinstance(name, Keyword))
        with suppress(NatalogError):
            self.branches = sorted(await self.conn.branches())
        with suppress(NatalogError):
            self.databases = sorted(
                found["database"] for found in await self.client.list_databases()
            )

    async def take(self, text: str) -> None:
        """Do what a line says; errors are shown, the prompt goes on."""
        text = text.strip()
        if not text:
            return
        try:
            if text.startswith(":"):
                await self._command(text)
            else:
                await self._form(text)
        except NatalogError as error:
            self._refuse(f"{error.code}: {error.message}")

    def _refuse(self, sentence: str) -> None:
        self.refused += 1
        self.out.note(sentence)

    async def _form(self, text: str) -> None:
        form = read(text)
        if isinstance(form, dict) or (isinstance(form, list) and Keyword("find") in form[:1]):
            if isinstance(form, dict) and Keyword("find") not in form:
                await self._transact([form])
                return
            await self._query(text)
        elif isinstance(form, EdnList) and form and isinstance(form[0], Symbol):
            await self._call(form)
        elif isinstance(form, list):
            await self._transact(form)
        else:
            self._refuse("A query begins with [:find, a transaction with [{ or [[. Try :help")

    async def _query(self, query: str) -> None:
        began = time.perf_counter()
        rows = rows_of(query, await (await self.value()).q(query))
        took = (time.perf_counter() - began) * 1000
        if rows.columns:
            self.out.table(rows.columns, rows[:ROWS_SHOWN])
        more = f", {ROWS_SHOWN} shown" if len(rows) > ROWS_SHOWN else ""
        self.out.note(f"{counted(len(rows), 'row')}{more}, {took:.1f} ms")
        if not rows and (lacking := await unknown_attributes(self.conn, query)):
            self.out.note(f"{', '.join(lacking)}: no such attribute is declared")

    async def _transact(self, data: list[Any]) -> None:
        if self.views:
            self._refuse("The past cannot be changed; :now goes back to the present.")
            return
        report = await self.conn.transact(data)
        self.out.table(DATOM_COLUMNS, datom_rows(report.tx_data))
        instant = "" if report.instant is None else f" at {shown(report.instant)}"
        purged = f", {counted(report.purged, 'fact')} purged" if report.purged else ""
        self.out.note(f"transaction {report.tx}{instant}{purged}")
        await self.learn()

    async def _call(self, form: EdnList) -> None:
        if form[0].text == "pull" and len(form) == 3:
            self.out.data(await (await self.value()).pull(form[1], form[2]))
        else:
            self._refuse("Only (pull PATTERN ENTITY) can be called here.")

    async def _command(self, text: str) -> None:
        name, _, rest = text[1:].partition(" ")
        rest = rest.strip()
        command = self._commands().get(name)
        if command is None:
            self._refuse(f"There is no :{name}. Try :help")
            return
        await command(rest)

    def _commands(self) -> dict[str, Callable[[str], Awaitable[None]]]:
        return {
            "help": self._help,
            "quit": self._quit,
            "db": self._database,
            "branch": self._branch,
            "as-of": self._as_of,
            "since": self._since,
            "history": self._history,
            "now": self._now,
            "schema": self._schema,
            "explain": self._explain,
            "log": self._log,
        }

    async def _help(self, _: str) -> None:
        self.out.note(HELP)

    async def _quit(self, _: str) -> None:
        self.done = True

    async def _database(self, name: str) -> None:
        await self._go(name or self.conn.database, "db")

    async def _branch(self, name: str) -> None:
        if not name:
            self.out.note("  ".join(sorted(await self.conn.branches())))
            return
        await self._go(self.conn.database, name)

    async def _go(self, database: str, branch: str) -> None:
        conn = self.client.database(database, branch)
        await conn.info()  # it must exist
        self.conn, self.views = conn, []
        await self.learn()

    async def _as_of(self, text: str) -> None:
        await self._see("as-of", text)

    async def _since(self, text: str) -> None:
        await self._see("since", text)

    async def _see(self, name: str, text: str) -> None:
        try:
            point = point_argument(text)
        except typer.BadParameter as error:
            self._refuse(error.message)
            return
        self.views = [view for view in self.views if view[0] != name] + [(name, point)]
        await self.value()

    async def _history(self, _: str) -> None:
        self.views = [view for view in self.views if view[0] != "history"] + [("history", None)]

    async def _now(self, _: str) -> None:
        self.views = []

    async def _schema(self, _: str) -> None:
        schema = await (await self.conn.db()).schema()
        rows = [
            (
                name,
                facts.get(Keyword("db/valueType")),
                facts.get(Keyword("db/cardinality")),
                facts.get(Keyword("db/unique")),
                facts.get(Keyword("db/doc")),
            )
            for name, facts in schema.items()
            if isinstance(name, Keyword) and isinstance(facts, dict)
        ]
        self.out.table(("attribute", "type", "cardinality", "unique", "doc"), rows)

    async def _explain(self, query: str) -> None:
        self.out.note(str(await (await self.value()).explain(query)))

    async def _log(self, text: str) -> None:
        count = int(text) if text.isdigit() else 10
        query = "[:find ?t ?i (count ?e) :where [?e _ _ ?t] [?t :db/txInstant ?i]]"
        db = (await self.conn.db()).history()
        rows = await db.q(query, order_by=[0, "desc"], limit=count)
        self.out.table(("transaction", "instant", "entities"), rows)


def unfinished(text: str) -> bool:
    """Whether a text has brackets or a string that are still open.

    >>> unfinished("[:find ?e :where"), unfinished('[{:name "a]"}]'), unfinished(":schema")
    (True, False, False)
    """
    waiting: list[str] = []
    quoted = escaped = comment = False
    for mark in text:
        if comment:
            comment = mark != "\n"
        elif quoted:
            if escaped:
                escaped = False
            elif mark == "\\":
                escaped = True
            elif mark == '"':
                quoted = False
        elif mark == '"':
            quoted = True
        elif mark == ";":
            comment = True
        elif mark in _BRACKETS:
            waiting.append(_BRACKETS[mark])
        elif waiting and mark == waiting[-1]:
            waiting.pop()
    return quoted or bool(waiting)


def place_names(line: str, databases: Iterable[str], branches: Iterable[str]) -> list[str]:
    """What the name that ``:db`` or ``:branch`` is being given may become.

    >>> place_names(":db pe", ["people", "shop"], ["db"]), place_names(":branch ", [], ["db"])
    (['people'], ['db'])
    """
    command, space, begun = line.partition(" ")
    known = {":db": databases, ":branch": branches}.get(command, ()) if space else ()
    return sorted(name for name in known if name.startswith(begun))


def completions(word: str, attributes: Iterable[str], commands: Iterable[str]) -> list[str]:
    """What a word that is being typed may become."""
    if not word.startswith(":"):
        return []
    known = [*_QUERY_WORDS, *attributes, *(f":{name}" for name in commands)]
    return sorted({name for name in known if name.startswith(word)})


def _session(shell: Shell) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings

    class Words(Completer):
        def get_completions(
            self, document: Document, complete_event: CompleteEvent
        ) -> Iterable[Completion]:
            line = document.text_before_cursor
            for name in place_names(line, shell.databases, shell.branches):
                yield Completion(name, start_position=line.index(" ") + 1 - len(line))
            word = document.get_word_before_cursor(WORD=True).lstrip("([{")
            for name in completions(word, shell.attributes, shell._commands()):
                yield Completion(name, start_position=-len(word))

    keys = KeyBindings()
    open_form = Condition(lambda: unfinished(session.default_buffer.text))

    @keys.add("enter", filter=open_form)
    def _(event: Any) -> None:
        event.current_buffer.insert_text("\n  ")

    state = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state"))
    folder = state / "natalog"
    folder.mkdir(parents=True, exist_ok=True)
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(folder / "shell_history")),
        completer=Words(),
        key_bindings=keys,
        multiline=open_form,
        complete_while_typing=True,
        enable_history_search=False,
    )
    return session


def shell(
    database: DatabaseArgument,
    branch: BranchOption = "db",
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = ASK_TIMEOUT_S,
) -> None:
    """Ask and transact at a prompt; Enter runs what is complete, Tab completes, :help helps.

    What is piped in is run form by form; exit code 1 when one of them was refused.

    Examples:

    natalog shell people

    echo '[:find ?n :where [_ :name ?n]]' | natalog shell people
    """

    async def work(client: Client) -> None:
        import sys

        conn = client.database(database, branch)
        await conn.info()
        here = Shell(client, conn, Output())
        if not sys.stdin.isatty():
            for text in piped(sys.stdin.read()):
                await here.take(text)
                if here.done:
                    break
            if here.refused:
                raise typer.Exit(REFUSED)
            return
        await here.learn()
        here.out.note(f"{client.url} · :help helps, :quit or Ctrl-D ends")
        session = _session(here)
        while not here.done:
            try:
                text = await session.prompt_async(here.prompt)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            await here.take(text)

    run_with_client(nats, context, timeout, work)


def piped(text: str) -> list[str]:
    """Commands and forms of a text: a command ends with its line, a form with its last bracket.

    >>> piped(":as-of 5\\n[:find ?e\\n :where [?e]]")
    [':as-of 5', '[:find ?e\\n :where [?e]]']
    """
    found: list[str] = []
    waiting = ""
    for line in text.splitlines():
        waiting = f"{waiting}\n{line}" if waiting else line
        if not unfinished(waiting):
            if waiting.strip():
                found.append(waiting.strip())
            waiting = ""
    if waiting.strip():
        found.append(waiting.strip())
    return found


__all__ = ["Shell", "completions", "piped", "shell", "unfinished"]

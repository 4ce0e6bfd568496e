"""``natalog demo``: what Natalog does, shown on a service of its own, through NATS alone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.rule import Rule
from rich.syntax import Syntax

from natalog.cli.imports import import_commits, import_git
from natalog.cli.output import in_order, make_console, make_table, shown
from natalog.client import Client, Conn, Database, connect
from natalog.importing.git import count_commits
from natalog.importing.sample import sample_commits
from natalog.report import TxReport
from natalog.testing import own_service

_FEED_TIMEOUT_S = 30.0

PEOPLE_SCHEMA = """
[{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :age    :db/valueType :db.type/long   :db/cardinality :db.cardinality/one}
 {:db/ident :source :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]
"""
NAME_AND_AGE = "[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]"
CHANGED_AGES = "[:find ?n ?a :in $ $since :where [$ ?e :name ?n] [$since ?e :age ?a]]"
AGES_IN_TIME = """[:find ?a ?t ?added
 :where [?e :name "Alice"] [?e :age ?a ?tx ?added] [?tx :db/txInstant ?t]]"""

COMMITS_PER_AUTHOR = """[:find ?name (count ?c)
 :where [?c :commit/author ?p] [?p :author/name ?name]]"""
MOST_CHANGED = """[:find ?path (count ?c)
 :where [?c :commit/changed ?f] [?f :file/path ?path]]"""
FILES_THEN = "[:find ?path :where [?f :file/blob] [?f :file/path ?path]]"
COMMIT_DATES = "[:find ?t ?sha :where [?c :commit/sha ?sha ?tx] [?tx :db/txInstant ?t]]"
CHANGED_SINCE = """[:find ?path (count ?c)
 :in $ $since
 :where [$since ?c :commit/sha]
        (or [$ ?c :commit/added ?f] [$ ?c :commit/changed ?f])
        [$ ?f :file/path ?path]]"""


class Stage:
    """Where the demo prints: headings, sentences, queries with their answers."""

    def __init__(self) -> None:
        self.console = make_console()

    def heading(self, text: str) -> None:
        self.console.print()
        self.console.print(Rule(f"[bold]{escape(text)}", align="left"))

    def say(self, text: str) -> None:
        self.console.print(escape(text))

    def code(self, text: str, language: str = "clojure") -> None:
        self.console.print(Syntax(text.strip(), language, background_color="default"))

    def table(self, columns: Sequence[str], rows: Any, title: str | None = None) -> None:
        self.console.print(make_table(columns, in_order(rows), title))


# --- the show ------------------------------------------------------------------------------------


async def show(repository: Path | None) -> None:
    """Run the demonstration, on the bundled sample where no repository is given.

    A SIGTERM ends it as cleanly as Ctrl-C.
    """
    task = asyncio.current_task()
    asked: list[bool] = []

    def end() -> None:
        asked.append(True)
        if task is not None:
            task.cancel()

    def go_on() -> None:
        # nats-py swallows a cancellation that meets it while it flushes
        if asked:
            raise asyncio.CancelledError

    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    stage = Stage()
    began = time.monotonic()
    stage.say("Natalog: facts with time, on NATS.")
    with tempfile.TemporaryDirectory(prefix="natalog-demo-") as name:
        async with own_service(Path(name)) as url:
            stage.say(f"A service of its own runs at {url}, durable, in {name}.")
            async with connect(url) as client:
                await _people(stage, client)
                go_on()
                await _repository(stage, client, repository)
                go_on()
                await _feed(stage, client)
                go_on()
                _reach(stage)
    stage.heading("The end")
    stage.say(f"The service has stopped, its directory is gone. {time.monotonic() - began:.0f} s.")


async def _ask(
    stage: Stage,
    db: Database,
    query: str,
    *args: Any,
    columns: Sequence[str],
    title: str | None = None,
    **options: Any,
) -> Any:
    stage.code(query)
    answer = await db.q(query, *args, **options)
    stage.table(columns, answer, title)
    return answer


async def _people(stage: Stage, client: Client) -> None:
    stage.heading("People: one database value at every moment")
    await client.create_database("people", initial_tx=PEOPLE_SCHEMA)
    conn = client.database("people")
    first = await conn.transact([{"name": "Alice", "age": 25}])
    stage.say(f"Transaction {first.tx} says that Alice is 25, the next one that she is 30,")
    await asyncio.sleep(0.05)
    await conn.transact([{"db/id": ["name", "Alice"], "age": 30}])
    await conn.transact([{"name": "Bob", "age": 40}], tx_meta={"source": "the front desk"})
    stage.say("and a third one adds Bob.  The current value:")
    db = await conn.db()
    columns = ("?n", "?a")
    await _ask(stage, db, NAME_AND_AGE, columns=columns)
    assert first.instant is not None
    stage.say(f"As of {shown(first.instant)}, the instant of the first transaction:")
    await _ask(stage, db.as_of(first.instant), NAME_AND_AGE, columns=columns)
    stage.say("In the history, current and past facts together:")
    await _ask(stage, db.history(), NAME_AND_AGE, columns=columns)
    stage.say("Since then: names that were asserted earlier are not in this view ...")
    await _ask(stage, db.since(first.tx), NAME_AND_AGE, columns=columns)
    stage.say("... so it is joined with the current value:")
    await _ask(stage, db, CHANGED_AGES, db.since(first.tx), columns=columns)
    stage.say("Transactions are entities too; their instants join with the facts they made:")
    await _ask(stage, db.history(), AGES_IN_TIME, columns=("?a", "?t", "?added"))


async def _repository(stage: Stage, client: Client, repository: Path | None) -> None:
    stage.heading("A git history: one commit, one transaction, dated by the commit")
    await client.create_database("history")
    conn = client.database("history")
    path = repository
    if path is None:
        stage.say("Importing the bundled sample of a git history.")
        sample = list(sample_commits())
        done = await import_commits(conn, iter(sample), total=len(sample))
    else:
        stage.say(f"Importing {path}, {count_commits(path)} commits.")
        done = await import_git(conn, path)
    stage.say(f"{done.added} commits, {done.datoms} datoms in {done.seconds:.1f} s.")
    db = await conn.db()
    stage.say("Commits per author:")
    await _ask(stage, db, COMMITS_PER_AUTHOR, columns=("author", "commits"), order_by=[1, "desc"])
    stage.say("The files that changed most often:")
    await _ask(
        stage,
        db,
        MOST_CHANGED,
        columns=("file", "commits"),
        order_by=[1, "desc", 0, "asc"],
        limit=8,
    )
    moment = await _middle(db)
    if moment is None:
        return
    stage.say(f"The files of {shown(moment)}, half-way through:")
    then = await db.as_of(moment).q(FILES_THEN)
    now = await db.q(FILES_THEN)
    stage.code(FILES_THEN)
    rows = [(path,) for (path,) in sorted(then)[:8]]
    stage.table(("file",), rows)
    stage.say(f"... {len(then)} files on that day, {len(now)} now.")
    stage.say("What was changed since, by the number of commits:")
    await _ask(
        stage,
        db,
        CHANGED_SINCE,
        db.since(moment),
        columns=("file", "commits"),
        order_by=[1, "desc", 0, "asc"],
        limit=8,
    )


def find_repository() -> Path | None:
    """The git repository around the current directory or around this source file."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / ".git").exists():
                return folder
    return None


async def _middle(db: Database) -> datetime | None:
    dates = sorted(instant for instant, _ in await db.q(COMMIT_DATES))
    return dates[len(dates) // 2] if dates else None


async def _feed(stage: Stage, client: Client) -> None:
    stage.heading("The feed, and a durable publish that is applied once")
    conn = client.database("people")
    before = (await conn.db()).basis
    async with conn.reports() as feed:
        for _ in range(2):
            ack = await conn.publish([{"name": "Carol", "age": 33}], id="order-17")
            known = "already known" if ack.duplicate else "new"
            stage.say(f"published with id {ack.id}: stored, {known}")
        await conn.publish([{"name": "Dora", "age": 51}], id="order-18")
        reports = await _until(feed, "order-18")
    stage.say("What the feed delivered:")
    stage.table(
        ("tx", "id", "facts"),
        [(r.tx, r.id, len(r.tx_data)) for r in reports],
    )
    applied = [r for r in reports if r.id == "order-17"]
    stage.say(f"order-17 was sent twice and applied {_times(len(applied))}.")
    await _replay(stage, conn, before)


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


async def _until(feed: Any, last_id: str) -> list[TxReport]:
    found: list[TxReport] = []
    async with asyncio.timeout(_FEED_TIMEOUT_S):
        async for report in feed:
            found.append(report)
            if report.id == last_id:
                break
    return found


async def _replay(stage: Stage, conn: Conn, since: int) -> None:
    async with conn.reports(since=since) as feed:
        replayed = await _until(feed, "order-18")
    stage.say(f"The log replays the same {len(replayed)} transactions to anyone who was away.")


def _reach(stage: Stage) -> None:
    stage.heading("How to reach it")
    stage.say("Run `natalog serve`, and then, in another terminal:")
    stage.code(
        "natalog db create people --schema read\n"
        "natalog transact people '[{:name \"Alice\" :age 25}]'\n"
        f"natalog q people '{NAME_AND_AGE}'",
        "bash",
    )
    stage.say("with the nats command line:")
    stage.code(
        "nats req natalog.people.db.query '[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]'\n"
        "nats sub 'natalog.people.db.report'",
        "bash",
    )
    stage.say("from Python:")
    stage.code(
        f"""
import natalog

async with natalog.connect("nats://127.0.0.1:4222") as client:
    db = await client.database("people").db()
    print(await db.q("{NAME_AND_AGE}"))
""",
        "python",
    )

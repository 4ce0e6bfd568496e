"""Histories: what clients asked and were told while things broke, and whether it can be true.

Clients append to a list, compare and set a register, insert under unique keys and read.  Every
write has an id and is sent again until it has an answer or its time is up.  Afterwards the log is
read from its beginning and says what happened; `check` compares.

The rules are those of a strictly serialisable log: what was acknowledged is there once, what was
refused is not there, what is unknown is there at most once; an operation that ended before another
began stands before it; a read shows exactly what the log up to its basis says.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import natalog
from natalog import errors

DATABASE = "histories"
SCHEMA = """
[{:db/ident :list/name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/ident :list/item :db/valueType :db.type/string :db/cardinality :db.cardinality/many}
 {:db/ident :register/value :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/ident :seat/number :db/valueType :db.type/long :db/cardinality :db.cardinality/one
  :db/unique :db.unique/value}
 {:db/ident :seat/owner :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]
"""
ANSWER_S = 4.0
"""How long a client waits for one answer before it asks again."""
GIVE_UP_S = 40.0
"""How long it asks."""
SEATS = 400
REFUSALS = (errors.TransactError, errors.EntityError, errors.BadRequest)
"""Errors that say that nothing was written."""

Outcome = Literal["acknowledged", "refused", "unknown"]
Fact = tuple[int, str, Any]


@dataclass(frozen=True, slots=True)
class Write:
    """A transaction as its client saw it; times are seconds of one clock."""

    ident: str
    began: float
    ended: float
    outcome: Outcome
    tx: int | None


@dataclass(frozen=True, slots=True)
class Read:
    """What a query said of the value at ``basis``; ``least``: what this client had been told of."""

    basis: int
    least: int
    facts: frozenset[Fact]


@dataclass(slots=True)
class History:
    """What all clients saw."""

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)

    def count(self, outcome: Outcome) -> int:
        return sum(1 for write in self.writes if write.outcome == outcome)


async def prepared(url: str) -> dict[str, int]:
    """Make the database; the entities of the list and of the register."""
    async with natalog.connect(url) as client:
        await client.create_database(DATABASE, initial_tx=SCHEMA)
        conn = client.database(DATABASE)
        data = [
            {"db/id": "list", "list/name": "list"},
            {"db/id": "register", "list/name": "register", "register/value": 0},
        ]
        report = await conn.transact(data)
        return {str(name): e for name, e in report.tempids.items()}


class Clients:
    """Clients that work until the block ends; ``history`` is what they saw."""

    def __init__(self, url: str, entities: dict[str, int], seed: int, count: int = 4) -> None:
        self.url = url
        self.entities = entities
        self.history = History()
        self._seed = seed
        self._count = count
        self._stop = asyncio.Event()
        self._values = itertools.count(1)

    async def __aenter__(self) -> Clients:
        self._tasks = [asyncio.create_task(self._work(n)) for n in range(self._count)]
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._stop.set()
        async with asyncio.timeout(3 * GIVE_UP_S):
            await asyncio.gather(*self._tasks)

    async def progress(self, more: int = 15) -> None:
        """Wait until every client together have had that many more answers for each."""
        goal = len(self.history.writes) + more * self._count
        async with asyncio.timeout(2 * GIVE_UP_S):
            while len(self.history.writes) < goal:
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    async def _work(self, number: int) -> None:
        chance = random.Random(self._seed * 1000 + number)
        async with natalog.connect(self.url) as client:
            conn = client.database(DATABASE)
            told = 0
            for turn in itertools.count():
                if self._stop.is_set():
                    return
                ident = f"{number}-{turn}"
                kind = chance.choice(("append", "append", "set", "seat", "read"))
                if kind == "read":
                    read = await self._read(conn, told)
                    told = told if read is None else max(told, read.basis)
                    continue
                if kind == "append":
                    data: list[Any] = [["db/add", self.entities["list"], "list/item", ident]]
                elif kind == "seat":
                    data = [{"seat/number": chance.randrange(SEATS), "seat/owner": ident}]
                else:
                    read = await self._read(conn, told)
                    if read is None:
                        continue
                    old = next(v for _, a, v in read.facts if a == ":register/value")
                    new = next(self._values)
                    target = self.entities["register"]
                    data = [["db/cas", target, "register/value", old, new]]
                write = await self._write(conn, ident, data)
                told = max(told, write.tx or 0)

    async def _write(self, conn: natalog.Conn, ident: str, data: list[Any]) -> Write:
        began = time.monotonic()
        outcome: Outcome = "unknown"
        tx = None
        while time.monotonic() - began < GIVE_UP_S:
            try:
                report = await conn.transact(data, id=ident, timeout=ANSWER_S)
                outcome, tx = "acknowledged", report.tx
                break
            except REFUSALS:
                outcome = "refused"
                break
            except errors.NatalogError:
                await asyncio.sleep(0.05)  # not known, or not now: the id makes asking again safe
        write = Write(ident, began, time.monotonic(), outcome, tx)
        self.history.writes.append(write)
        return write

    async def _read(self, conn: natalog.Conn, told: int) -> Read | None:
        query = (
            "[:find ?e ?a ?v :in $ [?a ...] :where [?e ?a ?v]]"
            if told % 2
            else "[:find ?e ?a ?v :in $ [?a ...] :where [?e ?a ?v] [?e _ _]]"
        )
        try:
            db = await conn.db(timeout=ANSWER_S)
            attributes = [natalog.kw("list/item"), natalog.kw("register/value")]
            attributes += [natalog.kw("seat/number"), natalog.kw("seat/owner")]
            rows = await db.q(query, attributes, timeout=ANSWER_S)
        except errors.NatalogError:
            return None
        read = Read(db.basis, told, frozenset((e, str(a), v) for e, a, v in rows))
        self.history.reads.append(read)
        return read


async def check(url: str, history: History) -> dict[str, int]:
    """Raise AssertionError when the history cannot be true; numbers of what was looked at."""
    async with natalog.connect(url) as client:
        conn = client.database(DATABASE)
        # who has written nothing may be told of a value that is some milliseconds old
        told = (await conn.db(timeout=GIVE_UP_S)).basis
        head = max([told, *(w.tx or 0 for w in history.writes if w.outcome == "acknowledged")])
        log = []
        async with asyncio.timeout(GIVE_UP_S):
            async for report in conn.reports(since=0):
                log.append(report)
                if report.tx >= head:
                    break
        if told < head:
            print(f"told of {told}, {head - told} transactions before the last")
    stored = {report.id: report.tx for report in log if report.id is not None}
    times = Counter(report.id for report in log if report.id is not None)
    assert all(count == 1 for count in times.values()), "a transaction was applied twice"
    txs = [report.tx for report in log]
    assert txs == sorted(set(txs)), "transaction ids do not ascend"
    for write in history.writes:
        if write.outcome == "acknowledged":
            assert stored.get(write.ident) == write.tx, f"{write} was lost"
        elif write.outcome == "refused":
            assert write.ident not in stored, f"{write} was refused and is there"
    _check_order(history.writes)
    _check_reads(history.reads, log)
    return {
        "acknowledged": history.count("acknowledged"),
        "refused": history.count("refused"),
        "unknown": history.count("unknown"),
        "reads": len(history.reads),
        "lost": 0,
    }


def _check_order(writes: list[Write]) -> None:
    """What ended before another began stands before it in the log."""
    done = [w for w in writes if w.tx is not None]
    by_end = sorted(done, key=lambda w: w.ended)
    ends = [w.ended for w in by_end]
    highest = list(itertools.accumulate((w.tx or 0 for w in by_end), max))
    for write in done:
        before = bisect_left(ends, write.began)
        if before:
            assert highest[before - 1] < (write.tx or 0), f"{write} overtook an earlier one"


def _check_reads(reads: list[Read], log: list[natalog.TxReport]) -> None:
    """Every read is the replay of the log at its basis, and not older than what was told before."""
    seen = {":list/item", ":register/value", ":seat/number", ":seat/owner"}
    facts: set[Fact] = set()
    spot = 0
    for read in sorted(reads, key=lambda read: read.basis):
        assert read.basis >= read.least, f"a read at {read.basis} forgot {read.least}"
        while spot < len(log) and log[spot].tx <= read.basis:
            for datom in log[spot].tx_data:
                fact = (datom.e, str(datom.a), datom.v)
                if fact[1] in seen:
                    (facts.add if datom.added else facts.discard)(fact)
            spot += 1
        assert read.facts == facts, (
            f"a read at {read.basis} shows {len(read.facts - facts)} facts too many and "
            f"{len(facts - read.facts)} too few"
        )

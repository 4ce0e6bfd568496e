"""The transactor of one branch: transactions in, one block per group out, answers after that.

A group is what waited while the last block was being written; there is no timer.  Nothing is
answered before the block is on disk.  The log decides: when somebody else has appended, or the
outcome of an append cannot be found out, what was prepared is dropped and the log is read again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

from anyio import to_thread

from natalog.actors.archive import Archive
from natalog.actors.audit import Own, audited, declaration
from natalog.actors.catalog import Catalog, Process, record_of
from natalog.actors.failpoints import failpoint
from natalog.actors.heads import Heads, check_head
from natalog.actors.ingest import Ingested, IngestReader
from natalog.actors.intake import IN_THREAD_BYTES
from natalog.actors.lease import Lease, LeaseLost
from natalog.actors.log import BranchLog, LogRedacted, Position
from natalog.actors.metrics import OUTCOMES, Metrics
from natalog.actors.names import Names
from natalog.actors.nats_answers import Letter
from natalog.actors.nats_port import NatsPort
from natalog.actors.payload import (
    Struct,
    datom_rows,
    error_struct,
)
from natalog.actors.planned import Alone, Planned, Wish
from natalog.actors.requests import Request
from natalog.actors.runtime import Actor, Ask, as_natalog
from natalog.actors.shared import Shared
from natalog.actors.state import BranchState, LineEnded
from natalog.actors.tables import Place
from natalog.actors.wishes import read_transaction
from natalog.core.beginning import deleted_record
from natalog.core.codec import pack
from natalog.core.database import Database
from natalog.core.errors import (
    Busy,
    CommitUnknown,
    Fenced,
    NatalogError,
    SegmentCorrupt,
    SegmentMissing,
    TooLarge,
    Unavailable,
    error_from_wire,
)
from natalog.core.limits import BLOCK_BYTES_TARGET, BLOCK_TRANSACTIONS_MAX
from natalog.core.record import (
    ENTRY_COMMIT,
    ENTRY_REJECTION,
    Entry,
    Rejection,
    TxRecord,
    encode_block,
)
from natalog.core.transact.report import TxReport
from natalog.core.values import Keyword, ms_instant

log = logging.getLogger("natalog.transactor")

TX_INSTANT = Keyword("db/txInstant")
_USUAL_OF: Final = 8
"""Appends whose time counts, more or less."""
TURN_S = 0.004
"""After this long the event loop gets a turn between two transactions."""
LOOK_TIMEOUT_S = 30.0
"""Looking for what others have appended is given up after so long."""
FENCED_ATTEMPTS = 5
BLOCK_OVERHEAD_BYTES = 512
FAILPOINTS = tuple(f"append.{done}" for done in ("staged", "sent", "stored", "answered", "noted"))


@dataclass(frozen=True, slots=True)
class End:
    """Asks a transactor for the last block of its log; ``successor``: where the name moves."""

    successor: int | None


@dataclass(slots=True)
class Staged:
    """An entry that waits to be written, and who wants to hear of it."""

    submission: Request | Ingested | Own
    entry: Entry
    ident: str | None
    report: TxReport | None
    record: TxRecord | None
    commit: UUID | None
    error: NatalogError | None
    after: Database
    repeats: list[Request | Ingested]
    answer: Letter | None = None
    """The answer, where it is ready to be sent."""
    news: Letter | None = None
    """The report for the feed."""


class Transactor(Actor):
    """Owns the head of one branch."""

    def __init__(
        self,
        port: NatsPort,
        names: Names,
        state: BranchState,
        branch_log: BranchLog,
        catalog: Catalog,
        archive: Archive,
        process: Process,
        metrics: Metrics,
        heads: Heads,
        lease: Lease,
        *,
        mailbox_size: int,
        audit: bool = False,
    ) -> None:
        self.name = f"transactor:{state.database}.{state.branch}"
        self.mailbox_size = mailbox_size
        super().__init__()
        self.state = state
        self._port = port
        self._catalog = catalog
        self._archive = archive
        self._process = process
        self._audit = audit
        self._heads = heads
        self._lease = lease
        self._labels = labels = (state.database, state.branch)
        named = metrics.labels.branch(*labels)
        self._counts = {
            outcome: metrics.transactions.labels(*named, outcome) for outcome in OUTCOMES
        }
        self._seconds = metrics.transaction_seconds.labels(*named)
        self._append_seconds = metrics.append_seconds.labels(*named)
        self._block_transactions = metrics.block_transactions.labels(*named)
        self._purged = metrics.purged.labels(*named)
        self._log = branch_log
        self._append_usual_s = 0.0
        """What an append took lately."""
        self._report_subject = names.report(state.database, state.branch)
        self._ingest = IngestReader(port, names, state, self.put)
        self._turn = 0.0
        self.look = Shared(lambda: self.ask("catch up", LOOK_TIMEOUT_S))
        """Looks for what others have appended; many readers ask for it at a time."""

    # --- life --------------------------------------------------------------------------------

    async def on_start(self) -> None:
        state = self.state
        head = await self._heads.read(state.database, state.lane)
        await self._catch_up()
        await check_head(head, state, self._log)
        await self._catalog.ensure_ingest(state.database, state.branch, state.incarnation)
        self._ingest.start()

    async def on_stop(self) -> None:
        await self._ingest.stop()

    async def idle(self) -> None:
        """Commit the requests that wait; what is ingested can wait for the next transactor."""
        await self._ingest.stop()
        await super().idle()

    async def follow_ingest(self) -> None:
        """Go on in the ingest stream that took over, if one did."""
        await self._ingest.follow()

    async def _catch_up(self) -> None:
        await catch_up(self.state, self._log, self._archive)

    def tell(self, message: Any) -> None:
        try:
            super().tell(message)
        except Busy:
            self._count("busy")
            raise

    async def on_message(self, message: Any) -> None:
        if isinstance(message, Ask):
            if isinstance(message.body, End):
                await self._end(message.body)
            elif isinstance(message.body, Alone):
                planned = await message.body.plan()
                if planned is not None:
                    await self._handle([planned])
            else:
                await self._catch_up()
            message.reply(self.state)
            return
        self._turn = time.monotonic()
        waiting: list[Request | Ingested] = [message]
        asks: list[Ask] = []
        while len(waiting) < BLOCK_TRANSACTIONS_MAX:
            more = self.take_nowait()
            if more is None:
                break
            if isinstance(more, Ask):
                asks.append(more)
            elif isinstance(more, (Request, Ingested)):
                waiting.append(more)
        try:
            await self._handle(waiting)
            for ask in asks:
                await self.on_message(ask)
        except BaseException as error:
            # whoever has no answer yet gets one; what was appended is found again by its id
            for left in [*waiting, *asks]:
                left.fail(told(error) if isinstance(error, Exception) else self._gone())
            raise

    def _gone(self) -> NatalogError:
        return told(super()._gone())

    async def _end(self, end: End) -> None:
        """Append the last block and end; whoever waits behind it hears of it."""
        state = self.state
        for attempt in range(FENCED_ATTEMPTS):
            head = state.db.commit_id
            assert head is not None
            record = deleted_record(state.branch, state.lane, state.db.max_tx, head, end.successor)
            block = encode_block(state.position.hash, [Entry(ENTRY_COMMIT, record.encode())])
            try:
                at = await self._log.append(state.position, block)
                break
            except Fenced:
                if attempt + 1 == FENCED_ATTEMPTS:
                    raise
                await self._catch_up()
        state.advance(state.db, at)
        state.ended = self.failure = LineEnded(state.database, state.branch, end.successor)
        state.fail(state.ended)
        self._scope.cancel()

    async def _handle(self, waiting: Sequence[Request | Ingested]) -> None:
        """Commit all that waits, group by group; each is answered exactly once."""
        attempts = 0
        while waiting:
            staged: list[Staged] = []
            try:
                await self._certain(waiting)
                rest = await self._stage(waiting, staged)
                if not self._lease.valid():
                    await self._certain(waiting)
                await self._write(staged)
            except LeaseLost as error:
                self._abandon(waiting, error)
                self.failure = error
                self._scope.cancel()
                return
            except Fenced as error:
                attempts += 1
                log.warning("%s: %s", self.name, error.message)
                await self._catch_up()
                if attempts >= FENCED_ATTEMPTS:
                    self._abandon(waiting, error)
                    return
                waiting = [one for one in waiting if not one.answered]
                continue
            except CommitUnknown as error:
                log.error("%s: %s", self.name, error.message)
                self._abandon([s.submission for s in staged], error)
                for one in staged:
                    self._abandon(one.repeats, error)
                await self._catch_up()
                self._ingest.restart()
                waiting = [one for one in waiting if not one.answered]
                continue
            waiting = rest

    async def _certain(self, waiting: Sequence[Request | Ingested]) -> None:
        """Go on only while nobody else can be taking the branch's transactions; `LeaseLost`."""
        if not self._lease.valid():
            await self._lease.confirm()
            for one in waiting:
                if isinstance(one, Request):
                    one.mine = True

    def _abandon(self, waiting: Sequence[Request | Ingested | Own], error: NatalogError) -> None:
        for one in waiting:
            if not one.answered:
                self._count("failed")
                one.fail(error)

    # --- staging -----------------------------------------------------------------------------

    async def _stage(
        self, waiting: Sequence[Request | Ingested], staged: list[Staged]
    ) -> Sequence[Request | Ingested]:
        """Process transactions one after the other on top of the head; returns those left over.

        Those that are refused or repeated are answered at once and consume nothing.
        """
        db = self.state.db
        by_id: dict[str, Staged] = {}
        size = 0
        for spot, one in enumerate(waiting):
            if one.answered or (isinstance(one, Ingested) and self._ingest.is_stale(one)):
                continue
            await self._give_turn()
            ident: str | None = None
            try:
                one.check_deadline()
                await one.prepare()
                wish = read_transaction(one)
                ident = wish.ident
                before = None if ident is None else self.state.known(ident)
                known = before is not None or ident in by_id
                if isinstance(one, Planned) and one.head != db.commit_id and not known:
                    one.moved()
                    continue
                if ident is not None and before is not None:
                    await self._repeat(one, ident)
                    continue
                if ident is not None and ident in by_id:
                    by_id[ident].repeats.append(one)
                    continue
                wanted = declaration(db, one) if self._audit else None
                if wanted is not None:
                    staged.append(await self._transact(db, Wish(wanted, None, None), Own()))
                    db = staged[-1].after
                    if isinstance(one, Planned):
                        one.moved()
                        continue
                made = await self._transact(db, wish, one)
            except (SegmentMissing, SegmentCorrupt) as error:
                # says nothing of the transaction: it is to be sent again
                self.state.lost()
                raise Unavailable(
                    f"{self.state.database}.{self.state.branch} is being read again.",
                    **error.data,
                ) from error
            except NatalogError as error:
                if isinstance(one, Ingested):
                    made = self._refused(db, ident, error, one)
                else:
                    await self._certain(waiting)  # it is refused for what the head is said to be
                    self._count("rejected")
                    await one.refuse(error)
                    continue
            except Exception as error:
                self._count("failed")
                if isinstance(one, Ingested):
                    made = self._refused(db, ident, as_natalog(error), one)
                    log.exception("an ingested transaction failed")
                else:
                    await one.refuse(error)
                    continue
            db = made.after
            staged.append(made)
            if ident is not None:
                by_id[ident] = made
            size += len(made.entry.data)
            if size >= BLOCK_BYTES_TARGET:
                return waiting[spot + 1 :]
        return ()

    async def _transact(self, db: Database, wish: Wish, one: Request | Ingested | Own) -> Staged:
        ident = wish.ident
        merged: tuple[UUID, ...] = ()
        kind = "transaction"
        if isinstance(one, Planned) and wish.parents is not None:
            kind, merged = "merge", tuple(wish.parents)  # looked up when it was planned
        elif wish.parents is not None:
            kind = "merge"
            merged = await self._archive.parents(self.state.database, wish.parents, db.commit_id)

        def work() -> Staged:
            if self._audit and not isinstance(one, Own):
                report = audited(self._process, db, wish.tx_data, wish.tx_meta, one)
            else:
                report = self._process(db, wish.tx_data, wish.tx_meta)
            record = record_of(report, db, ident, merged, kind)
            entry = Entry(ENTRY_COMMIT, record.encode(), one.ingest_seq)
            if len(entry.data) + BLOCK_OVERHEAD_BYTES > self._port.payload_room:
                raise TooLarge(
                    f"The transaction makes a record of {len(entry.data)} bytes; "
                    f"{self._port.payload_room} fit a block of the log.",
                    bytes=len(entry.data),
                    bytes_max=self._port.payload_room,
                )
            commit = entry.commit_id
            after = report.db_after.committed(commit)
            return Staged(one, entry, ident, report, record, commit, None, after, [])

        if isinstance(one, Planned) or len(one.message.data) >= IN_THREAD_BYTES:
            return await to_thread.run_sync(work)
        return work()

    def _refused(
        self, db: Database, ident: str | None, error: NatalogError, one: Ingested
    ) -> Staged:
        """An ingested transaction is refused once, for ever: the log remembers."""
        data = Rejection(ident, error.code, error.type).encode()
        entry = Entry(ENTRY_REJECTION, data, one.ingest_seq)
        return Staged(one, entry, ident, None, None, None, error, db, [])

    async def _give_turn(self) -> None:
        now = time.monotonic()
        if now - self._turn > TURN_S:
            await asyncio.sleep(0)
            self._turn = time.monotonic()

    # --- writing -----------------------------------------------------------------------------

    async def _write(self, staged: Sequence[Staged]) -> None:
        """Append what is staged, in as many blocks as its size needs, and answer."""
        for group in split_blocks(staged, self._port.payload_room):
            state = self.state
            block = encode_block(state.position.hash, [one.entry for one in group])
            failpoint("append.staged")
            began = time.monotonic()
            await self._log.append(
                state.position,
                block,
                sent=partial(self._prepare, group),
                stored=partial(self._stored, group),
            )
            took = time.monotonic() - began
            self._append_usual_s += (took - self._append_usual_s) / _USUAL_OF
            self._append_seconds.observe(took)
            self._block_transactions.observe(len(group))
            for one in group:
                await self._answer(one)

    def _prepare(self, group: Sequence[Staged]) -> None:
        """While a block is on its way: what there will be to say, as far as it can be ready."""
        self._port.alertness.expect(self._append_usual_s)
        try:
            for one in group:
                if one.news is not None:
                    continue  # the block is sent again
                submission = one.submission
                if one.error is not None:
                    one.news = self._rejection(one.ident, one.error, submission)
                if one.record is None or one.commit is None:
                    continue
                payload = pack(commit_struct(one.record, one.commit, *self._labels))
                if type(submission) is Request and submission.kind == "msgpack":
                    one.answer = submission.letter(payload, one.record.tx)
                one.news = self._report(payload, one.record.tx)
        except Exception:
            log.exception("what is to be said of a block was not made ready")

    def _stored(self, group: Sequence[Staged], at: Position) -> None:
        """While the receipt of a block is read: tell of it first, then be where the log is."""
        failpoint("append.stored")
        ready = [one for one in group if one.answer is not None]
        self._say([one.answer for one in ready], [one.news for one in group])
        for one in ready:
            one.submission.answered = True
        self._port.alertness.expect(self._append_usual_s)
        failpoint("append.answered")
        state = self.state
        for spot, one in enumerate(group):
            state.note(one.entry, one.ident, Place(at.seq, spot))
            if one.record is not None and one.commit is not None:
                instant = one.record.instant_ms
                now = time.time_ns() // 1_000_000 if instant is None else instant
                state.committed(one.record, one.commit, now)
        state.advance(group[-1].after, at)
        state.announce()
        failpoint("append.noted")

    def _say(self, answers: Sequence[Letter | None], news: Sequence[Letter | None]) -> None:
        """Answers first, then what goes to the feed; they travel together."""
        letters = [one for one in (*answers, *news) if one is not None]
        try:
            if letters:
                self._port.send(letters)
        except NatalogError as error:
            log.warning("%d answers and their reports were lost: %s", len(answers), error.message)

    async def _answer(self, one: Staged) -> None:
        """Tell a sender who has no answer yet, and those who repeated the transaction meanwhile."""
        submission = one.submission
        if one.error is not None:
            self._count("rejected")
            submission.answered = True
            for repeat in one.repeats:
                await repeat.refuse(one.error)
            return
        assert one.report is not None and one.record is not None and one.commit is not None
        if isinstance(submission, Request) and one.answer is None:
            body = commit_struct(one.record, one.commit, *self._labels)
            await submission.reply(body, one.record.tx)
        submission.answered = True
        self._count("committed")
        if one.record.purged:
            self._purged.inc(one.record.purged)
        self._seconds.observe(time.monotonic() - submission.arrived)
        for repeat in one.repeats:
            self._count("repeated")
            body = commit_struct(one.record, one.commit, *self._labels)
            await repeat.reply(Struct(body, repeated=True), one.record.tx)

    def _report(self, payload: bytes, tx: int) -> Letter:
        """For the live feed; who misses a report, or one too large for a message, reads the log."""
        headers = {"Content-Type": "application/msgpack", "Natalog-Basis": str(tx)}
        if len(payload) > self._port.payload_room:
            payload = pack(Struct(tx=tx, database=self._labels[0], branch=self._labels[1]))
            headers["Natalog-Truncated"] = "true"
        return self._port.letter(self._report_subject, payload, headers)

    def _rejection(
        self, ident: str | None, error: NatalogError, one: Request | Ingested | Own
    ) -> Letter:
        """For the live feed: an ingested transaction that was refused."""
        body = Struct(
            rejected=error_struct(error),
            id=ident,
            sequence=one.ingest_seq,
            database=self._labels[0],
            branch=self._labels[1],
        )
        headers = {"Content-Type": "application/msgpack"}
        return self._port.letter(self._report_subject, pack(body), headers)

    # --- repeats -----------------------------------------------------------------------------

    async def _repeat(self, one: Request | Ingested, ident: str) -> None:
        """Answer with the first outcome of a transaction with this id, read from the log."""
        self._count("repeated")
        if isinstance(one, Ingested):
            one.answered = True
            return
        place = self.state.ids[self.state.known(ident) or ident]
        block = await self._log.read_block(place.seq)
        entry = block.entries[place.entry]
        if entry.type == ENTRY_REJECTION:
            rejected = Rejection.decode(entry.data)
            await one.refuse(
                error_from_wire(
                    {
                        "code": rejected.error_code,
                        "error": rejected.error_type,
                        "message": f"The transaction {ident} was refused before.",
                        "data": {"id": ident, "repeated": True},
                    }
                )
            )
            return
        record = TxRecord.decode(entry.data)
        body = commit_struct(record, entry.commit_id, *self._labels)
        if entry.erased:
            body["erased"] = entry.erased
        await one.reply(Struct(body, repeated=True), record.tx)

    def _count(self, outcome: str) -> None:
        self._counts[outcome].inc()


def told(error: BaseException) -> NatalogError:
    """What a client hears of an error."""
    if isinstance(error, (SegmentMissing, SegmentCorrupt)):
        return Unavailable("The database is being read again; ask again.", **error.data)
    return error.answer() if isinstance(error, LineEnded) else as_natalog(error)


async def catch_up(state: BranchState, branch_log: BranchLog, archive: Archive) -> None:
    """Read the log from where ``state`` stands to its present end; `LineEnded` if that is final."""
    if state.ended is not None:
        raise state.ended
    while True:
        try:
            table = await archive.prepare(state, branch_log)
            async with aclosing(branch_log.blocks(state.position, table=table)) as batches:
                async for batch in batches:
                    await fold(state, batch)
            return
        except LogRedacted:
            continue


async def fold(state: BranchState, batch: Sequence[Any]) -> None:
    """Advance ``state`` by blocks; many bytes are folded in a thread, so that the loop lives."""

    def work() -> None:
        for placed in batch:
            state.fold(placed)

    if sum(placed.size for placed in batch) >= IN_THREAD_BYTES:
        await to_thread.run_sync(work)
    else:
        work()
    if state.ended is not None:
        state.fail(state.ended)
        raise state.ended
    state.announce()


def split_blocks(staged: Sequence[Staged], room: int) -> Iterator[list[Staged]]:
    """Groups of consecutive entries that fit one message each."""
    group: list[Staged] = []
    size = BLOCK_OVERHEAD_BYTES
    for one in staged:
        cost = len(one.entry.data) + 32
        if group and size + cost > room:
            yield group
            group, size = [], BLOCK_OVERHEAD_BYTES
        group.append(one)
        size += cost
    if group:
        yield group


def commit_struct(record: TxRecord, commit: UUID, database: str, branch: str) -> Struct:
    """The report of a committed transaction."""
    meta = dict(record.tx_meta)
    instant = None
    if record.instant_ms is not None:
        first = record.datoms[0] if record.datoms else None
        if first is not None and first.a is TX_INSTANT and first.e == record.tx:
            instant = first.v
        else:
            instant = ms_instant(record.instant_ms)
        meta[TX_INSTANT] = instant
    return Struct(
        tx=record.tx,
        instant=instant,
        commit_id=commit,
        tx_data=datom_rows(record.datoms),
        tempids=dict(record.tempids),
        tx_meta=meta,
        purged=record.purged,
        id=record.id,
        database=database,
        branch=branch,
    )

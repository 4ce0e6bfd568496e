"""The feed of transaction reports: live, or from the log and then live, without gaps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from natalog.client.log_reader import LogReader, Position, lane_stream
from natalog.client.session import Session
from natalog.core.codec import unpack
from natalog.core.errors import (
    BranchNotFound,
    DeadlineExceeded,
    LimitExceeded,
    NatalogError,
    Unavailable,
    error_from_wire,
)
from natalog.core.limits import LANE_BITS, TX_BASE
from natalog.core.record import ENTRY_COMMIT, TxRecord
from natalog.core.record import Rejection as RejectionRecord
from natalog.core.values import Keyword, ms_instant
from natalog.report import Rejection, TxReport, rejection_from_map, report_from_map

WAITING_REPORTS_MAX = 100_000
"""Reports that may wait for a slow reader of a live feed before it fails."""
WAITING_BYTES_MAX = 64 * 1024 * 1024
"""Their bytes."""

_BEGIN_TIMEOUT_S = 5.0

TX_INSTANT = Keyword("db/txInstant")
_TRANSACTIONS = ("transaction", "merge", "recovered")
_CLOSED = object()


class Feed(AsyncIterator[Any]):
    """Reports as they are committed; iterate over it.

    ``async with`` subscribes at once, so that nothing transacted inside is missed; without it the
    feed begins when the first report is asked for.
    """

    def __init__(self, session: Session, database: str, branch: str, rejections: bool) -> None:
        self._session = session
        self._database = database
        self._branch = branch
        self._rejections = rejections
        self._source: AsyncIterator[Any] | None = None

    async def __aenter__(self) -> Feed:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Any:
        await self.start()
        while True:
            assert self._source is not None
            found = await anext(self._source)
            if self._rejections or isinstance(found, TxReport):
                return found

    async def start(self) -> None:
        """Subscribe, if that has not been done."""
        if self._source is None:
            self._source = await self._open()

    async def aclose(self) -> None:
        """Stop following."""
        source, self._source = self._source, _nothing()
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()

    async def _open(self) -> AsyncIterator[Any]:
        raise NotImplementedError


class LiveFeed(Feed):
    """Reports from now on, as the transactor publishes them.

    A publication can be lost with a connection; a missing transaction number shows it, and the
    transactions between are then read from the log.
    """

    def __init__(self, session: Session, database: str, branch: str, rejections: bool) -> None:
        super().__init__(session, database, branch, rejections)
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._subscription: Subscription | None = None
        self._waiting_bytes = 0
        self._overflowed = False

    async def _open(self) -> AsyncIterator[Any]:
        subject = self._session.subject(self._database, self._branch, "report")
        transport = self._session.transport
        self._subscription = await transport.subscribe(
            subject, self._on_message, self._queue.put_nowait
        )
        transport.on_close.add(self._end)
        return self._items(await self._begin())

    async def _begin(self) -> int | None:
        """The transaction that the feed begins after; raises when there is no such branch."""
        subject = self._session.subject(self._database, "_", "info")
        try:
            answer = await self._session.ask(
                subject, {"branch": self._branch}, timeout_s=_BEGIN_TIMEOUT_S
            )
        except (Unavailable, DeadlineExceeded):
            # nobody serves now: the feed waits for who will
            return None
        return int(answer.body["max_tx"])

    def _end(self) -> None:
        self._queue.put_nowait(_CLOSED)

    async def _on_message(self, msg: Msg) -> None:
        waiting = self._queue.qsize()
        fits = not waiting or self._waiting_bytes + len(msg.data) <= WAITING_BYTES_MAX
        if waiting < WAITING_REPORTS_MAX and fits:
            self._waiting_bytes += len(msg.data)
            self._queue.put_nowait(msg.data)
        else:
            self._overflowed = True

    async def _items(self, last: int | None) -> AsyncIterator[Any]:
        while (data := await self._queue.get()) is not _CLOSED:
            if self._overflowed:
                raise LimitExceeded(
                    "too many reports wait to be read; go on with reports(since=...)",
                    since=last,
                )
            if isinstance(data, NatalogError):
                raise data
            self._waiting_bytes -= len(data)
            body = unpack(data)
            if "rejected" in body:
                yield rejection_from_map(body)
                continue
            report = report_from_map(body)
            if last is not None and report.tx <= last:
                continue
            if last is not None and report.tx != last + 1 and _same_lane(report.tx, last):
                async for missed in _between(self._reader(), last, report.tx):
                    yield missed
            last = report.tx
            yield report
        if self._subscription is not None:
            raise Unavailable("the client was closed while it followed a feed")

    def _reader(self) -> LogReader:
        return LogReader(self._session, self._database, self._branch)

    async def aclose(self) -> None:
        subscription, self._subscription = self._subscription, None
        self._session.transport.on_close.discard(self._end)
        self._end()
        if subscription is not None:
            with contextlib.suppress(NatsError, OSError):
                await subscription.unsubscribe()
        await super().aclose()


class LogFeed(Feed):
    """Every transaction after ``since``, read from the log itself, which never skips one."""

    def __init__(
        self, session: Session, database: str, branch: str, rejections: bool, since: int
    ) -> None:
        super().__init__(session, database, branch, rejections)
        self._since = since

    async def _open(self) -> AsyncIterator[Any]:
        reader = LogReader(self._session, self._database, self._branch)
        sequence = await reader.sequence_after(self._since)
        return self._items(reader, sequence)

    async def _items(self, reader: LogReader, sequence: int) -> AsyncIterator[Any]:
        while True:
            end: TxRecord | None = None
            async with aclosing(reader.blocks(sequence)) as positions:
                async for position in positions:
                    for found in _reports_of(position, self._database, self._branch):
                        if isinstance(found, Rejection) or found.tx > self._since:
                            yield found
                    end = _end_of(position)
                    if end is not None:
                        break
            if end is None:
                return
            lane = end.successor
            if lane is None:
                raise BranchNotFound(
                    f"the branch {self._branch} was deleted",
                    database=self._database,
                    branch=self._branch,
                )
            # the branch was moved by force: it goes on in another log
            stream = lane_stream(self._session.prefix, self._database, lane)
            reader = LogReader(self._session, self._database, self._branch, stream)
            sequence = 1


def follow(
    session: Session, database: str, branch: str, since: int | None, rejections: bool
) -> Feed:
    """The feed that `Conn.reports` promises."""
    if since is None:
        return LiveFeed(session, database, branch, rejections)
    return LogFeed(session, database, branch, rejections, since)


async def read_log(
    session: Session, database: str, branch: str, since: int, limit: int | None = None
) -> AsyncIterator[TxReport]:
    """The transactions after ``since`` that the log has now."""
    reader = LogReader(session, database, branch)
    end = await reader.last_sequence()
    start = await reader.sequence_after(since)
    count = 0
    async for position in reader.blocks(start, until=end):
        for found in _reports_of(position, database, branch):
            if isinstance(found, TxReport) and found.tx > since:
                if limit is not None and count >= limit:
                    return
                count += 1
                yield found


async def _between(reader: LogReader, after: int, before: int) -> AsyncIterator[TxReport]:
    end = await reader.last_sequence()
    async for position in reader.blocks(await reader.sequence_after(after), until=end):
        for found in _reports_of(position, "", ""):
            if isinstance(found, Rejection) or found.tx <= after:
                continue
            if found.tx >= before:
                return
            yield found


def _reports_of(position: Position, database: str, branch: str) -> Iterator[TxReport | Rejection]:
    for entry in position.block.entries:
        if entry.type != ENTRY_COMMIT:
            refused = RejectionRecord.decode(entry.data)
            yield Rejection(_error_of(refused), refused.id, database, branch)
            continue
        record = TxRecord.decode(entry.data)
        if record.kind not in _TRANSACTIONS:
            continue
        instant = None if record.instant_ms is None else ms_instant(record.instant_ms)
        meta = dict(record.tx_meta)
        if instant is not None:
            meta[TX_INSTANT] = instant
        yield TxReport(
            tx=record.tx,
            instant=instant,
            commit_id=entry.commit_id,
            tx_data=list(record.datoms),
            tempids=dict(record.tempids),
            tx_meta=meta,
            purged=record.purged,
            id=record.id,
            database=database,
            branch=branch,
            erased=entry.erased,
        )


def _end_of(position: Position) -> TxRecord | None:
    """The record that ends a log, if it stands in this block."""
    for entry in position.block.entries:
        if entry.type == ENTRY_COMMIT:
            record = TxRecord.decode(entry.data)
            if record.kind == "deleted":
                return record
    return None


def _error_of(record: RejectionRecord) -> NatalogError:
    return error_from_wire(
        {
            "code": record.error_code,
            "error": record.error_type,
            "message": f"the transaction was refused: {record.error_code}",
        }
    )


def _same_lane(left: int, right: int) -> bool:
    return (left - TX_BASE) >> LANE_BITS == (right - TX_BASE) >> LANE_BITS


async def _nothing() -> AsyncIterator[Any]:
    return
    yield None

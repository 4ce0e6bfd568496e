"""Erasure: the bytes of purged facts vanish from everything that is stored, with a receipt.

What a request names is purged first (`purging`).  Then the logs are read and redacted copies made
of the blocks that hold what no living branch's history needs (`rewriting`).  Putting the new index
in the place of the old one is the moment in which the erasure happens: from then on every reader
reads the copies.  What follows only clears away, can be done twice, and is completed by whoever
comes next if it was cut short: the original messages, copies that were replaced, snapshots and
segments, ingest streams.  At last the receipt is kept.

A branch may be made meanwhile at a commit whose value is about to go.  Whoever makes one puts its
log there before it looks whether it may begin; the erasure bars the commits before it looks for
logs once more.  So one of the two always sees the other.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import anyio
from anyio import to_thread

from natalog.actors.catalog import Catalog
from natalog.actors.collection import Collector, Swept
from natalog.actors.erase_request import EraseRequest
from natalog.actors.failpoints import failpoint
from natalog.actors.hub import Hub
from natalog.actors.inlets import FAILPOINTS as INLET_FAILPOINTS
from natalog.actors.lines import Line
from natalog.actors.log import LogRedacted
from natalog.actors.metrics import Metrics
from natalog.actors.names import Names, check_name
from natalog.actors.nats_port import NatsPort
from natalog.actors.payload import Struct
from natalog.actors.purging import Purged, Purger
from natalog.actors.receipts import NOT_COVERED, REPLICAS_NOT_COVERED, Receipts
from natalog.actors.redactions import Index
from natalog.actors.rewriting import Rewriter, Rewriting
from natalog.actors.searching import files_with
from natalog.actors.snapshots import Snapshots
from natalog.core.errors import (
    BranchExists,
    BranchNotFound,
    DatabaseNotFound,
    ErasureRefused,
    NatalogError,
)
from natalog.core.redaction import Counts, Wanted
from natalog.core.values import ms_instant

log = logging.getLogger("natalog.erasure")

ERASED: Final = "erased"
"""What is announced when an erasure has happened: who holds old values lets them go."""
HANDED: Final = "handed"
"""What is announced when the ingest stream of a branch was handed over."""
ATTEMPTS_MAX: Final = 8
LISTINGS_MAX: Final = 32
EMPTY_GRACE_S: Final = 60.0
"""A log that is empty for so long is not made by anybody any more."""
BAR_MAX_S: Final = 5.0
"""An index that bars commits is that of a living erasure for so long."""
INLET_WAIT_S: Final = 15.0
PAUSE_S: Final = 0.1
SEARCHES_MAX: Final = 8
OPEN_TIMEOUT_S: Final = 120.0
FAILPOINTS: Final = (
    "erase.purged",
    "erase.copied",
    "erase.barred",
    "erase.indexed",
    "erase.announced",
    "erase.original",
    "erase.originals",
    "erase.copies",
    "erase.renewed",
    *INLET_FAILPOINTS,
    "erase.inlets",
    "erase.receipt",
    "erase.done",
)


@dataclass(slots=True)
class _Job:
    """What one erasure knows before it happens."""

    ident: str
    began_ms: int
    started: float
    request: EraseRequest
    branches: list[str]
    purged: list[Purged]
    swept: Swept


class Eraser:
    """Erases from one database at a time."""

    def __init__(
        self,
        port: NatsPort,
        names: Names,
        catalog: Catalog,
        hub: Hub,
        collector: Collector,
        snapshots: Snapshots,
        metrics: Metrics,
        clock: Callable[[], int],
        *,
        data: Path | None = None,
        replicas: int = 1,
    ) -> None:
        """``data``: where the nats-server of this service keeps its files, if it has one."""
        self._port = port
        self._catalog = catalog
        self._hub = hub
        self._collector = collector
        self._snapshots = snapshots
        self._metrics = metrics
        self._clock = clock
        self._data = data
        self._replicas = replicas
        self._redactions = catalog.redactions
        self.purger = Purger(port, names, hub, clock)
        self._rewriter = Rewriter(catalog.lines, catalog.redactions)
        self.receipts = Receipts(port, names, catalog.redactions)

    # --- requests ----------------------------------------------------------------------------

    async def erase(self, database: str, request: EraseRequest) -> Struct:
        """Erase; the receipt.

        Raises `DatabaseNotFound`, `BranchNotFound`, `ErasureRefused`: then nothing was erased,
        though facts may have been purged.
        """
        check_name(database)
        began = time.monotonic()
        try:
            found = await self._erase(database, request)
        except BaseException:
            self._metrics.erasures.labels("failed").inc()
            raise
        if not request.dry_run and not request.listing:
            self._metrics.erasures.labels("repeated" if found.get("repeated") else "done").inc()
            self._metrics.erasure_seconds.observe(time.monotonic() - began)
        return found

    async def _erase(self, database: str, request: EraseRequest) -> Struct:
        names = await self._catalog.branches(database)  # raises without a database
        if request.listing:
            return Struct(receipts=await self.receipts.all(database))
        missing = [name for name in request.branches or () if name not in names]
        if missing:
            raise BranchNotFound(
                f"The database {database} has no branch {missing[0]}.",
                database=database,
                branch=missing[0],
            )
        if not request.dry_run:
            await self.complete(database)
        if request.ident is not None:
            known = await self.receipts.of(database, request.ident)
            if known is not None:
                return Struct(known, repeated=True)
        job = _Job(
            request.ident or str(uuid4()),
            self._clock(),
            time.monotonic(),
            request,
            list(request.branches or names),
            [],
            Swept(),
        )
        job.swept = await self._collector.collect(database, dry_run=request.dry_run)
        wanted = await self._purge(database, job)
        failpoint("erase.purged")
        index, found = await self._decide(database, job, wanted)
        if request.dry_run:
            return self._receipt(database, job, found)
        if not found:
            receipt = self._receipt(database, job, found)
            receipt["ended"] = ms_instant(self._clock())
            await self.receipts.keep(database, receipt)
            return receipt
        return await self._finish(database, index, request.containing)

    async def _purge(self, database: str, job: _Job) -> Wanted | None:
        """Purge what is named, on every branch that is; what to look for in logs."""
        request = job.request
        if not request.purges:
            return None
        wanted = Wanted(
            await self.purger.patterns(database, job.branches, request), request.containing
        )
        run = uuid4().hex
        for branch in job.branches:
            try:
                job.purged.append(await self.purger.purge(database, branch, request, run))
            except BranchNotFound:
                continue  # deleted meanwhile
        return wanted

    # --- deciding ----------------------------------------------------------------------------

    async def _decide(
        self, database: str, job: _Job, wanted: Wanted | None
    ) -> tuple[Index, Rewriting]:
        """Make the copies and put the index that names them into force."""
        dry_run = job.request.dry_run
        yielding = job.branches if dry_run and wanted is not None else ()
        for _ in range(ATTEMPTS_MAX):
            index = await self._redactions.index(database)
            if not dry_run:
                await self._redactions.prepare(database)
            lines = await self._lines(database)
            try:
                found = await self._rewriter.rewrite(
                    index, lines, wanted, store=not dry_run, yielding=yielding
                )
            except LogRedacted:
                continue
            if dry_run or not found:
                return index, found
            failpoint("erase.copied")
            decided = await self._commit(database, job, found)
            if decided is not None:
                return decided, found
        raise ErasureRefused(
            f"The branches of {database} changed again and again; nothing was erased.",
            database=database,
        )

    async def _commit(self, database: str, job: _Job, found: Rewriting) -> Index | None:
        """Put the new index into force; None when a branch came in between that needs more."""
        index = await self._redactions.replace(
            found.index, replace(found.index.root, barred=found.untold)
        )
        failpoint("erase.barred")
        barred = time.monotonic()
        lines = await self._lines(database)
        fresh = [line for line in lines if line.lane not in found.lanes]
        needs = any(
            line.last_seq > 1 or (line.base is not None and index.barred(*_place(line)))
            for line in fresh
        )
        gone = found.lanes - {line.lane for line in lines}
        if needs or gone or time.monotonic() - barred > BAR_MAX_S:
            await self._redactions.replace(index, replace(index.root, barred={}))
            return None
        ordered = sorted(found.tables)
        tables = dict(index.root.tables)
        pieces = await self._redactions.put(
            database, (found.tables[lane].encode() for lane in ordered)
        )
        tables.update(zip(ordered, pieces, strict=True))
        tables = {lane: names for lane, names in tables.items() if lane in found.lanes}
        receipt = self._receipt(database, job, found)
        root = replace(index.root, epoch=index.epoch + 1, tables=tables, barred={}, pending=receipt)
        decided = await self._redactions.replace(index, root)
        failpoint("erase.indexed")
        return decided

    async def _lines(self, database: str) -> list[Line]:
        """All logs, after moves of names that were cut short are completed."""
        await self._catalog.lines.settle(database)
        before: list[Line] = []
        for _ in range(LISTINGS_MAX):
            lines = await self._catalog.lines.all(database)
            if not any(line.lane == 0 and line.last_seq for line in lines):
                raise DatabaseNotFound(f"There is no database {database}.", database=database)
            # A log that moves between two pages of a listing may be on neither.  And the logs are
            # taken as long as the second listing says: what one begins at is then in another.
            if [line.lane for line in lines] == [line.lane for line in before]:
                left = await self._given_up(lines)
                if not left:
                    return lines
            before = lines
        raise ErasureRefused(
            f"The branches of {database} change all the time; nothing was erased.",
            database=database,
        )

    async def _given_up(self, lines: list[Line]) -> int:
        """Remove logs that a creation left empty when it was cut short; how many there were.

        They would keep what they were to begin with.  Appending decides: who is still making one
        hears that the name is taken.
        """
        count = 0
        for line in lines:
            if line.last_seq or time.time() - line.created_s < EMPTY_GRACE_S:
                continue
            with contextlib.suppress(BranchExists):
                await self._catalog.lines.clear(line)
                count += 1
        return count

    # --- clearing away -----------------------------------------------------------------------

    async def complete(self, database: str) -> None:
        """Clear away what an erasure that was cut short has left."""
        index = await self._redactions.index(database)
        if index.root.pending is not None:
            log.info("completing the erasure %s of %s", index.root.pending.get("id"), database)
            await self._finish(database, index)
        elif index.root.barred and index.age_s > BAR_MAX_S:
            await self._redactions.replace(index, replace(index.root, barred={}))
        if index.version:
            for branch in await self._catalog.branches(database):
                await self._catalog.inlets.mend(database, branch)

    async def _finish(self, database: str, index: Index, text: str | None = None) -> Struct:
        """Everything after the index: can be done twice, and by two at once."""
        receipt = Struct(index.root.pending or {})
        await self._catalog.announce(ERASED, database)
        await self._hub.erased(database)
        failpoint("erase.announced")
        verified, freed = await self._erase_originals(database, index)
        failpoint("erase.originals")
        copies = await self._redactions.sweep(index)
        failpoint("erase.copies")
        size = self._snapshots.store_bytes.get(database, 0)
        await self._snapshots.renew(database)
        freed += max(0, size - self._snapshots.store_bytes.get(database, 0))
        failpoint("erase.renewed")
        inlets = await self._renew_inlets(database)
        failpoint("erase.inlets")
        if text is not None and self._data is not None:
            verified["files_with_the_text"] = await self._search(self._data, text)
        receipt |= {
            "bytes": int(receipt.get("collected_bytes") or 0) + freed,
            "copies_replaced": copies,
            "snapshots": "renewed",
            "ingest": inlets,
            "verified": Struct(verified),
            "ended": ms_instant(self._clock()),
        }
        await self.receipts.keep(database, receipt)
        failpoint("erase.receipt")
        try:
            await self._redactions.replace(index, replace(index.root, pending=None))
        except ErasureRefused:
            log.info("somebody else has completed the erasure of %s", database)
        failpoint("erase.done")
        self._metrics.erased_facts.inc(receipt["facts"])
        log.info("erased %d facts from %s: %s", receipt["facts"], database, receipt["id"])
        return receipt

    async def _erase_originals(self, database: str, index: Index) -> tuple[dict[str, Any], int]:
        """Erase the messages that have copies; what was verified, and bytes that they had.

        Every log that was touched is read once more, so that its chain is known to hold.
        """
        erased = absent = blocks = freed = 0
        for lane in sorted(index.root.tables):
            line = await self._catalog.lines.of_lane(database, lane)
            if line is None:
                continue
            table = await self._redactions.table(index, lane)
            there = await self._port.deleted(line.stream)
            for seq in sorted(table.copies):
                if seq not in there and await self._port.erase(line.stream, seq):
                    failpoint("erase.original")
            gone = await self._port.deleted(line.stream)
            erased += len(table.copies)
            for seq in table.copies:
                if seq not in there:
                    absent += await self._port.read(line.stream, seq=seq) is None
                else:
                    absent += seq in gone
            async with aclosing(self._catalog.lines.log(line).blocks(table=table)) as batches:
                async for batch in batches:
                    blocks += len(batch)
            after = await self._catalog.lines.of_lane(database, lane)
            freed += 0 if after is None else max(0, line.bytes - after.bytes)
        return {"erased_blocks": erased, "absent": absent, "chain_blocks": blocks}, freed

    async def _search(self, data: Path, text: str) -> list[str]:
        """The files that hold a text; the server removes those of deleted streams in a moment."""
        for attempt in range(SEARCHES_MAX):
            if attempt:
                await anyio.sleep(PAUSE_S * attempt)
            found = await to_thread.run_sync(files_with, data, text.encode())
            if not found:
                break
        return [str(path.relative_to(data)) for path in found]

    async def _renew_inlets(self, database: str) -> dict[str, str]:
        """Hand the ingest streams over; what became of them, by branch."""
        inlets = self._catalog.inlets
        waiting = []
        for branch in await self._catalog.branches(database):
            await inlets.hand_over(database, branch)
            if any(not inlet.live for inlet in await inlets.all(database, branch)):
                await self._catalog.announce(HANDED, database, branch)
                waiting.append(branch)
        found = dict.fromkeys(waiting, "waits for transactions that are not applied yet")
        with anyio.move_on_after(INLET_WAIT_S):
            for branch in waiting:
                while await self._left(database, branch):
                    await anyio.sleep(PAUSE_S)
                found[branch] = "renewed"
        return found

    async def _left(self, database: str, branch: str) -> int:
        """How many streams of a branch still hold what is not applied."""
        try:
            await self._hub.value(database, branch, None, OPEN_TIMEOUT_S)
        except NatalogError as error:
            log.warning("%s.%s cannot be opened: %s", database, branch, error.code)
        state = self._hub.state(database, branch)
        through = 0 if state is None else state.ingest_seq
        return await self._catalog.inlets.clear(database, branch, through)

    # --- receipts ----------------------------------------------------------------------------

    def _receipt(self, database: str, job: _Job, found: Rewriting) -> Struct:
        """What there is to say, as far as it is known; free of values."""
        request = job.request
        total = Counts()
        lanes = []
        for lane, one in sorted(found.examined.items()):
            counts = one.counts
            for name in ("blocks", "records", "facts", "tx_meta", "names", "ids"):
                setattr(total, name, getattr(total, name) + getattr(counts, name))
            lanes.append(
                Struct(
                    lane=lane,
                    branch=one.line.branch,
                    living=one.living,
                    blocks=one.blocks,
                    redacted=counts.blocks,
                    facts=counts.facts,
                    commits=one.commits,
                )
            )
        kept = {
            one.line.branch: one.kept for one in found.examined.values() if one.living and one.kept
        }
        return Struct(
            id=job.ident,
            database=database,
            began=ms_instant(job.began_ms),
            dry_run=request.dry_run,
            requested=Struct(
                tx_data=len(request.tx_data),
                facts=len(request.facts),
                containing=request.containing is not None,
                branches=list(request.branches or ["all"]),
            ),
            purged={
                one.branch: Struct(facts=one.facts, transactions=one.transactions, left=one.left)
                for one in job.purged
            },
            lanes=lanes,
            blocks=total.blocks,
            records=total.records,
            facts=total.facts,
            tx_meta=total.tx_meta,
            names=total.names,
            ids=total.ids,
            commits=sum(one.commits for one in found.examined.values()),
            kept=kept,
            collected=Struct(commits=job.swept.removed, logs=len(job.swept.streams)),
            collected_bytes=job.swept.bytes,
            seconds=[round(lap, 3) for lap in found.seconds],
            not_covered=[*NOT_COVERED, *((REPLICAS_NOT_COVERED,) if self._replicas > 1 else ())],
        )


def _place(line: Line) -> tuple[int, int]:
    assert line.base is not None
    return line.base.lane, line.base.tx


__all__ = ["ERASED", "FAILPOINTS", "HANDED", "Eraser"]

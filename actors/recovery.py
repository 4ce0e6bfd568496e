"""Going on with a log that has lost blocks: what is left is examined, and the loss is accepted.

Nothing is accepted by itself.  `examine` says how far a log is sound and what contradicts it;
`recover` takes the number of the last block to keep from whoever is responsible, cuts the log there
and appends a block with a record of kind *recovered*, so that the decision is part of the history.
Transaction and entity ids that were given out in what is lost are not given out again, as far as
they are known.  It holds the lease meanwhile: no service may be taking transactions.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import uuid4

import anyio
from anyio import to_thread

from natalog.actors.archive import Archive
from natalog.actors.catalog import Catalog, record_of
from natalog.actors.failpoints import failpoint
from natalog.actors.heads import Head, Heads
from natalog.actors.lease import Lease
from natalog.actors.lines import Line
from natalog.actors.log import BranchLog, no_log
from natalog.actors.names import Names, check_name
from natalog.actors.nats_port import NatsPort
from natalog.actors.reader import TIME_HEADER, Stored, StreamReader
from natalog.actors.refill import Refill
from natalog.actors.snapshot_refs import SnapshotList
from natalog.actors.state import BranchState
from natalog.core.errors import BadRequest, LogCorrupt, NatalogError, Unavailable
from natalog.core.record import ENTRY_COMMIT, Entry, TxRecord, decode_block, encode_block
from natalog.core.transact import process

log = logging.getLogger("natalog.recovery")

RECOVERING: Final = "recovering"
"""Endpoint and last word of the stream that keeps the sound part while a log is made anew."""
REFILLING: Final = "refilling"
"""Endpoint of a log that is being made anew."""
FAILPOINTS: Final = ("recover.saved", "recover.removed", "recover.filled", "recover.appended")
LEASE_END_S: Final = 2.0
_ORIGINAL: Final = "natalog-original"
_COMPLETE: Final = "natalog-complete"
_SETTINGS: Final = (
    *("name", "subjects", "storage", "retention", "discard", "num_replicas", "allow_direct"),
    *("duplicate_window", "metadata"),
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is known of a log.

    ``sound``: the last block up to which everything is whole; ``fault``: why not further, None at
    the end.  ``last``: the last block that is there.  ``head`` and ``snapshot``: blocks that are
    known to have been acknowledged, 0 without one.  ``contradiction``: what refuses the log.
    """

    database: str
    branch: str
    lane: int
    sound: int
    fault: str | None
    last: int
    head: int
    snapshot: int
    contradiction: str | None

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to recover from."""
        return self.fault is None and self.contradiction is None


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was done: blocks from ``first`` to ``last`` are gone, ``tx`` is the new transaction."""

    database: str
    branch: str
    first: int
    last: int
    tx: int
    sequence: int


class Recovery:
    """Examines and recovers the logs of living branches."""

    def __init__(
        self, port: NatsPort, names: Names, clock: Callable[[], int], *, replicas: int = 1
    ) -> None:
        self._port = port
        self._names = names
        self._clock = clock
        self._replicas = replicas
        self._catalog = Catalog(port, names, clock, replicas=replicas)
        self._lines = self._catalog.lines
        self._archive = Archive(port, names, self._lines, tuple)
        self._heads = Heads(port, names, replicas=replicas)

    # --- looking -----------------------------------------------------------------------------

    async def examine(self, database: str, branch: str) -> Diagnosis:
        """Read a log from its beginning as far as it is sound; nothing is changed."""
        line = await self._line(database, branch)
        _, found = await self._examined(line)
        return found

    async def _line(self, database: str, branch: str) -> Line:
        check_name(database)
        check_name(branch, "branch")
        await self._port.notice_copies(self._names.log_stream(database))
        line = await self._lines.live(database, branch)
        if line is None:
            raise no_log(database, branch)
        return line

    async def _examined(
        self, line: Line, until: int | None = None
    ) -> tuple[BranchState, Diagnosis]:
        """The state that the sound part folds to, up to block ``until``."""
        branch_log = self._lines.log(line)
        state = BranchState(line.database, line.branch, line.lane)
        fault: str | None = None
        try:
            await self._fold(state, branch_log, until)
        except LogCorrupt as error:
            fault = error.message
        head = await self._heads.read(line.database, line.lane)
        heads, snapshots = [], []
        if head is not None and head.first_hash == state.first_hash:
            heads = [(head.seq, head.hash)]
        listed = await self._snapshots(line)
        if listed is not None and listed.first_hash == state.first_hash:
            snapshots = [(ref.seq, ref.hash) for ref in listed.refs]
        contradiction = None
        for seq, expected in sorted([*heads, *snapshots]):
            if seq > line.last_seq:
                contradiction = f"block {seq} was acknowledged, the log ends with {line.last_seq}"
                break
            if seq <= state.position.seq and (await branch_log.read_block(seq)).hash != expected:
                contradiction = f"block {seq} is not the one that was acknowledged"
                break
        return state, Diagnosis(
            line.database,
            line.branch,
            line.lane,
            state.position.seq,
            fault,
            line.last_seq,
            max((seq for seq, _ in heads), default=0),
            max((seq for seq, _ in snapshots), default=0),
            contradiction,
        )

    async def _fold(self, state: BranchState, branch_log: BranchLog, until: int | None) -> None:
        index = await self._lines.redactions.index(state.database)
        await self._archive.begin(state, branch_log, index)
        table = await self._lines.redactions.table(index, state.lane)
        async with aclosing(branch_log.blocks(until=until, table=table)) as batches:
            async for batch in batches:
                for placed in batch:
                    await to_thread.run_sync(state.fold, placed)

    async def _snapshots(self, line: Line) -> SnapshotList | None:
        stream = self._names.snapshots_stream(line.database)
        if await self._port.stream_info(stream) is None:
            return None
        subject = self._names.snapshots(line.database, line.lane)
        message = await self._port.read(stream, last_by_subject=subject)
        if message is None:
            return None
        version = int((message.headers or {})["Nats-Sequence"])
        return SnapshotList.decode(message.data, version)

    # --- accepting ---------------------------------------------------------------------------

    async def recover(self, database: str, branch: str, accept_loss_after: int) -> Recovered:
        """Keep the blocks up to a number, give up the rest, and say so in the log.

        Raises `BadRequest` when nothing is wrong with the log or when it is not sound so far,
        `Unavailable` when a service is taking transactions.
        """
        async with self._alone():
            await self._resume(check_name(database))
            line = await self._line(database, branch)
            _, diagnosis = await self._examined(line)
            if diagnosis.healthy:
                raise BadRequest(f"The log of {database}.{branch} is sound; nothing is lost.")
            if not 0 < accept_loss_after <= diagnosis.sound:
                raise BadRequest(
                    f"The log of {database}.{branch} is sound up to block {diagnosis.sound}: "
                    f"what is kept ends there or before.",
                    sound=diagnosis.sound,
                )
            table = await self._lines.log(line).table()
            if any(seq > accept_loss_after for seq in table.copies):
                raise BadRequest(
                    f"Blocks that were erased lie behind block {accept_loss_after}; restore a "
                    f"backup instead.",
                    sequence=accept_loss_after,
                )
            lost = await self._lost(line, accept_loss_after)
            if line.last_seq > accept_loss_after:
                await self._cut(line, accept_loss_after)
                line = await self._line(database, branch)
            state = BranchState(database, branch, line.lane)
            branch_log = self._lines.log(line)
            await self._fold(state, branch_log, accept_loss_after)
            last = max(diagnosis.last, diagnosis.head, diagnosis.snapshot)
            record = self._record(state, lost, accept_loss_after + 1, last)
            entry = Entry(ENTRY_COMMIT, record.encode())
            await self._forget_snapshots(line, accept_loss_after)
            at = await branch_log.append(state.position, encode_block(state.position.hash, [entry]))
            failpoint("recover.appended")
            head = Head(at.seq, at.hash, state.first_hash, record.tx, record.max_eid or 0)
            await self._heads.write(database, line.lane, head)
            await self._catalog.announce("changed", database, branch)
            return Recovered(database, branch, accept_loss_after + 1, last, record.tx, at.seq)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Hold the lease meanwhile."""
        lease = Lease(
            self._port, self._names, f"recovery-{uuid4().hex[:8]}", replicas=self._replicas
        )
        await lease.start()
        if not lease.held:
            await lease.release()
            raise Unavailable("A service is taking transactions; stop it first.")
        renewing = asyncio.get_running_loop().create_task(lease.run())
        try:
            yield
        finally:
            renewing.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([renewing], timeout=LEASE_END_S)
                await lease.release()

    async def _lost(self, line: Line, kept: int) -> tuple[int, int]:
        """The highest transaction and entity ids that are known from what is given up."""
        tx = eid = 0
        head = await self._heads.read(line.database, line.lane)
        if head is not None:
            tx, eid = head.tx, head.max_eid
        listed = await self._snapshots(line)
        if listed is not None:
            tx = max([tx, *(ref.tx for ref in listed.refs)])
        if line.last_seq > kept:
            reader = StreamReader(self._port, line.stream, kept + 1, gaps=True)
            async with aclosing(reader.messages(line.last_seq)) as batches:
                async for batch in batches:
                    for message in batch:
                        more_tx, more_eid = _ids(message.data)
                        tx, eid = max(tx, more_tx), max(eid, more_eid)
        return tx, eid

    def _record(self, state: BranchState, lost: tuple[int, int], first: int, last: int) -> TxRecord:
        db = state.db
        tx, eid = max(lost[0], db.max_tx) + 1, max(lost[1], db.max_eid)
        report = process(db, [], None, now_ms=self._clock(), tx=tx)
        made = record_of(report, db, kind="recovered")
        return replace(
            made,
            max_eid=eid,
            config={"lost": [first, last], "accepted": self._clock()},
        )

    async def _forget_snapshots(self, line: Line, kept: int) -> None:
        """Snapshots of what is given up must not contradict the log for ever."""
        listed = await self._snapshots(line)
        if listed is None:
            return
        refs = tuple(ref for ref in listed.refs if ref.seq <= kept)
        await self._port.append(
            self._names.snapshots(line.database, line.lane),
            replace(listed, refs=refs).encode(),
            expected_last_of_subject=listed.version,
            stream=self._names.snapshots_stream(line.database),
        )

    # --- cutting -----------------------------------------------------------------------------

    def _spare(self, line: Line) -> str:
        return f"{line.stream.removesuffix('=log')}={RECOVERING}"

    async def _cut(self, line: Line, kept: int) -> None:
        """Make a log anew that ends with block ``kept``; cut short, it is completed by `_resume`.

        JetStream removes messages, but gives their numbers to no other; so the blocks that are kept
        move to a stream beside it and back.
        """
        spare = self._spare(line)
        info = await self._port.stream_info(line.stream)
        assert info is not None
        original = {key: info["config"][key] for key in _SETTINGS if key in info["config"]}
        about = original.get("metadata") or {}
        original["metadata"] = {k: v for k, v in about.items() if not k.startswith("_nats.")}
        await self._port.stream_delete(spare)
        config = {
            **original,
            "name": spare,
            "subjects": [self._names.subject(line.database, f"_{line.lane}", RECOVERING)],
            "metadata": {_ORIGINAL: json.dumps(original)},
        }
        made = await self._port.stream_create(config)
        await self._copy(line.stream, spare, config["subjects"][0], kept)
        await self._port.api(
            f"STREAM.UPDATE.{spare}",
            {**made["config"], "metadata": {**config["metadata"], _COMPLETE: "true"}},
            timeout_s=15,
        )
        failpoint("recover.saved")
        await self._port.stream_delete(line.stream)
        failpoint("recover.removed")
        await self._resume(line.database)

    async def _resume(self, database: str) -> None:
        """Make logs anew whose sound part stands complete in a stream beside them."""
        for info in await self._port.streams(self._names.subject(database, "*", RECOVERING)):
            config: Mapping[str, Any] = info["config"]
            about = config.get("metadata") or {}
            if _COMPLETE in about:
                original = json.loads(about[_ORIGINAL])
                await self._refill(config["name"], original, int(info["state"]["last_seq"]))
            await self._port.stream_delete(config["name"])

    async def _refill(self, spare: str, original: dict[str, Any], kept: int) -> None:
        """Make a log again from its sound part, unless that was done."""
        name = original["name"]
        hidden = f"{self._names.prefix}.{name.split('=')[-3]}.{name.split('=')[-2]}.{REFILLING}"
        there = await self._port.stream_info(name)
        if there is not None and there["config"]["subjects"] != [hidden]:
            return
        if there is not None:
            await self._port.stream_delete(name)
        await self._port.stream_create({**original, "subjects": [hidden]})
        await self._copy(spare, name, hidden, kept)
        failpoint("recover.filled")
        made = await self._port.stream_info(name)
        assert made is not None
        await self._port.api(
            f"STREAM.UPDATE.{name}",
            {**made["config"], "subjects": original["subjects"]},
            timeout_s=15,
        )

    async def _copy(self, source: str, target: str, subject: str, kept: int) -> None:
        """The messages of a stream up to one, at the same numbers; erased ones stay away."""
        refill = Refill(self._port, target, subject)
        reader = StreamReader(self._port, source, gaps=True)
        async with aclosing(reader.messages(kept)) as batches:
            async for batch in batches:
                for message in batch:
                    if message.seq <= kept:
                        await refill.put(message.seq, message.data, _headers(message))
        await refill.skip_to(kept + 1)
        await refill.finish()


def _headers(message: Stored) -> dict[str, str]:
    found = {
        key: value
        for key, value in message.headers.items()
        if key == "Nats-Msg-Id" or not key.startswith("Nats-")
    }
    if message.time_ms is not None:
        found[TIME_HEADER] = str(message.time_ms)
    return found


def _ids(block: bytes) -> tuple[int, int]:
    """The highest transaction and entity id of a block, 0 of one that cannot be read."""
    tx = eid = 0
    try:
        for entry in decode_block(block).entries:
            if entry.type == ENTRY_COMMIT:
                record = TxRecord.decode(entry.data)
                tx, eid = max(tx, record.tx), max(eid, record.max_eid or 0)
    except NatalogError:
        pass
    return tx, eid


__all__ = ["FAILPOINTS", "Diagnosis", "Recovered", "Recovery"]

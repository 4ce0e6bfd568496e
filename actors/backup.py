"""Backups: the streams of a database, read while the service goes on, written as one file.

What is written is one consistent moment: whatever a log refers to in another log is there.  Ingest
streams come first, so that what they lack has been applied in the logs; then the logs; then what
says of them what was swept and erased.  Messages that were erased are left out.  Everything that
can be computed again (snapshots, segments, published heads) is left out too.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from anyio import to_thread

from natalog.actors.lines import Line, Lines
from natalog.actors.metrics import package_version
from natalog.actors.names import Names, check_name
from natalog.actors.nats_port import JetStreamError, NatsPort
from natalog.actors.reader import TIME_HEADER, Hole, Stored, StreamReader
from natalog.core.backup import BackupWriter, Message, Origin, Section, Totals
from natalog.core.chain import FIRST_HASH
from natalog.core.erasures import Copy, Table
from natalog.core.errors import DatabaseNotFound, LogCorrupt, Unavailable
from natalog.core.record import COMMIT_KINDS, ENTRY_COMMIT, Block, decode_block, peek

log = logging.getLogger("natalog.backup")

KEPT_SETTINGS: Final = (
    *("storage", "retention", "discard", "max_msgs", "max_msgs_per_subject", "max_bytes"),
    *("max_age", "max_msg_size", "allow_direct", "allow_msg_ttl", "duplicate_window"),
    "allow_rollup_hdrs",
)
LISTINGS_MAX: Final = 20
ROUNDS_MAX: Final = 10
KEY_BYTES: Final = 8
"""So much of a commit id tells whether the backup has it."""

Progress = Callable[[int], None]
"""Told how many bytes more were read."""


@dataclass(slots=True)
class Reach:
    """How far a log was written."""

    seq: int = 0
    hash: bytes = FIRST_HASH


class Backup:
    """Writes one database through ``write``, which takes bytes."""

    def __init__(
        self,
        port: NatsPort,
        names: Names,
        database: str,
        write: Callable[[bytes], object],
        progress: Progress = lambda _: None,
    ) -> None:
        self._port = port
        self._names = names
        self._database = check_name(database)
        self._lines = Lines(port, names)
        self._redactions = self._lines.redactions
        self._write = write
        self._progress = progress
        self._reached: dict[str, Reach] = {}
        self._commits = array("Q")
        self._foreign = array("Q")
        self._stream_begin = names.lane_stream(database, 0).removesuffix("db=log")
        self._subject_begin = f"{names.prefix}.{database}."

    async def run(self) -> Totals:
        """Write the backup and return what is in it.

        Raises `DatabaseNotFound`, `LogCorrupt` when a log is not sound, and `Unavailable` when
        the database was changed (collected, erased from) so that it must be begun again.
        """
        await self._port.notice_copies(self._names.log_stream(self._database))
        streams = await self._listed()
        if self._names.log_stream(self._database) not in streams:
            raise DatabaseNotFound(
                f"There is no database {self._database}.", database=self._database
            )
        out = BackupWriter(self._write)
        out.origin(Origin(self._database, time.time_ns() // 1_000_000, package_version()))
        kinds = {name: self._kind(name) for name in streams}
        for name in sorted(name for name, kind in kinds.items() if kind == "tx"):
            await self._copy(out, streams[name])
        for _ in range(ROUNDS_MAX):
            # what a log refers to was written before it, so a later look at all logs has it
            await self._logs(out, await self._listed())
            if not await to_thread.run_sync(self._lacking):
                break
        else:
            raise Unavailable(f"{self._database} changes faster than it is read; try again.")
        streams = await self._listed()
        for name, info in sorted(streams.items()):
            if self._kind(name) == "other":
                await self._copy(out, info)
        return out.finish()

    # --- what there is -----------------------------------------------------------------------

    async def _listed(self) -> dict[str, Mapping[str, Any]]:
        """Information on every stream of the database, as they were at one moment."""
        before: Any = None
        for _ in range(LISTINGS_MAX):
            found: dict[str, Mapping[str, Any]] = {
                str(info["config"]["name"]): info
                for info in await self._port.streams(f"{self._subject_begin}>")
                if str(info["config"]["name"]).startswith(self._stream_begin)
            }
            shape = {name: (i["config"], i.get("created")) for name, i in found.items()}
            if shape == before:
                return found
            before = shape
        raise Unavailable(f"The branches of {self._database} change all the time; try again.")

    def _kind(self, stream: str) -> str:
        """``log``, ``tx``, ``other``, or ``derived``: what can be computed again."""
        last = stream[len(self._stream_begin) :].rpartition("=")[2]
        if self._names.lane_of(self._database, stream) is not None:
            return "log"
        if last == "tx" or last.startswith("tx_"):
            return "tx"
        if last in ("snapshots", "heads") or last.startswith("segments_"):
            return "derived"
        return "other"

    def _section(self, info: Mapping[str, Any]) -> Section:
        config = info["config"]
        kept = {key: config[key] for key in KEPT_SETTINGS if config.get(key) not in (None, 0, -1)}
        about = config.get("metadata") or {}
        kept["metadata"] = {k: v for k, v in about.items() if not k.startswith("_nats.")}
        subjects = tuple(self._relative(subject) for subject in config["subjects"])
        return Section(str(config["name"])[len(self._stream_begin) :], subjects, kept)

    def _relative(self, subject: str) -> str:
        if not subject.startswith(self._subject_begin):
            raise Unavailable(f"A stream of {self._database} has the subject {subject}.")
        return subject[len(self._subject_begin) :]

    # --- copying -----------------------------------------------------------------------------

    async def _copy(self, out: BackupWriter, info: Mapping[str, Any]) -> None:
        """The messages of a stream that may have gaps."""
        name, last = str(info["config"]["name"]), int(info["state"]["last_seq"])
        out.section(self._section(info))
        if info["state"]["messages"]:
            reader = StreamReader(self._port, name, int(info["state"]["first_seq"]), gaps=True)
            async with aclosing(reader.messages(last)) as batches:
                async for batch in batches:
                    for message in batch:
                        if message.seq <= last:
                            self._put(out, message)
        out.end_section(last)

    async def _logs(self, out: BackupWriter, streams: Mapping[str, Mapping[str, Any]]) -> None:
        lines = [line for info in streams.values() if (line := self._lines.line(info)) is not None]
        for line in sorted(lines, key=lambda line: line.lane):
            known = line.stream in self._reached
            reach = self._reached.setdefault(line.stream, Reach())
            if known and line.last_seq == reach.seq:
                continue
            out.section(self._section(streams[line.stream]))
            table = await self._lines.log(line).table()
            try:
                await self._log(out, line, reach, table)
            except Hole:
                if await self._lines.log(line).table() != table:
                    raise Unavailable(
                        f"Something was erased from {self._database} meanwhile; try again."
                    ) from None
                raise
            except JetStreamError as error:
                if error.status == 404:
                    raise Unavailable(
                        f"{self._database} was collected meanwhile; try again."
                    ) from error
                raise
            out.end_section(line.last_seq)

    async def _log(self, out: BackupWriter, line: Line, reach: Reach, table: Table) -> None:
        """The blocks of a log behind ``reach``, verified; those that were erased are left out."""
        erased = table.copies
        reader = StreamReader(self._port, line.stream, reach.seq + 1, erased=erased.__contains__)
        async with aclosing(reader.messages(line.last_seq)) as batches:
            async for batch in batches:
                for message in batch:
                    if message.seq > line.last_seq:
                        break
                    await self._pass(line, reach, erased, message.seq)
                    if message.seq not in erased:
                        self._block(line, reach, message)
                        self._put(out, message)
        await self._pass(line, reach, erased, line.last_seq + 1)
        if reach.seq != line.last_seq:
            raise LogCorrupt(
                f"Block {reach.seq + 1} of {self._database}.{line.branch} is missing.",
                database=self._database,
                branch=line.branch,
                sequence=reach.seq + 1,
            )

    async def _pass(
        self, line: Line, reach: Reach, erased: Mapping[int, Copy], before: int
    ) -> None:
        """Go on over erased blocks, whose redacted copies are another stream's."""
        while reach.seq + 1 < before and reach.seq + 1 in erased:
            copy = erased[reach.seq + 1]
            redacted, _ = await self._redactions.copy(self._database, copy)
            reach.seq, reach.hash = reach.seq + 1, copy.hash
            self._note(line, reach.seq, redacted.block)

    def _note(self, line: Line, seq: int, block: Block) -> None:
        """Which commits a block has, and which it refers to in other logs."""
        for entry in block.entries:
            if entry.type != ENTRY_COMMIT:
                continue
            kind, _, parents = peek(entry.data)
            if kind in COMMIT_KINDS:
                self._commits.append(_key(entry.commit_id.bytes))
            begins = seq == 1 and line.lane != 0
            self._foreign.extend(map(_key, parents if begins else parents[1:]))

    def _block(self, line: Line, reach: Reach, message: Stored) -> None:
        try:
            block = decode_block(message.data, reach.hash)
            self._note(line, message.seq, block)
        except LogCorrupt as error:
            raise LogCorrupt(
                f"{error.message[:-1]} (block {message.seq} of {self._database}.{line.branch}).",
                **error.data,
            ) from error
        reach.seq, reach.hash = message.seq, block.hash

    def _put(self, out: BackupWriter, message: Stored) -> None:
        headers = {
            key: value
            for key, value in message.headers.items()
            if key == "Nats-Msg-Id" or not (key.startswith("Nats-") or key == TIME_HEADER)
        }
        subject = self._relative(message.subject)
        out.message(Message(message.seq, subject, headers, message.time_ms, message.data))
        self._progress(len(message.data))

    def _lacking(self) -> bool:
        """Whether a log refers to a commit that was not written."""
        wanted = np.frombuffer(self._foreign, dtype=np.uint64)
        return not bool(np.isin(wanted, np.frombuffer(self._commits, dtype=np.uint64)).all())


def _key(commit: bytes) -> int:
    return int.from_bytes(commit[:KEY_BYTES], "little")


__all__ = ["Backup"]

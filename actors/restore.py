"""Restoring a backup: the same streams again, under the same or another name of the database.

The logs and ingest streams are filled under subjects of their own, where no service looks, and get
their names when the whole backup has proved to be sound; the log that the database begins with gets
its name last.  Cut short before, a restore leaves streams that `Restore` refuses to mix with, and
removes when it is told to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from natalog.actors.catalog import Catalog
from natalog.actors.failpoints import failpoint
from natalog.actors.lines import Lines
from natalog.actors.names import Names, check_name
from natalog.actors.nats_port import JetStreamError, NatsPort
from natalog.actors.reader import TIME_HEADER
from natalog.actors.refill import Refill
from natalog.core.backup import Frame, Message, Origin, Section, SectionEnd, Totals
from natalog.core.chain import FIRST_HASH
from natalog.core.errors import BackupCorrupt, DatabaseExists, LogCorrupt
from natalog.core.record import decode_block

log = logging.getLogger("natalog.restore")

RESTORING: Final = "restoring"
"""Endpoint of the subjects that streams have until a restore is through."""
FAILPOINTS: Final = ("restore.filled", "restore.named")

Progress = Callable[[int], None]


@dataclass(slots=True)
class _Target:
    """A stream that is being filled."""

    name: str
    subjects: tuple[str, ...]
    config: Mapping[str, Any]
    kind: str
    hidden: str | None
    refill: Refill | None = None
    hash: bytes = FIRST_HASH
    unsure: bool = False
    """Whether the block before was erased, so that its hash is not known here."""
    ingested: int = 0


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore made."""

    database: str
    origin: Origin
    totals: Totals
    branches: list[str] = field(default_factory=list)


class Restore:
    """Reads a backup into a database that does not exist yet."""

    def __init__(
        self, port: NatsPort, names: Names, *, replicas: int = 1, clock: Callable[[], int]
    ) -> None:
        self._port = port
        self._names = names
        self._replicas = replicas
        self._lines = Lines(port, names, replicas=replicas)
        self._catalog = Catalog(port, names, clock, replicas=replicas)
        self._targets: dict[str, _Target] = {}
        self._database = ""

    async def run(
        self,
        frames: Iterable[Frame],
        name: str | None = None,
        *,
        again: bool = False,
        progress: Progress = lambda _: None,
    ) -> Restored:
        """Restore; ``name`` None: the name that the database had.

        ``again``: remove what an earlier restore of that name left when it was cut short.  Raises
        `DatabaseExists`, `BackupCorrupt` (nothing is left then) and `InvalidName`.
        """
        origin: Origin | None = None
        totals: Totals | None = None
        try:
            target: _Target | None = None
            for frame in frames:
                match frame:
                    case Origin():
                        origin = frame
                        self._database = check_name(name or frame.database)
                        await self._vacate(again)
                    case Section():
                        target = await self._open(frame)
                    case Message() if target is not None:
                        await self._message(target, frame)
                        progress(len(frame.data))
                    case SectionEnd() if target is not None:
                        await self._close(target, frame)
                    case Totals():
                        totals = frame
                    case _:
                        raise BackupCorrupt("The backup has a message that is of no stream.")
            if origin is None or totals is None:
                raise BackupCorrupt("The backup has no beginning or no end.")
            first = self._names.log_stream(self._database)
            if first not in self._targets:
                raise BackupCorrupt("The backup lacks the log that the database begins with.")
            await self._pad()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._discard()
            raise
        failpoint("restore.filled")
        await self._name()
        branches = await self._catalog.branches(self._database)
        await self._catalog.announce("created", self._database)
        return Restored(self._database, origin, totals, branches)

    # --- before ------------------------------------------------------------------------------

    async def _vacate(self, again: bool) -> None:
        """Raise `DatabaseExists` unless nothing is in the way."""
        first = self._names.log_stream(self._database)
        found = []
        for info in await self._port.streams(f"{self._names.prefix}.{self._database}.>"):
            if str(info["config"]["name"]).startswith(first.removesuffix("db=log")):
                found.append(info)
        names = {str(info["config"]["name"]) for info in found}
        lives = any(
            info["config"]["name"] == first
            and not str(info["config"]["subjects"][0]).endswith(f".{RESTORING}")
            for info in found
        )
        if lives:
            raise DatabaseExists(
                f"The database {self._database} exists already.", database=self._database
            )
        if found and not again:
            raise DatabaseExists(
                f"There are {len(found)} streams of a database {self._database} that is not "
                f"whole: a restore was cut short, or is under way. --again removes them first.",
                database=self._database,
                streams=sorted(names),
            )
        for stream in sorted(names):
            await self._port.stream_delete(stream)

    # --- filling -----------------------------------------------------------------------------

    async def _open(self, section: Section) -> _Target:
        """The stream of a section, made when it is the first."""
        name = f"{self._names.log_stream(self._database).removesuffix('db=log')}{section.name}"
        subjects = tuple(self._absolute(subject) for subject in section.subjects)
        known = self._targets.get(name)
        if known is not None:
            known.subjects, known.config = subjects, section.config
            return known
        lane = self._names.lane_of(self._database, name)
        last = section.name.rpartition("=")[2]
        kind = "log" if lane is not None else "tx" if last.partition("_")[0] == "tx" else "other"
        hidden = None
        if kind != "other":
            token = section.name.replace("=", "-")
            hidden = self._names.subject(self._database, token, RESTORING)
        config = {
            **section.config,
            "name": name,
            "subjects": list(subjects) if hidden is None else [hidden],
            "num_replicas": self._replicas,
        }
        try:
            await self._port.stream_create(config)
        except JetStreamError as error:
            raise DatabaseExists(
                f"The stream {name} cannot be made: {error.message}", database=self._database
            ) from error
        made = _Target(name, subjects, section.config, kind, hidden)
        if hidden is not None:
            made.refill = Refill(self._port, name, hidden)
        self._targets[name] = made
        return made

    async def _message(self, target: _Target, message: Message) -> None:
        headers = dict(message.headers)
        if target.refill is None:
            subject = self._absolute(message.subject)
            await self._port.append(subject, message.data, headers=headers, stream=target.name)
            return
        if target.kind == "log":
            self._check_block(target, message)
            if message.time_ms is not None:
                headers[TIME_HEADER] = str(message.time_ms)
        elif target.refill.last_seq == 0 and message.seq > 1:
            await self._begin_at(target, message.seq)
        await target.refill.put(message.seq, message.data, headers)

    async def _begin_at(self, target: _Target, seq: int) -> None:
        """Make an empty stream again, so that its numbers begin later."""
        assert target.hidden is not None
        await self._port.stream_delete(target.name)
        await self._port.stream_create(
            {
                **target.config,
                "name": target.name,
                "subjects": [target.hidden],
                "num_replicas": self._replicas,
                "first_seq": seq,
            }
        )
        target.refill = Refill(self._port, target.name, target.hidden, last_seq=seq - 1)

    def _check_block(self, target: _Target, message: Message) -> None:
        assert target.refill is not None
        if message.seq != target.refill.last_seq + 1:
            target.unsure = True  # blocks before it were erased; their copies vouch for them
        try:
            block = decode_block(message.data, None if target.unsure else target.hash)
        except LogCorrupt as error:
            raise BackupCorrupt(
                f"Block {message.seq} of {target.name} in the backup is damaged: {error.message}"
            ) from error
        for entry in block.entries:
            if entry.ingest_seq is not None:
                target.ingested = max(target.ingested, entry.ingest_seq)
        target.hash, target.unsure = block.hash, False

    async def _close(self, target: _Target, end: SectionEnd) -> None:
        if target.refill is None:
            return
        if target.kind == "tx" and target.refill.last_seq == 0 and end.last_seq > 0:
            await self._begin_at(target, end.last_seq + 1)
            return
        await target.refill.skip_to(end.last_seq + 1)
        await target.refill.finish()

    async def _pad(self) -> None:
        """New messages of an ingest stream must get numbers that no log has answered."""
        answered = {
            target.subjects[0].removesuffix(".log"): target.ingested
            for target in self._targets.values()
            if target.kind == "log"
        }
        for target in self._targets.values():
            if target.kind == "tx" and target.refill is not None:
                through = answered.get(target.subjects[0].removesuffix(".tx"), 0)
                if through > target.refill.last_seq:  # all that is in it has been applied
                    await self._begin_at(target, through + 1)

    # --- after -------------------------------------------------------------------------------

    async def _name(self) -> None:
        """Give the streams their names; with the first log's the database exists."""
        first = self._names.log_stream(self._database)
        hidden = [target for target in self._targets.values() if target.hidden is not None]
        for target in sorted(hidden, key=lambda target: target.name == first):
            info = await self._port.stream_info(target.name)
            assert info is not None
            config = {**info["config"], "subjects": list(target.subjects)}
            config["metadata"] = {
                **(config.get("metadata") or {}),
                **(target.config.get("metadata") or {}),
            }
            await self._port.api(f"STREAM.UPDATE.{target.name}", config, timeout_s=15)
            failpoint("restore.named")

    async def _discard(self) -> None:
        for target in self._targets.values():
            if target.refill is not None:
                await target.refill.abandon()
            await self._port.stream_delete(target.name)

    def _absolute(self, subject: str) -> str:
        return f"{self._names.prefix}.{self._database}.{subject}"


__all__ = ["FAILPOINTS", "Restore", "Restored"]

"""The logs of a database as JetStream keeps them: which lane has which name, and how names move.

A log's stream is made for one incarnation of a branch and never changes hands: its name holds the
lane.  The branch's name is its *subject*: a living branch has ``natalog.<db>.<branch>.log``, a
deleted one ``natalog.<db>._<lane>.gone``, one that waits to take a name over
``natalog.<db>._<lane>.prepared``.  The ``deleted`` record at the end of a log decides that a name
is free; moving subjects only follows it, so that whoever finds a move half done completes it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID, uuid4

from natalog.actors.log import BranchLog, Position, log_stream_config
from natalog.actors.names import GONE, MAIN_BRANCH, PREPARED, Names
from natalog.actors.nats_port import STREAM_NAME_IN_USE, JetStreamError, NatsPort, seconds
from natalog.actors.redactions import Redactions
from natalog.core.beginning import Base, deleted_record
from natalog.core.errors import BranchExists, BranchNotFound, Fenced, LogCorrupt
from natalog.core.limits import TX_BASE
from natalog.core.record import ENTRY_COMMIT, Entry, TxRecord, encode_block

log = logging.getLogger("natalog.lines")

SUBJECTS_OVERLAP: Final = 10065
_BRANCH: Final = "natalog-branch"
_BASE: Final = "natalog-base"
_SUCCESSOR: Final = "natalog-successor"
_MADE_BY: Final = "natalog-made-by"

NOBODY_COMMIT: Final = UUID(int=0)

Phase = Literal["live", "gone", "prepared"]
_PHASES: Final[dict[str, Phase]] = {"log": "live", GONE: "gone", PREPARED: "prepared"}


class LaneTaken(Exception):
    """Somebody else has made the log of this lane."""


@dataclass(frozen=True, slots=True)
class Line:
    """A log: ``branch`` is the name it has, had, or waits for.

    ``base``: where it begins, None for the first of a database.  ``successor``: the lane that the
    name moved to.  ``created_s``: seconds since 1970.
    """

    database: str
    branch: str
    lane: int
    stream: str
    subject: str
    phase: Phase
    base: Base | None
    successor: int | None
    last_seq: int
    bytes: int
    created_s: float


class Lines:
    """Finds and makes logs, and moves names between them."""

    def __init__(self, port: NatsPort, names: Names, *, replicas: int = 1) -> None:
        self._port = port
        self._names = names
        self._replicas = replicas
        self.redactions = Redactions(port, names, replicas=replicas)

    # --- finding -----------------------------------------------------------------------------

    async def live(self, database: str, branch: str) -> Line | None:
        """The log of a living branch; None when there is none with a block in it."""
        subject = self._names.log(database, branch)
        if branch == MAIN_BRANCH:  # found without a search, unless it was moved by force
            info = await self._port.stream_info(self._names.log_stream(database))
            if info is None:
                return None
            if info["config"]["subjects"] == [subject]:
                return self._full(info)
        for info in await self._port.streams(subject):
            found = self._full(info)
            if found is not None:
                return found
        return None

    async def exists(self, database: str) -> bool:
        """Whether there is a database of that name."""
        info = await self._port.stream_info(self._names.log_stream(database))
        return info is not None and bool(info["state"]["last_seq"])

    async def named(self, database: str, branch: str) -> Line | None:
        """The log that has a name, also one without a block."""
        for info in await self._port.streams(self._names.log(database, branch)):
            found = self.line(info)
            if found is not None:
                return found
        return None

    async def lanes(self, database: str) -> list[int]:
        """The lanes of all logs, alive or not."""
        found = [0]
        for endpoint in _PHASES:
            subject = self._names.subject(database, "*", endpoint)
            for stream in await self._port.stream_names(subject):
                lane = self._names.lane_of(database, stream)
                if lane is not None:
                    found.append(lane)
        return found

    async def of_lane(self, database: str, lane: int) -> Line | None:
        """The log of a lane, whatever became of its branch."""
        info = await self._port.stream_info(self._names.lane_stream(database, lane))
        return None if info is None else self._full(info)

    async def all(self, database: str) -> list[Line]:
        """Every log of a database, by lane, those without a block too."""
        found: dict[int, Line] = {}
        for endpoint in _PHASES:
            for info in await self._port.streams(self._names.subject(database, "*", endpoint)):
                line = self.line(info)
                if line is not None:
                    found[line.lane] = line
        return [found[lane] for lane in sorted(found)]

    def line(self, info: Mapping[str, Any]) -> Line | None:
        """The log that a stream is; None for any other stream."""
        config, state = info["config"], info["state"]
        subjects = config.get("subjects") or []
        if len(subjects) != 1:
            return None
        try:
            database, branch, endpoint = self._names.parse(str(subjects[0]))
        except ValueError:
            return None
        lane = self._names.lane_of(database, str(config["name"]))
        phase = _PHASES.get(endpoint)
        if lane is None or phase is None:
            return None
        about = config.get("metadata") or {}
        return Line(
            database=database,
            branch=branch if phase == "live" else str(about.get(_BRANCH, MAIN_BRANCH)),
            lane=lane,
            stream=str(config["name"]),
            subject=str(subjects[0]),
            phase=phase,
            base=_base(about.get(_BASE)),
            successor=int(about[_SUCCESSOR]) if _SUCCESSOR in about else None,
            last_seq=int(state["last_seq"]),
            bytes=int(state["bytes"]),
            created_s=seconds(info.get("created")),
        )

    def _full(self, info: Mapping[str, Any]) -> Line | None:
        line = self.line(info)
        return line if line is not None and line.last_seq else None

    def log(self, line: Line) -> BranchLog:
        """To read and append."""
        return BranchLog(
            self._port,
            self._names,
            line.database,
            line.branch,
            line.stream,
            line.subject,
            self.redactions,
        )

    # --- making ------------------------------------------------------------------------------

    async def make(
        self, database: str, branch: str, lane: int, base: Base, *, prepared: bool = False
    ) -> Line:
        """The empty log of a new branch, under its name or, ``prepared``, waiting for it.

        Raises `LaneTaken`, or `BranchExists` when a log has the name.
        """
        names = self._names
        subject = names.prepared(database, lane) if prepared else names.log(database, branch)
        config = log_stream_config(names.lane_stream(database, lane), subject, self._replicas)
        config["metadata"] = {
            _BRANCH: branch,
            _BASE: f"{base.lane} {base.commit} {base.tx}",
            _MADE_BY: uuid4().hex,  # a stream that somebody else made is not taken for this one
        }
        try:
            made = self.line(await self._port.stream_create(config))
        except JetStreamError as error:
            if error.err_code == STREAM_NAME_IN_USE:
                raise LaneTaken from error
            if error.err_code != SUBJECTS_OVERLAP:
                raise
            raise BranchExists(f"A branch named {branch} exists.", branch=branch) from error
        assert made is not None
        return made

    async def clear(self, line: Line) -> None:
        """Remove an empty log that a creation left when it was cut short.

        `BranchExists` when that creation turns out to be alive: the first block decides.
        """
        end = deleted_record(line.branch, line.lane, TX_BASE, NOBODY_COMMIT, None)
        block = encode_block(Position().hash, [Entry(ENTRY_COMMIT, end.encode())])
        try:
            await self.log(line).append(Position(), block)
        except (Fenced, BranchNotFound):
            raise BranchExists(
                f"A branch named {line.branch} exists.", branch=line.branch
            ) from None
        await self.remove(line)

    async def remove(self, line: Line) -> None:
        """Delete a log with everything in it."""
        await self._port.stream_delete(line.stream)

    # --- names -------------------------------------------------------------------------------

    async def retire(self, line: Line, successor: int | None) -> None:
        """Take the name from a log whose last record is ``deleted``."""
        more = {_BRANCH: line.branch}
        if successor is not None:
            more[_SUCCESSOR] = str(successor)
        await self._move(line, self._names.gone(line.database, line.lane), more)

    async def promote(self, line: Line) -> None:
        """Give a prepared log the name that it waits for."""
        await self._move(line, self._names.log(line.database, line.branch), {})

    async def _move(self, line: Line, subject: str, metadata: Mapping[str, str]) -> None:
        info = await self._port.stream_info(line.stream)
        if info is None or info["config"]["subjects"] != [line.subject]:
            return  # somebody else has moved it
        config = dict(info["config"])
        config["subjects"] = [subject]
        config["metadata"] = {**(config.get("metadata") or {}), **metadata}
        await self._port.api(f"STREAM.UPDATE.{line.stream}", config, timeout_s=15)

    async def last_record(self, line: Line) -> TxRecord | None:
        """The newest record of a log."""
        branch_log = self.log(line)
        seq = line.last_seq
        while seq > 0:
            try:
                block = await branch_log.read_block(seq)
            except LogCorrupt:
                return None
            for entry in reversed(block.entries):
                if entry.type == ENTRY_COMMIT:
                    return TxRecord.decode(entry.data)
            seq -= 1
        return None

    async def settle(self, database: str, branch: str | None = None) -> None:
        """Complete moves of names that were cut short, of one branch or of all."""
        lines = await self.all(database)
        moved = {line.successor for line in lines if line.phase == "gone"}
        for line in lines:
            if line.phase != "live" or not line.last_seq or branch not in (None, line.branch):
                continue
            last = await self.last_record(line)
            if last is not None and last.kind == "deleted":
                successor = last.successor
                log.info("completing the end of %s.%s", database, line.branch)
                await self.retire(line, successor)
                moved.add(successor)
        for line in lines:
            waits = line.phase == "prepared" and branch in (None, line.branch)
            if waits and line.lane in moved:
                log.info("completing the move of %s.%s", database, line.branch)
                await self.promote(line)


def _base(text: str | None) -> Base | None:
    if not text:
        return None
    lane, commit, tx = text.split(" ")
    return Base(int(lane), UUID(commit), int(tx))

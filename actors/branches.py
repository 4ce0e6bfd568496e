"""The verbs of branches: make, delete, force.  Each decides by one append to a log.

A branch exists from the moment that its log has a first block, and no longer once its log has a
last one.  What follows an append (moving names, ingest streams, announcements) may be cut short:
`Lines.settle` completes it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final

import anyio
from anyio import to_thread

from natalog.actors.archive import Archive
from natalog.actors.catalog import Catalog, Process, split_transaction
from natalog.actors.hub import Hub
from natalog.actors.lines import LaneTaken, Line, Lines
from natalog.actors.log import Position, no_log
from natalog.actors.names import MAIN_BRANCH, check_name
from natalog.actors.nats_port import JetStreamError, NatsPort
from natalog.actors.payload import Struct, fields_of
from natalog.actors.transactor import End, Transactor
from natalog.actors.views import VIEW_WORDS, time_point
from natalog.core.beginning import (
    Base,
    after_step,
    branch_record,
    deleted_record,
    force_record,
    ground,
    tried,
)
from natalog.core.chain import block_hash
from natalog.core.database import Database
from natalog.core.errors import (
    BadRequest,
    BranchExists,
    BranchNotFound,
    BranchProtected,
    DatabaseNotFound,
    Fenced,
    InvalidTimePoint,
    ParentsRequired,
    ServiceError,
    TooLarge,
    Unavailable,
    ViewRefused,
)
from natalog.core.limits import TX_BASE
from natalog.core.record import ENTRY_COMMIT, Entry, TxRecord, encode_block
from natalog.core.values import Keyword, Symbol, instant_ms
from natalog.core.versioning import next_lane

log = logging.getLogger("natalog.branches")

ATTEMPTS_MAX: Final = 16
PAUSE_MAX_S: Final = 2.0
VIEW_DEPTH_MAX: Final = 32


class Branches:
    """Makes, deletes and moves the branches of every database."""

    def __init__(
        self,
        port: NatsPort,
        catalog: Catalog,
        hub: Hub,
        process: Process,
        clock: Callable[[], int],
    ) -> None:
        self._port = port
        self._catalog = catalog
        self._lines: Lines = catalog.lines
        self._hub = hub
        self._archive: Archive = hub.archive
        self._process = process
        self._clock = clock

    # --- make --------------------------------------------------------------------------------

    async def make(self, database: str, name: Any, source: Any) -> Struct:
        """Make a branch at a branch's head, a commit, a transaction or an instant.

        Costs the same whatever the size of the data: one record, no commit.  Raises
        `InvalidName`, `BranchExists`, `BranchNotFound`, `CommitNotFound`, `InvalidTimePoint`.
        """
        await self._known(database)
        name = _name(name)
        await self._vacant(database, name)
        base = await self._source(database, source)
        line = await self._made(database, name, base)
        try:
            await self._archive.allowed(database, base)  # no collection has swept it meanwhile
        except BaseException:
            await self._lines.remove(line)
            raise
        record = branch_record(name, line.lane, base, self._clock())
        await self._archive.pin(database, base)
        await self._first(line, record)
        await self._follow_up(line, record)
        return Struct(
            database=database,
            branch=name,
            commit_id=base.commit,
            max_tx=base.tx,
            lane=line.lane,
        )

    async def _known(self, database: str) -> None:
        check_name(database)
        if not await self._lines.exists(database):
            raise DatabaseNotFound(f"There is no database {database}.", database=database)

    async def _vacant(self, database: str, name: str) -> None:
        """Raise `BranchExists` unless nobody has the name."""
        line = await self._lines.named(database, name)
        if line is None:
            return
        if not line.last_seq:
            await self._lines.clear(line)
            return
        last = await self._lines.last_record(line)
        if last is not None and last.kind == "deleted":
            await self._lines.settle(database, name)
            if await self._lines.live(database, name) is None:
                return
        raise BranchExists(f"A branch named {name} exists.", branch=name)

    async def _source(self, database: str, source: Any) -> Base:
        """The commit that ``source`` means; an instant is one of the main branch."""
        if type(source) is int:
            return await self._archive.find_tx(database, source)
        if isinstance(source, datetime):
            line = await self._live(database, MAIN_BRANCH)
            return await self._archive.find_instant(line, instant_ms(source))
        return await self._archive.resolve(database, MAIN_BRANCH if source is None else source)

    async def _made(self, database: str, name: str, base: Base, *, prepared: bool = False) -> Line:
        """A new log on a lane that no branch has ever used."""
        # in this order: a collection notes the lanes before it removes their logs
        there = await self._lines.lanes(database)
        lane = next_lane([(await self._archive.collected(database)).lanes, *there])
        for _ in range(ATTEMPTS_MAX):
            try:
                return await self._lines.make(database, name, lane, base, prepared=prepared)
            except LaneTaken:
                lane += 1
        raise Unavailable(f"No lane could be had for {database}.{name}.", branch=name)

    async def _first(self, line: Line, record: TxRecord) -> None:
        """Append the first block: from now on the branch exists."""
        block = encode_block(Position().hash, [Entry(ENTRY_COMMIT, record.encode())])
        if len(block) > self._port.payload_room:
            await self._lines.remove(line)
            raise TooLarge(
                f"The first record of {line.branch} has {len(block)} bytes; "
                f"{self._port.payload_room} fit a block.",
                bytes=len(block),
            )
        try:
            await self._lines.log(line).append(Position(), block)
        except (Fenced, BranchNotFound):
            raise BranchExists(
                f"A branch named {line.branch} exists.", branch=line.branch
            ) from None

    async def _follow_up(self, line: Line, record: TxRecord) -> None:
        first = encode_block(Position().hash, [Entry(ENTRY_COMMIT, record.encode())])
        incarnation = block_hash(first).hex()
        await self._catalog.ensure_ingest(line.database, line.branch, incarnation)
        await self._catalog.announce("changed", line.database, line.branch)

    # --- delete ------------------------------------------------------------------------------

    async def delete(self, database: str, name: Any) -> Struct:
        """Delete a branch: its name is free at once, its commits stay until a collection.

        Raises `InvalidName`, `BranchProtected`, `BranchNotFound`.
        """
        await self._known(database)
        name = _name(name)
        line = await self._live(database, name)
        if name == MAIN_BRANCH:
            raise BranchProtected(f"The branch {name} cannot be deleted.", branch=name)
        async with self._ended(line, None):
            await surely(lambda: self._lines.retire(line, None))
            await surely(lambda: self._catalog.inlets.remove(database, name))
        await self._catalog.announce("changed", database, name)
        return Struct(database=database, branch=name, deleted=True)

    async def _live(self, database: str, name: str) -> Line:
        line = await self._lines.live(database, name)
        if line is not None:
            last = await self._lines.last_record(line)
            if last is not None and last.kind == "deleted":
                await self._lines.settle(database, name)
                line = await self._lines.live(database, name)
        if line is None:
            await self._known(database)
            raise no_log(database, name)
        return line

    @asynccontextmanager
    async def _ended(self, line: Line, successor: int | None) -> Any:
        """The log has its last block; meanwhile nobody here opens the branch."""
        key = (line.database, line.branch)
        async with self._hub.frozen(*key):
            found = self._hub.opened(*key)
            if found is not None and isinstance(found[1], Transactor):
                await found[1].ask(End(successor))
            else:
                await self._append_end(line, successor)
            await self._hub.drop(*key)
            yield

    async def _append_end(self, line: Line, successor: int | None) -> None:
        """The last block of a log that is not open here."""
        branch_log = self._lines.log(line)
        for _ in range(ATTEMPTS_MAX):
            now = await self._lines.of_lane(line.database, line.lane)
            if now is None:
                raise no_log(line.database, line.branch)
            last = await self._lines.last_record(now)
            if last is not None and last.kind == "deleted":
                raise no_log(line.database, line.branch)
            commit, at = await self._archive.head(now)
            block = await branch_log.read_block(now.last_seq)
            end = deleted_record(line.branch, line.lane, at.tx, commit, successor)
            try:
                await branch_log.append(
                    Position(now.last_seq, block.hash),
                    encode_block(block.hash, [Entry(ENTRY_COMMIT, end.encode())]),
                )
                return
            except Fenced:
                continue
        raise Fenced(f"{line.branch} is being written to.", branch=line.branch)

    # --- force -------------------------------------------------------------------------------

    async def force(self, database: str, name: Any, view: Any, parents: Any) -> Struct:
        """Make a branch, new or not, whose head is the value that ``view`` describes.

        The old incarnation of the branch ends with a block that names the new one; nothing undoes
        that.  Raises what reading the view raises, `ParentsRequired`, and what names raise.
        """
        await self._known(database)
        name = _name(name)
        if not parents:
            raise ParentsRequired("A forced branch needs at least one parent.", branch=name)
        above = await self._archive.parents(database, parents, None)
        base, words = await self._described(database, view, 0)
        await self._lines.settle(database, name)
        old = await self._lines.live(database, name)
        if old is None:
            await self._vacant(database, name)
        line = await self._made(database, name, base, prepared=old is not None)
        try:
            source = await self._archive.value(database, base)
            await self._archive.allowed(database, base)
            value, steps = await to_thread.run_sync(self._seen, source, words, line.lane)
        except BaseException:
            await self._lines.remove(line)
            raise
        record = force_record(name, value, base, steps, above, self._clock())
        await self._archive.pin(database, base)
        await self._first(line, record)
        if old is not None:
            async with self._ended(old, line.lane):
                await surely(partial(self._lines.retire, old, line.lane))
                await surely(partial(self._lines.promote, line))
        await self._follow_up(line, record)
        commit = Entry(ENTRY_COMMIT, record.encode()).commit_id
        return Struct(
            database=database,
            branch=name,
            commit_id=commit,
            max_tx=value.max_tx,
            lane=line.lane,
        )

    async def _described(
        self, database: str, view: Any, depth: int, branch: str = MAIN_BRANCH
    ) -> tuple[Base, list[list[Any]]]:
        """The commit that a view is of, and what is done to it, in order."""
        if depth > VIEW_DEPTH_MAX:
            raise BadRequest(f"Views nest deeper than {VIEW_DEPTH_MAX} levels.", depth=depth)
        found = fields_of({} if view is None else view, VIEW_WORDS, "view")
        words = {word: value for word, value in found.items() if value is not None}
        if _plain(words.get("database", database)) != database:
            raise BadRequest("A branch is forced to a value of its own database.", view="database")
        if "branch" in words:
            branch = _name(_plain(words["branch"]))
        steps: list[list[Any]] = []
        if "of" in words:
            base, steps = await self._described(database, words["of"], depth + 1, branch)
        else:
            base = await self._base(database, branch, words)
        if words.get("history"):
            raise ViewRefused("A branch needs a state; history shows events.", view="history")
        if "with" in words:
            steps.append(["with", words["with"]])
        for word in ("as_of", "since"):
            if word in words:
                steps.append([word, time_point(words[word])])
        return base, steps

    async def _base(self, database: str, branch: str, words: Mapping[str, Any]) -> Base:
        if "commit" in words:
            return await self._archive.resolve_commit(database, words["commit"])
        line = await self._live(database, branch)
        head = (await self._archive.head(line))[1]
        at = words.get("at")
        if at is None or at == head.tx:
            return head
        if type(at) is not int or at < TX_BASE:
            raise InvalidTimePoint(f"at takes a transaction id, not {at!r}.", point=repr(at))
        return await self._archive.find_at(line, at)

    def _seen(
        self, source: Database, words: list[list[Any]], lane: int
    ) -> tuple[Database, list[list[Any]]]:
        """The value on its lane, and the steps as a record keeps them."""
        value, steps = source, []
        for word, argument in words:
            step = [word, argument]
            if word == "with":
                before = ground(value, lane)
                made = self._process(before, *split_transaction(argument))
                value, step = made.db_after, tried(made.changes, before)
            else:
                value = after_step(value, step, lane)
            steps.append(step)
        return replace(ground(value, lane), commit_id=None), steps


async def surely(work: Callable[[], Awaitable[Any]]) -> None:
    """Do what has been decided, also when the connection breaks meanwhile."""
    for attempt in range(ATTEMPTS_MAX):
        try:
            await work()
            return
        except (ServiceError, JetStreamError) as error:
            if attempt + 1 == ATTEMPTS_MAX:
                raise
            log.warning("a move of a branch is tried again: %s", error.message)
            await anyio.sleep(min(PAUSE_MAX_S, 0.05 * 2**attempt))


def _name(value: Any) -> str:
    return check_name(_plain(value), "branch")


def _plain(value: Any) -> Any:
    """A name that may be written as a keyword or symbol."""
    return value.text if isinstance(value, (Keyword, Symbol)) else value

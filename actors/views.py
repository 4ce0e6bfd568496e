"""Which database value a read request means: views of branches, nested, and query inputs.

Resolving has two halves.  `Views.gather` waits for the values of branches (and may read the log);
what it returns computes views, which takes time but no I/O and runs in a worker thread.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from anyio import to_thread

from natalog.actors.catalog import Process, split_transaction
from natalog.actors.hub import Hub
from natalog.actors.log import BranchLog, PlacedBlock
from natalog.actors.names import MAIN_BRANCH, Names, check_name
from natalog.actors.nats_port import NatsPort
from natalog.actors.payload import fields_of, tagged_database
from natalog.actors.state import BranchState
from natalog.core.database import Database
from natalog.core.edn import parse_instant
from natalog.core.errors import BadRequest, CommitNotFound, InvalidTimePoint
from natalog.core.limits import TX_BASE
from natalog.core.values import Keyword, Symbol

WORDS = ("database", "branch", "at", "commit", "of", "with", "as_of", "since", "history")
DEPTH_MAX = 32
KEPT_VALUES_MAX = 16
"""Old values that were read from the log and may be asked for again."""

Compute = Callable[[], Database]
_NUMBER = re.compile(r"\d{1,19}\Z")


@dataclass(frozen=True, slots=True)
class Asker:
    """Where a request was sent and how long its sender waits."""

    database: str
    branch: str
    basis: int | None
    deadline: float

    @property
    def remaining_s(self) -> float:
        return max(0.0, self.deadline - time.monotonic())


class Views:
    """Resolves the views of requests."""

    def __init__(self, port: NatsPort, names: Names, hub: Hub, speculate: Process) -> None:
        self._port = port
        self._names = names
        self._hub = hub
        self._speculate = speculate
        self._kept: OrderedDict[tuple[str, str, str, int], Database] = OrderedDict()

    async def gather(self, asker: Asker, view: Any, depth: int = 0) -> Compute:
        """A function that gives the value that ``view`` (None: the head) describes."""
        if view is None:
            view = {}
        if depth > DEPTH_MAX:
            raise BadRequest(f"Views nest deeper than {DEPTH_MAX} levels.", depth=depth)
        words = {
            name: value
            for name, value in fields_of(view, WORDS, "view").items()
            if value is not None
        }
        base: Compute
        if "of" in words:
            if words.keys() & {"at", "commit"}:
                raise BadRequest("A view has either of, or commit or at.", view=sorted(words))
            base = await self.gather(_within(asker, words), words["of"], depth + 1)
        else:
            found = await self._base(_within(asker, words), words)
            base = _constant(found)
        return self._derived(base, words)

    async def value(self, asker: Asker) -> Database:
        """The head of the branch that was asked."""
        return await self._hub.value(asker.database, asker.branch, asker.basis, asker.remaining_s)

    async def inputs(self, asker: Asker, args: Any) -> list[Any]:
        """The inputs of a query: values as they are, `Compute` functions for databases."""
        if not isinstance(args, (list, tuple)):
            raise BadRequest(f"args is a list of inputs, not a {type(args).__name__}.")
        found: list[Any] = []
        for arg in args:
            view = tagged_database(arg)
            found.append(arg if view is None else await self.gather(asker, view))
        return found

    # --- bases -------------------------------------------------------------------------------

    async def _base(self, asker: Asker, words: Mapping[str, Any]) -> Database:
        if "commit" in words:
            if "at" in words:
                raise BadRequest("A view has either commit or at.", view=sorted(words))
            return await self._at_commit(asker, _commit(words["commit"]))
        if "at" in words:
            at = words["at"]
            if type(at) is not int or at < TX_BASE:
                raise InvalidTimePoint(f"at takes a transaction id, not {at!r}.", point=repr(at))
            return await self._at(asker, at, exact="with" in words)
        return await self.value(asker)

    async def _at(self, asker: Asker, at: int, *, exact: bool) -> Database:
        """The value of a branch that ends with transaction ``at``."""
        needed = Asker(asker.database, asker.branch, max(at, asker.basis or 0), asker.deadline)
        head = await self.value(needed)
        if head.max_tx == at:
            return head
        state = self._hub.state(asker.database, asker.branch)
        held = None if state is None else state.held(at)
        if held is not None:
            return held
        if head.config.keep_history and not exact:
            return head.as_of(at)
        return await self._replayed(asker, at)

    async def _at_commit(self, asker: Asker, commit: UUID) -> Database:
        head = await self.value(asker)
        if head.commit_id == commit:
            return head
        state = self._hub.state(asker.database, asker.branch)
        spot = None if state is None else state.commits.tx_of(commit)
        if spot is None:
            raise CommitNotFound(f"There is no commit {commit}.", commit=str(commit))
        return await self._replayed(asker, spot)

    async def _replayed(self, asker: Asker, tx: int) -> Database:
        """An old value, exactly: the log folded up to its transaction."""
        state = self._hub.state(asker.database, asker.branch)
        key = (asker.database, asker.branch, "" if state is None else state.first_hash, tx)
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            return kept
        log = BranchLog(self._port, self._names, asker.database, asker.branch)
        scratch = BranchState(asker.database, asker.branch)
        async with aclosing(log.blocks()) as batches:
            async for batch in batches:
                found = await to_thread.run_sync(_fold_to, scratch, batch, tx)
                if found is not None:
                    self._kept[key] = found
                    if len(self._kept) > KEPT_VALUES_MAX:
                        self._kept.popitem(last=False)
                    return found
        raise CommitNotFound(f"There is no transaction {tx} on this branch.", tx=tx)

    # --- views -------------------------------------------------------------------------------

    def _derived(self, base: Compute, words: Mapping[str, Any]) -> Compute:
        as_of = _point(words["as_of"]) if "as_of" in words else None
        since = _point(words["since"]) if "since" in words else None
        history = words.get("history", False)
        if not isinstance(history, bool):
            raise BadRequest(f"history is true or false, not {history!r}.", field="history")
        if not words.keys() & {"with", "as_of", "since", "history"}:
            return base

        def compute() -> Database:
            db = base()
            if "with" in words:
                db = self._speculate(db, *split_transaction(words["with"])).db_after
            if as_of is not None:
                db = db.as_of(as_of)
            if since is not None:
                db = db.since(since)
            return db.history() if history else db

        return compute


def _fold_to(scratch: BranchState, batch: Sequence[PlacedBlock], tx: int) -> Database | None:
    """Fold blocks; the value after transaction ``tx`` once it is reached."""
    for placed in batch:
        for applied in scratch.fold(placed):
            if applied.record.tx == tx:
                return applied.after
    return None


def _constant(value: Database) -> Compute:
    return lambda: value


def _within(asker: Asker, words: Mapping[str, Any]) -> Asker:
    """The asker, as if it had asked the database and branch that a view names."""
    if "database" not in words and "branch" not in words:
        return asker
    database = asker.database
    branch = asker.branch
    if "database" in words:
        database = check_name(_name(words["database"]))
        if database != asker.database:
            branch = MAIN_BRANCH
    if "branch" in words:
        branch = check_name(_name(words["branch"]), "branch")
    same = (database, branch) == (asker.database, asker.branch)
    return Asker(database, branch, asker.basis if same else None, asker.deadline)


def _name(value: Any) -> Any:
    """A name that may be written as a keyword or symbol."""
    return value.text if isinstance(value, (Keyword, Symbol)) else value


def _commit(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (TypeError, ValueError, AttributeError):
        raise BadRequest(
            f"A commit is named by a UUID, not {value!r}.", commit=repr(value)
        ) from None


def _point(value: Any) -> int | datetime:
    """A transaction id or instant; text may be either."""
    if isinstance(value, str):
        if _NUMBER.match(value):
            return int(value)
        with contextlib.suppress(ValueError):
            return parse_instant(value)
    if type(value) is int or isinstance(value, datetime):
        return value
    raise InvalidTimePoint(
        f"{value!r} is neither a transaction id nor an instant.", point=repr(value)[:80]
    )

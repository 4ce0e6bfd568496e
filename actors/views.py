"""Which database value a read request means: views of branches, nested, and query inputs.

Resolving has two halves.  `Views.gather` waits for the values of branches (and may read the log);
what it returns computes views, which takes time but no I/O and runs in a worker thread.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from natalog.actors.catalog import Process, split_transaction
from natalog.actors.hub import Hub
from natalog.actors.names import MAIN_BRANCH, check_name
from natalog.actors.payload import fields_of, tagged_database
from natalog.core.database import Database
from natalog.core.edn import parse_instant
from natalog.core.errors import BadRequest, CommitNotFound, InvalidTimePoint
from natalog.core.limits import TX_BASE
from natalog.core.values import Keyword, Symbol

VIEW_WORDS = ("database", "branch", "at", "commit", "of", "with", "as_of", "since", "history")
DEPTH_MAX = 32

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

    def __init__(self, hub: Hub, speculate: Process) -> None:
        self._hub = hub
        self._speculate = speculate

    async def gather(self, asker: Asker, view: Any, depth: int = 0) -> Compute:
        """A function that gives the value that ``view`` (None: the head) describes."""
        if view is None:
            view = {}
        if depth > DEPTH_MAX:
            raise BadRequest(f"Views nest deeper than {DEPTH_MAX} levels.", depth=depth)
        words = {
            name: value
            for name, value in fields_of(view, VIEW_WORDS, "view").items()
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
        if head.max_tx < at:  # of an earlier incarnation of the branch
            raise CommitNotFound(f"There is no transaction {at} on this branch.", tx=at)
        state = self._hub.state(asker.database, asker.branch)
        held = None if state is None else state.held(at)
        if held is not None:
            return held
        if head.config.keep_history and not exact:
            return head.as_of(at)
        return await self._replayed(asker, at)

    async def _at_commit(self, asker: Asker, commit: UUID) -> Database:
        # a commit holds what it holds, whatever its reader has written elsewhere meanwhile
        head = await self.value(replace(asker, basis=None))
        if head.commit_id == commit:
            return head
        archive = self._hub.archive
        found = await archive.find(asker.database, commit)
        return await archive.value(asker.database, found)

    async def _replayed(self, asker: Asker, tx: int) -> Database:
        """An old value, exactly: the log folded up to its transaction."""
        archive = self._hub.archive
        line = await self._hub.line(asker.database, asker.branch)
        return await archive.value(asker.database, await archive.find_at(line, tx))

    # --- views -------------------------------------------------------------------------------

    def _derived(self, base: Compute, words: Mapping[str, Any]) -> Compute:
        as_of = time_point(words["as_of"]) if "as_of" in words else None
        since = time_point(words["since"]) if "since" in words else None
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


def time_point(value: Any) -> int | datetime:
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

"""A database in this process: the same verbs, synchronous, in memory, without NATS.

    from natalog import local

    conn = local.create_database("people", schema_flexibility="read")
    conn.transact([{"name": "Alice", "age": 25}])
    conn.db().q("[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]")     # {("Alice", 25)}

Databases live in a registry of this process by name; they are gone when it ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

from natalog._shapes import (
    MAIN_BRANCH,
    attribute,
    checked_name,
    components,
    order_by,
    pull_pattern,
    query_answer,
    time_point,
    transaction,
)
from natalog.core import query as _query
from natalog.core import transact as _transact
from natalog.core.chain import commit_id
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database as Value
from natalog.core.edn import read
from natalog.core.entity import entity
from natalog.core.errors import (
    BadRequest,
    BranchNotFound,
    DatabaseExists,
    DatabaseNotFound,
    NotImplementedYet,
)
from natalog.core.pull import pull, pull_many
from natalog.core.record import TxRecord, purge_refs
from natalog.core.schema import TX_INSTANT
from natalog.core.transact.report import TxReport as CoreReport
from natalog.core.values import Datom, ms_instant
from natalog.report import Commit, TxReport

Clock = Callable[[], int]
"""Milliseconds since 1970."""


def _machine_clock() -> int:
    return time.time_ns() // 1_000_000


# --- the registry --------------------------------------------------------------------------------


class Registry:
    """Databases of this process by name."""

    def __init__(self) -> None:
        self._databases: dict[str, Conn] = {}

    def create_database(
        self,
        name: str,
        *,
        keep_history: bool = True,
        schema_flexibility: str = "write",
        initial_tx: Any = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> Conn:
        """Create a database and return the connection to it.

        ``clock`` gives the instants of transactions; a pinned one makes them reproducible.
        Otherwise as `natalog.Client.create_database`.
        """
        checked_name(name)
        if name in self._databases:
            raise DatabaseExists(f"A database named {name} exists.", database=name)
        config = DatabaseConfig.from_mapping(
            {**settings, "keep_history": keep_history, "schema_flexibility": schema_flexibility}
        )
        conn = Conn(name, config, clock or _machine_clock)
        if initial_tx is not None:
            conn.transact(read(initial_tx) if isinstance(initial_tx, str) else initial_tx)
        self._databases[name] = conn
        return conn

    def delete_database(self, name: str) -> bool:
        """Forget a database; false when there was none of this name."""
        return self._databases.pop(checked_name(name), None) is not None

    def database_exists(self, name: str) -> bool:
        """Whether a database of this name exists."""
        return checked_name(name) in self._databases

    def list_databases(self) -> list[dict[str, Any]]:
        """Every database, by name."""
        return [
            {
                "database": name,
                "keep_history": conn.config.keep_history,
                "schema_flexibility": conn.config.schema_flexibility,
                "branches": [MAIN_BRANCH],
            }
            for name, conn in sorted(self._databases.items())
        ]

    def database(self, name: str, branch: str = MAIN_BRANCH) -> Conn:
        """The connection to a database; `DatabaseNotFound`, `BranchNotFound`."""
        found = self._databases.get(checked_name(name))
        if found is None:
            raise DatabaseNotFound(f"There is no database named {name}.", database=name)
        if checked_name(branch, "branch") != MAIN_BRANCH:
            raise BranchNotFound(f"{name} has no branch {branch}.", database=name, branch=branch)
        return found


_registry = Registry()
create_database = _registry.create_database
delete_database = _registry.delete_database
database_exists = _registry.database_exists
list_databases = _registry.list_databases
database = _registry.database


# --- connections ---------------------------------------------------------------------------------


class Conn:
    """The main branch of a database in this process.  Safe to use from several threads."""

    def __init__(self, name: str, config: DatabaseConfig, clock: Clock) -> None:
        self.database = name
        self.branch_name = MAIN_BRANCH
        self.config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._reports: list[TxReport] = []
        self._by_id: dict[str, TxReport] = {}
        empty = Value.empty(config)
        # the same records as in a service's log, so that equal histories have equal commit ids
        self._created = clock()
        genesis = TxRecord(
            kind="genesis",
            tx=empty.tx0,
            instant_ms=self._created,
            config={**config.to_mapping(), "name": name},
        )
        self._genesis = commit_id(genesis.encode())
        self._value = replace(empty, commit_id=self._genesis)

    def __repr__(self) -> str:
        return f"local.Conn({self.database!r})"

    def transact(
        self,
        tx_data: Any,
        tx_meta: Any = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> TxReport:
        """Apply one transaction; see `natalog.Conn.transact`.  ``timeout`` has no meaning here."""
        data, meta = transaction(tx_data, tx_meta)
        with self._lock:
            if id is not None and id in self._by_id:
                return _repeated(self._by_id[id])
            made = _transact.process(self._value, data, meta, now_ms=self._clock())
            head = commit_id(_record(made, self._value, id).encode())
            self._value = replace(made.db_after, commit_id=head)
            report = _report(made, head, id, self.database)
            self._reports.append(report)
            if id is not None:
                self._by_id[id] = report
            return report

    def reports(self, since: Any = None, *, rejections: bool = False) -> Iterator[TxReport]:
        """The reports after transaction ``since`` (None: those made after this call), in order.

        The iterator ends at the newest report and goes on with later ones when asked again.
        """
        start = len(self._reports) if since is None else self._place(time_point(since))
        return _Reports(self._reports, start)

    def db(self, *, timeout: float | None = None) -> Database:
        """The current database value."""
        return Database(self._value, self)

    def q(self, query: Any, *inputs: Any, **options: Any) -> Any:
        """Run a query on exactly these inputs; without any, on the current database value."""
        return run_query(query, inputs or (self.db(),), **options)

    def info(self, *, timeout: float | None = None) -> dict[str, Any]:
        """``commit_id``, ``max_tx``, ``max_eid``, ``datoms``, ``config`` of the database."""
        value = self._value
        return {
            "database": self.database,
            "branch": self.branch_name,
            "commit_id": value.commit_id,
            "max_tx": value.max_tx,
            "max_eid": value.max_eid,
            "datoms": len(value),
            "config": {
                "keep_history": self.config.keep_history,
                "schema_flexibility": self.config.schema_flexibility,
                **self.config.to_mapping(),
            },
        }

    def branches(self, *, timeout: float | None = None) -> set[str]:
        """Only the main branch."""
        return {MAIN_BRANCH}

    def branch_history(
        self, *, limit: int | None = None, timeout: float | None = None
    ) -> list[Commit]:
        """The commits, newest first; the last one stands before the first transaction."""
        found = [Commit(self._genesis, (), self._value.tx0, ms_instant(self._created))]
        for report in self._reports:
            assert report.commit_id is not None
            parent = found[-1].commit_id
            found.append(Commit(report.commit_id, (parent,), report.tx, report.instant))
        return found[::-1][:limit]

    def branch(self, name: str, **_: Any) -> NoReturn:
        """Not served in this process."""
        _refuse("branch")

    def delete_branch(self, name: str, **_: Any) -> NoReturn:
        """Not served in this process."""
        _refuse("delete_branch")

    def force_branch(self, name: str, db: Any, **_: Any) -> NoReturn:
        """Not served in this process."""
        _refuse("force_branch")

    def merge(self, parents: Any, tx_data: Any = None, tx_meta: Any = None, **_: Any) -> NoReturn:
        """Not served in this process."""
        _refuse("merge")

    def commit_db(self, commit_id: UUID, **_: Any) -> Database:
        """The value of the head commit; earlier ones are not kept in this process."""
        if commit_id != self._value.commit_id:
            _refuse("commit_db")
        return self.db()

    def diff(self, left: Any, right: Any, **_: Any) -> NoReturn:
        """Not served in this process."""
        _refuse("diff")

    def gc(self, before: datetime | None = None, **_: Any) -> NoReturn:
        """Not served in this process: there is nothing stored."""
        _refuse("gc")

    def erase(self, **_: Any) -> NoReturn:
        """Not served in this process: there is nothing stored."""
        _refuse("erase")

    def _place(self, since: int | datetime) -> int:
        if isinstance(since, datetime):
            raise BadRequest("reports start after a transaction id, not at an instant")
        return sum(1 for report in self._reports if report.tx <= since)

    def _now(self) -> int:
        return self._clock()


class _Reports(Iterator[TxReport]):
    def __init__(self, reports: list[TxReport], start: int) -> None:
        self._all = reports
        self._next = start

    def __next__(self) -> TxReport:
        if self._next >= len(self._all):
            raise StopIteration
        self._next += 1
        return self._all[self._next - 1]


def _refuse(verb: str) -> NoReturn:
    raise NotImplementedYet(f"A database in this process does not serve {verb}.", verb=verb)


def _record(made: CoreReport, before: Value, id: str | None) -> TxRecord:
    assert before.commit_id is not None
    changes = made.changes
    return TxRecord(
        kind="transaction",
        tx=made.tx,
        instant_ms=made.instant_ms,
        lane=before.lane,
        max_eid=changes.max_eid,
        parents=(before.commit_id,),
        datoms=changes.datoms,
        purges=purge_refs(before, changes.datoms, changes.purges),
        tempids=made.tempids,
        tx_meta={key: value for key, value in made.tx_meta.items() if key is not TX_INSTANT},
        id=id,
        purged=made.purged,
    )


def _report(
    made: CoreReport, commit: UUID | None, id: str | None, database: str | None
) -> TxReport:
    return TxReport(
        tx=made.tx,
        instant=None if made.instant_ms is None else ms_instant(made.instant_ms),
        commit_id=commit,
        tx_data=made.datoms,
        tempids=made.tempids,
        tx_meta=made.tx_meta,
        purged=made.purged,
        id=id,
        database=database,
        branch=MAIN_BRANCH,
    )


def _repeated(report: TxReport) -> TxReport:
    return replace(report, repeated=True)


# --- database values -----------------------------------------------------------------------------


class Database:
    """An immutable database value; see `natalog.Database`, whose verbs it has without ``await``."""

    __slots__ = ("_conn", "value")

    def __init__(self, value: Value, conn: Conn) -> None:
        self.value = value
        """The value as `natalog.core` has it."""
        self._conn = conn

    def __repr__(self) -> str:
        return f"local.Database({self._conn.database!r}, basis={self.basis})"

    @property
    def database(self) -> str:
        return self._conn.database

    @property
    def branch(self) -> str:
        return MAIN_BRANCH

    @property
    def basis(self) -> int:
        """The newest transaction that this value contains."""
        return self.value.max_tx

    def as_of(self, t: int | datetime | TxReport) -> Database:
        """The facts as they were after transaction ``t``, or at an instant."""
        return Database(self.value.as_of(time_point(t)), self._conn)

    def since(self, t: int | datetime | TxReport) -> Database:
        """Only what was asserted after ``t`` and still holds."""
        return Database(self.value.since(time_point(t)), self._conn)

    def history(self) -> Database:
        """Every assertion and retraction there ever was."""
        return Database(self.value.history(), self._conn)

    def with_(self, tx_data: Any, tx_meta: Any = None) -> Database:
        """This value with a transaction applied to it speculatively."""
        return Database(self._speculate(tx_data, tx_meta).db_after, self._conn)

    def with_report(
        self, tx_data: Any, tx_meta: Any = None, *, timeout: float | None = None
    ) -> TxReport:
        """What a transaction on this value would report."""
        return _report(self._speculate(tx_data, tx_meta), None, None, self.database)

    def q(self, query: Any, *args: Any, **options: Any) -> Any:
        """Run a query with this value as ``$`` and ``args`` for the rest of ``:in``."""
        return run_query(query, (self, *args), **options)

    def pull(
        self, pattern: Any, eid: Any, *, timeout: float | None = None
    ) -> dict[Any, Any] | None:
        """The tree that ``pattern`` describes from one entity on; None when nothing is there."""
        return pull(self.value, pull_pattern(pattern), eid)

    def pull_many(
        self, pattern: Any, eids: Sequence[Any], *, timeout: float | None = None
    ) -> list[dict[Any, Any] | None]:
        """`pull` for several entities, in their order."""
        return list(pull_many(self.value, pull_pattern(pattern), list(eids)))

    def entity(self, eid: Any, *, timeout: float | None = None) -> dict[Any, Any] | None:
        """All attributes of an entity with ``:db/id``; None when there is none."""
        found = entity(self.value, eid)
        return None if found is None else found.to_dict()

    def datoms(
        self, index: str, *parts: Any, limit: int | None = None, timeout: float | None = None
    ) -> list[Datom]:
        """The datoms of ``"eavt"``, ``"aevt"`` or ``"avet"`` that begin with ``parts``."""
        name, found = components(index, parts)
        return self.value.datoms(name, found, limit)

    def seek_datoms(
        self, index: str, *parts: Any, limit: int | None = None, timeout: float | None = None
    ) -> list[Datom]:
        """The datoms from ``parts`` on to the end of the index."""
        name, found = components(index, parts)
        return self.value.seek_datoms(name, found, limit)

    def rseek_datoms(
        self, index: str, *parts: Any, limit: int | None = None, timeout: float | None = None
    ) -> list[Datom]:
        """The datoms from ``parts`` back to the beginning of the index, descending."""
        name, found = components(index, parts)
        return self.value.rseek_datoms(name, found, limit)

    def index_range(
        self,
        attr: Any,
        start: Any = None,
        end: Any = None,
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> list[Datom]:
        """The datoms of an indexed attribute from value ``start`` to ``end``, both included."""
        return self.value.index_range(attribute(attr), start, end)[:limit]

    def schema(self, *, reverse: bool = False, timeout: float | None = None) -> dict[Any, Any]:
        """Declared attributes with their properties; ``reverse``: properties to attributes."""
        schema = self.value.schema
        return dict(schema.reverse_read_out() if reverse else schema.read_out())

    def _speculate(self, tx_data: Any, tx_meta: Any) -> CoreReport:
        data, meta = transaction(tx_data, tx_meta)
        return _transact.process(self.value, data, meta, now_ms=self._conn._now())


def run_query(
    query: Any,
    inputs: Sequence[Any],
    *,
    order_by: Any = None,
    limit: int | None = None,
    offset: int | None = None,
    timeout: float | None = None,
    fuel: int | None = None,
) -> Any:
    """Run a query on exactly ``inputs``; options as for `natalog.Database.q`."""
    expired = None
    if timeout is not None:
        end = time.monotonic() + timeout

        def expired() -> bool:
            return time.monotonic() > end

    named = {"order_by": _order_by(order_by), "limit": limit, "offset": offset}
    result = _query.q(
        query,
        *[one.value if isinstance(one, Database) else one for one in inputs],
        **{name: value for name, value in named.items() if value is not None},
        expired=expired,
        fuel=fuel,
    )
    # the rows of a set are tuples of stored values already
    found = result.python()
    return found if result.kind == "set" else query_answer(result.kind, found)


_order_by = order_by

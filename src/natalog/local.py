"""A database in this process: the same verbs, synchronous, in memory, without NATS.

    from natalog import local

    conn = local.create_database("people", schema_flexibility="read")
    conn.transact([{"name": "Alice", "age": 25}])
    conn.db().q("[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]")     # {("Alice", 25)}

Databases live in a registry of this process by name; they are gone when it ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from natalog._repository import Branch, Clock, Repository, report_of
from natalog._shapes import (
    MAIN_BRANCH,
    attribute,
    checked_name,
    components,
    load_operation,
    order_by,
    parents_of,
    pull_pattern,
    purges,
    query_answer,
    time_point,
    transaction,
    tx_id,
)
from natalog.core import diff as _diff
from natalog.core import query as _query
from natalog.core import transact as _transact
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database as Value
from natalog.core.edn import read
from natalog.core.entity import entity
from natalog.core.errors import (
    BadRequest,
    DatabaseExists,
    DatabaseNotFound,
    InvalidTimePoint,
    NatalogError,
)
from natalog.core.limits import CONFLICTS_MAX
from natalog.core.materialise import materialised
from natalog.core.pull import pull, pull_many
from natalog.core.redaction.purging import checked_patterns, checked_purges
from natalog.core.registry import EMPTY as NO_FUNCTIONS
from natalog.core.registry import Registry as QueryRegistry
from natalog.core.schema_conflict import SchemaConflict
from natalog.core.transact.report import TxReport as CoreReport
from natalog.core.values import Datom, instant_ms, ms_instant
from natalog.core.versioning import forked
from natalog.report import (
    Commit,
    Diff,
    MergeReport,
    QueryAnswer,
    QueryPlan,
    QueryStats,
    Transaction,
    TxReport,
)
from natalog.rows import Rows, rows_of


def _machine_clock() -> int:
    return time.time_ns() // 1_000_000


# --- the registry --------------------------------------------------------------------------------


class Registry:
    """Databases of this process by name."""

    def __init__(self) -> None:
        self._databases: dict[str, Repository] = {}

    def create_database(
        self,
        name: str,
        *,
        keep_history: bool = True,
        schema_flexibility: str = "write",
        initial_tx: Any = None,
        clock: Clock | None = None,
        functions: _transact.Registry = _transact.EMPTY,
        query_functions: QueryRegistry = NO_FUNCTIONS,
        **settings: Any,
    ) -> Conn:
        """Create a database and return the connection to it.

        ``clock`` gives the instants of transactions; a pinned one makes them reproducible.
        ``functions`` are what transactions may call (`natalog.core.transact.Registry`),
        ``query_functions`` what queries and pulls may (`natalog.core.registry.Registry`).
        Otherwise as `natalog.Client.create_database`.
        """
        checked_name(name)
        if name in self._databases:
            raise DatabaseExists(f"A database named {name} exists.", database=name)
        config = DatabaseConfig.from_mapping(
            {**settings, "keep_history": keep_history, "schema_flexibility": schema_flexibility}
        )
        repository = Repository(name, config, clock or _machine_clock, functions, query_functions)
        conn = Conn(repository)
        if initial_tx is not None:
            conn.transact(read(initial_tx) if isinstance(initial_tx, str) else initial_tx)
        self._databases[name] = repository
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
                "keep_history": repository.config.keep_history,
                "schema_flexibility": repository.config.schema_flexibility,
                "branches": sorted(repository.branches()),
            }
            for name, repository in sorted(self._databases.items())
        ]

    def database(self, name: str, branch: str = MAIN_BRANCH) -> Conn:
        """The connection to a database; `DatabaseNotFound`, `BranchNotFound`."""
        found = self._databases.get(checked_name(name))
        if found is None:
            raise DatabaseNotFound(f"There is no database named {name}.", database=name)
        found.branch(branch)
        return Conn(found, branch)


_registry = Registry()
create_database = _registry.create_database
delete_database = _registry.delete_database
database_exists = _registry.database_exists
list_databases = _registry.list_databases
database = _registry.database


# --- connections ---------------------------------------------------------------------------------


class Conn:
    """A branch of a database in this process.  Safe to use from several threads."""

    def __init__(self, repository: Repository, branch: str = MAIN_BRANCH) -> None:
        self.database = repository.name
        self.branch_name = branch
        self.config = repository.config
        self._repository = repository

    def __repr__(self) -> str:
        return f"local.Conn({self.database!r}, branch={self.branch_name!r})"

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
        return self._repository.transact(self.branch_name, data, meta, id)

    def load_entities(
        self,
        rows: Any,
        tx_meta: Any = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> TxReport:
        """Add facts of another database as one transaction; see `natalog.Conn.load_entities`."""
        return self.transact(load_operation(rows), tx_meta, id=id)

    def purge_everywhere(
        self, operations: Any, tx_meta: Any = None, *, timeout: float | None = None
    ) -> dict[str, TxReport | NatalogError]:
        """Purge facts on every branch; see `natalog.Conn.purge_everywhere`."""
        data = purges(operations)
        found: dict[str, TxReport | NatalogError] = {}
        for branch in sorted(self.branches()):
            try:
                found[branch] = Conn(self._repository, branch).transact(data, tx_meta)
            except NatalogError as error:
                found[branch] = error
        return found

    def reports(self, since: Any = None, *, rejections: bool = False) -> Iterator[TxReport]:
        """The reports after transaction ``since`` (None: those made after this call), in order.

        The iterator ends at the newest report and goes on with later ones when asked again.
        """
        reports = self._branch.reports
        return _Reports(reports, len(reports) if since is None else _place(reports, since))

    def db(self, *, timeout: float | None = None) -> Database:
        """The current database value."""
        return Database(self._branch.value, self)

    def q(self, query: Any, *inputs: Any, **options: Any) -> Any:
        """Run a query on exactly these inputs; without any, on the current database value."""
        return run_query(query, inputs or (self.db(),), **options)

    def info(self, *, timeout: float | None = None) -> dict[str, Any]:
        """``commit_id``, ``parents``, ``max_tx``, ``max_eid``, ``datoms``, ``config``."""
        value = self._branch.value
        return {
            "database": self.database,
            "branch": self.branch_name,
            "commit_id": value.commit_id,
            "parents": list(self._repository.graph[self._branch.head].parents),
            "max_tx": value.max_tx,
            "max_eid": value.max_eid,
            "purge_horizon": value.purge_horizon,
            "datoms": len(value),
            "config": {
                "keep_history": self.config.keep_history,
                "schema_flexibility": self.config.schema_flexibility,
                **self.config.to_mapping(),
            },
        }

    def branches(self, *, timeout: float | None = None) -> set[str]:
        """The names of all branches."""
        return self._repository.branches()

    def branch_history(
        self, *, limit: int | None = None, timeout: float | None = None
    ) -> list[Commit]:
        """The commits that the branch descends from, breadth first from its head."""
        return [
            Commit(
                node.id,
                node.parents,
                node.tx,
                None if node.instant_ms is None else ms_instant(node.instant_ms),
            )
            for node in self._repository.history(self.branch_name)[:limit]
        ]

    def branch(
        self, name: str, *, from_: str | UUID | int | None = None, timeout: float | None = None
    ) -> None:
        """Make a branch from this one, or from another branch, a commit id or a tx id."""
        self._repository.fork(name, self.branch_name if from_ is None else from_)

    def delete_branch(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a branch; the main branch is refused."""
        self._repository.delete(name)

    def force_branch(
        self,
        name: str,
        db: Database,
        *,
        parents: Iterable[str | UUID],
        timeout: float | None = None,
    ) -> None:
        """Make ``name`` a branch whose head is ``db``, any database value of this database."""
        self._repository.force(name, db.on_lane, parents)

    def merge(
        self,
        parents: str | UUID | Iterable[str | UUID],
        tx_data: Any = None,
        tx_meta: Any = None,
        *,
        policy: str | None = None,
        resolutions: Any = None,
        timeout: float | None = None,
    ) -> MergeReport:
        """Merge other branches or commits into this branch; see `natalog.Conn.merge`."""
        given = parents_of(parents, self.branch_name)
        data, meta = transaction([] if tx_data is None else tx_data, tx_meta)
        if tx_data is not None:
            if policy or resolutions:
                raise BadRequest(
                    "A merge has either tx_data, or a policy and resolutions: what is given is "
                    "not planned."
                )
            report = self._repository.transact(self.branch_name, data, meta, parents=given)
            return MergeReport(**{name: getattr(report, name) for name in TxReport.__slots__})
        if len(given) > 1:
            raise BadRequest(
                "Several parents need tx_data; merge them one after the other without.",
                parents=[str(parent) for parent in given],
            )
        return self._repository.merge(
            self.branch_name, given[0], meta, policy or "fail", resolutions or ()
        )

    def merge_preview(
        self,
        parent: str | UUID,
        *,
        policy: str = "fail",
        resolutions: Any = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """What `merge` of one parent would do; see `natalog.Conn.merge_preview`."""
        planned = self._repository.plan_merge(self.branch_name, parent, policy, resolutions or ())
        return {
            "tx_data": planned.merge.tx_data,
            "conflicts": [conflict.data() for conflict in planned.merge.conflicts],
            "unified": planned.merge.unified,
            "base": list(planned.base),
            "up_to_date": planned.up_to_date,
            "fast_forward": planned.fast_forward,
        }

    def commit_db(self, commit_id: UUID, *, timeout: float | None = None) -> Database:
        """The database value of a commit; `CommitNotFound` when there is none."""
        return Database(self._repository.value_at(commit_id), self)

    def diff(self, left: Database, right: Database, *, timeout: float | None = None) -> Diff:
        """What ``right`` has and ``left`` lacks, and the reverse."""
        found = _diff.diff(left.value, right.value)
        return Diff(
            added=[(d.e, d.a, d.v) for d in found.added],
            removed=[(d.e, d.a, d.v) for d in found.removed],
        )

    def tx_range(
        self, start: Any = None, end: Any = None, *, timeout: float | None = None
    ) -> list[Transaction]:
        """The transactions from ``start`` to before ``end`` with their datoms, oldest first."""
        found = _diff.tx_range(self._branch.value, tx_id(start), tx_id(end))
        return [
            Transaction(tx, None if ms is None else ms_instant(ms), datoms)
            for tx, ms, datoms in found
        ]

    def gc(
        self,
        before: datetime | None = None,
        *,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Free what no kept commit reaches; with ``before`` also commits older than that."""
        if before is not None and before.tzinfo is None:
            raise InvalidTimePoint(f"The instant {before} has no time zone.", point=str(before))
        before_ms = None if before is None else instant_ms(before)
        gone = self._repository.collect(before_ms, dry_run=dry_run)
        return {"removed": len(gone), "commits": gone, "dry_run": dry_run}

    def snapshot(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Nothing is written: a database in this process lives in its memory."""
        return {
            "database": self.database,
            "branch": self.branch_name,
            "written": False,
            "tx": self._branch.value.max_tx,
        }

    def erase(
        self,
        tx_data: Any = None,
        *,
        facts: Iterable[Any] | None = None,
        containing: str | None = None,
        branches: str | Iterable[str] | None = None,
        dry_run: bool = False,
        id: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Purge, and let commits and reports forget what was purged; see `natalog.Conn.erase`.

        Nothing is stored here; the receipt says what left memory.
        """
        receipts = self._repository.receipts
        known = next((r for r in receipts if id is not None and r["id"] == id), None)
        if known is not None:
            return {**known, "repeated": True}
        if containing is not None and (not isinstance(containing, str) or not containing.strip()):
            raise BadRequest("containing is a text.", field="containing")
        named = [branches] if isinstance(branches, str) else branches
        began = self._now()
        found = self._repository.erase(
            checked_purges([] if tx_data is None else purges(tx_data)),
            checked_patterns([] if facts is None else list(facts)),
            containing,
            None if named is None or list(named) == ["all"] else list(named),
            dry_run=dry_run,
        )
        receipt = {
            "id": str(uuid4()) if id is None else id,
            "database": self.database,
            "began": ms_instant(began),
            "ended": ms_instant(self._now()),
            "dry_run": dry_run,
            **found,
            "not_covered": ["values and reports that were handed out"],
        }
        if not dry_run:
            receipts.append(receipt)
        return receipt

    def erasures(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """The receipts of all erasures, oldest first."""
        return list(self._repository.receipts)

    @property
    def _branch(self) -> Branch:
        return self._repository.branch(self.branch_name)

    def _now(self) -> int:
        return self._repository.clock()

    def _process(self, value: Value, data: Any, meta: Any) -> CoreReport:
        """A transaction on any value, with the functions of the database."""
        return _transact.process(
            value, data, meta, now_ms=self._now(), functions=self._repository.functions
        )


def _place(reports: list[TxReport], since: Any) -> int:
    point = time_point(since)
    if isinstance(point, datetime):
        raise BadRequest("reports start after a transaction id, not at an instant")
    return sum(1 for report in reports if report.tx <= point)


class _Reports(Iterator[TxReport]):
    def __init__(self, reports: list[TxReport], start: int) -> None:
        self._all = reports
        self._next = start

    def __next__(self) -> TxReport:
        if self._next >= len(self._all):
            raise StopIteration
        self._next += 1
        return self._all[self._next - 1]


# --- database values -----------------------------------------------------------------------------


class _Speculation(NamedTuple):
    """How a speculative value was made, to be made again on another lane."""

    base: Database
    tx_data: Any
    tx_meta: Any


class Database:
    """An immutable database value; see `natalog.Database`, whose verbs it has without ``await``."""

    __slots__ = ("_conn", "_made", "value")

    def __init__(self, value: Value, conn: Conn, made: _Speculation | None = None) -> None:
        self.value = value
        """The value as `natalog.core` has it."""
        self._conn = conn
        self._made = made

    def __repr__(self) -> str:
        return f"local.Database({self._conn.database!r}, basis={self.basis})"

    @property
    def database(self) -> str:
        return self._conn.database

    @property
    def branch(self) -> str:
        return self._conn.branch_name

    @property
    def commit_id(self) -> UUID | None:
        """The commit that this value is; None for views and speculative values."""
        return self.value.commit_id if self.value.is_current else None

    @property
    def basis(self) -> int:
        """The newest transaction that this value contains."""
        return self.value.max_tx

    @property
    def functions(self) -> QueryRegistry:
        """What queries and pulls on this value may call beside the built-in functions."""
        return self._conn._repository.query_functions

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
        made = _Speculation(self, tx_data, tx_meta)
        return Database(self._speculate(tx_data, tx_meta).db_after, self._conn, made)

    def with_report(
        self, tx_data: Any, tx_meta: Any = None, *, timeout: float | None = None
    ) -> TxReport:
        """What a transaction on this value would report."""
        made = self._speculate(tx_data, tx_meta)
        return report_of(made, None, None, self.database, self.branch)

    def q(self, query: Any, *args: Any, **options: Any) -> Any:
        """Run a query with this value as ``$`` and ``args`` for the rest of ``:in``."""
        return run_query(query, (self, *args), **options)

    def rows(self, query: Any, *args: Any, **options: Any) -> Rows:
        """The answer of `q` as rows with named columns, for Arrow, pandas or polars."""
        return rows_of(query, self.q(query, *args, **options))

    def explain(self, query: Any, *args: Any, **options: Any) -> QueryPlan:
        """Run a query as `q` does and tell what it did, instead of its answer."""
        return explain_query(query, (self, *args), **options)

    def pull(
        self, pattern: Any, eid: Any, *, timeout: float | None = None
    ) -> dict[Any, Any] | None:
        """The tree that ``pattern`` describes from one entity on; None when nothing is there."""
        return pull(self.value, pull_pattern(pattern), eid, functions=self.functions)

    def pull_many(
        self, pattern: Any, eids: Sequence[Any], *, timeout: float | None = None
    ) -> list[dict[Any, Any] | None]:
        """`pull` for several entities, in their order."""
        return list(
            pull_many(self.value, pull_pattern(pattern), list(eids), functions=self.functions)
        )

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

    def metrics(self, *, timeout: float | None = None) -> dict[Any, Any]:
        """Counts of the value's datoms; see `natalog.Database.metrics`."""
        return dict(self.value.metrics())

    def schema_conflicts(
        self, tx_data: Any, *, limit: int | None = None, timeout: float | None = None
    ) -> list[SchemaConflict]:
        """What forbids the changes of declarations in ``tx_data``; empty when nothing does.

        A dry run: nothing is stored.  ``limit``: entities, and values, that one conflict names
        (20).  Raises what refuses the transaction for another reason.
        """
        data, _ = transaction(tx_data, None)
        return _transact.schema_conflicts(
            self.value,
            data,
            now_ms=self._conn._now(),
            limit=CONFLICTS_MAX if limit is None else limit,
        )

    def on_lane(self, lane: int) -> Value:
        """This value as a branch with ``lane`` would hold it: speculative ids come from there."""
        if self._made is None:
            return self.value
        base = forked(materialised(self._made.base.on_lane(lane)), lane)
        data, meta = transaction(self._made.tx_data, self._made.tx_meta)
        made = self._conn._process(base, data, meta)
        return made.db_after

    def _speculate(self, tx_data: Any, tx_meta: Any) -> CoreReport:
        data, meta = transaction(tx_data, tx_meta)
        return self._conn._process(self.value, data, meta)


def run_query(
    query: Any,
    inputs: Sequence[Any],
    *,
    order_by: Any = None,
    limit: int | None = None,
    offset: int | None = None,
    timeout: float | None = None,
    fuel: int | None = None,
    stats: bool = False,
) -> Any:
    """Run a query on exactly ``inputs``; options as for `natalog.Database.q`."""
    plan = _query.Plan() if stats else None
    began = time.monotonic()
    result = _run(query, inputs, plan, timeout, fuel, order_by, limit, offset)
    if plan is not None:
        cost = _stats(plan, time.monotonic() - began)
        return QueryAnswer(query_answer(result.kind, result.python()), cost)
    # the rows of a set are tuples of stored values already
    found = result.python()
    return found if result.kind == "set" else query_answer(result.kind, found)


def explain_query(
    query: Any,
    inputs: Sequence[Any],
    *,
    order_by: Any = None,
    limit: int | None = None,
    offset: int | None = None,
    timeout: float | None = None,
    fuel: int | None = None,
) -> QueryPlan:
    """What a query on exactly ``inputs`` does; options as for `natalog.Database.explain`."""
    plan = _query.Plan()
    began = time.monotonic()
    _run(query, inputs, plan, timeout, fuel, order_by, limit, offset)
    cost = _stats(plan, time.monotonic() - began)
    return QueryPlan(plan.text(), plan.data()["steps"], cost)


def _run(
    query: Any,
    inputs: Sequence[Any],
    plan: _query.Plan | None,
    timeout: float | None,
    fuel: int | None,
    order_by: Any,
    limit: int | None,
    offset: int | None,
) -> _query.QueryResult:
    expired = None
    if timeout is not None:
        end = time.monotonic() + timeout

        def expired() -> bool:
            return time.monotonic() > end

    named = {"order_by": _order_by(order_by), "limit": limit, "offset": offset}
    functions = [one.functions for one in inputs if isinstance(one, Database)]
    return _query.q(
        query,
        *[one.value if isinstance(one, Database) else one for one in inputs],
        **{name: value for name, value in named.items() if value is not None},
        functions=functions[0] if functions else NO_FUNCTIONS,
        expired=expired,
        fuel=fuel,
        plan=plan,
    )


def _stats(plan: _query.Plan, took_s: float) -> QueryStats:
    elapsed = round(took_s * 1000, 3)
    return QueryStats(plan.answer_rows, len(plan.steps), plan.rows_touched, elapsed)


_order_by = order_by

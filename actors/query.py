"""The query actor: answers reads from database values, never holding up anything else.

A read runs in a worker thread under a deadline.  Reads that have proved to be short run at once in
the event loop, on a small time budget; one that exceeds it starts over in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import anyio
from anyio import CapacityLimiter, to_thread

from natalog.actors.catalog import Process
from natalog.actors.hub import Hub
from natalog.actors.metrics import Metrics
from natalog.actors.payload import (
    Bare,
    Struct,
    datom_rows,
    field_name,
    fields_of,
    integer,
    report_struct,
)
from natalog.actors.requests import Request
from natalog.actors.running import Expired, Running, Ticket
from natalog.actors.runtime import RETRY_AFTER_MS, STOPPING, as_natalog
from natalog.actors.views import Asker, Compute, Views
from natalog.core import entity as entities
from natalog.core import pull as pulls
from natalog.core.database import Database
from natalog.core.diff import diff, tx_range
from natalog.core.edn import read as read_edn
from natalog.core.errors import (
    BadRequest,
    Busy,
    IndexError_,
    QueryTimeout,
    SegmentCorrupt,
    SegmentMissing,
    Unavailable,
)
from natalog.core.limits import (
    CONFLICTS_MAX,
    KEPT_FORM_SIZE_MAX,
    QUERY_TIMEOUT_MAX_S,
    QUERY_TIMEOUT_S,
)
from natalog.core.query import Plan, QueryResult, q
from natalog.core.query.ast import InSource, Query
from natalog.core.query.kept import forget
from natalog.core.query.parse import parse_query
from natalog.core.registry import Registry
from natalog.core.schema_conflict import SchemaConflict
from natalog.core.values import Keyword, make_set, ms_instant

log = logging.getLogger("natalog.query")

READS_WAITING_MAX: Final = 2048
GRACE_S: Final = 0.25
"""A read that does not notice its deadline is given up this much later."""
SHORT_S: Final = 0.001
"""A read that computes for at most this long is short."""
SHORT_RUNS: Final = 3
INLINE_BUDGET_S: Final = 0.02
COSTS_MAX: Final = 4096

_COMMON: Final = ("view", "basis", "timeout_ms")
_QUERY_FIELDS: Final = (
    *("query", "args", "limit", "offset", "order_by", "fuel", "explain", "stats", "request_id"),
    *_COMMON,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a read found: a body for `Request.encode`, its basis and how many rows it has."""

    body: Any
    basis: int | None
    rows: int = 0


Conflicts = Callable[[Database, Any, int], list[SchemaConflict]]
"""`core.transact.schema_conflicts` with clock and functions bound: (database, tx-data, limit)."""
Job = Callable[[Expired], Answer]


@dataclass(slots=True)
class Prepared:
    """A read whose values are at hand: ``job`` computes; ``hint`` names reads of equal cost."""

    job: Job
    hint: str | None = None
    deadline: float = 0.0


class QueryActor:
    """Serves the read endpoints of every database."""

    def __init__(
        self,
        hub: Hub,
        views: Views,
        metrics: Metrics,
        speculate: Process,
        functions: Registry,
        conflicts: Conflicts,
        *,
        threads: int,
    ) -> None:
        self._hub = hub
        self._views = views
        self._tasks: set[asyncio.Task[None]] = set()
        self._metrics = metrics
        self._speculate = speculate
        self._functions = functions
        self._conflicts = conflicts
        self._limiter = CapacityLimiter(threads)
        self._waiting = 0
        self._running = Running()
        self._deadlines: dict[Ticket, float] = {}
        self._costs: OrderedDict[tuple[str, ...], int] = OrderedDict()
        self._prepare: dict[str, Callable[[Request], Awaitable[Prepared]]] = {
            "pull": self._pull,
            "entity": self._entity,
            "datoms": self._datoms,
            "schema": self._schema,
            "with": self._with,
            "history": self._history,
            "diff": self._diff,
            "tx-range": self._tx_range,
            "schema-conflicts": self._schema_conflicts,
            "metrics": self._counts,
        }

    @property
    def endpoints(self) -> Sequence[str]:
        return ["query", *self._prepare]

    @property
    def waiting(self) -> int:
        """Reads that are being answered."""
        return self._waiting

    def take(self, request: Request) -> None:
        """Answer a request in a task of its own; `Busy` when too many are waiting."""
        if self._waiting >= READS_WAITING_MAX:
            self._metrics.query_rejected.labels(Busy.code).inc()
            raise Busy("Too many reads are waiting.", retry_after_ms=RETRY_AFTER_MS)
        self._waiting += 1
        task = asyncio.get_running_loop().create_task(self._serve(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stuck_s(self) -> float:
        """For how many seconds the oldest read that was given up has gone on all the same."""
        now = time.monotonic()
        return max((now - deadline for deadline in list(self._deadlines.values())), default=0.0)

    async def stop(self) -> None:
        """End the reads that are being answered; their senders are told."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)

    def cancel(self, request: Request, sending: Callable[[Any], bool]) -> None:
        """End the read that a message on ``.cancel`` names; only its own process answers.

        ``sending`` does so for one that is answered already, in parts.
        """
        ident = fields_of(request.body(), ("request_id",), "cancel").get("request_id")
        found = self._running.cancel(ident) or sending(ident)
        if found and request.message.reply:
            task = asyncio.get_running_loop().create_task(request.reply(Struct(cancelled=True)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        request.answered = not found

    async def _serve(self, request: Request) -> None:
        outcome = "ok"
        ticket = self._running.open(request.message.reply)
        try:
            request.check_deadline()
            await request.prepare()
            try:
                payload, answer = await self._answer(request, ticket)
            except (SegmentMissing, SegmentCorrupt) as error:
                await self._hub.reopen(str(error.data.get("database") or request.database))
                payload, answer = await self._answer(request, ticket)
            await request.reply_bytes(payload, answer.basis)
            self._metrics.query_rows.observe(answer.rows)
        except Exception as error:
            known = as_natalog(error)
            outcome = known.code
            self._metrics.query_rejected.labels(known.code).inc()
            await request.refuse(error)
        except anyio.get_cancelled_exc_class():
            request.fail(Unavailable(STOPPING))  # another one may serve it
            raise
        finally:
            self._waiting -= 1
            self._running.close(ticket)
            said = "ok" if outcome == "ok" else "error"
            self._metrics.query_seconds.labels(said).observe(time.monotonic() - request.arrived)
            database = self._metrics.labels.known(request.database)
            self._metrics.reads.labels(database, request.endpoint, said).inc()

    async def _answer(self, request: Request, ticket: Ticket) -> tuple[bytes, Answer]:
        if request.endpoint == "query":
            prepared = await self._query(request, ticket)
        else:
            prepared = await self._prepare[request.endpoint](request)
        return await self._run(request, prepared, ticket)

    async def _run(
        self, request: Request, prepared: Prepared, ticket: Ticket
    ) -> tuple[bytes, Answer]:
        key = (request.endpoint, request.database, request.branch, prepared.hint or "")
        runs = self._costs.get(key, 0) if prepared.hint is not None else 0
        if runs >= SHORT_RUNS:
            began = time.monotonic()
            limit = began + INLINE_BUDGET_S
            try:
                answer = prepared.job(lambda: time.monotonic() > limit)
                payload = request.encode(answer.body)
                if time.monotonic() - began > SHORT_S * 5:
                    self._costs[key] = SHORT_RUNS - 1  # or was something else in the way?
                return payload, answer
            except QueryTimeout:
                self._costs[key] = 0

        def work() -> tuple[bytes, Answer, float]:
            began = time.thread_time()  # how busy the machine is says nothing of the read
            self._deadlines[ticket] = prepared.deadline + GRACE_S
            try:
                expired = ticket.until(prepared.deadline)
                ticket.check()
                answer = prepared.job(expired)
                ticket.check()
                payload = request.encode(answer.body)
            finally:
                self._deadlines.pop(ticket, None)
            return payload, answer, time.thread_time() - began

        found = None
        with anyio.move_on_after(max(0.0, prepared.deadline - time.monotonic()) + GRACE_S):
            found = await to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)
        if found is None:
            raise QueryTimeout("The deadline of the request passed.")
        payload, answer, took = found
        if prepared.hint is not None:
            self._costs[key] = runs + 1 if took <= SHORT_S else 0
            self._costs.move_to_end(key)
            if len(self._costs) > COSTS_MAX:
                self._costs.popitem(last=False)
        return payload, answer

    # --- what every read has -----------------------------------------------------------------

    def _asker(self, request: Request, fields: Mapping[str, Any]) -> Asker:
        timeout_ms = integer(fields, "timeout_ms", minimum=1)
        timeout_s = QUERY_TIMEOUT_S if timeout_ms is None else timeout_ms / 1000
        timeout_s = min(timeout_s, request.timeout_s, QUERY_TIMEOUT_MAX_S)
        basis = integer(fields, "basis")
        return Asker(request.database, request.branch, basis, request.arrived + timeout_s)

    async def _read(
        self, request: Request, names: Sequence[str]
    ) -> tuple[dict[str, Any], Asker, Compute]:
        fields = fields_of(request.body(), (*names, *_COMMON), request.endpoint)
        asker = self._asker(request, fields)
        return fields, asker, await self._views.gather(asker, fields.get("view"))

    # --- endpoints ---------------------------------------------------------------------------

    async def _query(self, request: Request, ticket: Ticket) -> Prepared:
        query, fields = query_fields(request)
        if fields.get("request_id") is not None and fields["request_id"] not in ticket.ids:
            self._running.name(ticket, fields["request_id"])
        explain, stats = flag(fields, "explain"), flag(fields, "stats")
        asker = self._asker(request, fields)
        view = await self._views.gather(asker, fields.get("view"))
        args = fields.get("args")
        inputs: list[Any] = [] if args is None else await self._views.inputs(asker, args)
        options = {
            name: fields[name]
            for name in ("limit", "offset", "order_by")
            if fields.get(name) is not None
        }
        fuel = integer(fields, "fuel")

        def job(expired: Expired) -> Answer:
            values = [value() if callable(value) else value for value in inputs]
            if lacks_database(parse_query(query), inputs):
                values.insert(0, view())
            basis = next((db.max_tx for db in values if isinstance(db, Database)), None)
            plan = Plan() if explain or stats else None
            began = time.monotonic()
            result = q(
                query,
                *values,
                functions=self._functions,
                expired=expired,
                fuel=fuel,
                plan=plan,
                **options,
            )
            rows = result_body(result, basis)
            found: Bare | Struct = rows
            if plan is not None:
                cost = stats_struct(plan, time.monotonic() - began)
                if explain:
                    found = Bare(plan_struct(plan, cost), {"kind": "plan", "basis": basis})
                else:
                    found = with_stats(rows, cost, request.kind)
            return Answer(found, basis, len(result.rows))

        small = len(request.message.data) <= KEPT_FORM_SIZE_MAX
        if not small:
            forget()  # what an earlier large query has left
        hint = query if isinstance(query, str) and small and not (explain or stats) else None
        return Prepared(job, hint, asker.deadline)

    async def _pull(self, request: Request) -> Prepared:
        fields, asker, view = await self._read(request, ("pattern", "eid", "eids"))
        if ("eid" in fields) == ("eids" in fields):
            raise BadRequest("pull takes a pattern, and eid or eids.", endpoint="pull")
        pattern = fields.get("pattern")  # nil is a malformed pattern, which pull itself says
        if isinstance(pattern, str) and request.kind == "json":
            pattern = read_edn(pattern)
        many = fields.get("eids")
        if "eids" in fields and not isinstance(many, (list, tuple)):
            raise BadRequest("eids is a list of entities.", endpoint="pull")

        def job(_: Expired) -> Answer:
            db = view()
            if many is not None:
                found: Any = pulls.pull_many(db, pattern, many, functions=self._functions)
                return bare(found, db, len(found))
            found = pulls.pull(db, pattern, fields["eid"], functions=self._functions)
            return bare(found, db, 1)

        small = len(request.message.data) <= KEPT_FORM_SIZE_MAX
        hint = None if many is not None or not small else str(pattern)
        return Prepared(job, hint, asker.deadline)

    async def _entity(self, request: Request) -> Prepared:
        fields, asker, view = await self._read(request, ("eid",))
        if "eid" not in fields:
            raise BadRequest("entity takes an eid.", endpoint="entity")

        def job(_: Expired) -> Answer:
            db = view()
            found = entities.entity(db, fields["eid"])
            return bare(None if found is None else found.to_dict(), db, 1)

        return Prepared(job, "", asker.deadline)

    async def _datoms(self, request: Request) -> Prepared:
        names = ("index", "components", "limit", "mode", "start", "end", "attr")
        fields, asker, view = await self._read(request, names)
        limit = integer(fields, "limit")
        mode = field_name(fields.get("mode") or "datoms")
        components = fields.get("components") or []
        if not isinstance(components, (list, tuple)):
            raise BadRequest("components is a list.", endpoint="datoms")
        if mode not in ("datoms", "seek", "rseek", "range"):
            raise BadRequest(f"There is no mode {mode}.", mode=mode)
        index = "avet" if mode == "range" else field_name(fields.get("index") or "")
        if index not in ("eavt", "aevt", "avet"):
            raise IndexError_(
                f"There is no index {index or 'without a name'}; there are eavt, aevt and avet.",
                index=index,
            )

        def job(_: Expired) -> Answer:
            db = view()
            if mode == "range":
                attr = fields.get("attr")
                if isinstance(attr, str) and attr.lstrip(":"):
                    attr = Keyword(attr)
                if not isinstance(attr, Keyword):
                    raise BadRequest("A range needs attr, an attribute.", endpoint="datoms")
                found = db.index_range(attr, fields.get("start"), fields.get("end"), limit)
            elif mode == "seek":
                found = db.seek_datoms(index, components, limit)
            elif mode == "rseek":
                found = db.rseek_datoms(index, components, limit)
            else:
                found = db.datoms(index, components, limit)
            return bare(datom_rows(found), db, len(found))

        return Prepared(job, None, asker.deadline)

    async def _schema(self, request: Request) -> Prepared:
        fields, asker, view = await self._read(request, ("reverse",))
        reverse = fields.get("reverse", False)
        if not isinstance(reverse, bool):
            raise BadRequest("reverse is true or false.", endpoint="schema")

        def job(_: Expired) -> Answer:
            db = view()
            found = db.schema.reverse_read_out() if reverse else db.schema.read_out()
            return bare(found, db, len(found))

        return Prepared(job, None, asker.deadline)

    async def _with(self, request: Request) -> Prepared:
        fields, asker, view = await self._read(request, ("tx_data", "tx_meta", "id"))
        if "tx_data" not in fields:
            raise BadRequest("with takes tx_data.", endpoint="with")

        def job(_: Expired) -> Answer:
            db = view()
            report = self._speculate(db, fields["tx_data"], fields.get("tx_meta"))
            body = report_struct(report, None, database=request.database, branch=request.branch)
            return Answer(body, db.max_tx, len(report.datoms))

        return Prepared(job, None, asker.deadline)

    async def _schema_conflicts(self, request: Request) -> Prepared:
        fields, asker, view = await self._read(request, ("tx_data", "limit"))
        if "tx_data" not in fields:
            raise BadRequest("schema-conflicts takes tx_data.", endpoint="schema-conflicts")
        limit = integer(fields, "limit", minimum=1) or CONFLICTS_MAX

        def job(_: Expired) -> Answer:
            db = view()
            found = [
                Struct(conflict._asdict())
                for conflict in self._conflicts(db, fields["tx_data"], limit)
            ]
            return bare(found, db, len(found))

        return Prepared(job, None, asker.deadline)

    async def _counts(self, request: Request) -> Prepared:
        _, asker, view = await self._read(request, ())

        def job(_: Expired) -> Answer:
            db = view()
            return bare(db.metrics(), db, 1)

        return Prepared(job, None, asker.deadline)

    async def _history(self, request: Request) -> Prepared:
        fields = fields_of(request.body(), ("limit", "basis", "timeout_ms"), "history")
        asker = self._asker(request, fields)
        db = await self._views.value(asker)
        limit = integer(fields, "limit")
        nodes = await self._hub.archive.history(request.database, request.branch, db, limit)

        def job(_: Expired) -> Answer:
            found = [
                Struct(
                    commit_id=node.id,
                    parents=list(node.parents),
                    tx=node.tx,
                    instant=ms_instant(node.instant_ms) if node.instant_ms else None,
                )
                for node in nodes
            ]
            return bare(found, db, len(found))

        return Prepared(job, None, asker.deadline)

    async def _diff(self, request: Request) -> Prepared:
        fields = fields_of(request.body(), ("from", "to", "basis", "timeout_ms"), "diff")
        asker = self._asker(request, fields)
        before = await self._views.gather(asker, fields.get("from"))
        after = await self._views.gather(asker, fields.get("to"))

        def job(expired: Expired) -> Answer:
            new = after()
            found = diff(before(), new)
            if expired():
                raise QueryTimeout("The deadline of the request passed.")
            body = Struct(
                added=[[d.e, d.a, d.v] for d in found.added],
                removed=[[d.e, d.a, d.v] for d in found.removed],
            )
            return bare(body, new, len(found.added) + len(found.removed))

        return Prepared(job, None, asker.deadline)

    async def _tx_range(self, request: Request) -> Prepared:
        fields, asker, view = await self._read(request, ("from", "to"))
        start, end = integer(fields, "from"), integer(fields, "to")

        def job(_: Expired) -> Answer:
            db = view()
            found = [
                Struct(
                    tx=tx,
                    instant=None if ms is None else ms_instant(ms),
                    datoms=datom_rows(datoms),
                )
                for tx, ms, datoms in tx_range(db, start, end)
            ]
            return bare(found, db, sum(len(entry["datoms"]) for entry in found))

        return Prepared(job, None, asker.deadline)


# --- shapes --------------------------------------------------------------------------------------


def query_fields(request: Request) -> tuple[Any, dict[str, Any]]:
    """The query of a request, bare or in a map with options."""
    data = request.message.data
    if request.kind == "edn" and data.lstrip()[:1] in (b"[", b"("):
        try:
            return data.decode("utf-8"), {}
        except UnicodeDecodeError as error:
            raise BadRequest(f"The text is not UTF-8: {error.reason}.", at=error.start) from None
    body = request.body()
    if not isinstance(body, Mapping):
        if isinstance(body, (list, tuple, str)):
            return body, {}
        raise BadRequest(f"A query is a vector, a map or text, not {body!r}.", endpoint="query")
    if not any(field_name(key) == "query" for key in body):
        if not any(field_name(key) == "find" for key in body):
            raise BadRequest("The request holds no query.", endpoint="query")
        return body, {}
    fields = fields_of(body, _QUERY_FIELDS, "query")
    return fields.pop("query"), fields


def flag(fields: Mapping[str, Any], name: str) -> bool:
    """An optional field that is true or false."""
    value = fields.get(name, False)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"{name} is true or false.", field=name)
    return bool(value)


def stats_struct(plan: Plan, took_s: float) -> Struct:
    """What a query cost."""
    return Struct(
        rows=plan.answer_rows,
        steps=len(plan.steps),
        rows_touched=plan.rows_touched,
        elapsed_ms=round(took_s * 1000, 3),
    )


def plan_struct(plan: Plan, cost: Struct) -> Struct:
    """What a query did, for people and for programs."""
    steps = [Struct(step) for step in plan.data()["steps"]]
    return Struct(text=plan.text(), steps=steps, stats=cost)


def with_stats(found: Bare, cost: Struct, kind: str) -> Bare | Struct:
    """An answer together with what it cost, which in EDN and JSON does not stand alone then."""
    if kind == "msgpack":
        return Bare(found.result, {**found.wrapper, "stats": cost})
    return Struct(result=found.edn if kind == "edn" else found.result, stats=cost)


def lacks_database(query: Query, inputs: Sequence[Any]) -> bool:
    """Whether ``args`` held only the inputs after ``$``, the database of the request."""
    declared = query.inputs
    if len(inputs) >= len(declared) or (inputs and callable(inputs[0])):
        return False
    return isinstance(declared[0], InSource) and declared[0].name == "$"


def result_body(result: QueryResult, basis: int | None) -> Bare:
    """The answer of a query: kind and rows in msgpack, the bare result in the other forms."""
    rows = result.rows
    if result.kind in ("set", "rows"):
        found: Any = list(map(list, rows))
    else:
        found = result.python()
    as_set = (lambda: make_set(rows)) if result.kind == "set" else None
    return Bare(found, {"kind": result.kind, "basis": basis}, as_set)


def bare(found: Any, db: Database, rows: int) -> Answer:
    """An answer that stands alone in EDN and JSON."""
    return Answer(Bare(found, {"basis": db.max_tx}), db.max_tx, rows)

"""An immutable database value that a service answers for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from natalog._shapes import (
    attribute,
    components,
    order_by,
    pull_pattern,
    query_answer,
    time_point,
    transaction,
)
from natalog.client.session import READ, Answer, Session
from natalog.core.limits import QUERY_TIMEOUT_S
from natalog.core.schema_conflict import SchemaConflict
from natalog.core.values import Datom, Tagged
from natalog.report import (
    QueryAnswer,
    QueryPlan,
    TxReport,
    as_value,
    datoms_from_rows,
    report_from_map,
    stats_from_map,
)
from natalog.rows import Rows, rows_of

DATABASE_TAG = "natalog/db"


class Database:
    """The value of one branch at one transaction, or a view of it.

    Holding one costs nothing; it is a description that every request carries, and the service
    answers it from exactly this value whatever is transacted meanwhile.
    """

    __slots__ = ("_session", "_words", "basis", "branch", "database")

    def __init__(
        self,
        session: Session,
        database: str,
        branch: str,
        basis: int,
        words: Mapping[str, Any] | None = None,
    ) -> None:
        self._session = session
        self.database = database
        self.branch = branch
        self.basis = basis
        self._words = dict(words) if words is not None else {"branch": branch, "at": basis}

    def __repr__(self) -> str:
        return f"Database({self.database!r}, {self._words!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Database):
            return NotImplemented
        return (self.database, self._words) == (other.database, other._words)

    def __hash__(self) -> int:
        return hash((self.database, self.branch, self.basis))

    # --- views ---------------------------------------------------------------------------------

    def as_of(self, t: int | datetime | TxReport) -> Database:
        """The facts as they were after transaction ``t``, or at an instant."""
        return self._derived(as_of=time_point(t))

    def since(self, t: int | datetime | TxReport) -> Database:
        """Only what was asserted after ``t`` and still holds."""
        return self._derived(since=time_point(t))

    def history(self) -> Database:
        """Every assertion and retraction there ever was."""
        return self._derived(history=True)

    def with_(self, tx_data: Any, tx_meta: Any = None) -> Database:
        """This value with a transaction applied to it speculatively; nothing is stored."""
        data, meta = transaction(tx_data, tx_meta)
        return self._derived(with_=data if meta is None else {"tx_data": data, "tx_meta": meta})

    def view_words(self) -> dict[str, Any]:
        """The view as requests name it."""
        return dict(self._words)

    def as_input(self) -> Tagged:
        """This value as an input of a query: ``#natalog/db {...}``."""
        return Tagged(DATABASE_TAG, {"database": self.database, **self._words})

    # --- reads ---------------------------------------------------------------------------------

    async def q(self, query: Any, *args: Any, **options: Any) -> Any:
        """Run a query with this value as ``$`` and ``args`` for the rest of ``:in``.

        ``query`` is EDN text, a list or a map.  Other database values among ``args`` are further
        sources.  Options: ``order_by`` (``"?age"``, ``["?age", "desc", "?name", "asc"]``, column
        numbers), ``limit``, ``offset``, ``timeout`` (seconds), ``fuel`` (rows the query may touch),
        ``stats`` (true: a `QueryAnswer` of the result and what it cost).  Cancelling the task that
        waits for the answer ends the query.

        Returns a set of tuples, or a list of tuples where order or repetition counts; a list for
        ``[?x ...]``, a tuple for ``[?x ?y]``, a value for ``?x .``, dicts for ``:keys``.
        """
        return await self.run(query, (self, *args), **options)

    async def rows(self, query: Any, *args: Any, **options: Any) -> Rows:
        """The answer of `q` as rows with named columns, for Arrow, pandas or polars.

        rows = await db.rows("[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]")
        frame = rows.to_pandas()  # pip install natalog[frames]
        """
        return rows_of(query, await self.q(query, *args, **options))

    async def run(
        self,
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
        """Run a query on exactly ``inputs``, which need not have this value among them."""
        body = _query_body(query, inputs, order_by, limit, offset, fuel)
        if stats:
            body["stats"] = True
        answer = await self._ask("query", body, timeout)
        found = query_answer(answer.body["kind"], answer.body["result"])
        return QueryAnswer(found, stats_from_map(answer.body["stats"])) if stats else found

    async def explain(
        self,
        query: Any,
        *args: Any,
        order_by: Any = None,
        limit: int | None = None,
        offset: int | None = None,
        timeout: float | None = None,
        fuel: int | None = None,
    ) -> QueryPlan:
        """Run a query as `q` does and tell what it did, instead of its answer.

        print(await db.explain("[:find ?n :where [?e :age 30] [?e :name ?n]]"))
        """
        body = _query_body(query, (self, *args), order_by, limit, offset, fuel)
        answer = await self._ask("query", {**body, "explain": True}, timeout)
        found = answer.body["result"]
        return QueryPlan(found["text"], found["steps"], stats_from_map(found["stats"]))

    async def pull(
        self, pattern: Any, eid: Any, *, timeout: float | None = None
    ) -> dict[Any, Any] | None:
        """The tree that ``pattern`` describes from one entity on; None when nothing is there."""
        answer = await self._ask("pull", {"pattern": pull_pattern(pattern), "eid": eid}, timeout)
        found: dict[Any, Any] | None = answer.body["result"]
        return found

    async def pull_many(
        self, pattern: Any, eids: Sequence[Any], *, timeout: float | None = None
    ) -> list[dict[Any, Any] | None]:
        """`pull` for several entities, in their order."""
        answer = await self._ask(
            "pull", {"pattern": pull_pattern(pattern), "eids": list(eids)}, timeout
        )
        return list(answer.body["result"])

    async def entity(self, eid: Any, *, timeout: float | None = None) -> dict[Any, Any] | None:
        """All attributes of an entity with ``:db/id``; None when there is none."""
        answer = await self._ask("entity", {"eid": eid}, timeout)
        found: dict[Any, Any] | None = answer.body["result"]
        return found

    async def datoms(
        self,
        index: str,
        *parts: Any,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> list[Datom]:
        """The datoms of ``"eavt"``, ``"aevt"`` or ``"avet"`` that begin with ``parts``."""
        return await self._datoms("datoms", index, parts, limit, timeout)

    async def seek_datoms(
        self,
        index: str,
        *parts: Any,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> list[Datom]:
        """The datoms from ``parts`` on to the end of the index."""
        return await self._datoms("seek", index, parts, limit, timeout)

    async def rseek_datoms(
        self,
        index: str,
        *parts: Any,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> list[Datom]:
        """The datoms from ``parts`` back to the beginning of the index, descending."""
        return await self._datoms("rseek", index, parts, limit, timeout)

    async def index_range(
        self,
        attr: Any,
        start: Any = None,
        end: Any = None,
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> list[Datom]:
        """The datoms of an indexed attribute from value ``start`` to ``end``, both included."""
        body = {
            "mode": "range",
            "index": "avet",
            "attr": attribute(attr),
            "start": start,
            "end": end,
            "limit": limit,
        }
        return datoms_from_rows((await self._ask("datoms", body, timeout)).body["result"])

    async def schema(
        self, *, reverse: bool = False, timeout: float | None = None
    ) -> dict[Any, Any]:
        """Declared attributes with their properties; ``reverse``: properties to attributes."""
        body = {"reverse": True} if reverse else {}
        found: dict[Any, Any] = (await self._ask("schema", body, timeout)).body["result"]
        return found

    async def metrics(self, *, timeout: float | None = None) -> dict[Any, Any]:
        """Counts of the value's datoms.

        ``:count`` in all, ``:avet-count`` of indexed attributes, ``:per-attr-counts`` and
        ``:per-entity-counts``; in a database with history also ``:temporal-count`` and
        ``:temporal-avet-count``, of everything that was ever said or retracted.
        """
        return dict((await self._ask("metrics", {}, timeout)).body["result"])

    async def with_report(
        self, tx_data: Any, tx_meta: Any = None, *, timeout: float | None = None
    ) -> TxReport:
        """What a transaction on this value would report; nothing is stored."""
        data, meta = transaction(tx_data, tx_meta)
        answer = await self._ask("with", {"tx_data": data, "tx_meta": meta}, timeout)
        return report_from_map(answer.body)

    async def schema_conflicts(
        self, tx_data: Any, *, limit: int | None = None, timeout: float | None = None
    ) -> list[SchemaConflict]:
        """What forbids the changes of declarations in ``tx_data``; empty when nothing does.

        A dry run: nothing is stored.  ``limit``: entities, and values, that one conflict names
        (20).  Raises what refuses the transaction for another reason.
        """
        data, _ = transaction(tx_data, None)
        answer = await self._ask("schema-conflicts", {"tx_data": data, "limit": limit}, timeout)
        return [
            SchemaConflict(
                found["attribute"],
                found["message"],
                list(found["entities"]),
                [as_value(value) for value in found["values"]],
            )
            for found in answer.body["result"]
        ]

    async def touch(self, *, timeout: float | None = None) -> int:
        """The transaction that this value contains; raises what any read of it would raise."""
        answer = await self._ask("schema", {}, timeout)
        return self.basis if answer.basis is None else answer.basis

    # --- inside --------------------------------------------------------------------------------

    def _derived(self, **words: Any) -> Database:
        added = {key.rstrip("_"): value for key, value in words.items()}
        view = {"of": self._words, **added}
        return Database(self._session, self.database, self.branch, self.basis, view)

    async def _datoms(
        self,
        mode: str,
        index: str,
        parts: Sequence[Any],
        limit: int | None,
        timeout: float | None,
    ) -> list[Datom]:
        name, found = components(index, parts)
        body = {"mode": mode, "index": name, "components": found, "limit": limit}
        return datoms_from_rows((await self._ask("datoms", body, timeout)).body["result"])

    async def _ask(self, endpoint: str, body: dict[str, Any], timeout: float | None) -> Answer:
        limit_s = self._session.timeout.request_s if timeout is None else timeout
        body["view"] = self._words
        if self.basis and "at" not in self._words:
            body["basis"] = self.basis
        if limit_s != QUERY_TIMEOUT_S:  # which the service takes for granted
            body["timeout_ms"] = max(1, int(limit_s * 1000))
        return await self._session.ask(
            self._session.subject(self.database, self.branch, endpoint),
            body,
            timeout_s=timeout,
            repeat=READ,
        )


_order_by = order_by


def _query_body(
    query: Any,
    inputs: Sequence[Any],
    order_by: Any,
    limit: int | None,
    offset: int | None,
    fuel: int | None,
) -> dict[str, Any]:
    return {
        "query": query,
        "args": [one.as_input() if isinstance(one, Database) else one for one in inputs],
        "order_by": _order_by(order_by),
        "limit": limit,
        "offset": offset,
        "fuel": fuel,
    }

"""The client without ``await``: the same verbs, run on an event loop in a background thread.

    with natalog.sync.connect("nats://127.0.0.1:4222") as client:
        conn = client.database("people")
        conn.transact([{"name": "Alice", "age": 25}])
        conn.db().q("[:find ?n :where [_ :name ?n]]")      # {("Alice",)}

Safe to use from several threads.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID

from natalog import client as _async
from natalog._shapes import MAIN_BRANCH
from natalog.client.client import DEFAULT_PREFIX, DEFAULT_URL
from natalog.client.timeouts import Timeout
from natalog.core.errors import NatalogError, Unavailable
from natalog.core.schema_conflict import SchemaConflict
from natalog.core.values import Datom
from natalog.report import (
    Commit,
    Diff,
    MergeReport,
    PublishAck,
    QueryPlan,
    Rejection,
    Transaction,
    TxReport,
)
from natalog.rows import Rows

T = TypeVar("T")


class _Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="natalog")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; an interrupt of the waiting thread cancels it."""
        if self._loop.is_closed():
            work.close()
            raise Unavailable("the client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except (KeyboardInterrupt, concurrent.futures.CancelledError):
            future.cancel()
            raise

    def stop(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return made


class Client:
    """See `natalog.Client`."""

    def __init__(self, loop: _Loop, inner: _async.Client) -> None:
        self._loop = loop
        self._inner = inner

    def create_database(
        self,
        name: str,
        *,
        keep_history: bool = True,
        schema_flexibility: str = "write",
        initial_tx: Any = None,
        timeout: float | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        return self._loop.run(
            self._inner.create_database(
                name,
                keep_history=keep_history,
                schema_flexibility=schema_flexibility,
                initial_tx=initial_tx,
                timeout=timeout,
                **settings,
            )
        )

    def delete_database(self, name: str, *, timeout: float | None = None) -> bool:
        return self._loop.run(self._inner.delete_database(name, timeout=timeout))

    def list_databases(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        return self._loop.run(self._inner.list_databases(timeout=timeout))

    def database_exists(self, name: str, *, timeout: float | None = None) -> bool:
        return self._loop.run(self._inner.database_exists(name, timeout=timeout))

    def database(self, name: str, branch: str = MAIN_BRANCH) -> Conn:
        return Conn(self._loop, self._inner.database(name, branch))

    @property
    def url(self) -> str:
        return self._inner.url

    def close(self) -> None:
        try:
            self._loop.run(self._inner.close())
        except Unavailable:
            return
        self._loop.stop()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def connect(
    url: str | list[str] = DEFAULT_URL,
    *,
    prefix: str = DEFAULT_PREFIX,
    timeout: Timeout | float | None = None,
    **options: Any,
) -> Client:
    """Connect as `natalog.connect` does; close the client or use it in a ``with`` statement."""
    loop = _Loop()

    async def open_() -> _async.Client:
        return await _async.connect(url, prefix=prefix, timeout=timeout, **options)

    try:
        return Client(loop, loop.run(open_()))
    except BaseException:
        loop.stop()
        raise


class Conn:
    """See `natalog.Conn`."""

    def __init__(self, loop: _Loop, inner: _async.Conn) -> None:
        self._loop = loop
        self._inner = inner

    @property
    def database(self) -> str:
        return self._inner.database

    @property
    def branch_name(self) -> str:
        return self._inner.branch_name

    def transact(
        self,
        tx_data: Any,
        tx_meta: Any = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> TxReport:
        return self._loop.run(self._inner.transact(tx_data, tx_meta, id=id, timeout=timeout))

    def load_entities(
        self,
        rows: Any,
        tx_meta: Any = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> TxReport:
        return self._loop.run(self._inner.load_entities(rows, tx_meta, id=id, timeout=timeout))

    def purge_everywhere(
        self, operations: Any, tx_meta: Any = None, *, timeout: float | None = None
    ) -> dict[str, TxReport | NatalogError]:
        return self._loop.run(self._inner.purge_everywhere(operations, tx_meta, timeout=timeout))

    def publish(
        self,
        tx_data: Any,
        tx_meta: Any = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> PublishAck:
        return self._loop.run(self._inner.publish(tx_data, tx_meta, id=id, timeout=timeout))

    def reports(self, since: Any = None, *, rejections: bool = False) -> Feed:
        return Feed(self._loop, self._inner.reports(since, rejections=rejections))

    def db(self, *, timeout: float | None = None) -> Database:
        return Database(self._loop, self._loop.run(self._inner.db(timeout=timeout)))

    def q(self, query: Any, *inputs: Any, **options: Any) -> Any:
        return self._loop.run(self._inner.q(query, *_inner_all(inputs), **options))

    def info(self, *, timeout: float | None = None) -> dict[str, Any]:
        return self._loop.run(self._inner.info(timeout=timeout))

    def branch(
        self, name: str, *, from_: str | UUID | int | None = None, timeout: float | None = None
    ) -> None:
        self._loop.run(self._inner.branch(name, from_=from_, timeout=timeout))

    def branches(self, *, timeout: float | None = None) -> set[str]:
        return self._loop.run(self._inner.branches(timeout=timeout))

    def delete_branch(self, name: str, *, timeout: float | None = None) -> None:
        self._loop.run(self._inner.delete_branch(name, timeout=timeout))

    def force_branch(
        self,
        name: str,
        db: Database,
        *,
        parents: Iterable[str | UUID],
        timeout: float | None = None,
    ) -> None:
        self._loop.run(self._inner.force_branch(name, db.inner, parents=parents, timeout=timeout))

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
        return self._loop.run(
            self._inner.merge(
                parents,
                tx_data,
                tx_meta,
                policy=policy,
                resolutions=resolutions,
                timeout=timeout,
            )
        )

    def merge_preview(
        self,
        parent: str | UUID,
        *,
        policy: str = "fail",
        resolutions: Any = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        return self._loop.run(
            self._inner.merge_preview(
                parent, policy=policy, resolutions=resolutions, timeout=timeout
            )
        )

    def branch_history(
        self, *, limit: int | None = None, timeout: float | None = None
    ) -> list[Commit]:
        return self._loop.run(self._inner.branch_history(limit=limit, timeout=timeout))

    def commit_db(self, commit_id: UUID, *, timeout: float | None = None) -> Database:
        return Database(
            self._loop, self._loop.run(self._inner.commit_db(commit_id, timeout=timeout))
        )

    def diff(self, left: Database, right: Database, *, timeout: float | None = None) -> Diff:
        return self._loop.run(self._inner.diff(left.inner, right.inner, timeout=timeout))

    def tx_range(
        self, start: Any = None, end: Any = None, *, timeout: float | None = None
    ) -> list[Transaction]:
        return self._loop.run(self._inner.tx_range(start, end, timeout=timeout))

    def gc(
        self,
        before: datetime | None = None,
        *,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        return self._loop.run(self._inner.gc(before, dry_run=dry_run, timeout=timeout))

    def snapshot(self, *, timeout: float | None = None) -> dict[str, Any]:
        return self._loop.run(self._inner.snapshot(timeout=timeout))

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
        return self._loop.run(
            self._inner.erase(
                tx_data,
                facts=facts,
                containing=containing,
                branches=branches,
                dry_run=dry_run,
                id=id,
                timeout=timeout,
            )
        )

    def erasures(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        return self._loop.run(self._inner.erasures(timeout=timeout))


class Feed(Iterator[Any]):
    """See `natalog.Feed`; ``with`` subscribes at once."""

    def __init__(self, loop: _Loop, inner: _async.Feed) -> None:
        self._loop = loop
        self._inner = inner

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> TxReport | Rejection:
        try:
            found: TxReport | Rejection = self._loop.run(_next(self._inner))
            return found
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Feed:
        self._loop.run(self._inner.start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._loop.run(self._inner.aclose())


async def _next(feed: _async.Feed) -> Any:
    return await anext(feed)


class Database:
    """See `natalog.Database`."""

    __slots__ = ("_loop", "inner")

    def __init__(self, loop: _Loop, inner: _async.Database) -> None:
        self._loop = loop
        self.inner = inner
        """The asynchronous value."""

    def __repr__(self) -> str:
        return repr(self.inner)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Database) and self.inner == other.inner

    def __hash__(self) -> int:
        return hash(self.inner)

    @property
    def database(self) -> str:
        return self.inner.database

    @property
    def branch(self) -> str:
        return self.inner.branch

    @property
    def basis(self) -> int:
        return self.inner.basis

    def as_of(self, t: int | datetime | TxReport) -> Database:
        return Database(self._loop, self.inner.as_of(t))

    def since(self, t: int | datetime | TxReport) -> Database:
        return Database(self._loop, self.inner.since(t))

    def history(self) -> Database:
        return Database(self._loop, self.inner.history())

    def with_(self, tx_data: Any, tx_meta: Any = None) -> Database:
        return Database(self._loop, self.inner.with_(tx_data, tx_meta))

    def q(self, query: Any, *args: Any, **options: Any) -> Any:
        return self._loop.run(self.inner.q(query, *_inner_all(args), **options))

    def rows(self, query: Any, *args: Any, **options: Any) -> Rows:
        return self._loop.run(self.inner.rows(query, *_inner_all(args), **options))

    def explain(self, query: Any, *args: Any, **options: Any) -> QueryPlan:
        return self._loop.run(self.inner.explain(query, *_inner_all(args), **options))

    def pull(
        self, pattern: Any, eid: Any, *, timeout: float | None = None
    ) -> dict[Any, Any] | None:
        return self._loop.run(self.inner.pull(pattern, eid, timeout=timeout))

    def pull_many(
        self, pattern: Any, eids: Sequence[Any], *, timeout: float | None = None
    ) -> list[dict[Any, Any] | None]:
        return self._loop.run(self.inner.pull_many(pattern, eids, timeout=timeout))

    def entity(self, eid: Any, *, timeout: float | None = None) -> dict[Any, Any] | None:
        return self._loop.run(self.inner.entity(eid, timeout=timeout))

    def datoms(
        self, index: str, *parts: Any, limit: int | None = None, timeout: float | None = None
    ) -> list[Datom]:
        return self._index(self.inner.datoms, index, parts, limit, timeout)

    def seek_datoms(
        self, index: str, *parts: Any, limit: int | None = None, timeout: float | None = None
    ) -> list[Datom]:
        return self._index(self.inner.seek_datoms, index, parts, limit, timeout)

    def rseek_datoms(
        self, index: str, *parts: Any, limit: int | None = None, timeout: float | None = None
    ) -> list[Datom]:
        return self._index(self.inner.rseek_datoms, index, parts, limit, timeout)

    def index_range(
        self,
        attr: Any,
        start: Any = None,
        end: Any = None,
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> list[Datom]:
        return self._loop.run(
            self.inner.index_range(attr, start, end, limit=limit, timeout=timeout)
        )

    def schema(self, *, reverse: bool = False, timeout: float | None = None) -> Mapping[Any, Any]:
        return self._loop.run(self.inner.schema(reverse=reverse, timeout=timeout))

    def metrics(self, *, timeout: float | None = None) -> dict[Any, Any]:
        return self._loop.run(self.inner.metrics(timeout=timeout))

    def schema_conflicts(
        self, tx_data: Any, *, limit: int | None = None, timeout: float | None = None
    ) -> list[SchemaConflict]:
        return self._loop.run(self.inner.schema_conflicts(tx_data, limit=limit, timeout=timeout))

    def with_report(
        self, tx_data: Any, tx_meta: Any = None, *, timeout: float | None = None
    ) -> TxReport:
        return self._loop.run(self.inner.with_report(tx_data, tx_meta, timeout=timeout))

    def _index(
        self,
        read: Callable[..., Coroutine[Any, Any, list[Datom]]],
        index: str,
        parts: Sequence[Any],
        limit: int | None,
        timeout: float | None,
    ) -> list[Datom]:
        return self._loop.run(read(index, *parts, limit=limit, timeout=timeout))


def _inner_all(values: Sequence[Any]) -> list[Any]:
    return [value.inner if isinstance(value, Database) else value for value in values]

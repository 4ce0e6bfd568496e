"""A connection to one branch of a database: transactions in, reports and database values out."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from natalog._shapes import (
    checked_name,
    load_operation,
    parents_of,
    purges,
    time_point,
    transaction,
    tx_id,
)
from natalog.client.database import Database
from natalog.client.reports import Feed, follow
from natalog.client.session import READ, WRITE, Repeat, Session
from natalog.core.codec import pack
from natalog.core.errors import (
    BadRequest,
    BranchNotFound,
    DatabaseNotFound,
    DeadlineExceeded,
    NatalogError,
    Unavailable,
)
from natalog.core.limits import LANE_BITS, TX_BASE
from natalog.report import (
    Commit,
    Diff,
    MergeReport,
    PublishAck,
    Transaction,
    TxReport,
    datoms_from_rows,
    merge_report_from_map,
    report_from_map,
)

_PUBLISH_ATTEMPT_S = 2.0


class Conn:
    """One branch of one database; make it with `Client.database`."""

    def __init__(self, session: Session, database: str, branch: str) -> None:
        self._session = session
        self.database = database
        self.branch_name = branch
        self._seen = 0

    def __repr__(self) -> str:
        return f"Conn({self.database!r}, branch={self.branch_name!r})"

    # --- transactions --------------------------------------------------------------------------

    async def transact(
        self,
        tx_data: Any,
        tx_meta: Any = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> TxReport:
        """Apply one transaction and return its report once it is stored durably.

        ``tx_data`` is a list of operations and maps, or EDN text; ``tx_meta`` a map of facts about
        the transaction (``{"db/txInstant": ...}`` sets its instant).  With an ``id`` the
        transaction is applied once for ever: it is sent again after a lost connection, and a
        repeat returns the first report.  Without one, `DeadlineExceeded`, `CommitUnknown` and an
        `Unavailable` that came while waiting leave open whether it was applied.
        """
        data, meta = transaction(tx_data, tx_meta)
        answer = await self._session.ask(
            self._subject("transact"),
            {"tx_data": data, "tx_meta": meta, "id": _checked_id(id)},
            timeout_s=timeout,
            repeat=None if id is None else WRITE,
        )
        report = report_from_map(answer.body)
        self._seen = max(self._seen, report.tx)
        return report

    async def purge_everywhere(
        self, operations: Any, tx_meta: Any = None, *, timeout: float | None = None
    ) -> dict[str, TxReport | NatalogError]:
        """Purge facts on every branch of the database; each branch is a transaction of its own.

        ``operations`` are purges; name entities by lookup ref where their ids may differ from
        branch to branch.  Returns what became of each branch: its report, or the error that
        refused it, such as `TransactPurge` where the entity is not known.  Commits that no
        branch has as its head keep the facts until they are collected and erased.
        """
        data = purges(operations)
        found: dict[str, TxReport | NatalogError] = {}
        for branch in sorted(await self.branches(timeout=timeout)):
            conn = (
                self if branch == self.branch_name else Conn(self._session, self.database, branch)
            )
            try:
                found[branch] = await conn.transact(data, tx_meta, timeout=timeout)
            except NatalogError as error:
                found[branch] = error
        return found

    async def load_entities(
        self,
        rows: Any,
        tx_meta: Any = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> TxReport:
        """Add facts of another database as one transaction; entities get ids of this one.

        ``rows`` are ``[e a v]``, ``[e a v t]`` or ``[e a v t added]``, `Datom`, or any of these
        after ``:db/add``; they apply in the order of t.  References follow; an entity whose
        ``:db/ident`` or identity exists here becomes that entity; facts about transactions are
        left out.  ``tempids`` of the report maps the ids in the rows to those here.
        """
        return await self.transact(load_operation(rows), tx_meta, id=id, timeout=timeout)

    async def publish(
        self,
        tx_data: Any,
        tx_meta: Any = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> PublishAck:
        """Hand a transaction over durably, without waiting for its outcome.

        The acknowledgement means that it will be applied or rejected exactly once, even when no
        transactor is alive now; its report or `Rejection` appears in `reports`.  Publishing the
        same ``id`` again changes nothing; without an ``id`` a random one is made.
        """
        data, meta = transaction(tx_data, tx_meta)
        name = _checked_id(id) or str(uuid.uuid4())
        body: dict[str, Any] = {"tx_data": data, "id": name}
        if meta is not None:
            body["tx_meta"] = meta
        limit = self._session.timeout.request_s if timeout is None else timeout
        reply = await self._stored(pack(body), name, limit)
        ack = json.loads(reply.data)
        if "error" in ack:
            if ack["error"].get("code") == 404:
                await self._explain_unserved()
            raise Unavailable(
                f"the transaction was not stored: {ack['error'].get('description')}", **ack["error"]
            )
        return PublishAck(name, int(ack["seq"]), bool(ack.get("duplicate")))

    async def _stored(self, payload: bytes, name: str, limit: float) -> Any:
        """Publish until it is acknowledged; the id keeps a second one from counting."""
        deadline = asyncio.get_running_loop().time() + limit
        while True:
            left = deadline - asyncio.get_running_loop().time()
            try:
                return await self._session.transport.request(
                    self._subject("tx"),
                    payload,
                    min(left, _PUBLISH_ATTEMPT_S),
                    {"Nats-Msg-Id": name},
                )
            except DeadlineExceeded:
                # the stream may have been on its way from one name to another
                if left <= _PUBLISH_ATTEMPT_S:
                    raise
            except Unavailable as error:
                if error.data.get("delivered") is False:
                    await self._explain_unserved()
                raise

    def reports(self, since: Any = None, *, rejections: bool = False) -> Feed:
        """Every transaction of the branch as it is committed, in order.

        ``since`` None: from now on (the subscription stands when the first report is asked for);
        a tx id: first every later transaction from the log, then live, without gap or repetition
        (0 replays everything).  With ``rejections`` also the published transactions that were
        refused.

            async for report in conn.reports():
                print(report.tx, report.tx_data)
        """
        start = None if since is None else time_point(since)
        if isinstance(start, datetime):
            raise BadRequest("reports start after a transaction id, not at an instant")
        return follow(self._session, self.database, self.branch_name, start, rejections)

    # --- database values -----------------------------------------------------------------------

    async def db(self, *, timeout: float | None = None) -> Database:
        """The current database value: immutable, not older than what this connection wrote."""
        info = await self.info(timeout=timeout)
        if (self._seen - TX_BASE) >> LANE_BITS < int(info.get("lane") or 0):
            self._seen = 0  # from before the branch was moved or made again
        basis = max(int(info["max_tx"]), self._seen)
        self._seen = basis
        return Database(self._session, self.database, self.branch_name, basis)

    async def q(self, query: Any, *inputs: Any, **options: Any) -> Any:
        """Run a query on exactly these inputs; without any, on the current database value.

        Options as for `Database.q`.
        """
        db = next((one for one in inputs if isinstance(one, Database)), None)
        if db is None:
            db = await self.db()
        return await db.run(query, inputs or (db,), **options)

    async def info(self, *, timeout: float | None = None) -> dict[str, Any]:
        """``commit_id``, ``max_tx``, ``max_eid``, ``datoms``, ``config`` and more of the branch."""
        answer = await self._upkeep("info", {"branch": self.branch_name}, timeout, repeat=READ)
        return dict(answer)

    # --- branches and commits ------------------------------------------------------------------

    async def branch(
        self, name: str, *, from_: str | UUID | int | None = None, timeout: float | None = None
    ) -> None:
        """Make a branch from this one, or from another branch, a commit id or a tx id."""
        source = self.branch_name if from_ is None else from_
        await self._upkeep("branch", {"from": source, "to": checked_name(name, "branch")}, timeout)

    async def branches(self, *, timeout: float | None = None) -> set[str]:
        """The names of all branches of the database."""
        answer = await self._upkeep("branches", {}, timeout, repeat=READ)
        return {_entry_name(entry) for entry in answer["branches"]}

    async def delete_branch(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a branch; the main branch is refused."""
        await self._upkeep("delete-branch", {"branch": checked_name(name, "branch")}, timeout)

    async def force_branch(
        self,
        name: str,
        db: Database,
        *,
        parents: Iterable[str | UUID],
        timeout: float | None = None,
    ) -> None:
        """Make ``name`` a branch whose head is ``db``, any database value of this database."""
        body = {
            "branch": checked_name(name, "branch"),
            "view": db.view_words(),
            "parents": list(parents),
        }
        await self._upkeep("force-branch", body, timeout)

    async def merge(
        self,
        parents: str | UUID | Iterable[str | UUID],
        tx_data: Any = None,
        tx_meta: Any = None,
        *,
        policy: str | None = None,
        resolutions: Any = None,
        timeout: float | None = None,
    ) -> MergeReport:
        """Merge other branches or commits into this branch; one commit with all of them as parents.

        With ``tx_data`` the merge consists of exactly these operations.  Without, it takes over
        what one other side changed since the commit that both descend from.  Where both changed
        the same thing differently, ``resolutions`` decide, then ``policy``: ``fail`` (the default)
        raises `MergeConflict`, whose ``data["conflicts"]`` lists them all, ``ours`` and ``theirs``
        prefer a side.  A resolution is a map ``{"entity", "attribute", "take"}`` with take
        ``"ours"``, ``"theirs"`` or ``"base"``, or ``{"entity", "attribute", "value"}``.
        """
        body: dict[str, Any] = {
            "branch": self.branch_name,
            "parents": parents_of(parents, self.branch_name),
            "policy": policy,
            "resolutions": None if resolutions is None else list(resolutions),
        }
        data, meta = transaction([] if tx_data is None else tx_data, tx_meta)
        body["tx_data"], body["tx_meta"] = None if tx_data is None else data, meta
        report = merge_report_from_map(await self._upkeep("merge", body, timeout))
        self._seen = max(self._seen, report.tx)
        return report

    async def merge_preview(
        self,
        parent: str | UUID,
        *,
        policy: str = "fail",
        resolutions: Any = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """What `merge` of one parent would do; nothing is written.

        ``tx_data``: the operations; ``conflicts``: maps of kind, entity, attribute, base, ours,
        theirs and, of a taken unique value, holder; ``unified``, ``base``, ``up_to_date`` and
        ``fast_forward`` as in `MergeReport`.
        """
        body = {
            "branch": self.branch_name,
            "parents": [parent],
            "policy": policy,
            "resolutions": None if resolutions is None else list(resolutions),
            "dry_run": True,
        }
        found = dict(await self._upkeep("merge", body, timeout, repeat=READ))
        found["base"] = list(found["base"])
        return found

    async def branch_history(
        self, *, limit: int | None = None, timeout: float | None = None
    ) -> list[Commit]:
        """The commits of the branch, newest first."""
        answer = await self._session.ask(
            self._subject("history"), {"limit": limit}, timeout_s=timeout, repeat=READ
        )
        return [
            Commit(
                commit_id=entry["commit_id"],
                parents=tuple(entry.get("parents") or ()),
                tx=entry.get("tx"),
                instant=entry.get("instant"),
            )
            for entry in answer.body["result"]
        ]

    async def commit_db(self, commit_id: UUID, *, timeout: float | None = None) -> Database:
        """The database value of a commit; `CommitNotFound` or `Erased` when there is none."""
        db = Database(
            self._session, self.database, self.branch_name, 0, {"commit": _uuid(commit_id)}
        )
        # asking for the schema finds out now, not at the first query, whether the commit exists
        basis = await db.touch(timeout=timeout)
        return Database(self._session, self.database, self.branch_name, basis, db.view_words())

    async def diff(self, left: Database, right: Database, *, timeout: float | None = None) -> Diff:
        """What ``right`` has and ``left`` lacks, and the reverse."""
        body = {"from": left.view_words(), "to": right.view_words()}
        answer = await self._session.ask(
            self._subject("diff"), body, timeout_s=timeout, repeat=READ
        )
        found = answer.body["result"]
        return Diff(
            added=[tuple(row[:3]) for row in found["added"]],
            removed=[tuple(row[:3]) for row in found["removed"]],
        )

    async def tx_range(
        self, start: Any = None, end: Any = None, *, timeout: float | None = None
    ) -> list[Transaction]:
        """The transactions from ``start`` to before ``end`` with their datoms, oldest first.

        Both are transaction ids or reports, None for open.  Retractions are there, purged facts are
        not.  Raises `NoHistory`, `InvalidTimePoint`.
        """
        body = {"from": tx_id(start), "to": tx_id(end), "basis": self._seen or None}
        answer = await self._session.ask(
            self._subject("tx-range"), body, timeout_s=timeout, repeat=READ
        )
        return [
            Transaction(entry["tx"], entry.get("instant"), datoms_from_rows(entry["datoms"]))
            for entry in answer.body["result"]
        ]

    # --- upkeep --------------------------------------------------------------------------------

    async def gc(
        self,
        before: datetime | None = None,
        *,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Free what no kept commit reaches; with ``before`` also commits older than that."""
        body = {"before": before, "dry_run": dry_run}
        return dict(await self._upkeep("gc", body, timeout))

    async def snapshot(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Write a snapshot of the branch now; the service otherwise does so by itself.

        ``written`` False: the newest one was of this transaction already.
        """
        return dict(await self._upkeep("snapshot", {"branch": self.branch_name}, timeout))

    async def erase(
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
        """Make the bytes of purged facts vanish from everything stored; returns the receipt.

        First purges what is named, on all branches or those in ``branches``: operations
        (``tx_data``), patterns ``[e]``, ``[e a]`` or ``[e a v]`` (``facts``), or every fact, past
        or present, tx-meta too, whose value is or holds a text (``containing``).  Then erases
        everything that was ever purged and that no branch's history needs.  What another branch
        still holds stays; ``kept`` of the receipt names the branch.  An ``id`` makes it safe to ask
        again: the same one answers the first receipt.  It goes on when nobody waits any more.
        Raises `ErasureRefused`: then nothing was erased.
        """
        body = {
            "tx_data": None if tx_data is None else purges(tx_data),
            "facts": None if facts is None else [list(pattern) for pattern in facts],
            "containing": containing,
            "branches": branches
            if branches is None or isinstance(branches, str)
            else list(branches),
            "dry_run": dry_run,
            "id": _checked_id(id),
        }
        return dict(await self._upkeep("erase", body, timeout))

    async def erasures(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """The receipts of all erasures of the database, oldest first."""
        answer = await self._upkeep("erase", {"list": True}, timeout, repeat=READ)
        return [dict(receipt) for receipt in answer["receipts"]]

    # --- inside --------------------------------------------------------------------------------

    def _subject(self, endpoint: str) -> str:
        return self._session.subject(self.database, self.branch_name, endpoint)

    async def _upkeep(
        self,
        verb: str,
        body: dict[str, Any],
        timeout: float | None,
        *,
        repeat: Repeat | None = None,
    ) -> Any:
        answer = await self._session.ask(
            self._session.subject(self.database, "_", verb),
            body,
            timeout_s=timeout,
            repeat=repeat,
        )
        return answer.body

    async def _explain_unserved(self) -> None:
        """A publish found no stream: raise the reason, if a living service knows one."""
        try:
            await self.info(timeout=2.0)
        except (BranchNotFound, DatabaseNotFound):
            raise
        except Exception:
            return


def _checked_id(id: str | None) -> str | None:
    if id is None:
        return None
    if not isinstance(id, str) or not id or len(id) > 256 or not id.isprintable():
        raise BadRequest(f"a transaction id is a printable string, not {id!r}", id=str(id))
    return id


def _entry_name(entry: Any) -> str:
    return str(entry["branch"]) if isinstance(entry, dict) else str(entry).lstrip(":")


def _uuid(value: Any) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(str(value))
    except ValueError:
        raise BadRequest(f"a commit id is a UUID, not {value!r}", commit=str(value)) from None

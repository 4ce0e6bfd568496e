"""Commits and branches of a database that lives in this process.

Every commit is kept as its changes; values are kept for the heads of branches and, now and then,
for older commits, from which the rest are folded again when somebody asks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from natalog._erasing import Refolded, judged, redacted, refold
from natalog._shapes import MAIN_BRANCH, checked_name
from natalog.core import transact as _transact
from natalog.core.apply import apply_changes
from natalog.core.chain import commit_id
from natalog.core.changes import Changes
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.errors import (
    BranchExists,
    BranchNotFound,
    BranchProtected,
    CommitNotFound,
    Erased,
    InvalidTimePoint,
    MergeConflict,
    ParentsRequired,
)
from natalog.core.materialise import materialised
from natalog.core.merge import MergePlan, plan_merge, virtual_base
from natalog.core.record import TxRecord, purge_refs
from natalog.core.redacted import erased_id
from natalog.core.redaction import Wanted
from natalog.core.redaction.purging import Pattern, finds, operations, patterns, removals
from natalog.core.registry import EMPTY as NO_FUNCTIONS
from natalog.core.registry import Registry as QueryRegistry
from natalog.core.schema import TX_INSTANT
from natalog.core.scrub import Scrub
from natalog.core.transact.report import TxReport as CoreReport
from natalog.core.values import Keyword, ms_instant
from natalog.core.versioning import (
    CommitNode,
    forked,
    history,
    kept_commits,
    merge_bases,
    next_lane,
)
from natalog.report import MergeReport, TxReport

Clock = Callable[[], int]
"""Milliseconds since 1970."""

KEPT_EVERY_COMMITS = 512
"""The value of one commit in so many is kept, to fold later ones from."""
KEPT_VALUES_MAX = 32
"""Values of old commits that were asked for and may be asked for again."""


@dataclass(slots=True)
class Branch:
    """A name for a line of commits, with a lane of its own."""

    name: str
    value: Database
    reports: list[TxReport] = field(default_factory=list)
    by_id: dict[str, TxReport] = field(default_factory=dict)
    deleted: bool = False

    @property
    def head(self) -> UUID:
        assert self.value.commit_id is not None
        return self.value.commit_id


@dataclass(frozen=True, slots=True)
class _Stored:
    """A commit: what it did to its first parent, on which lane."""

    lane: int
    changes: Changes


@dataclass(frozen=True, slots=True)
class Planned:
    """What a merge of the commit ``other`` into ``head`` would do.

    ``base``: the commits that both descend from.
    """

    head: UUID
    other: UUID
    base: tuple[UUID, ...]
    merge: MergePlan

    @property
    def up_to_date(self) -> bool:
        """Whether the branch descends from the other side: there is nothing to merge."""
        return self.base == (self.other,)

    @property
    def fast_forward(self) -> bool:
        """Whether the other side descends from the branch: nothing can conflict."""
        return self.base == (self.head,) and not self.up_to_date


class Repository:
    """The commits and branches of one database.  Safe to use from several threads."""

    def __init__(
        self,
        name: str,
        config: DatabaseConfig,
        clock: Clock,
        functions: _transact.Registry = _transact.EMPTY,
        query_functions: QueryRegistry = NO_FUNCTIONS,
    ) -> None:
        self.name = name
        self.functions = functions
        self.query_functions = query_functions
        self.config = config
        self.clock = clock
        self._lock = threading.RLock()
        empty = Database.empty(config)
        created = clock()
        # the same records as in a service's log, so that equal histories have equal commit ids
        genesis = TxRecord(
            kind="genesis",
            tx=empty.tx0,
            instant_ms=created,
            config={**config.to_mapping(), "name": name},
        )
        first = commit_id(genesis.encode())
        self.graph: dict[UUID, CommitNode] = {
            first: CommitNode(first, (), empty.tx0, created, MAIN_BRANCH)
        }
        value = replace(empty, commit_id=first)
        self._kept: dict[UUID, Database] = {first: value}
        self._recent: OrderedDict[UUID, Database] = OrderedDict()
        self._stored: dict[UUID, _Stored] = {}
        self._untold: set[UUID] = set()
        self.receipts: list[dict[str, Any]] = []
        self._lanes = [0]
        self._branches = {MAIN_BRANCH: Branch(MAIN_BRANCH, value)}

    # --- reading -----------------------------------------------------------------------------

    def branch(self, name: str) -> Branch:
        """The branch of a name; `BranchNotFound`."""
        found = self._branches.get(checked_name(name, "branch"))
        if found is None:
            raise BranchNotFound(
                f"{self.name} has no branch {name}.", database=self.name, branch=name
            )
        return found

    def branches(self) -> set[str]:
        """The names of all branches."""
        return set(self._branches)

    def history(self, branch: str) -> list[CommitNode]:
        """The commits of a branch, breadth first from its head."""
        return history(self.graph, self.branch(branch).head)

    def value_at(self, commit: UUID) -> Database:
        """The value of a commit; `CommitNotFound`."""
        with self._lock:
            if commit not in self.graph:
                raise CommitNotFound(f"There is no commit {commit}.", commit=str(commit))
            if commit in self._untold:
                raise Erased(
                    f"The value of commit {commit} held facts that were erased since.",
                    commit=str(commit),
                )
            return self._folded(commit)

    def _folded(self, commit: UUID) -> Database:
        own = self._stored.get(commit)
        for branch in self._branches.values():
            if branch.head == commit and (own is None or own.lane == branch.value.lane):
                return branch.value
        path: list[UUID] = []
        at = commit
        while at not in self._kept and at not in self._recent:
            path.append(at)
            at = self.graph[at].parents[0]
        value = self._kept[at] if at in self._kept else self._recent[at]
        for step in reversed(path):
            stored = self._stored[step]
            if stored.lane != value.lane:
                value = forked(value, stored.lane)
            value = apply_changes(value, stored.changes, step)
        if path:
            self._recent[commit] = value
            if len(self._recent) > KEPT_VALUES_MAX:
                self._recent.popitem(last=False)
        return value

    # --- transactions --------------------------------------------------------------------------

    def transact(
        self,
        branch: str,
        data: Any,
        meta: Any,
        id: str | None = None,
        parents: Iterable[Any] | None = None,
    ) -> TxReport:
        """Commit a transaction; with ``parents``, a merge.  A known ``id`` is not applied again."""
        with self._lock:
            target = self.branch(branch)
            known = None if id is None else target.by_id.get(id) or target.by_id.get(erased_id(id))
            if known is not None:
                return replace(known, repeated=True)
            before = target.value
            above = (target.head, *self._parents(parents, target.head))
            made = _transact.process(
                before, data, meta, now_ms=self.clock(), functions=self.functions
            )
            record = _record(made, before, id, above, "merge" if parents else "transaction")
            commit = commit_id(record.encode())
            report = report_of(made, commit, id, self.name, branch)
            self._commit(target, made.db_after, above, made.changes, commit)
            target.reports.append(report)
            if id is not None:
                target.by_id[id] = report
            return report

    def merge(
        self, branch: str, parent: Any, meta: Any, policy: str, resolutions: Iterable[Any]
    ) -> MergeReport:
        """Take over what a branch or commit changed; `MergeConflict` when that is undecided."""
        with self._lock:
            planned = self.plan_merge(branch, parent, policy, resolutions)
            planned.merge.require_clean()
            if planned.up_to_date:
                report = self._head_report(branch)
            else:
                report = self.transact(branch, planned.merge.tx_data, meta, parents=[planned.other])
            return MergeReport(
                **{name: getattr(report, name) for name in TxReport.__slots__},
                up_to_date=planned.up_to_date,
                fast_forward=planned.fast_forward,
                base=planned.base,
                unified=planned.merge.unified,
            )

    def _head_report(self, branch: str) -> TxReport:
        """About a branch as it stands, without a transaction."""
        head = self.branch(branch)
        instant = head.value.instant_ms
        return TxReport(
            tx=head.value.max_tx,
            instant=None if instant is None else ms_instant(instant),
            commit_id=head.head,
            tx_data=[],
            tempids={},
            tx_meta={},
            database=self.name,
            branch=branch,
        )

    def plan_merge(
        self, branch: str, parent: Any, policy: str, resolutions: Iterable[Any]
    ) -> Planned:
        """What merging a branch or commit into ``branch`` would do."""
        with self._lock:
            ours = self.branch(branch)
            other = self._resolve(parent)
            nodes = self._bases(ours.head, other)
            bases = tuple(node.id for node in nodes)
            if bases == (other,):
                return Planned(ours.head, other, bases, MergePlan())
            base, theirs = self._base(nodes), self.value_at(other)
            plan = plan_merge(base, ours.value, theirs, policy, resolutions)
            return Planned(ours.head, other, bases, plan)

    def _bases(self, left: UUID, right: UUID) -> list[CommitNode]:
        found = merge_bases(self.graph, left, right)
        if not found:
            raise MergeConflict("The two sides share no commit.", conflicts=[])
        return found

    def _base(self, nodes: list[CommitNode]) -> Database:
        """The value that both sides descend from; made of several where histories crossed."""
        values = [self._folded(node.id) for node in nodes]
        if len(values) == 1:
            return values[0]
        return virtual_base(self._base(self._bases(nodes[0].id, nodes[1].id)), values)

    def _commit(
        self,
        branch: Branch,
        value: Database,
        parents: tuple[UUID, ...],
        changes: Changes,
        commit: UUID,
    ) -> None:
        value = value.committed(commit)
        instant = value.instant_ms if self.config.keep_history else self.clock()
        self.graph[commit] = CommitNode(commit, parents, value.max_tx, instant, branch.name)
        self._stored[commit] = _Stored(value.lane, changes)
        if len(self._stored) % KEPT_EVERY_COMMITS == 0:
            self._kept[commit] = value
        branch.value = value
        if not self.config.commit_graph:
            self._sweep({other.head for other in self._branches.values()})

    def _parents(self, given: Iterable[Any] | None, head: UUID) -> list[UUID]:
        if given is None:
            return []
        found: list[UUID] = []
        for parent in given:
            commit = self._resolve(parent)
            if commit != head and commit not in found:
                found.append(commit)
        return found

    def _resolve(self, reference: Any) -> UUID:
        """The commit that a branch name or a commit id means."""
        if isinstance(reference, UUID):
            if reference not in self.graph:
                raise CommitNotFound(f"There is no commit {reference}.", commit=str(reference))
            return reference
        name = reference.text if isinstance(reference, Keyword) else str(reference)
        return self.branch(name).head

    # --- branches ----------------------------------------------------------------------------

    def fork(self, name: str, source: Any) -> None:
        """Make a branch from a branch name, a commit id or a transaction id; no commit is made."""
        with self._lock:
            checked_name(name, "branch")
            if name in self._branches:
                raise BranchExists(f"A branch named {name} exists.", branch=name)
            commit = self._commit_of_tx(source) if type(source) is int else self._resolve(source)
            base = self.value_at(commit)
            self._branches[name] = Branch(name, forked(base, self._take_lane()))

    def _commit_of_tx(self, tx: int) -> UUID:
        for node in self.graph.values():
            if node.tx == tx:
                return node.id
        raise InvalidTimePoint(f"There is no transaction {tx}.", tx=tx)

    def _take_lane(self) -> int:
        lane = next_lane(self._lanes)
        self._lanes.append(lane)
        return lane

    def delete(self, name: str) -> None:
        """Forget a branch; its commits stay until the next collection."""
        with self._lock:
            branch = self.branch(name)
            if name == MAIN_BRANCH:
                raise BranchProtected(f"The branch {name} cannot be deleted.", branch=name)
            self._kept[branch.head] = branch.value
            branch.deleted = True
            del self._branches[name]

    def force(self, name: str, build: Callable[[int], Database], parents: Iterable[Any]) -> UUID:
        """Point a branch, new or not, at the value that ``build`` makes on a lane given to it."""
        with self._lock:
            checked_name(name, "branch")
            above = tuple(dict.fromkeys(self._resolve(parent) for parent in parents))
            if not above:
                raise ParentsRequired("A forced branch needs at least one parent.", branch=name)
            lane = self._take_lane()
            value = forked(materialised(build(lane)), lane)
            record = TxRecord(
                kind="force",
                tx=value.max_tx,
                instant_ms=value.instant_ms,
                lane=lane,
                max_eid=value.max_eid,
                parents=above,
                config={"branch": name},
            )
            commit = commit_id(record.encode())
            value = value.committed(commit)
            instant = value.instant_ms if self.config.keep_history else self.clock()
            self.graph[commit] = CommitNode(commit, above, value.max_tx, instant, name)
            self._kept[commit] = value
            self._branches[name] = Branch(name, value)
            return commit

    # --- collection --------------------------------------------------------------------------

    def collect(self, before_ms: int | None, *, dry_run: bool = False) -> list[UUID]:
        """Drop the commits that no branch keeps; returns them, newest first."""
        with self._lock:
            heads = [branch.head for branch in self._branches.values()]
            kept = kept_commits(self.graph, heads, before_ms)
            gone = sorted(
                (node for commit, node in self.graph.items() if commit not in kept),
                key=lambda node: node.tx,
                reverse=True,
            )
            if not dry_run:
                self._sweep(kept)
            return [node.id for node in gone]

    # --- erasure -----------------------------------------------------------------------------

    def erase(
        self,
        tx_data: Sequence[Any],
        facts: Sequence[Pattern],
        text: str | None,
        branches: Iterable[str] | None,
        *,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Purge what is named, then take out of commits and reports what was ever purged.

        Returns what became of it; see `natalog.Conn.erase`.
        """
        with self._lock:
            named = [self.branch(name) for name in branches or list(self._branches)]
            every = [p for b in named for p in patterns(b.value, tx_data, facts)]
            wanted = Wanted(every, text)
            purged = {}
            for branch in named:
                held = purging(branch.value, tx_data, facts, text, self.clock())
                count = 0
                if held and not dry_run:
                    report = self.transact(branch.name, held, None)
                    count = report.purged or sum(not datom.added for datom in report.tx_data)
                purged[branch.name] = {"facts": count, "transactions": int(count > 0)}
            if dry_run:
                return {"purged": purged, "facts": 0, "commits": 0, "kept": {}}
            gone = self.collect(None)
            heads = {name: branch.value for name, branch in self._branches.items()}
            verdict, kept = judged((s.changes for s in self._stored.values()), heads, wanted)
            stored = {commit: (one.lane, one.changes) for commit, one in self._stored.items()}
            found = refold(self.graph, stored, self._kept, verdict)
            for commit, changes in found.changes.items():
                self._stored[commit] = replace(self._stored[commit], changes=changes)
            self._kept = found.kept
            self._recent.clear()
            self._untold = (self._untold | found.untold) & self.graph.keys()
            self._redact_reports(found, Scrub(_values(found), text))
            return {
                "purged": purged,
                "facts": found.facts,
                "records": len(found.gone),
                "commits": len(found.untold),
                "kept": {name: count for name, count in kept.items() if count},
                "collected": {"commits": len(gone), "logs": 0},
            }

    def _redact_reports(self, found: Refolded, scrub: Scrub) -> None:
        if not scrub:
            return
        for branch in self._branches.values():
            for spot, report in enumerate(branch.reports):
                commit = report.commit_id
                left = found.left.get(commit, report.tx_data) if commit else report.tx_data
                gone = found.gone.get(commit, []) if commit else []
                branch.reports[spot] = redacted(report, gone, left, scrub)
            branch.by_id = {
                report.id: report for report in reversed(branch.reports) if report.id is not None
            }

    def _sweep(self, kept: set[UUID]) -> None:
        # what stays must not need its parent to be folded from
        for commit in kept:
            if any(parent not in kept for parent in self.graph[commit].parents):
                self._kept[commit] = self._folded(commit)
        for table in (self.graph, self._stored, self._kept, self._recent):
            for commit in [one for one in table if one not in kept]:
                del table[commit]


def purging(
    value: Database, tx_data: Sequence[Any], facts: Sequence[Pattern], text: str | None, now_ms: int
) -> list[Any]:
    """The operations that remove from a value what is named; `ErasureRefused`."""
    named = operations(value, tx_data, facts)
    if text is not None:
        named += removals(value, text)
    return [operation for operation in named if finds(value, operation, now_ms)]


def _values(found: Refolded) -> list[Any]:
    return [datom.v for gone in found.gone.values() for datom in gone]


def _record(
    made: CoreReport, before: Database, id: str | None, parents: tuple[UUID, ...], kind: str
) -> TxRecord:
    changes = made.changes
    return TxRecord(
        kind=kind,
        tx=made.tx,
        instant_ms=made.instant_ms,
        lane=before.lane,
        max_eid=changes.max_eid,
        parents=parents,
        datoms=changes.datoms,
        purges=purge_refs(before, changes.datoms, changes.purges),
        tempids=made.tempids,
        tx_meta={key: value for key, value in made.tx_meta.items() if key is not TX_INSTANT},
        id=id,
        purged=made.purged,
    )


def report_of(
    made: CoreReport, commit: UUID | None, id: str | None, database: str, branch: str
) -> TxReport:
    """The report of a transaction as users see it."""
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
        branch=branch,
    )

"""Three-way merges: planned beside the transactor, committed by it on the head that was planned on.

A plan is made in a worker thread while the branch goes on.  When the head has moved meanwhile it is
made again; after `PLANS_BESIDE` attempts the transactor waits for the plan, so that a merge into a
busy branch ends too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from anyio import to_thread

from natalog.actors.archive import Archive, CommitGraph, Table
from natalog.actors.hub import Hub
from natalog.actors.payload import Struct, fields_of
from natalog.actors.planned import Alone, Planned, Wish
from natalog.actors.requests import Request
from natalog.actors.runtime import Actor
from natalog.actors.state import BranchState
from natalog.actors.transactor import told
from natalog.actors.wishes import MERGE_WORDS, merge_parents, transaction_id
from natalog.core.beginning import Base
from natalog.core.database import Database
from natalog.core.errors import BadRequest, Busy, CommitNotFound, MergeConflict
from natalog.core.merge import MergePlan, plan_merge, virtual_base
from natalog.core.values import Keyword, Symbol, ms_instant
from natalog.core.versioning import CommitNode, merge_bases

log = logging.getLogger("natalog.merges")

PLANS_BESIDE: Final = 3
"""Plans that are made while the branch goes on."""
PLANS_MAX: Final = 8
RETRY_AFTER_MS: Final = 200


@dataclass(frozen=True, slots=True)
class MergeWish:
    """What a merge without data asks for."""

    other: Any
    policy: str
    resolutions: Sequence[Mapping[Any, Any]]
    tx_meta: Any
    ident: str | None
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a merge of the commit ``other`` into the value ``ours`` would do."""

    ours: Database
    other: Base
    bases: tuple[UUID, ...]
    merge: MergePlan

    @property
    def up_to_date(self) -> bool:
        """Whether ours descends from the other side: there is nothing to merge."""
        return self.bases == (self.other.commit,)

    @property
    def fast_forward(self) -> bool:
        """Whether the other side descends from ours: nothing can conflict."""
        return self.bases == (self.ours.commit_id,) and not self.up_to_date

    def facts(self) -> dict[str, Any]:
        """What every answer says of a plan."""
        return {
            "base": list(self.bases),
            "unified": self.merge.unified,
            "up_to_date": self.up_to_date,
            "fast_forward": self.fast_forward,
        }


class Merger:
    """Serves merges whose data are not given."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._archive: Archive = hub.archive

    async def serve(self, request: Request, branch: str) -> None:
        """Answer one request."""
        try:
            await self._serve(request, branch)
        except Exception as error:
            await request.refuse(told(error))

    async def _serve(self, request: Request, branch: str) -> None:
        await self._hub.open(request.database, branch)  # what does not exist is said first
        wish = read_planned_merge(request.body())
        if wish.dry_run:
            state, _ = await self._hub.open(request.database, branch)
            plan = await self.plan(state, wish)
            body = Struct(
                tx_data=plan.merge.tx_data,
                conflicts=[Struct(conflict.data()) for conflict in plan.merge.conflicts],
                **plan.facts(),
            )
            await request.reply(body, plan.ours.max_tx)
            return
        for attempt in range(PLANS_MAX):
            request.check_deadline()
            state, actor = await self._hub.open(request.database, branch)
            if wish.ident is not None and state.known(wish.ident):
                planned = Planned(request, Wish([], None, wish.ident), None)
                actor.tell(planned)
                await planned.settled()
                await self._answer(request, planned, {})
                return
            if attempt < PLANS_BESIDE:
                plan = await self.plan(state, wish)
                made = self._planned(request, wish, plan)
                if made is not None:
                    actor.tell(made)
            else:
                plan, made = await self._alone(request, state, actor, wish)
            if made is None:
                await request.reply(_up_to_date(plan, request.database, branch), plan.ours.max_tx)
                return
            await made.settled()
            if made.report is not None or made.error is not None:
                await self._archive.pin(request.database, plan.other)
                await self._answer(request, made, plan.facts())
                return
            log.info("%s.%s moved while a merge was planned", request.database, branch)
        raise Busy(
            f"{request.database}.{branch} moved {PLANS_MAX} times while the merge was planned.",
            branch=branch,
            retry_after_ms=RETRY_AFTER_MS,
        )

    async def _answer(self, request: Request, made: Planned, facts: dict[str, Any]) -> None:
        if made.error is not None:
            await request.refuse(told(made.error))
        else:
            await request.reply(Struct(made.report, **facts), made.basis)

    def _planned(self, request: Request, wish: MergeWish, plan: Plan) -> Planned | None:
        """What the transactor is to commit; None when there is nothing to merge."""
        plan.merge.require_clean()
        if plan.up_to_date:
            return None
        data = Wish(plan.merge.tx_data, wish.tx_meta, wish.ident, [plan.other.commit])
        return Planned(request, data, plan.ours.commit_id)

    async def _alone(
        self, request: Request, state: BranchState, actor: Actor, wish: MergeWish
    ) -> tuple[Plan, Planned | None]:
        """Plan while the transactor waits: its head cannot move."""
        plans: list[Plan] = []
        errors: list[Exception] = []
        made: list[Planned | None] = []

        async def work() -> Planned | None:
            try:
                request.check_deadline()
                plans.append(await self.plan(state, wish))
                made.append(self._planned(request, wish, plans[0]))
                return made[0]
            except Exception as error:  # it is the sender's, not the transactor's
                errors.append(error)
                return None

        await actor.ask(Alone(work), request.remaining_s)
        if errors:
            raise errors[0]
        return plans[0], made[0]

    # --- planning ----------------------------------------------------------------------------

    async def plan(self, state: BranchState, wish: MergeWish) -> Plan:
        """What a merge into the present head of a branch would do.

        Raises `BranchNotFound` or `CommitNotFound` for the other side, `MergeConflict` when the
        two share no commit.
        """
        database = state.database
        ours = state.db
        assert ours.commit_id is not None
        table = Table(state.commits, state.began, state.position)
        other = await self._archive.resolve(database, wish.other)
        graph = await self._archive.ancestry(database, state.lane, table, other)
        nodes = await self._bases(database, graph, ours, ours.commit_id, other.commit)
        bases = tuple(node.id for node in nodes)
        if bases == (other.commit,):
            return Plan(ours, other, bases, MergePlan())
        base = await self._base(database, graph, ours, nodes)
        theirs = await self._archive.value(database, other)

        def work() -> MergePlan:
            found = plan_merge(base, ours, theirs, wish.policy, wish.resolutions)
            if base is not theirs:
                base.forget(ours)  # it was read as a whole, and nobody asks for that again
            return found

        return Plan(ours, other, bases, await to_thread.run_sync(work))

    async def _bases(
        self, database: str, graph: CommitGraph, ours: Database, left: UUID, right: UUID
    ) -> list[CommitNode]:
        found = await to_thread.run_sync(merge_bases, graph, left, right)
        if found and not ours.config.commit_graph:  # then only heads may be read
            try:
                for node in found:
                    await self._archive.find(database, node.id)
            except CommitNotFound:
                found = []
        if not found:
            raise MergeConflict("The two sides share no commit.", conflicts=[])
        return found

    async def _base(
        self, database: str, graph: CommitGraph, ours: Database, nodes: Sequence[CommitNode]
    ) -> Database:
        """The value that both sides descend from; made of several where histories crossed."""
        values = []
        for node in nodes:
            place = graph.place(node.id)
            assert place is not None
            commit = Base(place.lane, node.id, node.tx)
            values.append(await self._archive.value(database, commit))
        if len(values) == 1:
            return values[0]
        roots = await self._bases(database, graph, ours, nodes[0].id, nodes[1].id)
        root = await self._base(database, graph, ours, roots)
        return await to_thread.run_sync(virtual_base, root, values)


def _up_to_date(plan: Plan, database: str, branch: str) -> Struct:
    """The answer of a merge that had nothing to do: about the head as it stands, no commit."""
    head = plan.ours
    return Struct(
        tx=head.max_tx,
        instant=None if head.instant_ms is None else ms_instant(head.instant_ms),
        commit_id=head.commit_id,
        tx_data=[],
        tempids={},
        tx_meta={},
        purged=0,
        id=None,
        database=database,
        branch=branch,
        **plan.facts(),
    )


def is_planned(body: Any) -> bool:
    """Whether a merge is to be planned here: its request gives no data."""
    return (
        isinstance(body, Mapping) and fields_of(body, MERGE_WORDS, "merge").get("tx_data") is None
    )


def read_planned_merge(body: Any) -> MergeWish:
    """A merge of one other side whose data are not given."""
    fields = fields_of(body, MERGE_WORDS, "merge")
    others = merge_parents(fields)
    if len(others) > 1:
        raise BadRequest(
            "Several parents need tx_data; merge them one after the other without.",
            parents=[str(other)[:80] for other in others],
        )
    policy = fields.get("policy")
    resolutions = fields.get("resolutions")
    resolutions = [] if resolutions is None else resolutions
    if not isinstance(resolutions, (list, tuple)):
        raise BadRequest("resolutions is a list of maps.", field="resolutions")
    dry_run = fields.get("dry_run")
    if dry_run is not None and not isinstance(dry_run, bool):
        raise BadRequest("dry_run is true or false.", field="dry_run")
    if isinstance(policy, (Keyword, Symbol)):
        policy = policy.text
    return MergeWish(
        others[0],
        "fail" if policy is None else policy,
        resolutions,
        fields.get("tx_meta"),
        transaction_id(fields.get("id")),
        bool(dry_run),
    )


__all__ = ["Merger", "is_planned"]

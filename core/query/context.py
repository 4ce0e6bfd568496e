"""What one run of a query needs: sources, rules, functions, its value pool and its limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from natalog.core.database import Database
from natalog.core.errors import QueryBinding, QueryLimit, QueryTimeout
from natalog.core.index.pool import ValuePool
from natalog.core.limits import QUERY_ROWS_MAX
from natalog.core.query.ast import Clause, Rules
from natalog.core.query.plan import Plan, Step
from natalog.core.query.ruleset import RuleSet
from natalog.core.query.show import clause_text
from natalog.core.registry import Registry


@dataclass(frozen=True, slots=True)
class Rows:
    """A collection as a source: its rows are matched by position."""

    rows: list[tuple[Any, ...]]


Source = Database | Rows


@dataclass(slots=True)
class Budget:
    """What a query may still spend; shared by all its parts.

    ``expired`` says whether the deadline has passed or the asker is gone (None: never); ``fuel``:
    rows that operators may still produce.
    """

    expired: Callable[[], bool] | None = None
    rows_max: int = QUERY_ROWS_MAX
    fuel: int | None = None
    plan: Plan | None = None
    """Where steps are recorded, if anybody wants to know."""
    depth: int = -1

    def tick(self, rows: int) -> None:
        """Account for ``rows`` produced; raises when a limit is passed."""
        if rows > self.rows_max:
            raise QueryLimit(
                f"A step of the query makes {rows} rows; {self.rows_max} are allowed.",
                rows=rows,
                rows_max=self.rows_max,
            )
        if self.plan is not None:
            self.plan.rows_touched += rows
        if self.fuel is not None:
            self.fuel -= rows
            if self.fuel < 0:
                raise QueryLimit("The query used up its fuel.", limit="fuel")
        if self.expired is not None and self.expired():
            raise QueryTimeout("The deadline of the query passed.")


@dataclass(slots=True)
class Context:
    """One run of a query; a rule body runs in one of its own, with another ``$``."""

    sources: Mapping[str, Source]
    ruleset: RuleSet
    functions: Registry
    budget: Budget = field(default_factory=Budget)
    pool: ValuePool = field(default_factory=ValuePool)
    scalars: set[str] = field(default_factory=set)
    """Variables bound by a scalar input: a lookup ref in one must exist."""
    readiness: dict[tuple[str, frozenset[int]], bool] = field(default_factory=dict)
    """What is supposed, while it is found out, of whether rules can run."""
    fixpoint: Any = None
    """The recursion that is being solved (`natalog.core.query.rules.Fixpoint`), if any."""

    @property
    def rules(self) -> Rules:
        """The bodies of all rules by name."""
        return self.ruleset.bodies

    def source(self, name: str) -> Source:
        """The source of a name."""
        found = self.sources.get(name)
        if found is None:
            raise QueryBinding(
                f"The query names the source {name}, which :in does not give.", source=name
            )
        return found

    def database(self, name: str) -> Database:
        """The source of a name, which must be a database."""
        found = self.source(name)
        if not isinstance(found, Database):
            raise QueryBinding(f"The source {name} is no database.", source=name)
        return found

    def record(self, clause: Clause, estimated: float | None, bound: int, rows: int) -> None:
        """Note a step for ``explain``."""
        plan = self.budget.plan
        if plan is not None:
            depth = self.budget.depth
            plan.steps.append(Step(depth, clause_text(clause), estimated, bound, rows))

    def tick(self, rows: int) -> None:
        """See `Budget.tick`."""
        self.budget.tick(rows)

    def with_source(self, source: str) -> Context:
        """The same run where ``$`` means ``source``: a rule body of a call on it."""
        sources = self.sources
        if source == "$" and not self.scalars:
            return self
        if source != "$":
            sources = {**sources, "$": self.source(source)}
        return replace(self, sources=sources, scalars=set())

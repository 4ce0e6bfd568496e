"""What one run of a query needs: sources, rules, functions, its value pool and its limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from natalog.core.database import Database
from natalog.core.errors import QueryBinding, QueryLimit, QueryTimeout
from natalog.core.index.pool import ValuePool
from natalog.core.limits import QUERY_ROWS_MAX
from natalog.core.query.ast import Rules


@dataclass(frozen=True, slots=True)
class Rows:
    """A collection as a source: its rows are matched by position."""

    rows: list[tuple[Any, ...]]


Source = Database | Rows


@dataclass(slots=True)
class Context:
    """One run of a query.

    ``expired`` says whether the deadline has passed or the asker is gone (None: never);
    ``fuel``: rows that operators may still produce.
    """

    sources: Mapping[str, Source]
    rules: Rules
    functions: Mapping[str, Callable[..., Any]]
    expired: Callable[[], bool] | None = None
    rows_max: int = QUERY_ROWS_MAX
    fuel: int | None = None
    pool: ValuePool = field(default_factory=ValuePool)
    scalars: set[str] = field(default_factory=set)
    """Variables bound by a scalar input: a lookup ref in one must exist."""
    trace: list[tuple[str, int | None, int]] | None = None
    """For ``explain``: clause, estimated rows, actual rows."""

    def source(self, name: str) -> Source:
        """The source of a name."""
        found = self.sources.get(name)
        if found is None:
            raise QueryBinding(f"The query names the source {name}, which :in does not give.",
                               source=name)
        return found

    def database(self, name: str) -> Database:
        """The source of a name, which must be a database."""
        found = self.source(name)
        if not isinstance(found, Database):
            raise QueryBinding(f"The source {name} is no database.", source=name)
        return found

    def tick(self, rows: int) -> None:
        """Account for ``rows`` produced; raises when a limit is passed."""
        if rows > self.rows_max:
            raise QueryLimit(
                f"A step of the query makes {rows} rows; {self.rows_max} are allowed.",
                rows=rows,
                rows_max=self.rows_max,
            )
        if self.fuel is not None:
            self.fuel -= rows
            if self.fuel < 0:
                raise QueryLimit("The query used up its fuel.", limit="fuel")
        if self.expired is not None and self.expired():
            raise QueryTimeout("The deadline of the query passed.")

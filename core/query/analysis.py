"""What can be said of a query before it meets data; found out once for each parsed query."""

from __future__ import annotations

from dataclasses import dataclass, field

from natalog.core.query.ast import Query, RuleCall
from natalog.core.query.foreign import foreign_aggregates, foreign_functions
from natalog.core.query.kept import Kept
from natalog.core.query.parse_where import walk
from natalog.core.query.point import PointPlan, point_plan
from natalog.core.query.result import find_vars
from natalog.core.schema import Schema

_SCHEMAS_MAX = 8
"""Schemas for which a query keeps its plan."""


@dataclass(slots=True)
class Analysis:
    """``names``: the variables that ``:find`` and ``:with`` need; ``calls_rules``: whether any
    clause does; ``foreign`` and ``aggregates``: functions and aggregates that are not built in.
    """

    names: list[str]
    wanted: frozenset[str]
    calls_rules: bool
    foreign: frozenset[str]
    aggregates: frozenset[str]
    bindable: set[tuple[frozenset[str], object]] = field(default_factory=set)
    """Sets of bound variables, and rules, with which all clauses were found to be able to run."""
    points: dict[int, tuple[Schema, PointPlan | None]] = field(default_factory=dict)
    """The plan of a query of one row, if it is one, by the identity of the schema."""
    checked: set[tuple[object, frozenset[str]]] = field(default_factory=set)
    """Rules, and names of sources, that were found to fit the calls of the query."""

    def point(self, query: Query, schema: Schema) -> PointPlan | None:
        """The plan of ``query`` as one that finds one row, None where it is none; kept."""
        found = self.points.get(id(schema))
        if found is not None:
            return found[1]
        if len(self.points) >= _SCHEMAS_MAX:
            self.points.clear()
        made = point_plan(query, schema)
        self.points[id(schema)] = (schema, made)  # the schema is held, so its id stays its own
        return made


def _analysed(query: Query) -> Analysis:
    names = find_vars(query)
    return Analysis(
        names,
        frozenset(names),
        any(isinstance(clause, RuleCall) for clause in walk(query.where)),
        foreign_functions(query.where),
        foreign_aggregates(query.find),
    )


analysis_of: Kept[Query, Analysis] = Kept(_analysed)
"""The analysis of a query; kept for queries that the parser keeps.

Raises `QueryWhere` for a built-in function with a wrong number of arguments, `QueryFunction` for
an aggregate with one.
"""

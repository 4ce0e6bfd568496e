"""What can be said of a query before it meets data; found out once for each parsed query."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from natalog.core.errors import QueryWhere
from natalog.core.limits import PARSED_QUERIES_MAX
from natalog.core.query.ast import Call, Clause, Not, Or, Query, RuleCall
from natalog.core.query.functions import FUNCTIONS
from natalog.core.query.parse_where import walk
from natalog.core.query.result import find_vars
from natalog.core.registry import Registry


@dataclass(slots=True)
class Analysis:
    """``names``: the variables that ``:find`` and ``:with`` need; ``calls_rules``: whether any
    clause does; ``foreign``: functions that are not built in.
    """

    names: list[str]
    wanted: frozenset[str]
    calls_rules: bool
    foreign: frozenset[str]
    bindable: set[frozenset[str]] = field(default_factory=set)
    """Sets of bound variables from which all clauses were found to be able to run."""


_known: dict[int, tuple[Query, Analysis]] = {}


def analysis_of(query: Query) -> Analysis:
    """The analysis of a query; kept for queries that the parser keeps.

    Raises `QueryWhere` for a built-in function with a wrong number of arguments.
    """
    found = _known.get(id(query))
    if found is not None:
        return found[1]
    names = find_vars(query)
    made = Analysis(
        names,
        frozenset(names),
        any(isinstance(clause, RuleCall) for clause in walk(query.where)),
        foreign_functions(query.where),
    )
    if len(_known) >= PARSED_QUERIES_MAX:
        _known.clear()
    _known[id(query)] = (query, made)  # the query is held, so its id stays its own
    return made


def foreign_functions(clauses: Iterable[Clause]) -> frozenset[str]:
    """The functions of clauses that are not built in.  Raises `QueryWhere` for wrong arities."""
    found: set[str] = set()
    for clause in clauses:
        if isinstance(clause, Call):
            builtin = FUNCTIONS.get(clause.function)
            if builtin is None:
                if clause.function != "q":
                    found.add(clause.function)
            elif not builtin.accepts(len(clause.args)):
                raise QueryWhere(
                    f"{clause.function} does not take {len(clause.args)} arguments.",
                    function=clause.function,
                )
        elif isinstance(clause, Not):
            found |= foreign_functions(clause.clauses)
        elif isinstance(clause, Or):
            for branch in clause.branches:
                found |= foreign_functions(branch)
    return frozenset(found)


def check_registered(foreign: Iterable[str], functions: Registry) -> None:
    """Refuse functions that are neither built in nor registered."""
    for name in foreign:
        if functions.get(name) is None:
            raise QueryWhere(f"There is no function or predicate {name}.", function=name)

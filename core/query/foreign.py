"""Functions and aggregates of a query that are not built in: the operator registers them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from natalog.core.errors import QueryWhere
from natalog.core.query.aggregates import AGGREGATES
from natalog.core.query.ast import Call, Clause, Const, FindAggregate, FindElement, Not, Or, Term
from natalog.core.query.functions import FUNCTIONS
from natalog.core.registry import Registry


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


def foreign_aggregates(find: Iterable[FindElement]) -> frozenset[str]:
    """The aggregates of ``:find`` that are not built in.

    Raises `QueryFunction` for a wrong number of parameters of one that is.
    """
    found: set[str] = set()
    for element in find:
        if isinstance(element, FindAggregate):
            builtin = AGGREGATES.get(element.name)
            if builtin is None:
                found.add(element.name)
            else:
                builtin.check([_written(param) for param in element.params])
    return frozenset(found)


def _written(param: Term) -> Any:
    return param.value if isinstance(param, Const) else getattr(param, "name", "_")


def check_aggregates(foreign: Iterable[str], functions: Registry) -> None:
    """Refuse aggregates that are neither built in nor registered."""
    for name in foreign:
        if functions.aggregate(name) is None:
            raise QueryWhere(f"There is no aggregate {name}.", aggregate=name)


def check_registered(foreign: Iterable[str], functions: Registry) -> None:
    """Refuse functions that are neither built in nor registered."""
    for name in foreign:
        if functions.get(name) is None:
            raise QueryWhere(f"There is no function or predicate {name}.", function=name)

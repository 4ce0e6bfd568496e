"""Functions that a query calls and that are not built in: the server's operator registers them."""

from __future__ import annotations

from collections.abc import Iterable

from natalog.core.errors import QueryWhere
from natalog.core.query.ast import Call, Clause, Not, Or
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


def check_registered(foreign: Iterable[str], functions: Registry) -> None:
    """Refuse functions that are neither built in nor registered."""
    for name in foreign:
        if functions.get(name) is None:
            raise QueryWhere(f"There is no function or predicate {name}.", function=name)

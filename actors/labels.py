"""Which databases and branches have time series of their own.

Databases and branches can be many, and every label value costs each metric a series in every
Prometheus that looks.  So a process names at most `METRIC_DATABASES_MAX` databases, each with its
main branch, and `METRIC_BRANCHES_MAX` other branches, first come, first served; all others share
the label value `OTHER`.  A place is given back when its branch is closed.
"""

from __future__ import annotations

from typing import Final

from natalog.actors.names import MAIN_BRANCH
from natalog.core.limits import METRIC_BRANCHES_MAX, METRIC_DATABASES_MAX

OTHER: Final = "_other"
"""The label of what is not named; no database or branch can be called so."""


class BranchLabels:
    """The label values of databases and branches.

    >>> labels = BranchLabels(databases_max=1, branches_max=1)
    >>> labels.branch("people", "db"), labels.branch("people", "draft")
    (('people', 'db'), ('people', 'draft'))
    >>> labels.branch("people", "second"), labels.branch("things", "db")
    (('people', '_other'), ('_other', '_other'))
    """

    def __init__(
        self,
        databases_max: int = METRIC_DATABASES_MAX,
        branches_max: int = METRIC_BRANCHES_MAX,
    ) -> None:
        self._databases_max = databases_max
        self._branches_max = branches_max
        self._databases: set[str] = set()
        self._branches: set[tuple[str, str]] = set()

    def database(self, database: str) -> str:
        """The label of a database that exists; it takes a place."""
        if database not in self._databases:
            if len(self._databases) >= self._databases_max:
                return OTHER
            self._databases.add(database)
        return database

    def known(self, database: str) -> str:
        """The label of a database that may not exist; takes no place."""
        return database if database in self._databases else OTHER

    def branch(self, database: str, branch: str) -> tuple[str, str]:
        """The labels of a branch that exists; it takes a place."""
        key = (database, branch)
        if self.database(database) == OTHER:
            return OTHER, OTHER
        if branch != MAIN_BRANCH and key not in self._branches:
            if len(self._branches) >= self._branches_max:
                return database, OTHER
            self._branches.add(key)
        return key

    def named(self, database: str, branch: str) -> tuple[str, str] | None:
        """The labels of a branch that has series of its own, None for any other."""
        key = (database, branch)
        if database not in self._databases:
            return None
        return key if branch == MAIN_BRANCH or key in self._branches else None

    def release_branch(self, database: str, branch: str) -> None:
        """Give the place of a branch back; that of a main branch is the database's."""
        self._branches.discard((database, branch))

    def release_database(self, database: str) -> None:
        """Give the places of a database and its branches back."""
        self._databases.discard(database)
        self._branches = {key for key in self._branches if key[0] != database}

"""The rules of a query with what was found out about them, once for each parsed set of rules."""

from __future__ import annotations

from typing import Any

from natalog.core.query.ast import Rules
from natalog.core.query.builtin_rules import with_builtins
from natalog.core.query.foreign import foreign_functions
from natalog.core.query.kept import Kept


class RuleSet:
    """``bodies``: the rules by name, built-in ones included.

    What follows is derived from the rules alone and filled in by those who ask.
    """

    __slots__ = ("bodies", "foreign", "forms", "groups", "ready")

    def __init__(self, rules: Rules) -> None:
        self.bodies = with_builtins(rules)
        self.foreign: frozenset[str] = frozenset().union(
            *(foreign_functions(body.clauses) for bodies in rules.values() for body in bodies)
        )
        """Functions in the bodies that are not built in."""
        self.groups: dict[str, frozenset[str]] = {}
        """The recursive group of each rule."""
        self.forms: dict[str, Any] = {}
        """The linear form of recursive rules (`natalog.core.query.closure.Linear`), or None."""
        self.ready: dict[tuple[str, frozenset[int]], bool] = {}
        """Whether a rule can run with some of its arguments bound."""


ruleset_of: Kept[Rules, RuleSet] = Kept(RuleSet)

NO_RULES: RuleSet = RuleSet({})
"""The built-in rules only."""

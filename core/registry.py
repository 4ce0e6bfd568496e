"""Functions that the operator of a database adds to the built-in ones, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from natalog.core.values import Keyword, Symbol

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Registry:
    """Deterministic Python callables by name.

    Queries call ``functions`` as predicates and functions, ``:xform`` of a pull and the
    transactor use them too; ``aggregates`` take the list of a group's values after their
    parameters.  Names are matched as written; nothing is ever imported or looked up by a name
    that a request contains.

    >>> Registry({"my/double": lambda x: 2 * x}).get(Symbol("my/double"))(21)
    42
    """

    functions: Mapping[str, Function] = field(default_factory=dict)
    aggregates: Mapping[str, Function] = field(default_factory=dict)

    def get(self, name: str | Symbol | Keyword) -> Function | None:
        """The function of this name, or None."""
        return self.functions.get(_text(name))

    def aggregate(self, name: str | Symbol | Keyword) -> Function | None:
        """The aggregate of this name, or None."""
        return self.aggregates.get(_text(name))


def _text(name: str | Symbol | Keyword) -> str:
    return name if isinstance(name, str) else name.text


EMPTY: Final = Registry()

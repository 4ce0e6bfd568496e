"""What a built-in raises when its arguments are of classes that it is not defined for."""

from __future__ import annotations

from typing import Any

from natalog.core.errors import QueryFunction
from natalog.core.printing import pr_str


class TypeMismatch(Exception):
    """Arguments of the wrong class, such as in ``(< "a" 5)``.

    Internal to the engine: a predicate that raises it does not hold; a function expression fails
    with `as_error`.
    """

    def __init__(self, function: str, *args: Any) -> None:
        super().__init__(function, args)
        self.function = function
        self.values = args

    def as_error(self) -> QueryFunction:
        """The error of a function expression that cannot be computed."""
        shown = " ".join(pr_str(value) for value in self.values)
        return QueryFunction(
            f"The function {self.function} is not defined for {shown or 'no arguments'}",
            function=self.function,
            arguments=list(self.values),
        )

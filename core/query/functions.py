"""The closed table of functions and predicates that queries may call.

All are deterministic and touch nothing but their arguments.  Nothing else can be called, except
what the operator registers (`natalog.core.registry`); ``q`` is the executor's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from natalog.core.query import functions_collections as collections
from natalog.core.query import functions_compare as compare
from natalog.core.query import functions_database as database
from natalog.core.query import functions_numbers as numbers
from natalog.core.query import functions_strings as strings


@dataclass(frozen=True, slots=True)
class Builtin:
    """A function: ``call`` takes between ``min_args`` and ``max_args`` (None: any number) values.

    ``call`` raises `TypeMismatch` for arguments of the wrong class and `QueryFunction` for others
    it cannot compute.  ``database``: the first argument is a database.
    """

    name: str
    call: Callable[..., Any]
    min_args: int
    max_args: int | None
    database: bool = False

    def accepts(self, count: int) -> bool:
        """Whether the function takes this many arguments."""
        return self.min_args <= count and (self.max_args is None or count <= self.max_args)


def _table() -> dict[str, Builtin]:
    many: dict[str, tuple[Callable[..., Any], int]] = {
        "=": (compare.same, 1),
        "==": (compare.same_number, 1),
        "not=": (compare.not_same, 1),
        "!=": (compare.not_same, 1),
        "<": (compare.lesser, 1),
        "<=": (compare.lesser_equal, 1),
        ">": (compare.greater, 1),
        ">=": (compare.greater_equal, 1),
        "before?": (compare.lesser, 1),
        "after?": (compare.greater, 1),
        "-differ?": (compare.differ, 0),
        "+": (numbers.plus, 0),
        "*": (numbers.times, 0),
        "-": (numbers.minus, 1),
        "/": (numbers.over, 1),
        "and": (collections.conjunction, 0),
        "or": (collections.disjunction, 0),
        "vector": (collections.vector, 0),
        "tuple": (collections.vector, 0),
        "list": (collections.edn_list, 0),
        "hash-map": (collections.hash_map, 0),
        "array-map": (collections.hash_map, 0),
        "str": (strings.text, 0),
        "pr-str": (strings.printed, 0),
        "prn-str": (strings.printed_line, 0),
        "print-str": (strings.shown, 0),
        "println-str": (strings.shown_line, 0),
    }
    fixed: dict[str, tuple[Callable[..., Any], int, int]] = {
        "compare": (compare.compare, 2, 2),
        "quot": (numbers.quot, 2, 2),
        "rem": (numbers.rem, 2, 2),
        "mod": (numbers.mod, 2, 2),
        "inc": (numbers.inc, 1, 1),
        "dec": (numbers.dec, 1, 1),
        "max": (collections.maximum, 1, 2),
        "min": (collections.minimum, 1, 2),
        "zero?": (numbers.is_zero, 1, 1),
        "pos?": (numbers.is_positive, 1, 1),
        "neg?": (numbers.is_negative, 1, 1),
        "even?": (numbers.is_even, 1, 1),
        "odd?": (numbers.is_odd, 1, 1),
        "range": (numbers.number_range, 1, 3),
        "true?": (collections.is_true, 1, 1),
        "false?": (collections.is_false, 1, 1),
        "nil?": (collections.is_nil, 1, 1),
        "some?": (collections.is_some, 1, 1),
        "not": (collections.negation, 1, 1),
        "identity": (collections.identity, 1, 1),
        "ground": (collections.identity, 1, 1),
        "untuple": (collections.identity, 1, 1),
        "identical?": (collections.identical, 2, 2),
        "set": (collections.to_set, 1, 1),
        "count": (collections.count, 1, 1),
        "empty?": (collections.is_empty, 1, 1),
        "not-empty": (collections.not_empty, 1, 1),
        "contains?": (collections.contains, 2, 2),
        "subs": (strings.substring, 2, 3),
        "name": (strings.name, 1, 1),
        "namespace": (strings.namespace, 1, 1),
        "re-find": (strings.re_find, 2, 2),
        "re-matches": (strings.re_matches, 2, 2),
        "re-seq": (strings.re_seq, 2, 2),
        "re-pattern": (strings.re_pattern, 1, 1),
    }
    table = {name: Builtin(name, call, low, None) for name, (call, low) in many.items()}
    for name, (call, low, high) in fixed.items():
        table[name] = Builtin(name, call, low, high)
    table["get-else"] = Builtin("get-else", database.get_else, 4, 4, True)
    table["get-some"] = Builtin("get-some", database.get_some, 3, None, True)
    table["missing?"] = Builtin("missing?", database.is_missing, 3, 3, True)
    return table


FUNCTIONS: Final[dict[str, Builtin]] = _table()
"""Every built-in function and predicate by its name."""

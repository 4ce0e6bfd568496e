"""The parsed form of a query: what `natalog.core.query.parse` makes and the planner reads.

All nodes are immutable and hashable where their constants are, and hold no database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from natalog.core.values import same_value, value_key


@dataclass(frozen=True, slots=True)
class Var:
    """A variable, named with its question mark."""

    name: str


@dataclass(frozen=True, slots=True)
class Blank:
    """``_``: any value, bound to nothing."""


@dataclass(frozen=True, slots=True)
class Const:
    """A constant as it was read, in hashable types; equal to the same value of the same class."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and same_value(self.value, other.value)

    def __hash__(self) -> int:
        return hash(value_key(self.value))


@dataclass(frozen=True, slots=True)
class Src:
    """A data source, named with its dollar sign."""

    name: str


Term = Var | Blank | Const | Src
_BLANKS = (Blank(),) * 5

# --- bindings -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BindScalar:
    """``?x``"""

    var: Var


@dataclass(frozen=True, slots=True)
class BindIgnore:
    """``_``"""


@dataclass(frozen=True, slots=True)
class BindColl:
    """``[binding ...]``; ``[[?a ?b]]`` is a collection of tuples."""

    item: Binding


@dataclass(frozen=True, slots=True)
class BindTuple:
    """``[binding binding]``"""

    items: tuple[Binding, ...]


Binding = BindScalar | BindIgnore | BindColl | BindTuple


@dataclass(frozen=True, slots=True)
class InSource:
    """``$`` or ``$name`` in ``:in``."""

    name: str


@dataclass(frozen=True, slots=True)
class InRules:
    """``%`` in ``:in``."""


@dataclass(frozen=True, slots=True)
class InBinding:
    """Any binding form in ``:in``."""

    binding: Binding


Input = InSource | InRules | InBinding

# --- clauses ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pattern:
    """``[src? e a v tx op]``: one to five terms."""

    source: str
    terms: tuple[Term, ...]
    full: tuple[Term, Term, Term, Term, Term] = field(init=False, compare=False, repr=False)
    """All five terms, those not written as blanks."""
    names: tuple[str, ...] = field(init=False, compare=False, repr=False)
    """The variables, each once."""

    def __post_init__(self) -> None:
        names = dict.fromkeys(term.name for term in self.terms if isinstance(term, Var))
        object.__setattr__(self, "full", (*self.terms, *(_BLANKS[len(self.terms) :])))
        object.__setattr__(self, "names", tuple(names))


@dataclass(frozen=True, slots=True)
class Call:
    """``[(f args...)]`` (``binding`` is None: a predicate) or ``[(f args...) binding]``."""

    function: str
    args: tuple[Term, ...]
    binding: Binding | None


@dataclass(frozen=True, slots=True)
class RuleCall:
    """``(name args...)`` or ``($src name args...)``."""

    source: str
    name: str
    args: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """``(not ...)``: ``vars`` None; ``(not-join [...] ...)``: the variables that join."""

    vars: tuple[Var, ...] | None
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """``(or ...)``: ``vars`` None; ``(or-join [[required] free...] ...)``.  A branch is a list."""

    required: tuple[Var, ...]
    vars: tuple[Var, ...] | None
    branches: tuple[tuple[Clause, ...], ...]


Clause = Pattern | Call | RuleCall | Not | Or


@dataclass(frozen=True, slots=True)
class Rule:
    """One body of a rule: ``[(name [required] free...) clauses...]``.

    Inside a rule body the source ``$`` means the source of the call.
    """

    name: str
    required: tuple[Var, ...]
    free: tuple[Var, ...]
    clauses: tuple[Clause, ...]

    @property
    def params(self) -> tuple[Var, ...]:
        return self.required + self.free


Rules = dict[str, tuple[Rule, ...]]

# --- find ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FindVar:
    """A variable in ``:find``."""

    var: Var


@dataclass(frozen=True, slots=True)
class FindAggregate:
    """``(name params... ?x)``: parameters are constants or scalar input variables."""

    name: str
    params: tuple[Term, ...]
    var: Var


@dataclass(frozen=True, slots=True)
class FindPull:
    """``(pull $src? ?e pattern)``: the pattern is a constant or an input variable."""

    source: str
    var: Var
    pattern: Const | Var


FindElement = FindVar | FindAggregate | FindPull
FindKind = Literal["relation", "collection", "tuple", "scalar"]


@dataclass(frozen=True, slots=True)
class ReturnMap:
    """``:keys`` (Keyword), ``:strs`` (str) or ``:syms`` (Symbol): the key objects, in order."""

    keys: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class OrderKey:
    """One key of ``:order-by``: the position of a find element and the direction."""

    column: int
    descending: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A query, validated: variables are known, arities and rules are checked by the planner."""

    kind: FindKind
    find: tuple[FindElement, ...]
    with_vars: tuple[Var, ...]
    inputs: tuple[Input, ...]
    where: tuple[Clause, ...]
    return_map: ReturnMap | None
    order_by: tuple[OrderKey, ...] | None
    limit: int | None
    offset: int | None

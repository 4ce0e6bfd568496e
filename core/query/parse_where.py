"""The clauses of ``:where`` and of rule bodies.

A source written before ``not``, ``or`` or a rule is handed down: every clause within that names no
source of its own reads from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from natalog.core.errors import QueryWhere, RuleParse, WhereParse
from natalog.core.forms import (
    BLANK,
    PERCENT,
    freeze,
    is_list,
    is_plain_symbol,
    is_sequence,
    is_source,
    is_variable,
)
from natalog.core.limits import CLAUSE_NESTING_MAX
from natalog.core.printing import pr_str
from natalog.core.query.ast import (
    Blank,
    Call,
    Clause,
    Const,
    Not,
    Or,
    Pattern,
    RuleCall,
    Src,
    Term,
    Var,
)
from natalog.core.query.parse_binding import binding_vars, parse_binding
from natalog.core.values import Symbol

NAMED_CLAUSES = frozenset({"not", "not-join", "or", "or-join", "and"})
_AND = Symbol("and")
PATTERN_LENGTH_MAX = 5
"""Entity, attribute, value, transaction, operation."""


def parse_clauses(forms: Iterable[Any], source: str = "$", depth: int = 0) -> tuple[Clause, ...]:
    """The clauses that ``forms`` describe; ``(and ...)`` is spliced in.

    ``source`` is what a clause without a source of its own reads from.  Raises `WhereParse`.
    """
    clauses: list[Clause] = []
    for form in forms:
        if is_sequence(form) and form and form[0] == _AND:
            clauses.extend(_and(form, source, depth))
        else:
            clauses.append(parse_clause(form, source, depth))
    return tuple(clauses)


def parse_clause(form: Any, source: str = "$", depth: int = 0) -> Clause:
    """One clause: a pattern, a predicate, a function, a rule call, ``not`` or ``or``."""
    if depth > CLAUSE_NESTING_MAX:
        raise WhereParse(
            f"Clauses nest deeper than {CLAUSE_NESTING_MAX} levels", limit=CLAUSE_NESTING_MAX
        )
    if not is_sequence(form):
        raise _unreadable(form)
    if not form:
        raise WhereParse("A clause cannot be empty", form=form)
    head = form[0]
    rest: Sequence[Any] = form
    if is_source(head):
        source = head.text
        rest = form[1:]
        if not rest:
            raise WhereParse(f"The clause {pr_str(form)} has a source and nothing else", form=form)
        head = rest[0]
    if is_plain_symbol(head):
        return _named(head.text, rest, form, source, depth)
    if len(rest) == len(form) and _is_call(head):
        return _call(form)
    return _pattern(rest, form, source)


def _unreadable(form: Any) -> WhereParse:
    return WhereParse(
        f"Cannot read the clause {pr_str(form)}: expected a data pattern, a predicate, a function, "
        "a rule, not, not-join, or, or-join",
        form=form,
    )


# --- patterns, calls, rules -----------------------------------------------------------------------


def _term(form: Any, clause: Any) -> Term:
    if is_variable(form):
        return Var(form.text)
    if form == BLANK:
        return Blank()
    if is_source(form) or form == PERCENT:
        raise WhereParse(f"{form} has no place within the clause {pr_str(clause)}", form=clause)
    return Const(freeze(form))


def _pattern(rest: Sequence[Any], form: Any, source: str) -> Pattern:
    if len(rest) > PATTERN_LENGTH_MAX:
        raise WhereParse(
            f"The pattern {pr_str(form)} has more than {PATTERN_LENGTH_MAX} positions", form=form
        )
    return Pattern(source, tuple(_term(item, form) for item in rest))


def _is_call(head: Any) -> bool:
    """Whether the first item of a vector is a call: a list, or a vector led by a function name."""
    if not is_sequence(head):
        return False
    return is_list(head) or (bool(head) and is_plain_symbol(head[0]))


def _call(form: Sequence[Any]) -> Call:
    head = form[0]
    if len(form) > 2:
        raise _unreadable(form)
    if not head or not isinstance(head[0], Symbol):
        raise _unreadable(form)
    if not is_plain_symbol(head[0]):
        raise QueryWhere(
            f"{head[0]} in {pr_str(form)} is not the name of a function", function=str(head[0])
        )
    args = tuple(_argument(item, form) for item in head[1:])
    binding = parse_binding(form[1]) if len(form) == 2 else None
    return Call(head[0].text, args, binding)


def _argument(form: Any, clause: Any) -> Term:
    if is_variable(form):
        return Var(form.text)
    if is_source(form):
        return Src(form.text)
    if form in (BLANK, PERCENT):
        raise WhereParse(f"{form} cannot be an argument in {pr_str(clause)}", form=clause)
    if is_list(form) and form and isinstance(form[0], Symbol):
        raise QueryWhere(
            f"The call {pr_str(form)} is an argument in {pr_str(clause)}: bind it to a variable "
            "in a clause of its own",
            form=clause,
        )
    return Const(freeze(form))


def _rule_call(rest: Sequence[Any], form: Any, source: str) -> RuleCall:
    if len(rest) < 2:
        raise WhereParse(f"The rule call {pr_str(form)} needs at least one argument", form=form)
    return RuleCall(source, rest[0].text, tuple(_term(item, form) for item in rest[1:]))


# --- not, or ------------------------------------------------------------------------------------


def _named(name: str, rest: Sequence[Any], form: Any, source: str, depth: int) -> Clause:
    match name:
        case "not":
            return _not(rest, form, source, depth)
        case "not-join":
            return _not_join(rest, form, source, depth)
        case "or":
            return _or(rest, form, source, depth)
        case "or-join":
            return _or_join(rest, form, source, depth)
        case "and":
            raise WhereParse(f"{pr_str(form)} has no place here", form=form)
    return _rule_call(rest, form, source)


def _and(form: Sequence[Any], source: str, depth: int) -> tuple[Clause, ...]:
    if len(form) < 2:
        raise WhereParse("(and) needs at least one clause", form=form)
    return parse_clauses(form[1:], source, depth + 1)


def _not(rest: Sequence[Any], form: Any, source: str, depth: int) -> Not:
    if len(rest) < 2:
        raise WhereParse("(not) needs at least one clause", form=form)
    clauses = parse_clauses(rest[1:], source, depth + 1)
    if not any(True for _ in visible_vars(clauses)):
        raise WhereParse(f"{pr_str(form)} has no variable to join with", form=form)
    return Not(None, clauses)


def _not_join(rest: Sequence[Any], form: Any, source: str, depth: int) -> Not:
    if len(rest) < 3 or not is_sequence(rest[1]) or not all(map(is_variable, rest[1])):
        raise WhereParse(
            f"Cannot read {pr_str(form)}: expected (not-join [variable+] clause+)", form=form
        )
    names = tuple(dict.fromkeys(Var(item.text) for item in rest[1]))
    clauses = parse_clauses(rest[2:], source, depth + 1)
    _check_join(names, clauses, form)
    return Not(names, clauses)


def _or(rest: Sequence[Any], form: Any, source: str, depth: int) -> Or:
    branches = _branches(rest[1:], form, source, depth)
    names = tuple(dict.fromkeys(var for branch in branches for var in visible_vars(branch)))
    for branch in branches:
        _check_join(names, branch, form)
    return Or((), None, branches)


def _or_join(rest: Sequence[Any], form: Any, source: str, depth: int) -> Or:
    if len(rest) < 2:
        raise WhereParse(
            f"Cannot read {pr_str(form)}: expected (or-join [variable+] clause+)", form=form
        )
    required, free = parse_rule_vars(rest[1])
    return Or(required, free, _branches(rest[2:], form, source, depth))


def _branches(
    forms: Sequence[Any], form: Any, source: str, depth: int
) -> tuple[tuple[Clause, ...], ...]:
    if not forms:
        raise WhereParse(f"{pr_str(form)} needs at least one clause", form=form)
    return tuple(parse_clauses((branch,), source, depth + 1) for branch in forms)


def _check_join(names: Iterable[Var], clauses: Sequence[Clause], form: Any) -> None:
    names = list(names)
    if not names:
        raise WhereParse(f"{pr_str(form)} has no variable to join with", form=form)
    declared = set(visible_vars(clauses))
    missing = [var.name for var in names if var not in declared]
    if missing:
        raise WhereParse(
            f"Join variables that do not occur in every branch of {pr_str(form)}: "
            f"{' '.join(missing)}",
            form=form,
            vars=missing,
        )


def parse_rule_vars(form: Any) -> tuple[tuple[Var, ...], tuple[Var, ...]]:
    """``[?a ?b]`` or ``[[?required+] ?free*]``: the required and the free variables.

    Raises `RuleParse` for anything else and for a variable that occurs twice.
    """
    if not is_sequence(form):
        raise _bad_rule_vars(form)
    required: Sequence[Any] = ()
    free: Sequence[Any] = form
    if form and is_sequence(form[0]):
        required, free = form[0], form[1:]
    names = [*required, *free]
    if not names or not all(map(is_variable, names)):
        raise _bad_rule_vars(form)
    if len({name.text for name in names}) != len(names):
        raise RuleParse(f"The variables of {pr_str(form)} should be distinct", form=form)
    return tuple(Var(item.text) for item in required), tuple(Var(item.text) for item in free)


def _bad_rule_vars(form: Any) -> RuleParse:
    return RuleParse(
        f"Cannot read the rule variables {pr_str(form)}: expected [?a ?b] or [[?required] ?free]",
        form=form,
    )


# --- what clauses mention -------------------------------------------------------------------------


def visible_vars(clauses: Iterable[Clause]) -> Iterator[Var]:
    """The variables by which clauses join with others: not those local to a not-join or or-join."""
    for clause in clauses:
        match clause:
            case Pattern(_, terms) | RuleCall(_, _, terms):
                yield from (term for term in terms if isinstance(term, Var))
            case Call(_, args, binding):
                yield from (term for term in args if isinstance(term, Var))
                if binding is not None:
                    yield from binding_vars(binding)
            case Not(names, inner):
                yield from visible_vars(inner) if names is None else names
            case Or(required, None, branches):
                for branch in branches:
                    yield from visible_vars(branch)
            case Or(required, free, _):
                yield from required
                yield from free or ()


def walk(clauses: Iterable[Clause]) -> Iterator[Clause]:
    """Every clause, those within ``not`` and ``or`` too."""
    for clause in clauses:
        yield clause
        match clause:
            case Not(_, inner):
                yield from walk(inner)
            case Or(_, _, branches):
                for branch in branches:
                    yield from walk(branch)


def sources_of(clauses: Iterable[Clause]) -> set[str]:
    """The names of the sources that clauses read from.

    A rule call without a source may call rules that read none.
    """
    names: set[str] = set()
    for clause in walk(clauses):
        match clause:
            case Pattern(source, _):
                names.add(source)
            case RuleCall(source, _, _) if source != "$":
                names.add(source)
            case Call(_, args, _):
                names.update(term.name for term in args if isinstance(term, Src))
    return names

"""Clauses as text, for people who read a plan."""

from __future__ import annotations

from collections.abc import Sequence

from natalog.core.printing import pr_str
from natalog.core.query.ast import (
    BindColl,
    BindIgnore,
    Binding,
    BindScalar,
    BindTuple,
    Blank,
    Call,
    Clause,
    Const,
    Input,
    InRules,
    InSource,
    Not,
    Or,
    Pattern,
    RuleCall,
    Src,
    Term,
    Var,
)


def inputs_text(inputs: Sequence[Input]) -> str:
    """What stands in ``:in``, as it could have been written."""
    return " ".join(
        item.name
        if isinstance(item, InSource)
        else "%"
        if isinstance(item, InRules)
        else _binding(item.binding)
        for item in inputs
    )


def clause_text(clause: Clause) -> str:
    """A clause as it could have been written."""
    if isinstance(clause, Pattern):
        return f"[{_prefix(clause.source)}{_terms(clause.terms)}]"
    if isinstance(clause, Call):
        call = f"({' '.join([clause.function, *map(_term, clause.args)])})"
        return f"[{call}]" if clause.binding is None else f"[{call} {_binding(clause.binding)}]"
    if isinstance(clause, RuleCall):
        inner = " ".join([clause.name, *map(_term, clause.args)])
        return f"({_prefix(clause.source)}{inner})"
    if isinstance(clause, Not):
        head = "not" if clause.vars is None else f"not-join [{_names(clause.vars)}]"
        return f"({head} {' '.join(map(clause_text, clause.clauses))})"
    assert isinstance(clause, Or)
    branches = " ".join(
        clause_text(branch[0])
        if len(branch) == 1
        else f"(and {' '.join(map(clause_text, branch))})"
        for branch in clause.branches
    )
    if clause.vars is None:
        return f"(or {branches})"
    required = f"[{_names(clause.required)}] " if clause.required else ""
    return f"(or-join [{required}{_names(clause.vars)}] {branches})"


def _prefix(source: str) -> str:
    return "" if source == "$" else f"{source} "


def _names(variables: tuple[Var, ...]) -> str:
    return " ".join(var.name for var in variables)


def _terms(terms: tuple[Term, ...]) -> str:
    return " ".join(map(_term, terms))


def _term(term: Term) -> str:
    if isinstance(term, (Var, Src)):
        return term.name
    if isinstance(term, Blank):
        return "_"
    assert isinstance(term, Const)
    return pr_str(term.value)


def _binding(binding: Binding) -> str:
    if isinstance(binding, BindScalar):
        return binding.var.name
    if isinstance(binding, BindIgnore):
        return "_"
    if isinstance(binding, BindColl):
        if isinstance(binding.item, BindTuple):
            return f"[{_binding(binding.item)}]"
        return f"[{_binding(binding.item)} ...]"
    return f"[{' '.join(map(_binding, binding.items))}]"

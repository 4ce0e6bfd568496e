"""Rules: ``[[(name ?a ?b) clause+] ...]``, and what a set of rules must satisfy before it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from natalog.core.edn import read
from natalog.core.errors import RuleParse
from natalog.core.forms import FrozenForm, freeze, is_plain_symbol, is_sequence, is_small
from natalog.core.limits import KEPT_FORM_SIZE_MAX, PARSED_QUERIES_MAX
from natalog.core.printing import pr_str
from natalog.core.query.ast import Clause, Not, Or, Rule, RuleCall, Rules
from natalog.core.query.parse_where import (
    NAMED_CLAUSES,
    parse_clauses,
    parse_rule_vars,
    sources_of,
    visible_vars,
)


def parse_rules(form: Any) -> Rules:
    """The rules that ``form``, a vector of rule bodies or its EDN text, defines, by name.

    Equal text and equal forms are parsed once, so the result must not be changed.  Raises
    `RuleParse` for malformed rules, bodies of one rule with different parameters, and parameters
    that a body does not mention; `EdnSyntax` for text that cannot be read.
    """
    if isinstance(form, str):
        return _parse_text(form) if len(form) <= KEPT_FORM_SIZE_MAX else _parse(freeze(read(form)))
    frozen = freeze(form)
    return _parse_form(FrozenForm(frozen)) if is_small(frozen) else _parse(frozen)


@lru_cache(maxsize=PARSED_QUERIES_MAX)
def _parse_text(text: str) -> Rules:
    return _parse(freeze(read(text)))


@lru_cache(maxsize=PARSED_QUERIES_MAX)
def _parse_form(form: FrozenForm) -> Rules:
    return _parse(form.form)


def _parse(form: Any) -> Rules:
    if not is_sequence(form):
        raise RuleParse(f"Cannot read the rules {pr_str(form)}: expected [[head clause+] ...]")
    grouped: dict[str, list[Rule]] = {}
    for item in form:
        rule = _rule(item)
        grouped.setdefault(rule.name, []).append(rule)
    for name, bodies in grouped.items():
        shapes = {(len(body.required), len(body.free)) for body in bodies}
        if len(shapes) > 1:
            raise RuleParse(
                f"The bodies of the rule {name} have different numbers of parameters", rule=name
            )
    return {name: tuple(bodies) for name, bodies in grouped.items()}


def _rule(form: Any) -> Rule:
    if not is_sequence(form) or not form or not is_sequence(form[0]) or not form[0]:
        raise RuleParse(f"Cannot read the rule {pr_str(form)}: expected [(name ?a) clause+]")
    head, body = form[0], form[1:]
    name = head[0]
    if not is_plain_symbol(name) or name.text in NAMED_CLAUSES:
        raise RuleParse(f"{pr_str(name)} cannot name a rule", form=form)
    if not body:
        raise RuleParse(f"The rule {pr_str(head)} has no clauses", form=form)
    required, free = parse_rule_vars(head[1:])
    clauses = parse_clauses(body)
    mentioned = set(visible_vars(clauses))
    missing = [var.name for var in (*required, *free) if var not in mentioned]
    if missing:
        raise RuleParse(
            f"The body of the rule {pr_str(head)} does not mention {' '.join(missing)}",
            rule=name.text,
            vars=missing,
        )
    return Rule(name.text, required, free, clauses)


# --- checks before a query runs -------------------------------------------------------------------


def calls(clauses: Iterable[Clause], negated: bool = False) -> Iterator[tuple[RuleCall, bool]]:
    """Every rule call within ``clauses``, and whether it stands within a ``not``."""
    for clause in clauses:
        match clause:
            case RuleCall():
                yield clause, negated
            case Not(_, inner):
                yield from calls(inner, True)
            case Or(_, _, branches):
                for branch in branches:
                    yield from calls(branch, negated)


def check_rules(
    rules: Rules, where: Iterable[Clause], sources: Iterable[str] | None = None
) -> None:
    """Refuse rules that the query cannot run, before it runs.

    Checks the rules that ``where`` calls, directly or through others: they exist, are called with
    as many arguments as they have parameters, none depends on its own negation, and, if the
    ``sources`` of the query are given, every body names only these.  Raises `RuleParse`.
    """
    edges: dict[str, set[str]] = {}
    negative: set[tuple[str, str]] = set()
    known = None if sources is None else set(sources)
    pending = [_check_call(rules, call) for call, _ in calls(where)]
    while pending:
        name = pending.pop()
        if name in edges:
            continue
        edges[name] = set()
        for body in rules[name]:
            if known is not None:
                _check_sources(body, known)
            for call, negated in calls(body.clauses):
                _check_call(rules, call)
                edges[name].add(call.name)
                pending.append(call.name)
                if negated:
                    negative.add((name, call.name))
    for caller, callee in sorted(negative):
        if _reaches(edges, callee, caller):
            raise RuleParse(
                f"The rule {caller} depends on its own negation, through (not ({callee} ...))",
                rule=caller,
                negated=callee,
            )


def _check_call(rules: Rules, call: RuleCall) -> str:
    bodies = rules.get(call.name)
    if not bodies:
        raise RuleParse(f"There is no rule {call.name}", rule=call.name, known=sorted(rules))
    expected = len(bodies[0].params)
    if len(call.args) != expected:
        raise RuleParse(
            f"The rule {call.name} takes {expected} arguments, not {len(call.args)}",
            rule=call.name,
            expected=expected,
            given=len(call.args),
        )
    return call.name


def _check_sources(body: Rule, known: set[str]) -> None:
    # $ is the source of the call
    unknown = sources_of(body.clauses) - known - {"$"}
    if unknown:
        raise RuleParse(
            f"The rule {body.name} names sources that :in does not: {' '.join(sorted(unknown))}",
            rule=body.name,
            sources=sorted(unknown),
        )


def _reaches(edges: dict[str, set[str]], start: str, goal: str) -> bool:
    seen: set[str] = set()
    pending = [start]
    while pending:
        name = pending.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            pending.extend(edges.get(name, ()))
    return False

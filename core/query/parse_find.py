"""The ``:find`` clause, ``:with`` and the return maps ``:keys``, ``:strs`` and ``:syms``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from natalog.core.errors import FindParse, QueryParse, ReturnParse
from natalog.core.forms import (
    DOT,
    ELLIPSIS,
    freeze,
    is_list,
    is_plain_symbol,
    is_sequence,
    is_source,
    is_variable,
)
from natalog.core.printing import pr_str
from natalog.core.query.ast import (
    Const,
    FindAggregate,
    FindElement,
    FindKind,
    FindPull,
    FindVar,
    ReturnMap,
    Term,
    Var,
)
from natalog.core.values import Keyword, Symbol

_PULL = Symbol("pull")
_AGGREGATE = Symbol("aggregate")


def parse_find(form: Any) -> tuple[FindKind, tuple[FindElement, ...]]:
    """The kind and the elements of a find clause, given as the sequence of what follows ``:find``.

    Raises `FindParse`, also for constants: a find clause names variables, aggregates and pulls.
    """
    if is_list(form) and form and is_plain_symbol(form[0]):
        # {:find (pull ?e [*])} in a map
        form = [form]
    if not is_sequence(form) or not form:
        raise FindParse(f"Cannot read :find {pr_str(form)}: expected what to find", form=form)
    if len(form) == 2 and form[1] == DOT:
        return "scalar", (_element(form[0]),)
    if len(form) == 1 and _is_vector_of_elements(form[0]):
        inner = form[0]
        if len(inner) == 2 and inner[1] == ELLIPSIS:
            return "collection", (_element(inner[0]),)
        return "tuple", tuple(map(_element, inner))
    return "relation", tuple(map(_element, form))


def _is_vector_of_elements(form: Any) -> bool:
    return is_sequence(form) and bool(form) and not is_plain_symbol(form[0])


def _element(form: Any) -> FindElement:
    if is_variable(form):
        return FindVar(Var(form.text))
    if is_sequence(form) and form and is_plain_symbol(form[0]):
        return _pull(form) if form[0] == _PULL else _aggregate(form)
    raise FindParse(
        f"Cannot read {pr_str(form)} in :find: expected a variable, an aggregate or a pull",
        form=form,
    )


def _pull(form: Sequence[Any]) -> FindPull:
    source, rest = "$", form[1:]
    if rest and is_source(rest[0]):
        source, rest = rest[0].text, rest[1:]
    if len(rest) != 2 or not is_variable(rest[0]):
        raise FindParse(f"Cannot read {pr_str(form)}: expected (pull $? ?e pattern)", form=form)
    var, pattern = rest
    if is_variable(pattern):
        return FindPull(source, Var(var.text), Var(pattern.text))
    return FindPull(source, Var(var.text), Const(freeze(pattern)))


def _aggregate(form: Sequence[Any]) -> FindAggregate:
    name, *args = form
    if name == _AGGREGATE:
        # (aggregate f ?x) is the long way to write (f ?x)
        if len(args) < 2 or not is_plain_symbol(args[0]):
            raise FindParse(f"Cannot read {pr_str(form)}: expected (aggregate f ?x)", form=form)
        name, *args = args
    if not args or not is_variable(args[-1]):
        raise FindParse(
            f"Cannot read {pr_str(form)}: the last argument of an aggregate is a variable",
            form=form,
        )
    params: list[Term] = []
    for item in args[:-1]:
        if is_source(item):
            raise FindParse(f"{item} cannot be an argument in {pr_str(form)}", form=form)
        params.append(Var(item.text) if is_variable(item) else Const(freeze(item)))
    return FindAggregate(name.text, tuple(params), Var(args[-1].text))


def element_vars(element: FindElement) -> tuple[Var, ...]:
    """All variables of a find element: also of parameters and pull patterns."""
    match element:
        case FindVar(var):
            return (var,)
        case FindAggregate(_, params, var):
            return (*(item for item in params if isinstance(item, Var)), var)
        case FindPull(_, var, pattern):
            return (var, pattern) if isinstance(pattern, Var) else (var,)


def parse_with(form: Any) -> tuple[Var, ...]:
    """The variables of ``:with``.  Raises `QueryParse` for others and for repetitions."""
    if not is_sequence(form) or not form or not all(map(is_variable, form)):
        raise QueryParse(f"Cannot read :with {pr_str(form)}: expected variables", form=form)
    names = tuple(Var(item.text) for item in form)
    if len(set(names)) != len(names):
        raise QueryParse(f"The variables of :with {pr_str(form)} should be distinct", form=form)
    return names


def _text(form: Any) -> str | None:
    if isinstance(form, (Symbol, Keyword)):
        return form.text
    return form if isinstance(form, str) and form else None


_KEY_TYPES: dict[str, Callable[[str], Any]] = {"keys": Keyword, "strs": str, "syms": Symbol}


def parse_return_map(forms: dict[str, Any], kind: FindKind, width: int) -> ReturnMap | None:
    """The return map that ``forms``, some of ``keys``, ``strs`` and ``syms``, ask for.

    ``width`` is the number of find elements.  Raises `ReturnParse` if more than one is given, if
    the count differs from ``width``, or if the find clause returns single values.
    """
    if not forms:
        return None
    if len(forms) > 1:
        raise ReturnParse("Only one of :keys, :strs and :syms is allowed", options=sorted(forms))
    ((option, form),) = forms.items()
    if kind in ("scalar", "collection"):
        raise ReturnParse(
            f":{option} needs rows, and this :find returns single values", option=option
        )
    names = [_text(item) for item in form] if is_sequence(form) else []
    if not names or None in names:
        raise ReturnParse(f"Cannot read :{option} {pr_str(form)}: expected names", form=form)
    if len(names) != width:
        raise ReturnParse(
            f":{option} names {len(names)} columns, :find has {width}", form=form, expected=width
        )
    make = _KEY_TYPES[option]
    return ReturnMap(tuple(make(name) for name in names if name is not None))

"""Binding forms, ``?x _ [?x ...] [?a ?b] [[?a ?b]]``, and the ``:in`` clause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from natalog.core.errors import BindingParse
from natalog.core.forms import BLANK, ELLIPSIS, PERCENT, is_sequence, is_source, is_variable
from natalog.core.printing import pr_str
from natalog.core.query.ast import (
    BindColl,
    BindIgnore,
    Binding,
    BindScalar,
    BindTuple,
    InBinding,
    Input,
    InRules,
    InSource,
    Var,
)


def parse_binding(form: Any) -> Binding:
    """The binding that ``form`` describes.

    Raises `BindingParse` for anything that is not a variable, ``_``, ``[binding ...]``, a tuple
    of bindings or ``[[binding ...+]]``.
    """
    if is_variable(form):
        return BindScalar(Var(form.text))
    if form == BLANK:
        return BindIgnore()
    if is_sequence(form):
        if not form:
            raise BindingParse("A tuple binding cannot be empty", form=form)
        if len(form) == 2 and form[1] == ELLIPSIS:
            return BindColl(parse_binding(form[0]))
        if len(form) == 1 and is_sequence(form[0]):
            return BindColl(_tuple(form[0]))
        return _tuple(form)
    raise BindingParse(
        f"Cannot read the binding {pr_str(form)}: expected a variable, _, [?x ...], [?x ?y] "
        "or [[?x ?y]]",
        form=form,
    )


def _tuple(form: Any) -> Binding:
    if not form:
        raise BindingParse("A tuple binding cannot be empty", form=form)
    if len(form) == 2 and form[1] == ELLIPSIS:
        # [[?x ...]] in :in is a collection of collections
        return BindColl(parse_binding(form[0]))
    return BindTuple(tuple(parse_binding(item) for item in form))


def binding_vars(binding: Binding) -> Iterator[Var]:
    """The variables of a binding, in the order written, with repetitions."""
    match binding:
        case BindScalar(var):
            yield var
        case BindColl(item):
            yield from binding_vars(item)
        case BindTuple(items):
            for item in items:
                yield from binding_vars(item)


def parse_inputs(form: Any) -> tuple[Input, ...]:
    """The inputs that the items of an ``:in`` clause declare."""
    if not is_sequence(form) or not form:
        raise BindingParse(f"Cannot read :in {pr_str(form)}: expected inputs", form=form)
    return tuple(_input(item) for item in form)


def _input(form: Any) -> Input:
    if is_source(form):
        return InSource(form.text)
    if form == PERCENT:
        return InRules()
    return InBinding(parse_binding(form))

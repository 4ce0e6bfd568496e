"""Queries: from text, a vector or a map to a validated `Query`.

[:find ?n ?a :in $ ?min :where [?e :name ?n] [?e :age ?a] [(>= ?a ?min)]]
{:find [?n ?a] :in [$ ?min] :where [[?e :name ?n] ...] :limit 10}
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from natalog.core.edn import read
from natalog.core.errors import QueryParse
from natalog.core.forms import FrozenForm, freeze, is_sequence, is_small
from natalog.core.limits import KEPT_FORM_SIZE_MAX, PARSED_QUERIES_MAX
from natalog.core.printing import pr_str
from natalog.core.query.ast import (
    FindPull,
    InBinding,
    Input,
    InRules,
    InSource,
    Query,
    RuleCall,
    Var,
)
from natalog.core.query.builtin_rules import builtin_rules
from natalog.core.query.parse_binding import binding_vars, parse_inputs
from natalog.core.query.parse_find import (
    element_vars,
    parse_find,
    parse_return_map,
    parse_with,
)
from natalog.core.query.parse_options import parse_limit, parse_offset, parse_order_by
from natalog.core.query.parse_where import parse_clauses, sources_of, visible_vars, walk
from natalog.core.values import Keyword

_CLAUSES = ("find", "with", "in", "where", "keys", "strs", "syms")
_OPTIONS = ("limit", "offset", "order-by")


def parse_query(form: Any) -> Query:
    """The query that ``form`` describes: a vector, a map, or either as EDN text.

    The keys of a map are keywords or strings.  ``:limit``, ``:offset`` and ``:order-by`` are
    options of the request (see `with_options`); a map may hold them, a vector may not.

    Raises `QueryParse` and its kinds: `FindParse`, `WhereParse`, `BindingParse`, `ReturnParse`,
    `RuleParse`; `QueryWhere` for calls within calls; `EdnSyntax` for text that cannot be read.
    Equal text and equal forms are parsed once, unless they are large.
    """
    if isinstance(form, str):
        return _parse_text(form) if len(form) <= KEPT_FORM_SIZE_MAX else _parse(freeze(read(form)))
    frozen = freeze(form)
    return _parse_form(FrozenForm(frozen)) if is_small(frozen) else _parse(frozen)


@lru_cache(maxsize=PARSED_QUERIES_MAX)
def _parse_text(text: str) -> Query:
    return _parse(freeze(read(text)))


@lru_cache(maxsize=PARSED_QUERIES_MAX)
def _parse_form(form: FrozenForm) -> Query:
    return _parse(form.form)


def _parse(form: Any) -> Query:
    parts = _parts(form)
    if "find" not in parts:
        raise QueryParse(f"The query {pr_str(form)} has no :find", form=form)
    kind, find = parse_find(parts["find"])
    with_vars = parse_with(parts["with"]) if "with" in parts else ()
    inputs = parse_inputs(parts["in"]) if "in" in parts else (InSource("$"),)
    where = parts.get("where", ())
    if not is_sequence(where):
        raise QueryParse(f"Cannot read :where {pr_str(where)}: expected clauses", form=where)
    returns = {str(name): parts[name] for name in ("keys", "strs", "syms") if name in parts}
    query = Query(
        kind=kind,
        find=find,
        with_vars=with_vars,
        inputs=inputs,
        where=parse_clauses(where),
        return_map=parse_return_map(returns, kind, len(find)),
        order_by=parse_order_by(parts.get("order-by"), kind, find),
        limit=parse_limit(parts.get("limit"), kind),
        offset=parse_offset(parts.get("offset"), kind),
    )
    _validate(query)
    return query


# --- the parts of a query -------------------------------------------------------------------------


def _parts(form: Any) -> dict[str, Any]:
    if isinstance(form, dict):
        return _map_parts(form)
    if is_sequence(form):
        return _vector_parts(form)
    raise QueryParse(f"A query is a vector, a map or text, not {pr_str(form)}", form=form)


def _map_parts(form: dict[Any, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for key, value in form.items():
        name = _key_name(key)
        if name not in _CLAUSES and name not in _OPTIONS:
            raise QueryParse(f"{pr_str(key)} is not a part of a query", key=key)
        if name in parts:
            raise QueryParse(f"The query has :{name} twice", key=key)
        parts[name] = value
    return parts


def _key_name(key: Any) -> str | None:
    if isinstance(key, Keyword):
        return key.text
    if isinstance(key, str):
        return key.removeprefix(":").replace("_", "-")
    return None


def _vector_parts(form: Sequence[Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    items: list[Any] = []
    for item in form:
        name = item.text if isinstance(item, Keyword) else None
        if name in _OPTIONS:
            raise QueryParse(
                f":{name} is an option of the request or a key of a query map, not part of a "
                "query vector",
                key=item,
            )
        if name in _CLAUSES:
            if name in parts:
                raise QueryParse(f"The query has {item} twice", key=item)
            items = parts[name] = []
        elif not parts:
            raise QueryParse(f"A query starts with :find, not with {pr_str(item)}", form=item)
        else:
            items.append(item)
    return parts


# --- what parts must say together ---------------------------------------------------------------


def _validate(query: Query) -> None:
    _check_inputs(query.inputs)
    find_vars = {var for element in query.find for var in element_vars(element)}
    known = set(visible_vars(query.where)) | set(input_vars(query.inputs))
    unknown = sorted(var.name for var in (find_vars | set(query.with_vars)) - known)
    if unknown:
        raise QueryParse(
            f"Variables that neither :where nor :in mentions: {' '.join(unknown)}", vars=unknown
        )
    shared = sorted(var.name for var in find_vars & set(query.with_vars))
    if shared:
        raise QueryParse(f"Variables both in :find and :with: {' '.join(shared)}", vars=shared)
    _check_sources(query)
    if not any(isinstance(item, InRules) for item in query.inputs):
        missing = sorted(
            {
                clause.name
                for clause in walk(query.where)
                if isinstance(clause, RuleCall) and clause.name not in builtin_rules()
            }
        )
        if missing:
            raise QueryParse(
                f"The query calls rules ({' '.join(missing)}) but :in has no %", rules=missing
            )


def input_vars(inputs: Sequence[Input]) -> list[Var]:
    """The variables that inputs bind, in order, with repetitions."""
    return [
        var for item in inputs if isinstance(item, InBinding) for var in binding_vars(item.binding)
    ]


def _check_inputs(inputs: Sequence[Input]) -> None:
    names = [var.name for var in input_vars(inputs)]
    names += [item.name for item in inputs if isinstance(item, InSource)]
    names += ["%" for item in inputs if isinstance(item, InRules)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise QueryParse(f"Names that :in declares twice: {' '.join(twice)}", vars=twice)


def _check_sources(query: Query) -> None:
    declared = {item.name for item in query.inputs if isinstance(item, InSource)}
    used = sources_of(query.where)
    used.update(element.source for element in query.find if isinstance(element, FindPull))
    unknown = sorted(used - declared)
    if unknown:
        raise QueryParse(
            f"The query reads from sources that :in does not name: {' '.join(unknown)}",
            sources=unknown,
        )

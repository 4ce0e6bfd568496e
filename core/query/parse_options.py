"""``:limit``, ``:offset`` and ``:order-by``: options of a request, or keys of a query map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from natalog.core.errors import ReturnParse
from natalog.core.forms import is_sequence, is_variable
from natalog.core.printing import pr_str
from natalog.core.query.ast import FindElement, FindKind, FindVar, OrderKey, Query
from natalog.core.values import Keyword, Symbol

_ASC: Final = Keyword("asc")
_DESC: Final = Keyword("desc")


def parse_limit(form: Any, kind: FindKind) -> int | None:
    """The number of rows wanted; nil and negative numbers are no limit.

    Raises `ReturnParse` for anything but an integer and where the find clause returns one value.
    """
    return _count(form, kind, "limit")


def parse_offset(form: Any, kind: FindKind) -> int | None:
    """The number of rows to leave out; nil and negative numbers are none."""
    return _count(form, kind, "offset")


def _count(form: Any, kind: FindKind, option: str) -> int | None:
    if form is None:
        return None
    if isinstance(form, bool) or not isinstance(form, int):
        raise ReturnParse(f":{option} {pr_str(form)} is not an integer", option=option, value=form)
    if form < 0 or (option == "offset" and form == 0):
        return None
    if kind in ("scalar", "tuple"):
        raise ReturnParse(f":{option} needs rows, and this :find returns one", option=option)
    return int(form)


def parse_order_by(
    form: Any, kind: FindKind, find: Sequence[FindElement]
) -> tuple[OrderKey, ...] | None:
    """The keys of ``:order-by``: a variable, a column number, or a vector of these, each followed
    by ``:asc`` (the default) or ``:desc``.

    Raises `ReturnParse` for anything else, for a variable that is not in ``:find`` and a column
    that does not exist, and where the find clause does not return rows.
    """
    if form is None:
        return None
    if isinstance(form, Symbol) or (isinstance(form, int) and not isinstance(form, bool)):
        form = [form]
    if not is_sequence(form):
        raise ReturnParse(
            f"Cannot read :order-by {pr_str(form)}: expected a variable, a column number or a "
            "vector of these",
            value=form,
        )
    if not form:
        return None
    if kind != "relation":
        raise ReturnParse(":order-by needs rows, and this :find returns none", value=form)
    keys: list[OrderKey] = []
    fresh = False
    for item in form:
        if item is _ASC or item is _DESC:
            if not fresh:
                raise ReturnParse(
                    f"The direction {item} in :order-by {pr_str(form)} follows no column",
                    value=form,
                )
            keys[-1] = replace(keys[-1], descending=item is _DESC)
            fresh = False
        else:
            keys.append(OrderKey(_column(item, find, form), False))
            fresh = True
    return tuple(keys)


def _column(item: Any, find: Sequence[FindElement], form: Any) -> int:
    if is_variable(item):
        for index, element in enumerate(find):
            if isinstance(element, FindVar) and element.var.name == item.text:
                return index
        raise ReturnParse(f"The variable {item} of :order-by is not in :find", value=form)
    if isinstance(item, int) and not isinstance(item, bool):
        if 0 <= item < len(find):
            return int(item)
        raise ReturnParse(
            f"The column {item} of :order-by does not exist: :find has {len(find)}", value=form
        )
    raise ReturnParse(f"Cannot read {pr_str(item)} in :order-by {pr_str(form)}", value=form)


class _Given:
    """The mark of an option that is not given."""


UNSET: Final = _Given()


def with_options(
    query: Query, limit: Any = UNSET, offset: Any = UNSET, order_by: Any = UNSET
) -> Query:
    """``query`` with the options of a request, which override those written in a query map.

    An option that is nil does not override.  Raises `ReturnParse` as the parsers above do.
    """
    changes: dict[str, Any] = {}
    if limit is not UNSET and limit is not None:
        changes["limit"] = parse_limit(limit, query.kind)
    if offset is not UNSET and offset is not None:
        changes["offset"] = parse_offset(offset, query.kind)
    if order_by is not UNSET and order_by is not None:
        changes["order_by"] = parse_order_by(order_by, query.kind, query.find)
    return replace(query, **changes) if changes else query

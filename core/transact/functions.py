"""Code that the operator registers by name: transaction functions and predicates.

Nothing a client sends is ever code.  A transaction names a function (``[:db.fn/call :bank/move 1
2 50]`` or ``[:bank/move 1 2 50]``), the schema names predicates (``:db.attr/preds``,
``:db.entity/preds``); what the names mean is decided here, by the process that owns the database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from natalog.core.values import Keyword, Symbol

if TYPE_CHECKING:
    from natalog.core.database import Database
    from natalog.core.transact.report import TxReport

TransactionFunction = Callable[..., Any]
"""``f(db, *args)`` returns operations or None; ``db`` holds the earlier operations' effects."""
ValuePredicate = Callable[[Any], bool]
EntityPredicate = Callable[["Database", int], bool]
ReportPredicate = Callable[["TxReport"], bool]


@dataclass(frozen=True, slots=True)
class Registry:
    """Functions by name (``"ns/name"``).

    ``transaction``: for ``:db.fn/call``.  ``values``: for ``:db.attr/preds``, called with each
    asserted value.  ``entities``: for ``:db.entity/preds``, called with the database after the
    transaction and the entity.  ``reports``: called with every report; False refuses it.
    All must be pure and terminate: they run inside the transactor.
    """

    transaction: Mapping[str, TransactionFunction] = field(default_factory=dict)
    values: Mapping[str, ValuePredicate] = field(default_factory=dict)
    entities: Mapping[str, EntityPredicate] = field(default_factory=dict)
    reports: Mapping[str, ReportPredicate] = field(default_factory=dict)


EMPTY: Final = Registry()


def function_name(name: object) -> str | None:
    """The registered spelling of a function's name; None for what names no function."""
    if isinstance(name, Keyword | Symbol):
        return name.text
    if isinstance(name, str):
        return name.removeprefix(":")
    return None

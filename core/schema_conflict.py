"""What stands in the way of a schema change, as every layer reports it."""

from __future__ import annotations

from typing import Any, NamedTuple

from natalog.core.values import Keyword


class SchemaConflict(NamedTuple):
    """What forbids a change of a declared attribute.

    ``entities`` and ``values`` are in the way, a bounded number of them; both are empty where the
    rules forbid the change whatever the data are.
    """

    attribute: Keyword
    message: str
    entities: list[int]
    values: list[Any]

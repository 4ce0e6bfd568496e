"""Functions that the operator of the service adds, found by the entry point ``natalog.functions``.

An entry point names a `natalog.core.registry.Registry` (for queries), a
`natalog.core.transact.functions.Registry` (for transactions), or one function, which queries call
by the name of the entry point.  Requests never import or name Python objects.
"""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from typing import Any

from natalog.core.registry import Registry
from natalog.core.transact.functions import Registry as TransactRegistry

log = logging.getLogger("natalog.functions")

GROUP = "natalog.functions"


def registered() -> tuple[Registry, TransactRegistry]:
    """What queries and what transactions may call; an entry point that fails to load is logged."""
    queries: dict[str, dict[str, Any]] = {"functions": {}, "aggregates": {}}
    transactions: dict[str, dict[str, Any]] = {
        "transaction": {},
        "values": {},
        "entities": {},
        "reports": {},
    }
    for point in entry_points(group=GROUP):
        try:
            found = point.load()
        except Exception:
            log.exception("the functions %s could not be loaded", point.name)
            continue
        if isinstance(found, Registry):
            for kind, named in queries.items():
                named.update(getattr(found, kind))
        elif isinstance(found, TransactRegistry):
            for kind, named in transactions.items():
                named.update(getattr(found, kind))
        elif callable(found):
            queries["functions"][point.name] = found
        else:
            log.error("the entry point %s is neither a registry nor a function", point.name)
    return Registry(**queries), TransactRegistry(**transactions)

"""What a shell may complete: names of databases and branches, asked from the service meanwhile.

A service that does not answer within a second completes nothing; nothing is started for it, so
that ``--embedded`` completes none of its names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import typer

if TYPE_CHECKING:
    from natalog.client import Client

ANSWER_S: Final = 1.0
"""Somebody waits at a prompt."""


def database_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The databases of the service that the line names."""

    async def listed(client: Client) -> Iterable[str]:
        return [found["database"] for found in await client.list_databases()]

    return _matching(_asked(ctx, listed), incomplete)


def branch_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The branches of the database that the line names."""
    # an option whose value is being typed keeps the words before it from becoming parameters
    words = [ctx.params.get("database"), ctx.params.get("name"), *ctx.args]
    database = next((str(word) for word in words if word), None)
    if database is None:
        return []

    async def listed(client: Client) -> Iterable[str]:
        return await client.database(database).branches()

    return _matching(_asked(ctx, listed), incomplete)


def one_of(*words: str) -> Callable[[str], list[str]]:
    """A completion that knows its words."""
    return lambda incomplete: _matching(words, incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))


def _asked(ctx: typer.Context, ask: Callable[[Client], Awaitable[Iterable[str]]]) -> Iterable[str]:
    from natalog.cli.connection import resolved, with_client
    from natalog.connection.access import Access
    from natalog.core.errors import NatalogError

    said: dict[str, Any] = ctx.find_root().params
    if said.get("embedded"):
        return ()
    try:
        who = Access(**{key: said[key] for key in Access.__dataclass_fields__ if key in said})
        target = resolved(ctx.params.get("nats"), ctx.params.get("context"), who)
        return asyncio.run(with_client(target, ANSWER_S, ask))
    except (NatalogError, OSError):
        return ()

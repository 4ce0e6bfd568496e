"""What submissions ask a transactor for: transactions and merges, read from their bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol
from uuid import UUID

from natalog.actors.payload import field_name, fields_of
from natalog.actors.planned import Planned, Wish
from natalog.actors.requests import Request
from natalog.core.errors import BadRequest, ParentsRequired, TransactSyntax
from natalog.core.values import Keyword, Symbol

ID_LENGTH_MAX = 256
_TRANSACTION_WORDS: Final = ("tx_data", "tx_meta", "id")
_TRANSACTION_KEYS: Final = frozenset(_TRANSACTION_WORDS)
MERGE_WORDS = (
    *("branch", "from", "parents", "tx_data", "tx_meta", "id"),
    *("policy", "resolutions", "dry_run"),
)


class Submission(Protocol):
    """A transaction that came in: as a request or from the ingest stream."""

    def body(self) -> Any: ...
    async def prepare(self) -> None: ...
    def header(self, name: str) -> str | None: ...
    def check_deadline(self) -> None: ...


def read_transaction(one: Submission) -> Wish:
    """What a submission asks for."""
    if isinstance(one, Planned):
        return one.wish
    body = one.body()
    if isinstance(one, Request) and one.endpoint == "merge":
        return read_merge(body)
    fields: dict[str, Any] = {"tx_data": body}
    if type(body) is dict and "tx_data" in body and body.keys() <= _TRANSACTION_KEYS:
        fields = body  # as our client writes them
    elif isinstance(body, dict):
        if not any(field_name(key) == "tx_data" for key in body):
            raise TransactSyntax(
                "A transaction is a vector of operations or a map with tx_data.",
                keys=[str(key)[:80] for key in list(body)[:10]],
            )
        fields = fields_of(body, _TRANSACTION_WORDS, "transact")
    ident = fields.get("id")
    if ident is None:
        ident = one.header("Nats-Msg-Id")
    return Wish(fields["tx_data"], fields.get("tx_meta"), transaction_id(ident))


def read_merge(body: Any) -> Wish:
    """A merge with data: a transaction whose commit has more parents than the head."""
    fields = fields_of(body, MERGE_WORDS, "merge")
    parents = merge_parents(fields)
    for word in ("policy", "resolutions", "dry_run"):
        if fields.get(word):
            raise BadRequest(
                f"A merge has either tx_data or {word}: what is given is not planned.", field=word
            )
    ident = transaction_id(fields.get("id"))
    return Wish(fields["tx_data"], fields.get("tx_meta"), ident, parents)


def merge_parents(fields: Mapping[str, Any]) -> list[Any]:
    """The branches and commits that a merge names, as ``parents`` or ``from``."""
    if fields.get("parents") is not None and fields.get("from") is not None:
        raise BadRequest("A merge has either parents or from.", field="from")
    found = fields.get("from") if fields.get("parents") is None else fields["parents"]
    if isinstance(found, (str, Keyword, Symbol, UUID)):
        return [found]
    if found is not None and not isinstance(found, (list, tuple, set, frozenset)):
        raise BadRequest("parents is a list of branches and commit ids.", field="parents")
    if not found:
        raise ParentsRequired("A merge needs at least one parent.", branch=fields.get("branch"))
    return list(found)


def transaction_id(ident: Any) -> str | None:
    """The producer's id of a transaction; `BadRequest` when it is none."""
    if isinstance(ident, UUID):
        ident = str(ident)
    if ident is not None and (not isinstance(ident, str) or not 0 < len(ident) <= ID_LENGTH_MAX):
        raise BadRequest(
            f"The id of a transaction is a text of 1 to {ID_LENGTH_MAX} characters.",
            id=repr(ident)[:80],
        )
    return ident


__all__ = [
    "MERGE_WORDS",
    "Submission",
    "merge_parents",
    "read_merge",
    "read_transaction",
    "transaction_id",
]

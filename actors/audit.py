"""Who sent a transaction, as far as NATS vouches for it, kept among the facts about it.

NATS tells a responder nothing of a requester, with one exception: a request that comes in through
a service import with ``share: true`` carries the header ``Nats-Request-Info``, made by nats-server.
Anybody may send a header of that name; but only nats-server makes a request whose reply subject
begins with ``_R_.`` (it refuses such replies of clients), and where it does so it replaces the
header.  The two together are proof.  Everything else is a transaction of somebody unknown.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from natalog.actors.catalog import Process
from natalog.actors.nats_port import Message
from natalog.actors.reader import Stored
from natalog.actors.unattended import Unattended
from natalog.core.database import Database
from natalog.core.errors import Forbidden
from natalog.core.transact.report import TxReport
from natalog.core.values import Keyword, as_keyword

AUTHOR: Final = Keyword("natalog/author")
ACCOUNT: Final = Keyword("natalog/account")
CONNECTION: Final = Keyword("natalog/connection")
WORDS: Final = (AUTHOR, ACCOUNT, CONNECTION)

HEADER: Final = "Nats-Request-Info"
IMPORTED: Final = "_R_."
HEADER_LENGTH_MAX: Final = 16 * 1024
TEXT_LENGTH_MAX: Final = 256

_IDENT: Final = Keyword("db/ident")


class Sent(Protocol):
    """A request or an ingested transaction."""

    message: Any

    def header(self, name: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Author:
    """Who sent a request.

    ``user``: the name, or the public key, that NATS knows the user by.  ``account``: the user's.
    ``connection``: what the client calls itself; nobody vouches for that.
    """

    user: str
    account: str
    connection: str | None = None

    def facts(self) -> dict[Keyword, str]:
        """The facts about a transaction."""
        found = {AUTHOR: self.user, ACCOUNT: self.account}
        return found if self.connection is None else {**found, CONNECTION: self.connection}


def author_of(sent: Sent) -> Author | None:
    """The author of a request, None where NATS does not vouch for one."""
    message = sent.message
    if not isinstance(message, Message) or not message.reply.startswith(IMPORTED):
        return None
    text = sent.header(HEADER)
    if text is None or len(text) > HEADER_LENGTH_MAX:
        return None
    try:
        info = json.loads(text)
    except ValueError:
        return None
    user, account = (_text(info, word) for word in ("user", "acc"))
    if user is None or account is None:
        return None  # the import does not share who asks
    return Author(user, account, _text(info, "name"))


def _text(info: Any, word: str) -> str | None:
    found = info.get(word) if isinstance(info, Mapping) else None
    return found[:TEXT_LENGTH_MAX] if isinstance(found, str) and found else None


class Own(Unattended):
    """A transaction of the service itself: nobody waits for its outcome."""

    ingest_seq: None = None

    def __init__(self) -> None:
        self.message = Stored(0, "", b"", {})
        self.arrived = time.monotonic()
        self.answered = False

    def header(self, name: str) -> str | None:
        return None

    def body(self) -> Any:
        return None

    async def prepare(self) -> None:
        """There is nothing to decode."""


def declaration(db: Database, sent: Sent) -> list[Any] | None:
    """What has to be transacted before a transaction that has an author; None if nothing has."""
    if db.schema.flexible or author_of(sent) is None:
        return None
    return [_declared(word) for word in WORDS if db.schema.get(word) is None] or None


def audited(process: Process, db: Database, tx_data: Any, tx_meta: Any, sent: Sent) -> TxReport:
    """Process a transaction with its author among the facts about it.

    Raises `Forbidden` for a transaction that says itself who sent it or another one, and what
    ``process`` raises.
    """
    if isinstance(tx_meta, Mapping):
        for key in tx_meta:
            if as_keyword(key) in WORDS:
                raise Forbidden(f"{as_keyword(key)} says who sent a transaction; NATS tells us.")
    author = author_of(sent)
    facts = {} if author is None else author.facts()
    if tx_meta is None or isinstance(tx_meta, Mapping):
        tx_meta = {**(tx_meta or {}), **facts} or None
    report = process(db, tx_data, tx_meta)
    _check(report, db, facts)
    return report


def _declared(word: Keyword) -> dict[Keyword, Any]:
    return {
        _IDENT: word,
        Keyword("db/valueType"): Keyword("db.type/string"),
        Keyword("db/cardinality"): Keyword("db.cardinality/one"),
    }


def _check(report: TxReport, db: Database, facts: Mapping[Keyword, str]) -> None:
    """Raise `Forbidden` unless the transaction says of authors exactly ``facts``, of itself."""
    declared = {
        attribute.eid for word in WORDS if (attribute := db.schema.get(word)) and attribute.eid
    }
    for datom in report.datoms:
        if datom.a in WORDS:
            if datom.e == report.tx and datom.added and facts.get(datom.a) == datom.v:
                continue
            raise Forbidden(f"{datom.a} says who sent a transaction; NATS tells us.")
        if datom.e in declared or (datom.a is _IDENT and datom.v in WORDS):
            raise Forbidden("The attributes that say who sent a transaction stay as they are.")

"""The client: one connection, the databases of a service."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import fields
from types import TracebackType
from typing import Any

from natalog._shapes import MAIN_BRANCH, checked_name
from natalog.client.conn import Conn
from natalog.client.session import READ, Session
from natalog.client.timeouts import Timeout
from natalog.client.transport import Transport
from natalog.connection.access import Access, check_prefix
from natalog.core.edn import read

DEFAULT_URL = "nats://127.0.0.1:4222"
DEFAULT_PREFIX = "natalog"


class Client:
    """A connection to a Natalog service; make it with `connect`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # --- databases ---------------------------------------------------------------------------

    async def create_database(
        self,
        name: str,
        *,
        keep_history: bool = True,
        schema_flexibility: str = "write",
        initial_tx: Any = None,
        timeout: float | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Create a database and return what `Conn.info` says of it.

        ``initial_tx``: tx-data (a list, or EDN text) that becomes the first transaction.  Further
        settings are those of `natalog.core.config.DatabaseConfig`.  Raises `DatabaseExists`,
        `InvalidName`, `InvalidConfig`, or what the initial transaction raises.
        """
        body = {
            **settings,
            "database": checked_name(name),
            "keep_history": keep_history,
            "schema_flexibility": schema_flexibility,
            "initial_tx": read(initial_tx) if isinstance(initial_tx, str) else initial_tx,
        }
        answer = await self._session.ask(self._subject("create"), body, timeout_s=timeout)
        return dict(answer.body)

    async def delete_database(self, name: str, *, timeout: float | None = None) -> bool:
        """Delete a database with all its branches; false when there was none of this name."""
        body = {"database": checked_name(name)}
        answer = await self._session.ask(self._subject("delete"), body, timeout_s=timeout)
        return bool(answer.body.get("deleted"))

    async def list_databases(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """Every database: ``database``, ``created``, ``keep_history``, ``branches`` and so on."""
        answer = await self._session.ask(self._subject("list"), {}, timeout_s=timeout, repeat=READ)
        return [dict(entry) for entry in answer.body["databases"]]

    async def database_exists(self, name: str, *, timeout: float | None = None) -> bool:
        """Whether a database of this name exists."""
        wanted = checked_name(name)
        found = await self.list_databases(timeout=timeout)
        return any(entry["database"] == wanted for entry in found)

    def database(self, name: str, branch: str = MAIN_BRANCH) -> Conn:
        """A connection to one branch of a database.  Sends nothing: a wrong name shows at use."""
        return Conn(self._session, checked_name(name), checked_name(branch, "branch"))

    # --- the connection ------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The NATS server that this client is connected to."""
        return self._session.transport.url

    @property
    def session(self) -> Session:
        """What `natalog.client.reports.read_log` and tools of that kind need."""
        return self._session

    @property
    def timeout(self) -> Timeout:
        """How long this client waits."""
        return self._session.timeout

    async def close(self) -> None:
        """Close the connection."""
        await self._session.transport.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _subject(self, verb: str) -> str:
        return self._session.subject("_", "_", verb)


class Connecting:
    """A connection on its way: ``await`` it, or use it with ``async with``."""

    def __init__(
        self,
        url: str | list[str],
        prefix: str,
        timeout: Timeout,
        options: Mapping[str, Any],
    ) -> None:
        self._url = url
        self._prefix = check_prefix(prefix)
        self._timeout = timeout
        self._access, self._options = _split(options)
        self._client: Client | None = None

    async def _open(self) -> Client:
        transport = await Transport.open(
            self._url, self._timeout, access=self._access, **self._options
        )
        return Client(Session(transport, self._prefix, self._timeout))

    def __await__(self) -> Generator[Any, None, Client]:
        return self._open().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self._open()
        return self._client

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            await self._client.close()


def connect(
    url: str | list[str] = DEFAULT_URL,
    *,
    prefix: str = DEFAULT_PREFIX,
    timeout: Timeout | float | None = None,
    **options: Any,
) -> Connecting:
    """Connect to the Natalog service behind a NATS server.

    ``url`` may be a list of servers of one cluster.  ``timeout`` is a `Timeout` or a number of
    seconds for requests.  Who connects is said by ``user`` and ``password``, ``token``, ``creds``
    (a file of JWT credentials), ``nkey`` (a file with a seed), ``tls_ca``, ``tls_cert``,
    ``tls_key``, ``tls_first`` and ``inbox_prefix`` (see `natalog.connection.access.Access`), or by
    one ``access``; further options go to nats-py.  Raises `Unavailable` at once when no server
    answers, `Forbidden` when it does not let us in.

        async with natalog.connect("nats://127.0.0.1:4222") as client:
            conn = client.database("people")
    """
    return Connecting(url, prefix, Timeout.of(timeout), options)


_ACCESS = frozenset(one.name for one in fields(Access))


def _split(options: Mapping[str, Any]) -> tuple[Access, dict[str, Any]]:
    """Options that say who connects, and those that are nats-py's."""
    ours = {name: value for name, value in options.items() if name in _ACCESS}
    rest = {name: value for name, value in options.items() if name not in _ACCESS}
    given = rest.pop("access", None)
    access = Access.of(ours)
    return (access if given is None else access.over(given)), rest

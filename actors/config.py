"""Settings of a service: defaults, over them a TOML file, the environment, the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from natalog.actors.names import Names
from natalog.actors.retention import Retention
from natalog.connection.access import Access
from natalog.core.errors import InvalidConfig
from natalog.core.limits import MAILBOX_MESSAGES_MAX, REQUEST_BYTES_MAX

ROLES: Final = ("all", "transactor", "query", "gc")
ENVIRONMENT_PREFIX: Final = "NATALOG_"
QUERY_WORKERS_MAX: Final = 256
BUSY_POLL_US_MAX: Final = 1_000
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """Settings of one process.

    ``nats``: URL of a server that runs elsewhere; None starts a child server with its data under
    ``data``, listening on ``listen``.  ``role``: which actors run.  ``query_threads`` that
    answer reads in each process; ``query_workers``: processes that answer them beside this one, 0
    for none.  ``metrics_port``: 0 any free port, 9464 if it is, None no HTTP.  ``replicas``: of the
    streams, on a cluster.  ``nats_monitoring``: URL of the monitoring endpoint of a server that
    runs elsewhere, for metrics.  ``branch_idle_s``: a branch other than the main one that nobody
    used for so long gives its actor back.  ``access``: who we are for the NATS server, and TLS.
    ``snapshot_datoms``: changes after which a branch's snapshot is written; fewer are written after
    ``snapshot_interval_s``.  ``segment_store``: where snapshots keep their segments: ``jetstream``,
    ``memory``, or a URL of a directory or bucket.  ``segment_cache_bytes``: what of them is kept in
    memory.  ``segment_grace_s``: how long segments that nothing needs serve other processes' reads.
    ``audit``: who sent a transaction becomes a fact about it, where NATS vouches for it.
    ``server_config``: a file that the child server's configuration includes (users, TLS, limits).
    ``console``: whether the HTTP port serves the web console, None where it listens on loopback
    only; ``console_write``: whether the console may transact; ``console_hosts``: names beside
    ``localhost`` under which browsers reach it.  ``retention``: how long the past is kept.
    ``busy_poll_us``: how long a transactor stays awake for a receipt, and for the next transaction
    after it has answered one; 0 to sleep at once.
    """

    nats: str | None = field(default=None, repr=False)
    listen: str = "127.0.0.1:4222"
    data: Path = Path("natalog-data")
    role: str = "all"
    prefix: str = "natalog"
    query_threads: int = 4
    query_workers: int = 0
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    nats_monitoring: str | None = field(default=None, repr=False)
    sync_interval: str = "always"
    max_payload_bytes: int = REQUEST_BYTES_MAX
    replicas: int = 1
    mailbox_messages: int = MAILBOX_MESSAGES_MAX
    gc_interval_s: float = 3600.0
    branch_idle_s: float = 300.0
    snapshot_datoms: int = 100_000
    snapshot_interval_s: float = 300.0
    segment_store: str = "jetstream"
    segment_cache_bytes: int = 1024 * 1024 * 1024
    segment_grace_s: float = 300.0
    access: Access = field(default_factory=Access)
    server_config: Path | None = None
    audit: bool = False
    console: bool | None = None
    console_write: bool = False
    console_hosts: tuple[str, ...] | None = None
    retention: Retention = field(default_factory=Retention)
    busy_poll_us: int = 200

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", Path(self.data))
        if isinstance(self.access, Mapping):
            object.__setattr__(self, "access", Access.of(self.access))
        _require(isinstance(self.access, Access), "access", "", "a table")
        _require(isinstance(self.audit, bool), "audit", self.audit, "true or false")
        if self.server_config is not None:
            object.__setattr__(self, "server_config", Path(self.server_config))
            _require(self.nats is None, "server_config", "set", "left out beside nats")
        _require(self.role in ROLES, "role", self.role, f"one of {', '.join(ROLES)}")
        workers = self.query_workers
        counted = type(workers) is int and 0 <= workers <= QUERY_WORKERS_MAX
        _require(counted, "query_workers", workers, f"from 0 to {QUERY_WORKERS_MAX}")
        counts = ("query_threads", "replicas", "mailbox_messages", "max_payload_bytes")
        for name in (*counts, "snapshot_datoms", "segment_cache_bytes"):
            value = getattr(self, name)
            _require(type(value) is int and value >= 1, name, value, "a positive integer")
        poll = self.busy_poll_us
        moment = type(poll) is int and 0 <= poll <= BUSY_POLL_US_MAX
        _require(moment, "busy_poll_us", poll, f"from 0 to {BUSY_POLL_US_MAX}")
        port = self.metrics_port
        _require(
            port is None or (type(port) is int and 0 <= port < 65536),
            "metrics_port",
            port,
            "a port from 0 to 65535",
        )
        for name in ("console", "console_write"):
            value = getattr(self, name)
            absent = value is None and name == "console"
            _require(absent or isinstance(value, bool), name, value, "true or false")
        hosts = self.console_hosts or ()
        listed = isinstance(hosts, (list, tuple)) and all(isinstance(host, str) for host in hosts)
        _require(listed, "console_hosts", hosts, "a list of host names")
        object.__setattr__(self, "console_hosts", tuple(hosts) or None)
        store = self.segment_store
        known = store in ("jetstream", "memory") or "://" in str(store)
        _require(known, "segment_store", store, "jetstream, memory or a URL")
        for name in ("gc_interval_s", "branch_idle_s", "snapshot_interval_s", "segment_grace_s"):
            value = getattr(self, name)
            seconds = isinstance(value, (int, float)) and value > 0
            _require(seconds, name, value, "a number of seconds")
        object.__setattr__(self, "retention", Retention.of(self.retention))
        Names(self.prefix)
        self.address()

    def address(self) -> tuple[str, int]:
        """Host and port of ``listen``."""
        host, colon, port = str(self.listen).rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535 or not host:
            raise InvalidConfig(
                f"listen is HOST:PORT, not {self.listen!r}.", key="listen", value=self.listen
            )
        return host.strip("[]"), int(port)

    @property
    def serves_console(self) -> bool:
        """Whether the HTTP port serves the console; unasked it does so for this machine only."""
        if self.console is None:
            return self.metrics_host in LOOPBACK
        return self.console

    @classmethod
    def load(
        cls, path: Path | None = None, environ: Mapping[str, str] | None = None, **overrides: Any
    ) -> ServiceConfig:
        """The settings of a TOML file, over them those of ``environ``, over them ``overrides``.

        The variable of ``metrics_port`` is ``NATALOG_METRICS_PORT``, and so on for every setting
        but ``access``.  Raises `InvalidConfig` for a key that does not exist or a value that does
        not fit.
        """
        settings: dict[str, Any] = {}
        if path is not None:
            try:
                settings = tomllib.loads(path.read_text("utf-8"))
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise InvalidConfig(
                    f"The configuration {path} cannot be read: {error}.", path=str(path)
                ) from error
        settings.update(_from_environment(environ or {}))
        settings.update(overrides)
        known = {one.name for one in fields(cls)}
        for key in settings:
            if key not in known:
                raise InvalidConfig(
                    f"There is no setting {key}; known are {', '.join(sorted(known))}.", key=key
                )
        try:
            return replace(cls(), **settings)
        except TypeError as error:
            raise InvalidConfig(f"The configuration does not fit: {error}.") from error


def variables() -> dict[str, str]:
    """The settings that the environment can hold, with the names of their variables."""
    named = (one.name for one in fields(ServiceConfig) if one.name != "access")
    return {name: f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in named}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the variables say, as values of the settings' types; an empty one says nothing."""
    types = {one.name: str(one.type) for one in fields(ServiceConfig)}
    found: dict[str, Any] = {}
    for name, variable in variables().items():
        text = environ.get(variable, "").strip()
        if not text:
            continue
        kind = types[name].partition(" | ")[0]
        try:
            found[name] = _READ.get(kind, str)(text)
        except (KeyError, ValueError):
            raise InvalidConfig(
                f"{variable} is {text!r}; it must be a value of {kind}.", key=variable, value=text
            ) from None
    return found


_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "int": int,
    "float": float,
    "bool": lambda text: {"true": True, "false": False, "1": True, "0": False}[text.lower()],
    "Retention": Retention.of,
    "tuple[str, ...]": lambda text: tuple(part.strip() for part in text.split(",")),
}


def _require(fits: bool, key: str, value: Any, wanted: str) -> None:
    if not fits:
        raise InvalidConfig(f"{key} is {value!r}; it must be {wanted}.", key=key, value=repr(value))

"""Options that say who connects to NATS; they may stand anywhere on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from natalog.connection.access import Access

_PANEL: Final = "Connection (anywhere on the command line)"
_VALUED: Final = (
    *("--user", "--password", "--token", "--creds", "--nkey"),
    *("--tlsca", "--tlscert", "--tlskey", "--inbox-prefix", "--js-api-prefix", "--embedded"),
)
_FLAGS: Final = ("--tlsfirst",)


def _option(flag: str, metavar: str, says: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=says, rich_help_panel=_PANEL)


UserOption = Annotated[str | None, _option("--user", "NAME", "User. [env var: NATS_USER]")]
PasswordOption = Annotated[
    str | None,
    _option("--password", "TEXT", "Password; the variable shows to fewer. [NATS_PASSWORD]"),
]
TokenOption = Annotated[str | None, _option("--token", "TEXT", "Token. [NATS_TOKEN]")]
CredsOption = Annotated[
    str | None, _option("--creds", "FILE", "JWT credentials of a user. [NATS_CREDS]")
]
NkeyOption = Annotated[str | None, _option("--nkey", "FILE", "Seed of a user. [NATS_NKEY]")]
CaOption = Annotated[str | None, _option("--tlsca", "FILE", "Authorities to trust. [NATS_CA]")]
CertOption = Annotated[str | None, _option("--tlscert", "FILE", "Own certificate. [NATS_CERT]")]
KeyOption = Annotated[str | None, _option("--tlskey", "FILE", "Its key. [NATS_KEY]")]
InboxOption = Annotated[
    str | None,
    _option("--inbox-prefix", "SUBJECT", "Where answers come to. [NATS_INBOX_PREFIX]"),
]
EmbeddedOption = Annotated[
    Path | None,
    _option("--embedded", "DIR", "Run a service on this data directory for this command."),
]
JsApiOption = Annotated[
    str | None,
    _option("--js-api-prefix", "SUBJECT", "JetStream of another account. [NATS_JS_API_PREFIX]"),
]
FirstOption = Annotated[
    bool,
    typer.Option(
        "--tlsfirst",
        help="TLS before the server's greeting. [NATS_TLS_FIRST]",
        rich_help_panel=_PANEL,
    ),
]


class ConnectionOptionsAnywhere(TyperGroup):
    """A group that takes its connection options also behind the name of a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, hoisted(args))


def hoisted(args: Sequence[str]) -> list[str]:
    """The arguments with connection options first; what stands behind ``--`` stays.

    >>> hoisted(["q", "people", "--user", "ann", "[:find ?e]"])
    ['--user', 'ann', 'q', 'people', '[:find ?e]']
    """
    first: list[str] = []
    rest: list[str] = []
    left = list(args)
    while left:
        arg = left.pop(0)
        if arg == "--":
            rest += [arg, *left]
            break
        if arg in _VALUED and left:
            first += [arg, left.pop(0)]
        elif arg in _FLAGS or (arg.partition("=")[0] in _VALUED and "=" in arg):
            first.append(arg)
        else:
            rest.append(arg)
    return first + rest


_given: ContextVar[Access | None] = ContextVar("access", default=None)
_embedded: ContextVar[Path | None] = ContextVar("embedded", default=None)


def give(access: Access, embedded: Path | None = None) -> None:
    """Note what the command line says of who connects, and of a service of its own."""
    _given.set(access)
    _embedded.set(embedded)


def given() -> Access:
    """What the command line says of who connects."""
    return _given.get() or Access()


def embedded() -> Path | None:
    """The data directory of the service that the command runs for itself."""
    return _embedded.get()

"""The command line: ``natalog``.

Commands live in the modules of this package by what they touch; here they get their names.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from natalog import __version__
from natalog.cli import (
    access,
    backups,
    databases,
    erasing,
    imports,
    merges,
    read,
    recovery,
    serve,
    shell,
    top,
    versions,
    write,
)
from natalog.cli.connection import USAGE, usage_error
from natalog.connection.access import Access
from natalog.core.errors import NatalogError

app = typer.Typer(
    name="natalog",
    cls=access.ConnectionOptionsAnywhere,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A temporal Datalog database that runs as actors on NATS.",
    epilog="Exit codes: 0 done, 1 refused by the database, 2 wrong usage, 3 nobody answers.",
)

_SERVICE, _DATA, _TIME, _FILES = "Service", "Facts", "Versions and upkeep", "Files"

app.command(rich_help_panel=_SERVICE)(serve.serve)
app.command(rich_help_panel=_SERVICE)(serve.demo)
app.command(rich_help_panel=_SERVICE)(top.top)
app.add_typer(databases.app, name="db", rich_help_panel=_SERVICE)
app.command(rich_help_panel=_DATA)(write.transact)
app.command(rich_help_panel=_DATA)(write.publish)
app.command(rich_help_panel=_DATA)(write.purge)
app.command(rich_help_panel=_DATA)(read.q)
app.command(rich_help_panel=_DATA)(read.pull)
app.command(rich_help_panel=_DATA)(read.datoms)
app.command(rich_help_panel=_DATA)(read.log)
app.command(rich_help_panel=_DATA)(read.watch)
app.command(rich_help_panel=_DATA)(shell.shell)
app.command(rich_help_panel=_TIME)(versions.branch)
app.command(rich_help_panel=_TIME)(versions.branches)
app.command(rich_help_panel=_TIME)(merges.merge)
app.command(rich_help_panel=_TIME)(versions.diff)
app.command(rich_help_panel=_TIME)(versions.history)
app.command(rich_help_panel=_TIME)(versions.gc)
app.command(rich_help_panel=_TIME)(versions.snapshot)
app.command(rich_help_panel=_TIME)(erasing.erase)
app.command(rich_help_panel=_TIME)(versions.check)
app.command(rich_help_panel=_TIME)(recovery.recover)
app.add_typer(imports.app, name="import", rich_help_panel=_FILES)
app.command(rich_help_panel=_FILES)(read.export)
app.command(rich_help_panel=_FILES)(backups.backup)
app.command(rich_help_panel=_FILES)(backups.restore)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"natalog {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    user: access.UserOption = None,
    password: access.PasswordOption = None,
    token: access.TokenOption = None,
    creds: access.CredsOption = None,
    nkey: access.NkeyOption = None,
    tls_ca: access.CaOption = None,
    tls_cert: access.CertOption = None,
    tls_key: access.KeyOption = None,
    tls_first: access.FirstOption = False,
    inbox_prefix: access.InboxOption = None,
    js_api_prefix: access.JsApiOption = None,
    embedded: access.EmbeddedOption = None,
) -> None:
    """A temporal Datalog database that runs as actors on NATS."""
    try:
        access.give(
            Access(
                user=user,
                password=password,
                token=token,
                creds=creds,
                nkey=nkey,
                tls_ca=tls_ca,
                tls_cert=tls_cert,
                tls_key=tls_key,
                tls_first=tls_first,
                inbox_prefix=inbox_prefix,
                js_api_prefix=js_api_prefix,
            ),
            embedded,
        )
    except NatalogError as error:
        usage_error(error.message)


def main() -> None:
    """The entry point of the ``natalog`` command; wrong usage is answered on one line."""
    try:
        code = app(standalone_mode=False, prog_name="natalog")
    except typer.Abort:
        typer.echo("natalog: given up", err=True)
        sys.exit(130)
    except Exception as error:
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise
        asked_nothing = type(error).__name__ == "NoArgsIsHelpError"
        text = str(explain())
        typer.echo(text if asked_nothing else f"natalog: {_one_line(text, error)}", err=True)
        sys.exit(USAGE)
    sys.exit(code if isinstance(code, int) else 0)


def _one_line(text: str, error: Exception) -> str:
    command = getattr(getattr(error, "ctx", None), "command_path", "natalog")
    return f"{' '.join(text.split())} (see {command} --help)"

"""``erase``: make the bytes of facts vanish from everything stored, and show the receipt."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from natalog.cli.completion import branch_names
from natalog.cli.connection import (
    ContextOption,
    NatsOption,
    TimeoutOption,
    confirm,
    run_with_client,
    usage_error,
)
from natalog.cli.output import EdnOption, JsonOption, Output, counted, shown
from natalog.cli.parsing import edn_argument
from natalog.cli.progress import working
from natalog.cli.read import DatabaseArgument
from natalog.client import Client
from natalog.core.values import Keyword

TIMEOUT_S = 600.0


def erase(
    database: DatabaseArgument,
    containing: Annotated[
        str | None,
        typer.Option(
            "--containing",
            metavar="TEXT",
            help="Every fact whose value is or holds the text; - reads it from stdin.",
        ),
    ] = None,
    entity: Annotated[
        str | None,
        typer.Option("--entity", metavar="E", help="This entity: id or lookup ref, in EDN."),
    ] = None,
    attribute: Annotated[
        str | None, typer.Option("--attribute", metavar="A", help="Of it only this attribute.")
    ] = None,
    value: Annotated[
        str | None, typer.Option("--value", metavar="V", help="Of that only this value, in EDN.")
    ] = None,
    all_branches: Annotated[
        bool, typer.Option("--all", help="On every branch; so it is without --branch.")
    ] = False,
    branch: Annotated[
        list[str] | None,
        typer.Option(
            "--branch",
            "-b",
            metavar="NAME",
            help="Purge only here; can be repeated.",
            autocompletion=branch_names,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="Show the receipts there are.")] = False,
    id: Annotated[
        str | None,
        typer.Option("--id", help="Name of the erasure: asked again, it is not done again."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    nats: NatsOption = None,
    context: ContextOption = None,
    timeout: TimeoutOption = TIMEOUT_S,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Make the bytes of facts vanish from everything stored; prints a receipt.

    Purges what is named on every branch, then erases everything that was ever purged and that no
    branch needs: from logs, snapshots and ingest streams.  Without a name it erases what was purged
    before.

    Examples:

    natalog erase people --containing alice@example.com

    natalog erase people --entity '[:name "Alice"]' --attribute :email

    natalog erase people --list
    """
    out = Output(json, edn)
    if all_branches and branch:
        usage_error("give --all or --branch, not both")
    if listing:
        receipts = run_with_client(
            nats, context, timeout, lambda client: client.database(database).erasures()
        )
        _show_list(out, receipts)
        return
    facts = _pattern(entity, attribute, value)
    text = sys.stdin.readline().rstrip("\n") if containing == "-" else containing
    if not yes and not dry_run:
        confirm("Erased facts cannot be brought back. Go on?")

    async def work(client: Client) -> dict[str, Any]:
        return await client.database(database).erase(
            facts=facts,
            containing=text,
            branches=branch or None,
            dry_run=dry_run,
            id=id,
            timeout=timeout,
        )

    with working(f"erasing from {database}"):
        receipt = run_with_client(nats, context, timeout, work)
    _show(out, receipt)


def _pattern(entity: str | None, attribute: str | None, value: str | None) -> list[Any] | None:
    if entity is None:
        if attribute is not None or value is not None:
            usage_error("--attribute and --value are those of an --entity")
        return None
    pattern: list[Any] = [edn_argument(entity, "the entity")]
    if attribute is not None:
        pattern.append(Keyword(attribute))
    elif value is not None:
        usage_error("--value is that of an --attribute")
    if value is not None:
        pattern.append(edn_argument(value, "the value"))
    return [pattern]


def _show(out: Output, receipt: Mapping[str, Any]) -> None:
    if not out.for_people:
        out.fields(dict(receipt))
        return
    said: list[tuple[str, Any]] = [("receipt", receipt["id"])]
    for name, one in (receipt.get("purged") or {}).items():
        left = f", {one['left']} may not be purged" if one.get("left") else ""
        said.append((f"purged on {name}", f"{counted(one['facts'], 'fact')}{left}"))
    said += [
        (
            "erased",
            f"{counted(receipt['facts'], 'fact')} in "
            f"{counted(receipt.get('blocks', 0), 'block')} of the logs",
        ),
        ("commits that can no longer be told", receipt["commits"]),
        *(
            (f"still held by {name}", counted(n, "fact"))
            for name, n in (receipt["kept"] or {}).items()
        ),
    ]
    found = receipt.get("verified") or {}
    if found:
        said.append(
            ("blocks looked for and gone", f"{found['absent']} of {found['erased_blocks']}")
        )
        if "files_with_the_text" in found:
            said.append(("files with the text", len(found["files_with_the_text"])))
    for name, state in (receipt.get("ingest") or {}).items():
        said.append((f"ingest stream of {name}", state))
    said += [("not covered", sentence) for sentence in receipt.get("not_covered") or ()]
    title = "would be erased" if receipt.get("dry_run") else None
    out.table(["", ""], said, title)


def _show_list(out: Output, receipts: list[dict[str, Any]]) -> None:
    if not out.for_people:
        out.fields(receipts)
        return
    rows = [
        (
            receipt["id"],
            receipt["began"],
            shown(receipt["requested"]["branches"]),
            receipt["facts"],
            receipt["blocks"],
            receipt["commits"],
            sum((receipt.get("kept") or {}).values()),
        )
        for receipt in receipts
    ]
    out.table(["id", "began", "branches", "facts", "blocks", "commits", "kept"], rows)

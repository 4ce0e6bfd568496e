"""Writes ``docs/errors.md`` from the error classes: ``python tools/errors_doc.py``."""

from __future__ import annotations

import inspect
from pathlib import Path

from natalog.core import errors
from natalog.core.errors import NatalogError

TARGET = Path(__file__).resolve().parent.parent / "docs" / "errors.md"

_HEAD = """\
# Errors

Every error is a subclass of `natalog.NatalogError`. It has a stable `code`, a `type` (a keyword in
the style of Datahike, written here as in EDN), a sentence that names the offending data, and
`data`, a map of what was at fault. On the wire it is `{code, error, message, data}`; the client
raises the same class again. A code that the client does not know becomes a `NatalogError` with the
code in `data["code"]`.

A class inherits the type of the one above it unless it has its own. Catch a class to catch all that
stand below it.

This file is made from `natalog.core.errors` by `make docs`.

## Tree

"""


def core_classes() -> list[type[NatalogError]]:
    """The error classes of the core in the order of their definition."""
    return [
        found
        for found in vars(errors).values()
        if inspect.isclass(found)
        and issubclass(found, NatalogError)
        and found.__module__ == errors.__name__
    ]


def text() -> str:
    """The whole document."""
    classes = core_classes()
    lines: list[str] = []
    rows: list[str] = []

    def visit(parent: type[NatalogError], depth: int) -> None:
        lines.append(f"{'    ' * depth}{parent.code}")
        kind = "" if parent.default_type is None else f"`:{parent.default_type}`"
        above = "" if depth == 0 else f"`{parent.__bases__[0].__dict__['code']}`"
        sentence = " ".join((parent.__doc__ or "").split()).replace("``", "`").replace("|", "\\|")
        rows.append(f"| `{parent.code}` | {kind} | {above} | {sentence} |")
        for child in classes:
            if child.__bases__ == (parent,):
                visit(child, depth + 1)

    visit(NatalogError, 0)
    tree = "```\n" + "\n".join(lines) + "\n```\n"
    table = "| code | type | below | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    return f"{_HEAD}{tree}\n## Catalogue\n\n{table}"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")

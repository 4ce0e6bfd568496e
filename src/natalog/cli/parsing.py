"""Arguments of the command line as values."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import typer

from natalog.core.edn import read, read_all
from natalog.core.errors import ReadError
from natalog.core.limits import LANE_BITS, TX_BASE
from natalog.core.values import Keyword, instant_ms


def edn_argument(text: str, what: str) -> Any:
    """The value of EDN text; a usage error names what is wrong with it."""
    try:
        return read(text)
    except ReadError as error:
        raise typer.BadParameter(f"{what} is not EDN: {error.message}") from None


def value_argument(text: str) -> Any:
    """A value for ``:in``: EDN; text that is no EDN, or a bare word, is a string.

    Text that begins like a collection is meant to be one.
    """
    from natalog.core.values import Symbol

    try:
        value = read(text)
    except ReadError as error:
        if text.startswith(("[", "{")):
            raise typer.BadParameter(f"{text} is not EDN: {error.message}") from None
        return text
    return text if isinstance(value, Symbol) else value


def tx_data_argument(text: str | None, file: Path | None) -> list[Any]:
    """Tx-data from the command line, a file, or standard input (``-`` or nothing)."""
    if text is not None and file is not None:
        raise typer.BadParameter("give the tx-data or --file, not both")
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(f"cannot read {file}: {error.strerror}") from None
    elif text is None or text == "-":
        text = sys.stdin.read()
    try:
        forms = read_all(text)
    except ReadError as error:
        raise typer.BadParameter(f"the tx-data are not EDN: {error.message}") from None
    if len(forms) == 1 and isinstance(forms[0], (list, dict)):
        only = forms[0]
        if isinstance(only, dict):
            return [only]
        # a single operation such as [:db/add 1 :name "x"] is no list of operations
        return [only] if only and isinstance(only[0], Keyword) else only
    if not forms:
        raise typer.BadParameter("there are no tx-data")
    return forms


def map_argument(text: str | None, what: str) -> dict[Any, Any] | None:
    """A map from EDN text."""
    if text is None:
        return None
    value = edn_argument(text, what)
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{what} is an EDN map, such as '{{:source \"import\"}}'")
    return value


def point_argument(text: str | None) -> int | datetime | None:
    """A transaction id or an instant (``2026-01-31``, ``2026-01-31T12:00:00Z``)."""
    if text is None:
        return None
    tx = _tx(text)
    return instant_argument(text) if tx is None else tx


_SHORT_TX = re.compile(r"(?:(\d{1,6})/)?(\d{1,16})")


def _tx(text: str) -> int | None:
    found = _SHORT_TX.fullmatch(text)
    if found is None:
        return None
    lane, number = int(found[1] or 0), int(found[2])
    return number if number >= TX_BASE else TX_BASE + (lane << LANE_BITS) + number


def tx_argument(text: str) -> int:
    """A transaction id, or as the console writes it: ``N``, or ``LANE/N``; 0 is before all.

    >>> tx_argument("4503599627370498"), tx_argument("2"), tx_argument("1/2")
    (4503599627370498, 4503599627370498, 4503603922337794)
    """
    tx = 0 if text == "0" else _tx(text)
    if tx is None:
        raise typer.BadParameter(f"{text!r} is no transaction id such as {TX_BASE + 2}, or 2")
    return tx


def instant_argument(text: str) -> datetime:
    """An instant; without a time zone UTC is meant."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a transaction id nor an instant such as 2026-01-31T12:00:00Z"
        ) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def clock_argument(text: str | None) -> int | None:
    """The milliseconds of a pinned clock."""
    return None if text is None else instant_ms(instant_argument(text))


def ref_argument(text: str) -> str | UUID | int:
    """A branch name, a commit id or a transaction id."""
    tx = _tx(text)
    if tx is not None:
        return tx
    try:
        return UUID(text)
    except ValueError:
        return text


def all_arguments(texts: Sequence[str] | None) -> list[Any]:
    """Values for ``:in``."""
    return [value_argument(text) for text in texts or ()]

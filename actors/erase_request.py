"""What a request to erase asks for.  Its errors never repeat what it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from natalog.actors.names import check_name
from natalog.actors.payload import field_name
from natalog.core.errors import BadRequest
from natalog.core.redaction.purging import Pattern, checked_patterns, checked_purges
from natalog.core.values import Keyword, Symbol

WORDS: Final = ("tx_data", "facts", "containing", "branches", "dry_run", "id", "list")
ID_LENGTH_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class EraseRequest:
    """``branches`` None: all.  ``listing``: the receipts are asked for, nothing is erased."""

    tx_data: tuple[list[Any], ...] = ()
    facts: tuple[Pattern, ...] = ()
    containing: str | None = None
    branches: tuple[str, ...] | None = None
    dry_run: bool = False
    ident: str | None = None
    listing: bool = False

    @property
    def purges(self) -> bool:
        """Whether anything is to be purged first."""
        return bool(self.tx_data or self.facts or self.containing)


def read_erase_request(body: Any) -> EraseRequest:
    """The request of a body; `BadRequest`, `InvalidName`."""
    if not isinstance(body, Mapping):
        raise BadRequest("erase takes a map.", endpoint="erase")
    fields: dict[str, Any] = {}
    for key, value in body.items():
        name = field_name(key) if isinstance(key, (str, Keyword)) else ""
        if name not in WORDS:
            raise BadRequest(f"erase takes {', '.join(WORDS)}, nothing else.", endpoint="erase")
        if value is not None:
            fields[name] = value
    for name in ("dry_run", "list"):
        if not isinstance(fields.get(name, False), bool):
            raise BadRequest(f"{name} is true or false.", endpoint="erase", field=name)
    text = fields.get("containing")
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise BadRequest("containing is a text.", endpoint="erase", field="containing")
    ident = fields.get("id")
    if ident is not None and (not isinstance(ident, str) or not 0 < len(ident) <= ID_LENGTH_MAX):
        raise BadRequest(
            f"id is a text of 1 to {ID_LENGTH_MAX} characters.", endpoint="erase", field="id"
        )
    if ident is not None and text is not None and text in ident:
        raise BadRequest(
            "The id of an erasure is kept; it may not hold what is to be erased.",
            endpoint="erase",
            field="id",
        )
    return EraseRequest(
        tuple(checked_purges(fields.get("tx_data", []))),
        tuple(checked_patterns(fields.get("facts", []))),
        text,
        _branches(fields.get("branches")),
        fields.get("dry_run", False),
        ident,
        fields.get("list", False),
    )


def _branches(given: Any) -> tuple[str, ...] | None:
    given = _plain(given)
    if given is None or given == "all":
        return None
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, (list, tuple, set, frozenset)) or not given:
        raise BadRequest(
            'branches is "all" or a list of names.', endpoint="erase", field="branches"
        )
    return tuple(dict.fromkeys(check_name(_plain(name), "branch") for name in given))


def _plain(name: Any) -> Any:
    return name.text if isinstance(name, (Keyword, Symbol)) else name


__all__ = ["EraseRequest", "read_erase_request"]

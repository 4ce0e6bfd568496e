"""Rows of JSON lines, CSV and EDN files as transactions, and a schema inferred from them.

Readers yield plain maps (or, from EDN, whatever tx-data the file holds) as they go through a file,
which may be larger than memory.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from natalog.core.edn import read_all
from natalog.core.errors import ReadError
from natalog.core.values import Keyword

ROWS_SAMPLED_MAX = 10_000
"""Rows that schema inference looks at."""

FORM_LINES_MAX = 64
"""Lines after which an EDN form that is still open makes the rest of the file be read at once."""

_INTEGER = re.compile(r"[+-]?\d{1,18}\Z")
_DOUBLE = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?\Z")
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\Z")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)\Z")

Progress = Callable[[int], None]
"""Told how many bytes of the file have been read."""


def read_jsonl(path: Path, progress: Progress = lambda _: None) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; blank lines are skipped.  `ReadError` names the line."""
    done = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            done += len(line)
            progress(done)
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ReadError(
                    f"{path}:{number} is not JSON: {error}", path=str(path), line=number
                ) from None
            if not isinstance(row, dict):
                raise ReadError(
                    f"{path}:{number} is not a JSON object", path=str(path), line=number
                )
            yield {key: value for key, value in row.items() if value is not None}


def read_csv(path: Path, progress: Progress = lambda _: None) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file with a header; empty cells are left out, all values are strings."""
    done = 0

    def counted(lines: Iterable[str]) -> Iterator[str]:
        nonlocal done
        for line in lines:
            done += len(line.encode())
            progress(done)
            yield line

    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(counted(lines))
        try:
            for row in reader:
                if None in row:
                    raise ReadError(
                        f"{path}:{reader.line_num} has more cells than the header",
                        path=str(path),
                        line=reader.line_num,
                    )
                yield {key: cell for key, cell in row.items() if cell not in (None, "")}
        except csv.Error as error:
            raise ReadError(
                f"{path}:{reader.line_num} is not CSV: {error}",
                path=str(path),
                line=reader.line_num,
            ) from None


def read_edn(path: Path, progress: Progress = lambda _: None) -> Iterator[Any]:
    """The operations of an EDN file: forms one after the other, or vectors of them.

    A form that is itself a vector of maps or operations is tx-data and is spread out.  Forms that
    take at most `FORM_LINES_MAX` lines are read one by one; a longer one is read together with all
    that follows.
    """
    for form in _edn_forms(path, progress):
        if isinstance(form, list) and (not form or isinstance(form[0], (dict, list))):
            yield from form
        else:
            yield form


def _edn_forms(path: Path, progress: Progress) -> Iterator[Any]:
    done = 0
    held: list[str] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            done += len(line.encode())
            held.append(line)
            try:
                forms = read_all("".join(held))
            except ReadError:
                if len(held) < FORM_LINES_MAX:
                    continue
                forms = _read_named(path, "".join(held) + lines.read())
                done = path.stat().st_size
            held = []
            progress(done)
            yield from forms
    yield from _read_named(path, "".join(held))


def _read_named(path: Path, text: str) -> list[Any]:
    try:
        return read_all(text)
    except ReadError as error:
        raise ReadError(f"{path} is not EDN: {error.message}", path=str(path)) from None


def batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """The rows in lists of ``size``; the last may be shorter."""
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex: part of the transaction ids, so that a repeated import of the same
    file adds nothing."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# --- schema inference ----------------------------------------------------------------------------


def attribute_name(column: str, namespace: str | None) -> str:
    """The attribute of a column: ``name`` or ``ns/name``, blanks as hyphens.

    >>> attribute_name("Full Name", "person")
    'person/Full-Name'
    """
    bare = re.sub(r"[\s\"'`,;()\[\]{}\\@^~]+", "-", column.strip().removeprefix(":")).strip("-")
    bare = bare or "column"
    return bare if namespace is None or "/" in bare else f"{namespace}/{bare}"


def value_kind(value: Any) -> str:
    """The ``:db.type`` name that holds ``value``, strings read by their look.

    >>> [value_kind(v) for v in (1, 1.5, True, "a", "12", "2020-01-01T00:00:00Z")]
    ['long', 'double', 'boolean', 'string', 'long', 'instant']
    """
    match value:
        case bool():
            return "boolean"
        case int():
            return "long"
        case float():
            return "double"
        case str():
            return _text_kind(value)
        case _:
            return "string"


def _text_kind(text: str) -> str:
    # a leading zero is part of a code or a telephone number, not of a quantity
    if _INTEGER.match(text) and not re.match(r"[+-]?0\d", text):
        return "long"
    if _DOUBLE.match(text) and not re.match(r"[+-]?0\d", text):
        return "double"
    if text in ("true", "false"):
        return "boolean"
    if _INSTANT.match(text):
        return "instant"
    if _UUID.match(text):
        return "uuid"
    return "string"


def _join(left: str | None, right: str) -> str:
    if left is None or left == right:
        return right
    if {left, right} == {"long", "double"}:
        return "double"
    return "string"


class Columns:
    """What is known of each column: its type, and whether it holds several values.

    ``typed``: the rows have types of their own, as in JSON, where text is text; otherwise, as in
    CSV, text is read by its look.  Maps inside a row are rows themselves.
    """

    def __init__(self, *, typed: bool) -> None:
        self._typed = typed
        self.kinds: dict[str, str] = {}
        self.many: set[str] = set()

    def see(self, row: dict[str, Any]) -> None:
        """Learn from one row."""
        for column, value in row.items():
            values = value if isinstance(value, list) else [value]
            if isinstance(value, list):
                self.many.add(column)
            for item in values:
                if isinstance(item, dict):
                    self.see(item)
                self.kinds[column] = _join(self.kinds.get(column), self._kind(item))

    def _kind(self, value: Any) -> str:
        if isinstance(value, dict):
            return "ref"
        if self._typed and isinstance(value, str):
            return "string"
        return value_kind(value)

    def convert(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with its values as the types of their columns want them."""
        return {column: self._value(column, value) for column, value in row.items()}

    def _value(self, column: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(column, item) for item in value if item is not None]
        kind = self.kinds.get(column)
        if isinstance(value, dict):
            return json.dumps(value) if kind == "string" else self.convert(value)
        if kind == "string":
            return value if isinstance(value, str) else json.dumps(value)
        if kind == "double" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if kind is not None and isinstance(value, str):
            return _from_text(kind, value)
        return value

    def schema(
        self, name: Callable[[str], str], identity: str | None = None
    ) -> list[dict[str, Any]]:
        """Tx-data that declares every column seen; those of the system exist already."""
        declared = []
        for column, kind in self.kinds.items():
            ident = name(column)
            if ident.startswith("db/"):
                continue
            many = "many" if column in self.many else "one"
            attribute: dict[str, Any] = {
                "db/ident": Keyword(ident),
                "db/valueType": Keyword(f"db.type/{kind}"),
                "db/cardinality": Keyword(f"db.cardinality/{many}"),
            }
            if column == identity:
                attribute["db/unique"] = Keyword("db.unique/identity")
            declared.append(attribute)
        return declared

    def known(self, name: Callable[[str], str], schema: Mapping[Any, Any]) -> None:
        """Let what the database declares of a column stand."""
        for column in self.kinds:
            properties = schema.get(Keyword(name(column)))
            value_type = None if properties is None else properties.get(Keyword("db/valueType"))
            if isinstance(value_type, Keyword):
                self.kinds[column] = value_type.name

    def forget(self, name: Callable[[str], str], schema: Mapping[Any, Any]) -> None:
        """Forget what was inferred of columns that the database does not declare."""
        declared = {column for column in self.kinds if Keyword(name(column)) in schema}
        self.kinds = {column: self.kinds[column] for column in self.kinds if column in declared}


def _from_text(kind: str, text: str) -> Any:
    try:
        match kind:
            case "long":
                return int(text)
            case "double":
                return float(text)
            case "boolean":
                return {"true": True, "false": False}[text]
            case "instant":
                return datetime.fromisoformat(text)
            case "uuid":
                return UUID(text)
    except (ValueError, KeyError):
        raise ReadError(f"{text!r} is no {kind}", value=text) from None
    return text


def rename(row: dict[str, Any], name: Callable[[str], str]) -> dict[str, Any]:
    """The row with its columns as attributes, also in the maps inside it."""
    return {name(column): _renamed(value, name) for column, value in row.items()}


def _renamed(value: Any, name: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return rename(value, name)
    return [_renamed(item, name) for item in value] if isinstance(value, list) else value

"""Bodies of requests and replies: read in three forms, answered in the form of the question.

``docs/wire.md`` is the law.  Inside the service a request is a dict with snake case keys and an
answer a `Struct`, whatever travelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from natalog.core import edn
from natalog.core.codec import pack, unpack
from natalog.core.codec_json import ContentKind, content_kind, from_json, to_json
from natalog.core.errors import BadRequest, CodecError, EdnSyntax, MergeConflict, NatalogError
from natalog.core.transact.report import TxReport
from natalog.core.values import Datom, Keyword, Tagged, ms_instant

CONTENT_TYPES: Final[dict[ContentKind, str]] = {
    "msgpack": "application/msgpack",
    "edn": "application/edn",
    "json": "application/json",
}
TX_INSTANT: Final = Keyword("db/txInstant")
DATABASE_TAG: Final = "natalog/db"
CONFLICTS_TOLD_MAX: Final = 10_000
"""Conflicts of a merge that an error names one by one; its message tells how many there are."""


class Struct(dict[str, Any]):
    """A map whose keys are names of the protocol: keywords with hyphens in EDN."""


class Bare:
    """A result that stands alone in EDN and JSON; in msgpack it comes with ``wrapper``'s fields.

    ``edn``: makes what shows in EDN where that is not the result itself.
    """

    __slots__ = ("_edn", "result", "wrapper")

    def __init__(
        self, result: Any, wrapper: Mapping[str, Any], edn: Callable[[], Any] | None = None
    ) -> None:
        self.result = result
        self.wrapper = wrapper
        self._edn = edn

    @property
    def edn(self) -> Any:
        """The result as EDN shows it."""
        return self.result if self._edn is None else self._edn()


# --- reading -------------------------------------------------------------------------------------


def decode_payload(payload: bytes, content_type: str | None) -> tuple[ContentKind, Any]:
    """Form and value of a payload; an empty one is an empty map.

    Raises `EdnSyntax`, `CodecError` or `LimitExceeded`.
    """
    kind = content_kind(content_type, payload)
    if not payload:
        return kind, {}
    if kind == "edn":
        try:
            text = payload.decode("utf-8")
        except UnicodeDecodeError as error:
            raise EdnSyntax(f"The text is not UTF-8: {error.reason}.", at=error.start) from None
        return kind, edn.read(text)
    if kind == "json":
        try:
            return kind, from_json(payload)
        except UnicodeDecodeError as error:
            raise CodecError(f"The text is not UTF-8: {error.reason}.", at=error.start) from None
    return kind, unpack(payload)


def field_name(key: Any) -> str:
    """The snake case name of a key in any spelling: ``:keep-history?`` is ``keep_history``."""
    if isinstance(key, Keyword):
        return key.text.replace("-", "_").rstrip("?")
    if isinstance(key, str):
        return key.lstrip(":").replace("-", "_").rstrip("?")
    raise BadRequest(f"{key!r} is no name of a field of a request.", key=repr(key)[:80])


def fields_of(body: Any, allowed: Sequence[str], what: str) -> dict[str, Any]:
    """A map of the protocol with normal names; `BadRequest` for anything else.

    Unknown names are refused: a misspelt option must not be ignored.
    """
    if not isinstance(body, Mapping):
        raise BadRequest(
            f"{what} takes a map with {', '.join(allowed) or 'nothing in it'}, "
            f"not a {type(body).__name__}.",
            endpoint=what,
        )
    fields: dict[str, Any] = {}
    for key, value in body.items():
        name = field_name(key)
        if name not in allowed:
            raise BadRequest(
                f"{what} knows no {key}; it takes {', '.join(allowed) or 'nothing'}.",
                endpoint=what,
                key=str(key)[:80],
            )
        fields[name] = value
    return fields


def integer(fields: Mapping[str, Any], name: str, *, minimum: int = 0) -> int | None:
    """An optional integer field; `BadRequest` when it is something else."""
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not int or value < minimum:
        raise BadRequest(f"{name} is an integer from {minimum}, not {value!r}.", field=name)
    return value


# --- writing -------------------------------------------------------------------------------------


def encode_payload(kind: ContentKind, body: Any) -> bytes:
    """The bytes of an answer: a `Struct`, a `Bare` result or any value."""
    if isinstance(body, Bare):
        if kind == "msgpack":
            return pack({**body.wrapper, "result": body.result})
        body = body.edn if kind == "edn" else body.result
    if kind == "edn":
        return edn.write(_keyworded(body)).encode("utf-8", "surrogatepass")
    if kind == "json":
        return to_json(_stringed(body)).encode()
    return pack(body)


def _keyworded(body: Any) -> Any:
    if isinstance(body, Struct):
        return {Keyword(k.replace("_", "-")): _keyworded(v) for k, v in body.items()}
    if type(body) is list and body and isinstance(body[0], Struct):
        return [_keyworded(item) for item in body]
    return body


def _stringed(body: Any) -> Any:
    """Structs with plain dicts inside keep their names in JSON as they are."""
    if isinstance(body, Struct):
        return {key: _stringed(value) for key, value in body.items()}
    return body


def error_struct(error: NatalogError) -> Struct:
    """``{code, error, message, data}`` with data that every form can carry."""
    wire = error.to_wire()
    told = Struct((str(key), plain(value)) for key, value in wire["data"].items())
    if isinstance(error, MergeConflict):  # they are the answer: values, not a hint at them
        conflicts = wire["data"].get("conflicts") or []
        told["conflicts"] = [Struct(conflict) for conflict in conflicts[:CONFLICTS_TOLD_MAX]]
    return Struct(
        code=wire["code"],
        error=wire["error"],
        message=wire["message"],
        data=told,
    )


def encode_error(kind: ContentKind, error: NatalogError) -> bytes:
    """The body of an error reply."""
    body = error_struct(error)
    if kind == "edn" and body["error"] is not None:
        body["error"] = Keyword(body["error"])
    try:
        return encode_payload(kind, body)
    except NatalogError:
        body["data"] = Struct()
        return encode_payload(kind, body)


def plain(value: Any, depth: int = 0) -> Any:
    """``value`` if it can travel, else its text; long ones are cut."""
    if value is None or isinstance(value, (bool, int, float, Keyword, UUID, datetime)):
        return value if not isinstance(value, int) or abs(value) < 2**63 else str(value)[:200]
    if isinstance(value, str):
        return value if len(value) <= 1000 else value[:1000] + "…"
    if depth < 6 and isinstance(value, (list, tuple, set, frozenset)) and len(value) <= 100:
        return [plain(item, depth + 1) for item in value]
    if depth < 6 and isinstance(value, dict) and len(value) <= 100:
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    return repr(value)[:1000]


# --- shapes --------------------------------------------------------------------------------------


def datom_rows(datoms: Sequence[Datom]) -> list[list[Any]]:
    """Datoms as ``[e a v tx added]``."""
    return [list(datom) for datom in datoms]


def report_struct(
    report: TxReport, commit: UUID | None, *, database: str, branch: str, ident: str | None = None
) -> Struct:
    """The report of a transaction; without ``commit`` that of a speculative one."""
    body = Struct(
        tx=report.tx,
        instant=None if report.instant_ms is None else ms_instant(report.instant_ms),
        tx_data=datom_rows(report.datoms),
        tempids=dict(report.tempids),
        tx_meta=dict(report.tx_meta),
        purged=report.purged,
        database=database,
        branch=branch,
    )
    if commit is not None:
        body["commit_id"] = commit
        body["id"] = ident
    return body


def tagged_database(value: Any) -> Mapping[Any, Any] | None:
    """The view of a ``#natalog/db`` literal in any form, None for every other value."""
    if isinstance(value, Tagged) and value.tag == DATABASE_TAG:
        view = value.value
    elif isinstance(value, dict) and len(value) == 1 and DATABASE_TAG in value:
        view = value[DATABASE_TAG]
    elif isinstance(value, dict) and value.keys() == {"tag", "value"}:
        if value["tag"] != DATABASE_TAG:
            return None
        view = value["value"]
    else:
        return None
    if not isinstance(view, Mapping):
        raise BadRequest(f"#natalog/db takes a map, not {view!r}.", view=repr(view)[:80])
    return view

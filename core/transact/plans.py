"""What the transaction processor derives from an attribute once, to decide fast per value."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from natalog.core.config import DatabaseConfig
from natalog.core.errors import TransactSyntax
from natalog.core.schema import PROPERTIES, SYSTEM, TX_INSTANT, Attribute, Schema
from natalog.core.shown import brief, shown
from natalog.core.values import Keyword, Symbol

EXACT: Final[dict[str, type]] = {
    "string": str,
    "long": int,
    "keyword": Keyword,
    "double": float,
    "boolean": bool,
    "symbol": Symbol,
    "bigint": int,
    "bigdec": Decimal,
    "bytes": bytes,
    "uuid": UUID,
}
"""Types whose members are exactly the instances of one class (longs also have a range)."""

PLAIN: Final = frozenset({str, int, Keyword, UUID, bytes, Symbol})
"""Classes whose values are their own `value_key`."""

VALUE_CAP_DEFAULT = 4096
TUPLE_SLOT_CAP_DEFAULT = 256


class Caps:
    """Bounds on the length of values that hold for the whole database; None is unbounded."""

    __slots__ = ("bytes", "slot", "string")

    def __init__(self, config: DatabaseConfig) -> None:
        default = config.value_caps is not None
        self.string = config.max_string_length or (VALUE_CAP_DEFAULT if default else None)
        self.bytes = config.max_bytes_length or (VALUE_CAP_DEFAULT if default else None)
        self.slot = config.max_tuple_string_length or (TUPLE_SLOT_CAP_DEFAULT if default else None)


class Plan:
    """One attribute, ready for use: flags that decide the path of a value."""

    __slots__ = (
        "attribute",
        "component",
        "composite",
        "exact",
        "ident",
        "identifies",
        "identity",
        "many",
        "parts",
        "plain",
        "quiet",
        "ref",
        "schema",
        "simple",
        "unique",
        "value_type",
    )

    def __init__(
        self, ident: Keyword, attribute: Attribute, parts: tuple[Attribute, ...], caps: Caps
    ) -> None:
        kind = attribute.value_type
        self.ident = ident
        self.attribute = attribute
        self.value_type = kind
        self.many = attribute.many
        self.ref = kind == "ref"
        self.unique = attribute.unique is not None
        self.identity = attribute.unique == "identity"
        self.component = attribute.component and self.ref
        self.composite = attribute.tuple_attrs is not None and ident not in SYSTEM
        self.parts = parts
        self.schema = ident in PROPERTIES
        bounded = (
            attribute.max_length is not None
            or bool(attribute.preds)
            or (kind == "string" and caps.string is not None)
            or (kind == "bytes" and caps.bytes is not None)
        )
        self.exact = EXACT.get(kind) if kind is not None and not bounded else None
        self.plain = self.exact in PLAIN
        # a value of the exact class of a simple attribute needs no further thought
        self.simple = not (self.many or self.unique or self.schema or parts or ident is TX_INSTANT)
        self.quiet = not (self.unique or self.schema or parts or ident is TX_INSTANT)
        """Whether a fact ends without consequences for others."""
        self.identifies = self.identity or any(part.unique == "identity" for part in parts)
        """Whether the attribute takes part in finding the entity that a map describes."""


class Entry:
    """How one spelling of an attribute in a map is to be read.

    ``text``: it was written as a string, so text is coerced to the declared type.  ``fast``: the
    class whose instances can be stored as they are, in an entity that has no value yet;
    ``ranged``: if they fit 64 bits.
    """

    __slots__ = ("fast", "plan", "ranged", "reverse", "text")

    def __init__(self, plan: Plan, reverse: bool, text: bool) -> None:
        self.plan = plan
        self.reverse = reverse
        self.text = text
        self.fast: type | None = plan.exact if plan.simple and not reverse else None
        self.ranged = plan.value_type == "long"


def keyword_of(raw: Any, operation: Any) -> Keyword:
    """The keyword that names an attribute, from ``:name``, ``":name"`` or ``"name"``."""
    if type(raw) is Keyword:
        return raw
    if type(raw) is str and raw not in ("", ":"):
        return Keyword(raw)
    raise TransactSyntax(
        f"{shown(raw)} is no attribute in {shown(operation)}; a keyword or a string is expected.",
        attribute=brief(raw),
        operation=shown(operation),
    )


def straight(ident: Keyword) -> Keyword | None:
    """``:ns/name`` of the reverse attribute ``:ns/_name``; None for other attributes."""
    name = ident.name
    if name[0] != "_" or len(name) == 1:
        return None
    return Keyword(f"{ident.namespace}/{name[1:]}" if ident.namespace else name[1:])


def plan_of(schema: Schema, ident: Keyword, caps: Caps, *, write: bool) -> Plan | None:
    """The plan of an attribute; None when it must be declared and is not."""
    attribute = schema.get(ident)
    if attribute is None or (write and attribute.value_type is None):
        if write:
            return None
        attribute = attribute or Attribute(ident)
    return Plan(ident, attribute, schema.composites.get(ident, ()), caps)


def _system_entries() -> dict[Any, Entry]:
    caps = Caps(DatabaseConfig())
    entries: dict[Any, Entry] = {}
    for ident, attribute in SYSTEM.items():
        plan = Plan(ident, attribute, (), caps)
        entries[ident] = Entry(plan, reverse=False, text=False)
        for text in (ident.text, str(ident)):
            entries[text] = Entry(plan, reverse=False, text=True)
    return entries


SYSTEM_ENTRIES: Final = _system_entries()
"""Every spelling of the system's attributes; never changed."""

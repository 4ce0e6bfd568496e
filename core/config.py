"""The settings a database is created with; they are fixed for its life."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from natalog.core.errors import InvalidConfig
from natalog.core.values import Keyword


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """Settings of one database.

    ``keep_history``: facts are intervals and past values stay readable; without it there are no
    transaction entities either.  ``schema_flexibility``: ``"write"`` demands declared attributes,
    ``"read"`` takes any.  The ``max_...`` caps bound values in bytes, characters or elements; None
    is unbounded.  ``store`` and ``index`` are kept for readers of Datahike configurations and
    choose nothing here.
    """

    keep_history: bool = True
    schema_flexibility: str = "write"
    attribute_refs: bool = False
    allow_index_backfill: bool = False
    crypto_hash: bool = True
    commit_graph: bool = True
    max_string_length: int | None = None
    max_bytes_length: int | None = None
    max_tuple_string_length: int | None = None
    value_caps: str | None = None
    store: Any = None
    index: Any = None
    name: Any = None

    def __post_init__(self) -> None:
        if self.schema_flexibility not in ("read", "write"):
            raise InvalidConfig(
                f"schema_flexibility is {self.schema_flexibility!r}; it must be 'write' or 'read'.",
                key="schema_flexibility",
                value=self.schema_flexibility,
            )
        for name in ("keep_history", "attribute_refs", "allow_index_backfill"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidConfig(
                    f"{name} must be true or false, not {getattr(self, name)!r}.",
                    key=name,
                    value=getattr(self, name),
                )
        for name in ("max_string_length", "max_bytes_length", "max_tuple_string_length"):
            bound = getattr(self, name)
            if bound is not None and (type(bound) is not int or bound < 1):
                raise InvalidConfig(
                    f"{name} must be a positive integer, not {bound!r}.", key=name, value=bound
                )

    @classmethod
    def from_mapping(cls, settings: Mapping[Any, Any]) -> DatabaseConfig:
        """Read settings named in any of the usual spellings (``:keep-history?``, ``keep_history``).

        Raises `InvalidConfig` for a key that does not exist.
        """
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in settings.items():
            name = str(key).lstrip(":").rstrip("?").replace("-", "_")
            if name not in known:
                raise InvalidConfig(
                    f"There is no setting {key}; known are {', '.join(sorted(known))}.",
                    key=str(key),
                )
            if name == "schema_flexibility" and isinstance(value, (Keyword, str)):
                value = str(value).lstrip(":")
            values[name] = value
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """The settings that differ from their defaults, by name: what the log records."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }

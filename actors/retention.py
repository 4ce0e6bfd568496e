"""Retention: how long the past is kept, as the configuration says; `keeper` keeps to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from natalog.actors.names import check_name
from natalog.core.errors import InvalidConfig


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for one database: days by attribute, days for commits, whether to erase then."""

    history_days: Mapping[str, float] = field(default_factory=dict)
    commits_days: float | None = None
    erase: bool = False

    def __bool__(self) -> bool:
        return bool(self.history_days or self.commits_days is not None)


@dataclass(frozen=True, slots=True)
class Retention:
    """The rules for all databases, and those of single ones, which go before them."""

    rules: Rules = field(default_factory=Rules)
    databases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Any) -> Retention:
        """The rules of a table of settings, or of JSON text; `InvalidConfig`."""
        if isinstance(settings, Retention):
            return settings
        if isinstance(settings, str):
            try:
                settings = json.loads(settings)
            except ValueError:
                raise _invalid("retention is no JSON") from None
        if not isinstance(settings, Mapping):
            raise _invalid("retention is a table")
        own = {key: value for key, value in settings.items() if key != "databases"}
        single = settings.get("databases", {})
        if not isinstance(single, Mapping):
            raise _invalid("retention.databases is a table of databases")
        found = cls(_rules(own), {check_name(name): table for name, table in single.items()})
        for name in found.databases:
            found.for_database(name)
        return found

    def for_database(self, name: str) -> Rules:
        """The rules for one database."""
        table = self.databases.get(name)
        if table is None:
            return self.rules
        mine = _rules(table)
        return Rules(
            {**self.rules.history_days, **mine.history_days},
            self.rules.commits_days if mine.commits_days is None else mine.commits_days,
            mine.erase if "erase" in table else self.rules.erase,
        )

    def __str__(self) -> str:
        """The JSON text that `of` reads."""
        table: dict[str, Any] = {}
        if self.rules.history_days:
            table["history_days"] = dict(self.rules.history_days)
        if self.rules.commits_days is not None:
            table["commits_days"] = self.rules.commits_days
        if self.rules.erase:
            table["erase"] = True
        if self.databases:
            table["databases"] = {name: dict(rules) for name, rules in self.databases.items()}
        return json.dumps(table)


def _rules(table: Any) -> Rules:
    if not isinstance(table, Mapping) or table.keys() - {"history_days", "commits_days", "erase"}:
        raise _invalid("rules of retention are history_days, commits_days and erase")
    history = table.get("history_days", {})
    if not isinstance(history, Mapping) or not all(map(_is_days, history.values())):
        raise _invalid("retention.history_days names days by attribute")
    commits = table.get("commits_days")
    if commits is not None and not _is_days(commits):
        raise _invalid("retention.commits_days is a number of days")
    erase = table.get("erase", False)
    if not isinstance(erase, bool):
        raise _invalid("retention.erase is true or false")
    return Rules(
        {str(name).lstrip(":"): float(days) for name, days in history.items()},
        None if commits is None else float(commits),
        erase,
    )


def _is_days(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _invalid(sentence: str) -> InvalidConfig:
    return InvalidConfig(f"{sentence}.", key="retention")


__all__ = ["Retention", "Rules"]

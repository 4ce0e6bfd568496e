"""The query reference names what exists, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from natalog.core.query.aggregates import AGGREGATES
from natalog.core.query.builtin_rules import builtin_rules
from natalog.core.query.functions import FUNCTIONS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "query.md").read_text(encoding="utf-8")


def names_under(title: str) -> set[str]:
    """The names in the first column of the table below ``**title**``."""
    rows = TEXT.split(f"**{title}**", 1)[1].split("\n\n", 2)[1].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_function_is_described_and_every_described_function_exists() -> None:
    described: set[str] = set()
    for title in (
        "Comparison",
        "Numbers",
        "Logic",
        "Strings and names",
        "Collections",
        "Databases",
    ):
        described |= names_under(title)
    assert described == set(FUNCTIONS) | {"q"}


def test_every_aggregate_is_described() -> None:
    assert names_under("Aggregates") == set(AGGREGATES)


def test_every_built_in_rule_is_described() -> None:
    for name in builtin_rules():
        assert name.removeprefix("interval") in TEXT

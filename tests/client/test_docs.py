"""The examples in the documents run as they stand, on databases in this process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from natalog import local

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def runnable() -> list[Path]:
    """Documents whose examples begin by importing `natalog.local`."""
    documents = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
    return [path for path in documents if blocks(path)]


def blocks(path: Path) -> list[tuple[int, str]]:
    """Line and text of the examples for `natalog.local`: from its import on, in order."""
    text = path.read_text(encoding="utf-8")
    found: list[tuple[int, str]] = []
    for block in BLOCK.finditer(text):
        code = block.group(1)
        local_names = bool(re.search(r"^from natalog import .*\blocal\b", code, re.MULTILINE))
        if local_names or (found and "await " not in code):
            found.append((text.count("\n", 0, block.start()) + 1, code))
    return found


@pytest.mark.parametrize("path", runnable(), ids=lambda path: path.name)
def test_examples_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = local.Registry()
    for verb in ("create_database", "delete_database", "database_exists", "database"):
        monkeypatch.setattr(local, verb, getattr(registry, verb))
    names: dict[str, Any] = {}
    for line, code in blocks(path):
        exec(compile("\n" * line + code, str(path), "exec"), names)


def test_the_documents_have_examples() -> None:
    expected = {
        "query.md",
        "schema.md",
        "time.md",
        "transactions.md",
        "versioning.md",
        "erasure.md",
        "from_datahike.md",
        "README.md",
    }
    assert expected <= {path.name for path in runnable()}

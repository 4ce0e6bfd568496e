"""A small invented git history, for demonstrations where there is no repository."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files

from natalog.importing.git import Commit, FileChange


def sample_commits() -> Iterator[Commit]:
    """The commits of the sample, oldest first."""
    text = files("natalog.importing").joinpath("sample_history.jsonl").read_text(encoding="utf-8")
    for line in text.splitlines():
        entry = json.loads(line)
        yield Commit(
            sha=entry["sha"],
            parents=tuple(entry["parents"]),
            author=entry["author"],
            email=entry["email"],
            authored_at=datetime.fromtimestamp(entry["authored_at"], UTC),
            committed_at=datetime.fromtimestamp(entry["committed_at"], UTC),
            subject=entry["subject"],
            message=entry["message"],
            changes=tuple(FileChange(*change) for change in entry["changes"]),
        )

"""Writes ``dashboards/*.json`` for Grafana: ``python tools/dashboards [--check]``.

What several processes tell of the same thing (the datoms of a branch, say) is shown once, as the
largest; what each of them did is added up.  ``--check`` writes nothing and fails when a file is not
what this program would write.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from overview import overview
from queries import queries
from storage import storage
from transactor import transactor

TARGET = Path(__file__).resolve().parents[2] / "dashboards"


def documents() -> dict[Path, str]:
    """The text of each file."""
    made = (overview(), transactor(), queries(), storage())
    return {
        TARGET / f"{one['uid']}.json": json.dumps(one, indent=2, ensure_ascii=False) + "\n"
        for one in made
    }


def main(arguments: list[str]) -> int:
    stale = [
        path
        for path, text in documents().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.name} is not what tools/dashboards writes; run make docs")
        return 1 if stale else 0
    for path in stale:
        path.write_text(documents()[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

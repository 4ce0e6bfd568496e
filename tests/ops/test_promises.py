"""Every test that docs/promises.md names as a proof exists, and its mark is the right one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROOF = re.compile(r"`([a-z_/]+\.py)::(test_\w+)`( \*)?")


def proofs() -> list[tuple[str, str, bool]]:
    """File, function, and whether it is said to run in `make faults` only."""
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    return [(file, name, bool(star)) for file, name, star in PROOF.findall(text)]


def declared_in(file: str) -> dict[str, bool]:
    """Tests of a file under tests/, and whether they are marked for `make faults`."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {
        node.name: any("mark.faults" in ast.unparse(one) for one in node.decorator_list)
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_named_test_exists_and_runs_where_it_is_said() -> None:
    named = proofs()
    assert len(named) > 80
    wrong = [
        f"{file}::{name}"
        for file, name, rarely in named
        if declared_in(file).get(name) is not rarely
    ]
    assert wrong == []


def test_every_row_of_the_promises_has_a_proof() -> None:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    without = [row for row in rows if row != "| promise | proved by |" and not PROOF.search(row)]
    assert without == []

"""The catalogue of metrics is the one that the registry gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_catalogue_of_metrics_is_up_to_date() -> None:
    path = ROOT / "tools" / "metrics_doc.py"
    spec = importlib.util.spec_from_file_location("metrics_doc", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    ours = [line for line in module.text().splitlines() if not line.startswith("| `process_")]
    # other systems than Linux tell less of a process
    assert set(ours) <= set(written.splitlines()), "run make docs"

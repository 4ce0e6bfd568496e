"""Writes ``docs/metrics.md`` from the registry: ``python tools/metrics_doc.py``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from natalog.actors.metrics import STATES, Metrics

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "metrics.md"

_HEAD = """\
# Metrics

What `/metrics` shows; [operations.md](operations.md) says how to look at it. Times are in seconds,
sizes in bytes. A histogram has the series `_bucket`, `_sum` and `_count`. The last column names the
dashboards that show a metric.

This file is made from `natalog.actors.metrics` by `make docs`.

| metric | type | labels | meaning | shown in |
|---|---|---|---|---|
"""


def labels() -> dict[str, tuple[str, ...]]:
    """The labels of each metric of ours by the name of its family."""
    found = {name.removesuffix("_total"): names for name, (_, names) in STATES.items()}
    for collector in Metrics().registry._collector_to_names:
        name = getattr(collector, "_name", None)
        if name is not None:
            found[name] = tuple(collector._labelnames)  # type: ignore[attr-defined]
    return found


def shown() -> dict[str, list[str]]:
    """The dashboards by the names that their queries use."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        text = " ".join(
            target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
        )
        for name in set(re.findall(r"\b(?:natalog|process|python)_\w+", text)):
            found.setdefault(name, []).append(path.stem.removeprefix("natalog-"))
    return found


def rows() -> Iterator[str]:
    named, used = labels(), shown()
    families = sorted(Metrics().registry.collect(), key=lambda family: family.name)
    for family in sorted(families, key=lambda family: not family.name.startswith("natalog_")):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        ends = ("", "_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
        where = sorted({one for end in ends for one in used.get(name + end, ())})
        text = family.documentation.replace("|", "\\|")
        having = ", ".join(f"`{label}`" for label in named.get(family.name, ()))
        if family.name.startswith("python_gc"):
            having = "`generation`"
        yield f"| `{name}` | {family.type} | {having} | {text} | {', '.join(where)} |"


def text() -> str:
    """The whole document."""
    return _HEAD + "\n".join(rows()) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")

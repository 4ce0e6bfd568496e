"""What a query did, step by step: the record behind ``explain``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """One clause that ran: ``depth`` 0 in ``:where``, more inside ``not``, ``or`` and rules.

    ``estimated`` rows made the planner choose it (None where nothing could be chosen);
    ``bound`` rows went in, ``rows`` came out.
    """

    depth: int
    clause: str
    estimated: float | None
    bound: int
    rows: int


@dataclass(slots=True)
class Plan:
    """The steps of a query in the order in which they ran, and the rows of its answer."""

    steps: list[Step] = field(default_factory=list)
    answer_rows: int = 0
    rows_touched: int = 0
    """Rows that all operators together produced: what ``fuel`` limits."""

    def text(self) -> str:
        """A table for people."""
        head = f"{'estimated':>10} {'in':>9} {'out':>9}  clause"
        lines = [head]
        for step in self.steps:
            guess = "" if step.estimated is None else f"{step.estimated:,.0f}"
            indent = "  " * step.depth
            lines.append(f"{guess:>10} {step.bound:>9,} {step.rows:>9,}  {indent}{step.clause}")
        lines.append(f"{'':>10} {'':>9} {self.answer_rows:>9,}  answer")
        return "\n".join(lines)

    def data(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "steps": [
                {
                    "depth": step.depth,
                    "clause": step.clause,
                    "estimated": step.estimated,
                    "bound": step.bound,
                    "rows": step.rows,
                }
                for step in self.steps
            ],
            "answer_rows": self.answer_rows,
            "rows_touched": self.rows_touched,
        }

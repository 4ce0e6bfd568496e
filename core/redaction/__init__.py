"""Erasure as a pure function of logs: which events go, and the blocks without them.

Purges name facts; an *event* (a fact asserted in one transaction) goes from the log when its fact
was purged somewhere and no living branch's history holds the event any more.  A retraction goes
with the assertion that it ends.  Values that were superseded in attributes without history go with
a purge of their entity (`Survey.finish`).

The logs of a database are read three times, lane after lane in ascending order, so that what a
branch begins with was read before it:

1. `Survey` reads records only: which cells (entity and attribute) purges touch, and what a request
   names.
2. `Trace` folds these cells: which facts the purges meant, and what living heads still hold.
3. `Redactor` folds them twice side by side, as they are and redacted, and makes the new blocks.
   Purges are named by places among the values of a cell, so they are counted again.

Folding only some cells is exact, since applying a record treats each cell by itself; facts that the
schema follows and the instants of transactions are folded always.
"""

from __future__ import annotations

from natalog.core.redaction.redactor import Counts, Redactor
from natalog.core.redaction.survey import Survey, Wanted
from natalog.core.redaction.trace import Trace

__all__ = ["Counts", "Redactor", "Survey", "Trace", "Wanted"]

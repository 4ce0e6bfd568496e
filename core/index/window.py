"""What part of the recorded past a view shows: as-of, since and history, composed.

A fact is an interval ``[added, retracted)``.  A view keeps the events whose transaction lies in
its window; a fact is visible when its assertion lies inside and its retraction, if any, after the
upper bound.  History shows the events themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from natalog.core.index.pool import Ints
from natalog.core.index.tree import OPEN

Bools = NDArray[np.bool_]


class Facts(NamedTuple):
    """Visible facts of one attribute as columns; ``added`` is None when all are assertions."""

    e: Ints
    v: Ints
    tx: Ints
    added: Bools | None


@dataclass(frozen=True, slots=True)
class Window:
    """Bounds of a view: ``until`` inclusive, ``after`` exclusive, by transaction id or instant."""

    until_tx: int | None = None
    until_ms: int | None = None
    after_tx: int | None = None
    after_ms: int | None = None
    history: bool = False

    @property
    def is_current(self) -> bool:
        return self is CURRENT or self == CURRENT

    def until(self, *, tx: int | None = None, ms: int | None = None) -> Window:
        """The narrower of this window and one that ends at ``tx`` or ``ms``."""
        if tx is not None:
            bound = tx if self.until_tx is None else min(tx, self.until_tx)
            return replace(self, until_tx=bound)
        assert ms is not None
        bound = ms if self.until_ms is None else min(ms, self.until_ms)
        return replace(self, until_ms=bound)

    def after(self, *, tx: int | None = None, ms: int | None = None) -> Window:
        """The narrower of this window and one that begins after ``tx`` or ``ms``."""
        if tx is not None:
            bound = tx if self.after_tx is None else max(tx, self.after_tx)
            return replace(self, after_tx=bound)
        assert ms is not None
        bound = ms if self.after_ms is None else max(ms, self.after_ms)
        return replace(self, after_ms=bound)

    def with_history(self) -> Window:
        return replace(self, history=True)


CURRENT = Window()


@dataclass(frozen=True, slots=True)
class Instants:
    """The instant (ms) of each transaction id, ascending by id."""

    txs: Ints
    ms: Ints

    def of(self, txs: Ints) -> Ints:
        """Instants of transaction ids; an id without one lies beyond every bound."""
        if not len(self.txs):
            return np.full(txs.shape, OPEN, dtype=np.int64)
        spots = np.minimum(self.txs.searchsorted(txs), len(self.txs) - 1)
        return np.where(self.txs[spots] == txs, self.ms[spots], OPEN)


def live_facts(rows: Ints, *, by_value: bool = False) -> Facts:
    """The facts of ``rows`` that have not ended."""
    count = rows.shape[1]
    ended = rows[3]
    if (count != 1 or ended[0] != OPEN) and count:
        live = ended == OPEN
        if not live.all():
            rows = rows.compress(live, axis=1)
    if by_value:
        return Facts(rows[1], rows[0], rows[2], None)
    return Facts(rows[0], rows[1], rows[2], None)


def select(rows: Ints, window: Window, instants: Instants, *, by_value: bool = False) -> Facts:
    """The facts of ``rows`` (``e v added retracted``, or ``v e ...`` when ``by_value``) in view.

    History of one fact comes out in row order, assertions and retractions interleaved by a stable
    sort on the key.
    """
    if window.is_current:
        return live_facts(rows, by_value=by_value)
    first, second, added, ended = rows
    starts_in, ends_in = events_in_view(rows, window, instants)
    if not window.history:
        keep = starts_in & ~ends_in
        first, second, added = first[keep], second[keep], added[keep]
        return Facts(second, first, added, None) if by_value else Facts(first, second, added, None)
    ends_in &= _after_start(ended, window, instants)
    one = np.concatenate((first[starts_in], first[ends_in]))
    two = np.concatenate((second[starts_in], second[ends_in]))
    txs = np.concatenate((added[starts_in], ended[ends_in]))
    count = int(np.count_nonzero(starts_in))
    flags = np.arange(len(one)) < count
    order = np.lexsort((~flags, txs, two, one))
    one, two, txs, flags = one[order], two[order], txs[order], flags[order]
    if len(one) > 1:  # a fact asserted and retracted twice in one transaction is one event each
        same = (
            (one[1:] == one[:-1])
            & (two[1:] == two[:-1])
            & (txs[1:] == txs[:-1])
            & (flags[1:] == flags[:-1])
        )
        if same.any():
            fresh = np.concatenate(([True], ~same))
            one, two, txs, flags = one[fresh], two[fresh], txs[fresh], flags[fresh]
    return Facts(two, one, txs, flags) if by_value else Facts(one, two, txs, flags)


def events_in_view(rows: Ints, window: Window, instants: Instants) -> tuple[Bools, Bools]:
    """Which facts began inside the window, and which ended before its upper bound."""
    added, ended = rows[2], rows[3]
    starts = _within(added, window, instants)
    return starts, (ended != OPEN) & _before_end(ended, window, instants)


def _within(txs: Ints, window: Window, instants: Instants) -> Bools:
    return _before_end(txs, window, instants) & _after_start(txs, window, instants)


def _before_end(txs: Ints, window: Window, instants: Instants) -> Bools:
    inside = np.ones(txs.shape, dtype=np.bool_)
    if window.until_tx is not None:
        inside &= txs <= window.until_tx
    if window.until_ms is not None:
        inside &= instants.of(txs) <= window.until_ms
    return inside


def _after_start(txs: Ints, window: Window, instants: Instants) -> Bools:
    inside = np.ones(txs.shape, dtype=np.bool_)
    if window.after_tx is not None:
        inside &= txs > window.after_tx
    if window.after_ms is not None:
        inside &= instants.of(txs) > window.after_ms
    return inside

"""Staying awake for what comes in a moment.

A process that sleeps is woken by the kernel, and an idle core takes 10 to 30 microseconds for that,
twice for every transaction that somebody sends one after the other: when the receipt of its block
comes, and when the client sends the next one.  For so short a time the event loop asks for events
again and again instead of sleeping (what network drivers call busy polling).
"""

from __future__ import annotations

import asyncio
import os
from time import perf_counter
from typing import Final

_CORES_MIN: Final = 2
"""With fewer, whoever stays awake keeps what he waits for from happening."""


class Alertness:
    """Keeps the event loop of a process awake, ``limit_us`` microseconds at a time; 0 for never.

    Only loops of uvloop: a turn of another one takes longer than waking up.
    """

    def __init__(self, limit_us: int) -> None:
        self._limit_s = limit_us / 1_000_000 if _cores() >= _CORES_MIN else 0.0
        self._until = 0.0
        self._awake = False

    def expect(self, usual_s: float) -> None:
        """Stay awake for something that usually comes after ``usual_s``; sleep if that is long."""
        if usual_s >= self._limit_s:
            return
        self._until = perf_counter() + self._limit_s
        if not self._awake:
            loop = asyncio.get_running_loop()
            if type(loop).__module__.partition(".")[0] == "uvloop":
                self._awake = True
                loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        if perf_counter() < self._until:
            loop.call_soon(self._turn, loop)
        else:
            self._awake = False


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

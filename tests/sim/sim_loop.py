"""An event loop with virtual time whose next step a seed chooses, and processes to stop or kill.

Every task belongs to the `Process` in whose context it was started.  The steps of a process that is
paused wait; those of one that was killed never run, not even their ``finally`` blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import os
import random
import time
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

from anyio import to_thread
from anyio._backends import _asyncio as anyio_asyncio

STEP_S = 2e-6
"""Virtual time that every step takes, so that nobody waits for ever without sleeping."""
STEPS_MAX = 3_000_000
BEGIN_S = 10_000.0
EPOCH_S = 1_800_000_000.0

_numbers = itertools.count()


class Stuck(Exception):
    """Nothing can happen any more, or things happen without end."""


class Process:
    """An operating system process: its clock, and whether it runs.  ``skew_s``: of its clock."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.killed = False
        self.paused = False
        self.skew_s = 0.0
        self.shelf: list[asyncio.Handle] = []
        self.context = copy_context()
        self.context.run(CURRENT.set, self)


CURRENT: ContextVar[Process | None] = ContextVar("simulated process", default=None)


class _Task(asyncio.Task[Any]):
    """A task whose place in a set depends on nothing but the schedule."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(_numbers)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class SimLoop(BaseEventLoop):
    """Runs one ready callback at a time; time goes on when none is ready."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.now = BEGIN_S
        self.steps = 0
        self.chance = chance
        self.released = False
        """Whether killed processes may clean up after all, at the end of a schedule."""
        self.set_task_factory(lambda loop, coro, **more: _Task(coro, loop=loop, **more))
        self.trace = 0

    def time(self) -> float:
        return self.now

    def _write_to_self(self) -> None:
        """Nobody sleeps."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        ready, timers = self._ready, self._scheduled
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not ready:
            if not timers:
                raise Stuck("nothing is left to do")
            self.now = max(self.now, timers[0]._when)
        while timers and timers[0]._when <= self.now:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if not timer._cancelled:
                ready.append(timer)
        if not ready:
            return
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Stuck(f"no end after {STEPS_MAX} steps")
        self.now += STEP_S
        spot = self.chance.randrange(len(ready)) if len(ready) > 1 else 0
        self.trace = hash((self.trace, len(ready), spot, self.now))
        if spot:
            ready.rotate(-spot)
            handle = ready.popleft()
            ready.rotate(spot)
        else:
            handle = ready.popleft()
        if handle._cancelled:
            return
        process = handle._context.get(CURRENT)
        if process is not None and not self.released:
            if process.killed:
                return
            if process.paused:
                process.shelf.append(handle)
                return
        handle._run()

    def go_on(self, process: Process) -> None:
        """Let a paused process run again."""
        process.paused = False
        self._ready.extend(process.shelf)
        process.shelf.clear()

    def spawn(self, process: Process | None, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task of a process."""
        if process is None:
            return self.create_task(work)
        return process.context.run(self.create_task, work)


async def _inline(func: Callable[..., Any], *args: Any, **_: Any) -> Any:
    """A thread that does its work at once, between two turns of the loop."""
    await asyncio.sleep(0)
    found = func(*args)
    await asyncio.sleep(0)
    return found


@contextlib.contextmanager
def simulated(chance: random.Random) -> Iterator[SimLoop]:
    """A loop; meanwhile clocks, randomness and threads are those of the simulation."""
    loop = SimLoop(chance)

    def steady(_: int = 0) -> float:
        return loop.now

    def wall() -> float:
        process = CURRENT.get()
        return EPOCH_S + loop.now + (0.0 if process is None else process.skew_s)

    replaced: list[tuple[Any, str, Any]] = [
        (time, "monotonic", steady),
        (time, "perf_counter", steady),
        (time, "clock_gettime", steady),
        (time, "time", wall),
        (time, "time_ns", lambda: int(wall() * 1e9)),
        (os, "urandom", chance.randbytes),
        (to_thread, "run_sync", _inline),
        (anyio_asyncio.CancelScope, "__hash__", _scope_hash),
    ]
    kept = [(where, name, getattr(where, name)) for where, name, _ in replaced]
    for where, name, new in replaced:
        setattr(where, name, new)
    try:
        yield loop
    finally:
        for where, name, old in kept:
            setattr(where, name, old)
        _scopes.clear()
        loop.close()


_scopes: dict[int, tuple[int, Any]] = {}


def _scope_hash(scope: Any) -> int:
    """The order in which scopes were met, so that sets of them have one order."""
    found = _scopes.get(id(scope))
    if found is None:
        found = _scopes[id(scope)] = (len(_scopes), scope)
    return found[0]

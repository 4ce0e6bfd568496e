"""Places at which a test can kill the process: each step between two effects has a name.

``NATALOG_FAILPOINTS`` lists them, separated by commas: ``append.sent`` kills at the first passage,
``append.sent@3`` at the third.  Without the variable a failpoint costs a look into an empty table.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Final

VARIABLE: Final = "NATALOG_FAILPOINTS"
TURNS: Final = 4
"""Turns of the event loop in which what was given to a connection reaches its socket."""

_left: dict[str, int] = {}


def arm(text: str) -> None:
    """Set the failpoints of this process; the empty text disarms all."""
    _left.clear()
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, count = item.partition("@")
        _left[name] = int(count or 1)


def failpoint(name: str) -> None:
    """Kill the process here, as a power cut would, if the failpoint is armed and it is its turn."""
    if not _left or name not in _left:
        return
    _left[name] -= 1
    if _left[name] <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


def failpoint_soon(name: str) -> None:
    """The same while the caller waits for an answer: what it sends next is on its way by then."""
    if not _left or name not in _left:
        return
    loop = asyncio.get_running_loop()

    def again(turns: int) -> None:
        if turns:
            loop.call_soon(again, turns - 1)
        else:
            failpoint(name)

    again(TURNS)


arm(os.environ.get(VARIABLE, ""))

"""What people see while a command works: a bar, or a sentence with the seconds it takes.

Both are on stderr, and only where that is a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from natalog.cli.output import make_console


class Bar:
    """A progress bar of one task; without a total it only counts."""

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=None)
        self._total = 0

    def start(self, total: int) -> None:
        """So many steps there are."""
        self._total = total
        self._progress.update(self._task, total=total)

    def more(self, steps: int) -> None:
        """There are so many steps more."""
        self.start(self._total + steps)

    def say(self, what: str) -> None:
        """What is done now."""
        self._progress.update(self._task, description=what)

    def advance(self, steps: int) -> None:
        self._progress.advance(self._task, steps)

    def reach(self, done: int) -> None:
        self._progress.update(self._task, completed=done)


@contextmanager
def progress_bar(what: str, *, of_bytes: bool = False) -> Iterator[Bar]:
    """A bar that counts steps, or bytes."""
    console = make_console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if of_bytes else MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bar(progress, what)


@contextmanager
def working(what: str) -> Iterator[None]:
    """A sentence and the time, while somebody else works and does not say how far it is."""
    console = make_console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        progress.add_task(what, total=None)
        yield

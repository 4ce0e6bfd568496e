"""A small actor runtime on anyio: bounded mailboxes, supervision, asks with deadlines.

An actor is a task that handles the messages of its mailbox one after the other.  A message is any
object; one with a method ``fail(error)`` is told when it cannot be handled, so that whoever waits
for an answer gets one: a full mailbox refuses it with `Busy`, an actor that ends drains its
mailbox with errors.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable

import anyio
from anyio.abc import TaskGroup

from natalog.actors.mailbox import Mailbox, MailboxClosed, MailboxFull
from natalog.core.errors import (
    Busy,
    DeadlineExceeded,
    Internal,
    NatalogError,
    ServiceError,
    Unavailable,
)
from natalog.core.limits import ASK_TIMEOUT_S, MAILBOX_MESSAGES_MAX

log = logging.getLogger("natalog.runtime")

BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 5.0
CALM_S = 10.0
"""An actor that worked this long starts again with the shortest back-off."""
IDLE_POLL_S = 0.002
RETRY_AFTER_MS = 100
"""What a refused sender is told to wait."""
STOPPING = "The service is stopping."


@runtime_checkable
class Failable(Protocol):
    """A message whose sender wants to hear of a failure."""

    def fail(self, error: NatalogError) -> None:
        """Answer with ``error``; must not block."""


class Stop:
    """The message that ends an actor after those before it."""


class Ask:
    """A message with an answer: the receiver calls `reply` or `fail`, the sender `result`."""

    __slots__ = ("_done", "_error", "_value", "body")

    def __init__(self, body: Any) -> None:
        self.body = body
        self._done = anyio.Event()
        self._value: Any = None
        self._error: NatalogError | None = None

    def reply(self, value: Any) -> None:
        if not self._done.is_set():
            self._value = value
            self._done.set()

    def fail(self, error: NatalogError) -> None:
        if not self._done.is_set():
            self._error = error
            self._done.set()

    async def result(self, timeout_s: float = ASK_TIMEOUT_S) -> Any:
        """The reply; raises the error it failed with, or `DeadlineExceeded`."""
        with anyio.move_on_after(timeout_s):
            await self._done.wait()
        if not self._done.is_set():
            raise DeadlineExceeded(
                f"No answer came within {timeout_s:g} s.", timeout_ms=int(timeout_s * 1000)
            )
        if self._error is not None:
            raise self._error
        return self._value


class Actor:
    """Base class: override `on_message` and, where needed, the other hooks.

    An exception from `on_message` fails that message with `Internal`, calls `on_failure` and
    starts the actor again (`on_stop`, back-off, `on_start`); the messages behind it wait.
    ``busy``: a message is being handled.
    """

    name: str = "actor"
    mailbox_size: int = MAILBOX_MESSAGES_MAX

    def __init__(self) -> None:
        self._mailbox = Mailbox(self.mailbox_size)
        self._ended = anyio.Event()
        self._ready = anyio.Event()
        self._scope = anyio.CancelScope()
        self.restarts = 0
        self.busy = False
        self.failure: NatalogError | None = None

    # --- hooks -------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Prepare; runs before the first message and after every failure."""

    async def on_message(self, message: Any) -> None:
        """Handle one message."""
        raise NotImplementedError

    async def on_stop(self) -> None:
        """Give resources back; runs after `on_start` succeeded, also on failure."""

    async def on_failure(self, error: BaseException) -> None:
        """Hear of an exception, before the actor starts again."""

    # --- for senders -------------------------------------------------------------------------

    def tell(self, message: Any) -> None:
        """Put ``message`` into the mailbox; raises `Busy` when it is full."""
        try:
            self._mailbox.put_nowait(message)
        except MailboxFull:
            raise Busy(
                f"The mailbox of {self.name} is full.",
                actor=self.name,
                retry_after_ms=RETRY_AFTER_MS,
            ) from None
        except MailboxClosed:
            raise self._gone() from None

    async def put(self, message: Any) -> None:
        """Put ``message`` into the mailbox, waiting for room: for sources that can be slowed."""
        try:
            await self._mailbox.put(message)
        except MailboxClosed:
            raise self._gone() from None

    async def ask(self, body: Any, timeout_s: float = ASK_TIMEOUT_S) -> Any:
        """Send ``body`` as an `Ask` and wait for the answer."""
        message = Ask(body)
        self.tell(message)
        return await message.result(timeout_s)

    async def ready(self) -> None:
        """Wait until `on_start` is through or the actor has ended."""
        await self._ready.wait()

    async def stop(self) -> None:
        """End the actor at once and wait for it; messages that wait fail with `Unavailable`."""
        self._scope.cancel()
        await self._ended.wait()

    async def idle(self) -> None:
        """Wait until nothing waits and nothing is being handled: for senders that have stopped."""
        while not self.ended and (self.busy or self.depth):
            await anyio.sleep(IDLE_POLL_S)

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    @property
    def depth(self) -> int:
        """Messages that wait."""
        return len(self._mailbox)

    # --- for the actor itself ----------------------------------------------------------------

    def take_nowait(self) -> Any | None:
        """The next message if one waits."""
        return self._mailbox.take_nowait()

    def _gone(self) -> NatalogError:
        if self.failure is not None:
            return self.failure
        return Unavailable(f"{self.name} has ended.", actor=self.name)

    async def run(self, on_restart: Callable[[Actor], None] | None = None) -> None:
        """Live: start, handle messages, start again after failures, until stopped.

        A `NatalogError` from `on_start` is final, unless it is a `ServiceError` (which passes): it
        is kept in ``failure`` and every sender hears it.
        """
        backoff = BACKOFF_MIN_S
        try:
            with self._scope:
                while True:
                    began = time.monotonic()
                    try:
                        if await self._life():
                            return
                    except ServiceError as error:
                        log.warning("%s starts again: %s", self.name, error.message)
                        await self.on_failure(error)
                    except NatalogError as error:
                        log.error("%s cannot go on: %s", self.name, error.message)
                        self.failure = error
                        return
                    except Exception as error:
                        log.exception("%s failed and starts again", self.name)
                        await self.on_failure(error)
                    self.restarts += 1
                    if on_restart is not None:
                        on_restart(self)
                    if time.monotonic() - began > CALM_S:
                        backoff = BACKOFF_MIN_S
                    await anyio.sleep(backoff)
                    backoff = min(BACKOFF_MAX_S, backoff * 2)
        finally:
            self._drain()
            self._ready.set()
            self._ended.set()

    async def _life(self) -> bool:
        """One run from start to stop (True) or failure (an exception)."""
        await self.on_start()
        self._ready.set()
        try:
            while True:
                message = await self._mailbox.take()
                if isinstance(message, Stop):
                    return True
                self.busy = True
                try:
                    await self.on_message(message)
                except Exception as error:
                    fail(message, as_natalog(error))
                    raise Crash(f"{self.name}: {type(error).__name__}: {error}") from error
                except BaseException:
                    fail(message, self._gone())
                    raise
                finally:
                    self.busy = False
        finally:
            with anyio.CancelScope(shield=True):
                await self.on_stop()

    def _drain(self) -> None:
        self._mailbox.close()
        while (message := self.take_nowait()) is not None:
            fail(message, self._gone())


class Crash(Exception):
    """A message that an actor did not survive; it starts again."""


def fail(message: Any, error: NatalogError) -> None:
    """Tell the sender of ``message``, if it listens."""
    if isinstance(message, Failable):
        message.fail(error)


def as_natalog(error: BaseException) -> NatalogError:
    """``error`` itself, or an `Internal` in its place that gives away no details."""
    if isinstance(error, NatalogError):
        return error
    return Internal(
        f"Natalog failed on this request ({type(error).__name__}); the service goes on.",
        exception=type(error).__name__,
    )


class Runtime:
    """The actors of one process: starts them in a task group, counts restarts, stops them."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.tasks = tasks
        self.on_restart: Callable[[Actor], None] | None = None
        self._actors: dict[str, Actor] = {}

    def spawn(self, actor: Actor) -> Actor:
        """Start ``actor``; it runs until it ends or `stop` is called."""
        self._actors[actor.name] = actor
        self.tasks.start_soon(self._run, actor, name=actor.name)
        return actor

    def spawn_task(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Start a plain task beside the actors; its failure is logged and starts it again."""

        async def again() -> None:
            backoff = BACKOFF_MIN_S
            while True:
                try:
                    await work()
                    return
                except Exception:
                    log.exception("task %s failed and starts again", name)
                await anyio.sleep(backoff)
                backoff = min(BACKOFF_MAX_S, backoff * 2)

        self.tasks.start_soon(again, name=name)

    def actors(self) -> list[Actor]:
        return list(self._actors.values())

    async def stop(self) -> None:
        """Stop every actor, the youngest first."""
        for actor in reversed(self.actors()):
            await actor.stop()

    async def _run(self, actor: Actor) -> None:
        try:
            await actor.run(self.on_restart)
        finally:
            if self._actors.get(actor.name) is actor:
                del self._actors[actor.name]

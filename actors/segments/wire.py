"""A connection to NATS for those who may block: a thread of its own with a loop of its own.

A value that lacks a leaf loads it where the leaf is touched: in a query's thread, sometimes in the
event loop of the service.  Neither can await, and the loop that would answer may be the one that
waits.  So segments travel over a connection that shares nothing with the service's.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from natalog.actors.nats_port import CONNECT_TIMEOUT_S, NatsPort
from natalog.connection.access import Access
from natalog.core.errors import Unavailable

log = logging.getLogger("natalog.segments")

T = TypeVar("T")
Work = Callable[[NatsPort], Coroutine[Any, Any, T]]

CALL_TIMEOUT_S: Final = 30.0
LOOP_TIMEOUT_S: Final = 3.0
"""An event loop waits no longer: what it waits for may need the loop itself, such as a child
server that is to be started again."""
CLOSE_TIMEOUT_S: Final = 5.0


class Wire:
    """Connects when it is first used; all methods are thread-safe."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "natalog-segments",
        access: Access | None = None,
        replicated: bool = False,
    ) -> None:
        self._url = url
        self._replicated = replicated
        self._name = name
        self._access = access
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._port: NatsPort | None = None
        self._closed = False

    def call(self, work: Work[T], timeout_s: float | None = None) -> T:
        """What ``work`` returns, run with the connection on its thread.

        Raises what it raises, and `Unavailable` after the time-out.
        """
        return self.wait(self.submit(work), timeout_s)

    def submit(self, work: Work[T]) -> concurrent.futures.Future[T]:
        """Begin ``work``; `wait` for it later."""
        loop, port = self._connected()
        return asyncio.run_coroutine_threadsafe(work(port), loop)

    def wait(self, future: concurrent.futures.Future[T], timeout_s: float | None = None) -> T:
        """The result of what was submitted."""
        if timeout_s is None:
            timeout_s = LOOP_TIMEOUT_S if _in_loop() else CALL_TIMEOUT_S
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise Unavailable(f"NATS did not answer within {timeout_s:g} s.") from None
        except concurrent.futures.CancelledError:
            raise Unavailable("The connection for segments was closed.") from None

    def close(self) -> None:
        """Close the connection and end the thread."""
        with self._lock:
            self._closed = True
            self._end()

    # --- details -----------------------------------------------------------------------------

    def _connected(self) -> tuple[asyncio.AbstractEventLoop, NatsPort]:
        port, loop = self._port, self._loop
        if port is not None and loop is not None and not port.closed.is_set():
            return loop, port
        with self._lock:
            if self._closed:
                raise Unavailable("The connection for segments was closed.")
            if self._port is None or self._port.closed.is_set():
                self._end()
                self._begin()
            assert self._loop is not None and self._port is not None
            return self._loop, self._port

    def _begin(self) -> None:
        loop = new_loop()

        def run() -> None:
            asyncio.set_event_loop(loop)
            try:
                loop.run_forever()
            finally:
                _cancel_all(loop)
                loop.close()

        self._thread = threading.Thread(target=run, name=self._name, daemon=True)
        self._thread.start()
        self._loop = loop
        connecting = asyncio.run_coroutine_threadsafe(
            NatsPort.connect(
                self._url, name=self._name, access=self._access, replicated=self._replicated
            ),
            loop,
        )
        try:
            self._port = self.wait(connecting, CONNECT_TIMEOUT_S + 1)
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        port, loop, thread = self._port, self._loop, self._thread
        self._port = self._loop = self._thread = None
        if loop is None or thread is None:
            return
        if port is not None:
            closing = asyncio.run_coroutine_threadsafe(port.close(), loop)
            try:
                closing.result(CLOSE_TIMEOUT_S)
            except (concurrent.futures.TimeoutError, OSError) as error:
                log.debug("while closing: %r", error)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSE_TIMEOUT_S)


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop on uvloop, where there is one: it halves the cost of a round trip."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return made


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())

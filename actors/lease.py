"""Who takes the transactions: one process of all that could, by a lease.

The lease is the last message of a small stream.  Its holder renews it every `RENEW_S`; every write
is a compare-and-set on the stream's last sequence, so that a renewal proves that nobody has held
the lease in between, also when the message itself has expired meanwhile.  Whoever stands by hears
the renewals; when one is overdue it asks whether the holder is still connected, and takes the lease
at once when it is not, or when the message has expired (`TTL_S`, by the server's clock): a holder
that is stopped or cut off.

The lease is for promptness.  What makes two writers safe is the compare-and-set of every append to
a log.  What the lease adds is that a process which may have lost it says nothing about the state of
a branch: `valid` is a look at two clocks, `confirm` waits for the next renewal.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio

from natalog.actors.names import Names
from natalog.actors.nats_port import WRONG_LAST_SEQUENCE, JetStreamError, Message, NatsPort
from natalog.core.errors import DeadlineExceeded, Fenced, NatalogError, Unavailable

log = logging.getLogger("natalog.lease")

TTL_S: Final = 3
"""How long the server keeps a lease that is not renewed, in whole seconds."""
RENEW_S: Final = 1.0
VALID_S: Final = 2.5
"""So long after it was sent, a renewal still proves that nobody else holds the lease."""
OVERDUE_S: Final = 1.3
"""Without a renewal for this long, who stands by looks what has become of the holder."""
LOOK_S: Final = 0.2
"""Between two such looks, and between two attempts to renew without an answer."""
PROBE_S: Final = 0.5
PROBES: Final = 2
"""So many times in a row nobody must answer for the holder: it may be about to reconnect."""
PROBE_PAUSE_S: Final = 0.15


class LeaseLost(Fenced):
    """This process does not take transactions any more: another one does, or will."""

    code = "Fenced"

    def __init__(self) -> None:
        super().__init__("Another process takes the transactions now; nothing was done here.")


class Lease:
    """One process's view of the lease.

    `start` it, run `run` in a task, `release` it at the end.  ``held``: this process has taken it
    and has not heard of a loss; ``taken``: how often it has.  ``wanted``: it is to be taken when it
    is free; a loss clears it, and whoever has drawn the consequences sets it again.  ``changed`` is
    set whenever ``held`` changes; whoever looks after it clears it.
    """

    def __init__(self, port: NatsPort, names: Names, holder: str, *, replicas: int = 1) -> None:
        self.holder = holder
        self.held = False
        self.taken = 0
        self.wanted = True
        self.changed = asyncio.Event()
        self._port = port
        self._names = names
        self._replicas = replicas
        self._stream = names.lease_stream()
        self._subject = names.lease()
        self._seq = 0
        self._silent = 0
        self._renewed = _now()
        self._link = -1
        self._heard = time.monotonic()
        self._poke = asyncio.Event()
        self._turn = asyncio.Event()
        self._subscriptions: list[Any] = []

    # --- for those who answer ----------------------------------------------------------------

    def valid(self) -> bool:
        """Whether nobody else can hold the lease at this moment."""
        return (
            self.held and self._link == self._port.disconnects and _elapsed(self._renewed) < VALID_S
        )

    def claim(self) -> Callable[[], Awaitable[bool]]:
        """Finds out later whether the lease was this process's all the time since now."""
        taken = self.taken

        async def kept() -> bool:
            try:
                await self.confirm()
            except LeaseLost:
                return False
            return self.taken == taken

        return kept

    async def confirm(self) -> None:
        """Wait until the lease is `valid`; `LeaseLost` when it is gone."""
        while not self.valid():
            if not self.held:
                raise LeaseLost
            self._poke.set()
            await self._turn.wait()

    # --- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the lease if it is free or its holder gone, or learn that somebody has it."""
        self._port.on_reconnect.append(self._on_reconnect)
        alive = self._names.alive(self.holder)
        self._subscriptions = [
            await self._port.subscribe(alive, self._on_probe),
            await self._port.subscribe(self._subject, self._on_news),
            await self._port.subscribe(self._names.free(), self._on_free),
        ]
        # who probes must find us from the moment on at which we hold the lease
        await self._port.api("INFO")
        await self._try()

    async def run(self) -> None:
        """Renew the lease or wait for it, for ever."""
        while True:
            if self.held:
                await self._keep()
            else:
                await self._wait(LOOK_S)
                overdue = time.monotonic() - self._heard > OVERDUE_S
                if self.wanted and overdue and self._port.is_connected:
                    try:
                        await self._try()
                    except NatalogError as error:
                        log.info("the lease cannot be looked at: %s", error.message)

    async def release(self) -> None:
        """Give the lease back, so that another process takes it at once."""
        self.wanted = False
        if self._on_reconnect in self._port.on_reconnect:
            self._port.on_reconnect.remove(self._on_reconnect)
        if self.held:
            self._set(False)
            try:
                await self._write(self._seq, held=False)
                # only now: who hears of it finds it in the stream
                await self._port.publish(self._names.free(), b"")
            except NatalogError as error:
                log.info("the lease was not given back: %s", error.message)
        for subscription in self._subscriptions:
            await self._port.unsubscribe(subscription)

    # --- holding -----------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Renew once, when it is time; notice a loss."""
        if self.valid():
            await self._wait(RENEW_S - _elapsed(self._renewed))
            if not self.held:
                return
        try:
            lost = not await self._renew()
        except NatalogError as error:
            log.info("the lease was not renewed: %s", error.message)
            lost = False
        if lost:
            log.warning("the lease is lost")
            self.wanted = False
            self._set(False)
        self._turn.set()
        self._turn = asyncio.Event()
        if self.held and not self.valid():
            await anyio.sleep(LOOK_S)

    async def _renew(self) -> bool:
        """Whether the lease is still ours; errors leave that open."""
        try:
            await self._write(self._seq, held=True)
            return True
        except JetStreamError as error:
            if error.err_code != WRONG_LAST_SEQUENCE:
                raise
        except Unavailable:
            if self._port.is_connected and await self._port.stream_info(self._stream) is None:
                return False
            raise
        # an earlier renewal may have been stored although its receipt never came
        seq, holder, held = await self._look()
        if holder != self.holder or not held:
            return False
        self._seq = seq
        return True

    # --- standing by -------------------------------------------------------------------------

    async def _try(self) -> bool:
        """Take the lease unless somebody alive holds it."""
        seq, holder, held = await self._look()
        taken = held and holder != self.holder
        if taken and (seq == self._silent or not await self._gone(seq, holder)):
            return False
        try:
            await self._write(seq, held=True)
        except JetStreamError as error:
            if error.err_code != WRONG_LAST_SEQUENCE:
                raise
            return False
        log.info("the lease is taken")
        self._set(True)
        return True

    async def _gone(self, seq: int, holder: str) -> bool:
        """Whether nobody is there for ``holder``: its connection is closed, not just silent."""
        for turn in range(PROBES):
            if turn:
                await anyio.sleep(PROBE_PAUSE_S)
            try:
                await self._port.request(self._names.alive(holder), timeout_s=PROBE_S)
            except Unavailable:
                continue
            except DeadlineExceeded:
                self._silent = seq  # stopped or very busy: the server's clock decides
                return False
            self._heard = time.monotonic()
            return False
        return True

    # --- the stream --------------------------------------------------------------------------

    async def _look(self) -> tuple[int, str, bool]:
        """The stream's last sequence, who wrote it, and whether it is held."""
        info = await self._port.stream_info(self._stream)
        if info is None:
            await self._port.stream_create(
                {
                    "name": self._stream,
                    "subjects": [self._subject],
                    "storage": "file",
                    "retention": "limits",
                    "discard": "old",
                    "max_msgs": 1,
                    "num_replicas": self._replicas,
                    "allow_msg_ttl": True,
                    "allow_direct": True,
                }
            )
            return 0, "", False
        seq = int(info["state"]["last_seq"])
        expired = not info["state"]["messages"]
        message = None if expired else await self._port.read(self._stream, seq=seq)
        return (seq, "", False) if message is None else (seq, *_read(message.data))

    async def _write(self, expected: int, *, held: bool) -> None:
        link, began = self._port.disconnects, _now()
        body = {
            "holder": self.holder,
            "held": held,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        ack = await self._port.append(
            self._subject,
            json.dumps(body).encode(),
            expected_last=expected,
            stream=self._stream,
            ttl_s=TTL_S,
            timeout_s=RENEW_S,
        )
        self._seq, self._link, self._renewed = ack.seq, link, began

    # --- news --------------------------------------------------------------------------------

    def _set(self, held: bool) -> None:
        self.held = held
        self.taken += held
        self._heard = time.monotonic()
        self.changed.set()

    def _on_probe(self, message: Message) -> None:
        if message.reply:
            task = asyncio.get_running_loop().create_task(self._answer(message.reply))
            _ANSWERING.add(task)
            task.add_done_callback(_ANSWERING.discard)

    async def _answer(self, reply: str) -> None:
        try:
            await self._port.publish(reply, self.holder.encode())
        except NatalogError as error:
            log.debug("a probe was not answered: %s", error.message)

    def _on_news(self, message: Message) -> None:
        """Somebody has written, or has tried to: the stream says what came of it."""
        holder, held = _read(message.data)
        if holder == self.holder:
            return
        if self.held:
            self._renewed = _NEVER  # nothing is certain until it is renewed
            self._poke.set()
        elif held:
            self._heard = time.monotonic()

    def _on_free(self, message: Message) -> None:
        """The lease was given back."""
        if not self.held:
            self._heard = float("-inf")
            self._poke.set()

    def _on_reconnect(self) -> None:
        self._heard = time.monotonic()  # renewals may have passed unheard
        self._poke.set()

    async def _wait(self, seconds: float) -> None:
        """Sleep, unless there is news."""
        with anyio.move_on_after(max(0.0, seconds)):
            await self._poke.wait()
        self._poke.clear()


_ANSWERING: set[asyncio.Task[None]] = set()

_NEVER: Final = (float("-inf"), float("-inf"))
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", None)


def _now() -> tuple[float, float]:
    """A clock that also counts while the machine sleeps, and the one that people set."""
    steady = time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)
    return steady, time.time()


def _elapsed(since: tuple[float, float]) -> float:
    """Seconds that have certainly not been exceeded: of two clocks the one that went further.

    A virtual machine that was stopped may find its steady clock where it left it.
    """
    steady, wall = _now()
    return max(steady - since[0], wall - since[1])


def _read(data: bytes) -> tuple[str, bool]:
    """Who wrote a lease, and whether it is held; what is no lease is held by nobody."""
    try:
        body = json.loads(data)
        return str(body["holder"]), bool(body["held"])
    except (ValueError, TypeError, KeyError):
        return "", False


__all__ = ["Lease", "LeaseLost"]

"""The ingest streams of a branch: the one that takes messages now, and those it took over from.

Messages that are through are removed from an ingest stream, but only deleting the stream removes
their bytes.  So an erasure *hands over*: the stream loses its subject to a new one, whose sequence
numbers begin behind, and is deleted when everything in it is through.  Nothing that was
acknowledged is lost; a publisher that comes between the two is not acknowledged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from natalog.actors.failpoints import failpoint
from natalog.actors.names import Names
from natalog.actors.nats_port import NatsPort

log = logging.getLogger("natalog.inlets")

GENESIS_KEY: Final = "natalog-genesis"
"""Metadata of an ingest stream: the incarnation of the branch that it feeds."""
MARGIN: Final = 1_000_000
"""Numbers left free at a hand-over, for messages that the server has taken but not yet stored."""
FAILPOINTS: Final = ("erase.inlet.spent", "erase.inlet.made", "erase.inlet.removed")


@dataclass(frozen=True, slots=True)
class Inlet:
    """An ingest stream.  ``live``: it takes messages; ``number`` counts hand-overs."""

    stream: str
    live: bool
    number: int
    incarnation: str
    first_seq: int
    last_seq: int
    messages: int
    config: Mapping[str, Any]

    @property
    def newest(self) -> int:
        """Number of the newest message that was ever in it, 0 without one."""
        return self.last_seq if self.used else 0

    @property
    def used(self) -> bool:
        """Whether a message was ever in it, whose bytes may still be there."""
        return self.last_seq >= int(self.config.get("first_seq") or 1)


class Inlets:
    """The ingest streams of all branches."""

    def __init__(self, port: NatsPort, names: Names, *, replicas: int = 1) -> None:
        self._port = port
        self._names = names
        self._replicas = replicas

    async def all(self, database: str, branch: str) -> list[Inlet]:
        """The streams of a branch, oldest first; the last one is live, if any is."""
        names = self._names
        found = []
        for subject, live in (
            (names.ingest(database, branch), True),
            (names.spent(database, branch, "*"), False),
        ):
            for info in await self._port.streams(subject):
                stream = str(info["config"]["name"])
                number = names.inlet_of(database, branch, stream)
                if number is not None:
                    found.append(_inlet(info, stream, live, number))
        return sorted(found, key=lambda inlet: inlet.number)

    async def live(self, database: str, branch: str) -> Inlet | None:
        """The stream that takes messages."""
        first = await self._first(database, branch)
        if first is not None:
            return first
        found = await self.all(database, branch)
        return found[-1] if found and found[-1].live else None

    async def _first(self, database: str, branch: str) -> Inlet | None:
        """The stream that a branch began with, if it still takes messages: found at once."""
        stream = self._names.ingest_stream(database, branch)
        info = await self._port.stream_info(stream)
        if info is None or info["config"]["subjects"] != [self._names.ingest(database, branch)]:
            return None
        return _inlet(info, stream, True, 0)

    async def ensure(self, database: str, branch: str, incarnation: str) -> None:
        """See that a branch has an ingest stream; those of earlier incarnations go.

        Completes a hand-over that was cut short.
        """
        first = await self._first(database, branch)
        if first is not None and first.incarnation == incarnation:
            return  # as it is mostly
        kept = []
        for inlet in await self.all(database, branch):
            if inlet.incarnation == incarnation:
                kept.append(inlet)
            else:
                await self._port.stream_delete(inlet.stream)
        if not kept:
            await self._make(database, branch, incarnation, 0, 1)
        elif not kept[-1].live:
            last = kept[-1]
            begin = last.last_seq + 1 + MARGIN
            await self._make(database, branch, incarnation, last.number + 1, begin)

    async def remove(self, database: str, branch: str) -> None:
        """Delete the streams of a branch with everything in them."""
        for inlet in await self.all(database, branch):
            await self._port.stream_delete(inlet.stream)

    async def hand_over(self, database: str, branch: str) -> bool:
        """Let a new stream take messages, if the present one ever had any."""
        found = await self.all(database, branch)
        if not found:
            return False
        last = found[-1]
        if last.live:
            if not last.used:
                return False
            config = {
                **last.config,
                "subjects": [self._names.spent(database, branch, str(last.number))],
            }
            await self._port.api(f"STREAM.UPDATE.{last.stream}", config, timeout_s=15)
            failpoint("erase.inlet.spent")
        await self.ensure(database, branch, last.incarnation)
        failpoint("erase.inlet.made")
        return True

    async def mend(self, database: str, branch: str) -> None:
        """Complete a hand-over that was cut short."""
        found = await self.all(database, branch)
        if found and not found[-1].live:
            await self.ensure(database, branch, found[-1].incarnation)

    async def clear(self, database: str, branch: str, through: int) -> int:
        """Delete streams whose messages are through; how many are left that are not."""
        left = 0
        for inlet in await self.all(database, branch):
            if inlet.live:
                continue
            if inlet.last_seq > through and inlet.messages:
                left += 1
                continue
            await self._port.stream_delete(inlet.stream)
            failpoint("erase.inlet.removed")
        return left

    async def _make(
        self, database: str, branch: str, incarnation: str, number: int, first: int
    ) -> None:
        config: dict[str, Any] = {
            "name": self._names.ingest_stream(database, branch, number),
            "subjects": [self._names.ingest(database, branch)],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "num_replicas": self._replicas,
            "allow_direct": True,
            "duplicate_window": 120_000_000_000,
            "metadata": {GENESIS_KEY: incarnation},
        }
        if first > 1:
            config["first_seq"] = first
        await self._port.stream_create(config)


def _inlet(info: Mapping[str, Any], stream: str, live: bool, number: int) -> Inlet:
    config, state = info["config"], info["state"]
    return Inlet(
        stream,
        live,
        number,
        str((config.get("metadata") or {}).get(GENESIS_KEY, "")),
        int(state["first_seq"]),
        int(state["last_seq"]),
        int(state["messages"]),
        config,
    )

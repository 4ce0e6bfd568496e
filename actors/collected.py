"""What collections have swept: commits that are no longer to be read, whoever may still hold them.

A collection is an event of the whole database, so it is kept beside the logs, in a small stream of
its own.  Each message is the whole truth at its time; the last one counts, and appending is a
compare-and-set, so that two collections never undo each other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import anyio

from natalog.actors.names import Names
from natalog.actors.nats_port import JetStreamError, NatsPort
from natalog.core.codec import pack, unpack
from natalog.core.errors import LogCorrupt, NatalogError, Unavailable

VERSION: Final = 1
KEPT_MESSAGES: Final = 16
READ_ATTEMPTS: Final = 8
READ_PAUSE_S: Final = 0.01

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Collected:
    """``swept``: for each lane the places of swept commits in its log, as ranges with both ends.

    ``epoch`` counts collections.  ``lanes``: the highest lane that was ever used up to then; logs
    of deleted branches may be gone, their lanes are never used again.
    """

    epoch: int = 0
    lanes: int = 0
    swept: Mapping[int, Ranges] = field(default_factory=dict)

    def has(self, lane: int, spot: int) -> bool:
        """Whether the commit at a place was swept.  O(log ranges)."""
        ranges = self.swept.get(lane, ())
        at = bisect_right(ranges, (spot, 2**62)) - 1
        return at >= 0 and ranges[at][0] <= spot <= ranges[at][1]

    def encode(self) -> bytes:
        return pack(
            [VERSION, self.lanes, {lane: [list(r) for r in rs] for lane, rs in self.swept.items()}]
        )


def ranges_of(spots: Iterable[int]) -> Ranges:
    """Ascending numbers as ranges."""
    found: list[tuple[int, int]] = []
    for spot in spots:
        if found and found[-1][1] == spot - 1:
            found[-1] = (found[-1][0], spot)
        else:
            found.append((spot, spot))
    return tuple(found)


async def read_collected(port: NatsPort, names: Names, database: str) -> Collected:
    """The last collection; one that swept nothing where there was none."""
    stream = names.collected_stream(database)
    for attempt in range(READ_ATTEMPTS):
        try:
            message = await port.read(stream, last_by_subject=names.collected(database))
            break
        except (Unavailable, JetStreamError):
            # a stream that was just made does not answer at once
            if await port.stream_info(stream) is None:
                return Collected()
            if attempt + 1 == READ_ATTEMPTS:
                raise
            await anyio.sleep(READ_PAUSE_S * attempt)
    if message is None:
        return Collected()
    try:
        version, lanes, swept = unpack(message.data)
        if version != VERSION:
            raise LogCorrupt(f"A collection of {database} has version {version!r}.")
        epoch = int((message.headers or {})["Nats-Sequence"])
        ranges = {lane: tuple((a, b) for a, b in listed) for lane, listed in swept.items()}
        return Collected(epoch, lanes, ranges)
    except (NatalogError, TypeError, ValueError, KeyError) as error:
        raise LogCorrupt(f"The collections of {database} cannot be read.") from error


async def write_collected(
    port: NatsPort, names: Names, database: str, found: Collected, *, replicas: int = 1
) -> None:
    """Append what follows collection ``found.epoch``; `JetStreamError` when another one did."""
    stream, subject = names.collected_stream(database), names.collected(database)
    if found.epoch == 0:
        await port.stream_create(
            {
                "name": stream,
                "subjects": [subject],
                "storage": "file",
                "retention": "limits",
                "discard": "old",
                "max_msgs": KEPT_MESSAGES,
                "num_replicas": replicas,
                "allow_direct": True,
            }
        )
    await port.append(subject, found.encode(), expected_last=found.epoch, stream=stream)


__all__ = ["Collected", "ranges_of", "read_collected", "write_collected"]

"""What the HTTP monitoring of a nats-server tells: who listens to a feed, and how much fits.

The protocol has no way to ask a server for the subscriptions of others; its monitoring endpoint
does.  It knows the clients of this one server, not those of a whole cluster.
"""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

TIMEOUT_S = 2.0
PAGE_SUBSCRIPTIONS = 2048
SUBSCRIPTIONS_MAX = 16 * 1024
"""More subscriptions of a server are not looked through."""


@dataclass(frozen=True, slots=True)
class Monitored:
    """``feeds``: how many subscriptions each pattern of a feed's subject has.

    ``storage_max_bytes``: what JetStream may store, None without JetStream.
    """

    feeds: Counter[str] = field(default_factory=Counter)
    storage_max_bytes: int | None = None

    def subscribers(self, subject: str) -> int:
        """The subscriptions that hear ``subject``."""
        tokens = subject.split(".")
        return sum(n for pattern, n in self.feeds.items() if hears(pattern.split("."), tokens))


def look(url: str, last_token: str) -> Monitored:
    """Ask the monitoring endpoint at ``url``; blocks.

    Feeds are the subscriptions that end in ``last_token`` or a wildcard.  Raises OSError or
    ValueError when no fitting answer comes.
    """
    limits = _get(f"{url}/varz").get("jetstream", {}).get("config", {})
    feeds: Counter[str] = Counter()
    offset = 0
    while offset < SUBSCRIPTIONS_MAX:
        page = _get(f"{url}/subsz?subs=1&limit={PAGE_SUBSCRIPTIONS}&offset={offset}")
        listed = page.get("subscriptions_list") or []
        feeds.update(_feeds((str(item["subject"]) for item in listed), last_token))
        offset += len(listed)
        if not listed or offset >= int(page.get("total", 0)):
            break
    size = limits.get("max_storage")
    return Monitored(feeds, int(size) if isinstance(size, int) and size > 0 else None)


def hears(pattern: list[str], subject: list[str]) -> bool:
    """Whether a subscription to ``pattern`` hears ``subject``.

    >>> hears("natalog.*.db.report".split("."), "natalog.people.db.report".split("."))
    True
    >>> hears(["natalog", ">"], ["natalog"])
    False
    """
    for spot, token in enumerate(pattern):
        if token == ">":
            return len(subject) > spot
        if spot >= len(subject) or token not in ("*", subject[spot]):
            return False
    return len(pattern) == len(subject)


def _feeds(subjects: Iterable[str], last_token: str) -> Iterable[str]:
    for subject in subjects:
        end = subject.rpartition(".")[2]
        if end in (last_token, "*", ">") and not subject.startswith(("$", "_")):
            yield subject


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        found = json.loads(answer.read())
    if not isinstance(found, dict):
        raise ValueError(f"{url} does not answer as a nats-server does.")
    return found

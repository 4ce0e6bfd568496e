"""The connection to NATS that client and service share: who we are, and the protocol made safe."""

from __future__ import annotations

from natalog.connection.access import Access, shown_url
from natalog.connection.client import NatsClient, Violation

__all__ = ["Access", "NatsClient", "Violation", "shown_url"]

"""How long a client waits."""

from __future__ import annotations

from dataclasses import dataclass

from natalog.core.limits import ASK_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Timeout:
    """Seconds that a client waits, for everything it does.

    ``connect_s``: until the first connection to NATS stands.  ``request_s``: until an answer has
    come, retries included, unless a call names its own ``timeout=``.
    """

    connect_s: float = 5.0
    request_s: float = ASK_TIMEOUT_S

    def __post_init__(self) -> None:
        if self.connect_s <= 0 or self.request_s <= 0:
            raise ValueError(f"a timeout must be positive: {self}")

    @classmethod
    def of(cls, value: Timeout | float | None) -> Timeout:
        """A `Timeout` from a number of seconds for requests, another `Timeout`, or the default."""
        if value is None:
            return cls()
        return value if isinstance(value, Timeout) else cls(request_s=float(value))

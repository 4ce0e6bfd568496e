"""What NATS and JetStream answer, as values and errors of ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nats.errors import (
    ConnectionClosedError,
    ConnectionDrainingError,
    ConnectionReconnectingError,
    MaxPayloadError,
    NoRespondersError,
    OutboundBufferLimitError,
)
from nats.errors import TimeoutError as NatsTimeoutError

from natalog.core.errors import (
    DeadlineExceeded,
    NatalogError,
    StorageError,
    TooLarge,
    Unavailable,
)


@dataclass(slots=True)  # frozen ones take a microsecond to make
class PubAck:
    """JetStream's receipt."""

    stream: str
    seq: int
    duplicate: bool


@dataclass(slots=True)
class Letter:
    """A message as it travels; ``size``: of its payload."""

    frame: Any
    size: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """Messages that are no longer in a stream: those before the first, and some between."""

    first_seq: int
    seqs: frozenset[int]

    def __contains__(self, seq: object) -> bool:
        return seq in self.seqs or (isinstance(seq, int) and seq < self.first_seq)


class JetStreamError(StorageError):
    """JetStream refused a call; ``err_code`` is its number (10059: no such stream)."""

    code = "JetStream"
    default_type = "storage/jetstream"

    def __init__(self, message: str, *, err_code: int = 0, status: int = 0, **data: Any) -> None:
        super().__init__(message, err_code=err_code, status=status, **data)
        self.err_code = err_code
        self.status = status


CLUSTER_NOT_READY = 10008
STREAM_NOT_FOUND = 10059
STORE_NOT_CREATED = 10049
CONSUMER_NOT_FOUND = 10014
NO_MESSAGE = 10037
WRONG_LAST_SEQUENCE = 10071
STREAM_NAME_IN_USE = 10058


def translate(error: BaseException, subject: str) -> NatalogError:
    """One of our errors for one of nats-py's."""
    if isinstance(error, NoRespondersError):
        return Unavailable(f"Nobody listens on {subject}.", subject=subject, listening=False)
    if isinstance(error, (NatsTimeoutError, asyncio.TimeoutError)):
        return DeadlineExceeded(f"No answer came on {subject}.", subject=subject)
    if isinstance(error, MaxPayloadError):
        return TooLarge(f"The message to {subject} is larger than the server takes.")
    if isinstance(error, OutboundBufferLimitError):
        return Unavailable("The connection to NATS is down and its buffer full.", subject=subject)
    if isinstance(
        error, (ConnectionClosedError, ConnectionDrainingError, ConnectionReconnectingError)
    ):
        return Unavailable("The connection to NATS is closed.", subject=subject)
    return Unavailable(f"NATS failed on {subject}: {error}.", subject=subject)


def check_answer(answer: Mapping[str, Any], what: str) -> None:
    """Raise the `JetStreamError` that an answer to ``what`` describes, if it does."""
    error = answer.get("error")
    if error:
        raise JetStreamError(
            f"JetStream refused {what}: {error.get('description', 'no reason given')}.",
            err_code=int(error.get("err_code", 0)),
            status=int(error.get("code", 0)),
        )


def seconds(created: Any) -> float:
    """Seconds since 1970 of a time as JetStream writes it, with nanoseconds; now if unknown."""
    try:
        whole = str(created).split(".")[0].rstrip("Z")
        return datetime.fromisoformat(whole + "+00:00").timestamp()
    except ValueError:
        return time.time()

"""Discovery by the NATS Services API: PING, INFO and STATS of the service ``natalog``."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nats.aio.subscription import Subscription

from natalog.actors.metrics import package_version
from natalog.actors.nats_port import Message, NatsPort
from natalog.actors.requests import status_of
from natalog.core.errors import NatalogError

log = logging.getLogger("natalog.services")

NAME = "natalog"
_VERBS = {"PING": "ping_response", "INFO": "info_response", "STATS": "stats_response"}


@dataclass(slots=True)
class Counts:
    """What became of the requests of one endpoint."""

    requests: int = 0
    errors: int = 0
    nanoseconds: int = 0
    last_error: str = ""


class ServicesApi:
    """Answers ``$SRV.<verb>[.natalog[.<id>]]``.  ``endpoints``: (name, subject, queue group)."""

    def __init__(
        self, port: NatsPort, ident: str, endpoints: Sequence[tuple[str, str, str]]
    ) -> None:
        self._port = port
        self._id = ident
        self._endpoints = endpoints
        self._started = datetime.now(UTC)
        self._counts = {name: Counts() for name, _, _ in endpoints}
        self._subscriptions: list[Subscription] = []
        self._sending: set[asyncio.Task[None]] = set()

    def count(self, endpoint: str, seconds: float, error: NatalogError | None) -> None:
        """Note a request that has its answer."""
        counts = self._counts.get(endpoint)
        if counts is None:
            return
        counts.requests += 1
        counts.nanoseconds += int(seconds * 1e9)
        if error is not None:
            counts.errors += 1
            # the code alone: a sentence may hold values
            counts.last_error = f"{status_of(error)}:{error.code}"

    async def start(self) -> None:
        for verb in _VERBS:
            for subject in (
                f"$SRV.{verb}",
                f"$SRV.{verb}.{NAME}",
                f"$SRV.{verb}.{NAME}.{self._id}",
            ):
                self._subscriptions.append(await self._port.subscribe(subject, self._on_message))

    async def stop(self) -> None:
        for subscription in self._subscriptions:
            await self._port.unsubscribe(subscription)

    def _on_message(self, message: Message) -> None:
        verb = message.subject.split(".")[1]
        if message.reply:
            task = asyncio.get_running_loop().create_task(self._answer(verb, message.reply))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _answer(self, verb: str, reply: str) -> None:
        body: dict[str, Any] = {
            "type": f"io.nats.micro.v1.{_VERBS[verb]}",
            "name": NAME,
            "id": self._id,
            "version": _semantic(package_version()),
            "metadata": {"wire": "1"},
        }
        if verb == "INFO":
            body["description"] = "A temporal Datalog database"
            body["endpoints"] = [
                {"name": name, "subject": subject, "queue_group": queue, "metadata": {}}
                for name, subject, queue in self._endpoints
            ]
        elif verb == "STATS":
            body["started"] = self._started.isoformat().replace("+00:00", "Z")
            body["endpoints"] = [
                {
                    "name": name,
                    "subject": subject,
                    "queue_group": queue,
                    "num_requests": counts.requests,
                    "num_errors": counts.errors,
                    "last_error": counts.last_error,
                    "processing_time": counts.nanoseconds,
                    "average_processing_time": counts.nanoseconds // max(counts.requests, 1),
                }
                for name, subject, queue in self._endpoints
                for counts in (self._counts[name],)
            ]
        try:
            await self._port.publish(reply, json.dumps(body).encode())
        except NatalogError as error:
            log.info("a discovery answer was lost: %s", error.message)


def _semantic(version: str) -> str:
    """A version in the form that the Services API asks for."""
    parts = version.split(".")
    return version if len(parts) == 3 and all(part.isdigit() for part in parts) else "0.0.0"

"""Plans, costs and cancelling as they travel, in all forms of payload."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from natalog.actors.config import ServiceConfig
from natalog.actors.running import Running
from natalog.actors.service import running
from natalog.core.codec import pack
from natalog.core.edn import read
from natalog.core.errors import BadRequest, DeadlineExceeded, QueryCancelled
from natalog.core.values import Keyword

Config = Callable[..., ServiceConfig]
QUERY = "[:find ?e :where [?e :age ?a] [(> ?a 1)]]"


@pytest.mark.asyncio
async def test_plans_and_costs_travel_in_every_form(service_config: Config, asker: Any) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        await ask.ask("_._.create", {"database": "people", "schema_flexibility": "read"})
        await ask.ask("people.db.transact", [{"age": 1}, {"age": 2}])
        subject = "people.db.query"

        packed = await ask.ask(subject, {"query": QUERY, "explain": True})
        assert packed["kind"] == "plan" and packed["basis"]
        plan = packed["result"]
        assert plan.keys() == {"text", "steps", "stats"}
        assert plan["steps"][0].keys() == {"depth", "clause", "estimated", "bound", "rows"}
        assert plan["stats"].keys() == {"rows", "steps", "rows_touched", "elapsed_ms"}

        text = read(await ask.edn(subject, f"{{:query {QUERY} :explain true}}"))
        assert text[Keyword("steps")][0][Keyword("clause")] == "[?e :age ?a]"
        assert text[Keyword("stats")][Keyword("rows")] == 1

        headers = {"Content-Type": "application/json"}
        body = json.dumps({"query": QUERY, "stats": True}).encode()
        answer = json.loads((await ask.raw(subject, body, headers))[1])
        assert answer["result"] == [[2]] and answer["stats"]["rows"] == 1
        text = read(await ask.edn(subject, f"{{:query {QUERY} :stats true}}"))
        assert text[Keyword("result")] == {(2,)}
        packed = await ask.ask(subject, {"query": QUERY, "stats": True})
        assert (packed["result"], packed["stats"]["rows"]) == ([[2]], 1)


@pytest.mark.asyncio
async def test_nobody_answers_for_a_read_that_does_not_run(
    service_config: Config, asker: Any
) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        subject = "natalog.people.db.cancel"
        with pytest.raises(DeadlineExceeded):
            await service.port.request(subject, pack({"request_id": "none"}), timeout_s=0.3)
        wrong = await ask.ask("people.db.cancel", {"nonsense": 1})
        assert wrong["code"] == "BadRequest"


def test_a_read_goes_by_its_reply_subject_and_its_own_id() -> None:
    reads = Running()
    ticket = reads.open("_INBOX.1")
    reads.name(ticket, "mine")
    assert len(reads) == 2
    with pytest.raises(BadRequest):
        reads.name(reads.open("_INBOX.2"), "mine")
    for wrong in ("", "x" * 1000, 5, None):
        with pytest.raises(BadRequest):
            reads.name(ticket, wrong)
    assert not reads.cancel("other") and not reads.cancel(7)
    assert ticket.until(float("inf"))() is False
    assert reads.cancel("mine")
    with pytest.raises(QueryCancelled):
        ticket.until(float("inf"))()
    reads.close(ticket)
    assert not reads.cancel("_INBOX.1") and len(reads) == 1

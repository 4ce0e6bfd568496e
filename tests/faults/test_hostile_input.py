"""Thousands of bad requests over every endpoint: each gets a typed error and costs no more."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from hostile_corpus import BODIES, Bad, Corpus, RawClient, Reply

import natalog
from natalog.cli.check import check_branch
from natalog.core import errors
from natalog.core.codec import unpack
from natalog.core.codec_json import from_json
from natalog.core.edn import read

SEED = int(os.environ.get("NATALOG_HOSTILE_SEED", "1"))
SELECTION = 1_000
WHOLE = 12_000
AT_ONCE = 48
PATIENCE_S = 60.0
MEMORY_BYTES_MAX = 640 * 1024 * 1024
GROWTH_BYTES_MAX = 160 * 1024 * 1024
"""Between the first half of the requests and the second; what is in use stays the same, but pages
that once held something large are not given back when something small lies beside it."""
CODES = {
    value.code
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.NatalogError)
}


def resident_bytes(pid: int) -> int:
    fields = Path(f"/proc/{pid}/status").read_text().split()
    return int(fields[fields.index("VmRSS:") + 1]) * 1024


def outcome(reply: Reply | None) -> str:
    """``ok``, the code of a typed error, or what is wrong with the answer."""
    if reply is None:
        return "NO ANSWER"
    if reply.headers.get("Status") == "503":
        return "nobody listens there"
    if "Nats-Service-Error-Code" not in reply.headers:
        return "ok"
    kind = reply.headers.get("Content-Type", "")
    decode: Any = {
        "application/edn": lambda d: read(d.decode()),
        "application/json": from_json,
    }.get(kind, unpack)
    body = decode(reply.data)
    fields = {str(key).lstrip(":"): value for key, value in body.items()}
    if fields["code"] not in CODES or not fields["message"] or "data" not in fields:
        return f"UNTYPED {body!r}"
    assert reply.headers["Nats-Service-Error-Code"].isdigit()
    return str(fields["code"])


async def bombard(
    url: str, pid: int, count: int
) -> tuple[Counter[str], list[tuple[Bad, str]], list[int]]:
    """Send so many requests, many at once; outcomes, those that are wrong, memory at quarters."""
    raw = await RawClient.connect(url)
    outcomes: Counter[str] = Counter()
    wrong: list[tuple[Bad, str]] = []
    memory: list[int] = []
    places = asyncio.Semaphore(AT_ONCE)

    async def one(bad: Bad) -> None:
        try:
            found = outcome(await raw.send(bad, PATIENCE_S))
        finally:
            places.release()
        outcomes[found] += 1
        if found == "Internal" or found.isupper() or found.startswith(("NO ", "UNTYPED")):
            wrong.append((bad, found))

    step = max(1, count // 12)
    async with asyncio.TaskGroup() as tasks:
        for number, bad in enumerate(itertools.islice(Corpus(SEED), count)):
            await places.acquire()
            tasks.create_task(one(bad))
            if number % step == step - 1:
                memory.append(resident_bytes(pid))
    memory.append(resident_bytes(pid))
    await raw.close()
    return outcomes, wrong, memory


async def ingest(url: str, count: int) -> None:
    """Hand over so many bad transactions durably; each is rejected once, in its turn."""
    raw = await RawClient.connect(url, "natalog.target.db.report")
    bodies = (
        bad
        for bad in Corpus(SEED + 1)
        if bad.subject == b"natalog.target.db.transact" and len(bad.payload) < 100_000
    )
    last = Bad("last", b"", b'[{:name "last"}]', b"NATS/1.0\r\nNats-Msg-Id: last\r\n\r\n")
    for bad in [*itertools.islice(bodies, count), last]:
        headers = bad.headers if bad is last or b"Nats-" not in bad.headers else b""
        ack = await raw.send(bad._replace(subject=b"natalog.target.db.tx", headers=headers), 60)
        assert ack is not None
    told: list[Any] = []
    async with asyncio.timeout(PATIENCE_S):
        while not any(report.get("id") == "last" for report in told):
            await asyncio.sleep(0.05)
            told = [unpack(data) for _, data in raw.heard]
    await raw.close()
    # some have the id of another and are passed over
    assert count * 0.6 < len(told) <= count + 1
    assert all("rejected" in report or "tx" in report for report in told)
    assert all(r["rejected"]["code"] in CODES - {"Internal"} for r in told if "rejected" in r)


def shown(wrong: list[tuple[Bad, str]]) -> str:
    return "\n".join(
        f"{found}: {bad.kind} {bad.subject!r} {bad.headers[:200]!r} {bad.payload[:300]!r}"
        for bad, found in wrong[:20]
    )


async def hostile(lab: Any, count: int) -> None:
    broker = lab.broker()
    member = lab.member(broker.url).start()
    async with natalog.connect(broker.url, timeout=60) as client:
        for name in ("control", "target"):
            await client.create_database(name, schema_flexibility="read")
            await client.database(name).transact([{"name": "Ann", "age": 30}])
        control = client.database("control")
        before = await (await control.db()).datoms("eavt")

        outcomes, wrong, memory = await bombard(broker.url, member.pid, count)
        assert not wrong, shown(wrong)
        assert outcomes.total() == count
        assert len(outcomes) > 15
        refused = count - outcomes["ok"]
        assert refused > count * 0.7
        print(f"{count} requests: {outcomes.most_common()}; memory {memory}")
        assert max(memory) < MEMORY_BYTES_MAX
        half = len(memory) // 2
        if count == WHOLE:  # a few of the large ones are enough to reach what many need
            assert mean(memory[half:]) - mean(memory[2:half]) < GROWTH_BYTES_MAX, memory
        await ingest(broker.url, count // 20)

        # the service is none the worse for it
        assert member.alive
        assert await (await control.db()).datoms("eavt") == before
        await control.transact([{"name": "Bob", "age": 31}])
        assert await control.q("[:find ?n :where [?e :name ?n]]") == {("Ann",), ("Bob",)}
        for name in ("control", "target"):
            findings = await check_branch(client, name, "db")
            assert all(finding.good for finding in findings), findings
    assert "Traceback" not in member.log(), member.log()


@pytest.mark.asyncio
async def test_bad_requests_get_typed_errors(lab: Any) -> None:
    await hostile(lab, SELECTION)


@pytest.mark.faults
@pytest.mark.asyncio
async def test_ten_thousand_bad_requests_get_typed_errors(lab: Any) -> None:
    await hostile(lab, WHOLE)


def test_the_corpus_covers_every_endpoint() -> None:
    some = list(itertools.islice(Corpus(SEED), SELECTION))
    assert {bad.subject.rsplit(b".", 1)[1].decode() for bad in some} == set(BODIES)
    assert len({bad.kind for bad in some}) == 9

"""The shipped roles against a real nats-server: what docs/security.md says, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.nats_port import NatsPort
from natalog.actors.nats_server import NatsServer
from natalog.actors.reader import StreamReader
from natalog.actors.service import running
from natalog.connection import Access
from natalog.core.errors import Forbidden, NatalogError

ROOT = Path(__file__).parents[2]
ROLES = ("producer", "reader", "branch-writer", "admin", "metrics", "service")
USERS = ROLES[:-1]


def access(role: str) -> Access:
    return Access(user=role, password=f"of-{role}", inbox_prefix=f"_INBOX.{role}")


@pytest.fixture(autouse=True)
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ROLES:
        variable = role.upper().replace("-", "_")
        monkeypatch.setenv(f"NATALOG_{variable}_PASSWORD", f"of-{role}")


def expanded(text: str) -> Iterator[str]:
    """``a.{b,c}`` is ``a.b`` and ``a.c``."""
    pieces = [
        piece[1:-1].split(",") if piece.startswith("{") else [piece]
        for piece in re.findall(r"\{[^}]*\}|[^{]+", text)
    ]
    return map("".join, itertools.product(*pieces))


def documented() -> Iterator[tuple[str, str, str]]:
    """Subject, role and what it may do there."""
    lines = (ROOT / "docs" / "security.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| subject |"))
    assert [cell.strip() for cell in lines[start].split("|")[2:-1]] == list(ROLES)
    for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :]):
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        for subject in expanded(cells[0].strip("`")):
            for role, may in zip(ROLES, cells[1:], strict=True):
                if may == "own":
                    may = "s" if subject.startswith(f"_INBOX.{role}.") else "-"
                yield subject, role, may.replace("-", "")


async def found(url: str, role: str, subjects: list[str]) -> dict[str, str]:
    """What the server lets a role do with each subject."""
    port = await NatsPort.connect(url, access=access(role))
    refused: set[tuple[str, str]] = set()
    port.on_forbidden.append(lambda violation: refused.add((violation.verb, violation.subject)))
    for subject in subjects:
        if not subject.endswith(">") or subject.startswith("$JS.API"):
            await port.publish(subject, b"")
        await port.unsubscribe(await port.subscribe(subject, lambda _: None))
    await asyncio.sleep(0)
    await port._client.flush()
    await port.close()
    return {
        subject: ("p" if ("publish", subject) not in refused else "")
        + ("s" if ("subscribe", subject) not in refused else "")
        for subject in subjects
    }


@pytest.mark.asyncio
async def test_every_role_may_do_with_every_subject_what_is_documented(tmp_path: Path) -> None:
    table = list(documented())
    subjects = list(dict.fromkeys(subject for subject, _, _ in table))
    server = NatsServer(tmp_path, include=ROOT / "config" / "nats" / "roles.conf")
    await server.start()
    try:
        allowed = {role: await found(server.url, role, subjects) for role in ROLES}
    finally:
        await server.stop()
    differing = [
        (subject, role, f"documented {may or 'nothing'!r}, found {found_!r}")
        for subject, role, may in table
        if (found_ := allowed[role][subject]) != may
        # a pattern is something to subscribe to
        and not (
            subject.endswith(">") and not subject.startswith("$JS.API") and found_[1:] == may[1:]
        )
    ]
    assert not differing
    assert len(table) > 400


@pytest.mark.asyncio
async def test_every_endpoint_is_documented_for_every_role(tmp_path: Path) -> None:
    documented_ = {subject for subject, _, _ in documented()}
    async with running(ServiceConfig(data=tmp_path, listen="127.0.0.1:0")) as service:
        served = [subject for _, subject, _ in service._endpoints()]
    for subject in [*served, "natalog.*.*.cancel", "natalog.*.*.more", "natalog.*.*.tx"]:
        pattern = re.escape(subject.replace("*.info", "_.info")).replace(r"\*", r"\w+")
        assert any(re.fullmatch(pattern, one) for one in documented_), subject


@asynccontextmanager
async def secured(tmp_path: Path) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    """A service with the shipped roles, two databases, and a client of each role."""
    config = ServiceConfig(
        data=tmp_path / "data",
        listen="127.0.0.1:0",
        server_config=ROOT / "config" / "nats" / "roles.conf",
        access=access("service"),
    )
    async with running(config) as service:
        clients = {
            role: await natalog.connect(service.url, access=access(role), timeout=10)
            for role in USERS
        }
        try:
            for name in ("people", "orders"):
                await clients["admin"].create_database(name, schema_flexibility="read")
                await clients["admin"].database(name).transact([{"name": "Ann"}])
            await clients["admin"].database("people").branch("feature")
            yield service, clients
        finally:
            for client in clients.values():
                await client.close()


FIND = "[:find ?n :where [?e :name ?n]]"


@pytest.mark.asyncio
async def test_every_role_does_its_work(tmp_path: Path) -> None:
    async with secured(tmp_path) as (_, clients):
        people = {role: client.database("people") for role, client in clients.items()}
        async with people["reader"].reports() as feed:
            await people["producer"].transact([{"name": "Bob"}])
            await people["producer"].publish([{"name": "Cid"}])
            heard = [await asyncio.wait_for(anext(feed), 10) for _ in range(2)]
        assert len(heard) == 2
        assert await people["reader"].q(FIND) == {("Ann",), ("Bob",), ("Cid",)}
        replayed = []
        async for report in people["reader"].reports(since=0):
            replayed.append(report.tx)
            if report.tx == heard[-1].tx:
                break
        assert len(replayed) == 3

        writer = clients["branch-writer"].database("people", branch="feature")
        await writer.transact([{"name": "Dan"}])
        await writer.publish([{"name": "Eva"}])
        branch = clients["reader"].database("people", branch="feature")
        async for report in branch.reports(since=0):
            if any(datom.v == "Eva" for datom in report.tx_data):
                break
        assert ("Dan",) in await writer.q(FIND)

        await people["admin"].merge("feature", policy="theirs")
        assert ("Dan",) in await people["reader"].q(FIND)
        assert await people["reader"].branches() == {"db", "feature"}
        await people["admin"].gc(dry_run=True)
        assert len(await clients["metrics"].list_databases()) == 2
        assert (await people["metrics"].info())["datoms"] > 0


@pytest.mark.asyncio
async def test_what_is_not_allowed_is_forbidden_at_once(tmp_path: Path) -> None:
    async with secured(tmp_path) as (_, clients):
        people = {role: client.database("people") for role, client in clients.items()}
        orders = {role: client.database("orders") for role, client in clients.items()}
        feature = clients["reader"].database("people", branch="feature")

        async def first(feed: Any) -> Any:
            return await anext(aiter(feed))

        forbidden = [
            people["reader"].transact([{"name": "x"}]),
            people["reader"].publish([{"name": "x"}]),
            people["branch-writer"].transact([{"name": "x"}], id="1"),
            people["branch-writer"].publish([{"name": "x"}]),
            people["producer"].q(FIND),
            people["producer"].branches(),
            first(people["producer"].reports()),
            first(people["producer"].reports(since=0)),
            first(orders["reader"].reports()),
            first(orders["reader"].reports(since=0)),
            orders["reader"].q(FIND),
            orders["reader"].db(),
            orders["producer"].transact([{"name": "x"}]),
            people["reader"].branch("more"),
            people["reader"].merge("feature", policy="ours"),
            people["producer"].gc(),
            feature.transact([{"name": "x"}]),
            people["metrics"].q(FIND),
            clients["reader"].list_databases(),
            clients["producer"].create_database("mine"),
            clients["metrics"].delete_database("people"),
        ]
        for attempt in forbidden:
            async with asyncio.timeout(2):
                with pytest.raises(Forbidden) as refused:
                    await attempt
            assert refused.value.data["subject"]
        # and nobody is worse off for it
        assert await people["reader"].q(FIND) == {("Ann",)}


@pytest.mark.asyncio
async def test_a_wrong_inbox_is_forbidden_when_connecting(tmp_path: Path) -> None:
    async with secured(tmp_path) as (service, _):
        for prefix in (None, "_INBOX.admin"):
            with pytest.raises(Forbidden, match="inbox_prefix"):
                await natalog.connect(
                    service.url, user="reader", password="of-reader", inbox_prefix=prefix
                )


@pytest.mark.asyncio
async def test_requests_of_one_connection_are_told_apart(tmp_path: Path) -> None:
    """A refusal names a subject, not a call: names that differ in case are different."""
    async with secured(tmp_path) as (_, clients):
        reader = clients["reader"]
        allowed = [reader.database("people").q(FIND) for _ in range(20)]
        refused = [reader.database("People").db() for _ in range(20)]
        answers = await asyncio.gather(*allowed, *refused, return_exceptions=True)
        assert answers[:20] == [{("Ann",)}] * 20
        assert all(isinstance(answer, Forbidden) for answer in answers[20:])


@pytest.mark.asyncio
async def test_a_service_with_too_few_permissions_does_not_start(tmp_path: Path) -> None:
    include = tmp_path / "users.conf"
    include.write_text(
        "authorization { users: [ { user: natalog, password: x, permissions: {"
        ' publish: [">"], subscribe: ["_INBOX.>", "natalog.*.*.query"] } } ] }'
    )
    config = ServiceConfig(
        data=tmp_path / "data",
        listen="127.0.0.1:0",
        server_config=include,
        access=Access(user="natalog", password="x"),
    )
    with pytest.raises(Forbidden, match="subscribe natalog"):
        async with running(config):
            pass


@pytest.mark.asyncio
async def test_the_port_of_the_service_hears_refusals(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, include=ROOT / "config" / "nats" / "roles.conf")
    await server.start()
    try:
        port = await NatsPort.connect(server.url, access=access("reader"))
        async with asyncio.timeout(2):
            for attempt in (
                port.api("INFO"),
                port.stream_info("natalog=people=db=log"),
                port.read("natalog=people=db=log", seq=1),
                port.append("natalog.people.db.log", b""),
                port.streams("natalog.>"),
            ):
                with pytest.raises(Forbidden):
                    await attempt
        # a reader of streams hears it too: of its creation, of its pulls, of its inbox
        async with asyncio.timeout(5):
            with pytest.raises(Forbidden):
                await anext(StreamReader(port, "natalog=people=db=log").messages())
        await port.close()
        deaf = await NatsPort.connect(
            server.url, access=Access(user="reader", password="of-reader")
        )
        async with asyncio.timeout(2):
            with pytest.raises(NatalogError):
                await deaf.request("natalog.people.db.query", b"[]", timeout_s=30)
            with pytest.raises(Forbidden):
                await deaf.request("natalog.people.db.query", b"[]", timeout_s=30)
        await deaf.close()
    finally:
        await server.stop()


@pytest.mark.asyncio
async def test_a_reader_that_may_not_pull_hears_so(tmp_path: Path) -> None:
    include = tmp_path / "users.conf"
    include.write_text(
        "authorization { users: [ { user: all, password: x }, { user: some, password: x, "
        'permissions: { publish: { deny: ["$JS.API.CONSUMER.MSG.NEXT.>"] } } } ] }'
    )
    server = NatsServer(tmp_path / "server", include=include)
    await server.start()
    try:
        port = await NatsPort.connect(server.url, access=Access(user="all", password="x"))
        await port.stream_create({"name": "s", "subjects": ["s"], "storage": "memory"})
        await port.close()
        some = await NatsPort.connect(server.url, access=Access(user="some", password="x"))
        async with asyncio.timeout(5):
            with pytest.raises(Forbidden):
                await anext(StreamReader(some, "s").messages())
        await some.close()
    finally:
        await server.stop()

"""Rules of retention: the past goes when its time has come, by the service's own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import natalog
from natalog import kw
from natalog.actors.config import ServiceConfig
from natalog.actors.retention import Retention, Rules
from natalog.actors.searching import files_with
from natalog.actors.service import running
from natalog.core.errors import CommitNotFound, InvalidConfig

Config = Callable[..., ServiceConfig]
DAY_MS = 86_400_000
START_MS = 1_577_836_800_000
ADDRESSES = "[:find [?a ...] :where [_ :address ?a]]"


class Days:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = START_MS

    def __call__(self) -> int:
        return self.now

    def at(self, day: float) -> None:
        self.now = START_MS + int(day * DAY_MS)

    @property
    def instant(self) -> datetime:
        return datetime.fromtimestamp(self.now / 1000, UTC)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await true():
            await asyncio.sleep(0.05)


async def moved(client: natalog.Client, clock: Days) -> natalog.Conn:
    """Three addresses of one person, ten days each; a nickname that changes with them."""
    await client.create_database("people", schema_flexibility="read")
    conn = client.database("people")
    e = (await conn.transact([{"db/id": "x", "name": "Ann"}])).tempids["x"]
    for number in range(3):
        clock.at(10 * number)
        await conn.transact([{"db/id": e, "address": f"street-{number}", "nick": f"n{number}"}])
    return conn


async def history(conn: natalog.Conn, attr: str) -> set[Any]:
    db = (await conn.db()).history()
    return {d.v for d in await db.datoms("aevt", kw(attr))}


@pytest.mark.asyncio
async def test_ended_facts_go_and_their_bytes_where_it_is_said(service_config: Config) -> None:
    clock = Days()
    rules = {"history_days": {"address": 30}, "erase": True}
    config = service_config(gc_interval_s=0.1, retention=rules)
    async with running(config, clock) as service, natalog.connect(service.url) as client:
        conn = await moved(client, clock)
        await conn.branch("foo")
        clock.at(39)
        await asyncio.sleep(0.3)
        assert await history(conn, "address") == {"street-0", "street-1", "street-2"}
        clock.at(41)  # street-0 ended on day 10

        async def gone() -> bool:
            found = [await history(client.database("people", b), "address") for b in ("db", "foo")]
            return found == [{"street-1", "street-2"}] * 2

        await until(gone)
        assert await history(conn, "nick") == {"n0", "n1", "n2"}
        clock.at(30)
        assert await (await conn.db()).as_of(clock.instant).q(ADDRESSES) == ["street-2"]

        async def vanished() -> bool:
            return not files_with(config.data, b"street-0")

        await until(vanished)
        assert files_with(config.data, b"street-1")

        async def counted() -> bool:
            return "natalog_erased_facts_total 2.0" in service.metrics.text().decode()

        await until(counted)
        assert "natalog_retention_purged_total 2.0" in service.metrics.text().decode()


@pytest.mark.asyncio
async def test_old_commits_go_by_a_rule_of_the_database(service_config: Config) -> None:
    clock = Days()
    rules = {"commits_days": 1000, "databases": {"people": {"commits_days": 15}}}
    config = service_config(gc_interval_s=0.1, retention=rules)
    async with running(config, clock) as service, natalog.connect(service.url) as client:
        conn = await moved(client, clock)
        commits = await conn.branch_history()
        clock.at(40)

        async def swept() -> bool:
            try:
                await conn.commit_db(commits[-1].commit_id)
            except CommitNotFound:
                return True
            return False

        await until(swept)
        assert await (await conn.commit_db(commits[0].commit_id)).q(ADDRESSES) == ["street-2"]
        past = (await conn.db()).as_of(datetime(2020, 1, 12, tzinfo=UTC))
        assert await past.q(ADDRESSES) == ["street-1"]


@pytest.mark.asyncio
async def test_a_dry_run_says_what_would_go(service_config: Config) -> None:
    clock = Days()
    config = service_config(retention={"history_days": {"address": 5, "absent": 1}})
    async with running(config, clock) as service, natalog.connect(service.url) as client:
        conn = await moved(client, clock)
        found = await conn.gc(dry_run=True)
        assert found["retention"] == [{"branch": "db", "attribute": "address", "facts": 1}]
        assert len(await history(conn, "address")) == 3
        assert (await conn.gc())["retention"] == []
        assert len(await history(conn, "address")) == 3


def test_rules_are_read_from_tables_and_from_the_environment() -> None:
    text = '{"history_days": {":a/b": 7}, "databases": {"one": {"commits_days": 1, "erase": true}}}'
    found = ServiceConfig.load(None, {"NATALOG_RETENTION": text}).retention
    assert found.for_database("other") == Rules({"a/b": 7.0})
    assert found.for_database("one") == Rules({"a/b": 7.0}, 1.0, True)
    assert Retention.of(str(found)) == found


@pytest.mark.parametrize(
    "rules",
    ["{", [], {"days": 1}, {"history_days": 3}, {"history_days": {"a": 0}}, {"commits_days": "x"},
     {"erase": 1}, {"databases": {"a": {"b": 1}}}, {"databases": 1}, {"commits_days": True}],
)  # fmt: skip
def test_rules_that_do_not_fit_are_refused(rules: Any) -> None:
    with pytest.raises(InvalidConfig):
        ServiceConfig(retention=rules)

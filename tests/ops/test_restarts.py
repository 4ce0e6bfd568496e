"""Stop, kill, start again: what was acknowledged is there, and nothing else has changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from typing import Any

import anyio
import pytest

import natalog
from natalog.core.values import kw

pytestmark = pytest.mark.asyncio


async def dump(url: str) -> Any:
    """Everything that a database holds, past and present, and what it says of itself."""
    async with natalog.connect(url) as client:
        conn = client.database("people")
        db = await conn.db()
        history = await db.history().datoms("eavt")
        info = await conn.info()
        commits = await conn.branch_history()
        schema = await db.schema()
        del info["log_sequence"]
        return history, info, [(c.commit_id, c.parents, c.tx, c.instant) for c in commits], schema


async def fill(url: str) -> list[int]:
    async with natalog.connect(url) as client:
        await client.create_database(
            "people",
            initial_tx=[
                {
                    kw("db/ident"): kw(name),
                    kw("db/valueType"): kw(f"db.type/{kind}"),
                    kw("db/cardinality"): kw("db.cardinality/one"),
                    **extra,
                }
                for name, kind, extra in (
                    ("name", "string", {kw("db/unique"): kw("db.unique/identity")}),
                    ("age", "long", {}),
                    ("at", "instant", {}),
                    ("share", "double", {}),
                )
            ],
        )
        conn = client.database("people")
        reports = []
        for number in range(30):
            reports.append(
                await conn.transact(
                    [{"name": f"p{number % 7}", "age": number, "share": number / 3}],
                    id=f"id-{number}",
                )
            )
        reports.append(await conn.transact([["db/retract", ["name", "p1"], "age"]]))
        reports.append(await conn.transact([["db.purge/entity", ["name", "p2"]]]))
        reports.append(await conn.transact([["db/retractEntity", ["name", "p3"]]]))
        await conn.publish([{"name": "published"}], id="published")
        return [report.tx for report in reports]


async def until_served(url: str) -> None:
    """The server is back before the service has noticed; wait for both."""
    with anyio.fail_after(15):
        while True:
            with contextlib.suppress(natalog.NatalogError):
                async with natalog.connect(url) as client:
                    await client.database("people").info(timeout=2)
                    return
            await asyncio.sleep(0.05)


async def until_quiet(url: str) -> None:
    async with natalog.connect(url) as client:
        conn = client.database("people")
        with anyio.fail_after(10):
            while not await (await conn.db()).q('[:find ?e :where [?e :name "published"]]'):
                await asyncio.sleep(0.02)


async def test_a_clean_stop_and_start_change_nothing(serving: Any) -> None:
    url = serving.start()
    await fill(url)
    await until_quiet(url)
    before = await dump(url)
    assert serving.terminate() == 0
    assert await dump(serving.start()) == before
    assert serving.terminate() == 0


async def test_killing_the_service_changes_nothing(serving: Any) -> None:
    url = serving.start()
    await fill(url)
    await until_quiet(url)
    before = await dump(url)
    serving.kill()
    assert await dump(serving.start()) == before


@pytest.mark.parametrize("victim", ["service", "nats"])
async def test_branches_survive_a_kill(serving: Any, victim: str) -> None:
    url = serving.start()
    async with natalog.connect(url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        first = await conn.transact([{"n": 0}])
        for name in ("a", "b", "gone"):
            await conn.branch(name)
            report = await client.database("people", name).transact([{"n": 1}, {"n": 2}])
        await conn.merge(["a", "b"], [{"n": 3}])
        await conn.branch("old", from_=first.tx)
        await conn.force_branch("b", (await conn.db()).with_([{"n": 4}]), parents=["a"])
        await conn.delete_branch("gone")
        await conn.branch("last", from_=report.commit_id)
    before = await branches(url)
    assert {len(one[0]) for one in before.values()} >= {2, 6}
    if victim == "service":
        serving.kill()
        url = serving.start()
    else:
        serving.kill_nats()
        await until_served(url)
    assert await branches(url) == before
    async with natalog.connect(url) as client:
        conn = client.database("people")
        assert (await conn.gc())["removed"] == 0, "merged, or the beginning of a branch"
        commits = {
            (await client.database("people", n).transact([{"n": 9}])).commit_id for n in before
        }
        assert len(commits) == len(before)


async def branches(url: str) -> dict[str, Any]:
    """The facts, the head and the history of every branch."""
    found = {}
    async with natalog.connect(url) as client:
        for name in await client.database("people").branches():
            conn = client.database("people", name)
            info = await conn.info()
            found[name] = (
                await (await conn.db()).history().datoms("eavt"),
                [info[key] for key in ("commit_id", "parents", "max_tx", "max_eid", "lane")],
                await conn.branch_history(),
            )
    return found


async def test_killing_nats_changes_nothing(serving: Any) -> None:
    url = serving.start()
    await fill(url)
    await until_quiet(url)
    before = await dump(url)
    serving.kill_nats()
    await until_served(url)
    assert await dump(url) == before
    async with natalog.connect(url) as client:
        assert (await client.database("people").transact([{"name": "after"}])).tx


@pytest.mark.parametrize("victim", ["service", "nats"])
async def test_no_acknowledged_transaction_is_lost_under_load(serving: Any, victim: str) -> None:
    url = serving.start()
    async with natalog.connect(url) as client:
        await client.create_database("people", schema_flexibility="read")
    acknowledged: dict[str, int] = {}
    unknown: list[str] = []
    go_on = True

    async def write(writer: int) -> None:
        async with natalog.connect(url) as client:
            conn = client.database("people")
            number = 0
            while go_on:
                ident = f"{writer}-{number}"
                try:
                    report = await conn.transact([{"key": ident}], id=ident, timeout=8)
                    acknowledged[ident] = report.tx
                    number += 1
                except natalog.NatalogError:
                    # unknown, so the same transaction is sent again until the outcome is known
                    unknown.append(ident)
                    await asyncio.sleep(0.05)

    async with anyio.create_task_group() as tasks:
        for writer in range(6):
            tasks.start_soon(write, writer)
        for _ in range(3):
            await asyncio.sleep(0.4)
            if victim == "nats":
                serving.kill_nats()
            else:
                serving.kill()
                serving.start()
        await asyncio.sleep(0.6)
        go_on = False
    assert len(acknowledged) > 20
    async with natalog.connect(serving.url) as client:
        rows = await (await client.database("people").db()).q(
            "[:find ?k ?t :where [?e :key ?k ?t]]", timeout=20
        )
    stored: dict[str, int] = {}
    for key, tx in rows:
        assert key not in stored, "applied twice"
        stored[key] = tx
    assert {key: stored.get(key) for key in acknowledged} == acknowledged
    for writer in range(6):
        own = [
            tx for key, tx in sorted(stored.items(), key=_number) if key.startswith(f"{writer}-")
        ]
        assert own == sorted(own), "a client's own order is kept"


def _number(item: tuple[str, int]) -> int:
    return int(item[0].partition("-")[2])


async def test_a_taken_port_and_a_taken_directory_are_clear_errors(
    serving: Any, tmp_path: Any
) -> None:
    serving.start()
    from natalog.actors.config import ServiceConfig
    from natalog.actors.service import running

    with pytest.raises(natalog.NatalogError) as caught:
        async with running(ServiceConfig(data=tmp_path / "other", listen=serving.listen)):
            raise AssertionError("it started")
    assert caught.value.code == "PortInUse" and serving.listen in str(caught.value)
    with pytest.raises(natalog.NatalogError) as caught:
        async with running(ServiceConfig(data=serving.data, listen="127.0.0.1:0")):
            raise AssertionError("it started")
    assert caught.value.code == "DataDirectoryInUse"
    async with natalog.connect(serving.url) as client:
        assert await client.list_databases() == []


async def test_a_corrupt_log_is_not_served(serving: Any) -> None:
    url = serving.start()
    await fill(url)
    serving.terminate()
    blocks = next(path for path in serving.data.rglob("*.blk") if b"p1" in path.read_bytes())
    data = bytearray(blocks.read_bytes())
    spot = data.rindex(b"p1")
    data[spot] ^= 0x01
    blocks.write_bytes(data)
    url = serving.start()
    async with natalog.connect(url) as client:
        with pytest.raises(natalog.NatalogError) as caught:
            db = await client.database("people").db()
            await db.q("[:find ?n :where [_ :name ?n]]")
        # nats-server drops what it finds damaged; what is left has a hole or a broken chain
        assert caught.value.code in ("LogCorrupt", "DatabaseNotFound")
        await client.create_database("healthy", schema_flexibility="read")
        assert (await client.database("healthy").transact([{"n": 1}])).tx


async def test_metrics_and_health_are_served_on_loopback(serving: Any) -> None:
    from natalog.actors.config import ServiceConfig
    from natalog.actors.service import running

    config = ServiceConfig(data=serving.data, listen="127.0.0.1:0", metrics_port=0)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        await conn.transact([{"n": 1}])
        await (await conn.db()).q("[:find ?n :where [_ :n ?n]]")
        with contextlib.suppress(natalog.NatalogError):
            await conn.transact([7])

        def get(path: str) -> str:
            url = f"http://127.0.0.1:{service.metrics_port}{path}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())

        text = await asyncio.to_thread(get, "/metrics")
        for line in (
            'natalog_transactions_total{branch="db",database="people",outcome="committed"} 1.0',
            'natalog_transactions_total{branch="db",database="people",outcome="rejected"} 1.0',
            'natalog_log_last_sequence{branch="db",database="people"} 2.0',
            'natalog_index_datoms{branch="db",database="people"} 2.0',
            'natalog_query_duration_seconds_count{outcome="ok"}',
            'natalog_mailbox_depth{actor="transactor"} 0.0',
            "natalog_build_info{version=",
        ):
            assert line in text, line
        assert await asyncio.to_thread(get, "/healthz/live") == "ok\n"
        assert await asyncio.to_thread(get, "/healthz/ready") == "ok\n"
        with pytest.raises(urllib.error.HTTPError):
            await asyncio.to_thread(get, "/nothing")


async def test_the_service_is_found_by_discovery(serving: Any) -> None:
    url = serving.start()
    async with natalog.connect(url) as client:
        nats = client._session.transport.nats
        info = json.loads((await nats.request("$SRV.INFO.natalog", b"", timeout=5)).data)
        assert info["name"] == "natalog" and info["type"] == "io.nats.micro.v1.info_response"
        subjects = {endpoint["name"]: endpoint["subject"] for endpoint in info["endpoints"]}
        assert subjects["query"] == "natalog.*.*.query"
        assert subjects["create"] == "natalog._._.create"
        ping = json.loads((await nats.request("$SRV.PING", b"", timeout=5)).data)
        assert ping["id"] == info["id"]
        stats = json.loads(
            (await nats.request(f"$SRV.STATS.natalog.{info['id']}", b"", timeout=5)).data
        )
        assert {endpoint["name"] for endpoint in stats["endpoints"]} == set(subjects)

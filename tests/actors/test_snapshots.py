"""Snapshots: what a branch opens from is what its log says, whatever became of the segments."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.service import Service, running
from natalog.actors.snapshot_refs import SNAPSHOTS_MAX, SnapshotList, SnapshotRef, thinned
from natalog.actors.tables import CHUNK_ENTRIES, Commits, Idents, Place
from natalog.core.chain import commit_id
from natalog.core.errors import LogCorrupt
from natalog.core.values import kw

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]

SCHEMA = [
    {
        kw("db/ident"): kw(name),
        kw("db/valueType"): kw(f"db.type/{kind}"),
        kw("db/cardinality"): kw("db.cardinality/one"),
        **extra,
    }
    for name, kind, extra in (
        ("name", "string", {kw("db/unique"): kw("db.unique/identity")}),
        ("age", "long", {kw("db/index"): True}),
        ("share", "double", {}),
    )
]
COUNT = "[:find (count ?e) . :where [?e :age]]"


async def fill(conn: natalog.Conn, count: int, *, start: int = 0, size: int = 20) -> list[Any]:
    """Transactions with ids that add, change, retract and purge."""
    reports = []
    for number in range(start, start + count):
        people = [
            {"name": f"p{number}-{spot}", "age": number * 31 + spot, "share": spot / 7}
            for spot in range(size)
        ]
        if number > start:
            people[0] = {"name": f"p{number - 1}-1", "age": -number}
        reports.append(await conn.transact(people, id=f"id-{number}"))
    await conn.transact([["db/retractEntity", ["name", f"p{start}-2"]]])
    await conn.transact([["db.purge/entity", ["name", f"p{start}-3"]]])
    return reports


async def everything(conn: natalog.Conn) -> Any:
    """All that a branch says of itself."""
    db = await conn.db()
    info = await conn.info()
    commits = await conn.branch_history()
    return (
        await db.history().datoms("eavt"),
        await db.datoms("avet", kw("age")),
        info,
        [(c.commit_id, c.parents, c.tx, c.instant) for c in commits],
        await db.schema(),
    )


def counted(service: Service, outcome: str) -> int:
    found = service.metrics.registry.get_sample_value(
        "natalog_snapshots_total", {"outcome": outcome}
    )
    return int(found or 0)


async def segments(service: Service, database: str = "people") -> dict[str, int]:
    """The segments that JetStream holds, and their stream sequences."""
    store = service.snapshots.vault(database).store
    return await anyio.to_thread.run_sync(store.sizes)


async def damage(service: Service, names: list[str], *, corrupt: bool) -> None:
    """Remove segments behind everybody's back, or put wrong bytes in their place."""
    store = service.snapshots.vault("people").store
    generation = store.generations().current
    for name in names:
        subject = f"natalog.people._.segments.{generation}.{name}"
        stream = f"natalog=people=_=segments_{generation}"
        found = await service.port.read(stream, last_by_subject=subject)
        assert found is not None
        seq = int((found.headers or {})["Nats-Sequence"])
        await service.port.api(f"STREAM.MSG.DELETE.{stream}", {"seq": seq})
        if corrupt:
            await service.port.append(subject, found.data[:-1] + b"?")


# --- opening -------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["jetstream", "file", "memory"])
async def test_a_restart_from_a_snapshot_changes_nothing(
    service_config: Config, tmp_path: Path, store: str
) -> None:
    where = (tmp_path / "segments").as_uri() if store == "file" else store
    config = service_config(segment_store=where)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        await conn.publish([{"name": "published", "age": 1}], id="published")
        first = await fill(conn, 8)
        assert (await conn.snapshot())["written"]
        await fill(conn, 3, start=100)
        before = await everything(conn)
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        assert await everything(conn) == before
        assert counted(service, "loaded") == (store != "memory")
        again = await conn.transact([{"name": "other"}], id="id-3")
        assert (again.tx, again.repeated) == (first[3].tx, True), "the id was in the snapshot"
        tx = (await conn.transact([{"name": "more"}])).tx
        assert tx == before[2]["max_tx"] + 1
        ages = await (await conn.db()).q(
            '[:find [?a ...] :where [?e :name "published"] [?e :age ?a]]'
        )
        assert list(ages) == [1], "applied once, and not again"
        await conn.publish([{"name": "published", "age": 2}], id="second")
        with anyio.fail_after(5):
            while not await (await conn.db()).q("[:find ?e :where [?e :age 2]]"):
                await asyncio.sleep(0.01)


async def test_an_unchanged_branch_needs_no_second_snapshot(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        await fill(conn, 3)
        first = await conn.snapshot()
        assert first["written"] and first["segments"] > 0 and first["bytes"] > 0
        assert first["tx"] == (await conn.info())["max_tx"]
        again = await conn.snapshot()
        assert not again["written"] and again["log_sequence"] == first["log_sequence"]
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        assert not (await conn.snapshot())["written"], "nor does the next process"
        await conn.transact([{"name": "one"}])
        more = await conn.snapshot()
        assert more["written"] and more["segments"] < first["segments"]


async def test_snapshots_are_written_by_themselves(service_config: Config) -> None:
    config = service_config(snapshot_datoms=3000, snapshot_interval_s=1e6)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        await fill(conn, 10)
        await asyncio.sleep(1.2)
        assert counted(service, "written") == 0, "too few changes, and too early"
        await fill(conn, 20, start=100, size=60)
        with anyio.fail_after(10):
            while not counted(service, "written"):
                await asyncio.sleep(0.05)
        text = service.metrics.text().decode()
        assert 'natalog_snapshot_age_seconds{branch="db",database="people"}' in text
        assert 'natalog_segment_store_bytes{database="people"}' in text
    config = service_config(snapshot_datoms=10**6, snapshot_interval_s=0.5)
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        await fill(conn, 10, start=200, size=60)
        with anyio.fail_after(10):
            while not counted(service, "written"):
                await asyncio.sleep(0.05)


async def test_old_commits_are_read_from_the_snapshot_before_them(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        expected = {}
        for number in range(30):
            report = await conn.transact([{"name": f"p{number % 7}", "age": number}])
            expected[report.commit_id] = await (await conn.db()).datoms("eavt")
            if number % 2:
                await conn.snapshot()
        listed = await service.snapshots._listed("people", 0)
        assert len(listed.refs) == SNAPSHOTS_MAX
        refs = listed.refs
        found = await service.snapshots.before("people", 0, tx=refs[3].tx)
        assert found == refs[3]
        found = await service.snapshots.before("people", 0, seq=refs[3].seq - 1)
        assert found == refs[4]
        assert await service.snapshots.before("people", 0, seq=refs[-1].seq - 1) is None
        assert await service.snapshots.newest("people", 0) == refs[0]
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        for commit, datoms in expected.items():
            assert await (await conn.commit_db(commit)).datoms("eavt") == datoms
        assert counted(service, "loaded") > SNAPSHOTS_MAX


async def test_branches_begin_in_snapshots_and_share_them(service_config: Config) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        await fill(conn, 40, size=200)
        whole = await conn.snapshot()
        size = sum((await segments(service)).values())
        for name in ("quiet", "busy"):
            await conn.branch(name)
        assert sum((await segments(service)).values()) == size, "a branch costs no segment"
        busy = client.database("people", "busy")
        await busy.transact([{"name": "p1-1", "age": 7_777}])
        part = await busy.snapshot()
        assert part["written"] and part["bytes"] < whole["bytes"] / 2
        await busy.transact([{"name": "p1-1", "age": 8_888}])
        await conn.transact([{"name": "p1-1", "age": 9_999}])
        before = {
            name: await everything(client.database("people", name))
            for name in ("db", "quiet", "busy")
        }
    async with running(config) as service, natalog.connect(service.url) as client:
        for name in ("busy", "quiet", "db"):
            assert await everything(client.database("people", name)) == before[name]
        pools = {id(state.db.pool) for state in service.hub.states()}
        assert len(pools) == 1, "values of one database share what is in memory"
        assert await client.database("people").merge("busy", policy="theirs")


async def test_two_services_know_of_each_others_snapshots(service_config: Config) -> None:
    async with (
        running(service_config()) as one,
        running(service_config(nats=one.url, role="query")) as two,
        natalog.connect(one.url) as client,
    ):
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        await fill(conn, 10)
        await conn.snapshot()
        before = await everything(conn)
        async with running(service_config(nats=one.url, role="query")) as three:
            db = await three.hub.value("people", "db", None, 5)
            assert counted(three, "loaded") == 1
            assert len(db) == (await conn.info())["datoms"]
        await two.hub.open("people", "db")
        written = await two.snapshots.write(two.hub.states()[0])
        assert not written.fresh, "there is one already, although this process has none written"
        report = await conn.transact([{"name": "more"}])
        await two.hub.value("people", "db", report.tx, 5)
        assert (await two.snapshots.write(two.hub.states()[0])).fresh
        await conn.transact([{"name": "most"}])
        assert (await conn.snapshot())["written"]
        assert await everything(conn) != before


# --- logs that do not fit ------------------------------------------------------------------------


async def test_a_log_that_lost_its_end_is_refused(service_config: Config, tmp_path: Path) -> None:
    config, aside = service_config(), tmp_path / "aside"
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", initial_tx=SCHEMA)
        await fill(client.database("people"), 3)
    stream = config.data / "nats" / "jetstream" / "$G" / "streams" / "natalog=people=db=log"
    shutil.copytree(stream, aside)
    async with running(config) as service, natalog.connect(service.url) as client:
        await fill(client.database("people"), 3, start=10)
        await client.database("people").snapshot()
    shutil.rmtree(stream)
    shutil.copytree(aside, stream)
    async with running(config) as service, natalog.connect(service.url) as client:
        with pytest.raises(LogCorrupt, match="accept-loss-after"):
            await client.database("people").info()
        await service.port.stream_delete(service.names.heads_stream("people"))
    # somebody goes on without having been told
    async with (
        running(service_config(segment_store="memory")) as service,
        natalog.connect(service.url) as client,
    ):
        await fill(client.database("people"), 9, start=20)
    async with running(config) as service, natalog.connect(service.url) as client:
        with pytest.raises(LogCorrupt, match="another block"):
            await client.database("people").info()
        await service.snapshots.drop("people", [0])
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        assert await (await conn.db()).q(COUNT)
        assert (await conn.snapshot())["written"]


async def test_a_later_database_of_the_name_has_nothing_of_the_earlier(
    service_config: Config,
) -> None:
    config = service_config()
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", initial_tx=SCHEMA)
        await fill(client.database("people"), 5)
        await client.database("people").snapshot()
        await client.delete_database("people")
        left = [stream async for stream in streams(service) if "people" in stream]
        assert left == []
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        await fill(conn, 2)
        assert (await conn.snapshot())["written"]
        before = await everything(conn)
        # a deletion that was cut short
        await service.port.stream_delete("natalog=people=db=log")
    async with running(config) as service, natalog.connect(service.url) as client:
        assert service.gc is not None
        kinds = {item["what"] for item in await service.catalog.orphans()}
        assert kinds >= {"segments", "snapshots"}
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        await conn.transact([{"other": 1}])
        assert (await conn.snapshot())["written"]
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        assert await everything(conn) != before
        assert await (await conn.db()).q("[:find ?v . :where [_ :other ?v]]") == 1
        assert counted(service, "loaded") == 1


async def streams(service: Service) -> Any:
    for info in (await service.port.api("STREAM.LIST", {})).get("streams") or []:
        yield info["config"]["name"]


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("corrupt", [False, True])
async def test_damaged_segments_are_passed_over(
    service_config: Config, corrupt: bool, caplog: Any
) -> None:
    """Each segment is damaged in turn; whatever it was, the log has it all."""
    config = service_config(segment_cache_bytes=1)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        await fill(conn, 4)
        await conn.snapshot()
        before = await everything(conn)
        count = len(await segments(service))
    assert 5 < count < 40
    rng = random.Random(7)
    for _ in range(6):
        async with running(config) as service:
            victims = rng.sample(sorted(await segments(service)), 1)
            await damage(service, victims, corrupt=corrupt)
        async with running(config) as service, natalog.connect(service.url) as client:
            conn = client.database("people")
            assert await everything(conn) == before
            await conn.transact([])
            with caplog.at_level(logging.ERROR):
                assert (await conn.snapshot())["written"]
            assert len(await segments(service)) >= count, "it is whole again"
            before = await everything(conn)
        async with running(config) as service, natalog.connect(service.url) as client:
            assert await everything(client.database("people")) == before
            assert (counted(service, "loaded"), counted(service, "ignored")) == (1, 0)


@pytest.mark.parametrize("corrupt", [False, True])
async def test_a_leaf_that_is_lost_while_it_is_needed_is_read_from_the_log(
    service_config: Config, corrupt: bool
) -> None:
    config = service_config(segment_cache_bytes=1)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        await fill(conn, 30, size=100)
        await conn.publish([{"name": "published"}], id="published")
        await conn.snapshot()
        before = await everything(conn)
        await damage(service, sorted(await segments(service)), corrupt=corrupt)
        assert await everything(conn) == before, "nobody who reads has noticed"
        await conn.snapshot()
        await damage(service, sorted(await segments(service)), corrupt=corrupt)
        with anyio.fail_after(10):
            while True:  # who transacts is asked to come again
                try:
                    report = await conn.transact([{"name": "p3-3", "age": 1}], id="once")
                    break
                except natalog.NatalogError as error:
                    assert error.code == "Unavailable", error
        assert report.tx == before[2]["max_tx"] + 1
        assert await (await conn.db()).q('[:find ?a . :where [?e :name "p3-3"] [?e :age ?a]]') == 1


# --- compaction ----------------------------------------------------------------------------------


async def test_the_collection_frees_segments_that_nothing_needs(service_config: Config) -> None:
    config = service_config(segment_grace_s=0.001, gc_interval_s=1e6)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        await fill(conn, 3)
        await conn.snapshot()
        small = sum((await segments(service)).values())
        await conn.branch("big")
        big = client.database("people", "big")
        rng = random.Random(1)
        for number in range(10):
            await big.transact(
                [{"name": str(rng.random()), "age": rng.getrandbits(60)} for _ in range(1000)],
                id=f"big-{number}",
            )
        await big.snapshot()
        large = sum((await segments(service)).values())
        assert large > small + 200_000
        kept = await conn.gc()
        assert kept["segments"] == {"live": large, "dead": 0, "freed": 0}
        await conn.delete_branch("big")
        plan = await conn.gc(dry_run=True)
        assert plan["dry_run"] and plan["segments"]["freed"] == 0, "its snapshots still count"
        done = await conn.gc()
        await asyncio.sleep(0.01)
        done = await conn.gc()
        assert done["segments"]["live"] < small * 2
        assert sum((await segments(service)).values()) < small * 2
        assert await service.snapshots.newest("people", 1) is None
        before = await everything(conn)
    async with running(config) as service, natalog.connect(service.url) as client:
        assert await everything(client.database("people")) == before
        assert counted(service, "loaded") == 1


async def test_compactions_beside_writers_and_readers_lose_nothing(service_config: Config) -> None:
    """Two processes write snapshots and compact at once, with next to no cache."""
    settings = {"segment_cache_bytes": 50_000}
    config = service_config(**settings)
    async with (
        running(config) as one,
        running(service_config(nats=one.url, **settings)) as two,
        natalog.connect(one.url) as client,
    ):
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        await conn.branch("other")
        other = client.database("people", "other")
        stop = anyio.Event()
        rng = random.Random(3)

        async def write(where: natalog.Conn, prefix: str) -> int:
            number = 0
            while not stop.is_set():
                people = [{"name": f"{prefix}{n}", "age": rng.getrandbits(50)} for n in range(300)]
                try:
                    await where.transact(people, id=f"{prefix}-{number}", timeout=30)
                    number += 1
                except natalog.NatalogError as error:
                    assert error.code == "Unavailable", (error.code, error)
            return number

        async def again(work: Callable[[], Any]) -> None:
            while not stop.is_set():
                try:
                    await work()
                except natalog.NatalogError as error:
                    assert error.code in ("Unavailable", "DeadlineExceeded"), (error.code, error)
                await asyncio.sleep(0.01)

        async def compact(service: Service) -> None:
            await service.snapshots.compact("people", grace_s=1.5, force=True)

        async def snapshot(service: Service) -> None:
            for state in service.hub.states():
                await service.snapshots.write(state)

        async def read() -> None:
            for where in (conn, other):
                db = await where.db()
                assert (await db.q(COUNT) or 0) == len(await db.datoms("aevt", kw("age")))

        async def writers() -> None:
            async def until() -> None:
                await asyncio.sleep(3)
                stop.set()

            await asyncio.gather(write(conn, "a"), write(other, "b"), until())

        await asyncio.gather(
            writers(),
            again(read),
            *(again(lambda s=s: compact(s)) for s in (one, two)),
            *(again(lambda s=s: snapshot(s)) for s in (one, two)),
        )
        # with the connections that wrote: whichever service answers, it has all of that
        before = {
            where.branch_name: await (await where.db()).history().datoms("eavt")
            for where in (conn, other)
        }
        for name in ("db", "other"):
            await client.database("people", name).snapshot()
    async with running(config) as service, natalog.connect(service.url) as client:
        for name in ("db", "other"):
            db = await client.database("people", name).db()
            assert await db.history().datoms("eavt") == before[name]
        assert (counted(service, "loaded"), counted(service, "ignored")) == (2, 0)


async def test_renewed_snapshots_hold_nothing_of_what_was_purged(
    service_config: Config, tmp_path: Path
) -> None:
    config = service_config()
    secret = "a-secret-that-is-to-go"
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        await fill(conn, 3)
        await conn.transact([{"name": secret, "age": 1}])
        await conn.snapshot()
        await conn.branch("copy")
        copy = client.database("people", "copy")
        await copy.transact([{"name": "theirs"}])
        await copy.snapshot()
        assert await held(service, secret)
        for where in (conn, copy):
            await where.transact([["db.purge/entity", ["name", secret]]])
            await where.snapshot()
        assert await held(service, secret), "older snapshots have it"
        await service.snapshots.renew("people")
        assert not await held(service, secret)
        assert len([s async for s in streams(service) if "segments" in s]) == 1
        for lane in (0, 1):
            assert len((await service.snapshots._listed("people", lane)).refs) == 1
        before = {
            name: await everything(client.database("people", name)) for name in ("db", "copy")
        }
    async with running(config) as service, natalog.connect(service.url) as client:
        for name in ("db", "copy"):
            assert await everything(client.database("people", name)) == before[name]
        assert counted(service, "loaded") == 2
        await service.snapshots.drop("people")
        assert await service.snapshots.newest("people", 0) is None


async def held(service: Service, text: str) -> bool:
    """Whether a segment holds a text."""
    import zstandard

    store = service.snapshots.vault("people").store
    for name in await segments(service):
        data = await anyio.to_thread.run_sync(store.get, name)
        assert data is not None
        if text.encode() in zstandard.ZstdDecompressor().decompress(data[4:]):
            return True
    return False


# --- larger than memory --------------------------------------------------------------------------


async def larger_than_the_cache(config: ServiceConfig, people: int, cache: int) -> None:
    """Load, restart with a small cache, and ask for everything everywhere."""
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", initial_tx=SCHEMA)
        conn = client.database("people")
        for start in range(0, people, 2000):
            await conn.transact(
                [
                    {"name": f"n{n}", "age": n * 7919 % people, "share": n / 2}
                    for n in range(start, start + 2000)
                ],
                timeout=60,
            )
        assert (await conn.info())["datoms"] >= 3 * people
        await conn.snapshot(timeout=60)
    async with running(config) as service, natalog.connect(service.url) as client:
        conn = client.database("people")
        db = await conn.db()
        residency = service.snapshots.residency
        rng = random.Random(5)
        for _ in range(300):
            n = rng.randrange(people)
            found = await db.q(
                f'[:find ?a ?s :where [?e :name "n{n}"] [?e :age ?a] [?e :share ?s]]'
            )
            assert found == {(n * 7919 % people, n / 2)}
            assert residency.resident_bytes <= cache
        assert await db.q(COUNT, timeout=60) == people
        assert residency.resident_bytes <= cache
        total = await db.q("[:find (sum ?a) . :where [?e :age ?a]]", timeout=60)
        assert total == sum(n * 7919 % people for n in range(people))
        some = await db.index_range("age", 100, 199)
        assert [datom.v for datom in some] == list(range(100, 200))
        for _ in range(20):
            n = rng.randrange(people)
            await conn.transact([{"name": f"n{n}", "age": -n}])
            assert (
                await (await conn.db()).q(f'[:find ?a . :where [?e :name "n{n}"] [?e :age ?a]]')
                == -n
            )
        stats = residency.stats()
        assert stats.misses > 100 and stats.evictions > 10
        assert residency.resident_bytes <= cache


async def test_a_database_larger_than_the_cache_answers(service_config: Config) -> None:
    cache = 2 * 1024 * 1024
    config = service_config(segment_cache_bytes=cache, snapshot_datoms=10**9)
    await larger_than_the_cache(config, 100_000, cache)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif("'slow' not in config.getoption('-m')", reason="half a minute: pytest -m slow")
async def test_a_million_datoms_in_32_mebibytes(service_config: Config) -> None:
    cache = 32 * 1024 * 1024
    config = service_config(segment_cache_bytes=cache, snapshot_datoms=10**9)
    await larger_than_the_cache(config, 334_000, cache)


# --- lists and tables ----------------------------------------------------------------------------


def ref(seq: int) -> SnapshotRef:
    return SnapshotRef(seq, bytes([seq % 256]) * 32, 2**52 + seq, "ab" * 32, 1, 1_000_000 + seq)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=200))
@settings(deadline=None)
async def test_snapshots_thin_out_into_the_past(steps: list[int]) -> None:
    refs: tuple[SnapshotRef, ...] = ()
    seq = 0
    for step in steps:
        seq += step
        refs = thinned((ref(seq), *refs))
        assert len(refs) <= SNAPSHOTS_MAX
        assert refs[0].seq == seq, "the newest stays"
        assert refs[-1].seq == steps[0], "and the oldest"
        assert list(refs) == sorted(refs, key=lambda one: -one.seq)
    if len(steps) == 200 and len(set(steps)) == 1:
        ages = [1 + (seq - one.seq) // steps[0] for one in refs]
        assert all(later <= 5 * earlier for earlier, later in pairwise(ages))


async def test_distances_between_snapshots_grow_by_a_factor() -> None:
    refs: tuple[SnapshotRef, ...] = ()
    for seq in range(1, 1001):
        refs = thinned((ref(seq), *refs))
    ages = [1000 - one.seq + 1 for one in refs]
    assert ages[0] == 1 and ages[-1] == 1000
    assert all(later <= 6 * earlier for earlier, later in pairwise(ages)), ages


async def test_a_list_reads_what_it_wrote_and_nothing_else() -> None:
    found = SnapshotList(3, "cd" * 32, (ref(9), ref(4)), 17)
    assert SnapshotList.decode(found.encode(), 17) == found
    for broken in (b"", b"\xc0", found.encode()[:-1], b"\x94\x02\x00\xc4\x00\x90"):
        assert SnapshotList.decode(broken, 17) is None


@pytest.mark.parametrize("count", [0, 1, CHUNK_ENTRIES, CHUNK_ENTRIES + 1, 3 * CHUNK_ENTRIES - 5])
async def test_tables_come_back_from_their_chunks(count: int) -> None:
    commits, ids = Commits(), Idents()
    for number in range(count):
        more = [commit_id(b"other")] if number % 1000 == 7 else []
        parents = [commits.id(number - 1)] if number else []
        instant = 1_700_000_000_000 + number * number
        commits.add(commit_id(b"%d" % number), 2**52 + 3 * number, [*parents, *more], instant)
        ids.note(f"id-{number}", Place(number // 3 + 1, number % 3))
    early = list(commits.chunks(count)), list(ids.chunks(count))
    commits.add(commit_id(b"late"), 2**53, [], 0)
    ids.note("late", Place(9, 9))
    assert (list(commits.chunks(count)), list(ids.chunks(count))) == early, "the first ones stay"
    full = count // CHUNK_ENTRIES
    assert list(commits.chunks(count + 1))[:full] == early[0][:full]
    made, found = Commits(), Idents()
    for chunk in early[0]:
        made.extend(chunk)
    for chunk in early[1]:
        found.extend(chunk)
    assert len(made) == len(found) == count
    for number in {
        *range(min(count, 20)),
        *range(7, count, 1000),
        *range(max(0, count - 5), count),
    }:
        assert made.id(number) == commits.id(number)
        assert made.tx(number) == commits.tx(number)
        assert made.instant_ms(number) == commits.instant_ms(number)
        assert made.parents(number) == commits.parents(number)
        assert found[f"id-{number}"] == ids[f"id-{number}"]
    assert "late" not in found

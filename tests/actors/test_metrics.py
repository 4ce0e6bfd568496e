"""Metrics: bounded labels, right types, what only NATS can tell, and a clean exposition."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

import natalog
from natalog.actors import workers
from natalog.actors.config import ServiceConfig
from natalog.actors.labels import OTHER, BranchLabels
from natalog.actors.metrics import OUTCOMES, STATES, Metrics
from natalog.actors.service import Service, running

Config = Callable[..., ServiceConfig]
Samples = dict[tuple[str, ...], float]


def values(text: bytes, name: str, *labels: str) -> Samples:
    """The values of one metric by the values of its labels."""
    return {
        tuple(sample.labels.get(label, "") for label in labels): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    }


async def promtool_check(text: bytes) -> tuple[int, bytes, bytes] | None:
    """What promtool says of an exposition, None without a promtool."""
    promtool = shutil.which("promtool")
    if promtool is None:
        return None
    done = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def of(service: Service, name: str, *labels: str) -> Samples:
    return values(service.metrics.text(), f"natalog_{name}", *labels)


def test_labels_are_bounded_and_places_are_given_back() -> None:
    labels = BranchLabels(databases_max=2, branches_max=2)
    assert labels.branch("a", "db") == ("a", "db")
    assert [labels.branch("a", name) for name in ("x", "y", "z")] == [
        ("a", "x"),
        ("a", "y"),
        ("a", OTHER),
    ]
    assert labels.branch("b", "db") == ("b", "db")
    assert labels.branch("c", "db") == labels.branch("c", "x") == (OTHER, OTHER)
    assert labels.known("nobody") == OTHER and labels.known("b") == "b"
    labels.release_branch("a", "x")
    assert labels.named("a", "x") is None
    assert labels.branch("b", "z") == ("b", "z")
    labels.release_database("a")
    assert labels.branch("c", "x") == ("c", "x")
    assert labels.branch("a", "db") == (OTHER, OTHER)


def test_a_forgotten_branch_leaves_no_series() -> None:
    metrics = Metrics()
    empty = metrics.text().count(b'database="a"')
    labels = metrics.labels.branch("a", "x")
    for outcome in OUTCOMES:
        metrics.transactions.labels(*labels, outcome).inc()
    metrics.transaction_seconds.labels(*labels).observe(1)
    metrics.append_seconds.labels(*labels).observe(1)
    metrics.block_transactions.labels(*labels).observe(1)
    metrics.purged.labels(*labels).inc()
    metrics.reads.labels("a", "query", "ok").inc()
    metrics.branches["a"] = 2
    metrics.forget_branch("a", "x")
    assert values(metrics.text(), "natalog_branches", "database") == {("a",): 2}
    metrics.forget_database("a")
    assert metrics.text().count(b'database="a"') == empty == 0


def test_the_promised_metrics_are_there() -> None:
    families = {family.name: family for family in Metrics().registry.collect()}
    counters = ("transactions", "query_rejected", "segment_cache_hits", "segment_cache_misses")
    counters += ("actor_restarts", "gc_runs", "gc_swept_bytes", "purge_datoms")
    histograms = ("transaction_duration_seconds", "commit_block_transactions")
    histograms += ("log_append_duration_seconds", "query_duration_seconds", "query_rows")
    histograms += ("erasure_duration_seconds",)
    gauges = ("log_last_sequence", "reader_basis_lag_transactions", "index_datoms", "index_bytes")
    gauges += ("snapshot_age_seconds", "feed_subscribers", "mailbox_depth", "branches")
    gauges += ("build_info",)
    for kind, names in (("counter", counters), ("histogram", histograms), ("gauge", gauges)):
        for name in names:
            assert families[f"natalog_{name}"].type == kind, name


def test_units_and_types_are_named() -> None:
    for family in Metrics().registry.collect():
        assert family.documentation
        if not family.name.startswith("natalog_"):
            continue
        assert family.type in ("counter", "gauge", "histogram")
        assert not family.name.endswith(("_ms", "_mb", "_kb", "_percent"))
    assert all(text.endswith(".") for text, _ in STATES.values())


@pytest.mark.asyncio
async def test_more_branches_than_places_share_a_label(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        service.metrics.labels = BranchLabels(databases_max=1, branches_max=1)
        for name in ("people", "things"):
            await client.create_database(name, schema_flexibility="read")
            conn = client.database(name)
            for branch in ("b1", "b2"):
                await conn.branch(branch)
                await client.database(name, branch).transact([{"n": 1}, {"n": 2}])
        with anyio.fail_after(10):
            while of(service, "branches", "database") != {("people",): 3, (OTHER,): 3}:
                await asyncio.sleep(0.02)
        sums = of(service, "index_datoms", "database", "branch")
        # two facts and the instant of their transaction on each branch
        assert sums == {
            ("people", "db"): 0,
            ("people", "b1"): 3,
            ("people", OTHER): 3,
            (OTHER, OTHER): 6,
        }
        committed = {
            key[:2]: value
            for key, value in of(
                service, "transactions_total", "database", "branch", "outcome"
            ).items()
            if key[2] == "committed"
        }
        assert committed == {
            ("people", "db"): 0,
            ("people", "b1"): 1,
            ("people", OTHER): 1,
            (OTHER, OTHER): 2,
        }
        with pytest.raises(natalog.NatalogError):
            await (await client.database("nowhere").db()).q("[:find ?e :where [?e :n]]")
        assert ("nowhere", "error") not in of(service, "reads_total", "database", "outcome")


@pytest.mark.asyncio
async def test_a_follower_says_how_far_it_is_behind(service_config: Config) -> None:
    async with running(service_config()) as writer, natalog.connect(writer.url) as client:
        await client.create_database("people", schema_flexibility="read")
        reader_config = ServiceConfig(nats=writer.url, role="query")
        async with running(reader_config) as reader:
            conn = client.database("people")
            await conn.transact([{"n": 0}])

            async def lag() -> float | None:
                await reader.sampler.look()
                found = of(reader, "reader_basis_lag_transactions", "database", "branch")
                return found.get(("people", "db"))

            with anyio.fail_after(10):
                while await lag() != 0:
                    await asyncio.sleep(0.02)
            state = reader.hub.state("people", "db")
            assert state is not None
            before = state.db, state.position
            for number in range(3):
                await conn.transact([{"n": number}])
            with anyio.fail_after(10):
                while state.position.seq < before[1].seq + 3:
                    await asyncio.sleep(0.02)
            state.advance(*before)  # as if it had not read them yet
            assert await lag() == 3


@pytest.mark.asyncio
async def test_subscribers_and_storage_are_told_by_the_server(service_config: Config) -> None:
    config = service_config(metrics_port=0)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        subscriptions = [
            await service.port.subscribe(subject, lambda message: None)
            for subject in ("natalog.people.db.report", "natalog.*.*.report", "natalog.x.db.report")
        ]
        await service.port.api("INFO")
        await service.sampler.look()
        assert of(service, "feed_subscribers", "database", "branch") == {("people", "db"): 2}
        assert of(service, "jetstream_storage_bytes")[()] > 0
        assert of(service, "jetstream_storage_limit_bytes")[()] > 1_000_000
        assert of(service, "jetstream_streams")[()] >= 2
        assert of(service, "disk_size_bytes")[()] >= of(service, "disk_free_bytes")[()] > 0
        assert of(service, "log_bytes", "database")[("people",)] > 0
        assert of(service, "ingest_waiting_messages", "database") == {("people",): 0}
        assert of(service, "service_ready", "role") == {("all",): 1}
        assert of(service, "snapshot_pending_datoms", "database") == {("people",): 0}
        with anyio.fail_after(10):
            while not of(service, "event_loop_lag_seconds_count")[()]:
                await asyncio.sleep(0.05)
        for subscription in subscriptions:
            await service.port.unsubscribe(subscription)


@pytest.mark.asyncio
async def test_one_of_two_processes_holds_the_lease(service_config: Config) -> None:
    async with running(service_config()) as first, natalog.connect(first.url) as client:
        second_config = ServiceConfig(nats=first.url, role="transactor")
        reader_config = ServiceConfig(nats=first.url, role="query")
        async with running(second_config) as second, running(reader_config) as reader:
            assert of(first, "lease_held") == of(first, "takeovers_total") == {(): 1}
            assert of(second, "lease_held") == of(second, "takeovers_total") == {(): 0}
            assert of(reader, "lease_held") == of(reader, "takeovers_total") == {}
            await client.create_database("people", schema_flexibility="read")
            await client.database("people").transact([{"n": 1}])
            labels = ("database", "branch", "outcome")
            key = ("people", "db", "committed")
            assert of(first, "transactions_total", *labels)[key] == 1
            assert of(second, "transactions_total", *labels).get(key, 0) == 0
            assert not of(second, "snapshot_pending_datoms")


@pytest.mark.asyncio
async def test_query_workers_are_shown_by_the_process_that_has_them(
    service_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PING_INTERVAL_S", 0.05)
    config = service_config(query_workers=2, metrics_port=0)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        await conn.transact([{"n": 1}])
        for _ in range(20):
            await (await conn.db()).q("[:find ?n :where [_ :n ?n]]")

        def reads() -> dict[str, float]:
            told = of(service, "reads_total", "worker", "database", "endpoint", "outcome")
            return {key[0]: n for key, n in told.items() if key[1:] == ("people", "query", "ok")}

        with anyio.fail_after(20):
            while sum(reads().values()) < 20:
                await asyncio.sleep(0.05)
        assert set(reads()) <= {"0", "1"}, "this process answers none itself"
        text = service.metrics.text()
        memory = values(text, "process_resident_memory_bytes", "worker")
        assert set(memory) == {("",), ("0",), ("1",)}
        assert set(values(text, "natalog_build_info", "worker")) == {("",)}
        lags = values(text, "natalog_reader_basis_lag_transactions", "worker", "database")
        assert set(lags) <= {(worker, "people") for worker in ("", "0", "1")}
        checked = await promtool_check(text)
        assert checked is None or checked == (0, b"", b"")


@pytest.mark.asyncio
async def test_what_nats_does_not_tell_is_left_out(service_config: Config) -> None:
    async with running(service_config()) as ours:
        theirs = ServiceConfig(nats=ours.url, role="query", nats_monitoring="http://127.0.0.1:1")
        async with running(theirs) as service:
            await service.sampler.look()
            text = service.metrics.text()
            assert b"natalog_jetstream_storage_bytes " in text
            for name in ("jetstream_storage_limit_bytes", "disk_free_bytes", "feed_subscribers"):
                assert not of(service, name), name
            assert of(service, "nats_connected")[()] == 1


@pytest.mark.asyncio
async def test_a_damaged_log_is_shown(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        await client.database("people").transact([{"n": 1}])
        assert of(service, "log_corrupt", "database") == {("people",): 0}
        await service.port.append("natalog.people.db.log", b"no block")
        with pytest.raises(natalog.NatalogError):
            await client.database("people").transact([{"n": 2}])
        with anyio.fail_after(10):
            while of(service, "log_corrupt", "database") != {("people",): 1}:
                await asyncio.sleep(0.02)


@pytest.mark.asyncio
async def test_promtool_finds_nothing_to_complain_about(service_config: Config) -> None:
    async with running(service_config()) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        await client.database("people").transact([{"n": 1}])
        await service.sampler.look()
        text = service.metrics.text()
    checked = await promtool_check(text)
    if checked is None:
        pytest.skip("promtool is not installed; it is in Debian's package prometheus")
    assert checked == (0, b"", b"")

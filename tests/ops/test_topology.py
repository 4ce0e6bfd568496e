"""The processes of docker-compose.yml, started without Docker: roles, variables, health, stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import natalog
from natalog.actors.nats_server import find_binary

ROOT = Path(__file__).resolve().parents[2]
SERVICES = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text())["services"]
START_TIMEOUT_S = 30.0
READS = "natalog_query_duration_seconds_count"


@dataclass
class Started:
    """A process: its service, its metrics address and its log."""

    service: str
    process: subprocess.Popen[bytes]
    address: str
    log: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError):
            if get(url)[0] == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{url} does not answer:\n{log.read_text()}")
        time.sleep(0.02)


def start_nats(directory: Path) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """The server of the compose file; its address and that of its monitoring by their names there.

    Its configuration and command are those of the container, but for address, ports and store.
    """
    command = list(SERVICES["nats"]["command"])
    mounted = dict(volume.split(":")[1::-1] for volume in SERVICES["nats"]["volumes"])
    client, monitoring = free_port(), free_port()
    command[command.index("--config") + 1] = str(ROOT / mounted["/etc/nats/natalog.conf"])
    command[command.index("--addr") + 1] = "127.0.0.1"
    command += ["--port", str(client), "--http_port", str(monitoring)]
    log = directory / "nats.log"
    with log.open("wb") as out:
        process = subprocess.Popen([find_binary(), *command], stdout=out, stderr=out, cwd=directory)
    until_it_answers(f"http://127.0.0.1:{monitoring}/healthz", process, log)
    assert (directory / "natalog-nats").is_dir(), "the store is below the working directory"
    places = {"nats:4222": f"127.0.0.1:{client}", "nats:8222": f"127.0.0.1:{monitoring}"}
    return process, places


def start(directory: Path, service: str, number: int, places: dict[str, str]) -> Started:
    """A process that gets nothing but the variables of its container."""
    environment = {
        name: re.sub(r"nats:\d+", lambda found: places[found[0]], str(value))
        for name, value in SERVICES[service]["environment"].items()
    }
    port = free_port()
    environment |= {"NATALOG_METRICS_HOST": "127.0.0.1", "NATALOG_METRICS_PORT": str(port)}
    environment |= {"PATH": os.environ["PATH"], "NATALOG_DATA": str(directory / "none")}
    log = directory / f"{service}{number}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "natalog", "serve"],
            stdout=subprocess.DEVNULL,
            stderr=out,
            env=environment,
            cwd=directory,
        )
    return Started(service, process, f"127.0.0.1:{port}", log)


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[Started]]]:
    """The URL of NATS, and every process of ours that the compose file names."""
    directory = tmp_path_factory.mktemp("topology")
    nats, places = start_nats(directory)
    started: list[Started] = []
    try:
        for name, service in SERVICES.items():
            if "build" in service:
                for number in range(service.get("deploy", {}).get("replicas", 1)):
                    started.append(start(directory, name, number, places))
        for one in started:
            until_it_answers(f"http://{one.address}/healthz/ready", one.process, one.log)
        yield f"nats://{places['nats:4222']}", started
    finally:
        for process in (*(one.process for one in started), nats):
            if process.poll() is None:
                process.terminate()
                process.wait(30)


def test_the_processes_are_those_of_the_compose_file(topology: Any) -> None:
    _, started = topology
    assert sorted(one.service for one in started) == ["gc", "query", "query", "transactor"]
    for one in started:
        assert get(f"http://{one.address}/healthz/live") == (200, "ok\n")
        assert f'natalog_service_ready{{role="{one.service}"}} 1.0' in metrics(one)


def test_writers_and_readers_work_together(topology: Any) -> None:
    url, started = topology

    async def work() -> None:
        async with natalog.connect(url) as client:
            await client.create_database("people", schema_flexibility="read")
            conn = client.database("people")
            for number in range(20):
                await conn.transact([{"n": number}])
                # read your writes, whichever process answers
                assert (
                    await (await conn.db()).q("[:find (count ?e) . :where [?e :n]]") == number + 1
                )
            await conn.branch("draft")
            draft = client.database("people", "draft")
            await draft.transact([{"n": 100}])
            assert await (await draft.db()).q("[:find (max ?n) . :where [_ :n ?n]]") == 100
            await conn.delete_branch("draft")
            assert (await conn.gc())["removed"] >= 1

    asyncio.run(work())
    writer = next(one for one in started if one.service == "transactor")
    assert 'outcome="committed"} 20.0' in metrics(writer)
    # workers of a process tell it what they did every two seconds
    deadline = time.monotonic() + START_TIMEOUT_S
    while not all(count(one, READS) for one in started if one.service == "query"):
        assert time.monotonic() < deadline, "reads are answered by both"
        time.sleep(0.1)
    assert not any(count(one, READS) for one in started if one.service != "query")
    collector = next(one for one in started if one.service == "gc")
    assert count(collector, "natalog_gc_runs_total") >= 1


def test_one_process_serves_the_console(topology: Any) -> None:
    _, started = topology
    for one in started:
        published = "ports" in SERVICES[one.service]
        wanted = SERVICES[one.service]["environment"].get("NATALOG_CONSOLE") == "true"
        assert wanted == published
        if published:
            status, page = get(f"http://{one.address}/")
            assert status == 200 and "<html" in page


def test_the_own_configuration_of_nats_is_what_is_told(topology: Any) -> None:
    _, started = topology
    for one in started:
        deadline = time.monotonic() + START_TIMEOUT_S
        while "natalog_jetstream_storage_limit_bytes " not in metrics(one):
            assert time.monotonic() < deadline, one.service
            time.sleep(0.1)


def test_every_process_stops_cleanly(topology: Any) -> None:
    _, started = topology
    for one in started:
        one.process.send_signal(signal.SIGTERM)
    codes = {one.service: one.process.wait(30) for one in started}
    assert codes == dict.fromkeys(codes, 0)
    for one in started:
        assert "Traceback" not in one.log.read_text()


def metrics(one: Started) -> str:
    return get(f"http://{one.address}/metrics")[1]


def count(one: Started, name: str) -> float:
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics(one), re.MULTILINE)
    return sum(map(float, found))

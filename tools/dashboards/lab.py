"""A small Natalog under load with a Prometheus that looks at it: for tests and previews.

Two processes, one with all roles and its own nats-server and one that only has reads answered, by a
worker, and the rules of ``config/prometheus``.  The load touches everything that has a metric.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import natalog
from natalog.core.values import kw

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "config" / "prometheus" / "rules"
SCRAPE_S = 1
RATE_INTERVAL = "10s"
"""What Grafana would put for ``$__rate_interval`` with this scrape interval, and a little more."""
START_TIMEOUT_S = 30.0
JOB = "natalog"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


class Lab:
    """The running processes.  ``metrics``: the addresses where they show theirs."""

    def __init__(self, url: str, metrics: list[str], prometheus: str) -> None:
        self.url = url
        self.metrics = metrics
        self.prometheus = prometheus

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of Prometheus; RuntimeError with its words when it refuses."""
        url = f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            return get_json(url)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{parameters}: {error.read().decode()}") from None

    def now(self, expression: str) -> list[Any]:
        """The present value of an expression: series with ``metric`` and ``value``."""
        return list(self.ask("query", query=expression)["result"])

    def over(self, expression: str, start: float, end: float, step: float) -> list[Any]:
        """Values of an expression over time: series with ``metric`` and ``values``."""
        found = self.ask(
            "query_range", query=expression, start=str(start), end=str(end), step=str(step)
        )
        return list(found["result"])

    def settle(self) -> None:
        """Wait until Prometheus has seen everything that happened before."""
        now = time.time()
        while len(self.now(f"timestamp(up) > {now}")) < len(self.metrics):
            time.sleep(0.1)

    def exposed(self) -> str:
        """What all processes show at this moment."""
        found = []
        for address in self.metrics:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
                found.append(answer.read().decode())
        return "\n".join(found)


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Lab]:
    """Start everything with its data below ``directory``, and stop it at the end.

    FileNotFoundError when there is no program prometheus.
    """
    binary = shutil.which("prometheus")
    if binary is None:
        raise FileNotFoundError("prometheus is not installed; it is a package of Debian")
    with contextlib.ExitStack() as stack:
        ports = [free_port(), free_port()]
        url = stack.enter_context(
            _serving(directory, "all", ports[0], "--data", directory / "data", "--listen")
        )
        reader = ("--query-workers", 1, "--nats", url)
        stack.enter_context(_serving(directory, "query", ports[1], *reader))
        metrics = [f"127.0.0.1:{port}" for port in ports]
        address = stack.enter_context(_prometheus(directory, binary, metrics))
        yield Lab(url, metrics, address)


@contextlib.contextmanager
def _serving(directory: Path, role: str, port: int, *arguments: object) -> Iterator[str]:
    words = [str(word) for word in arguments]
    if words[-1] == "--listen":
        words.append("127.0.0.1:0")
    command = [sys.executable, "-m", "natalog", "serve", *words, "--role", role]
    command += ["--metrics-port", str(port)]
    with (directory / f"{role}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("natalog ready "):
            raise RuntimeError((directory / f"{role}.log").read_text())
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        with process.stdout:
            process.wait(30)


@contextlib.contextmanager
def _prometheus(directory: Path, binary: str, targets: list[str]) -> Iterator[str]:
    config = directory / "prometheus.yml"
    scrape = {"job_name": JOB, "static_configs": [{"targets": targets}]}
    settings = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": [str(RULES / "*.yml")],
        "scrape_configs": [scrape],
    }
    config.write_text(json.dumps(settings))  # JSON is YAML
    address = f"127.0.0.1:{free_port()}"
    command = [
        *(binary, f"--config.file={config}", f"--web.listen-address={address}"),
        *(f"--storage.tsdb.path={directory / 'tsdb'}", "--storage.tsdb.retention.time=1d"),
    ]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{address}/-/ready", timeout=1).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((directory / "prometheus.log").read_text())
            time.sleep(0.05)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


# --- load --------------------------------------------------------------------------------------

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
        ("friend", "ref", {}),
    )
]
QUERIES = (
    "[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]",
    "[:find (count ?e) . :where [?e :name]]",
    "[:find ?n ?f :where [?e :friend ?o] [?e :name ?n] [?o :name ?f]]",
)


async def load(url: str, seconds: float, *, pace_s: float = 0.02) -> None:
    """Work for some time: every endpoint, refusals, publishing, feeds, branches, upkeep."""
    async with natalog.connect(url) as client:
        for name in ("people", "things"):
            if not await client.database_exists(name):
                await client.create_database(name, initial_tx=SCHEMA)
        people = client.database("people")
        if "draft" not in await people.branches():
            await people.branch("draft")
        places = [people, client.database("people", "draft"), client.database("things")]
        async with contextlib.AsyncExitStack() as stack:
            for conn in places:
                stack.callback(asyncio.create_task(_listen(conn)).cancel)
            until = time.monotonic() + seconds
            writers = [_write(conn, until, pace_s, seed) for seed, conn in enumerate(places)]
            readers = [_read(conn, until, pace_s, seed) for seed, conn in enumerate(places)]
            await asyncio.gather(*writers, *readers, _upkeep(places, until))


async def _listen(conn: Any) -> None:
    async for _ in conn.reports():
        pass


async def _write(conn: Any, until: float, pace_s: float, seed: int) -> None:
    chance = random.Random(seed)
    number = 0
    while time.monotonic() < until:
        number += 1
        wave = 1 + (number // 200) % 3
        some = [f"p{chance.randrange(2000)}" for _ in range(4 * wave)]
        work = [
            conn.transact([{"name": name, "age": chance.randrange(90)}], id=f"{seed}-{number}-{n}")
            for n, name in enumerate(some)
        ]
        if number % 5 == 0:
            work.append(conn.transact([{"name": some[0], "age": "not a number"}]))
        if number % 7 == 0:
            work.append(conn.transact([{"name": some[0]}], id=f"{seed}-{number - 1}-0"))
        if number % 3 == 0:
            work.append(conn.publish([{"name": some[1], "friend": ["name", some[0]]}]))
        if number % 11 == 0:
            work.append(conn.transact([["db.purge/attribute", ["name", some[2]], "age"]]))
        await asyncio.gather(*work, return_exceptions=True)
        await asyncio.sleep(pace_s * chance.uniform(0.5, 2))


async def _read(conn: Any, until: float, pace_s: float, seed: int) -> None:
    chance = random.Random(100 + seed)
    number = 0
    while time.monotonic() < until:
        number += 1
        db = await conn.db()
        name = ["name", f"p{chance.randrange(2000)}"]
        work = [
            *(db.q(query) for query in QUERIES[: 1 + number % 3]),
            db.pull("[*]", name),
            db.entity(name),
        ]
        if number % 4 == 0:
            work += [db.schema(), conn.branch_history(limit=20), db.datoms("aevt", "friend")]
            work += [db.history().q(QUERIES[1]), db.with_([{"name": "nobody"}]).q(QUERIES[1])]
        if number % 6 == 0:
            work.append(db.q("[:find ?x :where [?x :name"))
        await asyncio.gather(*work, return_exceptions=True)
        await asyncio.sleep(pace_s * chance.uniform(1, 3))


async def _upkeep(places: list[Any], until: float) -> None:
    conn, number = places[0], 0
    while time.monotonic() < until:
        number += 1
        name = f"passing{number}"
        await conn.branch(name)
        await conn.delete_branch(name)
        await conn.gc()
        await places[number % len(places)].snapshot()
        if number % 3 == 1:
            await conn.erase()
        await asyncio.sleep(min(1.0, max(0.0, until - time.monotonic())))


# --- panels ------------------------------------------------------------------------------------


def dashboards() -> dict[str, Any]:
    """The dashboards that are shipped, by file name."""
    return {
        path.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "dashboards").glob("*.json"))
    }


def substituted(expression: str, dashboard: Any, interval: str = RATE_INTERVAL) -> str:
    """A query as Grafana would send it with everything chosen."""
    for one in dashboard["templating"]["list"]:
        if one["type"] != "datasource":
            expression = expression.replace(f"${one['name']}", one["allValue"])
    return expression.replace("$__rate_interval", interval)

"""The examples run: what they print, and that running them again changes nothing."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, url: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), "--nats", url, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_orders_are_handed_over_followed_and_projected(natalog_url: str, tmp_path: Path) -> None:
    produce = ("producer.py", natalog_url, "--database", "shop", "--orders", "20")
    assert "20 orders are in" in run(*produce, cwd=tmp_path)
    again = run(*produce, cwd=tmp_path)
    assert "20 orders are in" in again and "is there already" in again

    follow = ("subscriber.py", natalog_url, "--database", "shop", "--once")
    assert len(run(*follow, cwd=tmp_path).splitlines()) == 21, "the schema and 20 orders"
    assert run(*follow, cwd=tmp_path) == "", "it goes on where it was"

    project = ("projector.py", natalog_url, "orders.sqlite", "--database", "shop", "--once")
    first = run(*project, cwd=tmp_path)
    assert first == run(*project, cwd=tmp_path)
    with sqlite3.connect(tmp_path / "orders.sqlite") as table:
        assert table.execute("select count(*), count(amount) from orders").fetchone() == (20, 20)
        customer, total = table.execute(
            "select customer, sum(amount) from orders group by customer order by 1"
        ).fetchone()
    table.close()
    assert f"{customer}: " in first and str(total) in first

    _forget_a_customer(natalog_url)
    assert "Ada" not in run(*project, cwd=tmp_path), "the projection forgets what was purged"


def _forget_a_customer(url: str) -> None:
    from natalog import sync

    with sync.connect(url) as client:
        conn = client.database("shop")
        orders = conn.db().q('[:find [?e ...] :where [?e :order/customer "Ada"]]')
        conn.transact([["db.purge/entity", e] for e in orders])


def test_an_http_front_answers_for_now_and_then(natalog_url: str, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the front needs fastapi and uvicorn")
    run("producer.py", natalog_url, "--database", "front", "--orders", "10", cwd=tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "query_front:app", "--port", str(port)]
    process = subprocess.Popen(
        command,
        cwd=EXAMPLES,
        env={**os.environ, "NATS_URL": natalog_url, "NATALOG_DATABASE": "front"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        found = _get(f"http://127.0.0.1:{port}/orders?customer=Grace")
        assert '"state":":open"' in found
        past = _get(f"http://127.0.0.1:{port}/orders?customer=Grace&as_of=2020-01-01T00:00:00Z")
        assert past == "[]"
    finally:
        process.terminate()
        process.wait(20)


def _get(url: str) -> str:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urlopen(url) as answer:
                text: str = answer.read().decode()
                return text
        except URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_node_transacts_subscribes_and_queries(natalog_url: str, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no node with npm")
    folder = EXAMPLES / "node"
    if not (folder / "node_modules" / "@nats-io" / "transport-node").exists():
        install = [npm, "install", "--silent", "--no-package-lock", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot install @nats-io/transport-node: {done.stderr[-200:]}")
    done = subprocess.run(
        [node, "orders.mjs", natalog_url, "node-shop"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "service natalog true",
        "transaction 3 false",
        "again true true",
        "reports 2",
        "edn true true",
        'json [["N-1",7],["N-2",8]]',
        "error true",
    ]

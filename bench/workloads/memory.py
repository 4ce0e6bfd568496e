"""Memory of the indexes, bytes on disk, and the time from start to the first answer.

Resident growth is that of a second load in a fresh process: the first one has brought the code, the
allocator's slack and the transaction data.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import natalog_system
from datasets import Files
from measure import Answer, Line, check

from natalog.cli.connection import event_loop_run
from natalog.client import connect
from natalog.testing import own_service
from workloads.base import Bench

FIRST = '[:find (count ?e) . :where [?e :name "Ivan"]]'
SETTLE_S = 5
PAGE = 4096


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def growth(dataset_name: str, people_file: str, history: bool) -> dict[str, float]:
    """Loads twice in this process; what the second load added."""
    dataset = Files(Path(people_file) if people_file else None).dataset(dataset_name)
    transactions = natalog_system.prepared(dataset, 1_000)
    first = natalog_system.applied(natalog_system.empty(dataset, history=history), transactions)
    gc.collect()
    before = resident()
    began = time.perf_counter()
    second = natalog_system.applied(natalog_system.empty(dataset, history=history), transactions)
    elapsed = time.perf_counter() - began
    gc.collect()
    added = resident() - before
    assert len(first) == len(second)
    return {"bytes": added, "datoms": len(second), "seconds": elapsed}


def in_fresh_process(bench: Bench, dataset: str, history: bool) -> Line:
    people = str(bench.files.people_file.resolve()) if bench.files.people_file else ""
    command = [sys.executable, "-m", "workloads.memory", dataset, people, str(int(history))]
    here = Path(__file__).resolve().parent.parent
    shown = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout
    found = json.loads(shown)
    size = "1m" if dataset == "million" else "20k"
    name = f"memory-{size}-history-{'on' if history else 'off'}"
    extra = {
        "bytes_per_datom": round(found["bytes"] / found["datoms"], 1),
        "datoms": found["datoms"],
    }
    return Line("natalog", name, found["seconds"] * 1000, 1, extra)


async def restarted(bench: Bench) -> list[Line]:
    """1,000,000 datoms through a service; its bytes on disk; the first answer after a restart."""
    dataset = bench.files.dataset("million")
    ivans = sum(one["name"] == "Ivan" for one in dataset.entities)
    with tempfile.TemporaryDirectory(prefix="natalog-bench-") as name:
        folder = Path(name)
        async with own_service(folder) as url, connect(url) as client:
            await client.create_database("bench", initial_tx=natalog_system.schema_tx(dataset))
            conn = client.database("bench")
            began = time.perf_counter()
            for batch in natalog_system.prepared(dataset, 1_000):
                await conn.transact(batch)
            loading = time.perf_counter() - began
            await asyncio.sleep(SETTLE_S)  # the service writes its snapshot
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        began = time.perf_counter()
        async with own_service(folder) as url, connect(url) as client:
            ready = time.perf_counter() - began
            found = await client.database("bench").q(FIRST)
            answered = time.perf_counter() - began
        check("restart-1m", Answer(found, ""), Answer(ivans, ""))
    datoms = dataset.datoms()
    disk = {"bytes_per_datom": round(size / datoms, 1), "datoms": datoms}
    return [
        Line("natalog", "disk-1m", loading * 1000, 1, disk),
        Line("natalog", "restart-1m", answered * 1000, 1, {"ready_ms": round(ready * 1000)}),
    ]


def run(bench: Bench) -> Iterator[Line]:
    for dataset in ("people", "million"):
        for history in (True, False):
            yield in_fresh_process(bench, dataset, history)
    yield from event_loop_run(restarted(bench))


if __name__ == "__main__":
    print(json.dumps(growth(sys.argv[1], sys.argv[2], sys.argv[3] == "1")))

"""Other systems on the same data, each in a process of its own.

They are installed from their registries into folders that the repository ignores; one that cannot
be installed or run is reported and left out.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from datasets import FOLDER
from measure import Answer, Line
from workloads.base import Bench

from peers.task import expected, write_task

HERE = Path(__file__).resolve().parent
DATALEVIN = "datalevin==1.2.8"
JAVA_FROM = 21
OPENS = [
    f"--add-opens=java.base/{name}=ALL-UNNAMED"
    for name in ("java.lang", "java.util", "java.nio", "sun.nio.ch")
]


class Unavailable(Exception):
    """A system that cannot be installed or run here."""


def datascript() -> list[str]:
    """The command that runs DataScript on a task; installed where it is missing."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise Unavailable("there is no node with npm")
    if not (HERE / "node_modules" / "datascript").exists():
        _ran(["npm", "install", "--no-package-lock", "--silent", "--prefix", str(HERE)])
    return ["node", "--max-old-space-size=8000", str(HERE / "datascript_peer.js")]


def datalevin() -> list[str]:
    """The command that runs Datalevin on a task, on the JVM, without Python in between."""
    java = _java()
    target = HERE / ".venv"
    jars = list(target.rglob("datalevin-runtime-*.jar"))
    if not jars:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _ran([*pip, "--no-deps", "--target", str(target), DATALEVIN])
        jars = list(target.rglob("datalevin-runtime-*.jar"))
    if not jars:
        raise Unavailable(f"{DATALEVIN} brings no jar")
    cache = f"-Dorg.bytedeco.javacpp.cachedir={FOLDER / 'javacpp'}"
    options = ["--enable-native-access=ALL-UNNAMED", *OPENS, cache, "-Xmx6g"]
    script = str(HERE / "datalevin_peer.clj")
    return [java, *options, "-cp", str(jars[0]), "clojure.main", script]


def _java() -> str:
    """A Java that is new enough."""
    found = [*Path("/usr/lib/jvm").glob("*/bin/java")]
    if "JAVA_HOME" in os.environ:
        found.insert(0, Path(os.environ["JAVA_HOME"]) / "bin" / "java")
    on_path = shutil.which("java")
    if on_path is not None:
        found.append(Path(on_path))
    for java in found:
        shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
        version = re.search(r'version "(\d+)', shown.stderr)
        if version and int(version[1]) >= JAVA_FROM:
            return str(java)
    raise Unavailable(f"there is no Java {JAVA_FROM} or later")


def _ran(command: list[str]) -> None:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise Unavailable(f"{command[0]} failed: {found.stderr.strip()[-300:]}")


def sql(system: str) -> Callable[[], list[str]]:
    """The command that asks the same in SQL; `system` is ``sqlite`` or ``duckdb``."""

    def command() -> list[str]:
        if system == "duckdb":
            for name in ("duckdb", "pyarrow"):
                if importlib.util.find_spec(name) is None:
                    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
                    _ran([*pip, "--disable-pip-version-check", name])
        return [sys.executable, str(HERE / "sql_peer.py"), system]

    return command


PEERS: dict[str, Callable[[], list[str]]] = {
    "datascript-js": datascript,
    "datalevin": datalevin,
    "sqlite-eavt": sql("sqlite"),
    "duckdb-wide": sql("duckdb"),
}


def run_peers(bench: Bench, suites: Sequence[str]) -> Iterator[Line]:
    """The figures of every peer that runs here; wrong answers are reported and left out."""
    for system, command in PEERS.items():
        try:
            yield from run_peer(bench, suites, system, command())
        except Unavailable as error:
            print(f"{system} is left out: {error}", file=sys.stderr)


def run_peer(
    bench: Bench, suites: Sequence[str], system: str, command: list[str]
) -> Iterator[Line]:
    """The figures of one peer; `Unavailable` when it fails."""
    answers = expected(bench, suites, system)
    if not answers:
        return
    task = write_task(bench, suites, system)
    log = FOLDER / f"{system}.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*command, str(task)], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for text in process.stdout:
            if not text.startswith("{"):
                continue
            said = json.loads(text)
            found = Answer(said["rows"], said["checksum"])
            name = said["workload"]
            if found != answers[name]:
                print(f"{system} answers {name} with {found}, not {answers[name]}", file=sys.stderr)
                continue
            yield Line(system, name, said["median_ms"], said["n"], found._asdict())
    if process.returncode:
        raise Unavailable(f"it ended with {process.returncode}: {log.read_text()[-300:]}")

"""The AsyncAPI document and the service say the same."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from natalog.actors.config import ServiceConfig
from natalog.actors.service import running

DOCUMENT = Path(__file__).resolve().parents[2] / "config" / "asyncapi.yaml"


def _keys(text: str, path: tuple[str, ...]) -> set[str]:
    """The keys below ``path`` in a document of nested block mappings."""
    lines = text.splitlines()
    depth, start = 0, 0
    for name in path:
        wanted = " " * 2 * depth + name + ":"
        start = next(n for n in range(start, len(lines)) if lines[n].startswith(wanted)) + 1
        depth += 1
    found = set()
    for line in lines[start:]:
        if line.strip() and not line.startswith(" " * 2 * depth):
            break
        match = re.match(rf" {{{2 * depth}}}([\w-]+):", line)
        if match:
            found.add(match[1])
    return found


def test_every_reference_leads_somewhere() -> None:
    text = DOCUMENT.read_text()
    references = set(re.findall(r"'#/([\w/-]+)'", text))
    assert len(references) > 50
    for reference in references:
        *path, last = reference.split("/")
        assert last in _keys(text, tuple(path)), reference


def test_the_table_of_the_wire_document_names_every_channel() -> None:
    wire = (DOCUMENT.parents[1] / "docs" / "wire.md").read_text()
    for name in _keys(DOCUMENT.read_text(), ("channels",)) - {"replies", "ingest", "log", "report"}:
        assert re.search(rf"[.`]{re.escape(name)}`", wire), name


@pytest.mark.asyncio
async def test_what_is_served_is_what_is_described(tmp_path: Path) -> None:
    addresses = set(re.findall(r"address: (natalog\.\S+)", DOCUMENT.read_text()))
    described = {re.sub(r"\{\w+\}", "*", address) for address in addresses}
    async with running(ServiceConfig(data=tmp_path, listen="127.0.0.1:0")) as service:
        served = {subject for _, subject, _ in service._endpoints()}
    # info may be asked of a branch too
    served = {re.sub(r"\.\*\.\*\.info$", ".*._.info", subject) for subject in served}
    streams = {"natalog.*.*.tx", "natalog.*.*.log", "natalog.*.*.report"}
    heard_by_all = {"natalog.*.*.cancel", "natalog.*.*.more"}
    assert described == served | streams | heard_by_all


def test_the_parser_of_asyncapi_accepts_the_document() -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no node with npm")
    folder = Path(__file__).resolve().parent / "asyncapi"
    if not (folder / "node_modules" / "@asyncapi" / "parser").exists():
        install = [npm, "install", "--silent", "--no-package-lock", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot install @asyncapi/parser: {done.stderr[-200:]}")
    command = [node, "validate.mjs", str(DOCUMENT)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["valid"], done.stdout + done.stderr

"""What the documentation shows is true: doctests, the README's example, links."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.service import running
from natalog.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MODULES = [
    module.name
    for module in pkgutil.walk_packages(natalog.__path__, "natalog.")
    if not module.name.endswith("__main__")
]


def commands() -> list[tuple[str, list[str]]]:
    """Every call of the command line in a document or a help text: where, and its words."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    texts |= {path.name: path.read_text() for path in (ROOT / "src/natalog/cli").glob("*.py")}
    found = []
    for where, text in texts.items():
        for line in re.findall(r"^    (?:[A-Z_]+=\S+ )?(?:Example: )?natalog (\S.*)$", text, re.M):
            words = shlex.split(line, comments=True)
            ends = [words.index(word) for word in ("|", "<", ">") if word in words]
            found.append((where, words[: min(ends, default=len(words))]))
    return found


def test_the_commands_that_are_shown_exist() -> None:
    """Their names, options and numbers of arguments; files that they name need not be there."""
    shown = [(where, words) for where, words in commands() if not set(words) & {"COMMAND"}]
    assert len(shown) > 80
    root = get_command(app)
    for where, words in shown:
        command, context, name, rest = root, None, "natalog", words
        try:
            while True:
                context = command.make_context(name, [*rest], context)
                if not isinstance(command, TyperGroup):
                    break
                left = [*context._protected_args, *context.args]
                name, command, rest = command.resolve_command(context, left)
        except Exception as error:
            told = str(getattr(error, "message", error))
            assert "does not exist" in told, f"{where}: natalog {' '.join(words)}: {told}"


@pytest.mark.parametrize("name", MODULES)
def test_doctests_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_example_of_the_readme_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    with_service, without = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    alone = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True)
    assert alone.stdout == "{('Alice',)}\n", alone.stderr

    async def example() -> None:
        config = ServiceConfig(data=tmp_path / "data", listen="127.0.0.1:0")
        async with running(config) as service:
            code = with_service.replace("nats://127.0.0.1:4222", service.url)
            names: dict[str, Any] = {}
            exec(compile(code.replace("asyncio.run(main())", ""), "README.md", "exec"), names)
            await names["main"]()

    asyncio.run(example())
    assert capsys.readouterr().out == "{('Alice', 30)}\n{('Alice', 25)}\n"


def test_the_examples_of_the_guide_run(tmp_path: Path) -> None:
    """One after the other, on a service of their own, with a connected `client`."""
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    found = list(re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert len(found) > 8

    async def examples() -> None:
        config = ServiceConfig(data=tmp_path / "data", listen="127.0.0.1:0")
        async with running(config) as service, natalog.connect(service.url) as client:
            names: dict[str, Any] = {"client": client, "natalog": natalog}
            for block in found:
                code = "\n" * text.count("\n", 0, block.start() + 1) + block.group(1)
                awaiting = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                done = eval(compile(code, "guide.md", "exec", flags=awaiting), names)
                if done is not None:
                    await done

    asyncio.run(examples())

"""Importing the client costs neither the engine nor the actors."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["natalog", "natalog.sync", "natalog.client", "natalog.cli"])
def test_the_client_needs_neither_numpy_nor_actors(module: str) -> None:
    check = (
        f"import sys, {module}\n"
        "heavy = [m for m in sys.modules if m == 'numpy' or m.startswith('natalog.actors')]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", check], check=True)


def test_bare_core_and_actors_cannot_be_imported() -> None:
    check = (
        "import importlib.util as u\n"
        "assert u.find_spec('core') is None and u.find_spec('actors') is None\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True, cwd="/")

"""Guards for the whole suite."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# `python -m pytest` puts the checkout on sys.path, where core/ and actors/ would be importable a
# second time under other names: two copies of every class, equal to none of the other.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]


@pytest.fixture(autouse=True)
def only_one_copy_of_each_module() -> None:
    """Nothing may import ``core`` or ``actors`` but as parts of ``natalog``."""
    assert "core" not in sys.modules, "import natalog.core, not core"
    assert "actors" not in sys.modules, "import natalog.actors, not actors"

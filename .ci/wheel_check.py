"""Build the wheel, look into it, and use it from an empty directory in an environment of its own.

The wheel must hold every module of ``core``, ``actors`` and ``natalog``, and installing it must
give no top-level package ``core`` or ``actors``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TRIAL = """
import importlib.util
import natalog, natalog.local, natalog.sync
from natalog.core.values import kw
assert importlib.util.find_spec("core") is None, "bare core is importable"
assert importlib.util.find_spec("actors") is None, "bare actors is importable"
import natalog.actors, natalog.cli
from natalog.actors.console_assets import Assets
assert b"/assets/console.js" in Assets().index("nonce"), "the web console is missing"
conn = natalog.local.create_database("trial", schema_flexibility="read")
conn.transact([{"name": "Alice", "age": 25}])
rows = conn.db().q("[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]")
assert rows == {("Alice", 25)}, rows
print("natalog", natalog.__version__, "works")
"""


def expected_modules() -> set[str]:
    """Paths in the wheel of every source file in the checkout."""
    found: set[str] = set()
    for folder, prefix in (("core", "natalog/core"), ("actors", "natalog/actors")):
        for path in (ROOT / folder).rglob("*.py"):
            found.add(f"{prefix}/{path.relative_to(ROOT / folder).as_posix()}")
    package = ROOT / "src" / "natalog"
    for path in package.iterdir():
        if path.is_symlink() or path.name == "__pycache__":
            continue
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        for file in files:
            if file.suffix != ".pyc":
                found.add(f"natalog/{file.relative_to(package).as_posix()}")
    return found


def run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True)


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        run(
            *(sys.executable, "-m", "build", "--wheel", "--outdir", str(work / "dist")),
            str(ROOT),
            cwd=work,
        )
        (wheel,) = (work / "dist").glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        missing = sorted(expected_modules() - names)
        stray = sorted(n for n in names if not n.startswith(("natalog/", "natalog-")))
        if missing or stray:
            print("missing from the wheel:", missing, "not expected in it:", stray)
            return 1
        venv.create(work / "env", with_pip=True)
        python = str(work / "env" / "bin" / "python")
        run(python, "-m", "pip", "install", "--quiet", str(wheel), cwd=work)
        empty = work / "empty"
        empty.mkdir()
        run(python, "-c", TRIAL, cwd=empty)
        print(f"wheel holds {len(names)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())

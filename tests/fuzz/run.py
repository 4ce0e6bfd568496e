"""Fuzz every target, or those named: ``python tests/fuzz/run.py [TARGET...]``.

``FUZZ_SECONDS`` (60) is the time for each target.  Exit code 1 when a target failed; the input is
printed and kept in ``.fuzz/``, which also holds what was found worth trying again.  Put an input
that was a defect into ``ONCE_DEFECTS`` of `fuzz_seeds`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = HERE.parents[1] / ".fuzz"
FLAG = "--child"
INPUT_BYTES_MAX = 2048
ONE_INPUT_S = 20


def fuzz(name: str, arguments: list[str]) -> None:
    """Run one target in this process, for ever or as libFuzzer's arguments say."""
    import atheris

    with atheris.instrument_imports(include=["natalog.core"]):
        from fuzz_targets import TARGETS, tried

    target = TARGETS[name]
    atheris.Setup([sys.argv[0], *arguments], lambda data: (tried(target, data), None)[1])
    atheris.Fuzz()


def prepared(name: str) -> list[str]:
    """The arguments of libFuzzer for a target; its first inputs are written."""
    from fuzz_seeds import ONCE_DEFECTS, SEEDS, WORDS

    corpus = WORK / name
    corpus.mkdir(parents=True, exist_ok=True)
    for at, seed in enumerate([*SEEDS[name], *ONCE_DEFECTS.get(name, [])]):
        (corpus / f"seed_{at}").write_bytes(seed)
    words = WORK / "words.txt"
    quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in WORDS)
    words.write_text("".join(f'"{word}"\n' for word in quoted), encoding="utf-8")
    return [
        f"-max_total_time={os.environ.get('FUZZ_SECONDS', '60')}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={ONE_INPUT_S}",
        f"-dict={words}",
        f"-artifact_prefix={WORK}/{name}_",
        "-print_final_stats=1",
        str(corpus),
    ]


def main(names: list[str]) -> int:
    """Fuzz the named targets in processes of their own; the number of those that failed."""
    from fuzz_seeds import SEEDS

    failed = 0
    for name in names or list(SEEDS):
        command = [sys.executable, __file__, FLAG, name, *prepared(name)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        said = done.stdout + done.stderr
        runs = re.search(r"number_of_executed_units: *(\d+)", said)
        count = int(runs.group(1)) if runs else 0
        print(f"{name:12} {count:>9,} inputs  {'ok' if done.returncode == 0 else 'FAILED'}")
        if done.returncode != 0:
            failed += 1
            why = [line for line in said.splitlines() if not line.startswith("#")]
            print("\n".join(why[-60:]))
    return min(failed, 1)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    if sys.argv[1:2] == [FLAG]:
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main(sys.argv[1:]))

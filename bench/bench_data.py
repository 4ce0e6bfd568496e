"""Make every benchmark data file with fixed seeds, as JSON and as EDN with the same content.

    python bench/bench_data.py OUT_DIR

``people20k`` and ``people200k`` follow DataScript's benchmark; ``alias`` is without repetition.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

NAMES = ["Ivan", "Petr", "Sergei", "Oleg", "Yuri", "Dmitry", "Fedor", "Denis"]
LAST_NAMES = ["Ivanov", "Petrov", "Sidorov", "Kovalev", "Kuznetsov", "Voronoi"]
ALIASES = [
    "A. C. Q. W.",
    "A. J. Finn",
    "A.A. Fair",
    "Aapeli",
    "Aaron Wolfe",
    "Abigail Van Buren",
    "Jeanne Phillips",
    "Abram Tertz",
    "Abu Nuwas",
    "Acton Bell",
    "Adunis",
]

Person = dict[str, Any]


def person(r: random.Random, number: int) -> Person:
    """One random person."""
    name, last_name = r.choice(NAMES), r.choice(LAST_NAMES)
    aliases = list(dict.fromkeys(r.choice(ALIASES) for _ in range(r.randrange(10))))
    return {
        "id": number,
        "name": name,
        "last-name": last_name,
        "full-name": f"{name} {last_name}",
        "alias": aliases,
        "sex": r.choice(["male", "female"]),
        "age": r.randrange(100),
        "salary": r.randrange(100000),
    }


def people(count: int = 20_000, seed: int = 42) -> list[Person]:
    """``count`` people in random order."""
    r = random.Random(seed)
    found = [person(r, number) for number in range(1, count + 1)]
    r.shuffle(found)
    return found


def edn(value: Any, key: str | None = None) -> str:
    """EDN text; the values of ``sex`` are keywords."""
    if isinstance(value, dict):
        return "{" + " ".join(f":{k} {edn(v, k)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + " ".join(edn(item, key) for item in value) + "]"
    if key == "sex":
        return f":{value}"
    return json.dumps(value) if isinstance(value, str) else str(value)


def wide(root: int, depth: int, width: int) -> list[tuple[int, list[int]]]:
    """A tree as (node, children) pairs."""
    children = [root * width + k for k in range(width)] if depth else []
    found = [(root, children)]
    for child in children:
        found += wide(child, depth - 1, width)
    return found


def long_chains(depth: int, width: int) -> list[list[int]]:
    """``width`` chains of ``depth`` edges."""
    return [
        [x * (depth + 1) + y + 1, x * (depth + 1) + y + 2]
        for x in range(width)
        for y in range(depth)
    ]


def follows() -> dict[str, list[list[int]]]:
    """Graphs for the rule workloads."""
    graphs: dict[str, list[list[int]]] = {}
    for depth, width in ((3, 3), (5, 3), (7, 3), (4, 6)):
        pairs = wide(1, depth, width)
        graphs[f"wide-{depth}x{width}"] = [[n, child] for n, below in pairs for child in below]
    for depth, width in ((10, 3), (30, 3), (30, 5)):
        graphs[f"long-{depth}x{width}"] = long_chains(depth, width)
    r = random.Random(44)
    edges = {(r.randrange(1, 101), r.randrange(1, 101)) for _ in range(200)}
    graphs["rand-100x200"] = [list(edge) for edge in sorted(edges)]
    graphs["people"] = [[n, r.randrange(1, 20001)] for n in range(1, 20001) if r.random() < 0.5]
    return graphs


def pull_tree() -> list[Person]:
    """People in a tree for the pull workloads."""
    r = random.Random(45)
    found = []
    for number, children in wide(1, 4, 5):
        one = person(r, number)
        one["follows"] = children
        found.append(one)
    return found


def put(directory: Path, name: str, value: Any) -> None:
    """Write one file in both forms."""
    (directory / f"{name}.json").write_text(json.dumps(value, separators=(",", ":")))
    with (directory / f"{name}.edn").open("w") as out:
        if isinstance(value, list):
            out.write("[" + "".join(edn(item) + "\n" for item in value) + "]")
        else:
            out.write(edn(value))


def main(directory: Path) -> None:
    """Write all files."""
    directory.mkdir(parents=True, exist_ok=True)
    put(directory, "people20k", people())
    many = people(200_000, 43)
    for one in many:  # five attributes each: exactly 1,000,000 datoms
        del one["alias"], one["full-name"]
    put(directory, "people200k", many)
    put(directory, "follows", follows())
    put(directory, "pull_wide_4x5", pull_tree())
    r = random.Random(46)
    put(directory, "join_salaries", [30000 + r.randrange(70000) for _ in range(20000)])
    r = random.Random(47)
    ids = list(range(1, 20001))
    r.shuffle(ids)
    put(directory, "ids_shuffled", ids)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "bench/data"))

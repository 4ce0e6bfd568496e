"""The seeds of the fuzzer, cut and changed in fixed ways: nothing but our own errors."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fuzz_seeds import ONCE_DEFECTS, SEEDS, WORDS
from fuzz_targets import TARGETS, tried

CHANGED = 150


def inputs(name: str) -> list[bytes]:
    seeds = SEEDS[name]
    found = [*seeds, *ONCE_DEFECTS.get(name, [])]
    chance = random.Random(name)
    for _ in range(CHANGED):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data) + 1)
            kind = chance.randrange(4)
            if kind == 0:
                del data[at:]
            elif kind == 1:
                del data[at : at + chance.randint(1, 6)]
            elif kind == 2:
                data[at:at] = b" " + chance.choice(WORDS).encode() + b" "
            else:
                data[at : at + 1] = bytes([chance.randrange(256)])
        found.append(bytes(data))
    return found


def test_every_target_has_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_input_is_accepted_or_refused(name: str) -> None:
    for data in inputs(name):
        tried(TARGETS[name], data)


@pytest.mark.parametrize("name", ["edn", "query", "pull", "json"])
def test_the_targets_accept_something(name: str) -> None:
    accepted = [seed for seed in SEEDS[name] if tried(TARGETS[name], seed)]
    assert len(accepted) >= len(SEEDS[name]) / 2

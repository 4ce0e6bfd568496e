"""Rows of one integer, which answers share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random

import numpy as np
import pytest

from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.limits import SHARED_ROWS_MAX
from natalog.core.query import q
from natalog.core.query.rows import SharedRows
from natalog.core.transact import process
from natalog.core.values import Keyword


def some(seed: int, count: int, low: int, spread: int) -> list[int]:
    return sorted(Random(seed).sample(range(low, low + spread * count), count))


def made(numbers: list[int]) -> list[tuple[int]]:
    return [(number,) for number in numbers]


@pytest.mark.parametrize("low", [0, 65_536 - 700, -40_000, 2**52, 2**63 - 20_000, -(2**63)])
def test_shared_rows_are_those_that_would_be_made(low: int) -> None:
    shared = SharedRows()
    for seed in range(8):
        numbers = some(seed, 1_000 + 100 * seed, low, 1 + seed)
        found = shared.of(np.array(numbers, dtype=np.int64))
        assert found == made(numbers)
        assert all(type(row) is tuple and type(row[0]) is int for row in found)


def test_a_row_is_the_same_object_in_every_answer() -> None:
    shared = SharedRows()
    first = shared.of(np.arange(1_000, 3_000))
    second = shared.of(np.arange(2_000, 70_000, 5))
    assert first is not None
    assert second is not None
    assert first[1_000] == (2_000,)
    assert first[1_000] is second[0]


def test_what_is_few_or_unordered_or_far_apart_is_not_shared() -> None:
    shared = SharedRows()
    assert shared.of(np.arange(100)) is None
    assert shared.of(np.arange(2_000)[::-1]) is None
    assert shared.of(np.repeat(np.arange(2_000), 2)) is None
    assert shared.of(np.arange(2_000) * 1_000) is None
    assert shared.of(np.arange(SHARED_ROWS_MAX)) is None


def test_rows_beyond_the_bound_are_right_and_are_let_go() -> None:
    shared = SharedRows()
    size = SHARED_ROWS_MAX // 8
    resting = 0
    for turn in range(100):
        numbers = np.arange(turn * size, (turn + 1) * size)
        found = shared.of(numbers)
        resting += found is None
        assert found is None or found == made(numbers.tolist())
        held = sum(int(page.made.sum()) for page in shared._pages.values())
        assert held <= SHARED_ROWS_MAX
    assert 50 < resting < 100, "ever new entities are mostly not noted"


def test_threads_that_share_rows_find_the_right_ones() -> None:
    shared = SharedRows()

    def ask(seed: int) -> bool:
        numbers = some(seed, 3_000, seed % 7 * 20_000, 8)
        found = shared.of(np.array(numbers, dtype=np.int64))
        return found is None or found == made(numbers)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(200)))


def test_an_answer_of_many_entities_is_a_list_of_its_own() -> None:
    name, number = Keyword("name"), Keyword("number")
    schema = [
        {
            Keyword("db/ident"): ident,
            Keyword("db/valueType"): Keyword(f"db.type/{kind}"),
            Keyword("db/cardinality"): Keyword("db.cardinality/one"),
            Keyword("db/index"): True,
        }
        for ident, kind in ((name, "string"), (number, "long"))
    ]
    db = process(Database.empty(DatabaseConfig()), schema, now_ms=1).db_after
    people = [{name: "Ivan" if n % 2 else "Petr", number: n * 3 % 3_001} for n in range(3_000)]
    db = process(db, people, now_ms=2).db_after
    for value in ("Ivan", "Petr"):
        holders = {datom.e for datom in db.datoms("avet", [name, value])}
        for _ in range(2):
            found = q("[:find ?e :in $ ?n :where [?e :name ?n]]", db, value)
            assert sorted(found.rows) == sorted((e,) for e in holders)
            assert found.python() == {(e,) for e in holders}
            found.rows.clear()
    numbers = q("[:find ?n :where [_ :number ?n]]", db).rows
    assert sorted(numbers) == [(n,) for n in sorted(one[number] for one in people)]
    ages = q("[:find [?n ...] :where [_ :number ?n]]", db).python()
    assert sorted(ages) == sorted(one[number] for one in people)

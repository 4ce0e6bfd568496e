"""The persistent sorted table behind every index, against a plain list of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natalog.core.index import leaves as leaves_module
from natalog.core.index import tree as tree_module
from natalog.core.index.tree import OPEN, RowTree
from natalog.core.limits import LONG_MAX

Step = tuple[list[tuple[int, int]], list[tuple[int, int, bool]], bool]

steps = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=5),
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4), st.booleans()), max_size=12),
        st.booleans(),
    ),
    max_size=25,
)


@pytest.fixture(autouse=True)
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(leaves_module, "LEAF_ROWS_MAX", 8)
    monkeypatch.setattr(tree_module, "_NOTED_MAX", 20)
    monkeypatch.setattr(tree_module, "_NOTED_AT_ONCE", 9)
    monkeypatch.setattr(tree_module, "_BLOCK_LEAVES_MIN", 2)
    monkeypatch.setattr(tree_module, "_BLOCK_ROWS", 8)
    yield


def assert_points(tree: RowTree, rows: list[tuple[int, ...]]) -> None:
    """Reads of single keys agree with a list of all rows."""
    assert (tree.count, tree.open) == (len(rows), sum(row[3] == OPEN for row in rows))
    for k1 in range(14):
        own = [row for row in rows if row[0] == k1]
        standing = [row[1:3] for row in own if row[3] == OPEN]
        assert tree.open_of(k1) == standing
        assert tree.count_first(k1) == len(own)
        assert tree.has_first(k1) == bool(own)
        for k2 in range(5):
            assert tree.is_open(k1, k2) == any(pair[0] == k2 for pair in standing)


def rows_of(found: np.ndarray) -> list[tuple[int, ...]]:
    return sorted(zip(*found.tolist(), strict=True))


@settings(max_examples=150, deadline=None)
@given(steps)
def test_changes_match_a_plain_list_and_leave_older_versions_alone(history: list[Step]) -> None:
    tree = RowTree.empty()
    model: list[tuple[int, ...]] = []
    versions: list[tuple[RowTree, list[tuple[int, ...]]]] = []
    for tx, (closes, wanted, drop) in enumerate(history, 1):
        open_keys = {row[:2] for row in model if row[3] == OPEN}
        ended = [key for key in dict.fromkeys(closes) if key in open_keys]
        inserts = [
            (a, b, tx, OPEN if stays else tx)
            for (a, b), stays in {(a, b): s for a, b, s in wanted}.items()
            if (a, b) not in open_keys or (a, b) in ended
        ]
        tree = tree.apply(list(inserts), closes, tx, drop=drop)
        if drop:
            model = [r for r in model if not (r[:2] in ended and r[3] == OPEN)]
        else:
            model = [(*r[:3], tx) if r[:2] in ended and r[3] == OPEN else r for r in model]
        model = sorted([*model, *inserts])
        if tx % 3 == 0:
            tree._check()
        versions.append((tree, model))
    for version, rows in versions:
        assert_points(version, rows)  # with what is noted and not settled yet
        assert rows_of(version.flat()) == rows
        assert rows_of(version.current()) == [row for row in rows if row[3] == OPEN]
        for k1 in range(13):
            assert rows_of(version.with_first(k1)) == [r for r in rows if r[0] == k1]
            below = [r for r in rows if r[0] <= k1]
            assert (
                version.last_until(k1) == (rows_of(version.between((-1,), (k1,)))[-1:] or [None])[0]
            )
            assert (version.last_until(k1) or (None,))[:2] == (below[-1] if below else (None,))[:2]
        assert rows_of(version.with_both(3, 2)) == [r for r in rows if r[:2] == (3, 2)]
        assert version.distinct_first() == len({row[0] for row in rows})
        assert_points(version, rows)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=60, unique=True),
    st.tuples(st.integers(0, 9), st.integers(0, 3)),
)
def test_removing_a_key_removes_exactly_its_rows(
    keys: list[tuple[int, int]], victim: tuple[int, int]
) -> None:
    tree = RowTree.empty().apply([(a, b, 1, OPEN) for a, b in keys])
    smaller = tree.without(*victim)
    smaller._check()
    assert rows_of(smaller.flat()) == sorted((a, b, 1, OPEN) for a, b in keys if (a, b) != victim)
    assert len(tree) == len(keys)


def test_the_largest_entry_can_be_stored_found_and_ended() -> None:
    tree = RowTree.empty().apply([(LONG_MAX, LONG_MAX, 1, OPEN), (LONG_MAX, 5, 1, OPEN)])
    assert tree.with_first(LONG_MAX).shape[1] == 2
    assert tree.has(LONG_MAX, LONG_MAX)
    ended = tree.apply([], [(LONG_MAX, LONG_MAX)], 7)
    assert rows_of(ended.with_both(LONG_MAX, LONG_MAX)) == [(LONG_MAX, LONG_MAX, 1, 7)]


def test_only_ended_rows_of_some_transactions_can_be_removed() -> None:
    tree = RowTree.empty().apply([(1, 1, 1, 3), (1, 1, 4, 6), (1, 1, 7, OPEN)])
    kept = tree.without(1, 1, np.array([1, 7]))
    assert rows_of(kept.flat()) == [(1, 1, 4, 6), (1, 1, 7, OPEN)]


def test_a_scan_can_start_anywhere() -> None:
    tree = RowTree.empty().apply([(a, b, 1, OPEN) for a in range(10) for b in range(3)])
    rows = [(a, b) for a in range(10) for b in range(3)]
    for columns, key in ((1, (4,)), (2, (4, 1))):
        onward = [tree.between(*span) for span in tree.spans(columns, key)]
        found = np.concatenate(onward, axis=1)
        assert rows_of(found[:2]) == [row for row in rows if row >= key]
        back = [tree.between(*span) for span in tree.spans(columns, key, back=True)]
        found = np.concatenate(back[::-1], axis=1)
        assert rows_of(found[:2]) == [row for row in rows if row[:columns] <= key]


def test_a_fact_asserted_twice_in_one_transaction_ends_as_the_open_one() -> None:
    tree = RowTree.empty().apply([(1, 1, 5, OPEN), (1, 1, 5, 5)])
    tree._check()
    ended = tree.apply([], [(1, 1)], 7)
    assert rows_of(ended.with_both(1, 1)) == [(1, 1, 5, 5), (1, 1, 5, 7)]


def test_versions_that_part_ways_do_not_see_each_others_changes() -> None:
    trunk = RowTree.empty().apply([(1, 1, 1, OPEN)])
    left = trunk.apply([(2, 2, 2, OPEN)], [(1, 1)], 2)
    right = trunk.apply([(2, 3, 2, OPEN)])
    after_left = left.apply([(2, 4, 3, OPEN)])
    assert_points(trunk, [(1, 1, 1, OPEN)])
    assert_points(left, [(1, 1, 1, 2), (2, 2, 2, OPEN)])
    assert_points(right, [(1, 1, 1, OPEN), (2, 3, 2, OPEN)])
    assert_points(after_left, [(1, 1, 1, 2), (2, 2, 2, OPEN), (2, 4, 3, OPEN)])
    for tree in (after_left, right, left, trunk):
        tree._check()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=6), max_size=20))
def test_pairs_of_a_key_are_in_order(batches: list[list[tuple[int, int]]]) -> None:
    tree = RowTree.empty(2)
    known: set[tuple[int, int]] = set()
    for batch in batches:
        fresh = sorted(set(batch) - known)
        tree = tree.apply(fresh)
        known.update(fresh)
        for key in range(10):
            assert tree.seconds_of(key) == sorted(two for one, two in known if one == key)
            assert tree.has_first(key) == any(one == key for one, _ in known)
    tree._check()
    assert tree.count == len(known)

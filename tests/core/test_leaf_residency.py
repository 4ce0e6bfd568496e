"""Leaves whose rows come and go: tables answer alike, and what is in memory stays within bounds."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natalog.core.index import leaves as leaves_module
from natalog.core.index.leaf import Leaf, Stored
from natalog.core.index.pool import Ints
from natalog.core.index.residency import Kept, Residency
from natalog.core.index.tree import OPEN, RowTree


class Shelf:
    """Rows by name, as a store of segments would have them."""

    def __init__(self) -> None:
        self.held: dict[str, Ints] = {}
        self.reads = 0

    @property
    def place(self) -> int:
        return id(self)

    def rows(self, name: str) -> Ints:
        self.reads += 1
        return self.held[name].copy()

    def store(self, tree: RowTree, residency: Residency) -> RowTree:
        """Store every leaf of a table that is not stored yet."""
        for leaf in tree.leaves:
            if leaf.stored is None:
                name = str(len(self.held))
                self.held[name] = leaf.load().copy()
                leaf.summed()
                leaf.stored = Stored(name, self, residency)
                residency.introduce(leaf)
        tree.count_kept()
        return tree


@pytest.fixture
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(leaves_module, "LEAF_ROWS_MAX", 8)
    yield


LEAF_BYTES = 8 * 4 * 8


def big(count: int = 800) -> RowTree:
    rows = np.array([(n // 3, n, 1, OPEN if n % 5 else 2) for n in range(count)]).T
    return RowTree.from_rows(rows)


def same(one: RowTree, other: RowTree) -> None:
    """Both tables answer every kind of question alike."""
    assert np.array_equal(one.flat(), other.flat())
    assert np.array_equal(one.current(), other.current())
    assert one.distinct_first() == other.distinct_first()
    assert one.last_first() == other.last_first()
    for k1 in range(14):
        assert np.array_equal(one.with_first(k1), other.with_first(k1))
        assert one.count_first(k1) == other.count_first(k1) == other.with_first(k1).shape[1]
        pieces = [one.between(*span) for span in one.spans(1, (k1,))]
        assert sum(piece.shape[1] for piece in pieces) == other.between((k1,), (99,)).shape[1]
    assert np.array_equal(one.between((2, 1), (9,)), other.between((2, 1), (9,)))


steps = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=5),
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=12, unique=True),
        st.sampled_from(["end", "drop", "without"]),
        st.booleans(),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([0, LEAF_BYTES, 5 * LEAF_BYTES]))
def test_a_table_with_evicted_leaves_equals_one_that_is_all_in_memory(steps, budget) -> None:
    before = leaves_module.LEAF_ROWS_MAX
    leaves_module.LEAF_ROWS_MAX = 8
    try:
        shelf, residency = Shelf(), Residency(budget)
        plain = stored = RowTree.empty()
        versions = []
        for tx, (closes, wanted, how, write) in enumerate(steps, 1):
            if how == "without":
                for key in closes:
                    plain, stored = plain.without(*key), stored.without(*key)
            else:
                rows = [
                    (a, b, tx, OPEN)
                    for a, b in wanted
                    if (a, b) in closes or not (plain.with_both(a, b)[3] == OPEN).any()
                ]
                drop = how == "drop"
                plain = plain.apply(list(rows), closes, tx, drop=drop)
                stored = stored.apply(list(rows), closes, tx, drop=drop)
            if write:
                shelf.store(stored, residency)
            stored._check()
            same(stored, plain)
            versions.append((stored, plain))
            everything = residency.resident_bytes
            assert everything <= max(budget, 6 * 8 * 8 * len(stored) + LEAF_BYTES)
        for stored, plain in versions:
            same(stored, plain)
    finally:
        leaves_module.LEAF_ROWS_MAX = before


def test_what_is_resident_stays_within_the_budget(small_leaves: None) -> None:
    residency = Residency(20 * LEAF_BYTES)
    tree = Shelf().store(big(), residency)
    assert len(tree.leaves) == 100
    for k1 in [*range(266), *range(0, 266, 7)]:
        assert tree.with_first(k1).shape[1] == 3
        assert residency.resident_bytes <= 20 * LEAF_BYTES
    in_memory = sum(leaf.array is not None for leaf in tree.leaves)
    assert 0 < in_memory <= 20


def test_a_leaf_that_is_not_stored_is_never_evicted(small_leaves: None) -> None:
    residency = Residency(0)
    tree = Shelf().store(big(), residency)
    changed = tree.apply([(5, 7_000, 9, OPEN)])
    fresh = [leaf for leaf in changed.leaves if leaf.stored is None]
    assert fresh
    changed.flat(), tree.flat()
    assert all(leaf.array is not None for leaf in fresh)


def test_what_is_used_again_and_again_stays(small_leaves: None) -> None:
    shelf, residency = Shelf(), Residency(10 * LEAF_BYTES)
    tree = shelf.store(big(), residency)
    tree.with_first(100)
    for k1 in range(266):
        tree.with_first(100)
        before = shelf.reads
        tree.with_first(100)
        assert shelf.reads == before
        tree.with_first(k1)


def test_a_scan_of_everything_does_not_push_out_what_points_use(small_leaves: None) -> None:
    shelf, residency = Shelf(), Residency(10 * LEAF_BYTES)
    tree = shelf.store(big(), residency)
    tree.with_first(100)
    tree.with_first(100)
    assert tree.flat().shape == (4, 800)
    before = shelf.reads
    tree.with_first(100)
    assert shelf.reads == before


def test_a_scan_is_kept_where_the_budget_allows_it(small_leaves: None) -> None:
    residency = Residency(250 * LEAF_BYTES)
    tree = Shelf().store(big(), residency)
    assert tree.flat() is tree.flat()
    assert tree.current() is tree.current(), "the present goes before the past"
    assert residency.resident_bytes <= 250 * LEAF_BYTES
    tree.forget()
    tight = Residency(10 * LEAF_BYTES)
    other = Shelf().store(big(), tight)
    assert other.flat() is not other.flat()
    assert np.array_equal(other.flat(), tree.flat())


def test_counts_are_exact_without_reading_the_table(small_leaves: None) -> None:
    rows = np.array([(7 if n < 700 else n, n, 1, OPEN) for n in range(800)]).T
    shelf, residency = Shelf(), Residency(0)
    tree = shelf.store(RowTree.from_rows(rows), residency)
    for leaf in tree.leaves:
        leaf.evict()
    shelf.reads = 0
    assert tree.count_first(7) == 700
    assert tree.distinct_first() == 101
    assert shelf.reads <= 2


def test_what_nobody_holds_any_more_is_not_counted(small_leaves: None) -> None:
    residency = Residency(1_000 * LEAF_BYTES)
    tree = Shelf().store(big(), residency)
    view = Kept()
    view["columns"] = tree.flat()
    view.count(residency, 1_000)
    assert residency.resident_bytes == (100 + 100) * LEAF_BYTES + 1_000
    del view
    gc.collect()
    assert residency.resident_bytes == 200 * LEAF_BYTES
    tree.forget()
    assert residency.resident_bytes == 100 * LEAF_BYTES
    del tree
    gc.collect()
    assert residency.resident_bytes == 0
    assert residency.stats().residents == 0


def test_the_counters_say_what_happened(small_leaves: None) -> None:
    residency = Residency(4 * LEAF_BYTES)
    tree = Shelf().store(big(80), residency)
    assert residency.stats().evictions == 6
    for leaf in tree.leaves:
        leaf.load()
    first = residency.stats()
    assert first.misses >= 6
    tree.leaves[-1].load()
    assert residency.stats().hits == first.hits + 1
    assert residency.stats().misses == first.misses
    assert first.budget_bytes == 4 * LEAF_BYTES
    assert first.resident_bytes == 4 * LEAF_BYTES


def test_leaves_of_one_segment_are_one_leaf(small_leaves: None) -> None:
    shelf, residency = Shelf(), Residency(10**6)
    tree = shelf.store(big(80), residency)
    first = tree.leaves[0]
    assert first.stored is not None
    again = Leaf(None, first.stored)
    assert residency.shared(again) is first
    elsewhere = Leaf(None, first.stored._replace(source=Shelf()))
    assert residency.shared(elsewhere) is elsewhere, "another store may lose what this one has"
    del first, tree
    gc.collect()
    assert residency.shared(again) is again


def test_every_leaf_that_somebody_holds_is_named(small_leaves: None) -> None:
    """What collects segments must know them all."""
    shelf, residency = Shelf(), Residency(0)
    first = shelf.store(big(80), residency)
    twin = Leaf(first.leaves[0].load())
    twin.stored = first.leaves[0].stored
    residency.introduce(twin)
    assert residency.names() == set(shelf.held)
    del first
    gc.collect()
    assert twin.stored is not None
    assert residency.names() == {twin.stored.name}
    del twin
    gc.collect()
    assert residency.names() == set()


def test_threads_read_through_a_budget_of_almost_nothing(small_leaves: None) -> None:
    residency = Residency(3 * LEAF_BYTES)
    tree = Shelf().store(big(), residency)
    wanted = big().flat()
    failures: list[BaseException] = []

    def read(seed: int) -> None:
        try:
            for n in range(400):
                k1 = (n * 37 + seed * 11) % 266
                assert tree.with_first(k1)[1].tolist() == [3 * k1, 3 * k1 + 1, 3 * k1 + 2]
                if n % 100 == 0:
                    assert np.array_equal(tree.flat(), wanted)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert residency.resident_bytes <= 3 * LEAF_BYTES
    counted = sum(leaf.array is not None for leaf in tree.leaves) * LEAF_BYTES
    assert residency.resident_bytes == counted


def test_a_summary_is_that_of_the_rows() -> None:
    leaf = Leaf(np.array([[1, 1, 4, 9, 9], [1, 2, 3, 4, 5]]))
    assert leaf.summed() == (5, 3, 9)

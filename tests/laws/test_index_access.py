"""Raw index access: prefixes, seeks in both directions and ranges are slices of one order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from laws_data import ENTITIES, INDEXED, VALUES, K, built, histories, through, views

from natalog.core.values import sort_key

ORDERS = {"eavt": "eav", "aevt": "aev", "avet": "ave"}
PLACES = {"e": 0, "a": 1, "v": 2}


@st.composite
def positions(draw: Any) -> tuple[str, list[Any]]:
    """An index and a prefix of components, possibly of nothing that is there."""
    index = draw(st.sampled_from(sorted(ORDERS)))
    attrs = sorted(INDEXED if index == "avet" else VALUES, key=str)
    attr = draw(st.sampled_from(attrs))
    values = {
        "e": draw(st.sampled_from([*ENTITIES, 1, 500])),
        "a": attr,
        "v": draw(st.sampled_from(VALUES[attr])),
    }
    names = ORDERS[index][: draw(st.integers(1, 3))]
    return index, [values[name] for name in names]


def prefix(index: str, datom: Any, size: int) -> Any:
    return [sort_key(datom[PLACES[name]]) for name in ORDERS[index][:size]]


def facts(datoms: Any) -> list[Any]:
    return [tuple(datom[:3]) for datom in datoms]


@given(histories, views, positions())
def test_access_is_a_slice_of_the_whole_index(history, steps, position):
    db, _ = built(history)
    db = through(db, steps, db.tx0)
    index, components = position
    indexed = {*INDEXED, K("db/ident"), K("db/txInstant")}
    whole = [datom for datom in db.datoms("eavt") if index != "avet" or datom.a in indexed]
    if index != "eavt":
        whole.sort(key=lambda d: (*prefix(index, d, 3), d.tx, not d.added))
    at = [sort_key(value) for value in components]
    size = len(components)
    same = [d for d in whole if prefix(index, d, size) == at]
    assert facts(db.datoms(index, components)) == facts(same)
    assert facts(db.datoms(index, components, 2)) == facts(same[:2])
    onward = [d for d in whole if prefix(index, d, size) >= at]
    assert facts(db.seek_datoms(index, components)) == facts(onward)
    assert facts(db.seek_datoms(index, components, 3)) == facts(onward[:3])
    back = [d for d in whole if prefix(index, d, size) <= at][::-1]
    assert facts(db.rseek_datoms(index, components)) == facts(back)
    assert facts(db.rseek_datoms(index, components, 2)) == facts(back[:2])


@given(histories, views, st.data())
def test_a_range_holds_both_ends(history, steps, data):
    db, naive = built(history)
    db, naive = through(db, steps, db.tx0), through(naive, steps, db.tx0)
    attr = data.draw(st.sampled_from(sorted(INDEXED, key=str)))
    ends = st.none() | st.sampled_from(VALUES[attr])
    start, end = data.draw(ends), data.draw(ends)
    found = db.index_range(attr, start, end)
    expected = [
        datom
        for datom in naive.datoms()
        if datom.a is attr
        and (start is None or sort_key(datom.v) >= sort_key(start))
        and (end is None or sort_key(datom.v) <= sort_key(end))
    ]
    assert sorted(facts(found), key=repr) == sorted(facts(expected), key=repr)
    assert db.index_range(attr, start, end, 2) == found[:2]
    assert [sort_key(d.v) for d in found] == sorted(sort_key(d.v) for d in found)

"""Random purges and replays of the log: the past changes alike on both sides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from laws_data import (
    BASE,
    ENTITIES,
    MANY,
    REFS,
    SCHEMA,
    START_MS,
    VALUES,
    instant,
    through,
    transactions,
    tx_data,
    views,
)
from naive import INSTANT, Naive

from natalog.core.apply import apply_changes
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.record import TxRecord, purge_refs
from natalog.core.transact import TxReport, process
from natalog.core.values import Keyword, instant_ms, value_key

K = Keyword
entities = st.sampled_from(ENTITIES)
attributes = st.sampled_from(sorted(VALUES, key=str))
purges = st.lists(
    st.one_of(
        st.tuples(entities, attributes).flatmap(
            lambda ea: st.tuples(
                st.just("value"), *map(st.just, ea), st.sampled_from(VALUES[ea[1]])
            )
        ),
        st.tuples(st.just("attribute"), entities, attributes),
        st.tuples(st.just("entity"), entities),
        st.tuples(st.just("before"), st.integers(-1, 30)),
    ),
    min_size=1,
    max_size=3,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("transact"), transactions, st.none() | st.integers(-3, 40)),
        st.tuples(st.just("purge"), purges, st.none()),
    ),
    min_size=1,
    max_size=8,
)


def purge_data(operations: Iterable[Any]) -> list[Any]:
    made: list[Any] = []
    for kind, *rest in operations:
        match kind:
            case "value":
                made.append([K("db/purge"), *rest])
            case "attribute":
                made.append([K("db.purge/attribute"), *rest])
            case "entity":
                made.append([K("db.purge/entity"), *rest])
            case _:
                made.append([K("db.history.purge/before"), instant(rest[0])])
    return made


def purged(naive: Naive, operations: Iterable[Any], before: Naive) -> Naive:
    """The naive database without what is purged; ``before``: as the transaction began."""
    log = list(naive.log)
    for kind, *rest in operations:
        if kind == "value":
            log = [d for d in log if value_key(d[:3]) != value_key(rest)]
        elif kind == "attribute":
            log = [d for d in log if [d.e, d.a] != rest]
        elif kind == "entity":
            log = [d for d in log if d.e != rest[0] and not (d.a in REFS and d.v == rest[0])]
        else:
            cutoff = instant_ms(instant(rest[0]))
            ended: dict[Any, int] = {}
            gone = set()
            for at, datom in enumerate(before.log):
                fact = value_key(datom[:3])
                if datom.added:
                    ended[fact] = at
                elif before.instants[before.log[ended[fact]].tx] < cutoff:
                    gone |= {ended[fact], at}
            # both go, whatever the operations before took away already; each is told from others
            # that say the same in the same transaction
            kept = {id(d) for at, d in enumerate(before.log) if at not in gone}
            log = [d for d in log if id(d) in kept]
    return naive._view(log=tuple(log))


def keys(datoms: Any) -> list[Any]:
    return sorted(repr(value_key(tuple(datom))) for datom in datoms)


def replayed(follower: Database, report: TxReport, before: Database) -> Database:
    """The follower after the record of a transaction, through its bytes."""
    record = TxRecord(
        kind="transaction",
        tx=report.tx,
        instant_ms=report.instant_ms,
        lane=before.lane,
        max_eid=report.changes.max_eid,
        parents=(),
        datoms=report.datoms,
        purges=purge_refs(before, report.datoms, report.changes.purges),
        tempids=report.tempids,
        tx_meta=report.tx_meta,
    )
    read = TxRecord.decode(record.encode())
    assert read.encode() == record.encode()
    return apply_changes(follower, read.changes(follower))


@given(steps, views)
def test_purges_and_replays_change_the_past_alike(history, view):
    report = process(Database.empty(DatabaseConfig()), SCHEMA, None, now_ms=START_MS)
    follower = replayed(Database.empty(DatabaseConfig()), report, report.db_before)
    db, naive = report.db_after, Naive(MANY | {INSTANT}).transact(report.datoms)
    for number, (kind, operations, step) in enumerate([("transact", BASE, None), *history]):
        meta = None if step is None else {INSTANT: instant(step)}
        data = purge_data(operations) if kind == "purge" else tx_data(operations)
        report = process(db, data, meta, now_ms=START_MS + number)
        if kind == "purge":
            naive = purged(naive, operations, naive)
        naive = naive.transact(report.datoms)
        follower = replayed(follower, report, db)
        db = report.db_after
        assert keys(db.history().datoms("eavt")) == keys(naive.history().datoms())
        assert keys(db.datoms("eavt")) == keys(naive.datoms())
    assert keys(follower.history().datoms("eavt")) == keys(db.history().datoms("eavt"))
    mine = through(naive, view, db.tx0)
    assert keys(through(db, view, db.tx0).datoms("eavt")) == keys(mine.datoms())
    assert keys(through(follower, view, db.tx0).datoms("aevt")) == keys(mine.datoms())

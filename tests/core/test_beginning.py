"""What the log of a branch begins with is data, and every replay makes the same value of it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from natalog.core.beginning import (
    Base,
    after_step,
    base_of,
    begun,
    branch_record,
    deleted_record,
    force_record,
    ground,
    tried,
)
from natalog.core.config import DatabaseConfig
from natalog.core.database import Database
from natalog.core.errors import LogCorrupt, ViewRefused
from natalog.core.limits import LANE_BITS, TX_BASE
from natalog.core.record import KINDS, TxRecord
from natalog.core.transact import process
from natalog.core.values import kw

HEAD = UUID(int=5)
GOLDEN_BRANCH = (
    "dc00120102cf0010000000000007c003c091c4100000000000000000000000000000000590909090c0908080"
    "c083a66272616e6368a56472616674a46261736583a46c616e6502a6636f6d6d6974d8030000000000000000"
    "0000000000000005a27478cf0010000000000007a7637265617465644d00"
)
GOLDEN_DELETED = (
    "dc00120105cf0010000000000007c003c091c4100000000000000000000000000000000590909090c0908080"
    "c082a66272616e6368a56472616674a9737563636573736f720400"
)


def made(*transactions: list[object]) -> Database:
    db = Database.empty(DatabaseConfig(schema_flexibility="read"))
    for number, data in enumerate(transactions):
        db = process(db, data, now_ms=1000 * (number + 1)).db_after
    return db


def facts(db: Database) -> list[tuple[object, ...]]:
    return [tuple(datom) for datom in db.history().datoms("eavt")]


DB = made([{"n": 1}], [["db/add", 1, "n", 2]], [{"n": 3}])
BASE = Base(0, HEAD, DB.max_tx)


def test_kinds_keep_their_numbers() -> None:
    assert KINDS == ("genesis", "transaction", "branch", "force", "merge", "deleted", "recovered")
    commits = [kind for kind in KINDS if TxRecord(kind, TX_BASE, None).is_commit]
    assert commits == ["genesis", "transaction", "force", "merge", "recovered"]


def test_a_branch_begins_with_its_bases_value_on_a_lane_of_its_own() -> None:
    record = TxRecord.decode(branch_record("draft", 3, BASE, 77).encode())
    assert base_of(record) == BASE
    assert (record.kind, record.lane, record.parents) == ("branch", 3, (HEAD,))
    value = begun(record, DB)
    assert value.indexes is DB.indexes, "shared, not copied"
    assert (value.lane, value.max_tx) == (3, DB.max_tx)
    report = process(value, [{"n": 9}], now_ms=9000)
    assert report.tx == TX_BASE + (3 << LANE_BITS) + 1
    assert {d.e for d in report.datoms if d.e != report.tx} == {(3 << LANE_BITS) + 1}


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [["as_of", TX_BASE + 1]],
        [["since", TX_BASE + 1]],
        [["as_of", datetime.fromtimestamp(2, UTC)]],
        [["with", [{"n": 10}]], ["with", [["db.purge/attribute", 1, "n"]]]],
        [["as_of", TX_BASE + 2], ["with", [{"n": 10}]], ["since", TX_BASE + 1]],
        [["since", TX_BASE + 2], ["with", [["db/add", 2, "n", 30]]]],
    ],
    ids=lambda steps: "-".join(step[0] for step in steps) or "head",
)
def test_a_forced_value_is_made_again_from_its_record(steps: list[list[object]]) -> None:
    lane, value, kept = 4, DB, []
    for word, argument in steps:
        step = [word, argument]
        if word == "with":
            before = ground(value, lane)
            report = process(before, argument, now_ms=50_000)
            value, step = report.db_after, tried(report.changes, before)
        else:
            value = after_step(value, step, lane)
        kept.append(step)
    value = ground(value, lane)
    parents = (HEAD, UUID(int=6))
    record = TxRecord.decode(force_record("x", value, BASE, kept, parents, 77).encode())
    again = begun(record, DB)
    assert facts(again) == facts(value)
    assert (again.max_tx, again.max_eid, again.lane) == (record.tx, value.max_eid, lane)
    assert again.instant_ms == value.instant_ms == record.instant_ms
    assert record.parents == parents and record.is_commit
    again._check()
    following = max(value.max_tx, TX_BASE + (lane << LANE_BITS)) + 1
    for db in (value, again):
        assert process(db, [{"n": 1}], now_ms=1).tx == following


def test_events_are_no_state_to_begin_with() -> None:
    with pytest.raises(ViewRefused):
        ground(DB.history(), 1)


def test_what_cannot_be_taken_is_corrupt() -> None:
    for step in (["nonsense", 1], ["with", b"x"], ["as_of", "yesterday"], [], ["as_of"]):
        with pytest.raises(LogCorrupt):
            after_step(DB, step, 1)
    for config in (None, {}, {"base": 7}, {"base": {"lane": "x", "commit": HEAD, "tx": 1}}):
        with pytest.raises(LogCorrupt):
            base_of(TxRecord("branch", TX_BASE, None, config=config))


def test_a_log_ends_with_what_becomes_of_the_name() -> None:
    for successor in (None, 7):
        record = TxRecord.decode(deleted_record("draft", 3, DB.max_tx, HEAD, successor).encode())
        assert (record.kind, record.parents, record.tx) == ("deleted", (HEAD,), DB.max_tx)
        assert record.successor == successor
        assert not record.is_commit


def test_the_bytes_never_change() -> None:
    base = Base(2, HEAD, TX_BASE + 7)
    assert branch_record("draft", 3, base, 77).encode().hex() == GOLDEN_BRANCH
    assert deleted_record("draft", 3, TX_BASE + 7, HEAD, 4).encode().hex() == GOLDEN_DELETED


def test_attributes_are_keywords_in_what_was_tried() -> None:
    before = ground(DB, 1)
    report = process(before, [{"n": 10}], now_ms=50_000)
    again = after_step(DB, tried(report.changes, before), 1)
    assert [d.v for d in again.datoms("aevt", [kw("n")])][-1] == 10

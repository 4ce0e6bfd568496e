"""Erasures of random histories: what purges removed goes from every log, and nothing else does."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from laws_logs import Logs, events

from natalog.core.apply import apply_changes
from natalog.core.beginning import after_step, base_of, ground
from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import NatalogError
from natalog.core.limits import TX_BASE
from natalog.core.record import TxRecord
from natalog.core.redaction import Wanted
from natalog.core.schema import TX_INSTANT
from natalog.core.values import Keyword, ms_instant, value_key

K = Keyword

SCHEMA = read("""
    [{:db/id 1 :db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
      :db/unique :db.unique/identity}
     {:db/id 2 :db/ident :note :db/valueType :db.type/string :db/cardinality :db.cardinality/many}
     {:db/id 3 :db/ident :mood :db/valueType :db.type/string :db/cardinality :db.cardinality/one
      :db/noHistory true}
     {:db/id 4 :db/ident :both :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one
      :db/tupleAttrs [:name :mood]}
     {:db/id 5 :db/ident :part :db/valueType :db.type/ref :db/cardinality :db.cardinality/many
      :db/isComponent true}
     {:db/id 6 :db/ident :source :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
     {:db/id 7 :db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one
      :db/index true}]
""")
ENTITIES = [10, 11, 12]
TEXTS = [f"text-{number}" for number in range(4)]
ATTRS = [K("name"), K("note"), K("mood"), K("age")]

BASE: list[Any] = [
    *([K("db/add"), 10, K("note"), text] for text in TEXTS),
    *([K("db/add"), e, K("name"), text] for e, text in zip(ENTITIES, TEXTS, strict=False)),
    *([K("db/add"), e, K("mood"), text] for e, text in zip(ENTITIES, TEXTS[1:], strict=False)),
]
entities = st.sampled_from(ENTITIES)
texts = st.sampled_from(TEXTS)
facts = st.one_of(
    st.tuples(entities, st.sampled_from(ATTRS[:3]), texts),
    st.tuples(entities, st.just(K("age")), st.integers(0, 2)),
    st.tuples(entities, st.just(K("part")), entities),
)
changes = st.lists(
    st.one_of(
        facts.map(lambda fact: [K("db/add"), *fact]),
        facts.map(lambda fact: [K("db/add"), *fact]),
        facts.map(lambda fact: [K("db/retract"), *fact]),
        entities.map(lambda e: [K("db/retractEntity"), e]),
        texts.map(lambda text: {"db/id": text, "note": text}),
    ),
    max_size=4,
)
kinds = st.sampled_from(["db/purge", "db/purge", "db.purge/attribute", "db.purge/entity"])
spots = st.integers(0, 30)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("as_of"), spots),
        st.tuples(st.just("since"), spots),
        st.tuples(st.just("with"), changes),
        st.tuples(st.just("purge"), st.lists(st.tuples(kinds, spots), min_size=1, max_size=3)),
    ),
    max_size=3,
)
actions = st.one_of(
    st.tuples(st.just("transact"), spots, changes, st.none() | texts),
    st.tuples(st.just("transact"), spots, changes, st.none() | texts | st.integers(0, 200)),
    st.tuples(st.just("purge"), spots, st.lists(st.tuples(kinds, spots), min_size=1, max_size=3)),
    st.tuples(st.just("purge"), spots, st.lists(st.tuples(kinds, spots), min_size=1, max_size=3)),
    st.tuples(st.just("forget"), spots, st.integers(0, 200)),
    st.tuples(st.just("branch"), spots),
    st.tuples(st.just("force"), spots, steps),
    st.tuples(st.just("delete"), spots),
    st.tuples(
        st.just("erase"),
        st.one_of(
            st.none(),
            texts.map(lambda text: Wanted(text=text)),
            facts.map(lambda fact: Wanted([tuple(fact)])),
        ),
    ),
)


def purge_data(db: Database, choices: Any) -> list[Any]:
    """Purges of facts that a value has or had."""
    history = db.history() if db.config.keep_history else db
    known = [d for d in history.datoms("eavt") if d.a is not TX_INSTANT and d.e > 9]
    made = []
    for kind, at in choices:
        if known:
            datom = known[(at * 7) % len(known)]
            size = {"db/purge": 3, "db.purge/attribute": 2, "db.purge/entity": 1}[kind]
            if not (kind == "db.purge/entity" and datom.e > TX_BASE) and datom.a is not K("both"):
                made.append([K(kind), *datom[:size]])
    return made


def act(logs: Logs, action: Any) -> None:
    living = [lane for lane in logs.lanes if lane.living]
    commits = [
        commit
        for lane in logs.lanes
        for commit in lane.commits
        if logs.values[commit].max_tx not in logs.untold.get(lane.number, ())
    ]
    match action:
        case ("transact", at, data, source):
            lane = living[at % len(living)]
            meta = None
            if logs.config.keep_history and source is not None:
                early = {TX_INSTANT: ms_instant(source)} if type(source) is int else {}
                meta = early or {"source": source}
            logs.transact(lane, data, meta, ident=f"{source} {logs.clock}")
        case ("purge", at, data):
            lane = living[at % len(living)]
            logs.transact(lane, purge_data(lane.db, data))
        case ("forget", at, ms):
            instant = f"1970-01-01T00:00:00.{ms:03}Z"
            logs.transact(living[at % len(living)], [["db.history.purge/before", instant]])
        case ("branch", at):
            logs.branch(commits[at % len(commits)])
        case ("force", at, words):
            commit = commits[at % len(commits)]
            known = logs.values[commit]
            points: list[Any] = []
            for word, argument in words:
                if word == "purge":
                    points.append(["with", purge_data(known, argument)])
                else:
                    points.append([word, argument if word == "with" else TX_BASE + argument])
            logs.force(commit, points)
        case ("delete", at):
            living[at % len(living)].living = len(living) == 1
        case ("erase", wanted):
            erase(logs, wanted)


def purged(logs: Logs, wanted: Wanted | None) -> set[Any]:
    """The facts that purges named, and superseded ones without history that go with them."""
    found: set[Any] = set()
    lost: set[Any] = set()
    folded = {lane: dict(values) for lane, values in logs.fold().items()}
    for lane, _, record in logs.records():
        if record.kind == "force":
            value = folded[base_of(record).lane][base_of(record).commit]
            for step in (record.config or {})["steps"]:
                if step[0] == "with":
                    before = ground(value, record.lane)
                    more = named(TxRecord.decode(step[1]), before)
                    found, lost = found | more[0], lost | more[1]
                value = after_step(value, step, record.lane)
        elif record.kind == "transaction":
            known = folded[lane.number].get(record.parents[0])
            if known is None:  # the first of a branch
                assert lane.base is not None
                known = folded[lane.base.lane][lane.base.commit]
            more = named(record, known)
            found, lost = found | more[0], lost | more[1]
    if wanted is None and not logs.config.keep_history:
        return found | lost
    entities = {fact[0] for fact in found}
    return found | {fact for fact in lost if fact[0] in entities}


def named(record: TxRecord, before: Database) -> tuple[set[Any], set[Any]]:
    """The facts that one transaction purged, and those it superseded without history."""
    changes = record.changes(before)
    after = apply_changes(before, changes)
    found = {(p.e, p.attr, value_key(p.value)) for p in changes.purges}
    lost = set()
    for datom in record.datoms:
        declared = after.schema.get(datom.a)
        forgets = declared is not None and declared.no_history
        if not datom.added and (forgets or not after.config.keep_history):
            lost.add((datom.e, datom.a, value_key(datom.v)))
    return found, lost


def asserted(logs: Logs) -> set[Any]:
    """Every assertion in the logs."""
    return {
        (d.e, d.a, value_key(d.v), d.tx)
        for _, _, record in logs.records()
        for d in record.datoms
        if d.added
    }


def erase(logs: Logs, wanted: Wanted | None) -> None:
    before, said, names = logs.fold(), asserted(logs), purged(logs, wanted)
    untold = {lane: set(spots) for lane, spots in logs.untold.items()}
    ids = [entry.commit_id for _, entry, _ in logs.records()]
    lost = sum(entry.erased for _, entry, _ in logs.records())
    redactor = logs.erase(wanted)
    after, left = logs.fold(), asserted(logs)
    assert [entry.commit_id for _, entry, _ in logs.records()] == ids
    held = set()
    for lane in logs.lanes:
        old, new = before[lane.number], after[lane.number]
        assert [commit for commit, _ in old] == [commit for commit, _ in new]
        if lane.living:
            assert events(new[-1][1]) == events(old[-1][1])
            assert events(new[-1][1]) == events(lane.db)
            history = lane.db.history() if lane.db.config.keep_history else lane.db
            held |= {(d.e, d.a, value_key(d.v), d.tx) for d in history.datoms("eavt")}
        fresh = set() if redactor is None else set(redactor.untold[lane.number])
        for (commit, one), (_, other) in zip(old, new, strict=True):
            if lane.commits:
                assert (one.max_tx in fresh) == (events(one)[0] != events(other)[0])
                if one.max_tx not in fresh | untold.get(lane.number, set()):
                    assert events(other)[0] == events(logs.values[commit])[0]
    assert not {event for event in left - held if event[:3] in names}
    gone = said - left
    assert left <= said
    assert not gone & held
    if wanted is None:
        assert {event[:3] for event in gone} <= names
    elif wanted.text is not None:
        for event in left - held:
            assert wanted.text not in repr(event)
        for _, _, record in logs.records():
            assert wanted.text not in (record.id or "")
            assert wanted.text not in record.tempids
            told = {d.v for d in record.datoms if d.e == record.tx}
            assert wanted.text not in record.tx_meta.values() or wanted.text in told
    now = sum(entry.erased for _, entry, _ in logs.records())
    assert redactor is None or now - lost == sum(c.facts for c in redactor.counts.values())
    again = logs.erase(wanted)
    assert again is None or not any(again.counts.values())


@settings(max_examples=60)
@given(st.sampled_from([True, True, True, False]), st.lists(actions, min_size=4, max_size=24))
def test_erasures_take_what_was_purged_and_leave_the_rest(keep_history: bool, script: Any) -> None:
    logs = Logs(keep_history=keep_history)
    logs.transact(logs.lanes[0], SCHEMA)
    logs.transact(logs.lanes[0], BASE, {"source": TEXTS[0]} if keep_history else None)
    for action in [*script, ("erase", None)]:
        try:
            act(logs, action)
        except NatalogError as error:
            assert action[0] != "erase", error
    assert all(isinstance(record, TxRecord) for _, _, record in logs.records())

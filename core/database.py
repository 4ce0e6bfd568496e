"""An immutable database value: all facts up to a transaction, seen through a window of time.

A value never changes; `natalog.core.apply` makes the next one and shares what did not change.
As-of, since and history are the same value with another `Window`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import numpy as np

from natalog.core import datoms as access
from natalog.core.config import DatabaseConfig
from natalog.core.errors import (
    EntityIdMissing,
    EntityIdSyntax,
    InvalidTimePoint,
    LookupRefSyntax,
    LookupRefUnique,
    NoHistory,
)
from natalog.core.index.attribute import AttributeIndex
from natalog.core.index.encoding import decode, decode_one, find, kind_of, order_of
from natalog.core.index.places import Places
from natalog.core.index.pool import Ints, ScratchPool, ValuePool
from natalog.core.index.residency import Kept
from natalog.core.index.tree import OPEN, Fence, RowTree
from natalog.core.index.window import CURRENT, Facts, Instants, Window, live_facts, select
from natalog.core.limits import LANE_BITS, TX_BASE
from natalog.core.recent import Recent
from natalog.core.schema import TX_INSTANT, Attribute, Schema
from natalog.core.shown import shown
from natalog.core.values import Keyword, as_keyword, instant_ms, kw, sort_key

_NONE: Final[Ints] = np.empty(0, dtype=np.int64)
_NO_INSTANTS: Final = Instants(_NONE, _NONE)
_FEW: Final = 64
"""Values of an attribute of an entity that are put in order one by one."""
_NO_FACTS: Final = Facts(_NONE, _NONE, _NONE, None)
_NOW: Final = (-1, OPEN - 1)
"""The `Database.bounds` of everything that has not ended."""


@dataclass(frozen=True, slots=True, eq=False)
class Database:
    """A database value.  Reads respect ``window``; see the module for what is shared."""

    config: DatabaseConfig
    pool: ValuePool
    schema: Schema
    indexes: Mapping[Keyword, AttributeIndex]
    """AEVT and AVET of every attribute that was ever used."""
    entities: RowTree
    """EA: which attributes each entity ever had, as ``e, attribute code``."""
    lane: int
    max_tx: int
    """The transaction this value includes last: its basis."""
    max_eid: int
    """The highest entity id of this lane ever used, 0 when none was."""
    instant_ms: int | None
    """The instant of ``max_tx``; None before the first transaction and without history."""
    latest_ms: int | None
    """The latest instant of any transaction."""
    monotonic: bool
    """Whether instants never went backwards, so that they order like transaction ids."""
    commit_id: UUID | None = None
    purge_horizon: int | None = None
    """The latest transaction that purged facts: a view that ends before it may show less than it
    once did, and nothing that is wrong."""
    window: Window = CURRENT
    _cache: Kept = field(default_factory=Kept, repr=False)
    """Columns of this view that were computed already; the current ones are with their trees."""
    recent: Recent | None = field(default=None, init=False, repr=False)
    """What is not in the indexes yet: as long as there is something, ``indexes`` and ``entities``
    have no value, and whoever asks for one of them has it put in."""

    @classmethod
    def empty(cls, config: DatabaseConfig | None = None, *, lane: int = 0) -> Database:
        """A database without facts."""
        tx0 = TX_BASE + (lane << LANE_BITS)
        config = config or DatabaseConfig()
        return cls(
            config=config,
            pool=ValuePool(),
            schema=Schema.empty(flexible=config.schema_flexibility == "read"),
            indexes={},
            entities=RowTree.empty(2),
            lane=lane,
            max_tx=tx0,
            max_eid=lane << LANE_BITS,
            instant_ms=None,
            latest_ms=None,
            monotonic=True,
        )

    def committed(self, commit_id: UUID) -> Database:
        """The same value, named by a commit."""
        recent = self.recent
        return made(
            self.config,
            self.pool,
            self.schema,
            self.lane,
            self.max_tx,
            self.max_eid,
            self.instant_ms,
            self.latest_ms,
            self.monotonic,
            commit_id,
            self.purge_horizon,
            (self.indexes, self.entities) if recent is None else recent,
            self.window,
        )

    def settled(self) -> Database:
        """This value, after what is `recent` was put into its indexes."""
        recent = self.recent
        if recent is not None:  # other threads may come to the same tables at the same time
            indexes, entities = recent.tables()
            _INDEXES.__set__(self, indexes)
            _ENTITIES.__set__(self, entities)
            object.__setattr__(self, "__class__", Database)
            object.__setattr__(self, "recent", None)  # at last: who finds none has a plain value
        return self

    @property
    def tx0(self) -> int:
        """The id that stands for the state before the first transaction of this lane."""
        return TX_BASE + (self.lane << LANE_BITS)

    @property
    def is_current(self) -> bool:
        """Whether this is the plain value, neither as-of nor since nor history."""
        window = self.window
        return window is CURRENT or window.is_current

    @property
    def is_history(self) -> bool:
        return self.window.history

    def __len__(self) -> int:
        """The number of visible datoms."""
        if self.is_current:
            return sum(index.aevt.open for index in self.indexes.values())
        return sum(len(self.scan(attr).e) for attr in self.indexes)

    def __bool__(self) -> bool:
        """A value without facts is still a value."""
        return True

    # --- views -------------------------------------------------------------------------------

    def as_of(self, point: int | datetime) -> Database:
        """The view up to and including a transaction id or instant."""
        return self._bounded(point, upper=True)

    def since(self, point: int | datetime) -> Database:
        """The view of what came after a transaction id or instant."""
        return self._bounded(point, upper=False)

    def history(self) -> Database:
        """The view of all assertions and retractions."""
        self._require_history("history")
        return self._view(self.window.with_history())

    def scratch(self) -> Database:
        """The same value for speculation: values that it takes in go with it."""
        if isinstance(self.pool, ScratchPool):
            return self
        return replace(self, pool=ScratchPool(self.pool), _cache=Kept())

    def current(self) -> Database:
        """The same value without a window."""
        return self if self.is_current else self._view(CURRENT)

    def _view(self, window: Window) -> Database:
        return replace(self, window=window, _cache=Kept())

    def _require_history(self, what: str) -> None:
        if not self.config.keep_history:
            raise NoHistory(f"{what} is only allowed on a database that keeps history.", view=what)

    def _bounded(self, point: int | datetime, *, upper: bool) -> Database:
        self._require_history("as_of" if upper else "since")
        if isinstance(point, datetime):
            if point.tzinfo is None:
                raise InvalidTimePoint(
                    f"The instant {point.isoformat()} has no time zone.", point=point.isoformat()
                )
            ms = instant_ms(point)
            window = self.window.until(ms=ms) if upper else self.window.after(ms=ms)
            return self._view(window)
        if type(point) is not int:
            raise InvalidTimePoint(
                f"{shown(point)} is neither a transaction id nor an instant.", point=shown(point)
            )
        if point < TX_BASE:
            raise InvalidTimePoint(
                f"{point} is no transaction id; the first is {self.tx0 + 1}.", point=point
            )
        return self._view(self.window.until(tx=point) if upper else self.window.after(tx=point))

    # --- columns -----------------------------------------------------------------------------

    def instants(self) -> Instants:
        """The instant of every transaction."""
        index = self.indexes.get(TX_INSTANT)
        if index is None:
            return _NO_INSTANTS
        txs, ms, _, _ = index.aevt.columns()
        return Instants(txs, ms)

    def _effective_window(self) -> Window:
        """The window with instants turned into transaction ids, where they order alike."""
        window = self.window
        if not self.monotonic or (window.until_ms is None and window.after_ms is None):
            return window
        found: Window | None = self._cache.get("window")
        if found is None:
            found = window
            if window.until_ms is not None:
                last = self._last_tx(window.until_ms)
                found = replace(found, until_ms=None).until(tx=last)
            if window.after_ms is not None:
                last = self._last_tx(window.after_ms)
                found = replace(found, after_ms=None).after(tx=last)
            self._cache["window"] = found
        return found

    def _last_tx(self, ms: int) -> int:
        """The last transaction not younger than ``ms``, where instants are in order; 0 if none."""
        index = self.indexes.get(TX_INSTANT)
        if index is not None and index.avet is not None and index.avet.open == index.avet.count:
            row = index.avet.last_until(ms)
            return 0 if row is None else row[1]
        table = self.instants()
        spot = int(table.ms.searchsorted(ms, "right"))
        return int(table.txs[spot - 1]) if spot else 0

    def scan(self, attr: Keyword) -> Facts:
        """All visible facts of an attribute, ordered by entity.  Kept with this view."""
        index = self.indexes.get(attr)
        if index is None:
            return _NO_FACTS
        if self.is_current:
            e, v, tx, _ = index.aevt.columns()
            return Facts(e, v, tx, None)
        cache = self._cache
        found: Facts | None = cache.get(attr)
        if found is not None:
            cache.hits += 1
            return found
        facts = self._select(attr, index.aevt.flat())
        cache[attr] = facts
        keeper = index.aevt.keeper
        if keeper is not None:
            cache.count(keeper, sum(column.nbytes for column in facts if column is not None))
        return facts

    def places(self, attr: Keyword) -> Places:
        """Where entities lie in `scan`, which keeps it."""
        index = self.indexes.get(attr)
        if index is None:
            return Places(_NONE)
        if self.is_current:
            return index.aevt.places()
        found: Places | None = self._cache.get((attr, "places"))
        if found is None:
            found = self._cache[attr, "places"] = Places(self.scan(attr).e)
        return found

    def is_scanned(self, attr: Keyword) -> bool:
        """Whether `scan` has the facts of an attribute at hand."""
        if self.is_current:
            index = self.indexes.get(attr)
            return index is None or index.aevt.is_scanned
        return attr in self._cache

    def forget(self, shared: Database) -> None:
        """Give up the columns that scans of this value kept, but for what it shares with another.

        Reads go on to answer as before; the next scan makes its columns again.  O(attributes).
        """
        mine, others = (db if db.recent is None else db.recent.base for db in (self, shared))
        for attr, index in mine.indexes.items():
            index.forget(others.indexes.get(attr))
        if mine.entities is not others.entities:
            mine.entities.forget()
        self._cache.forget()

    def scan_entity(self, attr: Keyword, e: int) -> Facts:
        """The visible facts of one attribute and entity."""
        index = self.indexes.get(attr)
        if index is None:
            return _NO_FACTS
        rows = index.aevt.with_first(e)
        return live_facts(rows) if self.window is CURRENT else self._select(attr, rows)

    def scan_value(self, attr: Keyword, entry: int) -> Facts:
        """The visible facts of one attribute with one encoded value, ordered by entity."""
        index = self.indexes.get(attr)
        if index is None:
            return _NO_FACTS
        if index.avet is None or (self._picks_latest(attr) and not self.is_current):
            facts = self.scan(attr)
            hit = facts.v == entry
            added = None if facts.added is None else facts.added[hit]
            return Facts(facts.e[hit], facts.v[hit], facts.tx[hit], added)
        rows = index.avet.with_first(entry)
        if self.window is CURRENT:
            if index.avet.open == index.avet.count:  # nothing has ended
                return Facts(rows[1], rows[0], rows[2], None)
            return live_facts(rows, by_value=True)
        window = self._effective_window()
        return select(rows, window, self._instants_for(window), by_value=True)

    def _select(self, attr: Keyword, rows: Ints) -> Facts:
        window = self._effective_window()
        if self._picks_latest(attr):
            rows = _latest_only(rows, window, self.instants(), many=self._is_many(attr))
        return select(rows, window, self._instants_for(window))

    def _instants_for(self, window: Window) -> Instants:
        """The instants, where a window asks for them: making the table costs O(transactions)."""
        if window.until_ms is None and window.after_ms is None:
            return _NO_INSTANTS
        return self.instants()

    def _picks_latest(self, attr: Keyword) -> bool:
        """Whether this view may cut the log at instants that do not order like its ids.

        Then several intervals of one fact can be in view, of which the latest counts.
        """
        window = self.window
        return window.until_ms is not None and not self.monotonic and not window.history

    def _is_many(self, attr: Keyword) -> bool:
        found = self.schema.get(attr)
        return found is not None and found.many

    # --- points ------------------------------------------------------------------------------

    def bounds(self) -> tuple[int, int] | None:
        """The transactions of this view: after the first and until the second; kept.

        A fact of it began within and had not ended then.  None where that is not what tells: in
        a history, and where instants bound the view and do not order like transactions.
        """
        if self.window is CURRENT:
            return _NOW
        found: tuple[int, int] | None = self._cache.get("bounds")
        if found is None:
            window = self._effective_window()
            if window.history or window.until_ms is not None or window.after_ms is not None:
                return None
            after, until = window.after_tx, window.until_tx
            found = (-1 if after is None else after, OPEN - 1 if until is None else until)
            self._cache["bounds"] = found
        return found

    def seen(self, table: RowTree, key: int) -> list[Fence] | None:
        """The second column and transaction of the visible rows of a key in a table of facts.

        None in views that have no `bounds`.  O(log n + rows).
        """
        if self.window is CURRENT:
            return table.open_of(key)
        bounds = self.bounds()
        return None if bounds is None else table.seen_of(key, *bounds)

    def facts(self, e: int, attr: Keyword) -> list[tuple[Any, int]]:
        """Visible ``(value, tx)`` pairs of an attribute of an entity, in index order."""
        recent = self.recent
        if recent is not None:
            return recent.facts(e, attr, _value_order)
        index = self.indexes.get(attr)
        if index is None:
            return []
        kind, pool = index.kind, self.pool
        found = index.aevt.open_of(e) if self.window is CURRENT else self.seen(index.aevt, e)
        if found is not None:
            if len(found) == 1:
                entry, tx = found[0]
                return [(decode_one(entry, kind, pool), tx)]
            if len(found) <= _FEW or kind != "code":
                pairs = [(decode_one(entry, kind, pool), tx) for entry, tx in found]
                if kind == "code":  # codes do not order as their values do
                    pairs.sort(key=_value_order)
                return pairs
        facts = self.scan_entity(attr, e)
        if not len(facts.e):
            return []
        pairs = list(zip(decode(facts.v, kind, pool), facts.tx.tolist(), strict=True))
        if len(pairs) > 1 and kind == "code":
            order = order_of(facts.v, kind, pool)
            pairs = [pairs[spot] for spot in np.lexsort((facts.tx, order)).tolist()]
        return pairs

    def source_of(self, e: int) -> Database:
        """A value that says the same of an entity, and has its indexes if that is known of one."""
        recent = self.recent
        return self if recent is None or recent.speaks_of(e) else recent.base

    def values(self, e: int, attr: Keyword) -> list[Any]:
        """Visible values of an attribute of an entity, in index order."""
        return [value for value, _ in self.facts(e, attr)]

    def attributes_ever(self, e: int) -> tuple[Keyword, ...]:
        """The attributes an entity has or once had, in keyword order."""
        recent = self.recent
        if recent is not None:
            return recent.attributes_ever(e)
        return self.pool.in_order(tuple(self.entities.seconds_of(e)))

    def attributes_of(self, e: int) -> list[Keyword]:
        """The attributes an entity visibly has, in keyword order."""
        return [attr for attr in self.attributes_ever(e) if self.has(e, attr)]

    def has(self, e: int, attr: Keyword) -> bool:
        """Whether an entity visibly has an attribute."""
        if self.recent is not None:
            return bool(self.facts(e, attr))
        index = self.indexes.get(attr)
        if index is None:
            return False
        found = self.seen(index.aevt, e)
        return bool(len(self.scan_entity(attr, e).e) if found is None else found)

    def holders(self, attr: Keyword, value: Any) -> list[int]:
        """The entities that visibly have ``value`` for ``attr``, ascending."""
        recent = self.recent
        if recent is not None:
            return recent.holders(attr, value)
        index = self.indexes.get(attr)
        if index is None:
            return []
        entry = find(value, index.kind, self.pool)
        if entry is None:
            return []
        if index.avet is not None:
            if self.window is CURRENT:
                one = index.avet.one_of(entry)
                if one is not None:
                    return [one[0]]
            rows = self.seen(index.avet, entry)
            if rows is not None:
                return [e for e, _ in rows]
        found: list[int] = self.scan_value(attr, entry).e.tolist()
        return found if self.window.is_current or len(found) < 2 else sorted(set(found))

    def are_vacant(self, attr: Keyword, values: Sequence[Any]) -> bool:
        """Whether no entity has, or had, one of the values of an attribute; for many at a time."""
        index = self.indexes.get(attr)
        if index is None:
            return True
        table = index.avet
        if table is None:
            return False
        last = table.last_first()
        if last is None or (index.kind == "long" and min(values) > last):
            return True
        entries = (find(value, index.kind, self.pool) for value in values)
        return not any(entry is not None and table.has_first(entry) for entry in entries)

    def referrers(self, e: int) -> list[tuple[int, Keyword]]:
        """``(entity, attribute)`` of every visible reference to an entity."""
        found: list[tuple[int, Keyword]] = []
        refs = self.schema.refs
        if refs:
            recent = self.recent
            for attr in recent.referring() if recent is not None else self.indexes:
                if attr in refs:
                    found.extend((source, attr) for source in self.holders(attr, e))
        return found

    def has_entity(self, e: int) -> bool:
        """Whether an entity has a visible fact."""
        return any(self.has(e, attr) for attr in self.attributes_ever(e))

    def attribute(self, attr: Keyword) -> Attribute | None:
        """The declaration of an attribute."""
        return self.schema.get(attr)

    # --- entity ids --------------------------------------------------------------------------

    def entid(self, ref: Any) -> int | None:
        """The entity that an id, ident or lookup ref names; None when there is none.

        Raises `EntityIdSyntax`, `LookupRefSyntax` or `LookupRefUnique` for what can name nothing.
        """
        if type(ref) is tuple or type(ref) is list:
            return self._lookup(ref)
        if isinstance(ref, bool):
            raise EntityIdSyntax(f"{ref} is no entity id.", entity=ref)
        if isinstance(ref, int):
            return int(ref)
        if isinstance(ref, Keyword):
            return self.schema.idents.get(ref)
        if isinstance(ref, (list, tuple)):
            return self._lookup(ref)
        raise EntityIdSyntax(
            f"{shown(ref)} is neither an entity id, an ident nor a lookup ref.", entity=shown(ref)
        )

    def entid_strict(self, ref: Any) -> int:
        """The same as `entid`, but raises `EntityIdMissing` when nothing has the id."""
        found = self.entid(ref)
        if found is None:
            raise EntityIdMissing(f"Nothing found for entity id {_shown(ref)}.", entity=_shown(ref))
        return found

    def _lookup(self, ref: Sequence[Any]) -> int | None:
        if len(ref) != 2:
            raise LookupRefSyntax(
                f"A lookup ref is [attribute value], not {_shown(ref)}.", lookup_ref=_shown(ref)
            )
        name, value = ref
        attr = name if type(name) is Keyword else as_keyword(name)
        if not isinstance(attr, Keyword):
            raise LookupRefSyntax(
                f"A lookup ref begins with an attribute, not {_shown(name)}.",
                lookup_ref=_shown(ref),
            )
        declared = self.schema.get(attr)
        if declared is None or declared.unique is None:
            raise LookupRefUnique(
                f"The attribute {attr} of lookup ref {_shown(ref)} is not unique.",
                attribute=str(attr),
                lookup_ref=_shown(ref),
            )
        if value is None:
            return None
        if declared.value_type == "ref" and not isinstance(value, int):
            value = self.entid(value)
            if value is None:
                return None
        elif declared.value_type == "keyword":
            value = as_keyword(value)
        index = None if self.recent is not None else self.indexes.get(attr)
        if index is not None and index.avet is not None and self.window is CURRENT:
            entry = find(value, index.kind, self.pool)
            one = None if entry is None else index.avet.one_of(entry)
            if one is not None:
                return one[0]
        holders = self.holders(attr, value)
        return holders[0] if holders else None

    # --- raw index access --------------------------------------------------------------------

    datoms = access.datoms
    seek_datoms = access.seek_datoms
    rseek_datoms = access.rseek_datoms
    index_range = access.index_range

    def kind(self, attr: Keyword) -> Any:
        """The encoding of an attribute's values."""
        index = self.indexes.get(attr)
        if index is not None:
            return index.kind
        declared = self.schema.get(attr)
        return kind_of(declared.value_type if declared else None)

    def metrics(self) -> dict[Keyword, Any]:
        """Counts of visible datoms: in all, in AVET, per attribute and per entity.

        ``:count``, ``:avet-count``, ``:per-attr-counts`` and ``:per-entity-counts``; with history
        also ``:temporal-count`` and ``:temporal-avet-count``, of all that ever was said and
        retracted, whatever the view.
        """
        per_attr: dict[Keyword, int] = {}
        per_entity: dict[int, int] = {}
        avet = 0
        for attr, index in self.indexes.items():
            entities = self.scan(attr).e
            if not len(entities):
                continue
            per_attr[attr] = len(entities)
            if index.avet is not None:
                avet += len(entities)
            ids, counts = np.unique(entities, return_counts=True)
            for e, count in zip(ids.tolist(), counts.tolist(), strict=True):
                per_entity[e] = per_entity.get(e, 0) + count
        found: dict[Keyword, Any] = {
            kw("count"): sum(per_attr.values()),
            kw("avet-count"): avet,
            kw("per-attr-counts"): per_attr,
            kw("per-entity-counts"): per_entity,
        }
        if self.config.keep_history:
            found[kw("temporal-count")] = sum(
                2 * index.aevt.count - index.aevt.open for index in self.indexes.values()
            )
            found[kw("temporal-avet-count")] = sum(
                2 * index.avet.count - index.avet.open
                for index in self.indexes.values()
                if index.avet is not None
            )
        return found

    def _check(self) -> None:
        """Raise AssertionError unless every index holds its invariants and they agree."""
        self.entities._check()
        pairs: set[tuple[int, int]] = set()
        for attr, index in self.indexes.items():
            index._check()
            code = self.pool.find(attr)
            pairs.update((e, code) for e in np.unique(index.aevt.flat()[0]).tolist())
        assert pairs == set(zip(*self.entities.flat().tolist(), strict=True)), "EA differs"


class Unsettled(Database):
    """A value with facts that are only `Database.recent`; `Database.settled` makes it a plain one.

    A class of its own, so that plain values have nothing to find out when they are read: with a
    ``__getattr__``, which makes every attribute slow, one fact from an index took a third longer.
    """

    __slots__ = ()

    if not TYPE_CHECKING:

        @property
        def indexes(self) -> Mapping[Keyword, AttributeIndex]:
            return _INDEXES.__get__(self.settled())

        @property
        def entities(self) -> RowTree:
            return _ENTITIES.__get__(self.settled())


_INDEXES: Final[Any] = Database.__dict__["indexes"]
_ENTITIES: Final[Any] = Database.__dict__["entities"]

_Draft: Final[Any] = type("_Draft", (), {"__slots__": [one.name for one in fields(Database)]})
"""A value while it is being made: setting the fields of a frozen class takes 3 microseconds, those
of this one 0.5, and every transaction makes a value."""


def made(
    config: DatabaseConfig,
    pool: ValuePool,
    schema: Schema,
    lane: int,
    max_tx: int,
    max_eid: int,
    instant_ms: int | None,
    latest_ms: int | None,
    monotonic: bool,
    commit_id: UUID | None,
    purge_horizon: int | None,
    facts: tuple[Mapping[Keyword, AttributeIndex], RowTree] | Recent,
    window: Window = CURRENT,
) -> Database:
    """A database value of all its fields; ``facts``: its tables, or what has none yet."""
    draft = _Draft()
    draft.config = config
    draft.pool = pool
    draft.schema = schema
    draft.lane = lane
    draft.max_tx = max_tx
    draft.max_eid = max_eid
    draft.instant_ms = instant_ms
    draft.latest_ms = latest_ms
    draft.monotonic = monotonic
    draft.commit_id = commit_id
    draft.purge_horizon = purge_horizon
    draft.window = window
    draft._cache = Kept()
    if type(facts) is tuple:
        draft.indexes, draft.entities = facts
        draft.recent = None
        draft.__class__ = Database
    else:
        draft.recent = facts
        draft.__class__ = Unsettled
    found: Database = draft
    return found


def _value_order(pair: tuple[Any, int]) -> Any:
    return sort_key(pair[0])


def _shown(ref: Any) -> str:
    return shown(list(ref) if isinstance(ref, tuple) else ref)


def _latest_only(rows: Ints, window: Window, instants: Instants, *, many: bool) -> Ints:
    """Drop intervals that a later event in view overrules (per fact, or entity and attribute)."""
    if rows.shape[1] < 2:
        return rows
    cut = window.until_ms
    assert cut is not None
    top = OPEN if window.until_tx is None else window.until_tx
    started = (instants.of(rows[2]) <= cut) & (rows[2] <= top)
    ended = (rows[3] != OPEN) & (instants.of(rows[3]) <= cut) & (rows[3] <= top)
    last: dict[Any, int] = {}
    keys = list(
        zip(rows[0].tolist(), rows[1].tolist() if many else [0] * rows.shape[1], strict=True)
    )
    starts, ends = started.tolist(), ended.tolist()
    for spot, key in enumerate(keys):
        if starts[spot]:
            last[key] = max(last.get(key, 0), int(rows[2, spot]))
        if ends[spot]:
            last[key] = max(last.get(key, 0), int(rows[3, spot]))
    keep = [starts[spot] and int(rows[2, spot]) >= last[key] for spot, key in enumerate(keys)]
    return rows[:, np.array(keep, dtype=np.bool_)]

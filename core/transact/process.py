"""One transaction, from what a client wrote to what the log records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, Final

from natalog.core.errors import NatalogError, TransactSchema, TransactSyntax
from natalog.core.garbage import GarbageWaits
from natalog.core.limits import CONFLICTS_MAX, LANE_BITS, TRANSACTION_DATOMS_MAX, TX_BASE
from natalog.core.materialise import materialised
from natalog.core.schema import TX_INSTANT
from natalog.core.schema_conflict import SchemaConflict
from natalog.core.shown import shown
from natalog.core.transact.coerce import stored_value
from natalog.core.transact.ensure import ask_reports, ask_specs, check_specs, check_valid_times
from natalog.core.transact.functions import EMPTY, Registry
from natalog.core.transact.maps import assert_entry
from natalog.core.transact.operations import transact_all
from natalog.core.transact.plans import SYSTEM_ENTRIES
from natalog.core.transact.report import TxReport
from natalog.core.transact.resolve import CURRENT_TX
from natalog.core.transact.schema_check import check_declarations
from natalog.core.transact.state import Work
from natalog.core.transact.tempids import Bindings, StartAgain, foresee
from natalog.core.transact.tuples import check_expected, flush
from natalog.core.values import Keyword, instant_ms, ms_instant, sort_key

if TYPE_CHECKING:
    from natalog.core.database import Database

_MANY: Final = 64
"""Operations from which it pays that the search for garbage waits."""
_ABSENT: Final = object()
_DATA_KEYS: Final = ("tx-data", "tx_data", ":tx-data", Keyword("tx-data"))
_META_KEYS: Final = ("tx-meta", "tx_meta", ":tx-meta", Keyword("tx-meta"))


def process(
    db: Database,
    tx_data: Any,
    tx_meta: Mapping[Any, Any] | None = None,
    *,
    now_ms: int,
    functions: Registry = EMPTY,
    tx: int | None = None,
) -> TxReport:
    """Apply ``tx_data`` to a database value.

    ``tx_data`` is a sequence of operations (maps, vectors, `Datom`) or ``{:tx-data [...] :tx-meta
    {...}}``; ``now_ms`` is the clock's instant, ``tx`` the id to use (default: the next one).
    Operations apply in order, each sees those before it; a refused one refuses all.  On an as-of
    or since view they see the state that the view shows.  Raises `TransactError`, `EntityError`,
    `ViewRefused` for history.  O(operations) plus an index lookup per existing fact touched.
    """
    if not db.is_current:
        db = materialised(db)
    operations, tx_meta = _unwrap(tx_data, tx_meta)
    if len(operations) < _MANY:
        return _processed(db, operations, tx_meta, now_ms, functions, tx)
    with GarbageWaits():
        return _processed(db, operations, tx_meta, now_ms, functions, tx)


def _processed(
    db: Database,
    operations: Sequence[Any],
    tx_meta: Mapping[Any, Any] | None,
    now_ms: int,
    functions: Registry,
    number: int | None,
) -> TxReport:
    tx = next_tx(db) if number is None else number

    def fresh(bindings: Bindings) -> Work:
        return Work(db, tx, None, functions, bindings)

    work = _worked(fresh, operations, tx_meta, now_ms)
    return _report(work, db, tx_meta)


def schema_conflicts(
    db: Database,
    tx_data: Any,
    *,
    now_ms: int,
    functions: Registry = EMPTY,
    limit: int = CONFLICTS_MAX,
) -> list[SchemaConflict]:
    """Everything that forbids the changes of declarations in ``tx_data``; nothing is applied.

    Empty when the transaction may be applied.  ``limit``: entities, and values, that one conflict
    names.  Raises what refuses the transaction for another reason, as `process` does.
    """
    db = materialised(db)
    operations, tx_meta = _unwrap(tx_data, None)
    found: list[TransactSchema] = []

    def fresh(bindings: Bindings) -> Work:
        work = Work(db, next_tx(db), None, functions, bindings)
        found.clear()
        work.conflicts, work.conflicts_max = found, limit
        return work

    try:
        _worked(fresh, operations, tx_meta, now_ms)
    except NatalogError:
        if not found:
            raise
    return [
        SchemaConflict(
            error.data["attribute"],
            error.message,
            list(error.data.get("entities", ())),
            list(error.data.get("values", ())),
        )
        for error in found
    ]


def _worked(
    fresh: Callable[[Bindings], Work],
    operations: Sequence[Any],
    tx_meta: Mapping[Any, Any] | None,
    now_ms: int,
) -> Work:
    """All operations applied; begins again when a temporary id turns out to be an entity."""
    bindings = Bindings()
    first = True
    while True:
        try:
            return _attempt(fresh(bindings), operations, tx_meta, now_ms)
        except StartAgain:
            if first:
                foresee(fresh(bindings), operations)
                first = False
        except RecursionError:
            raise TransactSyntax("The transaction is nested too deeply.") from None


def next_tx(db: Database) -> int:
    """The id of the next transaction on the lane of ``db``."""
    return max(db.max_tx, TX_BASE + (db.lane << LANE_BITS)) + 1


def _attempt(
    work: Work, operations: Sequence[Any], tx_meta: Mapping[Any, Any] | None, now_ms: int
) -> Work:
    if work.keep_history:
        _describe(work, tx_meta, now_ms)
    transact_all(work, operations)
    if work.pending:
        flush(work)
    dangling = work.used_as_value and work.used_as_value.keys() - work.used_as_entity
    if dangling:
        names = sorted(dangling, key=sort_key)
        raise TransactSyntax(
            f"Temporary id {names[0]!r} is used as a value but nothing is said about it.",
            tempids=names,
        )
    if work.expected:
        check_expected(work)
    if work.touched_schema:
        check_declarations(work)
    if work.valid:
        check_valid_times(work)
    if len(work.datoms) > TRANSACTION_DATOMS_MAX:
        raise TransactSyntax(
            f"A transaction may make at most {TRANSACTION_DATOMS_MAX} facts, "
            f"not {len(work.datoms)}.",
            datoms=len(work.datoms),
        )
    if work.max_eid >> LANE_BITS != work.lane and work.max_eid != work.first_eid:
        raise TransactSyntax("The entity ids of this branch are used up.")
    return work


def _describe(work: Work, tx_meta: Mapping[Any, Any] | None, now_ms: int) -> None:
    """Begin the transaction entity: its instant first, then what the caller says about it."""
    previous = work.db.instant_ms
    at = now_ms if previous is None else max(now_ms, previous + 1)
    work.set_instant(ms_instant(at), at)
    for raw, value in (tx_meta or {}).items():
        entry = SYSTEM_ENTRIES.get(raw) if raw.__hash__ is not None else None
        if entry is not None and entry.plan.ident is TX_INSTANT:
            instant = stored_value(entry.plan, value, entry.text, work.caps)
            work.set_instant(instant, instant_ms(instant))
            continue
        entry = work.entry(raw, tx_meta)
        if entry.plan.schema:
            raise TransactSchema(
                f"{entry.plan.ident} has no place in tx-meta.", attribute=entry.plan.ident
            )
        assert_entry(work, work.tx, entry, value, tx_meta)


def _report(work: Work, db: Database, tx_meta: Mapping[Any, Any] | None) -> TxReport:
    from natalog.core.apply import apply_changes

    asks = check_specs(work) if work.ensures else []
    changes = work.changes()
    after = apply_changes(db, changes)
    if asks:
        ask_specs(work, asks, after)
    meta: dict[Keyword, Any] = {}
    if work.instant_ms is not None:
        if tx_meta:
            for raw, value in tx_meta.items():
                meta[raw if type(raw) is Keyword else Keyword(raw)] = value
        meta[TX_INSTANT] = work.datoms[0][2]
    report = TxReport(
        db,
        after,
        work.tx,
        work.instant_ms,
        changes.datoms,
        {CURRENT_TX: work.tx, **work.tempids},
        meta,
        len(changes.purges),
        changes,
    )
    if work.functions.reports:
        ask_reports(work, report)
    return report


def _unwrap(
    tx_data: Any, tx_meta: Mapping[Any, Any] | None
) -> tuple[Sequence[Any], Mapping[Any, Any] | None]:
    """The operations and meta data of a transaction in any of its outer forms."""
    if type(tx_data) is list and tx_meta is None:
        return tx_data, None
    if isinstance(tx_data, Mapping):
        data = next((tx_data[key] for key in _DATA_KEYS if key in tx_data), _ABSENT)
        if data is _ABSENT:
            raise TransactSyntax(
                "A transaction given as a map needs :tx-data.", keys=[str(key) for key in tx_data]
            )
        inner = next((tx_data[key] for key in _META_KEYS if key in tx_data), None)
        tx_data, tx_meta = data, inner if inner is not None else tx_meta
    if tx_data is None:
        tx_data = []
    if tx_meta is not None and not isinstance(tx_meta, Mapping):
        raise TransactSyntax(f"tx-meta is a map, not {shown(tx_meta)}.", tx_meta=shown(tx_meta))
    if isinstance(tx_data, Set):  # rows of a query; in a fixed order, so that ids are too
        return sorted(tx_data, key=sort_key), tx_meta
    if isinstance(tx_data, list | tuple) and not hasattr(tx_data, "_fields"):
        return tx_data, tx_meta
    raise TransactSyntax(
        f"Transaction data are a sequence of operations, not {shown(tx_data)}.",
        tx_data=shown(tx_data),
    )

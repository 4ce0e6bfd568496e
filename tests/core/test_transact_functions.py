"""Registered code: transaction functions, predicates, entity specs."""

from __future__ import annotations

from typing import Any

import pytest

from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.errors import (
    EntityIdMissing,
    TransactEnsure,
    TransactError,
    TransactPredicate,
    TransactSyntax,
)
from natalog.core.transact import Registry, TxReport, process
from natalog.core.values import kw

SCHEMA = """
[{:db/id 1 :db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity}
 {:db/id 2 :db/ident :balance :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/id 3 :db/ident :percent :db/valueType :db.type/long :db/cardinality :db.cardinality/one
  :db.attr/preds [small positive]}
 {:db/id 4 :db/ident :guard :db.entity/attrs [:name :balance]}
 {:db/id 5 :db/ident :solvent :db.entity/preds solvent}]
"""


def move(db: Database, source: Any, target: Any, amount: int) -> Any:
    a, b = db.entid_strict(source), db.entid_strict(target)
    held = db.values(a, kw("balance"))[0]
    if held < amount:
        raise ValueError("not enough")
    other = next(iter(db.values(b, kw("balance"))), 0)
    return [["db/add", a, "balance", held - amount], ["db/add", b, "balance", other + amount]]


REGISTRY = Registry(
    transaction={
        "bank/move": move,
        "nothing": lambda db: None,
        "wrong": lambda db: 5,
        "twice": lambda db, name: [["db.fn/call", "bank/move", ["name", name], 9, 1]] * 2,
        "endless": lambda db: [["db.fn/call", "endless"]],
    },
    values={"small": lambda v: v <= 100, "positive": lambda v: v > 0},
    entities={"solvent": lambda db, e: db.values(e, kw("balance"))[0] >= 0},
    reports={"not-five": lambda report: all(d.v != 555 for d in report.datoms)},
)
DB = process(
    process(Database.empty(), read(SCHEMA), now_ms=0).db_after,
    read('[{:db/id 8 :name "Ines" :balance 100} {:db/id 9 :name "Otto" :balance 0}]'),
    now_ms=0,
).db_after


def run(tx_data: Any, functions: Registry = REGISTRY) -> TxReport:
    data = read(tx_data) if isinstance(tx_data, str) else tx_data
    return process(DB, data, now_ms=0, functions=functions)


def balances(report: TxReport) -> list[int]:
    return [report.db_after.values(e, kw("balance"))[0] for e in (8, 9)]


@pytest.mark.parametrize(
    "text",
    [
        '[[:db.fn/call :bank/move [:name "Ines"] 9 30]]',
        "[[:db.fn/call bank/move 8 9 30]]",
        '[["db.fn/call" "bank/move" 8 9 30]]',
        "[[:bank/move 8 9 30]]",
    ],
)
def test_functions_are_called_by_their_registered_name(text: str) -> None:
    assert balances(run(text)) == [70, 30]


def test_functions_see_the_operations_before_them() -> None:
    report = run("[[:db/add 8 :balance 10] [:bank/move 8 9 4] [:bank/move 8 9 4]]")
    assert balances(report) == [2, 8]
    assert balances(run('[[:twice "Ines"]]')) == [98, 2]


def test_a_function_may_say_nothing() -> None:
    assert len(run("[[:nothing]]").datoms) == 1


@pytest.mark.parametrize(
    "operation",
    [["db.fn/call", "nosuch"], ["db.fn/call"], ["nosuch", 1], ["db.fn/call", print, 1], ["wrong"]],
)
def test_only_registered_functions_that_return_operations_run(operation: list[Any]) -> None:
    with pytest.raises(TransactSyntax):
        run([operation])


def test_a_function_that_fails_refuses_the_transaction() -> None:
    with pytest.raises(TransactError, match="not enough") as caught:
        run("[[:bank/move 8 9 3000]]")
    assert caught.value.type == "transact/function"


def test_functions_that_call_each_other_without_end_are_stopped() -> None:
    with pytest.raises(TransactSyntax):
        run("[[:endless]]")


# --- predicates ----------------------------------------------------------------------------------


def test_attribute_predicates_must_all_agree() -> None:
    assert run("[{:db/id 8 :percent 50}]").db_after.values(8, kw("percent")) == [50]
    for value in (0, 101):
        with pytest.raises(TransactPredicate) as caught:
            run(f"[{{:db/id 8 :percent {value}}}]")
        assert caught.value.type == "transact/attr-pred"


def test_an_unregistered_predicate_refuses() -> None:
    with pytest.raises(TransactPredicate) as caught:
        run("[{:db/id 8 :percent 50}]", Registry())
    assert caught.value.type == "transact/attr-pred-unresolved"


def test_reports_can_be_refused() -> None:
    with pytest.raises(TransactPredicate):
        run("[{:db/id 8 :balance 555}]")


# --- entity specs --------------------------------------------------------------------------------


def test_specs_look_at_the_final_state_not_at_what_was_said() -> None:
    report = run('[{:name "Ines" :db/ensure :guard}]')
    assert [d.a.text for d in report.datoms] == ["db/txInstant"]
    run('[{:db/id "r" :name "Runa" :db/ensure :guard} [:db/add "r" :balance 5]]')
    run([{"name": "Ines", "db/ensure": ":guard"}])


def test_a_missing_attribute_refuses() -> None:
    with pytest.raises(TransactEnsure, match=":balance") as caught:
        run('[{:name "Runa" :db/ensure :guard}]')
    assert caught.value.data["missing"] == [kw("balance")]
    with pytest.raises(TransactEnsure):
        run("[{:db/id 8 :db/ensure :guard} [:db/retract 8 :balance]]")


def test_entity_predicates_are_asked_about_the_result() -> None:
    run("[{:db/id 8 :balance 5 :db/ensure [:guard :solvent]}]")
    with pytest.raises(TransactEnsure):
        run("[{:db/id 8 :balance -5 :db/ensure :solvent}]")
    with pytest.raises(TransactPredicate) as caught:
        run("[{:db/id 8 :balance 5 :db/ensure :solvent}]", Registry())
    assert caught.value.type == "transact/entity-pred-unresolved"


def test_a_spec_must_exist() -> None:
    with pytest.raises(EntityIdMissing):
        run("[{:db/id 8 :db/ensure :no/such}]")
    with pytest.raises(TransactSyntax):
        run("[{:db/id 8 :db/ensure 5}]")

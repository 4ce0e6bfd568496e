"""Every request is answered, once, with a typed error where it is wrong; the service goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from natalog.actors.config import ServiceConfig
from natalog.actors.service import running
from natalog.core.codec import pack, unpack
from natalog.core.errors import error_classes
from natalog.core.values import Keyword, Symbol, Tagged

pytestmark = pytest.mark.asyncio
Config = Callable[..., ServiceConfig]

READS = ("query", "pull", "entity", "datoms", "schema", "with", "history", "diff")
UPKEEP = ("info", "branches", "gc", "branch", "delete-branch", "force-branch", "merge", "erase")
DEEP = b"\x91" * 600 + b"\xc0"

# subject, payload (bytes as they are, everything else as msgpack), code of the error
BAD: list[tuple[str, Any, str]] = [
    # bytes that are nothing, on every endpoint
    *((f"people.db.{name}", b"\xc1", "CodecError") for name in (*READS, "transact")),
    *((f"people._.{name}", b"\xc1", "CodecError") for name in UPKEEP),
    *((f"_._.{name}", b"\xc1", "CodecError") for name in ("create", "delete", "list")),
    *((f"people.db.{name}", DEEP, "LimitExceeded") for name in (*READS, "transact")),
    *((f"people.db.{name}", b"[:find ?e", "EdnSyntax") for name in ("transact", "query")),
    *((f"people.db.{name}", b"{:a 1", "EdnSyntax") for name in (*READS, "transact")),
    *((f"people.db.{name}", b"{\xff}", "EdnSyntax") for name in (*READS, "transact")),
    *((f"people.db.{name}", b'{"a": 1,}', "CodecError") for name in (*READS, "transact")),
    *((f"people.db.{name}", {"nonsense": 1}, "BadRequest") for name in READS),
    *((f"people.db.{name}", 7, "BadRequest") for name in READS),
    # databases and branches that do not exist, or could not
    *((f"nobody.db.{name}", {}, "DatabaseNotFound") for name in ("schema", "history", "diff")),
    ("nobody.db.query", "[:find ?e :where [?e :name]]", "DatabaseNotFound"),
    ("nobody.db.pull", {"pattern": ["*"], "eid": 1}, "DatabaseNotFound"),
    ("nobody.db.transact", [{"name": "x"}], "DatabaseNotFound"),
    ("people.nowhere.transact", [{"name": "x"}], "BranchNotFound"),
    ("people.nowhere.schema", {}, "BranchNotFound"),
    ("people.bad+name.schema", {}, "InvalidName"),
    ("bad+name.db.transact", [], "InvalidName"),
    ("_._.transact", [], "InvalidName"),
    *((f"nobody._.{name}", {}, "DatabaseNotFound") for name in UPKEEP),
    ("people._.info", {"branch": "nowhere"}, "BranchNotFound"),
    ("people._.info", {"branch": "no such name"}, "InvalidName"),
    # a verb of the contract that comes later
    ("people._.erase", {"what": 1}, "BadRequest"),
    ("people._.erase", {"containing": 5}, "BadRequest"),
    ("people._.erase", {"tx_data": [["db/add", 1, "n", 2]]}, "BadRequest"),
    ("people._.erase", {"branches": ["nowhere"]}, "BranchNotFound"),
    ("nothing._.erase", {}, "DatabaseNotFound"),
    # branches
    *((f"people._.{name}", {}, "InvalidName") for name in UPKEEP if name.endswith("branch")),
    ("people._.branch", {"to": "db"}, "BranchExists"),
    ("people._.branch", {"to": "no such name"}, "InvalidName"),
    ("people._.branch", {"to": "x", "from": "nowhere"}, "BranchNotFound"),
    ("people._.branch", {"to": "x", "from": UUID(int=7)}, "CommitNotFound"),
    ("people._.branch", {"to": "x", "from": 7}, "InvalidTimePoint"),
    ("people._.branch", {"to": "x", "from": [1]}, "BadRequest"),
    ("people._.branch", {"to": "x", "as_of": 7}, "BadRequest"),
    ("people._.branch", [1], "BadRequest"),
    ("people._.delete-branch", {"branch": "db"}, "BranchProtected"),
    ("people._.delete-branch", {"branch": "nowhere"}, "BranchNotFound"),
    ("people._.merge", {}, "ParentsRequired"),
    ("people._.merge", {"parents": [], "tx_data": []}, "ParentsRequired"),
    ("people._.merge", {"parents": ["nowhere"], "tx_data": []}, "BranchNotFound"),
    ("people._.merge", {"parents": [UUID(int=7)], "tx_data": []}, "CommitNotFound"),
    ("people._.merge", {"branch": "nowhere", "parents": ["db"], "tx_data": []}, "BranchNotFound"),
    ("people._.merge", {"parents": 7, "tx_data": []}, "BadRequest"),
    ("people._.merge", b"{", "EdnSyntax"),
    ("people._.force-branch", {"branch": "x"}, "ParentsRequired"),
    ("people._.force-branch", {"branch": "x", "parents": ["nowhere"]}, "BranchNotFound"),
    (
        "people._.force-branch",
        {"branch": "x", "parents": ["db"], "view": {"history": True}},
        "ViewRefused",
    ),
    (
        "people._.force-branch",
        {"branch": "x", "parents": ["db"], "view": {"with": [{"undeclared": 1}]}},
        "TransactSchema",
    ),
    (
        "people._.force-branch",
        {"branch": "x", "parents": ["db"], "view": {"database": "nobody"}},
        "BadRequest",
    ),
    ("people._.gc", {"before": "soon"}, "InvalidTimePoint"),
    ("people._.gc", {"dry_run": 7}, "BadRequest"),
    # databases as a whole
    ("_._.create", {}, "InvalidName"),
    ("_._.create", [1], "BadRequest"),
    ("_._.create", {"database": 7}, "InvalidName"),
    ("_._.create", {"database": "a b"}, "InvalidName"),
    ("_._.create", {"database": "_"}, "InvalidName"),
    ("_._.create", {"database": "x" * 65}, "InvalidName"),
    ("_._.create", {"database": "people"}, "DatabaseExists"),
    ("_._.create", {"database": "other", "keep_histry": True}, "InvalidConfig"),
    ("_._.create", {"database": "other", "keep_history": 3}, "InvalidConfig"),
    ("_._.create", {"database": "other", "initial_tx": [{"undeclared": 1}]}, "TransactSchema"),
    ("_._.create", {"database": "other", "initial_tx": 5}, "TransactSyntax"),
    ("_._.delete", {"name": "people"}, "BadRequest"),
    ("_._.delete", {"database": "a.b"}, "InvalidName"),
    ("_._.list", {"a": 1}, "BadRequest"),
    # transactions
    ("people.db.transact", {"tx": []}, "TransactSyntax"),
    ("people.db.transact", {"tx_data": [], "more": 1}, "BadRequest"),
    ("people.db.transact", {"tx_data": [], "id": 7}, "BadRequest"),
    ("people.db.transact", {"tx_data": [], "id": "x" * 300}, "BadRequest"),
    ("people.db.transact", 7, "TransactSyntax"),
    ("people.db.transact", "text", "TransactSyntax"),
    ("people.db.transact", [7], "TransactSyntax"),
    ("people.db.transact", [["db/frobnicate", 1]], "TransactSyntax"),
    ("people.db.transact", [{"undeclared": 1}], "TransactSchema"),
    ("people.db.transact", [{"name": 7}], "TransactSchema"),
    ("people.db.transact", [{"db/id": [Keyword("name"), "x"], "name": "y"}], "LookupRefUnique"),
    # queries
    ("people.db.query", "[:find ?e :where [?e :name", "EdnSyntax"),
    ("people.db.query", "[:find ?x :where [?e :name ?n]]", "QueryParse"),
    ("people.db.query", {"query": "[:find ?n :in $ ?e :where [?e :name ?n]]"}, "QueryBinding"),
    ("people.db.query", {"query": "[:find ?n :where [?e :name ?n]]", "args": 7}, "BadRequest"),
    (
        "people.db.query",
        {"query": "[:find ?n :where [?e :name ?n]]", "args": [1, 2, 3]},
        "QueryBinding",
    ),
    ("people.db.query", {"query": [Keyword("find")]}, "FindParse"),
    ("people.db.query", [Keyword("find"), Symbol("?e"), Keyword("where"), 7], "WhereParse"),
    ("people.db.query", "[:find ?n :where (nope ?n)]", "QueryParse"),
    ("people.db.query", '[:find ?n :where [(slurp "/etc/passwd") ?n]]', "QueryWhere"),
    ("people.db.query", {"query": "[:find ?e :where [?e :name]]", "basis": "x"}, "BadRequest"),
    ("people.db.query", {"query": "[:find ?e :where [?e :name]]", "basis": -1}, "BadRequest"),
    ("people.db.query", {"query": "[:find ?e :where [?e :name]]", "timeout_ms": 0}, "BadRequest"),
    ("people.db.query", {"query": "[:find ?e :where [?e :name]]", "fuel": "all"}, "BadRequest"),
    (
        "people.db.query",
        {"query": "[:find ?e :where [?e :name]]", "basis": 2**60, "timeout_ms": 30},
        "DeadlineExceeded",
    ),
    (
        "people.db.query",
        {"query": "[:find ?e :where [?e :name]]", "view": {"as_off": 1}},
        "BadRequest",
    ),
    (
        "people.db.query",
        {"query": "[:find ?e :where [?e :name]]", "view": {"as_of": 3}},
        "InvalidTimePoint",
    ),
    (
        "people.db.query",
        {"query": "[:find ?e :where [?e :name]]", "view": {"since": "yesterday"}},
        "InvalidTimePoint",
    ),
    (
        "people.db.query",
        {"query": "[:find ?e :where [?e :name]]", "view": {"branch": "nowhere"}},
        "BranchNotFound",
    ),
    (
        "people.db.query",
        {"query": "[:find ?e :where [?e :name]]", "view": {"commit": "nonsense"}},
        "BadRequest",
    ),
    (
        "people.db.query",
        {"query": "[:find ?e :where [?e :name]]", "args": [Tagged("natalog/db", 7)]},
        "BadRequest",
    ),
    (
        "people.db.query",
        {
            "query": "[:find ?e :where [?e :name]]",
            "args": [Tagged("natalog/db", {"database": "nobody"})],
        },
        "DatabaseNotFound",
    ),
    # other reads
    ("people.db.pull", {"pattern": ["*"]}, "BadRequest"),
    ("people.db.pull", {"pattern": ["*"], "eid": 1, "eids": [1]}, "BadRequest"),
    ("people.db.pull", {"pattern": ["*"], "eids": 1}, "BadRequest"),
    ("people.db.pull", {"pattern": 7, "eid": 1}, "PullParse"),
    ("people.db.pull", {"pattern": ["*"], "eid": 1.5}, "EntityIdSyntax"),
    ("people.db.entity", {}, "BadRequest"),
    ("people.db.entity", {"eid": {}}, "EntityIdSyntax"),
    ("people.db.datoms", {"index": "vaet"}, "IndexAccess"),
    ("people.db.datoms", {"index": "eavt", "components": 1}, "BadRequest"),
    ("people.db.datoms", {"index": "eavt", "limit": -1}, "BadRequest"),
    ("people.db.datoms", {"index": "eavt", "mode": "sideways"}, "BadRequest"),
    ("people.db.datoms", {"mode": "range"}, "BadRequest"),
    ("people.db.datoms", {"mode": "range", "attr": "name"}, "IndexAccess"),
    ("people.db.schema", {"reverse": "yes"}, "BadRequest"),
    ("people.db.with", {}, "BadRequest"),
    ("people.db.with", {"tx_data": [{"undeclared": 1}]}, "TransactSchema"),
    ("people.db.with", {"tx_data": 7}, "TransactSyntax"),
    ("people.db.history", {"limit": "all"}, "BadRequest"),
    ("people.db.diff", {"from": 7, "to": {}}, "BadRequest"),
    ("people.db.diff", {"from": {"history": True}, "to": {}}, "ViewRefused"),
    ("people._.gc", {"dry_run": "maybe"}, "BadRequest"),
]


async def test_every_bad_request_is_answered_with_a_typed_error(
    service_config: Config, asker: Any
) -> None:
    classes = error_classes()
    async with running(service_config()) as service:
        ask = asker(service.port)
        created = await ask.edn(
            "_._.create",
            '{:database "people" :initial-tx [{:db/ident :name :db/valueType :db.type/string '
            ":db/cardinality :db.cardinality/one}]}",
        )
        assert ':database "people"' in created
        wrong = []
        for subject, body, code in BAD:
            payload = body if isinstance(body, bytes) else pack(body)
            headers, answer = await ask.raw(subject, payload)
            if not headers.get("Nats-Service-Error-Code"):
                wrong.append((subject, body, "no error", answer[:100]))
                continue
            if headers["Content-Type"] != "application/msgpack":
                if f'"{code}"' not in answer.decode():
                    wrong.append((subject, body, "another error", answer))
                continue
            found = unpack(answer)
            assert found.keys() == {"code", "error", "message", "data"}
            assert found["message"] and isinstance(found["data"], dict)
            assert headers["Nats-Service-Error"] and "\n" not in headers["Nats-Service-Error"]
            assert found["code"] in classes
            if found["code"] != code:
                wrong.append((subject, body, found["code"], found["message"]))
        assert not wrong
        rows = await ask.edn("people.db.transact", '[{:name "still here"}]')
        assert ':name "still here"' in rows
        assert await ask.edn("people.db.query", "[:find [?n ...] :where [_ :name ?n]]") == (
            '["still here"]'
        )


async def test_text_errors_come_in_the_form_of_the_question(
    service_config: Config, asker: Any
) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        edn = await ask.edn("nobody.db.query", "[:find ?e :where [?e :name]]")
        assert edn.startswith('{:code "DatabaseNotFound"') and ":error :db-does-not-exist" in edn
        json = await ask.edn("nobody.db.query", '{"query": "[:find ?e :where [?e :name]]"}')
        assert json.startswith('{"code": "DatabaseNotFound"')


async def test_there_is_exactly_one_answer(service_config: Config) -> None:
    """Also with several processes, and for databases that nobody has."""
    async with running(service_config()) as one, running(ServiceConfig(nats=one.url)):
        port = one.port
        answers: list[bytes] = []
        inbox = port.inbox()
        await port.subscribe(inbox, lambda message: answers.append(message.data))
        subjects = [
            *(f"natalog.nobody.db.{name}" for name in (*READS, "transact")),
            *(f"natalog.nobody._.{name}" for name in UPKEEP),
            *(f"natalog._._.{name}" for name in ("create", "delete", "list")),
        ]
        for subject in subjects:
            await port.publish(subject, pack({}), reply=inbox)
        for _ in range(400):
            await asyncio.sleep(0.01)
            if len(answers) >= len(subjects):
                break
        await asyncio.sleep(0.1)
        assert len(answers) == len(subjects)


async def test_a_message_without_a_reply_subject_hurts_nobody(
    service_config: Config, asker: Any
) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        for name in (*READS, "transact"):
            await service.port.publish(f"natalog.nobody.db.{name}", b"\xc1")
        await service.port.publish("natalog._._.create", pack({"database": "quiet"}))
        for _ in range(200):
            listed = await ask.ask("_._.list", {})
            if listed["databases"]:
                break
            await asyncio.sleep(0.01)
        assert [entry["database"] for entry in listed["databases"]] == ["quiet"]


async def test_answers_larger_than_a_message_come_in_parts(
    service_config: Config, asker: Any
) -> None:
    import natalog

    config = service_config(max_payload_bytes=64 * 1024)
    async with running(config) as service, natalog.connect(service.url) as client:
        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        for number in range(20):
            await conn.transact([{"text": f"{number}-" + "x" * 20_000}])
        db = await conn.db()
        rows = await db.q("[:find ?t :where [_ :text ?t]]")
        assert len(rows) == 20 and all(len(text) > 20_000 for (text,) in rows)
        headers, first = await asker(service.port).raw(
            "people.db.query", b"[:find ?t :where [_ :text ?t]]"
        )
        part, _, total = headers["Natalog-Part"].partition("/")
        assert part == "1" and int(total) > 3 and len(first) < 64 * 1024
        assert headers["Natalog-Basis"] == str(db.basis)


async def test_answers_come_in_three_forms(service_config: Config, asker: Any) -> None:
    async with running(service_config()) as service:
        ask = asker(service.port)
        await ask.edn("_._.create", '{:database "people" :schema-flexibility :read}')
        report = await ask.edn("people.db.transact", '{:tx-data [{:name "Ivan" :age 15}] :id "a"}')
        assert ':id "a"' in report and ":tx-data [[" in report
        query = "[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]"
        assert await ask.edn("people.db.query", query) == '#{["Ivan" 15]}'
        assert await ask.edn("people.db.query", f'{{"query": "{query}"}}') == '[["Ivan", 15]]'
        assert await ask.edn("people.db.query", "{:find [?n] :where [[_ :name ?n]]}") == (
            '#{["Ivan"]}'
        )
        answer = await ask.ask("people.db.query", query)
        assert answer["kind"] == "set" and answer["result"] == [["Ivan", 15]]
        headers, body = await ask.raw(
            "people.db.query",
            b'  {"query": "[:find ?n . :where [_ :name ?n]]"}',
            {"Content-Type": "application/json"},
        )
        assert (headers["Content-Type"], body) == ("application/json", b'"Ivan"')
        headers, body = await ask.raw("people._.info", b"")
        assert headers["Content-Type"] == "application/msgpack"
        assert unpack(body)["datoms"] == 3

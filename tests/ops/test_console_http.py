"""The console's side of the service over HTTP, without a browser."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import http.client
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import natalog
from natalog import kw
from natalog.actors.config import ServiceConfig
from natalog.actors.nats_server import NatsServer
from natalog.actors.service import Service, running
from natalog.client import Client

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.asyncio


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """Speaks HTTP as a browser does, or as a page of another site would."""

    def __init__(self, service: Service) -> None:
        assert service.metrics_port is not None
        self.port = service.metrics_port
        self.host = f"127.0.0.1:{self.port}"

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, None if body is None else data, headers)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    async def get(self, path: str, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await asyncio.to_thread(self._send, "GET", path, None, named)

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named = {"Content-Type": "application/json", **named}
        return await asyncio.to_thread(self._send, "POST", path, body, named)

    async def ask(self, place: str, **body: Any) -> Any:
        answer = await self.post(f"/api/{place}", body)
        assert answer.status == 200, answer
        return answer.json()

    @asynccontextmanager
    async def feed(self, database: str) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        """The events of a feed, from the moment at which it is ready."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"Host: {self.host}\r\nConnection: close\r\n\r\n"
        writer.write(f"GET /api/{database}/feed HTTP/1.1\r\n{head}".encode())
        events = _events(reader)
        try:
            assert (await anext(events))[0] == "ready"
            await asyncio.sleep(0.05)
            yield events
        finally:
            writer.close()


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    while raw := await reader.readline():
        line = raw.decode().strip()
        if line.startswith("event: "):
            name = line[7:]
        if line.startswith("data: "):
            yield name, json.loads(line[6:])


@asynccontextmanager
async def console(path: Path, **settings: Any) -> AsyncIterator[tuple[Service, Client, Browser]]:
    config = ServiceConfig(data=path / "data", listen="127.0.0.1:0", metrics_port=0, **settings)
    async with running(config) as service, natalog.connect(service.url) as client:
        yield service, client, Browser(service)


async def people(client: Client) -> Any:
    await client.create_database("people", schema_flexibility="read")
    conn = client.database("people")
    await conn.transact([{"name": "Ann", "age": 2**60, "tag": kw("a/b"), "share": 1.0}])
    return conn


# --- the page ------------------------------------------------------------------------------------


async def test_the_page_runs_nothing_but_its_own_files(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, _, browser):
        page = await browser.get("/")
        again = await browser.get("/")
        assert page.status == 200 and page.headers["content-type"].startswith("text/html")
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        (nonce,) = re.findall(r"'nonce-([^']+)'", policy)
        assert f'content="{nonce}"' in page.body.decode()
        assert nonce not in again.headers["content-security-policy"]
        assert re.findall(r"<script[^>]*>", page.body.decode()) == [
            '<script type="module" src="/assets/console.js">'
        ]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "https://" not in page.body.decode()


async def test_files_are_sent_once_and_compressed(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, _, browser):
        plain = await browser.get("/assets/console.js")
        packed = await browser.get("/assets/console.js", Accept_Encoding="gzip, br")
        assert plain.headers["content-type"].startswith("text/javascript")
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.body) == plain.body
        assert len(packed.body) < len(plain.body) / 2
        known = await browser.get("/assets/console.js", If_None_Match=plain.headers["etag"])
        assert (known.status, known.body) == (304, b"")
        for name in ("nothing.js", "index.html", "%2e%2e%2fpy.typed", "..%2fpy.typed", ""):
            assert (await browser.get(f"/assets/{name}")).status == 404


async def test_without_the_console_metrics_and_health_are_left(tmp_path: Path) -> None:
    async with console(tmp_path, console=False) as (service, _, browser):
        assert service.console_url is None
        assert (await browser.get("/")).status == 404
        assert (await browser.post("/api/_/_/list", {})).status == 404
        assert (await browser.get("/metrics")).status == 200


async def test_unasked_the_console_is_served_to_this_machine_only() -> None:
    assert ServiceConfig().serves_console
    assert not ServiceConfig(metrics_host="0.0.0.0").serves_console
    assert ServiceConfig(metrics_host="0.0.0.0", console=True).serves_console
    assert not ServiceConfig(console=False).serves_console


# --- the API -------------------------------------------------------------------------------------


async def test_values_lose_nothing_on_their_way(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, client, browser):
        conn = await people(client)
        found = await browser.ask(
            "people/db/query",
            query="[:find ?n ?a ?t ?s :where [?e :name ?n] [?e :age ?a] "
            "[?e :tag ?t] [?e :share ?s]]",
            stats=True,
        )
        assert found["result"] == [
            ["Ann", {"#int": str(2**60)}, {"#kw": "a/b"}, {"#double": "1.0"}]
        ]
        assert found["kind"] == "set" and found["stats"]["rows"] == 1
        asked = await browser.ask(
            "people/db/query",
            query="[:find ?e . :in $ ?a ?t :where [?e :age ?a] [?e :tag ?t]]",
            args=[{"natalog/db": {}}, {"#edn": str(2**60)}, {"#edn": ":a/b"}],
        )
        assert asked["result"] == 1
        (tx,) = (await browser.ask("people/db/history"))["result"][:1]
        assert tx["commit_id"] == {"#uuid": str((await conn.branch_history())[0].commit_id)}


async def test_errors_come_with_code_and_data(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, client, browser):
        await people(client)
        for path, body, status, code in [
            ("people/db/query", {"query": "[:find ?e :where [?e"}, 400, "EdnSyntax"),
            ("people/db/query", {"query": "[:find ?x :where [?e :name]]"}, 400, "QueryParse"),
            ("people/db/nothing", {}, 400, "BadRequest"),
            ("people/db/log", {}, 400, "BadRequest"),
            ("nobody/db/query", {"query": "[:find ?e :where [?e]]"}, 404, "DatabaseNotFound"),
            ("people/none/schema", {}, 404, "BranchNotFound"),
            ("a.b/db/schema", {}, 400, "InvalidName"),
            ("*/db/schema", {}, 400, "InvalidName"),
            ("%3e/db/schema", {}, 400, "InvalidName"),
        ]:
            answer = await browser.post(f"/api/{path}", body)
            assert (answer.status, answer.json()["code"]) == (status, code), path
            assert answer.json()["message"] and isinstance(answer.json()["data"], dict)
        broken = await browser.post("/api/people/db/query", b"{")
        assert (broken.status, broken.json()["code"]) == (400, "CodecError")


async def test_an_unasked_console_only_reads(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, client, browser):
        await people(client)
        about = (await browser.get("/api/about")).json()
        assert about["write"] is False and about["ready"] is True
        assert "re-find" in about["functions"] and "count" in about["aggregates"]
        body = {"tx_data": {"#edn": '[{:name "Bob"}]'}}
        refused = await browser.post("/api/people/db/transact", body)
        assert (refused.status, refused.json()["code"]) == (403, "Forbidden")
        for endpoint in ("merge", "branch", "delete-branch", "erase", "gc", "create", "delete"):
            assert (await browser.post(f"/api/people/_/{endpoint}", {})).status == 400
        # what would be is no change
        assert (await browser.ask("people/db/with", **body))["tx_data"]
        found = await browser.ask("people/db/query", query="[:find [?n ...] :where [_ :name ?n]]")
        assert found["result"] == ["Ann"]


async def test_a_console_that_may_write_transacts(tmp_path: Path) -> None:
    async with console(tmp_path, console_write=True) as (_, client, browser):
        conn = await people(client)
        report = await browser.ask(
            "people/db/transact", tx_data={"#edn": '[{:name "Bob"}]'}, id="1"
        )
        again = await browser.ask("people/db/transact", tx_data={"#edn": '[{:name "Bob"}]'}, id="1")
        assert again["repeated"] and again["tx"] == report["tx"]
        assert len(await (await conn.db()).q("[:find ?e :where [?e :name]]")) == 2


async def test_large_answers_come_whole(tmp_path: Path) -> None:
    async with console(tmp_path, max_payload_bytes=128 * 1024) as (_, client, browser):
        await client.create_database("large", schema_flexibility="read")
        conn = client.database("large")
        for start in range(0, 200, 10):
            await conn.transact([{"text": f"{start + at} " + "x" * 10_000} for at in range(10)])
        found = await browser.ask("large/db/query", query="[:find [?t ...] :where [_ :text ?t]]")
        assert sorted(int(text.split()[0]) for text in found["result"]) == list(range(200))


async def test_a_query_ends_with_its_page(tmp_path: Path) -> None:
    async with console(tmp_path) as (service, client, browser):
        await client.create_database("many", schema_flexibility="read")
        await client.database("many").transact([{"n": n} for n in range(2500)])
        query = """[:find (count ?t) . :where [?a :n ?x] [?b :n ?y] [(str ?x "-" ?y) ?t]
                                              [(re-find #"9.*9.*9.*1" ?t)]]"""
        body = json.dumps({"query": query}).encode()
        _, writer = await asyncio.open_connection("127.0.0.1", browser.port)
        head = (
            f"POST /api/many/db/query HTTP/1.1\r\nHost: {browser.host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        async with asyncio.timeout(10):
            while service.query.waiting == 0:
                await asyncio.sleep(0.01)
            writer.close()
            while service.query.waiting > 0:
                await asyncio.sleep(0.01)


async def test_requests_have_a_size(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, client, browser):
        await people(client)
        refused = await browser.post("/api/people/db/query", b" " * (4 * 1024 * 1024 + 1))
        assert (refused.status, refused.json()["code"]) == (413, "TooLarge")
        assert (await browser.get("/healthz/live")).status == 200


# --- who may ask ---------------------------------------------------------------------------------


async def test_pages_of_other_sites_are_refused(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, client, browser):
        await people(client)
        query = {"query": "[:find ?e :where [?e :name]]"}
        own = f"http://{browser.host}"
        assert (await browser.post("/api/people/db/query", query, Origin=own)).status == 200
        for headers in (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://localhost:{browser.port + 1}"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
        ):
            answer = await browser.post("/api/people/db/query", query, **headers)
            assert answer.status == 403, headers
            assert not any(name.startswith("access-control") for name in answer.headers)
            assert (await browser.get("/api/people/feed", **headers)).status == 403
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            answer = await browser.post("/api/people/db/query", query, Content_Type=kind)
            assert answer.status == 415
        asked = await asyncio.to_thread(
            browser._send,
            "OPTIONS",
            "/api/people/db/query",
            None,
            {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
        )
        assert asked.status == 405 and "access-control-allow-origin" not in asked.headers


async def test_host_names_that_are_not_ours_get_nothing(tmp_path: Path) -> None:
    async with console(tmp_path, console_hosts=["db.example.org"]) as (_, _, browser):
        paths = ("/", "/assets/console.js", "/api/about", "/api/people/feed")
        for host in (
            "evil.example",
            "localhost.evil.example",
            "",
            "127.0.0.1.evil.example",
            "[::1",
        ):
            for path in paths:
                assert (await browser.get(path, Host=host)).status == 421, host
        for host in (
            "localhost",
            "LOCALHOST:9464",
            "natalog.localhost",
            "[::1]:80",
            "10.0.0.1",
            "db.example.org:443",
        ):
            assert (await browser.get("/api/about", Host=host)).status == 200, host
        # who scrapes metrics may know us by any name
        assert (await browser.get("/metrics", Host="query-1:9464")).status == 200


# --- the feed ------------------------------------------------------------------------------------


async def test_the_feed_tells_what_happens(tmp_path: Path) -> None:
    async with console(tmp_path) as (service, client, browser):
        conn = await people(client)
        async with browser.feed("people") as events, asyncio.timeout(20):
            made = await conn.transact([{"name": "Bob"}])
            name, report = await anext(events)
            assert (name, report["tx"], report["branch"]) == ("report", made.tx, "db")
            assert [2, {"#kw": "name"}, "Bob", made.tx, True] in report["tx_data"]
            assert report["datoms"] == 2
            await conn.publish([["db/retract"]], id="bad")
            name, report = await anext(events)
            assert (name, report["id"]) == ("report", "bad")
            assert report["rejected"]["code"] == "TransactSyntax"
            await conn.branch("draft")
            assert (await anext(events))[0] == "changed"
            await client.database("people", branch="draft").transact([{"name": "Cas"}])
            async for name, report in events:
                if name == "report":
                    assert report["branch"] == "draft"
                    break
            many = await conn.transact([{"n": n} for n in range(500)])
            async for name, report in events:
                if name == "report" and report["tx"] == many.tx:
                    assert (report["datoms"], len(report["tx_data"])) == (501, 200)
                    break
        async with browser.feed("people") as events:
            stopping = asyncio.create_task(service._console.stop())  # type: ignore[union-attr]
            async with asyncio.timeout(5):
                assert [event async for event in events] == []
            await stopping


async def test_without_nats_the_console_says_so(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", host="127.0.0.1", port=0)
    await server.start()
    try:
        async with console(tmp_path, nats=server.url) as (_, client, browser):
            await people(client)
            await server.stop()
            async with asyncio.timeout(10):
                while (await browser.get("/api/about")).json()["ready"]:
                    await asyncio.sleep(0.05)
            refused = await browser.post("/api/people/db/schema", {})
            assert (refused.status, refused.json()["code"]) == (503, "Unavailable")
    finally:
        await server.stop()


# --- what is built -------------------------------------------------------------------------------


async def test_the_bundle_is_that_of_the_sources() -> None:
    folder = ROOT / "console"
    names = ["package.json", "package-lock.json", "tsconfig.json", "build.mjs"]
    paths = names + [
        path.relative_to(folder).as_posix()
        for path in (folder / "src").rglob("*")
        if path.is_file()
    ]
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path}\n".encode() + (folder / path).read_bytes() + b"\n")
    built = (ROOT / "src" / "natalog" / "console" / "sources.txt").read_text().strip()
    assert built == digest.hexdigest(), "make console"


async def test_the_lock_file_names_no_host_and_no_directory() -> None:
    lock = json.loads((ROOT / "console" / "package-lock.json").read_text())
    for name, entry in lock["packages"].items():
        assert "resolved" not in entry, name
        assert not name or (name.startswith("node_modules/") and entry["integrity"])
    licences = (ROOT / "src" / "natalog" / "console" / "licences.txt").read_text()
    for name in json.loads((ROOT / "console" / "package.json").read_text())["dependencies"]:
        assert f"\n{name} " in licences

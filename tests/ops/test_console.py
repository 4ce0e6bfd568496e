"""The web console in a real browser, headless Chromium, against a real service."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

import natalog.sync
from natalog import kw

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
TIMEOUT_MS = 20_000
expect = playwright.expect
expect.set_options(timeout=TIMEOUT_MS)
SCHEMA = """
[{:db/ident :person/name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
  :db/unique :db.unique/identity :db/doc "What everybody calls them."}
 {:db/ident :person/age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
 {:db/ident :person/city :db/valueType :db.type/keyword :db/cardinality :db.cardinality/one}
 {:db/ident :person/boss :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
 {:db/ident :note :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]
"""
START = datetime(2026, 3, 1, 9, tzinfo=UTC)
AGES = "[:find ?name ?age :where [?e :person/name ?name] [?e :person/age ?age]]"
TX = 2**52

Page = Any
Visit = Callable[[str], Page]


def fill(url: str) -> None:
    """Six transactions of people, a branch with two more, and their merge."""
    with natalog.sync.connect(url) as client:
        client.create_database("people")
        conn = client.database("people")
        now = START

        def write(tx_data: Any, note: str = "", branch: Any = conn) -> None:
            nonlocal now
            now += timedelta(hours=5)
            meta: dict[str, Any] = {"db/txInstant": now}
            if note:
                meta["note"] = note
            branch.transact(tx_data, tx_meta=meta)

        write(SCHEMA)
        write([{"person/name": "Ann", "person/age": 30, "person/city": kw("city/rome")}], "hello")
        write([{"person/name": "Bob", "person/age": 41, "person/boss": ["person/name", "Ann"]}])
        write([{"person/name": "Ann", "person/age": 31}], "a birthday")
        write([{"person/name": "Cas", "person/age": 2, "person/boss": ["person/name", "Ann"]}])
        write([{"person/name": "Ann", "person/city": kw("city/oslo")}], "moved")
        conn.branch("draft")
        draft = client.database("people", branch="draft")
        write([{"person/name": "Ann", "person/age": 99}], "far ahead", draft)
        write([{"person/name": "Dan", "person/age": 50}], "", draft)
        now += timedelta(hours=1)
        conn.merge("draft", tx_meta={"db/txInstant": now, "note": "the draft was right"})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, serving_class: Any) -> Iterator[Any]:
    found = serving_class(tmp_path_factory.mktemp("console") / "data")
    fill(found.start("--metrics-port", "0"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        found = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def visit(service: Any, browser: Any) -> Iterator[Visit]:
    """Opens pages of the console with an empty memory; faults of the page fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(TIMEOUT_MS)
    faults: list[str] = []

    def visit(hash: str, base: str = "") -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto((base or service.console) + hash)
        return page

    yield visit
    context.close()
    assert faults == []


def query_link(query: str, **params: str) -> str:
    words = "".join(f"&{name}={quote(value)}" for name, value in params.items())
    return f"#/people/db/query?q={quote(query)}{words}"


def rows(page: Page) -> list[list[str]]:
    """The cells of the answer, without the numbers of the rows."""
    page.locator("table.rows").wait_for()
    found: list[list[str]] = page.eval_on_selector_all(
        "table.rows tbody tr",
        "rows => rows.map(row => [...row.cells].slice(1, -1).map(cell => cell.innerText))",
    )
    return found


def expect_rows(page: Page, wanted: list[list[str]]) -> None:
    """Wait until the answer is ``wanted``, in any order."""
    for _ in range(100):
        if page.locator("table.rows").count() and sorted(rows(page)) == sorted(wanted):
            return
        page.wait_for_timeout(50)
    assert sorted(rows(page)) == sorted(wanted)


# --- queries -------------------------------------------------------------------------------------


def test_databases_and_branches_are_listed(visit: Visit) -> None:
    page = visit("")
    row = page.locator(".databases tbody tr")
    row.wait_for()
    expect(row.locator("th")).to_have_text("people")
    expect(row.locator(".head")).to_have_text(["db", "draft"])
    row.locator("th a").click()
    page.wait_for_url(re.compile("#/people/db/query"))


def test_a_query_is_typed_completed_and_run_from_the_keyboard(visit: Visit) -> None:
    page = visit("#/people/db/query")
    page.locator(".status.live").wait_for()
    editor = page.get_by_role("textbox", name="Query")
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.type("[:find ?name ?age :where [?e :person/na")
    option = page.locator(".cm-tooltip-autocomplete li[aria-selected]")
    option.wait_for()
    expect(option.locator(".cm-completionLabel")).to_have_text(":person/name")
    expect(option).to_contain_text("unique identity")
    page.wait_for_timeout(100)  # the editor takes no key for a choice that has only just appeared
    page.keyboard.press("Enter")
    page.keyboard.type(" ?name] [?e :person/age ?ag")
    page.locator(".cm-tooltip-autocomplete").wait_for()
    page.wait_for_timeout(100)
    page.keyboard.press("Tab")
    expect(editor).to_contain_text("?age]]")
    page.keyboard.press("Control+Enter")
    expect_rows(page, [["Ann", "99"], ["Bob", "41"], ["Cas", "2"], ["Dan", "50"]])
    expect(page.locator(".facts")).to_contain_text("4 rows")
    page.wait_for_url(re.compile("q="))
    page.reload()
    expect_rows(page, [["Ann", "99"], ["Bob", "41"], ["Cas", "2"], ["Dan", "50"]])
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Recent").click()
    expect(page.locator(".starters li")).to_have_count(1)


def test_functions_and_variables_are_completed(visit: Visit) -> None:
    page = visit("#/people/db/query")
    page.locator(".status.live").wait_for()
    page.get_by_role("textbox", name="Query").click()
    page.keyboard.press("Control+a")
    page.keyboard.type("[:find ?older :where [?e :person/age ?older] [(re-")
    options = page.locator(".cm-tooltip-autocomplete li")
    options.first.wait_for()
    for name in ("re-find", "re-matches", "re-seq"):
        expect(options.filter(has_text=name)).to_have_count(1)
    page.keyboard.type("find ?o")
    page.locator(".cm-tooltip-autocomplete li", has_text="?older").wait_for()


def test_a_table_sorts_and_an_answer_has_three_forms(visit: Visit) -> None:
    page = visit(query_link(AGES))
    expect_rows(page, [["Ann", "99"], ["Bob", "41"], ["Cas", "2"], ["Dan", "50"]])
    page.get_by_role("button", name="?age").click()
    page.locator('th[aria-sort="ascending"]').wait_for()
    assert [row[1] for row in rows(page)] == ["2", "41", "50", "99"]
    page.get_by_role("button", name="?age").click()
    page.locator('th[aria-sort="descending"]').wait_for()
    assert [row[1] for row in rows(page)] == ["99", "50", "41", "2"]
    page.get_by_role("tab", name="EDN").click()
    text = page.locator("pre.text").inner_text()
    assert text.startswith("#{[") and '["Ann" 99]' in text
    page.get_by_role("tab", name="JSON").click()
    page.locator("pre.text", has_text='["Ann",99]').wait_for()


def test_long_answers_come_in_pages(visit: Visit) -> None:
    page = visit(query_link('[:find ?n :in $ [?n ...] :where [_ :person/name "Ann"]]'))
    page.get_by_label("[?n ...]").fill(f"[{' '.join(map(str, range(250)))}]")
    page.keyboard.press("Enter")
    page.locator(".pager").wait_for()
    expect(page.locator(".pager")).to_contain_text("1–100 of 250")
    page.get_by_role("button", name="Last").click()
    expect(page.locator(".pager")).to_contain_text("201–250 of 250")
    assert len(rows(page)) == 50


def test_numbers_beyond_two_to_the_53_are_exact(visit: Visit) -> None:
    page = visit(
        query_link(
            '[:find ?x :in $ ?x :where [_ :person/name "Ann"]]', **{"in": '["9007199254740993"]'}
        )
    )
    expect_rows(page, [["9007199254740993"]])


def test_errors_show_their_code_and_data_and_where(visit: Visit) -> None:
    page = visit(query_link("[:find ?e\n :where [?e :person/name ?n"))
    error = page.locator(".error")
    error.wait_for()
    expect(error).to_contain_text("EdnSyntax:read/edn")
    expect(error.locator("dt")).to_have_text(["line", "column"])
    page.locator(".cm-lintRange-error").wait_for()


def test_the_plan_shows_the_clauses_as_they_ran(visit: Visit) -> None:
    page = visit(query_link(AGES, tab="plan"))
    steps = page.locator("table.plan tbody tr")
    steps.first.wait_for()
    clauses = {step.strip() for step in page.locator("table.plan .clause").all_inner_texts()}
    assert clauses == {"[?e :person/name ?name]", "[?e :person/age ?age]"}
    expect(page.locator("table.plan caption")).to_contain_text("2 steps")


# --- time ----------------------------------------------------------------------------------------


def test_the_slider_goes_through_the_transactions(visit: Visit) -> None:
    page = visit(query_link('[:find ?age :where [?e :person/name "Ann"] [?e :person/age ?age]]'))
    expect_rows(page, [["99"]])
    slider = page.get_by_role("slider")
    page.locator('input[type=range][max="7"]').wait_for()
    expect(slider).to_have_attribute("aria-valuetext", "now")
    slider.focus()
    page.keyboard.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "before the first transaction")
    page.locator(".empty", has_text="Nothing found").wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(f"t={TX + 2}"))
    expect_rows(page, [["30"]])
    expect(slider).to_have_attribute("aria-valuetext", "as of tx 2, 2026-03-01 19:00:00")
    page.locator("body").click(position={"x": 2, "y": 790})
    page.keyboard.press("]")
    page.keyboard.press("]")
    expect_rows(page, [["31"]])
    page.keyboard.press("h")
    expect_rows(page, [["30"], ["31"]])
    page.wait_for_url(re.compile("h=1"))
    page.keyboard.press("n")
    expect_rows(page, [["30"], ["31"], ["99"]])
    page.keyboard.press("h")
    expect_rows(page, [["99"]])


def test_an_instant_can_be_typed(visit: Visit) -> None:
    page = visit(query_link(AGES))
    page.locator("button.moment").click()
    field = page.get_by_label("transaction or instant")
    field.fill("yesterday")
    page.keyboard.press("Enter")
    expect(field).to_have_attribute("aria-invalid", "true")
    field.fill("2026-03-01 20:00")
    page.keyboard.press("Enter")
    expect_rows(page, [["Ann", "30"]])
    expect(page.locator("button.moment")).to_contain_text("2026-03-01 20:00")


# --- entities, graph, schema ---------------------------------------------------------------------


def test_an_entity_shows_its_history_and_who_refers_to_it(visit: Visit) -> None:
    page = visit("#/people/db/entity")
    page.locator(".entities a", has_text="Ann").click()
    page.get_by_role("heading", name="Ann").wait_for()
    page.get_by_role("button", name="history of :person/age, 3 changes").click()
    changes = page.locator(".changes-of tr")
    assert [re.sub(r"\s+", " ", text).split(" tx ")[0] for text in changes.all_inner_texts()] == [
        "2026-03-03 02:00:00 retracted 31 asserted 99",
        "2026-03-02 05:00:00 retracted 30 asserted 31",
        "2026-03-01 19:00:00 asserted 30",
    ]
    expect(page.locator(".back .entity-label")).to_have_text(["Bob", "Cas"])
    page.locator(".back .entity", has_text="Bob").click()
    page.get_by_role("heading", name="Bob").wait_for()
    page.locator(".facts-table .entity", has_text="Ann").click()
    page.get_by_role("heading", name="Ann").wait_for()
    page.go_back()
    page.get_by_role("heading", name="Bob").wait_for()


def test_an_entity_is_found_by_lookup_ref_and_by_filter(visit: Visit) -> None:
    page = visit("#/people/db/entity")
    field = page.get_by_label("id, ident or lookup ref")
    field.fill('[:person/name "Cas"]')
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Cas").wait_for()
    page.get_by_label("filter").fill("AN")
    page.wait_for_timeout(300)
    page.locator(".entities a", has_text="Ann").wait_for()
    expect(page.locator(".entities .entity-name")).to_have_text(["Ann", "Dan"])


def test_the_graph_draws_branches_and_merges(visit: Visit) -> None:
    page = visit("#/people/db/graph")
    commits = page.get_by_role("listbox", name="commits").get_by_role("option")
    commits.first.wait_for()
    expect(commits).to_have_count(10)
    expect(page.locator("svg .dot.merge")).to_have_count(1)
    expect(page.locator(".commit .head")).to_have_text(["db", "draft"])
    expect(page.locator("svg .edge")).to_have_count(10)  # the first has no parent, the merge two
    expect(commits.first).to_contain_text("the draft was right")
    commits.nth(1).click()
    detail = page.locator(".commit-detail")
    detail.get_by_role("heading", name="Commit tx 1/2").wait_for()
    detail.get_by_role("cell", name="Dan", exact=True).wait_for()
    page.get_by_role("listbox", name="commits").focus()
    page.keyboard.press("ArrowUp")
    detail.get_by_role("heading", name="Merge tx 7").wait_for()
    detail.locator(".minus", has_text="31").wait_for()
    expect(detail.locator(".link")).to_have_count(2)


def test_the_schema_says_what_there_is(visit: Visit) -> None:
    page = visit("#/people/db/schema")
    row = page.locator("table.schema tr", has_text=":person/name")
    row.locator(".numeric", has_text="4").wait_for()
    expect(row).to_contain_text("unique identity")
    expect(row).to_contain_text("What everybody calls them.")
    page.get_by_label("filter attributes").fill("boss")
    expect(page.locator("table.schema tbody tr")).to_have_count(1)
    page.locator("table.schema a").click()
    expect_rows(page, rows(page))
    expect(page.locator("table.rows .entity")).to_have_count(4)  # both columns are entities


# --- live ----------------------------------------------------------------------------------------


def test_reports_appear_as_they_happen(visit: Visit, service: Any) -> None:
    page = visit("#/live/db/live")
    with natalog.sync.connect(service.url) as client:
        client.create_database("live", schema_flexibility="read")
        conn = client.database("live")
        page.reload()
        page.locator(".pulse.on").wait_for()
        conn.transact([{"name": "Eva"}], tx_meta={"note": "somebody new"})
        entry = page.locator(".feed > li", has_text="somebody new")
        entry.wait_for()
        expect(entry).to_contain_text("tx 1+3")
        entry.get_by_role("button", name="datoms of transaction 1").click()
        entry.locator("td", has_text="Eva").wait_for()
        conn.publish([["db/retract"]], id="order-1")
        page.locator(".feed > .rejected", has_text="TransactSyntax").wait_for()
        # a query that follows runs again by itself
        query = visit("#/live/db/query?q=" + quote("[:find (count ?e) . :where [?e :name]]"))
        query.locator(".single .v", has_text="1").wait_for()
        query.get_by_label("Follow changes").check()
        conn.transact([{"name": "Fay"}])
        query.locator(".single .v", has_text="2").wait_for()
        query.locator(".status", has_text="head tx 2").wait_for()


def test_a_service_that_goes_away_is_missed_and_found_again(
    visit: Visit, serving_class: Any, tmp_path: Any
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    own = serving_class(tmp_path / "data")
    try:
        with natalog.sync.connect(own.start("--metrics-port", port, "--console-write")) as client:
            client.create_database("people", initial_tx=SCHEMA)

        # a service that may write has a page for it
        page = visit("#/people/db/transact", own.console)
        page.get_by_role("textbox", name="Transaction").click()
        page.keyboard.insert_text('[{:db/id "e" :person/name "Eva"}]')
        page.keyboard.press("Control+Enter")
        page.get_by_role("heading", name="Preview: nothing is stored").wait_for()
        page.keyboard.press("Control+Shift+Enter")
        page.get_by_role("heading", name="Committed as tx 2").wait_for()
        page.locator(".about .entity").click()
        page.get_by_role("heading", name="Eva").wait_for()

        own.terminate()
        page.locator(".banner", has_text="The service cannot be reached").wait_for()
        expect(page.locator(".status", has_text="not connected")).to_have_count(1)
        expect(page.get_by_role("heading", name="Eva")).to_have_count(1)  # what was seen stays
        page.get_by_role("link", name="Schema").click()
        page.get_by_role("heading", name="person").wait_for()
        own.start("--metrics-port", port)
        page.locator(".banner").wait_for(state="detached")
        page.locator(".status.live").wait_for()
        page.locator("table.schema .numeric", has_text="1").first.wait_for()
        # started again without --console-write it only reads
        page.get_by_role("link", name="Transact").wait_for(state="detached")
    finally:
        own.close()


# --- manners -------------------------------------------------------------------------------------


def test_without_leave_there_is_no_page_to_write(visit: Visit) -> None:
    page = visit("#/people/db/transact")
    page.get_by_text("This console only reads").wait_for()
    expect(page.get_by_role("link", name="Transact")).to_have_count(0)
    expect(page.locator(".cm-editor")).to_have_count(0)


def test_dark_and_light_follow_the_system_and_the_switch(visit: Visit) -> None:
    page = visit("#/people/db/query")
    page.locator(".status").wait_for()

    def lightness() -> float:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3

    page.emulate_media(color_scheme="light")
    assert lightness() > 200
    page.emulate_media(color_scheme="dark")
    assert lightness() < 60
    page.get_by_role("button", name="colours as the system has them").click()
    assert lightness() > 200
    page.get_by_role("button", name="light colours").click()
    page.emulate_media(color_scheme="light")
    assert lightness() < 60
    page.reload()
    page.get_by_role("button", name="dark colours").wait_for()
    assert lightness() < 60


def test_shortcuts_are_listed_and_lead_everywhere(visit: Visit) -> None:
    page = visit("#/people/db/schema")
    page.locator(".status.live").wait_for()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="keyboard shortcuts").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    for keys, name in [("g", "graph"), ("l", "live"), ("e", "entity"), ("q", "query")]:
        page.keyboard.press("g")
        page.keyboard.press(keys)
        page.wait_for_url(re.compile(f"/people/db/{name}"))
    page.locator(".cm-editor.cm-focused").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("d")
    page.get_by_role("heading", name="Databases").wait_for()


@pytest.mark.parametrize("width", [1280, 390])
def test_every_control_has_a_name_and_no_page_is_wider_than_its_window(
    visit: Visit, width: int
) -> None:
    page = visit("")
    page.set_viewport_size({"width": width, "height": 800})
    for hash in (
        "",
        query_link(AGES),
        *(f"#/people/db/{name}" for name in ("entity/6", "graph", "live", "schema")),
    ):
        page.goto(page.url.partition("#")[0] + hash)
        page.wait_for_timeout(100)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, a, input, select, [role]')]
                .filter(each => !['presentation', 'none'].includes(each.getAttribute('role')))
                .filter(each => !(each.getAttribute('aria-label') || each.innerText.trim()
                    || each.title || each.labels?.length || each.getAttribute('aria-labelledby')
                    || each.closest('[aria-hidden=true]')))
                .map(each => each.outerHTML)"""
        )
        assert nameless == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width, hash


def test_a_link_to_nothing_says_so(visit: Visit) -> None:
    page = visit("#/nobody/db/query")
    page.locator(".error", has_text="DatabaseNotFound").wait_for()
    page.get_by_role("link", name="All databases").click()
    page.get_by_role("heading", name="Databases").wait_for()
    page = visit("#/%/db/query")
    page.get_by_role("heading", name="Databases").wait_for()

"""Dashboards: sound JSON, made by their program, and every panel shows data of a real service."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location(
    "dashboards_lab", ROOT / "tools" / "dashboards" / "lab.py"
)
assert spec is not None
assert spec.loader is not None
lab = sys.modules["dashboards_lab"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lab)

DASHBOARDS = lab.dashboards()
UNUSED = {
    "process_virtual_memory_bytes": "address space says nothing about memory in use",
    "python_gc_objects_collected_total": "the collections are shown",
    "python_gc_objects_uncollectable_total": "is always zero since Python 3.4",
}
"""What is exposed and shown nowhere, on purpose."""
LOAD_S = 6.0
ALL_OF_IT = "2m"
"""What queries look back: whatever the load did at some time."""
METRIC = r"\b(?:natalog|process|python|ALERTS)\w*"


def panels(dashboard: Any) -> list[Any]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(dashboard: Any) -> list[str]:
    found = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    return [*found, *(one["expr"] for one in dashboard["annotations"]["list"])]


EVERY = [
    pytest.param(name, panel, id=f"{name.removesuffix('.json')}: {panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
]


# --- the JSON --------------------------------------------------------------------------------


def test_the_files_are_what_their_program_writes() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "dashboards", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", DASHBOARDS)
def test_ids_and_titles_are_unique_and_nothing_overlaps(name: str) -> None:
    found = DASHBOARDS[name]["panels"]
    for key in ("id", "title"):
        values = [panel[key] for panel in found]
        assert len(values) == len(set(values)), key
    taken: set[tuple[int, int]] = set()
    for panel in found:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        columns = range(place["x"], place["x"] + place["w"])
        cells = set(itertools.product(columns, range(place["y"], place["y"] + place["h"])))
        assert not taken & cells, panel["title"]
        taken |= cells


def test_dashboards_are_found_and_linked() -> None:
    known = {dashboard["uid"] for dashboard in DASHBOARDS.values()}
    assert len(known) == len(DASHBOARDS) >= 4
    for name, dashboard in DASHBOARDS.items():
        assert name == f"{dashboard['uid']}.json"
        assert dashboard["title"] and dashboard["description"]
        (link,) = dashboard["links"]
        assert link["type"] == "dashboards" and link["includeVars"] and link["keepTime"]
        assert set(link["tags"]) <= set(dashboard["tags"])
        for panel in panels(dashboard):
            for one in panel.get("links", ()):
                assert re.match(r"/d/([^?]+)", one["url"])[1] in known  # type: ignore[index]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_what_is_shown_can_be_chosen(name: str) -> None:
    variables = {one["name"]: one for one in DASHBOARDS[name]["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance", "database", "branch"]
    assert variables.pop("datasource")["type"] == "datasource"
    for one in variables.values():
        assert one["label"] and one["includeAll"] and one["multi"]
        assert one["query"]["query"] == one["definition"]
        assert one["datasource"]["uid"] == "${datasource}"
    used = set(re.findall(r"\$(\w+)", " ".join(expressions(DASHBOARDS[name]))))
    assert used == {*variables, "__rate_interval"}


@pytest.mark.parametrize(("name", "panel"), EVERY)
def test_a_panel_says_what_it_shows(name: str, panel: Any) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".") and panel["description"] != panel["title"]
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    if panel["type"] in ("stat", "gauge"):
        assert defaults["thresholds"]["steps"][0]["value"] is None
    assert panel["datasource"]["uid"] == "${datasource}"
    letters = [target["refId"] for target in panel["targets"]]
    assert letters and len(letters) == len(set(letters))
    for target in panel["targets"]:
        assert target["legendFormat"] and target["datasource"]["uid"] == "${datasource}"
        expression = target["expr"]
        # every selection of a metric of ours obeys the choices
        for selected in re.findall(r"\bnatalog_\w+\{([^}]*)\}", expression):
            assert 'job=~"$job"' in selected
        assert len(re.findall(r"\bnatalog_\w+", expression)) == len(
            re.findall(r"\bnatalog_\w+\{", expression)
        )
        if "rate(" in expression:
            assert "[$__rate_interval]" in expression


# --- a real service and a real Prometheus ----------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A lab that has worked for a while, and still runs."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed; it is in Debian's package of that name")
    with lab.running(tmp_path_factory.mktemp("lab")) as found:
        found.settle()  # a rate needs to know what was before
        asyncio.run(lab.load(found.url, LOAD_S))
        found.settle()
        yield found


def test_every_panel_shows_data(measured: Any) -> None:
    empty = []
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                query = lab.substituted(target["expr"], dashboard, ALL_OF_IT)
                assert "$" not in query
                found = measured.now(query)
                values = [float(series["value"][1]) for series in found]
                if not values or all(map(math.isnan, values)):
                    empty.append(f"{name}, {panel['title']}: {query}")
    assert not empty, "\n".join(empty)


def test_every_legend_names_labels_that_are_there(measured: Any) -> None:
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                query = lab.substituted(target["expr"], dashboard, ALL_OF_IT)
                wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                found = measured.now(query)
                for series in found:
                    assert wanted <= set(series["metric"]), f"{name}, {panel['title']}: {query}"


def test_every_choice_has_values(measured: Any) -> None:
    for dashboard in DASHBOARDS.values():
        for one in dashboard["templating"]["list"][1:]:
            text = re.sub(r"\$\w+", ".*", one["definition"])
            metric, label = re.match(r"label_values\((.*), (\w+)\)", text).groups()  # type: ignore[union-attr]
            found = measured.ask(f"label/{label}/values", **{"match[]": metric})
            assert found, one["definition"]
    assert {"people", "things"} <= set(measured.ask("label/database/values"))


def test_every_metric_is_shown_or_left_out_on_purpose(measured: Any) -> None:
    exposed = set(re.findall(r"^# TYPE (\S+)", measured.exposed(), re.MULTILINE))
    used = {
        re.sub(r"_(bucket|sum|count)$", "", metric) if metric not in exposed else metric
        for dashboard in DASHBOARDS.values()
        for expression in expressions(dashboard)
        for metric in re.findall(METRIC, expression)
    } - {"ALERTS"}
    assert used <= exposed, f"shown, but not there: {sorted(used - exposed)}"
    assert exposed - used == set(UNUSED), sorted((exposed - used) ^ set(UNUSED))


def test_no_rule_fails_and_nothing_alarming_fires(measured: Any) -> None:
    rules = [rule for group in measured.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 20
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert not [rule["lastError"] for rule in rules if rule.get("lastError")]
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    assert not firing - {"NatalogDiskNearlyFull"}, "of this machine's disk nothing is promised"

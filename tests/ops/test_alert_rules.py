"""The rules of Prometheus: they load, they fire when they should, and they are explained."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from natalog.actors.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "config" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


def promtool(*arguments: object) -> None:
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("promtool is not installed; it is in Debian's package prometheus")
    command = [binary, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    return [rule for path in RULES for group in read(path)["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@pytest.mark.parametrize("path", sorted(PROMETHEUS.glob("*.yml")), ids=lambda path: path.name)
def test_the_configuration_is_accepted(path: Path) -> None:
    promtool("check", "config", path)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    promtool("test", "rules", path)


def test_every_alert_is_tested_to_fire() -> None:
    fired = {
        case["alertname"]
        for path in TESTS
        for test in read(path)["tests"]
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert fired == set(alerts())


def test_every_alert_has_a_severity_and_says_what_is_wrong() -> None:
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert set(alert["annotations"]) == {"summary", "description"}, name


def test_every_alert_is_explained() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `(Natalog[A-Za-z]+)` \|", text, re.MULTILINE))
    assert explained == set(alerts())


def test_rules_ask_for_metrics_that_exist() -> None:
    known = {"up"} | {rule["record"] for rule in rules() if "record" in rule}
    for family in Metrics().registry.collect():
        known |= {f"{family.name}{end}" for end in ("", "_total", "_bucket", "_sum", "_count")}
    for rule in rules():
        expression = re.sub(r"\{[^}]*\}|\b(?:by|on) \([^)]*\)", "", rule["expr"])
        asked = re.findall(r"\b(?:[a-z_]+:)?(?:natalog|process|python|up)\w*(?::\w+)?", expression)
        assert asked, rule
        assert set(asked) <= known, set(asked) - known

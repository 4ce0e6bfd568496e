"""Settings: a file over the defaults, the command line over the file, nothing unknown."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from natalog.actors.config import ServiceConfig, variables
from natalog.core.errors import InvalidConfig

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "natalog.toml"


def test_the_shipped_file_says_what_the_defaults_are() -> None:
    assert ServiceConfig.load(SHIPPED) == ServiceConfig()


def test_overrides_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "natalog.toml"
    file.write_text('listen = "127.0.0.1:5000"\nquery_workers = 2\n')
    config = ServiceConfig.load(file, query_workers=7)
    assert (config.address(), config.query_workers) == (("127.0.0.1", 5000), 7)


def test_the_environment_goes_before_the_file_and_behind_the_overrides(tmp_path: Path) -> None:
    file = tmp_path / "natalog.toml"
    file.write_text('role = "gc"\nquery_workers = 2\n')
    environ = {
        "NATALOG_ROLE": "query",
        "NATALOG_QUERY_WORKERS": "3",
        "NATALOG_METRICS_PORT": "9464",
        "NATALOG_GC_INTERVAL_S": "0.5",
        "NATALOG_DATA": str(tmp_path),
        "NATALOG_CONSOLE": "true",
        "NATALOG_CONSOLE_HOSTS": "natalog.example.com, console.example.com",
        "NATALOG_NATS": "",
        "NATALOG_FAILPOINTS": "not.a.setting",
        "ROLE": "transactor",
    }
    config = ServiceConfig.load(file, environ, query_workers=7)
    assert (config.role, config.query_workers, config.metrics_port) == ("query", 7, 9464)
    assert (config.gc_interval_s, config.data, config.nats) == (0.5, tmp_path, None)
    assert config.console is True
    assert config.console_hosts == ("natalog.example.com", "console.example.com")
    with pytest.raises(InvalidConfig, match="NATALOG_METRICS_PORT"):
        ServiceConfig.load(None, {"NATALOG_METRICS_PORT": "tcp://10.0.0.1:9464"})


def test_every_setting_has_a_variable() -> None:
    assert set(variables()) == {field.name for field in fields(ServiceConfig)} - {"access"}
    for name, variable in variables().items():
        default = getattr(ServiceConfig(), name)
        if default is not None:
            assert getattr(ServiceConfig.load(None, {variable: str(default)}), name) == default


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quary_workers", 1),
        ("role", "king"),
        ("listen", "4222"),
        ("listen", "127.0.0.1:99999"),
        ("query_workers", -1),
        ("query_threads", 0),
        ("busy_poll_us", -1),
        ("busy_poll_us", 0.5),
        ("metrics_port", -1),
        ("gc_interval_s", 0),
        ("branch_idle_s", -1),
        ("replicas", "three"),
    ],
)
def test_what_is_unknown_or_does_not_fit_is_refused(key: str, value: Any) -> None:
    with pytest.raises(InvalidConfig):
        ServiceConfig.load(None, **{key: value})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="absent"):
        ServiceConfig.load(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("listen = ")
    with pytest.raises(InvalidConfig, match="broken"):
        ServiceConfig.load(broken)

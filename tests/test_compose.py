"""compose.yaml names the servers that the tests run, and only on this machine."""

import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types
from servers.install import versions

from tests.servers.kafka import BrokerOptions, Kafka
from tests.servers.registry import Registry

HERE = Path(__file__).parents[1]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "compose.yaml").read_text())[
    "services"
]


def test_the_versions_are_those_that_the_tests_run() -> None:
    assert {name: each["image"] for name, each in SERVICES.items()} == {
        "kafka": f"apache/kafka:{versions()['kafka']}",
        "registry": f"apicurio/apicurio-registry:{versions()['registry']}",
    }


def test_no_port_is_open_to_others() -> None:
    for service in SERVICES.values():
        assert service["ports"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_what_is_kept_is_kept_on_a_volume() -> None:
    volumes = yaml.safe_load((HERE / "compose.yaml").read_text())["volumes"]
    for service in SERVICES.values():
        (mount,) = service["volumes"]
        name, _, folder = mount.partition(":")
        assert name in volumes
        assert any(folder in value for value in service["environment"].values())


def environment(service: str, prefix: str) -> dict[str, str]:
    """The service's properties, named as its image makes them of its environment."""
    return {
        name.removeprefix(prefix).lower().replace("_", "."): value
        for name, value in SERVICES[service]["environment"].items()
    }


@pytest.mark.slow
def test_a_broker_runs_with_these_settings(make_kafka: Callable[..., Kafka]) -> None:
    settings = environment("kafka", "KAFKA_")
    # Where it is differs: everything else is taken as it stands there.
    for name in ("listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"):
        assert settings.pop(name)
    assert make_kafka(BrokerOptions(settings)).running


@pytest.mark.slow
def test_a_registry_runs_with_these_settings(
    make_registry: Callable[..., Registry], tmp_path: Path
) -> None:
    settings = environment("registry", "")
    url = settings["apicurio.datasource.url"].replace("/var/lib/registry", str(tmp_path / "kept"))
    server = make_registry({**settings, "apicurio.datasource.url": url})
    assert list((tmp_path / "kept").iterdir())
    with urllib.request.urlopen(f"{server.url}/subjects", timeout=10) as answer:
        assert answer.read() == b"[]"

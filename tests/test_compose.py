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
COMPOSE = yaml.safe_load((HERE / "compose.yaml").read_text())
EVERY: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVICES = {name: each for name, each in EVERY.items() if "profiles" not in each}
"""What K2 works with."""
WATCHERS = {name: each for name, each in EVERY.items() if "profiles" in each}
"""What looks on, if asked for."""


def test_the_versions_are_those_that_the_tests_run() -> None:
    assert {name: each["image"] for name, each in SERVICES.items()} == {
        "kafka": f"apache/kafka:{versions()['kafka']}",
        "registry": f"apicurio/apicurio-registry:{versions()['registry']}",
    }


def test_no_port_is_open_to_others() -> None:
    for service in SERVICES.values():
        assert service["ports"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    # On the host's network nothing is published: where they listen is theirs to say.
    assert {each["network_mode"] for each in WATCHERS.values()} == {"host"}
    assert "--web.listen-address=127.0.0.1:9090" in WATCHERS["prometheus"]["command"]
    assert WATCHERS["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


def test_what_is_kept_is_kept_on_a_volume() -> None:
    volumes = COMPOSE["volumes"]
    for service in SERVICES.values():
        (mount,) = service["volumes"]
        name, _, folder = mount.partition(":")
        assert name in volumes
        assert any(folder in value for value in service["environment"].values())


def test_watchers_are_given_what_is_there_and_what_names_it() -> None:
    places = {}
    for name, service in WATCHERS.items():
        for mount in service["volumes"]:
            source, _, rest = mount.partition(":")
            if source.startswith("."):
                assert (HERE / source).exists(), source
                assert rest.endswith(":ro"), "no container changes a checkout"
                places[rest.removesuffix(":ro")] = HERE / source
            else:
                assert source in COMPOSE["volumes"], name
    (config,) = (
        word.partition("=")[2]
        for word in WATCHERS["prometheus"]["command"]
        if word.startswith("--config.file=")
    )
    folder, _, file = config.rpartition("/")
    assert (places[folder] / file).is_file()
    provisioning = places["/etc/grafana/provisioning"]
    dashboards = yaml.safe_load((provisioning / "dashboards" / "k2.yaml").read_text())
    (provider,) = dashboards["providers"]
    path = provider["options"]["path"]
    assert places[f"{path}/k2.json"] == HERE / "ops" / "grafana" / "k2.json"
    sources = yaml.safe_load((provisioning / "datasources" / "k2.yaml").read_text())
    (source,) = sources["datasources"]
    assert source["url"] == "http://127.0.0.1:9090"


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

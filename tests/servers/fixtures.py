"""Real servers as fixtures. A test that takes one is marked `servers` by itself.

`kafka` and `registry_server` are shared by all tests of a worker: use names of your own in them,
and leave them running. A test that kills, fills or configures makes its own by `make_…`.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from servers.install import place

from tests.missing import missing
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.kafka import BrokerOptions, Kafka, cluster
from tests.servers.process import java
from tests.servers.registry import Registry
from tests.servers.toxiproxy import Toxiproxy

FIXTURES = frozenset(
    {
        *("kafka", "registry_server", "make_kafka", "make_cluster", "make_registry", "toxiproxy"),
        *("prometheus", "promtool"),
    }
)
"""Names of the fixtures here: tests that use one are marked `servers`."""


def _need(server: str) -> None:
    if server != "toxiproxy" and java() is None:
        missing("Java 17 or later")
    if not place(server).is_dir():
        missing(f"{server} (`make servers` installs it)")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """The running broker of this worker."""
    _need("kafka")
    broker = Kafka(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(scope="session")
def registry_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The running registry of this worker."""
    _need("registry")
    server = Registry(tmp_path_factory.mktemp("registry"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def make_kafka(tmp_path: Path) -> Iterator[Callable[..., Kafka]]:
    """Start a broker of the test's own: `make_kafka(BrokerOptions(…))`."""
    _need("kafka")
    made: list[Kafka] = []

    def make(options: BrokerOptions | None = None) -> Kafka:
        broker = Kafka(tmp_path / f"broker-{len(made)}", options or BrokerOptions())
        made.append(broker)
        broker.start()
        return broker

    yield make
    for broker in made:
        broker.kill()


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., list[Kafka]]]:
    """Start a cluster of the test's own: `make_cluster(nodes=3, options=BrokerOptions(…))`."""
    _need("kafka")
    made: list[Kafka] = []

    def make(nodes: int = 3, options: BrokerOptions | None = None) -> list[Kafka]:
        brokers = cluster(tmp_path / f"cluster-{len(made)}", nodes, options)
        made.extend(brokers)
        return brokers

    yield make
    for broker in made:
        broker.kill()


@pytest.fixture
def make_registry(tmp_path: Path) -> Iterator[Callable[..., Registry]]:
    """Start a registry of the test's own: `make_registry({"property": "value"})`."""
    _need("registry")
    made: list[Registry] = []

    def make(properties: Mapping[str, str] | None = None) -> Registry:
        server = Registry(tmp_path / f"registry-{len(made)}", properties)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="session")
def toxiproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toxiproxy]:
    """The running fault proxy of this worker; each route in it belongs to one test."""
    _need("toxiproxy")
    server = Toxiproxy(tmp_path_factory.mktemp("toxiproxy"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def prometheus() -> str:
    """Path of a Prometheus, which each test starts for itself."""
    return _program("prometheus")


@pytest.fixture(scope="session")
def promtool() -> str:
    """Path of the tool that checks a Prometheus' rules."""
    return _program("promtool")


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        missing(f"{name} (`make servers` installs it where it may)")
    assert path is not None
    return path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for servers and clients, signed by an authority of this worker."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))

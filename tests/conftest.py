"""What every test may ask for."""

import shutil
from pathlib import Path

import pytest

from tests.missing import missing as missing
from tests.servers.fixtures import (  # noqa: F401  # fixtures for all tests
    FIXTURES,
    certificates,
    kafka,
    make_cluster,
    make_kafka,
    make_registry,
    prometheus,
    promtool,
    registry_server,
    toxiproxy,
)

ASX = Path(__file__).parents[2] / "shared" / "data" / "asx"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start real servers, whoever wrote them."""
    for item in items:
        if FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)


@pytest.fixture(scope="session")
def asx() -> Path:
    """Folder of real trades and quotes (three ASX equities, March 2014)."""
    if not ASX.is_dir():
        # Data that the project may not ship: its absence is never a failure.
        pytest.skip("the ASX sample data is missing")
    return ASX


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium for the browser tests."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("Chromium")
    assert path is not None
    return path

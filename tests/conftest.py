"""What every test may ask for, and the one way in which a test may be skipped for want of a
tool."""

import os
import shutil
from pathlib import Path

import pytest

ASX = Path(__file__).parents[2] / "shared" / "data" / "asx"


def missing(what: str) -> None:
    """Skip the test by name and reason; fail it instead where everything must be there."""
    if os.environ.get("K2_TEST_REQUIRE_ALL"):
        pytest.fail(f"{what} is missing, and K2_TEST_REQUIRE_ALL is set")
    pytest.skip(f"{what} is missing")


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

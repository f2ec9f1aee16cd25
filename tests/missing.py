"""The one way in which a test may be skipped for want of a tool."""

import os

import pytest


def missing(what: str) -> None:
    """Skip the test by name and reason; fail it instead where everything must be there."""
    if os.environ.get("K2_TEST_REQUIRE_ALL"):
        pytest.fail(f"{what} is missing, and K2_TEST_REQUIRE_ALL is set")
    pytest.skip(f"{what} is missing")

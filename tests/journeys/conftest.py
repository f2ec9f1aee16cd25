"""Journeys use the command as the tests of the command line do."""

from tests.cli.conftest import k2

__all__ = ["k2"]

"""One engine for the tests of this room."""

from collections.abc import Iterator

import pytest

from k2.query.duckdb import DuckDB


@pytest.fixture(scope="session")
def engine() -> Iterator[DuckDB]:
    """An engine; tests share it, as threads of a server do."""
    opened = DuckDB()
    yield opened
    opened.close()

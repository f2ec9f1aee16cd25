"""A home on each kind of log, for what has to hold on all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.home import Home, open_home
from tests.log.adapters import adapters, fresh


@pytest.fixture(params=adapters("open_log"))
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    with open_home(tmp_path, fresh(request, request.param, tmp_path)) as opened:
        yield opened

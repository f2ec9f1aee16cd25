"""An empty log on a real broker: names that nobody else begins with."""

from pathlib import Path
from uuid import uuid4

import pytest

from tests.servers.kafka import Kafka


def fresh(request: pytest.FixtureRequest, folder: Path) -> str:
    broker: Kafka = request.getfixturevalue("kafka")
    # A broker that gets no processor for a second is taken for dead by its own controller.
    return f"kafka:{broker.bootstrap}?prefix={uuid4().hex}.&timeout=30"

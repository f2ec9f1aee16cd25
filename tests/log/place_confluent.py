"""Where the contract tests find an empty schema registry: this worker's server, emptied."""

from pathlib import Path

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient

from tests.servers.registry import Registry


def fresh(request: pytest.FixtureRequest, folder: Path) -> str:
    """URL of the registry, in which no schema is left."""
    server: Registry = request.getfixturevalue("registry_server")
    with SchemaRegistryClient({"url": server.url, "timeout": 30}) as client:
        for subject in client.get_subjects():
            client.delete_subject(subject)
            client.delete_subject(subject, permanent=True)
    return f"confluent:{server.url}"

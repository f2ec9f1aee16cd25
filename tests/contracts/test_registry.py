"""What every schema registry must keep: one suite over all adapters, against the port alone."""

import copy
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from k2.errors import NotFound, Refused
from k2.log import Registry, open_registry
from k2.model import kinds, versions
from tests.log.adapters import adapters, fresh

V1, V2 = (dict(schema.avro) for schema in versions("trades"))
SUBJECT = "market.crypto.trades.binance-value"


@pytest.fixture(params=adapters("open_registry"))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return fresh(request, request.param, tmp_path)


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    opened = open_registry(url)
    yield opened
    opened.close()


def with_field(schema: dict[str, Any], **field: Any) -> dict[str, Any]:
    changed = copy.deepcopy(schema)
    changed["fields"].append(field)
    return changed


def without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    changed = copy.deepcopy(schema)
    changed["fields"] = [field for field in changed["fields"] if field["name"] != name]
    return changed


def test_a_new_registry_is_empty(registry: Registry) -> None:
    assert registry.subjects() == []
    with pytest.raises(NotFound):
        registry.versions(SUBJECT)
    with pytest.raises(NotFound):
        registry.schema(1)


def test_a_schema_gets_one_id(registry: Registry) -> None:
    first = registry.register(SUBJECT, V1)
    assert first >= 1
    assert registry.register(SUBJECT, copy.deepcopy(V1)) == first
    second = registry.register(SUBJECT, V2)
    assert second > first
    assert registry.register("another-value", V2) == second
    assert registry.schema(first)["fields"] == V1["fields"]
    assert registry.schema(second)["fields"] == V2["fields"]
    assert registry.subjects() == ["another-value", SUBJECT]


def test_a_subject_has_versions(registry: Registry) -> None:
    ids = [registry.register(SUBJECT, V1), registry.register(SUBJECT, V2)]
    found = registry.versions(SUBJECT)
    assert [(each.id, each.subject, each.version) for each in found] == [
        (ids[0], SUBJECT, 1),
        (ids[1], SUBJECT, 2),
    ]
    assert found[1].schema["fields"] == V2["fields"]


def test_an_older_version_is_still_welcome(registry: Registry) -> None:
    """A writer with an older K2 starts beside a newer one, and goes on."""
    ids = [registry.register(SUBJECT, V1), registry.register(SUBJECT, V2)]
    assert registry.register(SUBJECT, V1) == ids[0]
    assert registry.check(SUBJECT, V1) == []
    assert len(registry.versions(SUBJECT)) == 2


def test_every_version_of_every_kind_may_be_registered_in_turn(registry: Registry) -> None:
    for kind in kinds():
        ids = [registry.register(f"{kind}-value", each.avro) for each in versions(kind)]
        assert len(set(ids)) == len(ids)


def test_a_change_that_breaks_readers_is_refused(registry: Registry) -> None:
    registry.register(SUBJECT, V1)
    broken = with_field(V1, name="venue", type="string")
    with pytest.raises(Refused, match="venue"):
        registry.register(SUBJECT, broken)
    (why,) = registry.check(SUBJECT, broken)
    assert "venue" in why
    assert len(registry.versions(SUBJECT)) == 1


def test_a_change_that_iceberg_cannot_make_is_refused(registry: Registry) -> None:
    """Avro alone would let a field go."""
    registry.register(SUBJECT, V1)
    with pytest.raises(Refused, match="quantity"):
        registry.register(SUBJECT, without(V1, "quantity"))
    assert registry.check(SUBJECT, without(V1, "quantity"))
    assert registry.check("nobody-value", without(V1, "quantity")) == []


def test_another_handle_sees_what_was_registered(registry: Registry, url: str) -> None:
    other = open_registry(url)
    first = registry.register(SUBJECT, V1)
    assert other.register(SUBJECT, V1) == first
    assert other.schema(first)["fields"] == V1["fields"]
    other.close()
    registry.close()
    again = open_registry(url)
    assert again.subjects() == [SUBJECT]
    again.close()


def test_threads_that_register_at_once_get_the_same_id(registry: Registry) -> None:
    registry.register(SUBJECT, V1)
    together = threading.Barrier(8)

    def register(_: int) -> int:
        together.wait()
        return registry.register(SUBJECT, V2)

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(register, range(8)))
    assert len(ids) == 1
    assert [each.version for each in registry.versions(SUBJECT)] == [1, 2]


REGISTRANT = """
import sys
from k2.log import open_registry
from k2.model import kinds, versions
registry = open_registry(sys.argv[1])
for kind in kinds():
    for schema in versions(kind):
        print(kind, schema.version, registry.register(f"{kind}-value", schema.avro))
registry.close()
"""


def test_processes_that_register_at_once_get_the_same_ids(url: str) -> None:
    several = [
        subprocess.Popen([sys.executable, "-c", REGISTRANT, url], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = {each.communicate()[0] for each in several}
    assert [each.returncode for each in several] == [0, 0, 0]
    assert len(told) == 1
    ids = [int(line.split()[2]) for line in told.pop().splitlines()]
    assert len(set(ids)) == len(ids) == sum(len(versions(kind)) for kind in kinds())

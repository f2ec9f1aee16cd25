"""What a real registry adds to the contract: faults, signing in, foreign schemas."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from k2.errors import BadInput, K2Error, NotFound, Refused, Unavailable
from k2.log import Registry, open_registry
from k2.log.port import Access
from k2.model import versions
from tests.servers.certificates import Certificates
from tests.servers.gate import Gate, gate
from tests.servers.process import free_port
from tests.servers.registry import Registry as Server

V1, V2 = (dict(schema.avro) for schema in versions("trades"))
JSON_SCHEMA = '{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}'


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> str:
    """A subject that no other test here uses."""
    return f"{request.node.name}-value"


@pytest.fixture
def other(registry_server: Server) -> Iterator[SchemaRegistryClient]:
    """Somebody else at the same registry."""
    with SchemaRegistryClient({"url": registry_server.url}) as client:
        yield client


Connect = Callable[..., Registry]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """K2's handle on the registry at a URL, closed after the test."""
    opened: list[Registry] = []

    def connect(url: str, access: Access | None = None) -> Registry:
        opened.append(open_registry(f"confluent:{url}", access))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


@pytest.fixture
def registry(registry_server: Server, connect: Connect) -> Registry:
    """K2's handle on this worker's registry."""
    return connect(registry_server.url)


def test_the_server_itself_refuses_what_breaks_readers(
    registry: Registry, other: SchemaRegistryClient, subject: str
) -> None:
    """Somebody else's producer registers without K2, and this server's default is no rule."""
    assert other.get_compatibility() == "NONE"
    registry.register(subject, V1)
    assert other.get_compatibility(subject) == "BACKWARD"
    broken = {**V1, "fields": [*V1["fields"], {"name": "venue", "type": "string"}]}
    with pytest.raises(SchemaRegistryError) as caught:
        other.register_schema(subject, Schema(json.dumps(broken), "AVRO"))
    assert caught.value.http_status_code == 409


def test_a_stricter_level_that_somebody_set_stays(
    registry: Registry, other: SchemaRegistryClient, subject: str
) -> None:
    other.set_compatibility(subject, "FULL")
    registry.register(subject, V1)
    assert other.get_compatibility(subject) == "FULL"


def test_the_registrys_own_reason_is_told(
    registry: Registry, other: SchemaRegistryClient, subject: str
) -> None:
    """K2 would let a field with a default go in; under FORWARD the server does not let it be
    null."""
    plain = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}
    wider = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}
    registry.register(subject, plain)
    other.set_compatibility(subject, "FORWARD")
    with pytest.raises(Refused, match=r"registry refuses it: .*/fields/0") as caught:
        registry.register(subject, wider)
    assert not isinstance(caught.value, NotFound)
    assert registry.check(subject, wider)


def test_spelling_and_docs_make_no_new_version(
    registry: Registry, other: SchemaRegistryClient, subject: str
) -> None:
    first = registry.register(subject, V1)
    spelled = copy.deepcopy(V1)
    spelled["doc"] = "the same in other words"
    assert registry.register(subject, spelled) == first


@pytest.mark.slow
def test_a_killed_registry_keeps_its_schemas(
    connect: Connect, make_registry: Callable[[], Server], subject: str
) -> None:
    server = make_registry()
    registry = connect(server.url)
    first = registry.register(subject, V1)
    registry.schema(first)
    server.kill()
    with pytest.raises(Unavailable, match="is away") as caught:
        registry.subjects()
    assert caught.value.retry_after
    # What is known of an id stands while the server is away.
    assert registry.schema(first)["fields"] == V1["fields"]
    server.start()
    assert registry.schema(first)["fields"] == V1["fields"]
    assert registry.register(subject, V1) == first
    assert registry.register(subject, V2) > first


def test_an_unknown_id_is_not_found(registry: Registry) -> None:
    with pytest.raises(NotFound):
        registry.schema((1 << 31) - 1)


def test_a_subject_made_anew_is_read_anew(
    registry: Registry, other: SchemaRegistryClient, subject: str
) -> None:
    """The client remembers subjects, also those that somebody else has deleted meanwhile."""
    registry.register(subject, V1)
    assert [each.schema["fields"] for each in registry.versions(subject)] == [V1["fields"]]
    other.delete_subject(subject)
    other.delete_subject(subject, permanent=True)
    with pytest.raises(NotFound):
        registry.versions(subject)
    other.register_schema(subject, Schema(json.dumps(V2), "AVRO"))
    assert [each.schema["fields"] for each in registry.versions(subject)] == [V2["fields"]]


def test_foreign_schemas_do_no_harm(
    registry: Registry, other: SchemaRegistryClient, subject: str
) -> None:
    text = other.register_schema(f"{subject}-text", Schema('"string"', "AVRO"))
    json_schema = other.register_schema(f"{subject}-json", Schema(JSON_SCHEMA, "JSON"))
    other.register_schema(f"{subject}-part", Schema(json.dumps({**V1, "name": "Part"})))
    name = f"{V1['namespace']}.Part" if "namespace" in V1 else "Part"
    whole = {"type": "record", "name": "W", "fields": [{"name": "part", "type": name}]}
    reference = SchemaReference(name, f"{subject}-part", 1)
    referring = other.register_schema(subject, Schema(json.dumps(whole), "AVRO", [reference]))
    assert registry.schema(text) == {"type": "string"}
    assert len(registry.versions(f"{subject}-text")) == 1
    with pytest.raises(NotFound, match="JSON, not Avro"):
        registry.schema(json_schema)
    with pytest.raises(NotFound, match="refers to other schemas"):
        registry.schema(referring)
    # Whoever wants an empty registry next could not delete the part before this.
    other.delete_subject(subject)
    other.delete_subject(subject, permanent=True)


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_server_in_trouble_is_asked_again(
    connect: Connect, registry_server: Server, status: int
) -> None:
    with gate(registry_server.url) as door:
        registry = connect(door.url)
        door.answers.extend([(status, b'{"error_code": 50001, "message": "busy"}')] * 2)
        registry.subjects()
        assert door.asked == 3
        door.answers.extend([(status, b"a proxy says: no")] * 3)
        with pytest.raises(Unavailable, match="cannot answer now") as caught:
            registry.subjects()
        assert caught.value.retry_after


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, b"<html>not here</html>", Unavailable),
        (404, b'{"error_code": 404, "message": "HTTP 404 Not Found"}', Unavailable),
        (200, b"<html>welcome</html>", Unavailable),
        (200, b'"welcome"', Unavailable),
        (200, b"", Unavailable),
        (403, b'{"error_code": 40301, "message": "no"}', Refused),
        (404, b'{"error_code": 40403, "message": "Schema not found"}', NotFound),
    ],
)
def test_only_a_registrys_word_makes_an_id_unknown(
    connect: Connect, registry_server: Server, status: int, body: bytes, error: type[K2Error]
) -> None:
    """A record with an unknown schema is rejected: a wrong address must not do that."""
    with gate(registry_server.url) as door:
        registry = connect(door.url)
        door.answers.append((status, body))
        with pytest.raises(K2Error) as caught:
            registry.schema(1)
        assert type(caught.value) is error
        assert "\n" not in str(caught.value)


def test_name_and_password_are_asked_for(
    connect: Connect, registry_server: Server, subject: str
) -> None:
    with gate(registry_server.url) as door:
        door.login = ("k2", "s3cret: word")
        registry = connect(door.url, Access(username="k2", password="s3cret: word"))
        registry.register(subject, V1)
        for access in (None, Access(username="k2", password="wr0ng")):
            registry = connect(door.url, access)
            with pytest.raises(Refused, match="user name and password") as caught:
                registry.subjects()
            assert "wr0ng" not in str(caught.value)


def test_tls_trusts_whom_it_is_told_to(
    connect: Connect, registry_server: Server, certificates: Certificates
) -> None:
    with gate(registry_server.url, certificates) as door:
        registry = connect(door.url, Access(ca=certificates.ca))
        registry.subjects()
        for access in (None, Access(ca=certificates.stranger)):
            registry = connect(door.url, access)
            with pytest.raises(Refused, match="no trusted connection") as caught:
                registry.subjects()
            assert "certificate verify failed" in str(caught.value)


def test_a_registry_that_is_nowhere_is_away(connect: Connect, tmp_path: Path) -> None:
    for place in (f"127.0.0.1:{free_port()}", "no-such-host.invalid:8081"):
        registry = connect(f"http://{place}")
        with pytest.raises(Unavailable, match="the registry is away") as caught:
            registry.subjects()
        assert place in str(caught.value)


@pytest.mark.slow
def test_a_frozen_registry_is_not_waited_for_without_end(
    connect: Connect, make_registry: Callable[[], Server]
) -> None:
    server = make_registry()
    registry = connect(server.url)
    server.freeze()
    before = time.monotonic()
    with pytest.raises(Unavailable, match="is away"):
        registry.subjects()
    assert time.monotonic() - before < 30
    server.thaw()
    assert registry.subjects() == []


@pytest.mark.parametrize(
    ("url", "access", "message"),
    [
        ("localhost:8081", None, "no address"),
        ("http://", None, "no address"),
        ("http://one:8081,two:8081", None, "no address"),
        ("http://k2:s3cret@localhost:8081", None, "holds a user name"),
        ("http://localhost:8081", Access(tls=True), "a plain one"),
        ("https://localhost:8081", Access(ca=Path("/nowhere/ca.pem")), "no such file"),
        ("http://localhost:8081", Access(username="a:b"), "colon"),
    ],
)
def test_what_cannot_work_is_told_at_once(
    connect: Connect, url: str, access: Access | None, message: str
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        connect(url, access)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("gone", ["ca", "certificate", "key"])
def test_a_file_that_holds_no_certificate_is_told_at_once(
    connect: Connect, gone: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").write_text("nothing\n")
    wrong = Access(**{gone: tmp_path / "empty.pem"})  # type: ignore[arg-type]  # a path each
    with pytest.raises(BadInput):
        connect("https://localhost:8081", wrong)


def test_the_gate_keeps_what_it_passes_on(
    connect: Connect, registry_server: Server, subject: str
) -> None:
    with gate(registry_server.url) as door:
        assert isinstance(door, Gate)
        registry = connect(door.url)
        first = registry.register(subject, V1)
        assert [each.id for each in registry.versions(subject)] == [first]
        with pytest.raises(NotFound):
            registry.versions(f"{subject}-nobody")

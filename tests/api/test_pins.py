"""Pins, certificates and differences over HTTP, and by the client."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from k2.api import Limits
from k2.client import Client
from k2.errors import NotFound, Refused
from k2.query import Reader, open_reader
from k2.query.digest import digest_of
from tests.api.conftest import audit_of, fill, running
from tests.api.test_shape import check_error


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Reader]]:
    """A server over a home of its own: 1,000 records are committed, 200 are in the log."""
    home: Path = tmp_path_factory.mktemp("pinned")
    fill(home, 1_000, commit=True)
    fill(home, 1_200, commit=False)
    with (
        open_reader(home) as reader,
        running(
            reader, audit_of(home), audit_seconds=None, limits=Limits(query_seconds=60)
        ) as client,
    ):
        yield client, reader


@pytest.fixture
def http(desk: tuple[httpx.Client, Reader]) -> httpx.Client:
    return desk[0]


def test_a_pin_is_made_read_and_verified(http: httpx.Client) -> None:
    wanted = {"name": "first", "kind": "quotes", "note": "a study", "author": "ada"}
    answers = [http.post("/v1/pins", json=wanted).json() for _ in range(2)]
    (pin,) = answers[0]["data"]
    assert answers[1]["data"] == [pin]
    assert any("not committed yet" in note for note in answers[0]["meta"]["notes"])
    assert http.get("/v1/pins/first").json()["data"] == [pin]
    assert pin in http.get("/v1/pins").json()["data"]
    (verdict,) = http.post("/v1/pins/first/verify", json={}).json()["data"]
    assert (verdict["ok"], verdict["found_hash"], verdict["problem"]) == (True, pin["hash"], None)
    read = http.post("/v1/quotes/query", json={"pin": "first", "limit": 100_000}).json()
    assert len(read["data"]) == pin["rows"]
    assert read["meta"]["pin"]["hash"] == pin["hash"]
    first = http.post("/v1/quotes/query", json={"pin": "first", "limit": 10}).json()
    after = first["pagination"]["next"]
    second = http.post("/v1/quotes/query", json={"pin": "first", "limit": 10, "after": after})
    assert [*first["data"], *second.json()["data"]] == read["data"][:20]


def test_what_cannot_be(http: httpx.Client) -> None:
    assert http.post("/v1/pins", json={"name": "mine"}).status_code == 200
    taken = http.post("/v1/pins", json={"name": "mine", "symbols": ["BTCUSDT"]})
    check_error(taken, 403, "FORBIDDEN")
    check_error(http.get("/v1/pins/nowhere"), 404, "NOT_FOUND")
    check_error(http.post("/v1/pins/nowhere/verify", json={}), 404, "NOT_FOUND")
    check_error(http.get("/v1/pins/a%20b"), 422, "VALIDATION_ERROR")
    for body, place in (
        ({"name": "a/b"}, "body.name"),
        ({"name": "x", "kind": "candles"}, "body.kind"),
        ({"name": "x", "fields": ["Price"]}, "body.fields.0"),
        ({"name": "x", "start_time": "noon"}, "start_time"),
        ({"name": "x", "limit": 5}, "body.limit"),
    ):
        error = check_error(http.post("/v1/pins", json=body), 422, "VALIDATION_ERROR")
        assert error["place"] == place
    text = {"Content-Type": "text/plain"}
    sent = http.post("/v1/pins", content=b'{"name": "x"}', headers=text)
    assert check_error(sent, 422, "VALIDATION_ERROR")["place"] == "header Content-Type"
    query = {"pin": "mine", "symbols": ["BTCUSDT"]}
    error = check_error(http.post("/v1/trades/query", json=query), 422, "VALIDATION_ERROR")
    assert error["place"] == "body.symbols"
    check_error(http.post("/v1/quotes/query", json={"pin": "mine"}), 422, "VALIDATION_ERROR")
    snapshot = http.get("/v1/snapshots").json()["data"][0]["snapshot_id"]
    sent = http.post(f"/v1/snapshots/{snapshot}/query", json={"pin": "mine"})
    assert check_error(sent, 422, "VALIDATION_ERROR")["place"] == "body.pin"


def test_certificates_come_with_answers(desk: tuple[httpx.Client, Reader]) -> None:
    http, reader = desk
    asks: list[Callable[..., httpx.Response]] = [
        lambda **more: http.get("/v1/trades", params={"last": 5, **more}),
        lambda **more: http.get("/v1/corrections", params=more),
        lambda **more: http.post(
            "/v1/trades/query", json={"limit": 5, **dict.fromkeys(more, True)}
        ),
    ]
    for ask in asks:
        assert "certificate" not in ask().json()["meta"]
        answer = ask(certificate="true")
        assert answer.status_code == 200, answer.text
        document: Any = answer.json()
        assert document["meta"]["certificate"]["rows"] == len(document["data"])
        verified = reader.evidence.verify(document)
        assert verified.ok
        assert verified.kept is not None
        assert ask(certificate="true").headers["etag"] == answer.headers["etag"]


def test_states_are_compared(http: httpx.Client) -> None:
    snapshot = http.get("/v1/snapshots").json()["data"][0]
    everything = http.get("/v1/diff", params={"since": "2020-01-01T00:00:00Z"}).json()
    assert sum(row["rows"] for row in everything["data"]) == snapshot["rows"]
    assert everything["meta"]["until"]["snapshot_id"] == snapshot["snapshot_id"]
    nothing = http.get("/v1/diff", params={"since": snapshot["snapshot_id"]}).json()
    assert nothing["data"] == []
    one = http.get("/v1/diff", params={"since": "-10d", "symbol": "BTCUSDT", "kind": "quotes"})
    assert [row["symbol"] for row in one.json()["data"]] == ["BTCUSDT"]
    check_error(http.get("/v1/diff"), 422, "VALIDATION_ERROR")
    check_error(http.get("/v1/diff", params={"since": "nowhere"}), 404, "NOT_FOUND")


def test_the_client(http: httpx.Client) -> None:
    k2 = Client(str(http.base_url))
    made = k2.create_pin("clients", "BTCUSDT", "ETHUSDT", note="a study")
    assert made.to_pylist() == k2.pin("clients").to_pylist()
    assert "clients" in k2.pins()["name"].to_pylist()
    rows = k2.pinned("clients")
    names = [name for name, _ in json.loads(made["fields"][0].as_py())]
    assert digest_of(rows, names).hexdigest() == made["hash"][0].as_py()
    assert k2.verify_pin("clients")["ok"].to_pylist() == [True]
    with pytest.raises(Refused, match="taken"):
        k2.create_pin("clients", "BTCUSDT")
    with pytest.raises(NotFound):
        k2.pin("nowhere")
    first = k2.diff("2020-01-01T00:00:00Z", symbol="BTCUSDT")
    assert first["rows"].to_pylist()[0] > 0
    assert k2.diff(str(http.get("/v1/snapshots").json()["data"][0]["snapshot_id"])).num_rows == 0

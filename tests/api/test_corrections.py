"""Corrections over HTTP: what is sent counts at once and once, and what cannot be is refused."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from k2.api import Entry, Limits
from k2.client import Client
from k2.errors import BadInput
from k2.log import Producer, open_log, open_registry
from k2.model import CLOCK_SKEW
from k2.query import open_reader
from tests.api.conftest import audit_of, fill, running
from tests.api.test_shape import check_error

SENT = "2026-01-07T09:00:00Z"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server that takes corrections, over a home of its own."""
    home = tmp_path_factory.mktemp("corrected")
    fill(home, 2_000, commit=True)
    with ExitStack() as stack:
        log = stack.enter_context(closing(open_log(f"sqlite:{home / 'log.db'}")))
        registry = stack.enter_context(closing(open_registry(f"embedded:{home / 'registry.db'}")))
        reader = stack.enter_context(open_reader(home))
        entry = Entry(Producer(log, registry, 1), CLOCK_SKEW)
        patient = Limits(query_seconds=60)
        auditing = audit_of(home)
        with running(reader, auditing, audit_seconds=None, entry=entry, limits=patient) as client:
            yield client


def trades(desk: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = desk.get("/v1/trades", params={"limit": 50, **asked}).json()[
        "data"
    ]
    return rows


def of(trade: dict[str, Any], action: str = "BUST", **more: Any) -> dict[str, Any]:
    """A correction of the trade, to be sent."""
    return {
        "symbol": trade["symbol"],
        "exchange": trade["exchange"],
        "timestamp": SENT,
        "action": action,
        "trade_id": trade["trade_id"],
        "id_space": trade["id_space"],
        "target_timestamp": trade["timestamp"],
        **more,
    }


def send(desk: httpx.Client, *corrections: dict[str, Any]) -> httpx.Response:
    content = json.dumps({"corrections": corrections})
    headers = {"Content-Type": "application/json"}
    return desk.post("/v1/corrections", content=content, headers=headers)


def test_what_is_sent_counts_at_once_and_once(desk: httpx.Client) -> None:
    first, second, third = trades(desk)[:3]
    was = desk.get("/v1/trades").headers["etag"]
    given = [of(first, reason="erroneous"), of(second, "CORRECT", price="1.25")]
    answers = [send(desk, *given) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    bodies = [answer.json() for answer in answers]
    assert [body["meta"]["duplicates"] for body in bodies] == [0, 2]
    assert bodies[0]["data"] == bodies[1]["data"]
    assert [row["has_target"] for row in bodies[0]["data"]] == [True, True]
    assert [row["action"] for row in bodies[0]["data"]] == ["BUST", "CORRECT"]
    now = trades(desk)
    assert [row["trade_id"] for row in now[:2]] == [second["trade_id"], third["trade_id"]]
    assert now[0]["price"] == "1.25"
    assert desk.get("/v1/trades").headers["etag"] != was
    listed = desk.get("/v1/corrections", params={"symbol": first["symbol"]}).json()
    assert first["trade_id"] in [row["trade_id"] for row in listed["data"]]


def test_the_past_is_as_it_was(desk: httpx.Client) -> None:
    last = [row for row in trades(desk) if row["price_forming"]][-9]
    before = "2026-01-07T08:00:00Z"
    first = desk.get("/v1/trades", params={"limit": 10}).json()["pagination"]["next"]
    assert send(desk, of(last)).status_code == 200
    assert last not in trades(desk)
    assert last in trades(desk, as_known_at=before)
    assert last in trades(desk, after=first)
    history = {row["trade_id"]: row for row in trades(desk, history="true")}
    assert history[last["trade_id"]]["correction"] == "BUST"
    query = {"symbols": [last["symbol"]], "limit": 1000, "as_known_at": before}
    found = desk.post("/v1/trades/query", json=query).json()["data"]
    assert last["trade_id"] in [row["trade_id"] for row in found]
    known = {"as_known_at": before}
    bars = {"symbol": last["symbol"], "all_trades": "true"}
    summary = f"/v1/summary/{last['symbol']}/{last['timestamp'][:10]}"
    for url, asked in (("/v1/bars/1d", bars), (summary, {})):
        now, then = (
            desk.get(url, params={**asked, **more}).json()["data"][0]["trade_count"]
            for more in ({}, known)
        )
        assert now < then


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"trade_id": None}, "body.corrections.1.trade_id"),
        ({"action": "CORRECT"}, "body.corrections.1.action"),
        ({"action": "DELETE"}, "body.corrections.1.action"),
        ({"price": "0.123456789"}, "body.corrections.1.price"),
        ({"timestamp": "2026-01-07"}, "body.corrections.1.timestamp"),
        ({"timestamp": "2126-01-07T00:00:00Z"}, "body.corrections.1.timestamp"),
        ({"trade_id": "\ud800"}, "body.corrections.1.trade_id"),
        ({"prize": "1"}, "body.corrections.1.prize"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_taken_in(
    desk: httpx.Client, wrong: dict[str, Any], place: str
) -> None:
    some = trades(desk)[20]
    answer = send(desk, of(some), of(some, **wrong))
    assert check_error(answer, 422, "VALIDATION_ERROR")["place"] == place
    assert some in trades(desk)


def test_an_exchange_that_nobody_declared(desk: httpx.Client) -> None:
    answer = send(desk, of(trades(desk)[0], exchange="nowhere"))
    check_error(answer, 404, "NOT_FOUND")


def test_a_page_elsewhere_cannot_send(desk: httpx.Client) -> None:
    content = b'{"corrections": []}'
    answer = desk.post("/v1/corrections", content=content, headers={"Content-Type": "text/plain"})
    assert check_error(answer, 422, "VALIDATION_ERROR")["place"] == "header Content-Type"


def test_a_server_without_a_way_in(tmp_path: Path) -> None:
    fill(tmp_path, 10, commit=False)
    with (
        open_reader(tmp_path) as reader,
        running(reader, audit_of(tmp_path), audit_seconds=None) as client,
    ):
        some = {"trade_id": "1", "symbol": "A", "exchange": "simulated", "timestamp": SENT}
        some["id_space"] = ""
        check_error(send(client, of(some)), 403, "FORBIDDEN")


def test_the_client(desk: httpx.Client) -> None:
    k2 = Client(str(desk.base_url))
    some = trades(desk)[30]
    bust = of(some, timestamp=datetime(2026, 1, 7, 10, tzinfo=UTC))
    assert k2.correct(bust)["has_target"].to_pylist() == [True]
    assert k2.correct(bust).num_rows == 1
    found = k2.corrections(some["symbol"])
    assert found["trade_id"].to_pylist().count(some["trade_id"]) == 1
    assert some["trade_id"] not in k2.trades(some["symbol"])["trade_id"].to_pylist()
    known = k2.trades(some["symbol"], as_known_at="2026-01-07T09:30:00Z")
    assert some["trade_id"] in known["trade_id"].to_pylist()
    history = k2.trades(some["symbol"], history=True)
    assert "BUST" in history["correction"].to_pylist()
    with pytest.raises(BadInput):
        k2.correct({**bust, "action": "NOTHING"})

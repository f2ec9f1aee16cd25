"""POST /v1/join: the reader's own answers, page by page, and what cannot be asked."""

from typing import Any

import httpx
import pytest

from k2.query import JoinWanted, Reader, Rule, Selection
from tests.api.test_shape import check_error


def join(client: httpx.Client, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/join", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_the_answer_is_the_readers(client: httpx.Client, reader: Reader, symbol: str) -> None:
    wanted = reader.join(JoinWanted(limit=200), Selection((symbol,)))
    found = join(client, symbols=[symbol], limit=200)
    assert len(found["data"]) == 200
    assert set(found["data"][0]) == set(wanted.table.column_names)
    bids = [None if bid is None else f"{bid:f}" for bid in wanted.table["bid_price"].to_pylist()]
    assert [row["bid_price"] for row in found["data"]] == [
        bid and bid.rstrip("0").rstrip(".") for bid in bids
    ]
    assert any(bids)
    assert {"trades", "quotes"} <= set(found["meta"]["snapshots"])


def test_pages_are_the_whole(client: httpx.Client, symbol: str) -> None:
    fields = ["timestamp", "price", "quote_timestamp", "bid_price"]
    body = {"symbols": [symbol], "fields": fields, "max_age": "5s"}
    whole = join(client, **body, limit=100_000)["data"]
    pages: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = join(client, **body, limit=97, **after)
        pages += page["data"]
        if page["pagination"]["next"] is None:
            break
        after = {"after": page["pagination"]["next"]}
    assert pages == whole
    assert join(client, **body, last=5)["data"] == whole[-5:]


def test_what_is_asked_for_reaches_the_reader(
    client: httpx.Client, reader: Reader, symbol: str
) -> None:
    wanted = JoinWanted("quotes", "trades", Rule(strict=True, look_ahead=True), last=50)
    expected = reader.join(wanted, Selection((symbol,))).table
    body = {"left": "quotes", "right": "trades", "strict": True, "look_ahead": True, "last": 50}
    answer = join(client, **body, symbols=[symbol])
    assert [row["trade_id"] for row in answer["data"]] == expected["trade_id"].to_pylist()
    assert any(note.startswith("looks ahead") for note in answer["meta"]["notes"])


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"left": "bars"}, "body.left"),
        ({"max_age": "5"}, "body.max_age"),
        ({"max_age": "soon"}, "body.max_age"),
        ({"max_age": 5}, "body.max_age"),
        ({"last": 3, "after": "x"}, "body.last"),
        ({"limit": 0}, "body.limit"),
        ({"look_ahead": "yes"}, "body.look_ahead"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"lookahead": True}, "body.lookahead"),
    ],
)
def test_what_cannot_be_asked(client: httpx.Client, body: dict[str, Any], place: str) -> None:
    error = check_error(client.post("/v1/join", json=body), 422, "VALIDATION_ERROR")
    assert error["place"] == place


def test_a_column_that_there_is_not(client: httpx.Client) -> None:
    response = client.post("/v1/join", json={"fields": ["quote_bid_price"]})
    error = check_error(response, 422, "VALIDATION_ERROR")
    assert "bid_price" in error["expected"]

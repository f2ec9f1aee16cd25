"""Coinbase's messages and answers, read by clients made from its documents."""

from itertools import pairwise
from typing import Any

import pytest

from k2.venues.pytest import OpenVenue
from tests.venues.client import Client, body, following, get

TRADE = {"trade_id", "product_id", "price", "size", "side", "time"}


def subscribe(client: Client, channel: str, *products: str, kind: str = "subscribe") -> None:
    asked: dict[str, Any] = {"type": kind, "channel": channel}
    client.send(**asked, **({"product_ids": products} if products else {}))


def trades_of(frame: Any) -> list[Any]:
    return [trade for event in frame["events"] for trade in event["trades"]]


def test_trades_come_as_a_snapshot_and_then_in_order(venue: OpenVenue) -> None:
    at = venue("coinbase", start=None)
    with following(at.ws) as client:
        subscribe(client, "market_trades", "BTC-USD", "ETH-USD")
        answer = client.until(lambda f: f["channel"] == "subscriptions")
        assert answer["events"] == [{"subscriptions": {"market_trades": ["BTC-USD", "ETH-USD"]}}]
        frames = client.some(lambda f: f["channel"] == "market_trades", 6)
        assert [f["sequence_num"] for f in client.seen] == list(range(len(client.seen)))
        assert {e["type"] for f in client.seen[:2] for e in f["events"]} == {"snapshot"}
        assert all(e["type"] == "update" for f in frames for e in f["events"])
        trades = [t for f in frames for t in trades_of(f)]
        assert all(set(trade) == TRADE for trade in trades)
        numbers = [int(t["trade_id"]) for t in trades if t["product_id"] == "BTC-USD"]
        assert all(after == before + 1 for before, after in pairwise(numbers))
        subscribe(client, "market_trades", "BTC-USD", "ETH-USD", kind="unsubscribe")
        assert client.until(lambda f: f["channel"] == "subscriptions")["events"] == [
            {"subscriptions": {}}
        ]
    at.stop_trading()
    made = {(r["symbol"], r["number"]): r for r in at.truth.trades().to_pylist()}
    for trade in trades:
        row = made[trade["product_id"], int(trade["trade_id"])]
        # The published side is the maker's: the aggressor took the other one.
        assert {trade["side"], row["side"]} == {"BUY", "SELL"}
        assert row["price"] == row["price"].__class__(trade["price"])
        assert row["quantity"] == row["quantity"].__class__(trade["size"])
        assert trade["time"] == f"{row['time']:%Y-%m-%dT%H:%M:%S.%f}Z"


def test_all_channels_share_one_sequence(venue: OpenVenue) -> None:
    at = venue("coinbase")
    with following(at.ws) as client:
        subscribe(client, "heartbeats")
        for channel in ("ticker", "level2", "market_trades"):
            subscribe(client, channel, "BTC-USD")
        beats = client.some(lambda f: f["channel"] == "heartbeats", 2)
        ticker = client.until(lambda f: f["channel"] == "ticker")["events"][0]["tickers"][0]
        client.until(lambda f: f["channel"] == "l2_data")
        client.until(lambda f: f["channel"] == "market_trades")
        assert [f["sequence_num"] for f in client.seen] == list(range(len(client.seen)))
    counters = [beat["events"][0]["heartbeat_counter"] for beat in beats]
    assert counters == [1, 2]
    assert {"price", "best_bid", "best_bid_quantity", "best_ask", "best_ask_quantity"} <= set(
        ticker
    )
    assert float(ticker["best_bid"]) < float(ticker["best_ask"])


def test_the_book_by_its_changes_is_the_venues(venue: OpenVenue) -> None:
    at = venue("coinbase", rate=2_000)
    sides: dict[str, dict[str, str]] = {"bid": {}, "offer": {}}
    with following(at.ws) as client:
        subscribe(client, "level2", "ETH-USD")
        for frame in client.some(lambda f: f["channel"] == "l2_data", 12):
            for update in frame["events"][0]["updates"]:
                levels = sides[update["side"]]
                levels[update["price_level"]] = update["new_quantity"]
                if update["new_quantity"] == "0":
                    del levels[update["price_level"]]
            time = frame["events"][0]["updates"][0]["event_time"]
    at.stop_trading()
    rows = at.truth.quotes().to_pylist()
    quote = next(
        r for r in rows if r["symbol"] == "ETH-USD" and f"{r['time']:%Y-%m-%dT%H:%M:%S.%f}Z" == time
    )
    exact = type(quote["bid_price"])
    bid, ask = max(sides["bid"], key=float), min(sides["offer"], key=float)
    assert (exact(bid), exact(sides["bid"][bid])) == (quote["bid_price"], quote["bid_quantity"])
    assert (exact(ask), exact(sides["offer"][ask])) == (quote["ask_price"], quote["ask_quantity"])


@pytest.mark.parametrize(
    "asked",
    [
        {"type": "subscribe", "channel": "nothing", "product_ids": ["BTC-USD"]},
        {"type": "subscribe", "channel": "ticker", "product_ids": ["XXX-USD"]},
        {"type": "subscribe", "channel": "ticker"},
        {"type": "order"},
    ],
    ids=["channel", "product", "no product", "type"],
)
def test_what_cannot_be_followed_is_an_error(venue: OpenVenue, asked: dict[str, Any]) -> None:
    with following(venue("coinbase").ws) as client:
        client.send(**asked)
        answer = client.next()
    assert answer["type"] == "error"
    assert answer["message"]


@pytest.mark.slow
def test_who_follows_nothing_within_five_seconds_is_cut(venue: OpenVenue) -> None:
    with following(venue("coinbase").ws) as client:
        assert client.closed() == 1008


def test_rest_gives_trades_in_pages_from_the_newest(venue: OpenVenue) -> None:
    at = venue("coinbase", rate=5_000)
    with following(at.ws) as client:
        subscribe(client, "market_trades", "BTC-USD")
        sent = [
            t
            for f in client.some(lambda f: f["channel"] == "market_trades", 5)
            for t in trades_of(f)
        ]
    at.stop_trading()
    url = f"{at.rest}/products/BTC-USD/trades"
    newest = get(url, limit=100)
    numbers = [row["trade_id"] for row in newest.json()]
    assert numbers == list(range(numbers[0], numbers[0] - 100, -1))
    assert newest.headers["CB-BEFORE"] == str(numbers[0])
    assert newest.headers["CB-AFTER"] == str(numbers[-1])
    older = body(url, limit=100, after=newest.headers["CB-AFTER"])
    assert older[0]["trade_id"] == numbers[-1] - 1
    assert body(url, before=numbers[0]) == []
    assert [r["trade_id"] for r in body(url, before=numbers[0] - 3)] == numbers[:3]
    last = max(int(trade["trade_id"]) for trade in sent)
    rows = {row["trade_id"]: row for row in body(url, limit=1000, after=last + 1)}
    for trade in sent[-20:]:
        row = rows[int(trade["trade_id"])]
        assert (row["price"], row["side"]) == (trade["price"], trade["side"].lower())
        assert (row["time"], float(row["size"])) == (trade["time"], float(trade["size"]))


def test_rest_tells_products_time_and_books_and_has_a_limit(venue: OpenVenue) -> None:
    at = venue("coinbase")
    assert [product["id"] for product in body(f"{at.rest}/products")] == ["BTC-USD", "ETH-USD"]
    assert set(body(f"{at.rest}/time")) == {"iso", "epoch"}
    assert set(body(f"{at.rest}/products/BTC-USD/book", level=2)) >= {"bids", "asks", "sequence"}
    assert get(f"{at.rest}/products/XXX-USD/trades").status_code == 404
    answers = [get(f"{at.rest}/time").status_code for _ in range(40)]
    assert 429 in answers

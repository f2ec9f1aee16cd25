"""Kraken's messages and answers, read by clients made from its documents."""

import binascii
from decimal import Decimal
from typing import Any

import pytest

from k2.venues.pytest import OpenVenue
from tests.venues.client import Client, body, following, wait_until

TRADE = {"symbol", "side", "price", "qty", "ord_type", "trade_id", "timestamp"}


def subscribe(client: Client, channel: str, *symbols: str, **params: Any) -> None:
    client.send(method="subscribe", params={"channel": channel, "symbol": symbols, **params})


def of(channel: str) -> Any:
    return lambda frame: frame.get("channel") == channel


def test_a_connection_is_told_the_status_and_that_the_venue_lives(venue: OpenVenue) -> None:
    at = venue("kraken", rate=1, seconds=0)
    with following(at.ws) as client:
        status = client.next()
        assert (status["channel"], status["data"][0]["system"]) == ("status", "online")
        subscribe(client, "trade", "BTC/USD")
        acknowledged = client.next()
        assert client.until(of("heartbeat")) == {"channel": "heartbeat"}
        client.send(method="ping", req_id=5)
        assert client.until(lambda f: f.get("method") == "pong")["req_id"] == 5
    assert acknowledged["success"] is True
    assert acknowledged["result"]["symbol"] == "BTC/USD"
    assert acknowledged["time_in"] < acknowledged["time_out"]


def test_trades_are_numbers_with_the_pairs_digits(venue: OpenVenue) -> None:
    at = venue("kraken")
    with following(at.ws) as client:
        subscribe(client, "trade", "BTC/USD", "ETH/USD", snapshot=True)
        acknowledged = client.some(lambda f: f.get("method") == "subscribe", 2)
        frames = client.some(of("trade"), 30)
        text = client.connection.recv(timeout=10)
    assert {a["result"]["symbol"] for a in acknowledged} == {"BTC/USD", "ETH/USD"}
    # Numbers of JSON, printed in full: never through a float, which would drop zeros.
    assert '"qty":0.' in str(text) or '"qty":' in str(text)
    kinds = [f["type"] for f in client.seen if f.get("channel") == "trade"]
    assert kinds.count("snapshot") == 2
    trades = [t for f in frames if f["type"] == "update" for t in f["data"]]
    assert all(set(trade) == TRADE for trade in trades)
    # What an order filled in comes in one message.
    assert {len(f["data"]) for f in frames if f["type"] == "update"} == {1, 2}
    assert all(isinstance(t["price"], Decimal) and isinstance(t["trade_id"], int) for t in trades)
    assert {-t["price"].as_tuple().exponent for t in trades if t["symbol"] == "BTC/USD"} == {1}
    assert {-t["qty"].as_tuple().exponent for t in trades} == {8}
    at.stop_trading()
    made = {(r["symbol"], r["number"]): r for r in at.truth.trades().to_pylist()}
    for trade in trades:
        row = made[trade["symbol"], trade["trade_id"]]
        assert trade["side"] == row["side"].lower()
        assert (trade["price"], trade["qty"]) == (row["price"], row["quantity"])
        assert trade["timestamp"] == f"{row['time']:%Y-%m-%dT%H:%M:%S.%f}Z"


class BookClient:
    """A book by the documents' guide: apply, drop what is 0, truncate, compare the CRC32."""

    def __init__(self, depth: int, price_digits: int, quantity_digits: int) -> None:
        self.depth = depth
        self.digits = (price_digits, quantity_digits)
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}

    def apply(self, data: Any) -> None:
        for levels, side in ((self.bids, data["bids"]), (self.asks, data["asks"])):
            for level in side:
                levels[level["price"]] = level["qty"]
                if level["qty"] == 0:
                    del levels[level["price"]]
        for price in sorted(self.bids, reverse=True)[self.depth :]:
            del self.bids[price]
        for price in sorted(self.asks)[self.depth :]:
            del self.asks[price]

    def checksum(self) -> int:
        asks = [(p, self.asks[p]) for p in sorted(self.asks)[:10]]
        bids = [(p, self.bids[p]) for p in sorted(self.bids, reverse=True)[:10]]
        whole = "".join(
            str(int(number.scaleb(digits)))
            for level in asks + bids
            for number, digits in zip(level, self.digits, strict=True)
        )
        return binascii.crc32(whole.encode())


@pytest.mark.parametrize("depth", [10, 25, 1000])
def test_the_books_checksum_is_right_after_each_update(venue: OpenVenue, depth: int) -> None:
    at = venue("kraken", rate=2_000)
    with following(at.ws) as client:
        subscribe(client, "instrument")
        pairs = client.until(of("instrument"))["data"]["pairs"]
        pair = next(p for p in pairs if p["symbol"] == "ETH/USD")
        book = BookClient(depth, pair["price_precision"], pair["qty_precision"])
        subscribe(client, "book", "ETH/USD", depth=depth)
        for number in range(400):
            frame = client.until(of("book"))
            assert frame["type"] == ("snapshot" if number == 0 else "update")
            data = frame["data"][0]
            book.apply(data)
            assert len(book.bids) == len(book.asks) == depth
            assert book.checksum() == data["checksum"], f"update {number}"


def test_tickers_follow_trades_or_the_best_prices(venue: OpenVenue) -> None:
    at = venue("kraken")
    with following(at.ws) as client:
        subscribe(client, "ticker", "BTC/USD", event_trigger="bbo")
        snapshot, *updates = client.some(of("ticker"), 10)
    assert snapshot["type"] == "snapshot"
    data = updates[-1]["data"][0]
    assert {"bid", "bid_qty", "ask", "ask_qty", "last", "volume", "vwap", "low", "high"} <= set(
        data
    )
    assert data["bid"] < data["ask"]
    at.stop_trading()
    quotes = at.truth.quotes().to_pylist()
    bests = {(q["bid_price"], q["bid_quantity"], q["ask_price"], q["ask_quantity"]) for q in quotes}
    for frame in updates:
        one = frame["data"][0]
        assert (one["bid"], one["bid_qty"], one["ask"], one["ask_qty"]) in bests


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"channel": "trade", "symbol": ["XXX/USD"]}, "Currency pair not supported XXX/USD"),
        ({"channel": "tides", "symbol": ["BTC/USD"]}, "Unsupported channel"),
        ({"channel": "book", "symbol": ["BTC/USD"], "depth": 11}, "depth not supported"),
        ({"channel": "trade"}, "Symbol"),
    ],
    ids=["pair", "channel", "depth", "no pair"],
)
def test_what_cannot_be_followed_is_told(
    venue: OpenVenue, params: dict[str, Any], told: str
) -> None:
    with following(venue("kraken").ws) as client:
        client.send(method="subscribe", params=params, req_id=9)
        answer = client.until(lambda f: "success" in f)
    assert answer["success"] is False
    assert answer["req_id"] == 9
    assert told in answer["error"]


def test_rest_pages_by_nanoseconds_and_misses_nothing(venue: OpenVenue) -> None:
    at = venue("kraken", rate=20_000, seconds=1)
    with following(at.ws) as client:
        client.next()
    made = at.truth.trades
    wait_until(lambda: made().num_rows >= 3_200)
    at.stop_trading()
    url = f"{at.rest}/0/public/Trades"
    found: list[Any] = []
    since = "0"
    while True:
        result = body(url, pair="XBTUSD", since=since)["result"]
        found += result["XXBTZUSD"]
        if not result["XXBTZUSD"]:
            break
        since = result["last"]
    rows = [r for r in made().to_pylist() if r["symbol"] == "BTC/USD"]
    assert [row[6] for row in found] == [r["number"] for r in rows]
    assert [Decimal(row[0]) for row in found] == [r["price"] for r in rows]
    assert [Decimal(row[1]) for row in found] == [r["quantity"] for r in rows]
    assert [row[3] for row in found] == [r["side"][0].lower() for r in rows]
    assert [int(row[2].scaleb(6)) for row in found] == [
        round(r["time"].timestamp() * 1_000_000) for r in rows
    ]
    assert body(url, pair="BTC/USD", since=since, count=1)["result"]["XXBTZUSD"] == []
    assert body(url, pair="NOTHING")["error"] == ["EQuery:Unknown asset pair"]


def test_rest_tells_pairs_time_and_books_and_has_a_limit(venue: OpenVenue) -> None:
    at = venue("kraken")
    pairs = body(f"{at.rest}/0/public/AssetPairs")["result"]
    assert pairs["XXBTZUSD"]["wsname"] == "XBT/USD"
    assert pairs["XETHZUSD"]["pair_decimals"] == 2
    assert body(f"{at.rest}/0/public/Time")["result"]["unixtime"] > 10**9
    book = body(f"{at.rest}/0/public/Depth", pair="ETHUSD", count=5)["result"]["XETHZUSD"]
    assert len(book["asks"]) == 5
    answers = [body(f"{at.rest}/0/public/Time")["error"] for _ in range(40)]
    assert ["EGeneral:Too many requests"] in answers

"""Coinbase's messages to rows; formats: Advanced Trade and Exchange, 2026. All values invented."""

import json
from typing import Any

import pytest

from k2.feeds.coinbase import Coinbase
from k2.feeds.live.options import Asked
from k2.feeds.live.venue import LOST, Answer, Parsed
from tests.feeds.live import read_frames, rest, rows

SYMBOLS = ("BTC-USD",)
WHEN = "2026-01-05T08:00:00.121455Z"
Message = dict[str, Any]


def told(channel: str, number: int | None, *events: Message) -> Message:
    """A message in its envelope; `client_id` may be missing, says the published AsyncAPI file."""
    head = {"channel": channel, "timestamp": "2026-01-05T08:00:00.125Z", "events": list(events)}
    return head if number is None else head | {"sequence_num": number}


def trade(number: int | str, **changed: Any) -> Message:
    return {
        **{"trade_id": str(number), "product_id": "BTC-USD", "price": "91250.12"},
        **{"size": "0.0031", "side": "BUY", "time": WHEN},
    } | changed


def traded(number: int, *trades: Message, kind: str = "update") -> Message:
    return told("market_trades", number, {"type": kind, "trades": list(trades)})


def book(number: int | None, *levels: tuple[str, str, str], kind: str = "update") -> Message:
    """A message of `level2`, which arrives as `l2_data`."""
    updates = [
        {"side": side, "event_time": WHEN, "price_level": price, "new_quantity": quantity}
        for side, price, quantity in levels
    ]
    return told("l2_data", number, {"type": kind, "product_id": "BTC-USD", "updates": updates})


def read(*messages: Any, **options: Any) -> Parsed:
    parser = Coinbase(Asked(SYMBOLS, **options)).parser(SYMBOLS)
    return read_frames(parser, *messages, known=SYMBOLS)


def test_trades() -> None:
    found = read(
        traded(0, trade(990000002, side="SELL"), trade(990000001), kind="snapshot"),
        traded(1, trade(990000003, time="2026-01-05T08:00:00.121455789Z", new=1)),
    )
    assert not found.rejects
    # A message holds the newest first.
    names = ("trade_id", "timestamp", "timestamp_nanos", "price", "quantity", "side", "currency")
    assert rows(found, "trades", *names) == [
        ("990000001", "08:00:00.121455", 0, "91250.12", "0.0031", "SELL", "USD"),
        ("990000002", "08:00:00.121455", 0, "91250.12", "0.0031", "BUY", "USD"),
        ("990000003", "08:00:00.121455", 789, "91250.12", "0.0031", "SELL", "USD"),
    ]
    assert found.delays == [1_000_001 - 125_000]


def test_the_aggressor_is_the_other_side_of_the_maker_s() -> None:
    """Coinbase Exchange, "Get product trades": `side` indicates the maker order side. Advanced
    Trade tells the same trades by the same ids and does not say whose side: the same is taken.
    """
    message = traded(0, trade(1, side="BUY"), trade(2, side="SELL"))
    assert rows(read(message), "trades", "side") == [("SELL",), ("BUY",)]
    assert rows(read(message, side="maker"), "trades", "side") == [("SELL",), ("BUY",)]
    assert rows(read(message, side="taker"), "trades", "side") == [("BUY",), ("SELL",)]


def test_quotes_are_the_best_of_the_book() -> None:
    found = read(
        told("heartbeats", 0, {"current_time": "2026-01-05 08:00:00", "heartbeat_counter": 1}),
        book(1, ("bid", "100.1", "1"), ("bid", "99", "1"), ("offer", "101", "2"), kind="snapshot"),
        book(2, ("bid", "99", "5")),
        book(3, ("bid", "100.1", "0"), ("offer", "100.5", "0.25")),
        book(4, ("offer", "100.5", "0"), ("offer", "101", "0.000")),
    )
    assert not found.rejects
    assert not found.notices
    names = ("bid_price", "bid_quantity", "ask_price", "ask_quantity", "source_sequence")
    assert rows(found, "quotes", *names, "occurrence", "timestamp") == [
        ("100.1", "1", "101", "2", 1, 0, "08:00:00.125000"),
        ("99", "5", "100.5", "0.25", 3, 0, "08:00:00.121455"),
        ("99", "5", None, None, 4, 0, "08:00:00.121455"),
    ]


def test_a_missing_message_loses_the_books_and_no_trade() -> None:
    start = book(0, ("bid", "100", "1"), kind="snapshot")
    found = read(start, traded(2, trade(1)), book(3, ("bid", "101", "1")), traded(1, trade(2)))
    assert [(n.what, n.symbol, n.reason) for n in found.notices] == [
        (LOST, None, "messages 1 to 1 are missing")
    ]
    assert (len(found.quotes), len(found.trades)) == (1, 2)
    # One that is sent twice changes nothing.
    found = read(
        start,
        book(1, ("bid", "101", "1")),
        book(2, ("bid", "101", "0")),
        book(1, ("bid", "101", "1")),
        book(3, ("bid", "99", "1")),
    )
    assert not found.notices
    assert rows(found, "quotes", "bid_price") == [("100",), ("101",), ("100",)]


def test_a_crossed_book_is_lost() -> None:
    """A snapshot that is older than the changes after it: only this can be seen of it."""
    start = book(0, ("bid", "100", "1"), ("offer", "101", "1"), kind="snapshot")
    found = read(start, book(1, ("bid", "101", "1")), book(2, ("bid", "101", "0")))
    assert [n.reason for n in found.notices] == ["the book of BTC-USD is crossed"]
    assert len(found.quotes) == 1


def test_raw_books_keep_every_change() -> None:
    found = read(
        book(0, ("bid", "100", "1"), kind="snapshot"), book(1, ("bid", "99", "2")), books=True
    )
    kept = [json.loads(text) for (text,) in rows(found, "quotes", "vendor_data")]
    assert [each["type"] for each in kept] == ["snapshot", "update"]
    assert kept[1]["updates"][0]["new_quantity"] == "2"


@pytest.mark.parametrize(
    ("message", "kind", "reason"),
    [
        ("}", "unknown", "no JSON"),
        (told("candles", 1, {}), "unknown", "of a known kind: 'candles'"),
        ({"channel": "market_trades", "sequence_num": 1}, "unknown", "it has no 'events'"),
        (traded(1, trade("12a")), "trades", "invalid literal"),
        (traded(1, trade(-5)), "trades", "trade_id -5 is no whole number"),
        (traded(1, trade(5, price=91250.12)), "trades", "price 91250.12 is no text"),
        (traded(1, trade(5, side="UNKNOWN_ORDER_SIDE")), "trades", "UNKNOWN_ORDER_SIDE"),
        (traded(1, trade(5, time="2026-01-05 08:00:00")), "trades", "is no RFC 3339 time"),
        (traded(1, trade(5, size="1e5")), "trades", 'quantity "1e5" is no decimal number'),
        (traded(1, trade(5, product_id="ETH-USD")), "trades", "was not asked for"),
        (book(1, ("bid", "1", "1")), "quotes", "it has no 'BTC-USD'"),
        (book(1, ("bid", "NaN", "1"), kind="snapshot"), "quotes", "'NaN' is no decimal"),
        (book(1, ("both", "1", "1"), kind="snapshot"), "quotes", "it has no 'both'"),
    ],
)
def test_what_cannot_be_read_is_kept_and_harms_no_neighbour(
    message: Any, kind: str, reason: str
) -> None:
    found = read(traded(0, trade(7)), message, traded(2, trade(8)))
    assert rows(found, "trades", "trade_id") == [("7",), ("8",)]
    ((found_kind, found_reason, raw),) = rows(found, "rejects", "kind", "reason", "raw")
    assert found_kind == kind
    assert reason in found_reason
    assert raw == (message if isinstance(message, str) else json.dumps(message)).encode()


def test_a_broken_trade_harms_none_in_its_message() -> None:
    found = read(traded(0, trade(3), trade(2, price=None), trade(1)))
    assert rows(found, "trades", "trade_id") == [("1",), ("3",)]
    assert len(found.rejects) == 1


def test_what_is_asked_for_and_acknowledged() -> None:
    venue = Coinbase(Asked(SYMBOLS))
    (plan,) = venue.plans()
    assert plan.url == "wss://advanced-trade-ws.coinbase.com"
    assert [json.loads(request.text) for request in plan.requests] == [
        {"type": "subscribe", "channel": "heartbeats"},
        {"type": "subscribe", "channel": "market_trades", "product_ids": ["BTC-USD"]},
        {"type": "subscribe", "channel": "level2", "product_ids": ["BTC-USD"]},
    ]
    wanted = {key for request in plan.requests for key in request.keys}
    listed = {"heartbeats": ["heartbeats"], "market_trades": ["BTC-USD"], "level2": ["BTC-USD"]}
    answers = venue.answers(
        json.dumps(told("subscriptions", 3, {"subscriptions": listed})).encode()
    )
    assert wanted <= {answer.key for answer in answers}
    assert not any(answer.refused for answer in answers)
    error = {"type": "error", "message": "failure to subscribe", "reason": "no such product"}
    assert venue.answers(json.dumps(error).encode()) == (
        Answer("*", "failure to subscribe no such product"),
    )
    assert not read(error, told("subscriptions", 0, {"subscriptions": listed})).rejects


def test_history_pages_forward_through_what_comes_backward() -> None:
    def row(number: int, **changed: Any) -> Message:
        return {
            **{"trade_id": number, "time": WHEN, "price": "1.5", "size": "2", "side": "sell"}
        } | changed

    asked: list[tuple[str, dict[str, str]]] = []
    get = rest([[row(1000 - n) for n in range(1000)], [row(1002, side="buy"), row(1001)]], asked)
    venue = Coinbase(Asked(SYMBOLS))
    found = [t for page in venue.history(get, "BTC-USD", 1, 1002, 0) for t in page.trades]
    assert [trade.trade_id for trade in found] == list(range(1, 1003))
    assert (found[-2].side, found[-1].side) == ("BUY", "SELL")
    assert [(path, p["after"], p["limit"]) for path, p in asked] == [
        ("/products/BTC-USD/trades", "1001", "1000"),
        ("/products/BTC-USD/trades", "1003", "2"),
    ]
    assert venue.newest(rest([[row(5)]], asked), "BTC-USD") == 5

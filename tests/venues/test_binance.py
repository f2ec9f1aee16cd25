"""Binance's messages and answers, read by clients made from its documents."""

import json
from itertools import pairwise
from typing import Any

import httpx

from k2.venues.pytest import OpenVenue
from tests.venues.client import body, door, following, get

TRADE = {"e": str, "E": int, "s": str, "t": int, "p": str, "q": str, "T": int, "m": bool, "M": bool}
AGGREGATE = {**{k: v for k, v in TRADE.items() if k != "t"}, "a": int, "f": int, "l": int}
BOOK_TICKER = {"u": int, "s": str, "b": str, "B": str, "a": str, "A": str}
DEPTH = {"e": str, "E": int, "s": str, "U": int, "u": int, "b": list, "a": list}


def shape(frame: dict[str, Any]) -> dict[str, type]:
    return {name: type(value) for name, value in frame.items()}


def test_a_raw_stream_gives_trades_in_the_documents_shape(venue: OpenVenue) -> None:
    at = venue("binance")
    with following(f"{at.ws}/ws/btcusdt@trade") as client:
        trades = [client.next() for _ in range(20)]
    assert all(shape(trade) == TRADE for trade in trades)
    assert [t["t"] for t in trades] == list(range(trades[0]["t"], trades[0]["t"] + 20))
    assert trades[0]["e"] == "trade"
    assert trades[0]["p"].split(".")[1].__len__() == 8
    at.stop_trading()
    made = {
        row["number"]: row for row in at.truth.trades().to_pylist() if row["symbol"] == "BTCUSDT"
    }
    for trade in trades:
        row = made[trade["t"]]
        assert (trade["p"], trade["q"]) == (str(row["price"]), str(row["quantity"]))
        assert trade["m"] is (row["side"] == "SELL")
        assert trade["T"] == int(row["time"].timestamp() * 1_000_000) // 1_000


def test_a_combined_stream_wraps_and_may_be_in_microseconds(venue: OpenVenue) -> None:
    at = venue("binance")
    streams = "btcusdt@aggTrade/ethusdt@bookTicker"
    with following(f"{at.ws}/stream?streams={streams}&timeUnit=MICROSECOND") as client:
        aggregates = client.some(lambda f: f["stream"] == "btcusdt@aggTrade", 12)
        quote = client.until(lambda f: f["stream"] == "ethusdt@bookTicker")["data"]
    assert shape(quote) == BOOK_TICKER
    assert quote["s"] == "ETHUSDT"
    found = [frame["data"] for frame in aggregates]
    assert all(shape(one) == AGGREGATE for one in found)
    assert all(one["f"] == before["l"] + 1 for before, one in pairwise(found))
    assert any(one["l"] > one["f"] for one in found)
    assert all(10**15 < one["T"] < 10**16 for one in found)


def test_requests_are_answered(venue: OpenVenue) -> None:
    at = venue("binance")
    with following(f"{at.ws}/ws") as client:
        client.send(method="SUBSCRIBE", params=["btcusdt@trade", "btcusdt@bookTicker"], id=1)
        assert client.next() == {"result": None, "id": 1}
        client.send(method="LIST_SUBSCRIPTIONS", id=2)
        answer = client.until(lambda f: f.get("id") == 2)
        assert answer["result"] == ["btcusdt@bookTicker", "btcusdt@trade"]
        client.send(method="UNSUBSCRIBE", params=["btcusdt@trade"], id="three")
        client.until(lambda f: f.get("id") == "three")
        assert all("t" not in client.next() for _ in range(20))
        client.send(method="SUBSCRIBED", params=["x@trade"], id=4)
        assert client.until(lambda f: f.get("id") == 4)["error"]["code"] == 2
        client.connection.send("{no json")
        assert client.until(lambda f: "error" in f)["error"]["code"] == 3


def test_the_sixth_message_in_a_second_ends_the_connection(venue: OpenVenue) -> None:
    with following(f"{venue('binance').ws}/ws") as client:
        for number in range(6):
            client.send(method="LIST_SUBSCRIPTIONS", id=number)
        assert client.closed() == 1008


def test_a_connection_ends_at_its_time(venue: OpenVenue) -> None:
    with following(f"{venue('binance', connection_seconds=0.5).ws}/ws/btcusdt@trade") as client:
        assert client.closed() == 1001


def test_there_is_no_socket_elsewhere(venue: OpenVenue) -> None:
    assert door(f"{venue('binance').ws}/elsewhere") == 404


def test_a_book_kept_by_the_documents_rule_is_the_venues(venue: OpenVenue) -> None:
    at = venue("binance", rate=2_000)
    with following(f"{at.ws}/ws/btcusdt@depth@100ms") as client:
        buffered = [client.next()]
        snapshot = body(f"{at.rest}/api/v3/depth", symbol="BTCUSDT", limit=1000)
        last = snapshot["lastUpdateId"]
        assert last >= buffered[0]["U"]
        sides = {"b": dict(snapshot["bids"]), "a": dict(snapshot["asks"])}
        applied = 0
        while applied < 8:
            event = buffered.pop(0) if buffered else client.next()
            assert shape(event) == DEPTH
            if event["u"] <= last:
                continue
            assert event["U"] <= last + 1 if not applied else event["U"] == last + 1
            for side, levels in sides.items():
                for price, quantity in event[side]:
                    levels[price] = quantity
                    if float(quantity) == 0:
                        del levels[price]
            applied, last = applied + 1, event["u"]
        at.stop_trading()
    rows = at.truth.quotes().to_pylist()
    quote = next(r for r in rows if r["number"] == last and r["symbol"] == "BTCUSDT")
    best_bid, best_ask = max(sides["b"], key=float), min(sides["a"], key=float)
    assert (best_bid, sides["b"][best_bid]) == (str(quote["bid_price"]), str(quote["bid_quantity"]))
    assert (best_ask, sides["a"][best_ask]) == (str(quote["ask_price"]), str(quote["ask_quantity"]))


def test_the_best_levels_have_no_symbol(venue: OpenVenue) -> None:
    at = venue("binance")
    with following(f"{at.ws}/ws/btcusdt@depth5@100ms") as client:
        frame = client.next()
    assert set(frame) == {"lastUpdateId", "bids", "asks"}
    assert len(frame["bids"]) == len(frame["asks"]) == 5
    assert float(frame["bids"][0][0]) > float(frame["bids"][4][0])


def test_history_has_what_was_sent(venue: OpenVenue) -> None:
    at = venue("binance")
    with following(f"{at.ws}/stream?streams=btcusdt@trade/btcusdt@aggTrade") as client:
        frames = [client.next()["data"] for _ in range(40)]
    trades = {f["t"]: f for f in frames if f["e"] == "trade"}
    first = min(trades)
    rows = body(
        f"{at.rest}/api/v3/historicalTrades", symbol="BTCUSDT", fromId=first, limit=len(trades)
    )
    assert [row["id"] for row in rows] == sorted(trades)
    for row in rows:
        trade = trades[row["id"]]
        assert (row["price"], row["qty"], row["time"]) == (trade["p"], trade["q"], trade["T"])
        assert row["isBuyerMaker"] is trade["m"]
    aggregates = [f for f in frames if f["e"] == "aggTrade"]
    rows = body(
        f"{at.rest}/api/v3/aggTrades",
        symbol="BTCUSDT",
        fromId=aggregates[0]["a"],
        limit=len(aggregates),
    )
    names = ("a", "p", "q", "f", "l", "T", "m")
    assert rows == [{**{n: a[n] for n in names}, "M": True} for a in aggregates]
    start, end = aggregates[2]["T"], aggregates[8]["T"]
    between = body(f"{at.rest}/api/v3/aggTrades", symbol="BTCUSDT", startTime=start, endTime=end)
    assert [r["a"] for r in between] == [a["a"] for a in aggregates if start <= a["T"] <= end]


def test_rest_tells_time_symbols_and_errors(venue: OpenVenue) -> None:
    at = venue("binance", symbols=("BTCUSDT", "SOLUSDT"))
    assert body(f"{at.rest}/api/v3/ping") == {}
    assert 10**12 < body(f"{at.rest}/api/v3/time")["serverTime"] < 10**13
    headers = {"X-MBX-TIME-UNIT": "MICROSECOND"}
    answer = httpx.get(f"{at.rest}/api/v3/time", headers=headers)
    assert 10**15 < answer.json()["serverTime"] < 10**16
    symbols = body(f"{at.rest}/api/v3/exchangeInfo")["symbols"]
    assert [symbol["symbol"] for symbol in symbols] == ["BTCUSDT", "SOLUSDT"]
    answer = get(f"{at.rest}/api/v3/trades", symbol="ETHUSDT")
    assert (answer.status_code, answer.json()["code"]) == (400, -1121)
    assert get(f"{at.rest}/api/v3/trades").json()["code"] == -1102
    assert get(f"{at.rest}/api/v3/nothing").status_code == 404


def test_weight_is_counted_and_limited(venue: OpenVenue) -> None:
    at = venue("binance")
    used = []
    with httpx.Client() as client:
        for _ in range(60):
            answer = client.get(f"{at.rest}/api/v3/depth?symbol=BTCUSDT&limit=5000")
            used.append((answer.status_code, int(answer.headers["X-MBX-USED-WEIGHT-1M"])))
            if answer.status_code == 418:
                break
    assert used[0] == (200, 250)
    assert (200, 6_000) in used
    assert (429, 6_250) in used
    assert answer.status_code == 418
    assert int(answer.headers["Retry-After"]) > 60
    assert json.loads(answer.text)["code"] == -1003

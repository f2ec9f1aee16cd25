"""Each fault of a script, as a client meets it, and what the truth says of it."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from k2.venues import FAULTS, Venue
from k2.venues.pytest import OpenVenue
from tests.venues.client import Client, body, door, following, get, parse, wait_until

TRADES = "/ws/btcusdt@trade"


def script(fault: str, at: str = "at_message = 5", **more: object) -> str:
    lines = [f"{name} = {value}" for name, value in more.items()]
    return "\n".join(["[[fault]]", at, f'fault = "{fault}"', *lines])


def history(at: Venue, first: int, count: int) -> list[int]:
    rows = body(f"{at.rest}/api/v3/historicalTrades", symbol="BTCUSDT", fromId=first, limit=count)
    return [row["id"] for row in rows]


def numbers(client: Client, count: int) -> list[int]:
    return [client.next()["t"] for _ in range(count)]


@pytest.mark.parametrize(("code", "seen"), [(0, 1006), (1011, 1011)])
def test_disconnect(venue: OpenVenue, code: int, seen: int) -> None:
    at = venue("binance", script("disconnect", "at = 0.5", seconds=2, code=code))
    with following(at.ws + TRADES) as client:
        assert client.closed() == seen
    assert door(at.ws + TRADES) == 503
    last = client.seen[-1]["t"]
    wait_until(lambda: door(at.ws + TRADES) == 101)
    with following(at.ws + TRADES) as client:
        next_one = client.next()["t"]
    # The market went on meanwhile, and the history has all of it.
    assert next_one > last + 1
    assert history(at, last, next_one - last) == list(range(last, next_one))
    assert at.truth.faults()[0].startswith("disconnect")


def test_silence_is_a_hole_that_history_fills(venue: OpenVenue) -> None:
    at = venue("binance", script("silence", seconds=0.5))
    with following(at.ws + TRADES) as client:
        found = numbers(client, 12)
        client.send(method="LIST_SUBSCRIPTIONS", id=1)
        client.until(lambda f: f.get("id") == 1)
    (before, after), *more = [pair for pair in pairwise(found) if pair[1] != pair[0] + 1]
    assert not more
    assert found.index(before) == 3
    assert history(at, before, after - before) == list(range(before, after))


def test_slow_is_late_and_keeps_the_order(venue: OpenVenue) -> None:
    at = venue("binance", script("slow", seconds=0.5, milliseconds=400))
    delays = []
    with following(at.ws + TRADES) as client:
        for _ in range(60):
            trade = client.next()
            delays.append(time.time() * 1_000 - trade["T"])
    found = [trade["t"] for trade in client.seen]
    assert found == list(range(found[0], found[0] + 60))
    assert max(delays) >= 400


def test_what_is_late_is_not_for_who_has_come_since(venue: OpenVenue) -> None:
    at = venue("coinbase", script("slow", seconds=2, milliseconds=900))
    asked = {"type": "subscribe", "channel": "level2", "product_ids": ["BTC-USD"]}

    def is_book(frame: Any) -> bool:
        return bool(frame["channel"] == "l2_data")

    with following(at.ws) as early, following(at.ws) as late:
        early.send(**asked)
        early.some(is_book, 5)
        time.sleep(0.4)
        late.send(**asked)
        snapshot, *changes = late.some(is_book, 4)
    assert snapshot["events"][0]["type"] == "snapshot"
    assert all(change["timestamp"] > snapshot["timestamp"] for change in changes)


def test_duplicate(venue: OpenVenue) -> None:
    at = venue("binance", script("duplicate", count=2))
    with following(at.ws + TRADES) as client:
        found = numbers(client, 10)
    first = found[0]
    assert [n - first for n in found] == [0, 1, 2, 3, 4, 4, 5, 5, 6, 7]


def test_skip_leaves_out_what_history_has(venue: OpenVenue) -> None:
    at = venue("binance", script("skip", count=3))
    with following(at.ws + TRADES) as client:
        found = numbers(client, 8)
    first = found[0]
    assert [n - first for n in found] == [0, 1, 2, 3, 7, 8, 9, 10]
    assert history(at, first, 11) == list(range(first, first + 11))
    assert at.truth.lost() == {}


def test_skip_at_coinbase_shows_in_the_sequence(venue: OpenVenue) -> None:
    at = venue("coinbase", script("skip", count=1, at="at_message = 3"))
    with following(at.ws) as client:
        client.send(type="subscribe", channel="market_trades", product_ids=["BTC-USD"])
        for _ in range(8):
            client.next()
    sequence = [frame["sequence_num"] for frame in client.seen]
    assert [b - a for a, b in pairwise(sequence)].count(2) == 1


def test_what_is_lost_is_nowhere_and_the_truth_names_it(venue: OpenVenue) -> None:
    at = venue("binance", script("skip", count=4, lost="true", symbol='"BTCUSDT"'))
    streams = "btcusdt@trade/btcusdt@aggTrade"
    with following(f"{at.ws}/stream?streams={streams}") as client:
        frames = [client.next()["data"] for _ in range(40)]
    found = [frame["t"] for frame in frames if frame["e"] == "trade"]
    ((symbol, (gone,)),) = at.truth.lost().items()
    assert symbol == "BTCUSDT"
    assert 4 <= len(gone) <= 6
    everything = range(found[0], found[-1] + 1)
    assert set(everything) - set(found) == set(gone)
    assert not {n for f in frames if f["e"] == "aggTrade" for n in (f["f"], f["l"])} & set(gone)
    rest = history(at, found[0], len(found))
    assert rest == found
    rows = body(f"{at.rest}/api/v3/aggTrades", symbol="BTCUSDT", limit=1000)
    assert not {n for row in rows for n in (row["f"], row["l"])} & set(gone)
    at.stop_trading()
    made = [r["number"] for r in at.truth.trades().to_pylist() if r["symbol"] == "BTCUSDT"]
    assert set(gone) <= set(made)


def test_reorder(venue: OpenVenue) -> None:
    at = venue("binance", script("reorder", count=3))
    with following(at.ws + TRADES) as client:
        found = numbers(client, 9)
    first = found[0]
    assert [n - first for n in found] == [0, 1, 2, 3, 6, 5, 4, 7, 8]


def test_malformed(venue: OpenVenue) -> None:
    at = venue("binance", script("malformed", count=3))
    found: list[Any] = []
    with connect(at.ws + TRADES, max_queue=None) as connection:
        for _ in range(10):
            frame = connection.recv(timeout=10)
            try:
                found.append(parse(frame)["t"])
            except ValueError:
                found.append(type(frame))
    assert found[4:7] == [str, bytes, str]
    assert found[7] == found[3] + 4
    assert history(at, found[3], 5) == list(range(found[3], found[3] + 5))


MAINTENANCE: dict[str, tuple[str, dict[str, Any], Callable[[Any], bool]]] = {
    "binance": (
        "/stream",
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1},
        lambda f: f.get("stream") == "!serverShutdown" and f["data"]["e"] == "serverShutdown",
    ),
    "kraken": (
        "",
        {"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"]}},
        lambda f: f.get("channel") == "status" and f["data"][0]["system"] == "maintenance",
    ),
}


@pytest.mark.parametrize("name", MAINTENANCE)
def test_maintenance_is_announced_and_then_all_is_away(venue: OpenVenue, name: str) -> None:
    path, asked, is_notice = MAINTENANCE[name]
    at = venue(name, script("maintenance", notice=0.2, seconds=2))
    with following(at.ws + path) as client:
        client.send(**asked)
        client.until(is_notice)
        assert client.closed() == 1001
    answer = get(at.rest)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert door(at.ws + path) == 503
    wait_until(lambda: door(at.ws + path) == 101)
    with following(at.ws + path) as client:
        client.send(**asked)
        client.next()


@pytest.mark.parametrize("status", [418, 429, 502])
def test_http_status_for_a_time(venue: OpenVenue, status: int) -> None:
    at = venue("binance", script("http", status=status, seconds=1, retry_after=7))
    with following(at.ws + TRADES) as client:
        numbers(client, 6)
        answer = get(f"{at.rest}/api/v3/ping")
        assert (answer.status_code, answer.headers["Retry-After"]) == (status, "7")
        assert ("html" in answer.headers["Content-Type"]) is (status == 502)
        wait_until(lambda: get(f"{at.rest}/api/v3/ping").status_code == 200)


@pytest.mark.parametrize("fault", ["wrong_answer", "no_answer"])
def test_subscriptions_answered_wrongly_or_not_at_all(venue: OpenVenue, fault: str) -> None:
    at = venue("binance", script(fault, "at_message = 1"))
    with following(at.ws + TRADES) as client:
        client.next()
        client.send(method="SUBSCRIBE", params=["ethusdt@trade"], id=1)
        if fault == "wrong_answer":
            assert client.until(lambda f: f.get("id") == 1)["error"]["code"] == 2
        client.send(method="LIST_SUBSCRIPTIONS", id=2)
        answer = client.until(lambda f: f.get("id") == 2)
        assert answer["result"] == ["btcusdt@trade"]
        assert sum(f.get("id") == 1 for f in client.seen) == (fault == "wrong_answer")
        client.send(method="SUBSCRIBE", params=["ethusdt@trade"], id=3)
        assert client.until(lambda f: f.get("id") == 3) == {"result": None, "id": 3}


REFUSALS: dict[str, tuple[dict[str, Any], Callable[[Any], bool]]] = {
    "coinbase": (
        {"type": "subscribe", "channel": "market_trades", "product_ids": ["ETH-USD"]},
        lambda f: f.get("type") == "error",
    ),
    "kraken": (
        {"method": "subscribe", "params": {"channel": "trade", "symbol": ["ETH/USD"]}},
        lambda f: f.get("success") is False,
    ),
}
FIRST: dict[str, dict[str, Any]] = {
    "coinbase": {"type": "subscribe", "channel": "market_trades", "product_ids": ["BTC-USD"]},
    "kraken": {"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"]}},
}


@pytest.mark.parametrize("name", REFUSALS)
def test_the_others_refuse_in_their_own_words(venue: OpenVenue, name: str) -> None:
    asked, is_refusal = REFUSALS[name]
    at = venue(name, script("wrong_answer", "at_message = 1"))
    with following(at.ws) as client:
        client.send(**FIRST[name])
        wait_until(at.truth.faults)
        client.send(**asked)
        client.until(is_refusal)


def test_clock_off_shifts_the_venues_times(venue: OpenVenue) -> None:
    at = venue("binance", script("clock_off", milliseconds=5_000, seconds=60))
    with following(at.ws + TRADES) as client:
        trades = [client.next() for _ in range(12)]
        ahead = body(f"{at.rest}/api/v3/time")["serverTime"] - time.time() * 1_000
    assert 4_000 < ahead < 6_000
    assert trades[-1]["T"] - trades[0]["T"] > 4_000
    rows = body(f"{at.rest}/api/v3/historicalTrades", symbol="BTCUSDT", fromId=trades[-1]["t"])
    assert rows[0]["time"] == trades[-1]["T"]


def test_a_stale_snapshot_is_older_than_the_stream(venue: OpenVenue) -> None:
    at = venue("binance", script("stale_snapshot", "at = 1.2"))
    url = f"{at.rest}/api/v3/depth"
    with following(f"{at.ws}/ws/btcusdt@depth@100ms") as client:
        first = client.next()["U"]
        client.until(lambda f: at.truth.faults())
        latest = client.next()["U"]
        stale = body(url, symbol="BTCUSDT")["lastUpdateId"]
        assert stale < latest
        assert body(url, symbol="BTCUSDT")["lastUpdateId"] >= latest
    assert first < latest


def test_unknown_types_come_between(venue: OpenVenue) -> None:
    at = venue("binance", script("unknown", count=2))
    with following(at.ws + TRADES) as client:
        frames = [client.next() for _ in range(12)]
    kinds = [frame["e"] for frame in frames]
    assert kinds.count("trade") == 10
    assert len(set(kinds)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["binance", "coinbase", "kraken"])
def test_all_faults_together_leave_the_truth_whole(venue: OpenVenue, name: str) -> None:
    """Whatever was drawn: what was sent or is in REST, and what is lost, is what was made."""
    from k2.venues import random_script

    drawn = random_script(11, 2 * len(FAULTS), seconds=8)
    at = venue(name, drawn, rate=400)
    symbol = {"binance": "BTCUSDT", "coinbase": "BTC-USD", "kraken": "BTC/USD"}[name]
    asked = {
        "binance": {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1},
        "coinbase": FIRST["coinbase"],
        "kraken": FIRST["kraken"],
    }[name]
    end = time.monotonic() + 9
    while time.monotonic() < end:
        try:
            with following(at.ws + ("/ws" if name == "binance" else "")) as client:
                client.send(**asked)
                while time.monotonic() < end:
                    client.next(1)
        except (ConnectionClosed, InvalidStatus, ValueError, TimeoutError):
            time.sleep(0.05)
    at.stop_trading()
    assert len(at.truth.faults()) == len(drawn)
    made = [r["number"] for r in at.truth.trades().to_pylist() if r["symbol"] == symbol]
    assert made == list(range(made[0], made[0] + len(made)))
    lost = {n for found in at.truth.lost().get(symbol, []) for n in found}
    assert lost
    assert rest_of(at, name, made[0], len(made)) == sorted(set(made) - lost)


def rest_of(at: Venue, name: str, first: int, count: int) -> list[int]:
    """All trade ids that the venue's REST has of its first symbol, ascending."""
    time.sleep(1)
    if name == "binance":
        return [
            number
            for start in range(first, first + count, 1_000)
            for number in history(at, start, 1_000)
            if number < start + 1_000
        ]
    found: list[int] = []
    if name == "coinbase":
        after = first + count
        while rows := body(f"{at.rest}/products/BTC-USD/trades", after=after):
            found += [row["trade_id"] for row in rows]
            after = found[-1]
        return found[::-1]
    since = "0"
    while rows := (
        result := body(f"{at.rest}/0/public/Trades", pair="XBTUSD", since=since)["result"]
    )["XXBTZUSD"]:
        found += [row[6] for row in rows]
        since = result["last"]
    return found

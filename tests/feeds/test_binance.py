"""Binance's messages to rows; formats: web-socket-streams.md of July 2026. All values invented."""

import json
from typing import Any

import pytest

from k2.errors import BadInput
from k2.feeds import open_feed
from k2.feeds.binance import Binance
from k2.feeds.live.options import Asked
from k2.feeds.live.venue import LEAVING, Answer, Parsed
from tests.feeds.live import read_frames, rest, rows

SYMBOLS = ("BTCUSDT", "ETHUSDT")
TRADE = {
    **{"e": "trade", "E": 1767600000123457, "s": "BTCUSDT", "t": 5100000001},
    **{"p": "91250.10000000", "q": "0.00420000", "T": 1767600000121455, "m": True, "M": True},
}
QUOTE = {
    **{"u": 88000000001, "s": "BTCUSDT", "b": "91250.00000000", "B": "1.50000000"},
    **{"a": "91250.10000000", "A": "0.80000000"},
}

DEEP = '"t": ' + "[" * 1_000 + "]" * 1_000


def read(*messages: Any) -> Parsed:
    return read_frames(Binance(Asked(SYMBOLS)).parser(SYMBOLS), *messages)


def test_trades() -> None:
    found = read(
        {"stream": "btcusdt@trade", "data": TRADE},
        TRADE | {"t": 5100000002, "m": False, "new": {"key": [1]}},
        TRADE | {"t": 5100000003, "T": 1767600000122, "E": 1767600000123, "p": "0.00000001"},
    )
    assert not found.rejects
    # `m`: the buyer is the maker, so the aggressor sold.
    assert rows(found, "trades", "trade_id", "timestamp", "price", "quantity", "side") == [
        ("5100000001", "08:00:00.121455", "91250.1", "0.0042", "SELL"),
        ("5100000002", "08:00:00.121455", "91250.1", "0.0042", "BUY"),
        ("5100000003", "08:00:00.122000", "0.00000001", "0.0042", "SELL"),
    ]
    names = ("symbol", "exchange", "source", "asset_class", "source_received_timestamp")
    assert rows(found, "trades", *names)[1] == (
        *("BTCUSDT", "venue", "venue", "crypto"),
        "08:00:01.000001",
    )
    assert found.delays[0] == 1_000_000 - 123_457


def test_quotes_have_the_time_of_their_receipt() -> None:
    found = read({"stream": "btcusdt@bookTicker", "data": QUOTE}, QUOTE | {"e": "bookTicker"})
    assert not found.rejects
    names = ("bid_price", "bid_quantity", "ask_price", "ask_quantity")
    assert rows(found, "quotes", "timestamp", *names, "source_sequence", "occurrence") == [
        ("08:00:01.000000", "91250", "1.5", "91250.1", "0.8", 88000000001, None),
        ("08:00:01.000001", "91250", "1.5", "91250.1", "0.8", 88000000001, None),
    ]


def test_answers_are_no_records_and_a_shutdown_is_noticed() -> None:
    found = read(
        {"result": None, "id": 1},
        {"error": {"code": 2, "msg": "Invalid request"}, "id": 1},
        {"e": "serverShutdown", "E": 1767600000123457},
    )
    assert (found.trades, found.quotes, found.rejects) == ([], [], [])
    assert [notice.what for notice in found.notices] == [LEAVING]


@pytest.mark.parametrize(
    ("message", "kind", "reason"),
    [
        (b"\xff\xfe", "unknown", "no JSON"),
        ('{"e":"trade","s":"BTC', "unknown", "no JSON"),
        ("[1,2]", "unknown", "another shape"),
        ('"text"', "unknown", "another shape"),
        ({"stream": "btcusdt@trade"}, "unknown", "it has no 'data'"),
        ({"e": "kline", "s": "BTCUSDT"}, "unknown", "of a known kind: 'kline'"),
        ({k: v for k, v in TRADE.items() if k != "p"}, "trades", "it has no 'p'"),
        (TRADE | {"p": 91250.1}, "trades", "p 91250.1 is no text"),
        (TRADE | {"p": "9e4"}, "trades", 'price "9e4" is no decimal number'),
        (TRADE | {"p": "0.123456789"}, "trades", "more than 8 decimals"),
        (TRADE | {"t": -1}, "trades", "t -1 is no whole number"),
        (TRADE | {"t": True}, "trades", "t True is no whole number"),
        (TRADE | {"t": 2**63}, "trades", "is no whole number"),
        (json.dumps(TRADE | {"t": 0}).replace('"t": 0', DEEP), "trades", "recursion depth"),
        (TRADE | {"T": 10**17}, "trades", "lies too far ahead"),
        (TRADE | {"m": "true"}, "trades", "neither true nor false"),
        (TRADE | {"s": "XRPUSDT"}, "trades", "was not asked for"),
        (QUOTE | {"u": None}, "quotes", "u None is no whole number"),
        (QUOTE | {"A": "x"}, "quotes", 'ask_quantity "x" is no decimal number'),
    ],
)
def test_what_cannot_be_read_is_kept_and_harms_no_neighbour(
    message: Any, kind: str, reason: str
) -> None:
    parser = Binance(Asked(SYMBOLS)).parser(SYMBOLS)
    found = read_frames(parser, TRADE, message, TRADE | {"t": 5100000002}, known=SYMBOLS)
    assert len(rows(found, "trades", "trade_id")) == 2
    ((found_kind, found_reason, raw),) = rows(found, "rejects", "kind", "reason", "raw")
    assert found_kind == kind
    assert reason in found_reason
    assert raw == (message if isinstance(message, bytes) else _sent(message))


def _sent(message: Any) -> bytes:
    return (message if isinstance(message, str) else json.dumps(message)).encode()


def test_what_is_asked_for_and_acknowledged() -> None:
    venue = Binance(Asked(SYMBOLS))
    (plan,) = venue.plans()
    assert plan.url == "wss://stream.binance.com:9443/stream?timeUnit=MICROSECOND"
    (request,) = plan.requests
    streams = [f"{s}@{kind}" for s in ("btcusdt", "ethusdt") for kind in ("trade", "bookTicker")]
    assert json.loads(request.text) == {"method": "SUBSCRIBE", "params": streams, "id": 1}
    assert request.keys == {"1"}
    assert venue.answers(b'{"result":null,"id":1}') == (Answer("1"),)
    refused = venue.answers(b'{"error":{"code":2,"msg":"Invalid request"},"id":1}')
    assert refused == (Answer("1", "Invalid request (code 2)"),)
    assert venue.answers(b'{"code":2,"msg":"Bad"}') == (Answer("*", "Bad (code 2)"),)
    assert venue.answers(b'{"result":["x"],"id":1}')[0].refused
    assert venue.answers(_sent({"stream": "x", "data": {"id": 1, "result": None}})) == ()


def test_streams_are_spread_over_connections_and_messages() -> None:
    symbols = tuple(f"S{n:03}USDT" for n in range(600))
    plans = Binance(Asked(symbols)).plans()
    assert [len(plan.symbols) for plan in plans] == [512, 88]
    assert [len(plan.requests) for plan in plans] == [6, 1]
    assert len({key for request in plans[0].requests for key in request.keys}) == 6


def test_history_goes_from_id_to_id() -> None:
    row = {"price": "1.5", "qty": "2", "quoteQty": "3", "time": 1767600000121455}
    row |= {"isBuyerMaker": False, "isBestMatch": True}
    asked: list[tuple[str, dict[str, str]]] = []
    get = rest([[row | {"id": 7}, row | {"id": "x"}, row | {"id": 9}], []], asked)
    pages = list(Binance(Asked(SYMBOLS)).history(get, "ETHUSDT", 7, 12, 0))
    assert [[trade.trade_id for trade in page.trades] for page in pages] == [[7, 9], []]
    assert [(t.symbol, t.side, t.timestamp) for t in pages[0].trades][:1] == [
        ("ETHUSDT", "BUY", 1767600000121455000)
    ]
    assert "id 'x' is no whole number" in pages[0].rejects[0].reason
    parameters = [(path, p["fromId"], p["limit"]) for path, p in asked]
    assert parameters == [
        ("/api/v3/historicalTrades", "7", "6"),
        ("/api/v3/historicalTrades", "10", "3"),
    ]
    assert Binance(Asked(SYMBOLS)).newest(rest([[row | {"id": 9}]], asked), "ETHUSDT") == 9
    assert Binance(Asked(SYMBOLS)).newest(rest([[]], asked), "ETHUSDT") is None


@pytest.mark.parametrize(
    "rest",
    [
        *("btcusdt", "", "BTCUSDT?kinds=bars", "BTCUSDT?ws=http://x", "BTCUSDT?stale=0"),
        *("BTCUSDT?side=x", "BTCUSDT?first=3", "BTCUSDT?first=3&last=2", "BTCUSDT?stale=1&stale=2"),
        *("BTCUSDT?colour=red", "BTCUSDT?since=noon", "BTCUSDT?kinds"),
    ],
)
def test_a_url_that_cannot_be_is_refused(rest: str) -> None:
    with pytest.raises(BadInput):
        open_feed(f"binance:{rest}", None, _never)


def _never() -> Any:
    raise AssertionError("nobody asked for the time")

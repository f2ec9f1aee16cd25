"""Kraken's messages to rows; formats: WebSocket v2 and REST as of 2026. All values invented."""

import json
from typing import Any
from zlib import crc32

import pytest

from k2.errors import BadInput, Refused
from k2.feeds.kraken import Kraken, quoted
from k2.feeds.live.options import Asked
from k2.feeds.live.venue import LOST, MAINTENANCE, ONLINE, Answer, Busy, Parsed
from tests.feeds.live import read_frames, rest, rows

SYMBOLS = ("BTC/USD",)
WHEN = "2026-01-05T08:00:00.121455Z"


def trade(number: int, price: str = "91250.1", **changed: str) -> str:
    """A trade as the venue writes it: its numbers are no texts."""
    told = {"symbol": '"BTC/USD"', "side": '"buy"', "price": price, "qty": "0.00420000"}
    told |= {"ord_type": '"market"', "trade_id": str(number), "timestamp": f'"{WHEN}"'} | changed
    return "{" + ",".join(f'"{name}":{value}' for name, value in told.items()) + "}"


def trades(*items: str, kind: str = "update") -> str:
    return f'{{"channel":"trade","type":"{kind}","data":[{",".join(items)}]}}'


def book(bids: str, asks: str, sum_over: str, kind: str = "update") -> str:
    """A message of `book`; levels as `price:qty,…`; the checksum is that of the digits given."""
    levels = [
        ",".join(
            '{{"price":{},"qty":{}}}'.format(*each.split(":")) for each in side.split(",") if each
        )
        for side in (bids, asks)
    ]
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{levels[0]}],'
        f'"asks":[{levels[1]}],"checksum":{crc32(sum_over.encode())},"timestamp":"{WHEN}"}}]}}'
    )


def read(*messages: Any, **options: Any) -> Parsed:
    parser = Kraken(Asked(SYMBOLS, **options)).parser(SYMBOLS)
    return read_frames(parser, *messages, known=SYMBOLS)


def test_trades() -> None:
    found = read(
        trades(
            trade(71000001),
            trade(71000002, "91250", side='"sell"', ord_type='"limit"', qty="1e-7"),
            trade(71000003, "0.30000000", extra='{"price":"x"}'),
        )
    )
    assert not found.rejects
    # `side` is the taker's, so the aggressor's.
    names = ("trade_id", "timestamp", "price", "quantity", "side", "vendor_data", "currency")
    assert rows(found, "trades", *names) == [
        *[
            (
                "71000001",
                "08:00:00.121455",
                "91250.1",
                "0.0042",
                "BUY",
                '{"ord_type":"market"}',
                "USD",
            )
        ],
        *[
            (
                "71000002",
                "08:00:00.121455",
                "91250",
                "0.0000001",
                "SELL",
                '{"ord_type":"limit"}',
                "USD",
            )
        ],
        *[("71000003", "08:00:00.121455", "0.3", "0.0042", "BUY", '{"ord_type":"market"}', "USD")],
    ]


def test_numbers_become_texts_digit_by_digit() -> None:
    message = rb'{"a":"\"price\":1.5","price": 91250.10,"qty" :0.1,"x":{"qty":-1E-7},"id":1.5}'
    assert json.loads(quoted(message)) == {
        **{"a": '"price":1.5', "price": "91250.10", "qty": "0.1", "x": {"qty": "-1E-7"}},
        "id": 1.5,
    }
    # A double holds neither of these.
    exact = read(trades(trade(1, "9007199254.74099312"), trade(2, "0.10000001")))
    assert rows(exact, "trades", "price") == [("9007199254.74099312",), ("0.10000001",)]


def test_quotes_are_the_best_of_a_book_that_its_checksum_proves() -> None:
    found = read(
        book(
            "45283.5:0.10000000,45283.4:1.5",
            "45285.2:0.00100000",
            "4528521000004528351000000045283415",
            "snapshot",
        ),
        book("45283.4:0", "", "45285210000045283510000000"),
        book("", "45285.1:2.0", "4528512045285210000045283510000000"),
        book("45283.5:0", "", "45285120452852100000"),
    )
    assert not found.rejects
    assert not found.notices
    names = ("bid_price", "bid_quantity", "ask_price", "ask_quantity", "occurrence")
    assert rows(found, "quotes", *names) == [
        ("45283.5", "0.1", "45285.2", "0.001", 0),
        ("45283.5", "0.1", "45285.1", "2", 0),
        (None, None, "45285.1", "2", 0),
    ]
    assert rows(found, "quotes", "timestamp", "vendor_data")[0] == ("08:00:00.121455", None)


def test_the_book_is_cut_to_its_depth() -> None:
    eleven = ",".join(f"{100 - n}:1" for n in range(10))
    digits = "".join(f"{100 - n}1" for n in range(10))
    ten = "1011" + "".join(f"{100 - n}1" for n in range(9))
    found = read(
        book(eleven, "", digits, "snapshot"),
        book("101:1", "", ten),
        # The eleventh, 91, is out: with 101 gone, nine are left.
        book("101:0", "", "".join(f"{100 - n}1" for n in range(9))),
    )
    assert not found.notices
    assert rows(found, "quotes", "bid_price") == [("100",), ("101",), ("100",)]


def test_a_book_with_another_checksum_is_lost_until_the_next_snapshot() -> None:
    snapshot = book("100:1", "101:1", "10111001", "snapshot")
    found = read(snapshot, book("100:2", "", "nonsense"), book("100:3", "", "10111003"))
    assert len(found.quotes) == 1
    assert [(n.what, n.symbol) for n in found.notices] == [(LOST, "BTC/USD")]
    found = read(snapshot, book("100:2", "", "nonsense"), snapshot)
    assert len(found.quotes) == 2
    found = read(book("100:2", "", "1002"))
    assert "has no snapshot" in found.rejects[0].reason
    assert [n.what for n in found.notices] == [LOST]


def test_raw_books_keep_every_change() -> None:
    found = read(
        book("100:1,99:1", "101:1", "10111001991", "snapshot"),
        book("99:2", "", "10111001992"),
        books=True,
    )
    told = [json.loads(text) for (text,) in rows(found, "quotes", "vendor_data")]
    assert [each["type"] for each in told] == ["snapshot", "update"]
    assert told[1]["data"]["bids"] == [{"price": "99", "qty": "2"}]


def test_other_messages() -> None:
    found = read(
        '{"channel":"status","type":"update","data":[{"system":"online","version":"2"}]}',
        '{"channel":"status","type":"update","data":[{"system":"maintenance"}]}',
        '{"channel":"heartbeat"}',
        '{"method":"subscribe","success":true,"result":{"channel":"trade","symbol":"BTC/USD"}}',
        '{"method":"pong"}',
    )
    assert [notice.what for notice in found.notices] == [ONLINE, MAINTENANCE]
    assert not found.rejects


@pytest.mark.parametrize(
    ("message", "kind", "reason"),
    [
        ("{", "unknown", "no JSON"),
        ('{"channel":"ohlc","data":[]}', "unknown", "of a known kind: 'ohlc'"),
        ('{"channel":"trade","type":"update"}', "unknown", "it has no 'data'"),
        (trades(trade(1, side='"hold"')), "trades", "it has no 'hold'"),
        (trades(trade(1, "null")), "trades", "price None is no text"),
        (trades(trade(1, "1.2.3")), "trades", 'price "1.2.3" is no decimal number'),
        (trades(trade(1, "1e40")), "trades", "more than 10 digits"),
        (trades(trade(1, "1e999999999")), "trades", "too large or too small"),
        (trades(trade(1, timestamp='"yesterday"')), "trades", "is no RFC 3339 time"),
        (trades(trade(1, timestamp='"2026-13-05T08:00:00Z"')), "trades", "does not match"),
        (trades(trade(1, symbol='"ETH/USD"')), "trades", "was not asked for"),
        (book("x:1", "", "", "snapshot"), "unknown", "no JSON"),
        (book("-1:1", "", "", "snapshot"), "quotes", "price '-1' is no decimal"),
    ],
)
def test_what_cannot_be_read_is_kept_and_harms_no_neighbour(
    message: str, kind: str, reason: str
) -> None:
    found = read(trades(trade(7)), message, trades(trade(8)))
    assert rows(found, "trades", "trade_id") == [("7",), ("8",)]
    ((found_kind, found_reason, raw),) = rows(found, "rejects", "kind", "reason", "raw")
    assert (found_kind, raw) == (kind, message.encode())
    assert reason in found_reason


def test_a_broken_trade_harms_none_in_its_message() -> None:
    found = read(trades(trade(1), trade(2, qty="true"), trade(3)))
    assert rows(found, "trades", "trade_id") == [("1",), ("3",)]
    assert len(found.rejects) == 1


def test_what_is_asked_for_and_acknowledged() -> None:
    venue = Kraken(Asked(SYMBOLS))
    (plan,) = venue.plans()
    assert plan.url == "wss://ws.kraken.com/v2"
    assert [json.loads(request.text)["params"] for request in plan.requests] == [
        {"channel": "trade", "symbol": ["BTC/USD"], "snapshot": True},
        {"channel": "book", "symbol": ["BTC/USD"], "snapshot": True, "depth": 10},
    ]
    assert [set(request.keys) for request in plan.requests] == [{"trade BTC/USD"}, {"book BTC/USD"}]
    good = {"channel": "book", "depth": 10, "symbol": "BTC/USD"}
    told = {"method": "subscribe", "result": good, "success": True, "time_in": WHEN}
    assert venue.answers(json.dumps(told).encode()) == (Answer("book BTC/USD"),)
    told = {"method": "subscribe", "error": "Currency pair not supported", "success": False}
    (refused,) = venue.answers(json.dumps(told | {"symbol": "BTC/USD"}).encode())
    assert refused.refused == "Currency pair not supported"
    assert venue.answers(trades(trade(1)).encode()) == ()


def test_history_goes_by_time_until_the_last_id() -> None:
    def page(last: str, *rows: str) -> str:
        return f'{{"error":[],"result":{{"XXBTZUSD":[{",".join(rows)}],"last":"{last}"}}}}'

    asked: list[tuple[str, dict[str, str]]] = []
    answers = [
        page("1767600000500000000", '["1.5","2.0",1767600000.1214551,"b","m","",7]'),
        page("1767600000900000000", '["1.5","2.0",1767600000.9,"s","l","",8]'),
    ]
    venue = Kraken(Asked(SYMBOLS))
    pages = list(venue.history(rest(answers, asked), "BTC/USD", 7, 8, 1767600000000000000))
    found = [trade for each in pages for trade in each.trades]
    assert [(t.trade_id, t.side, t.timestamp, t.vendor) for t in found] == [
        (7, "BUY", 1767600000121455100, '{"ord_type":"market"}'),
        (8, "SELL", 1767600000900000000, '{"ord_type":"limit"}'),
    ]
    assert [parameters["since"] for _, parameters in asked] == [
        "1767599999999999999",
        "1767600000500000000",
    ]
    busy = rest(['{"error":["EGeneral:Too many requests"]}'], asked)
    with pytest.raises(Busy):
        venue.newest(busy, "BTC/USD")
    with pytest.raises(Refused):
        venue.newest(rest(['{"error":["EQuery:Unknown asset pair"]}'], asked), "BTC/USD")
    with pytest.raises(BadInput):
        Kraken(Asked(SYMBOLS, ids=(1, 2)))

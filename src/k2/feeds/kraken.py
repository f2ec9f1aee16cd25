"""Kraken spot, live: `kraken:BTC/USD,ETH/USD[?ws=URL&rest=URL&kinds=trades,quotes&stale=30]`.

Quotes are the best levels of `book` at depth 10, each change proved by its checksum. L2: with
`books=raw` every change of the book is a quote record whose `vendor_data` holds the venue's own
`{"type","data"}`, from which a book of ten levels is rebuilt; a snapshot begins each connection.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from zlib import crc32

import orjson

from k2.errors import BadInput, Refused
from k2.feeds.live.book import ASK, BID, NO_LEVEL, Book
from k2.feeds.live.feed import open_live
from k2.feeds.live.options import Asked
from k2.feeds.live.venue import (
    LOST,
    MAINTENANCE,
    ONLINE,
    UNREADABLE,
    Answer,
    Body,
    Busy,
    Frame,
    Get,
    Limits,
    Notice,
    Ordinals,
    Parsed,
    Plan,
    Quote,
    Request,
    Trade,
    describe,
    digits,
    nanoseconds,
    plain,
    text,
    whole,
)
from k2.feeds.port import Feed
from k2.model import Exchange

WS: Final = "wss://ws.kraken.com/v2"
REST: Final = "https://api.kraken.com"

DEPTH: Final = 10
PAGE: Final = 1000
SYMBOLS_A_CONNECTION: Final = 100

# Prices are JSON numbers, which a JSON reader would make floats of: they are put into quotes first.
# Inside a JSON text the quote before the colon would be escaped, so this finds keys only; a number
# that it misses is refused later for not being a text.
_NUMBERS: Final = re.compile(rb'("(?:price|qty)"\s*:)\s*(-?[0-9][0-9.eE+-]*)')
# In an answer of REST, the time is the only number with a point.
_TIMES: Final = re.compile(rb",\s*([0-9]{9,12}(?:\.[0-9]{1,9})?)\s*,")

_CHANNELS: Final = {"trades": "trade", "quotes": "book"}
_SIDES: Final = {"buy": "BUY", "sell": "SELL", "b": "BUY", "s": "SELL"}
_ORDERS: Final = {
    **dict.fromkeys(("market", "m"), '{"ord_type":"market"}'),
    **dict.fromkeys(("limit", "l"), '{"ord_type":"limit"}'),
}
_ANSWERED: Final = ("subscribe", "unsubscribe", "ping", "pong")


def open_feed(rest: str, position: str | None, clock: Callable[[], datetime]) -> Feed:
    """The feed of `BTC/USD,ETH/USD?…`, at `position`; see `k2.feeds.live.options` for options."""
    return open_live("kraken", rest, r"[A-Z0-9.]{1,20}/[A-Z0-9.]{1,20}", Kraken, position, clock)


class Kraken:
    """Kraken's spot market: WebSocket protocol version 2, as of 2026.

    A trade: `{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":
    91250.1,"qty":0.0042,"ord_type":"market","trade_id":71000001,"timestamp":
    "2026-01-05T08:00:00.121455Z"}]}`; `side` is the taker's, so the aggressor's.
    """

    quotes_are_numbered = False

    def __init__(self, asked: Asked) -> None:
        if asked.ids is not None and asked.since == 0:
            raise BadInput(
                "Kraken's history goes by time: from where on are these trades looked for?",
                expected="since=TIME, a little before the first of them",
            )
        self.exchange = Exchange("kraken", "crypto", "UTC", numbered=("trades",))
        self._asked = asked
        self._ws = asked.ws or WS
        self.rest = asked.rest or REST
        # A heartbeat comes every second in which nothing else does.
        self.limits = Limits(
            lifetime=asked.lifetime,
            silence=asked.stale,
            between_messages=0.1,
            between_requests=1.0,
        )

    def plans(self) -> Sequence[Plan]:
        """A connection for each hundred symbols."""
        symbols = self._asked.symbols
        step = SYMBOLS_A_CONNECTION
        return [self._plan(symbols[at : at + step]) for at in range(0, len(symbols), step)]

    def _plan(self, symbols: tuple[str, ...]) -> Plan:
        requests = []
        for kind in self._asked.kinds:
            channel = _CHANNELS[kind]
            asked: dict[str, Any] = {"channel": channel, "symbol": list(symbols)}
            asked["snapshot"] = True
            if channel == "book":
                asked["depth"] = DEPTH
            message = orjson.dumps({"method": "subscribe", "params": asked}).decode()
            requests.append(Request(message, frozenset(f"{channel} {s}" for s in symbols)))
        return Plan(self._ws, tuple(requests), symbols)

    def parser(self, symbols: Sequence[str]) -> "KrakenParser":
        """A parser for a new connection, its books empty."""
        return KrakenParser(self._asked.books)

    def answers(self, text: bytes) -> Sequence[Answer]:
        """`{"method":"subscribe","result":{"channel":…,"symbol":…},"success":true,…}`."""
        if b'"method"' not in text:
            return ()
        try:
            said = orjson.loads(text)
            if said.get("method") != "subscribe":
                return ()
            if said["success"] is not True:
                return (Answer(str(said.get("symbol", "*")), str(said.get("error", "?"))),)
            result = said["result"]
            return (Answer(f"{result['channel']} {result['symbol']}"),)
        except UNREADABLE:
            return ()

    def history(self, get: Get, symbol: str, first: int, last: int, after: int) -> Iterator[Parsed]:
        """`Trades`, which goes by time: from that of the trade before, on to the id `last`."""
        since = max(after - 1, 0)
        while True:
            asked = {"pair": symbol, "since": str(since), "count": str(PAGE)}
            body = get("/0/public/Trades", asked, {})
            rows, more = _rows(body)
            out = _page(body, symbol, rows)
            yield out
            if not rows or more <= since or (out.trades and out.trades[-1].trade_id >= last):
                return
            since = more

    def newest(self, get: Get, symbol: str) -> int | None:
        """By the last of the trades that come without a time."""
        rows, _ = _rows(get("/0/public/Trades", {"pair": symbol, "count": "1"}, {}))
        return max((whole(row[6], "trade_id") for row in rows), default=None)


class KrakenParser:
    """Reads the messages of one connection, and keeps its books; unknown keys mean nothing."""

    def __init__(self, raw: bool) -> None:
        self._raw = raw
        self._books: dict[str, Book | None] = {}
        """None: the book's checksum was wrong; the connection will be replaced."""
        self._told: dict[str, tuple[Any, Any]] = {}
        self._ordinals = Ordinals()

    def parse(self, frame: Frame, out: Parsed) -> None:
        """Add what the frame says."""
        said = orjson.loads(quoted(frame.text))
        channel = said.get("channel")
        if channel == "trade":
            self._trades(said, frame, out)
        elif channel == "book":
            self._book(said, frame, out)
        elif channel == "status":
            self._status(said, frame, out)
        elif channel != "heartbeat" and said.get("method") not in _ANSWERED:
            out.reject(frame, "unknown", f"no message of a known kind: {channel!r}")

    def _trades(self, said: dict[str, Any], frame: Frame, out: Parsed) -> None:
        for item in said["data"]:
            try:
                trade = Trade(
                    text(item["symbol"], "symbol"),
                    whole(item["trade_id"], "trade_id"),
                    nanoseconds(item["timestamp"]),
                    digits(item["price"], "price"),
                    digits(item["qty"], "qty"),
                    _SIDES[item["side"]],
                    None,
                    _order(item.get("ord_type")),
                )
            except UNREADABLE as error:
                out.reject(frame, "trades", f"a trade cannot be read: {describe(error)}")
                continue
            out.trade(trade, frame)
            if said.get("type") == "update":
                out.delays.append(frame.received - trade.timestamp // 1000)

    def _status(self, said: dict[str, Any], frame: Frame, out: Parsed) -> None:
        system = text(said["data"][0]["system"], "system")
        what = ONLINE if system == "online" else MAINTENANCE
        out.notices.append(Notice(frame.connection, what, f"the venue's state is {system}"))

    def _book(self, said: dict[str, Any], frame: Frame, out: Parsed) -> None:
        for item in said["data"]:
            symbol = None
            try:
                symbol = text(item["symbol"], "symbol")
                self._change(symbol, said["type"] == "snapshot", item, frame, out)
            except UNREADABLE as error:
                out.reject(frame, "quotes", f"a book cannot be read: {describe(error)}")
                if symbol is not None:
                    self._lose(symbol, "a change of it cannot be read", frame, out)

    def _change(
        self, symbol: str, snapshot: bool, item: dict[str, Any], frame: Frame, out: Parsed
    ) -> None:
        if snapshot:
            self._books[symbol] = Book()
            self._told.pop(symbol, None)
        book = self._books.get(symbol)
        if book is None:
            if symbol not in self._books:
                # Without one, its changes say nothing.
                raise ValueError(f"the book of {symbol} has no snapshot")
            return
        for side, name in ((BID, "bids"), (ASK, "asks")):
            for level in item.get(name, ()):
                price, quantity = digits(level["price"], "price"), digits(level["qty"], "qty")
                book.set(side, plain(price, "price"), plain(quantity, "qty"))
        book.keep(DEPTH)
        if checksum(book) != whole(item["checksum"], "checksum"):
            self._lose(symbol, "its checksum differs", frame, out)
            return
        best = book.best()
        if best == self._told.get(symbol) and not self._raw:
            return
        self._told[symbol] = best
        when = item.get("timestamp")
        at = frame.received * 1000 if when is None else nanoseconds(when)
        out.quote(self._quote(symbol, at, best, frame, snapshot, item), frame)

    def _quote(
        self,
        symbol: str,
        at: int,
        best: tuple[Any, Any],
        frame: Frame,
        snapshot: bool,
        item: dict[str, Any],
    ) -> Quote:
        (bid, bid_size, _), (ask, ask_size, _) = (level or NO_LEVEL for level in best)
        occurrence = self._ordinals.number(frame.received, (symbol, at, best))
        raw = None
        if self._raw:
            told = {"type": "snapshot" if snapshot else "update", "data": item}
            raw = orjson.dumps(told).decode()
        return Quote(symbol, at, bid, bid_size, ask, ask_size, None, occurrence, raw)

    def _lose(self, symbol: str, why: str, frame: Frame, out: Parsed) -> None:
        self._books[symbol] = None
        notice = Notice(frame.connection, LOST, f"the book of {symbol} is lost: {why}", symbol)
        out.notices.append(notice)


def quoted(message: bytes) -> bytes:
    """The message with its prices and quantities as texts, digit by digit as they came.

    With orjson 2.8 us a message, where json with `parse_float=str` takes 4.2 and lets more through.
    """
    parts = _NUMBERS.split(message)
    for at in range(2, len(parts), 3):
        parts[at] = b'"' + parts[at] + b'"'
    return b"".join(parts)


def checksum(book: Book) -> int:
    """CRC32 over the digits of the ten best asks, then bids.

    The venue writes both with all their decimals, so the texts that came are what is summed.
    """
    levels = book.first(ASK, 10) + book.first(BID, 10)
    return crc32("".join([level[2] for level in levels]).encode())


def _order(kind: object) -> str | None:
    """The order's type, as JSON."""
    if kind is None:
        return None
    return _ORDERS.get(str(kind)) or orjson.dumps({"ord_type": kind}).decode()


def _rows(body: Body) -> tuple[list[Any], int]:
    """Rows of an answer of `Trades`, and the time that its next page begins at."""
    said = orjson.loads(_TIMES.sub(rb',"\1",', body.text))
    if errors := said["error"]:
        reason = ", ".join(str(error) for error in errors)
        if "Too many" in reason or "Rate limit" in reason or "Throttled" in reason:
            raise Busy(reason, 15.0)
        if "Unavailable" in reason or "Busy" in reason:
            raise Busy(reason, 5.0)
        raise Refused(f"Kraken's history says no: {reason}")
    result = said["result"]
    rows = [row for name, part in result.items() if name != "last" for row in part]
    return rows, int(result["last"])


def _page(body: Body, symbol: str, rows: Sequence[Any]) -> Parsed:
    out = Parsed()
    for row in rows:
        frame = Frame(0, body.received, orjson.dumps(row))
        try:
            seconds, _, fraction = text(row[2], "time").partition(".")
            trade = Trade(
                symbol,
                whole(row[6], "trade_id"),
                int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9]),
                text(row[0], "price"),
                text(row[1], "volume"),
                _SIDES[row[3]],
                None,
                _order(row[4] or None),
            )
        except UNREADABLE as error:
            out.reject(frame, "trades", f"a trade cannot be read: {describe(error)}")
        else:
            out.trade(trade, frame)
    return out


VENUE: Final = Kraken
"""What `k2.feeds.live` opens by the name of this file."""

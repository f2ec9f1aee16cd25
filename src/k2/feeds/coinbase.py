"""Coinbase, live: `coinbase:BTC-USD,ETH-USD[?ws=URL&rest=URL&kinds=trades,quotes&stale=30]`.

Quotes are the best levels of a book kept from `level2` (the ticker tells them only when a trade
happens). Only the numbers of its messages prove it: one that is missing, or sides that cross, make
the connection be replaced. L2: with `books=raw` every change of a book is a quote record whose
`vendor_data` holds the venue's own event; a snapshot begins each connection.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from k2.feeds.live.book import ASK, BID, NO_LEVEL, Book
from k2.feeds.live.feed import open_live
from k2.feeds.live.options import Asked
from k2.feeds.live.venue import (
    LOST,
    UNREADABLE,
    Answer,
    Body,
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
    nanoseconds,
    plain,
    text,
    whole,
)
from k2.feeds.port import Feed
from k2.model import Exchange

WS: Final = "wss://advanced-trade-ws.coinbase.com"
REST: Final = "https://api.exchange.coinbase.com"

PAGE: Final = 1000
SYMBOLS_A_CONNECTION: Final = 50

_CHANNELS: Final = {"trades": "market_trades", "quotes": "level2"}
_TAKER: Final = {"BUY": "BUY", "SELL": "SELL"}
_MAKER: Final = {"BUY": "SELL", "SELL": "BUY"}
_SIDES: Final = {"bid": BID, "offer": ASK}
_OTHERS: Final = ("heartbeats", "subscriptions")


def open_feed(rest: str, position: str | None, clock: Callable[[], datetime]) -> Feed:
    """The feed of `BTC-USD,ETH-USD?…`, at `position`; see `k2.feeds.live.options` for options."""
    return open_live("coinbase", rest, r"[A-Z0-9-]{3,40}", Coinbase, position, clock)


class Coinbase:
    """Coinbase Advanced Trade, as of 2026; its past from Coinbase Exchange, whose ids are the same.

    A trade: `{"channel":"market_trades","timestamp":"2026-01-05T08:00:00.125Z","sequence_num":7,
    "events":[{"type":"update","trades":[{"trade_id":"990000001","product_id":"BTC-USD","price":
    "91250.12","size":"0.0031","side":"BUY","time":"2026-01-05T08:00:00.121455Z"}]}]}`. `side` is
    taken for the maker's, as Coinbase Exchange says of the same trades: `side=taker` tells it
    otherwise.
    """

    quotes_are_numbered = False

    def __init__(self, asked: Asked) -> None:
        self.exchange = Exchange("coinbase", "crypto", "UTC", numbered=("trades",))
        self._asked = asked
        self._ws = asked.ws or WS
        self.rest = asked.rest or REST
        # The channel of heartbeats, asked for along with the others, speaks every second.
        self.limits = Limits(
            lifetime=asked.lifetime,
            silence=asked.stale,
            between_messages=0.15,
            between_requests=0.15,
        )

    def plans(self) -> Sequence[Plan]:
        """A connection for each fifty symbols."""
        symbols = self._asked.symbols
        step = SYMBOLS_A_CONNECTION
        return [self._plan(symbols[at : at + step]) for at in range(0, len(symbols), step)]

    def _plan(self, symbols: tuple[str, ...]) -> Plan:
        requests = [_request("heartbeats", ())]
        requests += [_request(_CHANNELS[kind], symbols) for kind in self._asked.kinds]
        return Plan(self._ws, tuple(requests), symbols)

    def parser(self, symbols: Sequence[str]) -> "CoinbaseParser":
        """A parser for a new connection, its books empty."""
        sides = _TAKER if self._asked.side == "taker" else _MAKER
        return CoinbaseParser(sides, self._asked.books)

    def answers(self, text: bytes) -> Sequence[Answer]:
        """`subscriptions` lists all that is subscribed; an error is `{"type":"error",…}`."""
        if b"subscriptions" not in text and b'"error"' not in text:
            return ()
        try:
            said = orjson.loads(text)
            if said.get("type") == "error":
                return (Answer("*", f"{said.get('message')} {said.get('reason', '')}".strip()),)
            if said["channel"] != "subscriptions":
                return ()
            return tuple(
                Answer(key)
                for event in said["events"]
                for channel, products in event["subscriptions"].items()
                for key in (channel, *(f"{channel} {product}" for product in products))
            )
        except UNREADABLE:
            return ()

    def history(self, get: Get, symbol: str, first: int, last: int, after: int) -> Iterator[Parsed]:
        """`trades` before an id, newest first: in steps from the oldest on."""
        while first <= last:
            end = min(first + PAGE, last + 1)
            asked = {"limit": str(end - first), "after": str(end)}
            yield _page(get(f"/products/{symbol}/trades", asked, {}), symbol)
            first = end

    def newest(self, get: Get, symbol: str) -> int | None:
        """By the first of the newest trades."""
        rows = orjson.loads(get(f"/products/{symbol}/trades", {"limit": "1"}, {}).text)
        return max((_id(row["trade_id"]) for row in rows), default=None)


class CoinbaseParser:
    """Reads the messages of one connection, and keeps its books; unknown keys mean nothing."""

    def __init__(self, sides: dict[str, str], raw: bool) -> None:
        self._side_of = sides
        self._raw = raw
        self._books: dict[str, Book] = {}
        self._told: dict[str, tuple[Any, Any]] = {}
        self._ordinals = Ordinals()
        self._last: int | None = None
        self._lost = False

    def parse(self, frame: Frame, out: Parsed) -> None:
        """Add what the frame says."""
        said = orjson.loads(frame.text)
        channel = said.get("channel")
        number = said.get("sequence_num")
        late = type(number) is int and not self._follows(number, frame, out)
        if channel == "market_trades":
            self._trades(said, frame, out)
        elif channel == "l2_data":
            if not late and not self._lost:
                self._book(said, number, frame, out)
        elif channel not in _OTHERS and said.get("type") != "error":
            out.reject(frame, "unknown", f"no message of a known kind: {channel!r}")

    def _follows(self, number: int, frame: Frame, out: Parsed) -> bool:
        """Whether the message is a new one; says so if others are missing before it."""
        if self._last is not None and number <= self._last:
            return False
        if self._last is not None and number > self._last + 1:
            self._lose(f"messages {self._last + 1} to {number - 1} are missing", frame, out)
        self._last = number
        return True

    def _lose(self, why: str, frame: Frame, out: Parsed) -> None:
        if not self._lost:
            self._lost = True
            out.notices.append(Notice(frame.connection, LOST, why))

    def _trades(self, said: dict[str, Any], frame: Frame, out: Parsed) -> None:
        live = False
        for event in said["events"]:
            live = live or event.get("type") == "update"
            found = []
            for item in event["trades"]:
                try:
                    found.append(self._trade(item))
                except UNREADABLE as error:
                    out.reject(frame, "trades", f"a trade cannot be read: {describe(error)}")
            # A message holds the newest first.
            for trade in sorted(found, key=_by_id):
                out.trade(trade, frame)
        if live:
            out.delays.append(frame.received - nanoseconds(said["timestamp"]) // 1000)

    def _trade(self, item: dict[str, Any]) -> Trade:
        return Trade(
            text(item["product_id"], "product_id"),
            _id(item["trade_id"]),
            nanoseconds(item["time"]),
            text(item["price"], "price"),
            text(item["size"], "size"),
            self._side_of[item["side"]],
        )

    def _book(self, said: dict[str, Any], number: object, frame: Frame, out: Parsed) -> None:
        for event in said["events"]:
            try:
                self._change(event, said, number, frame, out)
            except UNREADABLE as error:
                out.reject(frame, "quotes", f"a book cannot be read: {describe(error)}")
                self._lose("a change of a book cannot be read", frame, out)

    def _change(
        self, event: dict[str, Any], said: dict[str, Any], number: object, frame: Frame, out: Parsed
    ) -> None:
        symbol = text(event["product_id"], "product_id")
        at = said["timestamp"]
        snapshot = event["type"] == "snapshot"
        if snapshot:
            self._books[symbol] = Book()
            self._told.pop(symbol, None)
        book = self._books[symbol]
        for update in event["updates"]:
            price = plain(update["price_level"], "price_level")
            quantity = plain(update["new_quantity"], "new_quantity")
            book.set(_SIDES[update["side"]], price, quantity)
            if not snapshot:
                at = update.get("event_time", at)
        if book.is_crossed():
            self._lose(f"the book of {symbol} is crossed", frame, out)
            return
        best = book.best()
        if best == self._told.get(symbol) and not self._raw:
            return
        self._told[symbol] = best
        (bid, bid_size, _), (ask, ask_size, _) = (level or NO_LEVEL for level in best)
        when = nanoseconds(at)
        occurrence = self._ordinals.number(frame.received, (symbol, when, best, number))
        raw = orjson.dumps(event).decode() if self._raw else None
        sequence = None if number is None else whole(number, "sequence_num")
        out.quote(
            Quote(symbol, when, bid, bid_size, ask, ask_size, sequence, occurrence, raw), frame
        )


def _request(channel: str, symbols: tuple[str, ...]) -> Request:
    message: dict[str, Any] = {"type": "subscribe", "channel": channel}
    if symbols:
        message["product_ids"] = list(symbols)
    keys = frozenset(f"{channel} {symbol}" for symbol in symbols) or frozenset({channel})
    return Request(orjson.dumps(message).decode(), keys)


def _by_id(trade: Trade) -> int:
    return trade.trade_id


def _id(value: object) -> int:
    """A trade's id, which the stream writes as text and the history as number."""
    return whole(int(value) if type(value) is str else value, "trade_id")


def _page(body: Body, symbol: str) -> Parsed:
    """Trades of Coinbase Exchange, ascending; there, `side` is the maker's by its specification."""
    out = Parsed()
    for row in reversed(orjson.loads(body.text)):
        frame = Frame(0, body.received, orjson.dumps(row))
        try:
            trade = Trade(
                symbol,
                _id(row["trade_id"]),
                nanoseconds(row["time"]),
                text(row["price"], "price"),
                text(row["size"], "size"),
                _MAKER[text(row["side"], "side").upper()],
            )
        except UNREADABLE as error:
            out.reject(frame, "trades", f"a trade cannot be read: {describe(error)}")
        else:
            out.trade(trade, frame)
    return out


VENUE: Final = Coinbase
"""What `k2.feeds.live` opens by the name of this file."""

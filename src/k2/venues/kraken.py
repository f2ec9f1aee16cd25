"""Kraken's WebSocket v2, as its API reference of 2026 has it.

For example `{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":
91250.1,"qty":0.00420000,"ord_type":"market","trade_id":71000001,"timestamp":"…Z"}]}`: numbers are
JSON numbers with the pair's digits.
"""

import zlib
from collections.abc import Collection, Iterator
from typing import Any, Final

import orjson

from k2.venues.book import Levels
from k2.venues.events import Event, Quote, Symbol, Trade
from k2.venues.floor import Floor
from k2.venues.kraken_rest import QUANTITY_DIGITS, Rest, instruments
from k2.venues.port import Answer, Message, Request
from k2.venues.text import decimal_text, iso_text

SYMBOLS: Final = ("BTC/USD", "ETH/USD")
SOCKET_PATH: Final = "/v2"
FIRST_TRADE: Final = 71_000_000
FIRST_UPDATE: Final = 0

DEPTHS: Final = (10, 25, 100, 500, 1_000)
_CHANNELS: Final = ("trade", "book", "ticker", "instrument")
_SECOND: Final = 1_000_000
_SNAPSHOT_TRADES: Final = 50


def open_dialect(floor: Floor) -> "Kraken":
    """Kraken over a floor whose ids begin at `FIRST_TRADE`."""
    return Kraken(floor)


class Kraken:
    """All pairs' channels; a stream is `channel:pair`, of books `book-depth:pair`, of tickers
    that follow the best prices `ticker-bbo:pair`.
    """

    ping_seconds: float | None = None
    messages_a_second: int | None = None
    most_seconds: float | None = None
    silent_seconds: float | None = 60.0

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._rest = Rest(floor)
        self._open_orders: dict[int, list[Trade]] = {}

    def hear_event(self, event: Event, wanted: Collection[str]) -> Iterator[Message]:
        """Everything at once."""
        symbol = self._floor.symbols[event.symbol]
        if isinstance(event, Trade):
            if (stream := f"trade:{symbol.name}") in wanted:
                fills = [*self._open_orders.pop(event.symbol, ()), event]
                # All fills of a market order come in one message.
                if (event.number - FIRST_TRADE) % 4 == 1:
                    self._open_orders[event.symbol] = fills
                else:
                    body = trade_text("update", fills, symbol)
                    numbers = (fills[0].number, event.number)
                    yield Message(stream, "trades", event.symbol, event.time, body, *numbers)
            if (stream := f"ticker:{symbol.name}") in wanted:
                body = ticker_text(self._floor, symbol, "update", event.time)
                yield Message(stream, "quotes", event.symbol, event.time, body)
            return
        if (stream := f"ticker-bbo:{symbol.name}") in wanted:
            body = ticker_text(self._floor, symbol, "update", event.time)
            yield Message(stream, "quotes", event.symbol, event.time, body)
        yield from self._books(event, symbol, wanted)

    def hear_time(self, now: int, wanted: Collection[str]) -> Iterator[Message]:
        """Nothing."""
        yield from ()

    def open_talk(self, request: Request, number: int) -> "KrakenTalk | None":
        """A connection at /v2."""
        return KrakenTalk(self._floor, number) if request.path == "/v2" else None

    def answer(self, request: Request, now: int) -> Answer:
        """What is below /0/public/."""
        return self._rest.answer(request, now)

    def _books(self, quote: Quote, symbol: Symbol, wanted: Collection[str]) -> Iterator[Message]:
        book = self._floor.books[symbol.place]
        for depth in DEPTHS:
            if (stream := f"book-{depth}:{symbol.name}") not in wanted:
                continue
            sides = (book.bids.changes_within(depth), book.asks.changes_within(depth))
            check = checksum(book.bids.top(10), book.asks.top(10), symbol)
            body = book_text("update", symbol, *sides, check, quote.time)
            yield Message(stream, "book", symbol.place, quote.time, body)


class KrakenTalk:
    """A connection to Kraken."""

    def __init__(self, floor: Floor, number: int) -> None:
        self.streams: set[str] = set()
        self._floor = floor
        self._number = number
        self._next_beat = 0

    def opened(self, now: int) -> list[str]:
        """The status of the venue."""
        return [self._status("online")]

    def hear(self, text: str, now: int) -> list[str]:
        """An acknowledgement for each symbol, followed by its snapshot."""
        try:
            asked = orjson.loads(text)
        except orjson.JSONDecodeError:
            asked = None
        if not isinstance(asked, dict):
            return [_failure("Malformed request", "", now, {})]
        method, number = asked.get("method"), _number_of(asked)
        if method == "ping":
            return [_dumps({"method": "pong", **number, **_times(now)})]
        params = asked.get("params")
        if method not in ("subscribe", "unsubscribe") or not isinstance(params, dict):
            return [_failure("Unsupported method", str(method), now, number)]
        channel = params.get("channel")
        if channel not in _CHANNELS:
            return [_failure("Unsupported channel", method, now, number)]
        if channel == "book" and params.get("depth", 10) not in DEPTHS:
            return [_failure("Subscription depth not supported", method, now, number)]
        if channel == "instrument":
            return self._follow(method, "instrument", params, None, now, number)
        symbols = params.get("symbol")
        if not isinstance(symbols, list) or not symbols:
            return [_failure("Symbol(s) not found", method, now, number)]
        found: list[str] = []
        for name in symbols:
            index = self._floor.index.get(name) if isinstance(name, str) else None
            if index is None:
                unknown = {"symbol": name, **number}
                found.append(_failure(f"Currency pair not supported {name}", method, now, unknown))
            else:
                symbol = self._floor.symbols[index]
                found += self._follow(method, channel, params, symbol, now, number)
        return found

    def refuse(self, text: str, now: int) -> list[str]:
        """An error that has nothing to do with the request, under the request's number."""
        try:
            asked = orjson.loads(text)
        except orjson.JSONDecodeError:
            asked = {}
        return [_failure("Exceeded msg rate", "subscribe", now, _number_of(asked))]

    def say(self, message: Message) -> str:
        """The body: nothing in it belongs to the connection."""
        self._next_beat = message.time + _SECOND
        return message.body

    def pulse(self, now: int) -> list[str]:
        """A heartbeat after each second in which nothing else was said."""
        if not self.streams or now < self._next_beat:
            return []
        self._next_beat = now + _SECOND
        return ['{"channel":"heartbeat"}']

    def notice(self, now: int) -> list[str]:
        """The status, which is maintenance now."""
        return [self._status("maintenance")]

    def unknown(self, now: int) -> list[str]:
        """A channel that Kraken does not have."""
        return ['{"channel":"tide","type":"update","data":[{"tide":7}]}']

    def _status(self, system: str) -> str:
        found = {
            "system": system,
            "api_version": "v2",
            "connection_id": 17_000_000_000_000_000_000 + self._number,
            "version": "2.0.10",
        }
        return _dumps({"channel": "status", "type": "update", "data": [found]})

    def _follow(
        self,
        method: str,
        channel: str,
        params: dict[str, Any],
        symbol: Symbol | None,
        now: int,
        number: dict[str, Any],
    ) -> list[str]:
        result: dict[str, Any] = {"channel": channel}
        kind = channel
        if channel == "book":
            result["depth"] = params.get("depth", 10)
            kind = f"book-{result['depth']}"
        elif channel == "ticker":
            result["event_trigger"] = params.get("event_trigger", "trades")
            kind = "ticker-bbo" if result["event_trigger"] == "bbo" else "ticker"
        # Trades are the one channel whose snapshot must be asked for.
        snapshot = bool(params.get("snapshot", channel != "trade"))
        if method == "subscribe":
            result["snapshot"] = snapshot
        stream = f"{kind}:{symbol.name if symbol else ''}"
        if symbol:
            result["symbol"] = symbol.name
        success = {"method": method, "result": result, "success": True}
        acknowledged = _dumps({**success, **number, **_times(now)})
        if method == "unsubscribe":
            self.streams.discard(stream)
            return [acknowledged]
        if stream in self.streams:
            return [_failure("Already subscribed", method, now, number)]
        self.streams.add(stream)
        return [acknowledged, *([self._snapshot(channel, symbol, result, now)] * snapshot)]

    def _snapshot(
        self, channel: str, symbol: Symbol | None, result: dict[str, Any], now: int
    ) -> str:
        if symbol is None:
            data = instruments(self._floor)
            return f'{{"channel":"instrument","type":"snapshot","data":{data}}}'
        if channel == "trade":
            trades = self._floor.histories[symbol.place].last(_SNAPSHOT_TRADES)
            return trade_text("snapshot", trades, symbol)
        if channel == "ticker":
            return ticker_text(self._floor, symbol, "snapshot", now)
        _, time, bids, asks = self._floor.snapshot(symbol.place, result["depth"])
        check = checksum(bids[:10], asks[:10], symbol)
        return book_text("snapshot", symbol, bids, asks, check, time)


def trade_text(kind: str, trades: list[Trade], symbol: Symbol) -> str:
    """A message of the trade channel."""
    rows = ",".join(
        f'{{"symbol":"{symbol.name}","side":"{"buy" if trade.is_buy else "sell"}",'
        f'"price":{decimal_text(trade.price, symbol.price_digits)},'
        f'"qty":{decimal_text(trade.quantity, QUANTITY_DIGITS)},'
        f'"ord_type":"{"limit" if trade.number % 3 else "market"}",'
        f'"trade_id":{trade.number},"timestamp":"{iso_text(trade.time)}"}}'
        for trade in trades
    )
    return f'{{"channel":"trade","type":"{kind}","data":[{rows}]}}'


def book_text(kind: str, symbol: Symbol, bids: Levels, asks: Levels, check: int, time: int) -> str:
    """A message of the book channel; a quantity of 0 removes a level."""
    sides = [
        ",".join(
            f'{{"price":{decimal_text(price, symbol.price_digits)},'
            f'"qty":{decimal_text(quantity, QUANTITY_DIGITS)}}}'
            for price, quantity in levels
        )
        for levels in (bids, asks)
    ]
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{symbol.name}",'
        f'"bids":[{sides[0]}],"asks":[{sides[1]}],'
        f'"checksum":{check},"timestamp":"{iso_text(time)}"}}]}}'
    )


def checksum(bids: Levels, asks: Levels, symbol: Symbol) -> int:
    """CRC32 over the ten best asks, then the ten best bids, best first: of each level price and
    quantity at the pair's digits, without the point and without zeros before.
    """
    parts = [
        decimal_text(number, digits).replace(".", "").lstrip("0")
        for levels in (asks, bids)
        for price, quantity in levels
        for number, digits in ((price, symbol.price_digits), (quantity, QUANTITY_DIGITS))
    ]
    return zlib.crc32("".join(parts).encode())


def ticker_text(floor: Floor, symbol: Symbol, kind: str, time: int) -> str:
    """A message of the ticker channel."""
    day, book = floor.days[symbol.place], floor.books[symbol.place]
    ((bid, bid_quantity),) = book.bids.top(1) or [(0, 0)]
    ((ask, ask_quantity),) = book.asks.top(1) or [(0, 0)]
    prices = {"bid": bid, "ask": ask, "last": day.last, "vwap": day.vwap}
    prices |= {"low": day.low, "high": day.high, "change": day.last - day.first}
    quantities = {"bid_qty": bid_quantity, "ask_qty": ask_quantity, "volume": day.volume}
    numbers = ",".join(
        f'"{name}":{decimal_text(value, digits)}'
        for found, digits in ((prices, symbol.price_digits), (quantities, QUANTITY_DIGITS))
        for name, value in found.items()
    )
    return (
        f'{{"channel":"ticker","type":"{kind}","data":[{{"symbol":"{symbol.name}",{numbers},'
        f'"change_pct":{decimal_text(day.change_percent, 2)},"timestamp":"{iso_text(time)}"}}]}}'
    )


def _times(now: int) -> dict[str, str]:
    return {"time_in": iso_text(now), "time_out": iso_text(now + 50)}


def _number_of(asked: object) -> dict[str, Any]:
    found = asked.get("req_id") if isinstance(asked, dict) else None
    return {} if found is None else {"req_id": found}


def _failure(error: str, method: str, now: int, besides: dict[str, Any]) -> str:
    return _dumps({"error": error, "method": method, "success": False, **besides, **_times(now)})


def _dumps(found: object) -> str:
    return orjson.dumps(found).decode()

"""Binance spot's sockets, as its "WebSocket streams" document of July 2026 has them.

For example `{"e":"trade","E":1767600000123,"s":"BTCUSDT","t":5100000001,"p":"91250.10000000",
"q":"0.00420000","T":1767600000121,"m":true,"M":true}` on /ws/btcusdt@trade.
"""

from collections.abc import Collection, Iterator
from typing import Any, Final

import orjson

from k2.venues.binance_rest import Rest
from k2.venues.book import Levels
from k2.venues.events import Event, Quote, Trade
from k2.venues.floor import Floor, order_of
from k2.venues.port import Answer, Message, Request
from k2.venues.text import decimal_text

SYMBOLS: Final = ("BTCUSDT", "ETHUSDT")
SOCKET_PATH: Final = ""
FIRST_TRADE: Final = 5_100_000_000
FIRST_UPDATE: Final = 88_000_000_000
FIRST_AGGREGATE: Final = 3_300_000_000

MOST_STREAMS: Final = 1_024
_METHODS: Final = (
    *("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY"),
)
_PERIODS: Final = {"@100ms": 100_000, "": 1_000_000}
"""How often a depth stream is told, in microseconds, by the end of its name."""


def open_dialect(floor: Floor) -> "Binance":
    """Binance over a floor whose ids begin at `FIRST_TRADE` and `FIRST_UPDATE`."""
    return Binance(floor)


class Binance:
    """All symbols' streams. A stream in microseconds is another stream, named with `#us`."""

    ping_seconds: float | None = 20.0
    messages_a_second: int | None = 5
    most_seconds: float | None = 86_400.0
    silent_seconds: float | None = None

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._rest = Rest(floor, FIRST_TRADE, FIRST_AGGREGATE)
        self._open_orders: dict[int, Trade] = {}
        self._depths = [
            _Depth(floor, symbol.place, ending, period, unit)
            for symbol in floor.symbols
            for ending, period in _PERIODS.items()
            for unit in ("", "#us")
        ]

    def hear_event(self, event: Event, wanted: Collection[str]) -> Iterator[Message]:
        """Trades, aggregated trades and best prices; changes of books are gathered."""
        symbol = self._floor.symbols[event.symbol]
        low = symbol.name.lower()
        if isinstance(event, Quote):
            stream = f"{low}@bookTicker"
            for key in (stream, f"{stream}#us"):
                if key in wanted:
                    body = _book_ticker(event, symbol.name)
                    yield Message(key, "quotes", event.symbol, event.time, body)
            for depth in self._depths:
                if depth.symbol == event.symbol:
                    depth.add(wanted)
            return
        order = order_of(event.number - FIRST_TRADE)
        first = self._first_fill(event)
        for unit in ("", "#us"):
            if (key := f"{low}@trade{unit}") in wanted:
                body = _trade(event, symbol.name, unit)
                numbers = (event.number, event.number)
                yield Message(key, "trades", event.symbol, event.time, body, *numbers)
            if first and (key := f"{low}@aggTrade{unit}") in wanted:
                body = _aggregate(first, event, symbol.name, FIRST_AGGREGATE + order, unit)
                numbers = (first.number, event.number)
                yield Message(key, "trades", event.symbol, event.time, body, *numbers)

    def hear_time(self, now: int, wanted: Collection[str]) -> Iterator[Message]:
        """Changes of books, gathered for 100 or 1,000 ms, and the best levels as often."""
        for depth in self._depths:
            yield from depth.flush(now, wanted)

    def open_talk(self, request: Request, number: int) -> "BinanceTalk | None":
        """A connection at /ws, /ws/<stream>[/<stream>…] or /stream?streams=a/b."""
        path = request.path.strip("/").split("/")
        unit = "#us" if request.query.get("timeUnit", "").upper() == "MICROSECOND" else ""
        if path[0] == "ws":
            return BinanceTalk(path[1:], combined=False, unit=unit)
        if path == ["stream"]:
            streams = [name for name in request.query.get("streams", "").split("/") if name]
            return BinanceTalk(streams, combined=True, unit=unit)
        return None

    def answer(self, request: Request, now: int) -> Answer:
        """What is below /api/v3/."""
        return self._rest.answer(request, now)

    def _first_fill(self, trade: Trade) -> Trade | None:
        """The first fill of the order that this trade completes; None if it does not yet."""
        if (trade.number - FIRST_TRADE) % 4 == 1:
            self._open_orders[trade.symbol] = trade
            return None
        if (trade.number - FIRST_TRADE) % 4 == 2:
            return self._open_orders.pop(trade.symbol, trade)
        return trade


class BinanceTalk:
    """A connection to Binance: what it follows, raw or combined."""

    def __init__(self, streams: list[str], *, combined: bool, unit: str) -> None:
        self.streams: set[str] = {stream + unit for stream in streams}
        self._combined = combined
        self._unit = unit

    def opened(self, now: int) -> list[str]:
        """Nothing."""
        return []

    def hear(self, text: str, now: int) -> list[str]:
        """The answer to one request in JSON."""
        try:
            asked = orjson.loads(text)
        except orjson.JSONDecodeError:
            return [_failure(3, "Invalid JSON: expected value at line 1 column 1", None)]
        if not isinstance(asked, dict):
            return [_failure(2, "Invalid request: not an object", None)]
        number, method, params = asked.get("id"), asked.get("method"), asked.get("params", [])
        if isinstance(number, bool) or not isinstance(number, int | str | None):
            return [_failure(2, "Invalid request: request ID must be an unsigned integer", None)]
        if method not in _METHODS:
            names = ", ".join(f"`{name}`" for name in _METHODS)
            found = f"unknown variant `{method}`, expected one of {names}"
            return [_failure(2, f"Invalid request: {found}", number)]
        if not isinstance(params, list):
            return [_failure(2, "Invalid request: params must be a list", number)]
        if method.endswith("PROPERTY"):
            return [self._property(method, params, number)]
        if method == "LIST_SUBSCRIPTIONS":
            streams = sorted(stream.removesuffix("#us") for stream in self.streams)
            return [_result(streams, number)]
        if not params or not all(isinstance(name, str) and "@" in name for name in params):
            return [_failure(2, "Invalid request: a stream is <symbol>@<stream>", number)]
        named = {name + self._unit for name in params}
        after = self.streams | named if method == "SUBSCRIBE" else self.streams - named
        if len(after) > MOST_STREAMS:
            return [_failure(2, f"Invalid request: more than {MOST_STREAMS} streams", number)]
        self.streams = after
        return [_result(None, number)]

    def refuse(self, text: str, now: int) -> list[str]:
        """An error that has nothing to do with the request, under the request's id."""
        try:
            number = orjson.loads(text).get("id")
        except (orjson.JSONDecodeError, AttributeError):
            number = None
        return [_failure(2, "Invalid request: unknown stream", number)]

    def say(self, message: Message) -> str:
        """The body, wrapped with its stream's name on a combined connection."""
        return self._wrap(message.stream.removesuffix("#us"), message.body)

    def pulse(self, now: int) -> list[str]:
        """Nothing: Binance pings."""
        return []

    def notice(self, now: int) -> list[str]:
        """The event serverShutdown."""
        return [self._wrap("!serverShutdown", f'{{"e":"serverShutdown","E":{self._time(now)}}}')]

    def unknown(self, now: int) -> list[str]:
        """An event that Binance does not have."""
        body = f'{{"e":"tideUpdate","E":{self._time(now)},"s":"BTCUSDT","x":"7"}}'
        return [self._wrap("btcusdt@tide", body)]

    def _time(self, now: int) -> int:
        return now if self._unit else now // 1_000

    def _wrap(self, stream: str, body: str) -> str:
        return f'{{"stream":"{stream}","data":{body}}}' if self._combined else body

    def _property(self, method: str, params: list[Any], number: int | str | None) -> str:
        if not params or params[0] != "combined":
            return _failure(0, "Unknown property", number)
        if method == "GET_PROPERTY":
            return _result(self._combined, number)
        if len(params) != 2 or not isinstance(params[1], bool):
            return _failure(1, "Invalid value type: expected Boolean", number)
        self._combined = params[1]
        return _result(None, number)


class _Depth:
    """The depth streams of one symbol that are told at one pace in one unit of time."""

    def __init__(self, floor: Floor, symbol: int, ending: str, period: int, unit: str) -> None:
        self.symbol = symbol
        self._book = floor.books[symbol]
        self._name = floor.symbols[symbol].name
        low = self._name.lower()
        self._period, self._unit = period, unit
        self._diff = f"{low}@depth{ending}{unit}"
        self._tops = {f"{low}@depth{n}{ending}{unit}": n for n in (5, 10, 20)}
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}
        self._first = self._told = 0
        self._next = 0

    def add(self, wanted: Collection[str]) -> None:
        """Gather the book's last change, if anybody follows the changes."""
        if self._diff not in wanted:
            self._first = 0
            self._bids.clear()
            self._asks.clear()
            return
        self._first = self._first or self._book.update
        self._bids.update(self._book.bids.changes)
        self._asks.update(self._book.asks.changes)

    def flush(self, now: int, wanted: Collection[str]) -> Iterator[Message]:
        """What is due by now."""
        if now < self._next:
            return
        self._next = now + self._period
        if self._first and self._diff in wanted:
            body = self._changes(now)
            yield Message(self._diff, "book", self.symbol, now, body)
        self._first = 0
        self._bids.clear()
        self._asks.clear()
        if self._told == self._book.update:
            return
        self._told = self._book.update
        for stream, levels in self._tops.items():
            if stream in wanted:
                update, _, bids, asks = self._book.snapshot(levels)
                sides = f'"bids":{pairs(bids)},"asks":{pairs(asks)}'
                body = f'{{"lastUpdateId":{update},{sides}}}'
                yield Message(stream, "book", self.symbol, now, body)

    def _changes(self, now: int) -> str:
        time = now if self._unit else now // 1_000
        bids = pairs(sorted(self._bids.items(), reverse=True))
        asks = pairs(sorted(self._asks.items()))
        return (
            f'{{"e":"depthUpdate","E":{time},"s":"{self._name}","U":{self._first},'
            f'"u":{self._book.update},"b":{bids},"a":{asks}}}'
        )


def pairs(levels: Levels) -> str:
    """Levels as a JSON list of pairs of texts."""
    return "[" + ",".join(f'["{decimal_text(p)}","{decimal_text(q)}"]' for p, q in levels) + "]"


def _trade(trade: Trade, name: str, unit: str) -> str:
    time = trade.time if unit else trade.time // 1_000
    return (
        f'{{"e":"trade","E":{time},"s":"{name}","t":{trade.number},'
        f'"p":"{decimal_text(trade.price)}","q":"{decimal_text(trade.quantity)}",'
        # The buyer is the maker when the aggressor sold.
        f'"T":{time},"m":{"false" if trade.is_buy else "true"},"M":true}}'
    )


def _aggregate(first: Trade, last: Trade, name: str, number: int, unit: str) -> str:
    time = first.time if unit else first.time // 1_000
    quantity = last.quantity + (first.quantity if first is not last else 0)
    return (
        f'{{"e":"aggTrade","E":{time},"s":"{name}","a":{number},'
        f'"p":"{decimal_text(first.price)}","q":"{decimal_text(quantity)}",'
        f'"f":{first.number},"l":{last.number},'
        f'"T":{time},"m":{"false" if last.is_buy else "true"},"M":true}}'
    )


def _book_ticker(quote: Quote, name: str) -> str:
    return (
        f'{{"u":{quote.number},"s":"{name}",'
        f'"b":"{decimal_text(quote.bid)}","B":"{decimal_text(quote.bid_quantity)}",'
        f'"a":"{decimal_text(quote.ask)}","A":"{decimal_text(quote.ask_quantity)}"}}'
    )


def _result(result: object, number: int | str | None) -> str:
    return orjson.dumps({"result": result, "id": number}).decode()


def _failure(code: int, message: str, number: int | str | None) -> str:
    return orjson.dumps({"error": {"code": code, "msg": message}, "id": number}).decode()

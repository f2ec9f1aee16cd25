"""Coinbase's Advanced Trade socket, as its AsyncAPI file of 2026 has it, and trades by REST.

For example `{"channel":"market_trades","client_id":"","timestamp":"…Z","sequence_num":7,"events":
[{"type":"update","trades":[{"trade_id":"990000001","product_id":"BTC-USD","price":"91250.12",
"size":"0.0031","side":"BUY","time":"2026-01-05T08:00:00.121455Z"}]}]}`. The side is the maker's.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

import orjson

from k2.venues.book import LEVELS, Levels
from k2.venues.coinbase_rest import Rest
from k2.venues.events import Event, Symbol, Trade
from k2.venues.floor import Floor
from k2.venues.port import Answer, Message, Request
from k2.venues.text import decimal_text, iso_text, short_text

SYMBOLS: Final = ("BTC-USD", "ETH-USD")
SOCKET_PATH: Final = ""
FIRST_TRADE: Final = 990_000_000
FIRST_UPDATE: Final = 0

_CHANNELS: Final = ("market_trades", "ticker", "level2", "heartbeats")
_GATHERED: Final = {"market_trades": 250_000, "level2": 50_000}
"""For how long a channel's updates are gathered, in microseconds."""
_SECOND: Final = 1_000_000
_SNAPSHOT_TRADES: Final = 50


def open_dialect(floor: Floor) -> "Coinbase":
    """Coinbase over a floor whose ids begin at `FIRST_TRADE`."""
    return Coinbase(floor)


class Coinbase:
    """All products' channels; a stream is `channel:product`."""

    ping_seconds: float | None = None
    messages_a_second: int | None = 8
    most_seconds: float | None = None
    silent_seconds: float | None = 5.0

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._rest = Rest(floor)
        self._trades: dict[int, list[Trade]] = {}
        self._levels: dict[int, list[dict[int, int]]] = {}
        self._next = dict.fromkeys(_GATHERED, 0)

    def hear_event(self, event: Event, wanted: Collection[str]) -> Iterator[Message]:
        """A ticker at each trade; trades and changes of the book are gathered."""
        symbol = self._floor.symbols[event.symbol]
        if isinstance(event, Trade):
            if f"market_trades:{symbol.name}" in wanted:
                self._trades.setdefault(event.symbol, []).append(event)
            if (stream := f"ticker:{symbol.name}") in wanted:
                body = ticker_event(self._floor, symbol, "update")
                yield Message(stream, "quotes", event.symbol, event.time, body)
        elif f"level2:{symbol.name}" in wanted:
            book = self._floor.books[event.symbol]
            bids, asks = self._levels.setdefault(event.symbol, [{}, {}])
            bids.update(book.bids.changes)
            asks.update(book.asks.changes)
        else:
            # What was gathered before a change that nobody hears of is old by the next one.
            self._levels.pop(event.symbol, None)

    def hear_time(self, now: int, wanted: Collection[str]) -> Iterator[Message]:
        """Trades of the last 250 ms, and changes of books of the last 50."""
        if now >= self._next["market_trades"]:
            self._next["market_trades"] = now + _GATHERED["market_trades"]
            for index, trades in self._trades.items():
                symbol = self._floor.symbols[index]
                body = trades_event("update", trades, symbol)
                numbers = (trades[0].number, trades[-1].number)
                yield Message(f"market_trades:{symbol.name}", "trades", index, now, body, *numbers)
            self._trades.clear()
        if now >= self._next["level2"]:
            self._next["level2"] = now + _GATHERED["level2"]
            for index, (bids, asks) in self._levels.items():
                symbol, time = self._floor.symbols[index], self._floor.books[index].time
                body = level_event("update", symbol, time, list(bids.items()), list(asks.items()))
                yield Message(f"level2:{symbol.name}", "book", index, now, body)
            self._levels.clear()

    def open_talk(self, request: Request, number: int) -> "CoinbaseTalk | None":
        """A connection at /."""
        return CoinbaseTalk(self._floor) if request.path in ("/", "/ws") else None

    def answer(self, request: Request, now: int) -> Answer:
        """The Exchange's /products/{id}/trades, paged, and what else is public and of use."""
        return self._rest.answer(request, now)


class CoinbaseTalk:
    """A connection to Coinbase. Its messages are numbered from 0 over all channels."""

    def __init__(self, floor: Floor) -> None:
        self.streams: set[str] = set()
        self._floor = floor
        self._sequence = 0
        self._beats = 0
        self._next_beat = 0

    def opened(self, now: int) -> list[str]:
        """Nothing."""
        return []

    def hear(self, text: str, now: int) -> list[str]:
        """Snapshots of what is followed anew, and then what is followed altogether."""
        try:
            asked = orjson.loads(text)
        except orjson.JSONDecodeError:
            return [_failure("failed to parse the message")]
        if not isinstance(asked, dict) or asked.get("type") not in ("subscribe", "unsubscribe"):
            return [_failure("type must be subscribe or unsubscribe")]
        channel, products = asked.get("channel"), asked.get("product_ids", [])
        if channel not in _CHANNELS:
            return [_failure(f"unknown channel {channel!r}")]
        if not isinstance(products, list) or not all(p in self._floor.index for p in products):
            return [_failure("invalid product ids")]
        if not products and channel != "heartbeats":
            return [_failure("product_ids are missing")]
        names = products if channel != "heartbeats" else [""]
        streams = {f"{channel}:{name}" for name in names}
        if asked["type"] == "unsubscribe":
            self.streams -= streams
            return [self._subscriptions(now)]
        new = sorted(streams - self.streams)
        self.streams |= streams
        snapshots = [self._snapshot(stream, now) for stream in new]
        return [*(text for text in snapshots if text), self._subscriptions(now)]

    def refuse(self, text: str, now: int) -> list[str]:
        """An error, which does not say what it answers."""
        return [_failure("authentication failure")]

    def say(self, message: Message) -> str:
        """The message's event in this connection's envelope."""
        channel = message.stream.partition(":")[0]
        return self._envelope(channel, message.time, message.body)

    def pulse(self, now: int) -> list[str]:
        """A heartbeat a second, if they are followed."""
        if "heartbeats:" not in self.streams or now < self._next_beat:
            return []
        self._next_beat = now + _SECOND
        self._beats += 1
        # As the true venue prints it: not the format of its other times.
        current = iso_text(now)[:-1].replace("T", " ") + "000 +0000 UTC"
        beat = f'{{"current_time":"{current}","heartbeat_counter":{self._beats}}}'
        return [self._envelope("heartbeats", now, beat)]

    def notice(self, now: int) -> list[str]:
        """Nothing: Coinbase closes without a word."""
        return []

    def unknown(self, now: int) -> list[str]:
        """A channel that Coinbase does not have."""
        return [self._envelope("tides", now, '{"type":"update","tide":"7"}')]

    def _envelope(self, channel: str, time: int, event: str) -> str:
        name = "l2_data" if channel == "level2" else channel
        number, self._sequence = self._sequence, self._sequence + 1
        return (
            f'{{"channel":"{name}","client_id":"","timestamp":"{iso_text(time)}",'
            f'"sequence_num":{number},"events":[{event}]}}'
        )

    def _snapshot(self, stream: str, now: int) -> str | None:
        channel, _, name = stream.partition(":")
        if channel == "heartbeats":
            return None
        symbol = self._floor.symbols[self._floor.index[name]]
        if channel == "market_trades":
            # The newest first, as the true venue has them.
            trades = self._floor.histories[symbol.place].last(_SNAPSHOT_TRADES)[::-1]
            event = trades_event("snapshot", trades, symbol)
        elif channel == "ticker":
            event = ticker_event(self._floor, symbol, "snapshot")
        else:
            _, time, bids, asks = self._floor.snapshot(symbol.place, LEVELS)
            event = level_event("snapshot", symbol, time, bids, asks)
        return self._envelope(channel, now, event)

    def _subscriptions(self, now: int) -> str:
        found: dict[str, list[str]] = {}
        for stream in sorted(self.streams):
            channel, _, name = stream.partition(":")
            found.setdefault(channel, []).append(name or "heartbeats")
        event = orjson.dumps({"subscriptions": found}).decode()
        return self._envelope("subscriptions", now, event)


def trades_event(kind: str, trades: Iterable[Trade], symbol: Symbol) -> str:
    """An event of market_trades with these trades."""
    rows = ",".join(
        f'{{"trade_id":"{trade.number}","product_id":"{symbol.name}",'
        f'"price":"{decimal_text(trade.price, symbol.price_digits)}",'
        f'"size":"{short_text(trade.quantity)}","side":"{maker_side(trade).upper()}",'
        f'"time":"{iso_text(trade.time)}"}}'
        for trade in trades
    )
    return f'{{"type":"{kind}","trades":[{rows}]}}'


def level_event(kind: str, symbol: Symbol, time: int, bids: Levels, asks: Levels) -> str:
    """An event of level2 with these levels, quantities of 0 for those that are gone."""
    rows = ",".join(
        f'{{"side":"{side}","event_time":"{iso_text(time)}",'
        f'"price_level":"{decimal_text(price, symbol.price_digits)}",'
        f'"new_quantity":"{short_text(quantity)}"}}'
        for side, levels in (("bid", bids), ("offer", asks))
        for price, quantity in levels
    )
    return f'{{"type":"{kind}","product_id":"{symbol.name}","updates":[{rows}]}}'


def ticker_event(floor: Floor, symbol: Symbol, kind: str) -> str:
    """An event of ticker: the last price, the best prices, and the day."""
    day, book = floor.days[symbol.place], floor.books[symbol.place]
    ((bid, bid_quantity),) = book.bids.top(1) or [(0, 0)]
    ((ask, ask_quantity),) = book.asks.top(1) or [(0, 0)]
    digits = symbol.price_digits
    found: dict[str, Any] = {
        "type": "ticker",
        "product_id": symbol.name,
        "price": decimal_text(day.last, digits),
        "volume_24_h": short_text(day.volume),
        "low_24_h": decimal_text(day.low, digits),
        "high_24_h": decimal_text(day.high, digits),
        "low_52_w": decimal_text(day.low, digits),
        "high_52_w": decimal_text(day.high, digits),
        "price_percent_chg_24_h": decimal_text(day.change_percent),
        "best_bid": decimal_text(bid, digits),
        "best_bid_quantity": short_text(bid_quantity),
        "best_ask": decimal_text(ask, digits),
        "best_ask_quantity": short_text(ask_quantity),
    }
    return orjson.dumps({"type": kind, "tickers": [found]}).decode()


def maker_side(trade: Trade) -> str:
    """The side of the order that rested: the other one than the aggressor's."""
    return "sell" if trade.is_buy else "buy"


def _failure(message: str) -> str:
    return orjson.dumps({"type": "error", "message": message}).decode()

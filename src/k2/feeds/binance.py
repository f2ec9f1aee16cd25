"""Binance spot, live: `binance:BTCUSDT,ETHUSDT[?ws=URL&rest=URL&kinds=trades,quotes&stale=30]`.

Trades come from `<symbol>@trade`, quotes from `<symbol>@bookTicker`, whose update id `u` is their
`source_sequence`; it is not consecutive, so only a disconnect shows that quotes are missing. Spot
quotes carry no time: theirs is when they were received. L2: bookTicker has the best level only;
`<symbol>@depth@100ms` beside it is what a book would be built from.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from k2.feeds.live.feed import open_live
from k2.feeds.live.options import Asked
from k2.feeds.live.venue import (
    LEAVING,
    UNREADABLE,
    Answer,
    Body,
    Frame,
    Get,
    Limits,
    Notice,
    Parsed,
    Plan,
    Quote,
    Request,
    Trade,
    describe,
    text,
    whole,
)
from k2.feeds.port import Feed
from k2.model import Exchange

WS: Final = "wss://stream.binance.com:9443"
REST: Final = "https://api.binance.com"

LIFETIME: Final = 86_400.0
STREAMS_A_CONNECTION: Final = 1024
STREAMS_A_MESSAGE: Final = 200
PAGE: Final = 1000

_SUFFIXES: Final = {"trades": "@trade", "quotes": "@bookTicker"}
_MICROSECONDS: Final = {"X-MBX-TIME-UNIT": "MICROSECOND"}
# Times of 13 digits are milliseconds, of 16 microseconds: which of them is the server's choice.
_FIRST_MICROSECOND: Final = 10**14
_LAST_MICROSECOND: Final = 10**17


def open_feed(rest: str, position: str | None, clock: Callable[[], datetime]) -> Feed:
    """The feed of `BTCUSDT,ETHUSDT?…`, at `position`; see `k2.feeds.live.options` for options."""
    return open_live("binance", rest, r"[A-Z0-9]{2,30}", Binance, position, clock)


class Binance:
    """Binance's spot market: protocol of web-socket-streams.md, July 2026.

    A trade: `{"stream":"btcusdt@trade","data":{"e":"trade","E":1767600000123457,"s":"BTCUSDT",
    "t":5100000001,"p":"91250.10000000","q":"0.00420000","T":1767600000121455,"m":true,"M":true}}`;
    `m`: the buyer is the maker, so the aggressor sold. Its server hangs up after 24 hours.
    """

    quotes_are_numbered = True

    def __init__(self, asked: Asked) -> None:
        self.exchange = Exchange("binance", "crypto", "UTC", numbered=("trades",))
        self._asked = asked
        self._ws = asked.ws or WS
        self.rest = asked.rest or REST
        self.limits = Limits(
            lifetime=asked.lifetime or LIFETIME,
            silence=None,
            between_messages=0.25,
            between_requests=0.3,
        )

    def plans(self) -> Sequence[Plan]:
        """A connection for each 1,024 streams."""
        kinds = self._asked.kinds
        most = STREAMS_A_CONNECTION // len(kinds)
        symbols = self._asked.symbols
        parts = [symbols[at : at + most] for at in range(0, len(symbols), most)]
        return [self._plan(part) for part in parts]

    def _plan(self, symbols: tuple[str, ...]) -> Plan:
        streams = [s.lower() + _SUFFIXES[kind] for s in symbols for kind in self._asked.kinds]
        requests = []
        for number, at in enumerate(range(0, len(streams), STREAMS_A_MESSAGE), 1):
            part = streams[at : at + STREAMS_A_MESSAGE]
            message = {"method": "SUBSCRIBE", "params": part, "id": number}
            requests.append(Request(orjson.dumps(message).decode(), frozenset({str(number)})))
        return Plan(f"{self._ws}/stream?timeUnit=MICROSECOND", tuple(requests), symbols)

    def parser(self, symbols: Sequence[str]) -> "BinanceParser":
        """A parser for a new connection."""
        return BinanceParser()

    def answers(self, text: bytes) -> Sequence[Answer]:
        """`{"result":null,"id":1}`, `{"error":{"code":2,"msg":"…"},"id":1}` or `{"code":2,…}`."""
        if b'"id"' not in text and b'"code"' not in text:
            return ()
        try:
            said = orjson.loads(text)
            return (_answer(said),) if _is_answer(said) else ()
        except UNREADABLE:
            return ()

    def history(self, get: Get, symbol: str, first: int, last: int, after: int) -> Iterator[Parsed]:
        """`historicalTrades` from id to id."""
        while first <= last:
            limit = min(PAGE, last - first + 1)
            asked = {"symbol": symbol, "fromId": str(first), "limit": str(limit)}
            body = get("/api/v3/historicalTrades", asked, _MICROSECONDS)
            rows = orjson.loads(body.text)
            out = _page(body, symbol, rows)
            yield out
            if not out.trades:
                return
            first = out.trades[-1].trade_id + 1

    def newest(self, get: Get, symbol: str) -> int | None:
        """By `trades?limit=1`."""
        body = get("/api/v3/trades", {"symbol": symbol, "limit": "1"}, _MICROSECONDS)
        rows = orjson.loads(body.text)
        return max((whole(row["id"], "id") for row in rows), default=None)


class BinanceParser:
    """Reads raw and combined messages; unknown keys mean nothing."""

    def parse(self, frame: Frame, out: Parsed) -> None:
        """Add what the frame says."""
        said = orjson.loads(frame.text)
        stream = said.get("stream", "")
        if stream:
            said = said["data"]
        event = said.get("e")
        if event == "trade":
            try:
                self._trade(said, frame, out)
            except UNREADABLE as error:
                out.reject(frame, "trades", f"the trade cannot be read: {describe(error)}")
        elif "u" in said and "b" in said and (event is None or event == "bookTicker"):
            try:
                self._quote(said, frame, out)
            except UNREADABLE as error:
                out.reject(frame, "quotes", f"the quote cannot be read: {describe(error)}")
        elif event == "serverShutdown":
            out.notices.append(Notice(frame.connection, LEAVING, "the server shuts down"))
        elif not _is_answer(said):
            out.reject(frame, "unknown", f"no message of a known kind: {event or stream!r}")

    def _trade(self, said: dict[str, Any], frame: Frame, out: Parsed) -> None:
        when = _nanos(said["T"])
        maker = said["m"]
        if type(maker) is not bool:
            raise ValueError(f"m {maker!r} is neither true nor false")
        trade = Trade(
            text(said["s"], "s"),
            whole(said["t"], "t"),
            when,
            text(said["p"], "p"),
            text(said["q"], "q"),
            "SELL" if maker else "BUY",
        )
        out.trade(trade, frame)
        sent = said.get("E")
        if type(sent) is int:
            out.delays.append(frame.received - _nanos(sent) // 1000)

    def _quote(self, said: dict[str, Any], frame: Frame, out: Parsed) -> None:
        bid, ask = text(said["b"], "b"), text(said["a"], "a")
        bid_size, ask_size = text(said["B"], "B"), text(said["A"], "A")
        out.quote(
            Quote(
                text(said["s"], "s"),
                frame.received * 1000,
                bid,
                bid_size,
                ask,
                ask_size,
                whole(said["u"], "u"),
            ),
            frame,
        )


def _is_answer(said: dict[str, Any]) -> bool:
    return ("id" in said and ("result" in said or "error" in said)) or (
        "code" in said and "msg" in said
    )


def _answer(said: dict[str, Any]) -> Answer:
    # An error may come without an id: it answers whatever was asked.
    key = str(said.get("id", "*"))
    if "msg" in said or "error" in said:
        error = said.get("error", said)
        return Answer(key, f"{error['msg']} (code {error['code']})")
    result = said["result"]
    return Answer(key, None if result is None else f"the result is {result!r}, not null")


def _nanos(when: object) -> int:
    """Nanoseconds of a venue's time, in milliseconds or microseconds."""
    number = whole(when, "time")
    if number < _FIRST_MICROSECOND:
        return number * 1_000_000
    if number < _LAST_MICROSECOND:
        return number * 1_000
    raise ValueError(f"time {number} lies too far ahead")


def _page(body: Body, symbol: str, rows: list[dict[str, Any]]) -> Parsed:
    out = Parsed()
    for row in rows:
        frame = Frame(0, body.received, orjson.dumps(row))
        try:
            maker = row["isBuyerMaker"]
            if type(maker) is not bool:
                raise ValueError(f"isBuyerMaker {maker!r} is neither true nor false")
            trade = Trade(
                symbol,
                whole(row["id"], "id"),
                _nanos(row["time"]),
                text(row["price"], "price"),
                text(row["qty"], "qty"),
                "SELL" if maker else "BUY",
            )
        except UNREADABLE as error:
            out.reject(frame, "trades", f"the trade cannot be read: {describe(error)}")
        else:
            out.trade(trade, frame)
    return out


VENUE: Final = Binance
"""What `k2.feeds.live` opens by the name of this file."""

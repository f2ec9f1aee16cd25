"""Kraken's public REST below /0/public/: trades by a cursor of nanoseconds, books, pairs, time
(Spot REST reference, 2026). Failures come with status 200 and a text in `error`.
"""

from email.utils import formatdate
from typing import Any, Final

import orjson

from k2.venues.events import Trade
from k2.venues.floor import Floor
from k2.venues.limits import Allowance
from k2.venues.port import Answer, Request
from k2.venues.text import SCALE, decimal_text, iso_text

QUANTITY_DIGITS: Final = 8
"""Kraken counts all quantities in 1e-8."""

_MOST_ROWS: Final = 1_000
_BURST: Final = 30
"""Requests that a client may have made at once; one more is forgiven each second."""

_OLD_NAMES: Final = {"BTC": "XBT", "DOGE": "XDG"}
_WITH_PREFIX: Final = ("XBT", "ETH", "XRP", "XDG", "LTC", "XLM", "ETC")


class Rest:
    """Kraken's REST answers over a floor. A pair goes by any of its names, as at Kraken."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._pairs = {
            name: symbol.place for symbol in floor.symbols for name in _names(symbol.name)
        }
        self._allowance = Allowance(_BURST, 1)

    def answer(self, request: Request, now: int) -> Answer:
        """The answer; the limit on requests is told in `error`."""
        folder, _, name = request.path.rpartition("/")
        found = {
            "Time": self._time,
            "SystemStatus": self._status,
            "AssetPairs": self._asset_pairs,
            "Trades": self._trades,
            "Depth": self._depth,
        }.get(name)
        if folder != "/0/public" or found is None:
            return Answer('{"error":["EGeneral:Unknown method"]}')
        if not self._allowance.take(now):
            return Answer('{"error":["EGeneral:Too many requests"]}')
        return found(request, now)

    def _time(self, request: Request, now: int) -> Answer:
        return _result({"unixtime": now // 1_000_000, "rfc1123": formatdate(now // 1_000_000)})

    def _status(self, request: Request, now: int) -> Answer:
        return _result({"status": "online", "timestamp": iso_text(now)[:19] + "Z"})

    def _asset_pairs(self, request: Request, now: int) -> Answer:
        found: dict[str, Any] = {}
        for symbol in self._floor.symbols:
            base, _, quote = symbol.name.partition("/")
            old = _OLD_NAMES.get(base, base)
            found[rest_name(symbol.name)] = {
                "altname": old + quote,
                "wsname": f"{old}/{quote}",
                "base": base,
                "quote": quote,
                "pair_decimals": symbol.price_digits,
                "lot_decimals": QUANTITY_DIGITS,
                "tick_size": decimal_text(SCALE // 10**symbol.price_digits, symbol.price_digits),
                "status": "online",
            }
        return _result(found)

    def _trades(self, request: Request, now: int) -> Answer:
        """After `since` (exclusive; nanoseconds, or seconds), or the last ones; ascending."""
        index = self._pairs.get(request.query.get("pair", ""))
        if index is None:
            return Answer('{"error":["EQuery:Unknown asset pair"]}')
        count, since = request.query.get("count", "1000"), request.query.get("since")
        if not _is_whole(count) or not 1 <= int(count) <= _MOST_ROWS:
            return Answer('{"error":["EGeneral:Invalid arguments:count"]}')
        if since is not None and not _is_whole(since):
            return Answer('{"error":["EGeneral:Invalid arguments:since"]}')
        history = self._floor.histories[index]
        if since is None:
            found = history.last(int(count))
        else:
            cursor = int(since) * (10**9 if len(since) <= 10 else 1)
            first = history.number_after(min(cursor // 1_000, 2**62))
            found = history.from_number(first, int(count))
        last = str(found[-1].time * 1_000) if found else since or "0"
        symbol = self._floor.symbols[index]
        rows = ",".join(_row(trade, symbol.price_digits) for trade in found)
        name = rest_name(symbol.name)
        return Answer(f'{{"error":[],"result":{{"{name}":[{rows}],"last":"{last}"}}}}')

    def _depth(self, request: Request, now: int) -> Answer:
        index = self._pairs.get(request.query.get("pair", ""))
        if index is None:
            return Answer('{"error":["EQuery:Unknown asset pair"]}')
        count = request.query.get("count", "100")
        if not _is_whole(count) or not 1 <= int(count) <= 500:
            return Answer('{"error":["EGeneral:Invalid arguments:count"]}')
        _, time, *sides = self._floor.snapshot(index, int(count))
        symbol = self._floor.symbols[index]
        bids, asks = (
            [
                [decimal_text(p, symbol.price_digits), decimal_text(q), time // 1_000_000]
                for p, q in side
            ]
            for side in sides
        )
        return _result({rest_name(symbol.name): {"asks": asks, "bids": bids}})


def rest_name(symbol: str) -> str:
    """The name of a pair in REST answers: XXBTZUSD for BTC/USD."""
    base, _, quote = symbol.partition("/")
    base = _OLD_NAMES.get(base, base)
    return f"X{base}Z{quote}" if base in _WITH_PREFIX and quote in ("USD", "EUR") else base + quote


def instruments(floor: Floor) -> str:
    """What the channel `instrument` tells of all pairs, as JSON."""
    pairs = ",".join(
        f'{{"symbol":"{symbol.name}","base":"{symbol.name.partition("/")[0]}",'
        f'"quote":"{symbol.name.partition("/")[2]}","status":"online",'
        f'"price_precision":{symbol.price_digits},"qty_precision":{QUANTITY_DIGITS},'
        f'"price_increment":{decimal_text(SCALE // 10**symbol.price_digits, symbol.price_digits)},'
        f'"qty_increment":0.00000001}}'
        for symbol in floor.symbols
    )
    return f'{{"assets":[],"pairs":[{pairs}]}}'


def _names(symbol: str) -> set[str]:
    base, _, quote = symbol.partition("/")
    old = _OLD_NAMES.get(base, base)
    return {symbol, base + quote, old + quote, f"{old}/{quote}", rest_name(symbol)}


def _row(trade: Trade, digits: int) -> str:
    seconds, rest = divmod(trade.time, 1_000_000)
    return (
        f'["{decimal_text(trade.price, digits)}","{decimal_text(trade.quantity)}",'
        f'{seconds}.{rest:06d},"{"b" if trade.is_buy else "s"}",'
        f'"{"l" if trade.number % 3 else "m"}","",{trade.number}]'
    )


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 20


def _result(found: object) -> Answer:
    return Answer(orjson.dumps({"error": [], "result": found}).decode())

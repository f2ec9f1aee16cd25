"""Coinbase's public REST: the Exchange's trades in pages by CB-BEFORE and CB-AFTER, its book,
products and time (Exchange API reference, 2026).
"""

from typing import Any, Final

import orjson

from k2.venues.events import Trade
from k2.venues.floor import Floor
from k2.venues.limits import Allowance
from k2.venues.port import Answer, Request
from k2.venues.text import SCALE, decimal_text, iso_text, short_text

_MOST_ROWS: Final = 1_000


class Rest:
    """Coinbase's REST answers over a floor."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._allowance = Allowance(15, 10)

    def answer(self, request: Request, now: int) -> Answer:
        """The answer to /time, /products, /products/{id}, /products/{id}/trades or …/book."""
        if not self._allowance.take(now):
            return _failure(429, "Public rate limit exceeded")
        return _answer(self._floor, request, now)


def _answer(floor: Floor, request: Request, now: int) -> Answer:
    parts = request.path.strip("/").split("/")
    if parts == ["time"]:
        return _json({"iso": iso_text(now), "epoch": now / 1_000_000})
    if parts == ["products"]:
        return _json([_product(floor, index) for index in range(len(floor.symbols))])
    if parts[0] != "products" or len(parts) > 3 or parts[1] not in floor.index:
        return _failure(404, "NotFound")
    index = floor.index[parts[1]]
    if len(parts) == 2:
        return _json(_product(floor, index))
    if parts[2] == "trades":
        return _trades(floor, index, request)
    if parts[2] == "book":
        return _book(floor, index, request)
    return _failure(404, "NotFound")


def _trades(floor: Floor, index: int, request: Request) -> Answer:
    """The newest first: below `after`, above `before` (both exclusive), at most `limit`."""
    values = [request.query.get(name) for name in ("limit", "before", "after")]
    if any(v is not None and not (v.isascii() and v.isdecimal()) for v in values):
        return _failure(400, "limit, before and after must be whole numbers")
    limit, before, after = (None if value is None else int(value) for value in values)
    found = floor.histories[index].last(min(limit or _MOST_ROWS, _MOST_ROWS), after)[::-1]
    if before is not None:
        found = [trade for trade in found if trade.number > before]
    digits = floor.symbols[index].price_digits
    headers = {}
    if found:
        headers = {"CB-BEFORE": str(found[0].number), "CB-AFTER": str(found[-1].number)}
    return _json([_row(trade, digits) for trade in found], headers)


def _row(trade: Trade, digits: int) -> dict[str, Any]:
    return {
        "trade_id": trade.number,
        # The side of the maker, as the Exchange has it.
        "side": "sell" if trade.is_buy else "buy",
        "size": decimal_text(trade.quantity),
        "price": decimal_text(trade.price, digits),
        "time": iso_text(trade.time),
    }


def _book(floor: Floor, index: int, request: Request) -> Answer:
    depths = {"1": 1, "2": 50, "3": 1_000}
    depth = depths.get(request.query.get("level", "1"))
    if depth is None:
        return _failure(400, "Invalid level")
    update, time, *sides = floor.snapshot(index, depth)
    digits = floor.symbols[index].price_digits
    bids, asks = ([[decimal_text(p, digits), short_text(q), 1] for p, q in s] for s in sides)
    return _json({"bids": bids, "asks": asks, "sequence": update, "time": iso_text(time)})


def _product(floor: Floor, index: int) -> dict[str, Any]:
    symbol = floor.symbols[index]
    base, _, quote = symbol.name.partition("-")
    return {
        "id": symbol.name,
        "base_currency": base,
        "quote_currency": quote,
        "quote_increment": short_text(SCALE // 10**symbol.price_digits),
        "base_increment": "0.00000001",
        "status": "online",
        "trading_disabled": False,
    }


def _json(found: object, headers: dict[str, str] | None = None) -> Answer:
    return Answer(orjson.dumps(found).decode(), 200, headers or {})


def _failure(status: int, message: str) -> Answer:
    return Answer(orjson.dumps({"message": message}).decode(), status)

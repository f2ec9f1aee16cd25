"""Binance spot's REST market data below /api/v3/, with its weights and limits (July 2026)."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import orjson

from k2.venues.book import LEVELS
from k2.venues.events import Trade
from k2.venues.floor import Floor, order_of, trades_of
from k2.venues.limits import MOST_WEIGHT, Weights
from k2.venues.port import Answer, Request
from k2.venues.text import SCALE, decimal_text

_MOST_ROWS: Final = 1_000


class _Bad(Exception):
    """A request that Binance answers with 400, with a code and a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Rest:
    """Binance's REST answers over a floor."""

    def __init__(self, floor: Floor, first_trade: int, first_aggregate: int) -> None:
        self._floor = floor
        self._first_trade, self._first_aggregate = first_trade, first_aggregate
        self._weights = Weights()
        self._paths: dict[str, Callable[[Request, int], Any]] = {
            "ping": lambda request, now: {},
            "time": lambda request, now: {"serverTime": now // _unit(request)},
            "exchangeInfo": self._exchange_info,
            "depth": self._depth,
            "trades": self._trades,
            "historicalTrades": self._historical_trades,
            "aggTrades": self._aggregates,
        }

    def answer(self, request: Request, now: int) -> Answer:
        """The answer, with the weight used in X-MBX-USED-WEIGHT-1M; 429 and then 418 beyond."""
        folder, _, name = request.path.rpartition("/")
        if folder != "/api/v3" or name not in self._paths:
            return _failure(404, -1000, "Not found.")
        used, wait, banned = self._weights.take(_weight(name, request), now)
        headers = {"X-MBX-USED-WEIGHT": str(used), "X-MBX-USED-WEIGHT-1M": str(used)}
        if wait:
            text = f"Too much request weight used; current limit is {MOST_WEIGHT} per 1 MINUTE."
            headers["Retry-After"] = str(wait)
            return _failure(418 if banned else 429, -1003, text, headers)
        try:
            body = self._paths[name](request, now)
        except _Bad as error:
            return _failure(400, error.code, str(error), headers)
        return Answer(body if isinstance(body, str) else orjson.dumps(body).decode(), 200, headers)

    def _symbol(self, request: Request) -> int:
        name = request.query.get("symbol")
        if not name:
            raise _Bad(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null.")
        if name not in self._floor.index:
            raise _Bad(-1121, "Invalid symbol.")
        return self._floor.index[name]

    def _exchange_info(self, request: Request, now: int) -> Any:
        names = [request.query["symbol"]] if "symbol" in request.query else None
        if names and names[0] not in self._floor.index:
            raise _Bad(-1121, "Invalid symbol.")
        symbols = [
            {
                "symbol": symbol.name,
                "status": "TRADING",
                "baseAsset": symbol.name.removesuffix("USDT"),
                "baseAssetPrecision": 8,
                "quoteAsset": "USDT",
                "quotePrecision": 8,
                "filters": [
                    {"filterType": "PRICE_FILTER", "tickSize": _step(symbol.price_digits)},
                    {"filterType": "LOT_SIZE", "stepSize": _step(symbol.quantity_digits)},
                ],
            }
            for symbol in self._floor.symbols
            if names is None or symbol.name in names
        ]
        limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1}
        return {
            "timezone": "UTC",
            "serverTime": now // _unit(request),
            "rateLimits": [{**limit, "limit": MOST_WEIGHT}],
            "symbols": symbols,
        }

    def _depth(self, request: Request, now: int) -> str:
        limit = _whole(request, "limit", 100, 5_000)
        update, _, bids, asks = self._floor.snapshot(self._symbol(request), min(limit, LEVELS))
        sides = [
            "[" + ",".join(f'["{decimal_text(p)}","{decimal_text(q)}"]' for p, q in side) + "]"
            for side in (bids, asks)
        ]
        return f'{{"lastUpdateId":{update},"bids":{sides[0]},"asks":{sides[1]}}}'

    def _trades(self, request: Request, now: int) -> Any:
        history = self._floor.histories[self._symbol(request)]
        found = history.last(_whole(request, "limit", 500, _MOST_ROWS))
        return _trade_rows(found, _unit(request))

    def _historical_trades(self, request: Request, now: int) -> Any:
        if "fromId" not in request.query:
            return self._trades(request, now)
        history = self._floor.histories[self._symbol(request)]
        limit = _whole(request, "limit", 500, _MOST_ROWS)
        found = history.from_number(_whole(request, "fromId", 0, 2**63 - 1), limit)
        return _trade_rows(found, _unit(request))

    def _aggregates(self, request: Request, now: int) -> Any:
        history = self._floor.histories[self._symbol(request)]
        limit = _whole(request, "limit", 500, _MOST_ROWS)
        unit = _unit(request)
        end = history.end
        if "fromId" in request.query:
            if "startTime" in request.query or "endTime" in request.query:
                raise _Bad(-1128, "Combination of optional parameters invalid.")
            order = _whole(request, "fromId", 0, 2**63 - 1) - self._first_aggregate
            first = self._first_trade + trades_of(max(order, 1)).start
        elif "startTime" in request.query or "endTime" in request.query:
            start = _whole(request, "startTime", 0, 2**63 // unit - 1) * unit
            stop = _whole(request, "endTime", now // unit, 2**63 // unit - 1) * unit + unit - 1
            first, end = history.number_at(start), history.number_after(stop)
            if "startTime" not in request.query:
                first = max(first, end - 2 * limit)
        else:
            first = end - 2 * limit
            rows = self._aggregate_rows(history.between(first, end), unit)
            return rows[-limit:]
        # An order fills in two trades at most.
        found = history.from_number(first, 2 * limit + 2)
        return self._aggregate_rows([t for t in found if t.number < end], unit)[:limit]

    def _aggregate_rows(self, trades: Iterable[Trade], unit: int) -> list[dict[str, Any]]:
        orders: dict[int, list[Trade]] = {}
        for trade in trades:
            orders.setdefault(order_of(trade.number - self._first_trade), []).append(trade)
        return [
            {
                "a": self._first_aggregate + order,
                "p": decimal_text(fills[0].price),
                "q": decimal_text(sum(fill.quantity for fill in fills)),
                "f": fills[0].number,
                "l": fills[-1].number,
                "T": fills[0].time // unit,
                "m": not fills[0].is_buy,
                "M": True,
            }
            for order, fills in orders.items()
            # One cut by the edge of what was asked for would be another order.
            if len(fills) == len(trades_of(order))
        ]


def _weight(name: str, request: Request) -> int:
    if name == "depth":
        text = request.query.get("limit", "100")
        limit = int(text) if text.isdecimal() else 100
        return next((w for most, w in ((100, 5), (500, 25), (1_000, 50)) if limit <= most), 250)
    weights = {"exchangeInfo": 20, "trades": 25, "historicalTrades": 25, "aggTrades": 4}
    return weights.get(name, 1)


def _trade_rows(trades: Iterable[Trade], unit: int) -> list[dict[str, Any]]:
    return [
        {
            "id": trade.number,
            "price": decimal_text(trade.price),
            "qty": decimal_text(trade.quantity),
            "quoteQty": decimal_text(trade.price * trade.quantity // SCALE),
            "time": trade.time // unit,
            "isBuyerMaker": not trade.is_buy,
            "isBestMatch": True,
        }
        for trade in trades
    ]


def _whole(request: Request, name: str, otherwise: int, most: int) -> int:
    text = request.query.get(name, str(otherwise))
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise _Bad(-1100, f"Illegal characters found in parameter '{name}'.")
    return min(int(text), most)


def _unit(request: Request) -> int:
    """Microseconds in the unit of time that the request asks for."""
    return 1 if request.headers.get("x-mbx-time-unit", "").upper() == "MICROSECOND" else 1_000


def _step(digits: int) -> str:
    return decimal_text(SCALE // 10**digits)


def _failure(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> Answer:
    return Answer(orjson.dumps({"code": code, "msg": message}).decode(), status, headers or {})

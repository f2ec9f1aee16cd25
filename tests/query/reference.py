"""Bars once more, as plainly as they can be said: Decimals and dictionaries, row by row."""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any
from zoneinfo import ZoneInfo

from tests.query.make import DAWN, EXCHANGES, Row, order_of

_EXACT = Context(prec=200)


def quotient(dividend: Decimal, divisor: Decimal) -> Decimal:
    """Rounded half-even to 8 decimals, from as many digits as it takes."""
    exact = Context(prec=200).divide(dividend, divisor)
    return exact.quantize(Decimal("1e-8"), rounding=ROUND_HALF_EVEN, context=_EXACT)


def midnight(zone: str, day: date) -> datetime:
    """When the day begins in the zone."""
    begin = datetime.combine(day, time.min, ZoneInfo(zone))
    return DAWN + (begin - DAWN) // timedelta(microseconds=1) * timedelta(microseconds=1)


def start_of(row: Row, width: timedelta) -> datetime:
    """When the interval of the trade begins."""
    of = EXCHANGES[row["exchange"]]
    begin = (midnight(of.zone, row["exchange_date"]) - DAWN) // timedelta(microseconds=1)
    if width == timedelta(days=1):
        return DAWN + timedelta(microseconds=begin)
    when = (row["timestamp"] - DAWN) // timedelta(microseconds=1)
    step = width // timedelta(microseconds=1)
    return DAWN + timedelta(microseconds=begin + (when - begin) // step * step)


def bars(
    rows: Sequence[Row], width: timedelta, *, all_trades: bool = False
) -> list[dict[str, Any]]:
    """The bars of the rows, by symbol, exchange and start."""
    groups: dict[tuple[str, str, datetime], list[Row]] = {}
    for row in sorted(rows, key=order_of):
        if all_trades or row["price_forming"]:
            key = (row["symbol"], row["exchange"], start_of(row, width))
            groups.setdefault(key, []).append(row)
    found = []
    for (symbol, exchange, start), group in sorted(groups.items()):
        prices = [row["price"] for row in group]
        volume = sum((row["quantity"] for row in group), Decimal(0))
        turnover = Decimal(0)
        for row in group:
            turnover = _EXACT.add(turnover, _EXACT.multiply(row["price"], row["quantity"]))
        found.append(
            {
                "symbol": symbol,
                "exchange": exchange,
                "start": start,
                "open": prices[0],
                "high": max(prices),
                "low": min(prices),
                "close": prices[-1],
                "volume": volume,
                "trade_count": len(group),
                "vwap": quotient(turnover, volume),
            }
        )
    return found

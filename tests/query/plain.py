"""What is measured once more, row by row: bars by what traded, averages by time, best quotes."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

from tests.query.make import DAWN, EXCHANGES, Row, order_of
from tests.query.reference import midnight, quotient, start_of

MICROSECOND = timedelta(microseconds=1)
AMOUNTS: dict[str, Callable[[Row], Decimal]] = {
    "tick": lambda row: Decimal(1),
    "volume": lambda row: row["quantity"],
    "dollar": lambda row: row["price"] * row["quantity"],
}


def date_begins(exchange: str, day: date) -> datetime:
    """When the exchange date begins."""
    of = EXCHANGES[exchange]
    return midnight(of.zone, day) - of.day_roll


def measured(group: Sequence[Row]) -> dict[str, Any]:
    """Open to VWAP of trades in order."""
    with localcontext(prec=200):
        volume = sum((row["quantity"] for row in group), Decimal(0))
        turnover = sum((row["price"] * row["quantity"] for row in group), Decimal(0))
        return {
            "open": group[0]["price"],
            "high": max(row["price"] for row in group),
            "low": min(row["price"] for row in group),
            "close": group[-1]["price"],
            "volume": volume,
            "trade_count": len(group),
            "vwap": quotient(turnover, volume),
        }


def grouped(rows: Sequence[Row], *names: str) -> Iterator[tuple[tuple[Any, ...], list[Row]]]:
    """Price-forming trades in total order, by these columns."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=order_of):
        if row["price_forming"]:
            found.setdefault(tuple(row[name] for name in names), []).append(row)
    yield from sorted(found.items())


def counted(
    rows: Sequence[Row],
    kind: str,
    size: str,
    *,
    start: datetime = DAWN,
    end: datetime | None = None,
) -> list[dict[str, Any]]:
    """The bars that begin at or after `start`, of trades before `end`."""
    found = []
    step = Decimal(size)
    mine = [row for row in rows if end is None or row["timestamp"] < end]
    for (symbol, exchange, _), trades in grouped(mine, "symbol", "exchange", "exchange_date"):
        bars: dict[int, list[Row]] = {}
        with localcontext(prec=200):
            total = Decimal(0)
            full = 0
            for row in trades:
                bars.setdefault(int(total // step), []).append(row)
                total += AMOUNTS[kind](row)
                full = int(total // step)
        found += [
            {
                "symbol": symbol,
                "exchange": exchange,
                "start": bar[0]["timestamp"],
                "end": bar[-1]["timestamp"],
                **measured(bar),
                "complete": number < full,
            }
            for number, bar in bars.items()
            if bar[0]["timestamp"] >= start
        ]
    return found


def twap(
    rows: Sequence[Row],
    width: timedelta,
    *,
    start: datetime = DAWN,
    end: datetime | None = None,
) -> list[dict[str, Any]]:
    """The time-weighted average of each interval with trades in `[start, end)`."""
    found = []
    mine = [row for row in rows if end is None or row["timestamp"] < end]
    for (symbol, exchange), trades in grouped(mine, "symbol", "exchange"):
        intervals: dict[datetime, list[int]] = {}
        for at, row in enumerate(trades):
            if row["timestamp"] >= start:
                intervals.setdefault(start_of(row, width), []).append(at)
        for begin, places in intervals.items():
            day = trades[places[0]]["exchange_date"]
            if width == timedelta(days=1):
                began, finish = date_begins(exchange, day), date_begins(exchange, _next(day))
            else:
                began = begin
                finish = min(begin + width, midnight(EXCHANGES[exchange].zone, _next(day)))
            began, finish = max(began, start), min(finish, end or finish)
            paid, held = Decimal(0), 0
            with localcontext(prec=200):
                first = trades[places[0]]
                before = trades[places[0] - 1] if places[0] else None
                if before is not None and before["exchange_date"] == day:
                    weight = (first["timestamp"] - began) // MICROSECOND
                    paid, held = before["price"] * weight, weight
                for at in places:
                    until = trades[at + 1]["timestamp"] if at + 1 < len(trades) else finish
                    weight = (min(until, finish) - trades[at]["timestamp"]) // MICROSECOND
                    paid, held = paid + trades[at]["price"] * weight, held + weight
            found.append(
                {
                    "symbol": symbol,
                    "exchange": exchange,
                    "start": begin,
                    "twap": quotient(paid, Decimal(held)),
                }
            )
    return sorted(found, key=lambda row: (row["symbol"], row["exchange"], row["start"]))


def _next(day: date) -> date:
    return day + timedelta(days=1)


def profile(
    rows: Sequence[Row], width: timedelta, bin_size: Decimal | None
) -> list[dict[str, Any]]:
    """Volume by price of each interval."""
    found = []
    for (symbol, exchange), trades in grouped(rows, "symbol", "exchange"):
        intervals: dict[datetime, dict[Decimal, list[Decimal]]] = {}
        for row in trades:
            price = row["price"] if bin_size is None else row["price"] // bin_size * bin_size
            levels = intervals.setdefault(start_of(row, width), {})
            levels.setdefault(price, []).append(row["quantity"])
        found += [
            {
                "symbol": symbol,
                "exchange": exchange,
                "start": begin,
                "volume_profile": [
                    {"price": price, "volume": sum(each), "trade_count": len(each)}
                    for price, each in sorted(levels.items())
                ],
            }
            for begin, levels in sorted(intervals.items())
        ]
    return found


def bbo(
    quotes: Sequence[Row], *, start: datetime = DAWN, end: datetime | None = None
) -> list[dict[str, Any]]:
    """The best quotes that changed in `[start, end)`, by symbol and in total order."""
    found = []
    latest: dict[str, dict[str, Row]] = {}
    before: dict[tuple[str, date], dict[str, Any]] = {}
    for row in sorted(quotes, key=order_of):
        when = row["timestamp"]
        if end is not None and when >= end:
            break
        symbol, day = row["symbol"], row["exchange_date"]
        standing = latest.setdefault(symbol, {})
        standing[row["exchange"]] = row
        fresh = [
            each
            for _, each in sorted(standing.items())
            if date_begins(each["exchange"], _next(each["exchange_date"])) > when
        ]
        best: dict[str, Any] = {}
        for side, pick in (("bid", max), ("ask", min)):
            prices = [q[f"{side}_price"] for q in fresh if q[f"{side}_price"] is not None]
            price = pick(prices) if prices else None
            there = [q for q in fresh if price is not None and q[f"{side}_price"] == price]
            best[f"{side}_price"] = price
            best[f"{side}_quantity"] = sum(q[f"{side}_quantity"] for q in there) if there else None
            best[f"{side}_exchanges"] = ",".join(q["exchange"] for q in there) or None
        if best != before.get((symbol, day)) and when >= start:
            found.append({"symbol": symbol, "timestamp": when, **best})
        before[symbol, day] = best
    return sorted(found, key=lambda row: str(row["symbol"]))

"""Adjusted bars: prices of other days as they compare with today's, after splits and dividends.

Comes in: bars, and the corporate actions of their symbols. Goes out: the same bars, each multiplied
by the factor of its exchange date. Of a split into `ratio` new units, prices before its day are
divided by the ratio, and quantities multiplied by it; of a dividend, prices before its ex-date are
multiplied by 1 - amount / close, the close being the last one before that date: so a holder's
return is that of the adjusted prices (the method of CRSP's "Calculations for CRSP Stock Data").

A factor is the exact product, rounded half-even to 12 decimals; what it makes of a price or
quantity is exact, rounded half-even to 8.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput, NotFound
from k2.model import Exchange
from k2.query.answer import counted
from k2.query.asking import Asking
from k2.query.bars import BarsWanted, make_bars
from k2.query.interval import Interval, parse_interval
from k2.query.records import Wanted, fetch_records
from k2.query.selection import Past, Selection
from k2.query.view import View
from k2.query.zones import EPOCH, from_us, midnights

ADJUSTMENTS: Final = ("none", "splits", "all")
"""By what bars are adjusted: nothing, splits, or splits and dividends."""

_FACTOR: Final = pa.decimal256(20, 12)
_PLACES: Final = 8
_MICROSECOND: Final = timedelta(microseconds=1)
_PRICES: Final = ("open", "high", "low", "close", "vwap")

Days = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Action:
    """What one day changes: prices before it are multiplied by `price`, quantities by `quantity`.
    `day` counts days since 1970.
    """

    day: int
    price: Fraction
    quantity: Fraction


def adjusted(
    asking: Asking,
    trades: View,
    bars: pa.Table,
    interval: Interval,
    by: str,
    past: Past,
    now: datetime,
) -> tuple[pa.Table, list[str]]:
    """The bars, adjusted, and notes on what could not be heeded.

    Actions count up to `now` (the moment of `as_known_at`, or the present), those of the future do
    not. Raises `BadInput` where a bar is of two exchange dates.
    """
    pairs = bars.group_by(["symbol", "exchange"]).aggregate([]).to_pylist()
    notes: list[str] = []
    number = np.zeros(bars.num_rows, np.int64)
    prices, quantities = [Fraction(1)], [Fraction(1)]
    days = _days_of(bars, interval, trades.exchanges)
    found = 0
    for pair in pairs:
        symbol, exchange = pair["symbol"], pair["exchange"]
        today = _day_at(now, trades.exchanges[exchange])
        only = Selection((symbol,), (exchange,))
        actions = [
            *_splits(asking, only, past, notes),
            *(_dividends(asking, trades, only, past, notes) if by == "all" else ()),
        ]
        actions = sorted((a for a in actions if a.day <= today), key=lambda a: a.day)
        if not actions:
            continue
        found += len(actions)
        mine = np.flatnonzero(_is(bars, symbol, exchange))
        met = np.searchsorted([a.day for a in actions], days[mine], side="right")
        number[mine] = len(prices) + met
        for first in range(len(actions) + 1):
            prices.append(_product(a.price for a in actions[first:]))
            quantities.append(_product(a.quantity for a in actions[first:]))
    notes.append(f"adjusted by {counted(found, 'splits' if by == 'splits' else 'actions')}")
    made = bars
    for name, factors in [*((name, prices) for name in _PRICES), ("volume", quantities)]:
        at = made.column_names.index(name)
        made = made.set_column(at, name, _times(made[name], factors, number))
    return made, notes


def _times(column: pa.ChunkedArray, factors: Sequence[Fraction], number: Days) -> pa.ChunkedArray:
    """The column's values, each by the factor with its number."""
    kind = column.type
    # With room for the product: thirty digits more than either.
    wide = column.cast(pa.decimal256(kind.precision, kind.scale))
    by = pa.array([_rounded(factor) for factor in factors], _FACTOR).take(pa.array(number))
    made = pc.round(pc.multiply(wide, by), _PLACES, round_mode="half_to_even")
    try:
        return made.cast(kind)
    except pa.ArrowInvalid as error:
        raise BadInput(f"an adjusted value has too many digits: {error}") from error


def _rounded(factor: Fraction) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return Decimal(round(factor * 10**_FACTOR.scale)).scaleb(-_FACTOR.scale)


def _product(factors: Iterator[Fraction]) -> Fraction:
    made = Fraction(1)
    for factor in factors:
        made *= factor
    return made


def _is(bars: pa.Table, symbol: str, exchange: str) -> npt.NDArray[np.bool_]:
    both = pc.and_(pc.equal(bars["symbol"], symbol), pc.equal(bars["exchange"], exchange))
    found: npt.NDArray[np.bool_] = both.to_numpy(zero_copy_only=False)
    return found


# ------------------------------------------------------------------------------- exchange dates


def _days_of(bars: pa.Table, interval: Interval, exchanges: Mapping[str, Exchange]) -> Days:
    """The exchange date of each bar."""
    start = bars["start"].cast(pa.int64()).to_numpy()
    names = np.array(bars["exchange"].to_pylist(), object)
    found = np.zeros(len(start), np.int64)
    for name in set(names.tolist()):
        mine = names == name
        of = exchanges[name]
        roll = of.day_roll // _MICROSECOND
        begin = start[mine]
        if interval.is_day:
            # Named after the midnight at which their date begins.
            found[mine] = _dates(begin, of.zone)
            continue
        found[mine] = _dates(begin + roll, of.zone)
        if roll and (found[mine] != _dates(begin + roll + interval.width_us - 1, of.zone)).any():
            raise BadInput(
                f"a bar of {interval.name} may be of two exchange dates at {name}, whose factors "
                "differ",
                place="interval",
                expected="an interval that divides the hours from midnight to the roll",
            )
    return found


def _dates(times: Days, zone: str) -> Days:
    """The local dates of times (microseconds UTC), as days since 1970."""
    if not len(times):
        return times
    first = from_us(int(times.min())).date().toordinal() - 2
    last = from_us(int(times.max())).date().toordinal() + 2
    begins = midnights(zone, date.fromordinal(first), date.fromordinal(last))
    found: Days = np.searchsorted(begins, times, side="right") - 1 + first - EPOCH.toordinal()
    return found


def _day_at(now: datetime, exchange: Exchange) -> int:
    local = (now + exchange.day_roll).astimezone(ZoneInfo(exchange.zone))
    return (local.date() - EPOCH).days


# ------------------------------------------------------------------------------- what happened


def _splits(asking: Asking, only: Selection, past: Past, notes: list[str]) -> Iterator[Action]:
    fields = ("effective_date", "ratio", "source")
    for row in _of_one_source(_actions(asking, "splits", only, past, fields), fields[0], notes):
        ratio = Fraction(row["ratio"])
        yield Action((row["effective_date"] - EPOCH).days, 1 / ratio, ratio)


def _dividends(
    asking: Asking, trades: View, only: Selection, past: Past, notes: list[str]
) -> Iterator[Action]:
    fields = ("ex_date", "net_amount", "gross_amount", "currency", "source")
    rows = _of_one_source(_actions(asking, "dividends", only, past, fields), fields[0], notes)
    if not rows:
        return
    (symbol,) = only.symbols
    closes = make_bars(asking.engine, trades, only, BarsWanted(parse_interval("1d")))
    days = _days_of(closes, parse_interval("1d"), trades.exchanges)
    traded_in = _currency(asking, trades, only)
    for row in rows:
        ex = (row["ex_date"] - EPOCH).days
        before = int(np.searchsorted(days, ex)) - 1
        if before < 0:
            # There is no price before it that it could change.
            continue
        told = f"the dividend of {symbol} of {row['ex_date']} is left out: "
        amount = row["net_amount"] if row["net_amount"] is not None else row["gross_amount"]
        if amount is None:
            notes.append(told + "no amount is known")
        elif row["currency"] and traded_in and row["currency"] != traded_in:
            notes.append(told + f"it is in {row['currency']}, trades are in {traded_in}")
        elif amount >= (close := closes["close"][before].as_py()):
            notes.append(told + f"{amount:f} is no less than the close before it, {close:f}")
        else:
            yield Action(ex, 1 - Fraction(amount) / Fraction(close), Fraction(1))


def _actions(
    asking: Asking, kind: str, only: Selection, past: Past, fields: tuple[str, ...]
) -> list[dict[str, Any]]:
    try:
        view = asking.view(kind, Past(past.as_of), only)
    except NotFound:
        # None was known to K2 then.
        return []
    rows = fetch_records(asking.engine, view, only, Wanted(fields=fields))[0]
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def _of_one_source(rows: list[dict[str, Any]], day: str, notes: list[str]) -> list[dict[str, Any]]:
    """The actions of each day as one source tells them: two vendors' are the same once more."""
    first: dict[date, str] = {}
    for row in rows:
        name = row["source"] or ""
        first[row[day]] = min(first.get(row[day], name), name)
    kept = [row for row in rows if (row["source"] or "") == first[row[day]]]
    if len(kept) < len(rows):
        notes.append(
            f"left out: {counted(len(rows) - len(kept), 'corporate actions')} that another source "
            "tells of the same day"
        )
    return sorted(kept, key=lambda row: row[day])


def _currency(asking: Asking, trades: View, only: Selection) -> str | None:
    rows = fetch_records(asking.engine, trades, only, Wanted(last=1, fields=("currency",)))[0]
    found: list[str | None] = rows["currency"].to_pylist()
    return found[0] if found else None

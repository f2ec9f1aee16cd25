"""Which interval each trade is in, as SQL: what all statements by interval have in common.

Comes in: a view, the files to read and a selection. Goes out: fragments for `statement`, what they
bind and read, and a way from the interval's number to the instant at which it begins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa

from k2.lake import DataFileRef
from k2.model import TIMESTAMP_TYPE, Exchange
from k2.query.interval import Interval, Midnights, midnights_of
from k2.query.predicate import Predicate, bounds, predicate
from k2.query.rollup import OFFSET, TIME, place_of
from k2.query.selection import Selection
from k2.query.view import View

EVERY: Final = "*"
"""Stands in the column `exchange` for all exchanges as one: none can be called so."""

FIRST_TWO: Final = ("symbol", "exchange")
_DAY: Final = timedelta(days=1)

PLACE_OF_ALL: Final = "row(timestamp, timestamp_nanos, log_topic, log_partition, log_offset)"
"""The same over all exchanges, whose topics differ."""


@dataclass(frozen=True)
class Framing:
    """Which trades: price-forming ones or all, of one exchange date, from a time on, over all
    exchanges as one market.
    """

    interval: Interval
    all_trades: bool = False
    day: date | None = None
    start: datetime | None = None
    consolidated: bool = False


@dataclass(frozen=True)
class Frame:
    """`fragments` are keys (symbol, exchange), start, predicate, rows and partial (roll-ups), which
    the engine fills in; `tables` are those joined to them.
    """

    fragments: Mapping[str, str]
    values: Mapping[str, object]
    tables: Mapping[str, pa.Table]
    is_day: bool
    midnights: Midnights

    def settled(self, found: pa.Table, schema: pa.Schema) -> pa.Table:
        """The rows (symbol, exchange, start, …) with the instant (UTC) at which each interval
        begins as their start.
        """
        if self.is_day:
            return found.set_column(2, "start", _dates_begin(found, self.midnights)).cast(schema)
        start = found["start"].cast(pa.int64()).cast(TIMESTAMP_TYPE)
        return found.set_column(2, "start", start).cast(schema)


def frame(
    view: View, files: Sequence[DataFileRef], selection: Selection, framing: Framing
) -> Frame:
    """The trades of these files that are asked for, by symbol, exchange and interval.

    Raises `BadInput` for what cannot be asked.
    """
    width = framing.interval.width_us
    markets = as_one(view.exchanges, selection) if framing.consolidated else view.exchanges
    midnights = midnights_around(view, files, selection, markets)
    made = trades_predicate(view, selection, all_trades=framing.all_trades)
    if framing.start is not None:
        made.add(f"{view.time} >= {made.bind(framing.start)}")
    if framing.day is not None:
        made.add(f"exchange_date = {made.bind(framing.day)}")
    tables: dict[str, pa.Table] = {}
    joined, shift = "", midnights.shift(width)
    if framing.interval.is_day:
        begin = "exchange_date"
    elif shift is not None:
        begin = begin_of_interval(made.bind(shift), made.bind(width))
    else:
        table, by = midnights.to_table(), "exchange, exchange_date"
        if framing.consolidated:
            table, by = table.drop_columns("exchange"), "exchange_date"
        tables["midnights"] = table
        joined = f" join {{midnights}} using ({by})"
        eons = Midnights(midnights.first, midnights.last, {}).shift(width)
        begin = begin_of_interval(f"({made.bind(eons)} - midnight)", made.bind(width))
    fragments = {
        "keys": keys_of(view, selection, made, consolidated=framing.consolidated),
        "start": begin,
        "rows": "{rows}" + joined,
        "partial": "{partial}" + joined,
        "predicate": made.text,
    }
    return Frame(fragments, made.values, tables, framing.interval.is_day, midnights)


def as_one(exchanges: Mapping[str, Exchange], selection: Selection) -> dict[str, Exchange]:
    """One market in place of the exchanges that the selection asks for; none where there are none.

    Its midnights are theirs if all of them are in one time zone, else those of UTC.
    """
    wanted = selection.exchanges or tuple(exchanges)
    mine = [exchanges[name] for name in wanted if name in exchanges]
    if not mine:
        return {}
    zones = {exchange.zone for exchange in mine}
    return {EVERY: replace(mine[0], zone=zones.pop() if len(zones) == 1 else "UTC")}


def trades_predicate(view: View, selection: Selection, *, all_trades: bool) -> Predicate:
    """The selection of trades, those that form prices or all."""
    made = predicate(selection, view.columns, view.time, view.exchanges)
    if not all_trades:
        made.add("price_forming")
    return made


def place_in(view: View, *, partitioned: bool = False) -> str:
    """SQL of a trade's place in the total order within a symbol of an exchange, as one number."""
    return place_of(TIME, OFFSET if partitioned or view.is_partitioned else "log_offset")


def keys_of(
    view: View, selection: Selection, made: Predicate, *, consolidated: bool = False
) -> str:
    """Symbol and exchange. Grouping by text costs as much as all the rest of a bar: known values
    are put in instead.
    """
    symbol, exchange = FIRST_TWO
    if len(set(selection.symbols)) == 1:
        symbol = f"{made.bind(selection.symbols[0])}::varchar as symbol"
    if consolidated:
        exchange = f"{made.bind(EVERY)}::varchar as exchange"
    elif len(view.exchanges) == 1:
        exchange = f"{made.bind(next(iter(view.exchanges)))}::varchar as exchange"
    return f"{symbol}, {exchange}"


def begin_of_interval(shift: str, width: str) -> str:
    """SQL of when the interval of a trade begins, in microseconds (see `Midnights.shift`)."""
    return f"epoch_us(timestamp) - (epoch_us(timestamp) + {shift}) % {width}"


def midnights_around(
    view: View,
    files: Sequence[DataFileRef],
    selection: Selection,
    markets: Mapping[str, Exchange],
) -> Midnights:
    """The beginnings of all dates, and of some around them, that rows of these files may be of."""
    held = view.span(files)
    if held is None:
        return midnights_of({}, date(1970, 1, 1), date(1970, 1, 1))
    edge = bounds(selection, view.exchanges)
    low = max(held[0], edge.start) if edge.start else held[0]
    high = min(held[1], edge.end) if edge.end else held[1]
    # A day and a half around: zones are up to 14 hours off, and days may roll.
    return midnights_of(markets, (low - 2 * _DAY).date(), (max(high, low) + 2 * _DAY).date())


def _dates_begin(found: pa.Table, midnights: Midnights) -> pa.Array:
    """Of bars by exchange date: the instant at which that date begins."""
    days = found["start"].cast(pa.int32()).to_numpy()
    names = found["exchange"].to_numpy(zero_copy_only=False)
    start = np.zeros(len(days), np.int64)
    first = (midnights.first - date(1970, 1, 1)).days
    for name, begin in midnights.begin_us.items():
        mine = names == name
        start[mine] = begin[days[mine] - first]
    return pa.array(start).cast(TIMESTAMP_TYPE)

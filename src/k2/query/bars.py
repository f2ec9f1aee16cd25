"""Bars: open, high, low, close, volume, count and VWAP of the trades of each interval.

Comes in: a view of trades and a selection. Goes out: one row per symbol, exchange and interval.
Every number is exact; equal timestamps are told apart by the total order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2.lake import DataFileRef
from k2.model import TIMESTAMP_TYPE
from k2.query.fill import SCHEMA, Filling, fill
from k2.query.interval import Interval, Midnights, midnights_of
from k2.query.port import Engine, Source, Statement
from k2.query.predicate import Bounds, bounds, edges_of, predicate
from k2.query.rollup import MINUTE_US, OFFSET, TIME, Span, place_of
from k2.query.selection import Selection, check_count
from k2.query.statements import statement, text_of
from k2.query.view import View
from k2.query.zones import DAY_US, from_us, to_us

_WIDEN: Final = 32
_HEADROOM: Final = 4
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class BarsWanted:
    """How bars are made: `all_trades` takes those in that form no price; `fill` shows empty
    intervals; `last` keeps the newest per symbol and exchange; `day` keeps one exchange date.
    """

    interval: Interval
    all_trades: bool = False
    fill: bool = False
    last: int | None = None
    day: date | None = None


def make_bars(
    engine: Engine,
    view: View,
    selection: Selection,
    wanted: BarsWanted,
) -> pa.Table:
    """The bars (see `SCHEMA`), by symbol, exchange and start. Raises `BadInput`, `Refused`."""
    if wanted.last is not None:
        check_count("last", wanted.last)
    making = _Making(engine, view, wanted)
    made = making.newest(selection, wanted.last) if wanted.last else making.all(selection)
    if not wanted.fill or not made.num_rows:
        return made
    held = view.span(making.files(selection))
    wide = bounds(selection, view.exchanges)
    asked = Bounds(None if wanted.last else wide.start, wide.end)
    return fill(engine, view.exchanges, made, Filling(wanted.interval, asked, held, wanted.last))


@dataclass(frozen=True)
class _Making:
    """One question on its way."""

    engine: Engine
    view: View
    wanted: BarsWanted

    def all(self, selection: Selection, start: datetime | None = None) -> pa.Table:
        """All bars of the selection; only trades at or after `start`, if it is given."""
        files = self.files(selection, start)
        midnights = self._midnights(files, selection)
        rows, partial = self._split(files, selection, start, midnights)
        made = self._statement(selection, start, midnights, is_rolled=partial is not None)
        sources = {"rows": rows, "midnights": midnights.to_table(), "partial": partial}
        used = {name: of for name, of in sources.items() if f"{{{name}}}" in made.text}
        found = self.engine.run(made, used)
        return _dated(found, midnights) if self.wanted.interval.is_day else _shaped(found)

    def newest(self, selection: Selection, last: int) -> pa.Table:
        """The newest bars of each symbol and exchange, looking back no further than needed.

        A symbol that has enough is done; the others are looked for over ever wider times.
        """
        done: list[pa.Table] = []
        complete: set[tuple[str, str]] = set()
        for start in self._starts(selection, last):
            found = _without(self.all(selection, start), complete)
            if start is None:
                return _joined([*done, found])
            # The interval in which the window begins is not whole; trades of a day may come
            # before its midnight, where days roll.
            whole = start + _DAY if self.wanted.interval.is_day else start
            found = found.filter(pc.greater_equal(found["start"], pa.scalar(whole, TIMESTAMP_TYPE)))
            enough = _pairs_with(found, last)
            done.append(_without(found, set(_pairs(found)) - enough))
            complete |= enough
            if selection.symbols:
                exchanges = selection.exchanges or tuple(self.view.exchanges)
                left = [
                    (symbol, exchange)
                    for symbol in selection.symbols
                    for exchange in exchanges
                    if (symbol, exchange) not in complete
                ]
                if not left:
                    break
                selection = replace(
                    selection,
                    symbols=tuple(dict.fromkeys(symbol for symbol, _ in left)),
                    exchanges=tuple(dict.fromkeys(exchange for _, exchange in left)),
                )
        return _joined(done)

    def files(self, selection: Selection, start: datetime | None = None) -> tuple[DataFileRef, ...]:
        """The files that may hold trades of the selection, at or after `start` if it is given."""
        edge = bounds(selection, self.view.exchanges)
        low = (
            start if edge.start is None else edge.start if start is None else max(edge.start, start)
        )
        day = self.wanted.day
        dates = None if day is None else (day, day)
        return self.view.select(selection.symbols, times=(low, edge.end), dates=dates)

    def _split(
        self,
        files: tuple[DataFileRef, ...],
        selection: Selection,
        start: datetime | None,
        midnights: Midnights,
    ) -> tuple[Source, Source | None]:
        """The trades to be read, and the partial bars of files that need not be."""
        source, interval = self.view.source(files), self.wanted.interval
        in_minutes = interval.width_us % MINUTE_US == 0 and midnights.are_whole_minutes
        if self.view.rollups is None or selection.where or not in_minutes:
            return source, None
        starts, ends = edges_of(selection, self.view.exchanges)
        span = Span(
            tuple(map(to_us, (*starts, *([start] if start else ())))), tuple(map(to_us, ends))
        )
        return self.view.rollups.split(source, files, span, days=interval.is_day)

    def _midnights(self, files: tuple[DataFileRef, ...], selection: Selection) -> Midnights:
        held = self.view.span(files)
        edge = bounds(selection, self.view.exchanges)
        if held is None:
            return midnights_of({}, date(1970, 1, 1), date(1970, 1, 1))
        low = max(held[0], edge.start) if edge.start else held[0]
        high = min(held[1], edge.end) if edge.end else held[1]
        # A day and a half around: zones are up to 14 hours off, and days may roll.
        return midnights_of(
            self.view.exchanges, (low - 2 * _DAY).date(), (max(high, low) + 2 * _DAY).date()
        )

    def _statement(
        self,
        selection: Selection,
        start: datetime | None,
        midnights: Midnights,
        *,
        is_rolled: bool,
    ) -> Statement:
        view, width = self.view, self.wanted.interval.width_us
        made = predicate(selection, view.columns, view.time, view.exchanges)
        if start is not None:
            made.add(f"{view.time} >= {made.bind(start)}")
        if self.wanted.day is not None:
            made.add(f"exchange_date = {made.bind(self.wanted.day)}")
        if not self.wanted.all_trades:
            made.add("price_forming")
        # Grouping by text costs as much as all the rest of a bar: known values are put in instead.
        symbol, exchange = "symbol", "exchange"
        if len(set(selection.symbols)) == 1:
            symbol = f"{made.bind(selection.symbols[0])}::varchar as symbol"
        if len(view.exchanges) == 1:
            exchange = f"{made.bind(next(iter(view.exchanges)))}::varchar as exchange"
        joined, shift = "", midnights.shift(width)
        if self.wanted.interval.is_day:
            begin = "exchange_date"
        elif shift is not None:
            begin = _begin(made.bind(shift), made.bind(width))
        else:
            joined = " join {midnights} using (exchange, exchange_date)"
            eons = Midnights(midnights.first, midnights.last, {}).shift(width)
            begin = _begin(f"({made.bind(eons)} - midnight)", made.bind(width))
        offset = OFFSET if view.is_partitioned or is_rolled else "log_offset"
        return statement(
            "bars",
            {**made.values, "newest": self.wanted.last},
            grouped=text_of("bars_rolled" if is_rolled else "bars_traded"),
            keys=f"{symbol}, {exchange}",
            start=begin,
            place=place_of(TIME, offset),
            first=place_of("first_time", "first_offset"),
            last=place_of("last_time", "last_offset"),
            rows="{rows}" + joined,
            partial="{partial}" + joined,
            predicate=made.text,
        )

    def _starts(self, selection: Selection, last: int) -> Iterator[datetime | None]:
        """Ever earlier times to look back to, the last one None."""
        span = self.view.span(self.files(selection))
        if span is not None:
            edge = bounds(selection, self.view.exchanges)
            low = to_us(max(span[0], edge.start) if edge.start else span[0])
            high = to_us(min(span[1], edge.end) if edge.end else span[1])
            width = self.wanted.interval.width_us * last * _HEADROOM
            if self.wanted.interval.is_day:
                width += 2 * DAY_US
            while width < high - low:
                # No minute is cut, so that roll-ups will do.
                yield from_us((high - width) // MINUTE_US * MINUTE_US)
                width *= _WIDEN
        yield None


def _begin(shift: str, width: str) -> str:
    return f"epoch_us(timestamp) - (epoch_us(timestamp) + {shift}) % {width}"


def _shaped(found: pa.Table) -> pa.Table:
    start = found["start"].cast(pa.int64()).cast(TIMESTAMP_TYPE)
    return found.set_column(2, "start", start).cast(SCHEMA)


def _dated(found: pa.Table, midnights: Midnights) -> pa.Table:
    """Bars by exchange date, with the instant at which that date begins as their start."""
    days = found["start"].cast(pa.int32()).to_numpy()
    names = found["exchange"].to_numpy(zero_copy_only=False)
    start = np.zeros(len(days), np.int64)
    first = (midnights.first - date(1970, 1, 1)).days
    for name, begin in midnights.begin_us.items():
        mine = names == name
        start[mine] = begin[days[mine] - first]
    return found.set_column(2, "start", pa.array(start).cast(TIMESTAMP_TYPE)).cast(SCHEMA)


def _pairs(bars: pa.Table) -> list[tuple[str, str]]:
    unique = bars.group_by(["symbol", "exchange"]).aggregate([])
    return list(zip(unique["symbol"].to_pylist(), unique["exchange"].to_pylist(), strict=True))


def _pairs_with(bars: pa.Table, count: int) -> set[tuple[str, str]]:
    counted = bars.group_by(["symbol", "exchange"]).aggregate([([], "count_all")])
    columns = (counted[name].to_pylist() for name in ("symbol", "exchange", "count_all"))
    return {(s, e) for s, e, n in zip(*columns, strict=True) if n >= count}


def _without(bars: pa.Table, pairs: set[tuple[str, str]]) -> pa.Table:
    if not pairs or not bars.num_rows:
        return bars
    separator = "\x1f"
    joined = pc.binary_join_element_wise(bars["symbol"], bars["exchange"], separator)
    gone = pa.array([separator.join(pair) for pair in pairs], pa.string())
    return bars.filter(pc.invert(pc.is_in(joined, value_set=gone)))


def _joined(parts: list[pa.Table]) -> pa.Table:
    order = [(name, "ascending") for name in ("symbol", "exchange", "start")]
    return pa.concat_tables(parts).sort_by(order) if len(parts) > 1 else parts[0]

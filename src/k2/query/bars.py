"""Bars: open, high, low, close, volume, count and VWAP of the trades of each interval.

Comes in: a view of trades and a selection. Goes out: one row per symbol, exchange and interval.
Every number is exact; equal timestamps are told apart by the total order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from k2.lake import DataFileRef
from k2.model import TIMESTAMP_TYPE
from k2.query.fill import SCHEMA, Filling, fill
from k2.query.frame import FIRST_TWO, Framing, frame, place_in
from k2.query.interval import Interval, Midnights
from k2.query.minutes import Partials
from k2.query.narrow import Span, tail_within
from k2.query.newest import Newest
from k2.query.port import Engine, Source, Statement
from k2.query.predicate import Bounds, bounds, edges_of
from k2.query.rollup import MINUTE_US, place_of
from k2.query.rollup import Span as Times
from k2.query.rounding import half_even
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
    return fill(
        engine,
        view.exchanges,
        made,
        Filling(wanted.interval, asked, held, wanted.last, selection.sessions),
    )


def bars_statement(
    values: Mapping[str, object],
    grouped: str = "bars_traded",
    *,
    measured: str = "",
    shown: str = "",
    kept: str = "true",
    order: str = "start",
    backwards: str = "start desc",
    **fragments: str,
) -> Statement:
    """The statement of bars: what it groups (a named text), what else it measures of each and
    shows, which bars it keeps, and in which order they stand within a symbol of an exchange.
    """
    return statement(
        "bars",
        values,
        grouped=text_of(grouped),
        measured=measured,
        shown=shown,
        kept=kept,
        order=order,
        backwards=backwards,
        vwap=half_even("t", "v"),
        **fragments,
    )


@dataclass(frozen=True)
class _Making:
    """One question on its way."""

    engine: Engine
    view: View
    wanted: BarsWanted

    def all(self, selection: Selection, start: datetime | None = None) -> pa.Table:
        """All bars of the selection; only trades at or after `start`, if it is given."""
        files, wanted = self.files(selection, start), self.wanted
        framing = Framing(wanted.interval, wanted.all_trades, wanted.day, start)
        framed = frame(self.view, files, selection, framing)
        rows, rolled = self._split(files, selection, start, framed.midnights)
        sources: dict[str, Source | pa.Table] = {**framed.tables, "rows": rows}
        grouped = "bars_traded"
        if rolled is not None:
            span = self._span(selection, start)
            alone = not (rows.files or rows.partial) and (
                tail_within(rows, self.view.time, span) is None
            )
            kept = self._kept(rolled, span) if alone and self._are_bars(selection) else None
            made = kept and kept.bars(all_trades=wanted.all_trades, last=wanted.last)
            if made is not None:
                return made
            sources["partial"] = rolled
            grouped = "bars_folded" if alone else "bars_rolled"
            if alone:
                del sources["rows"]
        asked = bars_statement(
            {**framed.values, "newest": wanted.last},
            grouped,
            **framed.fragments,
            place=place_in(self.view, partitioned=rolled is not None),
            first=place_of("first_time", "first_offset"),
            last=place_of("last_time", "last_offset"),
        )
        return framed.settled(self.engine.run(asked, sources), SCHEMA)

    def _span(self, selection: Selection, start: datetime | None) -> Span:
        """What is asked for, as wide as any of its exchanges has it."""
        edge = bounds(selection, self.view.exchanges)
        lows = [to_us(low) for low in (edge.start, start) if low is not None]
        return Span(
            selection.symbols,
            selection.exchanges,
            max(lows, default=None),
            None if edge.end is None else to_us(edge.end),
        )

    def _kept(self, rolled: Source, span: Span) -> Partials | None:
        """The partial bars of symbols, from memory."""
        if self.view.rollups is None or not span.symbols:
            return None
        return self.view.rollups.minutes.of(self.engine, rolled.files, rolled.rows, span)

    def _are_bars(self, selection: Selection) -> bool:
        """Whether each partial bar is a bar, if it is the only one of its minute."""
        edges = edges_of(selection, self.view.exchanges)
        is_one = all(len(set(each)) < 2 for each in edges)
        return is_one and self.wanted.interval.width_us == MINUTE_US

    def newest(self, selection: Selection, last: int) -> pa.Table:
        """The newest bars of each symbol and exchange."""
        newest = Newest(last, FIRST_TWO, "start", tuple(self.view.exchanges))
        return newest.of(self._whole, self._starts(selection, last), selection)

    def _whole(self, selection: Selection, start: datetime | None) -> pa.Table:
        """The bars that are whole if no trade before `start` is read."""
        found = self.all(selection, start)
        if start is None:
            return found
        # The interval in which the window begins is not whole; trades of a day may come before
        # its midnight, where days roll.
        whole = start + _DAY if self.wanted.interval.is_day else start
        return found.filter(pc.greater_equal(found["start"], pa.scalar(whole, TIMESTAMP_TYPE)))

    def files(self, selection: Selection, start: datetime | None = None) -> tuple[DataFileRef, ...]:
        """The files that may hold trades of the selection, at or after `start` if it is given."""
        day = self.wanted.day
        dates = None if day is None else (day, day)
        times = self._times(selection, start)
        return self.view.select(selection.symbols, times=times, dates=dates)

    def _times(
        self, selection: Selection, start: datetime | None
    ) -> tuple[datetime | None, datetime | None]:
        """Between which times all trades are, half-open; None is open."""
        edge = bounds(selection, self.view.exchanges)
        given = [each for each in (edge.start, start) if each is not None]
        return max(given, default=None), edge.end

    def _split(
        self,
        files: tuple[DataFileRef, ...],
        selection: Selection,
        start: datetime | None,
        midnights: Midnights,
    ) -> tuple[Source, Source | None]:
        """The trades to be read, and the partial bars of files that need not be."""
        source = self.view.source(files, self._times(selection, start))
        interval = self.wanted.interval
        in_minutes = interval.width_us % MINUTE_US == 0 and midnights.are_whole_minutes
        is_part = bool(selection.where) or selection.sessions is not None
        if self.view.rollups is None or is_part or not in_minutes:
            return source, None
        starts, ends = edges_of(selection, self.view.exchanges)
        span = Times(
            tuple(map(to_us, (*starts, *([start] if start else ())))), tuple(map(to_us, ends))
        )
        return self.view.rollups.split(source, files, span, days=interval.is_day)

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

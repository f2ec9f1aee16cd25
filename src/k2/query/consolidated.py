"""Bars over all exchanges of a symbol, as one market.

Comes in: a view of trades and a selection. Goes out: one row per symbol and interval. A symbol
is what its exchanges spell alike.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from k2.model import TIMESTAMP_TYPE
from k2.query.bars import BarsWanted, bars_statement
from k2.query.fill import SCHEMA as PLAIN
from k2.query.fill import Filling, fill
from k2.query.frame import EVERY, PLACE_OF_ALL, Framing, as_one, frame
from k2.query.gaps import Gap
from k2.query.newest import Newest
from k2.query.port import Engine
from k2.query.predicate import Bounds, bounds
from k2.query.selection import Selection, check_count
from k2.query.view import View
from k2.query.zones import DAY_US, from_us, to_us

SCHEMA: Final = PLAIN.append(pa.field("exchanges", pa.string()))
"""Columns of these bars: `exchange` is `*`, `exchanges` are those that traded, with commas."""

_EXCHANGES: Final = ", string_agg(distinct rows.exchange, ',' order by rows.exchange) as exchanges"
_DAY: Final = timedelta(days=1)
_HEADROOM: Final = 4
_WIDEN: Final = 32


def make_consolidated(
    engine: Engine, view: View, selection: Selection, wanted: BarsWanted
) -> pa.Table:
    """The bars (see `SCHEMA`), by symbol and start. Intervals go by the midnights of the exchanges
    that are asked for, or of UTC where these are in several zones; a day is their exchange date.

    Raises `BadInput`, `Refused`.
    """
    making = _Making(engine, view, wanted)
    if wanted.last is None:
        made = making.all(selection)
    else:
        check_count("last", wanted.last)
        newest = Newest(wanted.last, ("symbol",), "start", tuple(view.exchanges))
        made = newest.of(making.whole, making.starts(selection), selection)
    if not wanted.fill or not made.num_rows:
        return made
    edge = bounds(selection, view.exchanges)
    held = view.span(view.select(selection.symbols, times=(edge.start, edge.end)))
    asked = Bounds(None if wanted.last else edge.start, edge.end)
    market = as_one(view.exchanges, selection)
    return fill(engine, market, made, Filling(wanted.interval, asked, held, wanted.last))


def of_all(gaps: Iterable[Gap]) -> list[Gap]:
    """The gaps as gaps of the one market: what one exchange lacks, it lacks."""
    return [replace(gap, exchange=EVERY) for gap in gaps]


@dataclass(frozen=True)
class _Making:
    """One question on its way."""

    engine: Engine
    view: View
    wanted: BarsWanted

    def all(self, selection: Selection, start: datetime | None = None) -> pa.Table:
        """All bars of the selection; only trades at or after `start`, if it is given."""
        edge = bounds(selection, self.view.exchanges)
        low = max((at for at in (edge.start, start) if at is not None), default=None)
        files = self.view.select(selection.symbols, times=(low, edge.end))
        framing = Framing(
            self.wanted.interval, self.wanted.all_trades, start=start, consolidated=True
        )
        framed = frame(self.view, files, selection, framing)
        made = bars_statement(
            {**framed.values, "newest": self.wanted.last},
            **framed.fragments,
            place=PLACE_OF_ALL,
            measured=_EXCHANGES,
            shown=", exchanges",
        )
        sources = {**framed.tables, "rows": self.view.source(files)}
        return framed.settled(self.engine.run(made, sources), SCHEMA)

    def whole(self, selection: Selection, start: datetime | None) -> pa.Table:
        """The bars that are whole if no trade before `start` is read."""
        found = self.all(selection, start)
        if start is None:
            return found
        # A date may begin a day before its midnight in UTC, where zones differ or days roll.
        whole = start + 2 * _DAY if self.wanted.interval.is_day else start
        return found.filter(pc.greater_equal(found["start"], pa.scalar(whole, TIMESTAMP_TYPE)))

    def starts(self, selection: Selection) -> Iterator[datetime | None]:
        """Ever earlier times to look back to, the last one None."""
        edge = bounds(selection, self.view.exchanges)
        span = self.view.span(self.view.select(selection.symbols, times=(edge.start, edge.end)))
        if span is not None and self.wanted.last is not None:
            low = to_us(max(span[0], edge.start) if edge.start else span[0])
            high = to_us(min(span[1], edge.end) if edge.end else span[1])
            width = self.wanted.interval.width_us * self.wanted.last * _HEADROOM
            if self.wanted.interval.is_day:
                width += 4 * DAY_US
            while width < high - low:
                yield from_us(high - width)
                width *= _WIDEN
        yield None

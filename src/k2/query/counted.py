"""Bars that close once enough was traded: a count of trades, a quantity, an amount of money.

Comes in: a view of trades and a selection. Goes out: one row per bar. They begin anew with each
exchange date, so that they do not depend on where a question begins.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput
from k2.lake import DataFileRef
from k2.model import TIMESTAMP_TYPE, Exchange, micros
from k2.query.bars import bars_statement
from k2.query.days import back_by_dates, day_began, roll_us
from k2.query.fill import SCHEMA as TIME_BARS
from k2.query.frame import FIRST_TWO, keys_of, place_in, trades_predicate
from k2.query.gaps import Gap
from k2.query.interval import midnights_of
from k2.query.newest import Newest
from k2.query.port import Engine
from k2.query.predicate import Predicate, add_edge, bounds, instants
from k2.query.rounding import in_units
from k2.query.selection import Selection, check_count
from k2.query.statements import statement
from k2.query.view import View
from k2.query.zones import EPOCH, to_us

KINDS: Final = ("tick", "volume", "dollar")
"""What may close a bar, beside time."""

SCHEMA: Final = TIME_BARS.insert(3, pa.field("end", TIMESTAMP_TYPE))
"""Columns of these bars; `start` and `end` are the times of the first and the last trade."""

_MADE: Final = pa.schema([*SCHEMA, ("exchange_date", pa.date32()), ("is_full", pa.bool_())])

# In whole numbers, so that sums are exact: of trades, 0.00000001 of a quantity, 1e-16 of an amount.
_AMOUNTS: Final = {
    "tick": "1",
    "volume": in_units("quantity"),
    "dollar": f"{in_units('price')} * {in_units('quantity')}",
}
_UNITS: Final = {"tick": 1, "volume": 10**8, "dollar": 10**16}
_EXAMPLES: Final = {"tick": "500", "volume": "10000 or 0.5", "dollar": "1000000"}


@dataclass(frozen=True)
class Size:
    """How much closes a bar: `units` of what `kind` counts in (see `_UNITS`)."""

    kind: str
    units: int


@dataclass(frozen=True)
class CountedWanted:
    """How bars are made: `all_trades` takes those in that form no price; `last` keeps the newest
    per symbol and exchange.
    """

    size: Size
    all_trades: bool = False
    last: int | None = None


def parse_size(kind: str, text: str) -> Size:
    """The size of bars of one of `KINDS`. Raises `BadInput` for text that is none, or is 0."""
    digits = r"\d{1,15}" if kind == "tick" else r"\d{1,15}(\.\d{1,8})?"
    if re.fullmatch(digits, text.strip(), re.A) and (size := Decimal(text)) > 0:
        return Size(kind, int(size * _UNITS[kind]))
    what = "a whole number of trades" if kind == "tick" else "a number above 0, of up to 8 decimals"
    raise BadInput(
        f"{text!r} is no size of {kind} bars", expected=what, hint=f"such as {_EXAMPLES[kind]}"
    )


def make_counted(
    engine: Engine, view: View, selection: Selection, wanted: CountedWanted
) -> pa.Table:
    """The bars that begin within the selection (columns: `SCHEMA`, exchange_date, is_full), by
    symbol, exchange and time.

    A trade belongs to the bar in whose share of the date's running total it begins: the one that
    brings the total to the bar's end closes it and is never split, so that what it has beyond
    shortens the next bar, or leaves out bars that it covers. Raises `BadInput`, `Refused`.
    """
    if wanted.last is None:
        return _Counting(engine, view, wanted).all(selection)
    check_count("last", wanted.last)
    return _Counting(engine, view, wanted).newest(selection, wanted.last)


def settled(made: pa.Table, gaps: Sequence[Gap], exchanges: Mapping[str, Exchange]) -> pa.Table:
    """The bars with the column `complete`: whether it reached its size, and no gap touches it or
    what its date had before it, on which it rests.
    """
    found = made["is_full"].combine_chunks().to_numpy(zero_copy_only=False).copy()
    if gaps and made.num_rows:
        end, began = micros(made["end"]), dates_began(made, exchanges)
        for gap in gaps:
            first, last = gap.start or gap.end, gap.end or gap.start
            mine = pc.and_(
                pc.equal(made["symbol"], gap.symbol), pc.equal(made["exchange"], gap.exchange)
            )
            touched = mine.to_numpy(zero_copy_only=False)
            if first is not None and last is not None:
                touched = touched & (end >= to_us(first)) & (began <= to_us(last))
            found &= ~touched
    return made.select(SCHEMA.names).append_column("complete", pa.array(found, pa.bool_()))


def dates_began(made: pa.Table, exchanges: Mapping[str, Exchange]) -> npt.NDArray[np.int64]:
    """When the exchange date of each bar began, in microseconds."""
    began = np.zeros(made.num_rows, np.int64)
    if not made.num_rows:
        return began
    days = made["exchange_date"].cast(pa.int32()).to_numpy()
    first, last = (EPOCH + timedelta(int(day)) for day in (days.min(), days.max()))
    for name, begin in midnights_of(exchanges, first, last).begin_us.items():
        mine = pc.equal(made["exchange"], name).to_numpy(zero_copy_only=False)
        began[mine] = begin[days[mine] - days.min()] - roll_us(exchanges[name])
    return began


@dataclass(frozen=True)
class _Counting:
    """One question on its way."""

    engine: Engine
    view: View
    wanted: CountedWanted

    def all(self, selection: Selection, start: datetime | None = None) -> pa.Table:
        """The bars that begin within the selection, and not before `start` if it is given."""
        view, size = self.view, self.wanted.size
        asked = bounds(selection, view.exchanges).start
        later = start is not None and (asked is None or asked < start)
        from_ = replace(selection, start=start) if later else selection
        reading = replace(selection, start=day_began(from_, view.exchanges))
        made = trades_predicate(view, reading, all_trades=self.wanted.all_trades)
        keys = keys_of(view, selection, made)
        numbered = statement(
            "numbered",
            {},
            place=place_in(view),
            amount=_AMOUNTS[size.kind],
            predicate=made.text,
        )
        kept = Predicate(values=made.values)
        # Both: a date of the selection's own is another instant at each exchange.
        for edge in (selection.start, start):
            add_edge(kept, "first", ">=", instants(edge, selection, view.exchanges))
        found = self.engine.run(
            bars_statement(
                {**made.values, "size": size.units, "newest": self.wanted.last},
                keys=f"{keys}, exchange_date",
                start="number",
                place=place_in(view),
                measured=', min(timestamp) as first, max(timestamp) as "end", max(done) as done',
                rows=numbered.text,
                predicate="true",
                shown=', first, "end", exchange_date, done >= (start + 1) * $size as is_full',
                kept=kept.text,
                order="exchange_date, start",
                backwards="exchange_date desc, start desc",
            ),
            {"rows": view.source(self._files(reading))},
        )
        return (
            found.drop_columns("start")
            .rename_columns({"first": "start"})
            .select(_MADE.names)
            .cast(_MADE)
        )

    def newest(self, selection: Selection, last: int) -> pa.Table:
        """The newest bars of each symbol and exchange."""
        newest = Newest(last, FIRST_TWO, "start", tuple(self.view.exchanges))
        return newest.of(self.all, self._starts(selection), selection)

    def _files(self, selection: Selection) -> tuple[DataFileRef, ...]:
        edge = bounds(selection, self.view.exchanges)
        return self.view.select(selection.symbols, times=(edge.start, edge.end))

    def _starts(self, selection: Selection) -> Iterator[datetime | None]:
        """The beginning of the newest date, then ever earlier ones; the last one is None."""
        span = self.view.span(self._files(selection))
        if span is not None:
            edge = bounds(selection, self.view.exchanges)
            low = max(span[0], edge.start) if edge.start else span[0]
            high = min(span[1], edge.end) if edge.end else span[1]
            yield from back_by_dates(self.view.exchanges, low, high)
        yield None

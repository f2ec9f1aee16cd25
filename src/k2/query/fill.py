"""Empty bars: the intervals of a grid in which nothing traded.

Comes in: bars. Goes out: bars and, between them, one without prices for each other interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import Refused
from k2.model import PRICE_TYPE, TIMESTAMP_TYPE, Exchange
from k2.query.interval import Interval, midnights_of
from k2.query.port import Engine
from k2.query.predicate import Bounds
from k2.query.sessions import Sessions, trading_days, within
from k2.query.statements import statement
from k2.query.zones import EARLIEST, from_us, to_us

SCHEMA: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("exchange", pa.string()),
        ("start", TIMESTAMP_TYPE),
        ("open", PRICE_TYPE),
        ("high", PRICE_TYPE),
        ("low", PRICE_TYPE),
        ("close", PRICE_TYPE),
        ("volume", pa.decimal128(38, 8)),
        ("trade_count", pa.int64()),
        ("vwap", PRICE_TYPE),
    ]
)
"""Columns of bars; `start` is the instant (UTC) at which the interval begins."""

LIMIT: Final = 1_000_000
"""The most intervals that are shown."""

_DAYS: Final = timedelta(days=2)


@dataclass(frozen=True)
class Filling:
    """How bars are filled: over the range that was `asked` for (an open end: to the first or last
    bar of each symbol), but not beyond the newest record `held`; the newest `last` of each stay.
    With `sessions`, no empty bar is of a time at which its exchange is closed.
    """

    interval: Interval
    asked: Bounds
    held: tuple[datetime, datetime] | None
    last: int | None = None
    sessions: Sessions | None = None


def fill(
    engine: Engine, exchanges: Mapping[str, Exchange], bars: pa.Table, how: Filling
) -> pa.Table:
    """The bars and the empty ones. Raises `Refused` for more than `LIMIT` of them."""
    low, high = pc.min(bars["start"]).value, pc.max(bars["start"]).value
    first = last = None
    if how.asked.start is not None:
        first = low = min(max(to_us(how.asked.start), EARLIEST), low)
    if how.asked.end is not None and how.held is not None:
        last = high = max(min(to_us(how.asked.end) - 1, to_us(how.held[1])), high)
    pairs = bars.group_by(["symbol", "exchange"]).aggregate([]).num_rows
    if pairs * ((high - low) // how.interval.width_us + 1) > LIMIT:
        raise Refused(
            f"more than {LIMIT:,} intervals would be shown, most of them empty",
            hint="ask for a shorter range, a longer interval, or leave empty ones out",
        )
    edges = {
        "first": None if first is None else from_us(first),
        "last": None if last is None else from_us(last),
    }
    grid = _grid(exchanges, how.interval, low, high)
    if how.sessions is not None:
        mine = {name: of for name, of in exchanges.items() if name in how.sessions.of}
        begin, end = ((from_us(at) + _DAYS * sign).date() for at, sign in ((low, -1), (high, 2)))
        days = trading_days(how.sessions, mine, begin, end)
        grid = grid.filter(within(grid, how.interval.width_us, days))
    found = engine.run(
        statement("fill", {**edges, "newest": how.last}),
        {"bars": bars, "grid": grid},
    )
    return found.select(bars.column_names).cast(bars.schema)


def _grid(exchanges: Mapping[str, Exchange], interval: Interval, low: int, high: int) -> pa.Table:
    """Where intervals begin at each exchange, from `low` to `high` (microseconds), inclusive."""
    first, last = (from_us(low) - _DAYS).date(), (from_us(high) + _DAYS).date()
    names, starts = [], []
    for name, begin in midnights_of(exchanges, first, last).begin_us.items():
        # A day of 25 hours is one interval all the same.
        found = begin if interval.is_day else _steps(begin, interval.width_us)
        found = found[(found >= low) & (found <= high)]
        names.append(np.full(len(found), name, dtype=object))
        starts.append(found)
    return pa.table(
        {
            "exchange": pa.array(np.concatenate(names), pa.string()),
            "start": pa.array(np.concatenate(starts), pa.int64()).cast(TIMESTAMP_TYPE),
        }
    )


def _steps(begin: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
    """Each day's beginning and every width after it, up to the next day's beginning."""
    counts = -(-np.diff(begin) // width)
    first = np.repeat(begin[:-1], counts)
    within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(first + within * width, np.int64)

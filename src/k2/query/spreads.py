"""Spreads of each interval: as quoted, as paid, and as earned by whoever stood on the other side.

Comes in: views of trades and quotes, and a selection. Goes out: one row per symbol, exchange and
interval. Means are exact, rounded half-even to eight decimals.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.model import PRICE_TYPE, TIMESTAMP_TYPE, micros
from k2.query.asof import Column, Keys, Rule
from k2.query.beside import PAIR, Askers, find_beside, number_pairs
from k2.query.grid import interval_spans, interval_starts
from k2.query.interval import Interval
from k2.query.means import SUM_TYPE, to_decimals, weighted_means
from k2.query.middles import (
    BY_THE_RULE,
    QUOTED,
    Market,
    Measuring,
    later_middles,
    middles,
    read_columns,
    read_trades,
    signed,
    signs,
)
from k2.query.selection import Selection, check_length
from k2.query.zones import to_us

SPREADS: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("exchange", pa.string()),
        ("start", TIMESTAMP_TYPE),
        ("quoted_spread", PRICE_TYPE),
        ("quoted_seconds", SUM_TYPE),
        ("effective_spread", PRICE_TYPE),
        ("realised_spread", PRICE_TYPE),
        ("volume", SUM_TYPE),
        ("trade_count", pa.int64()),
    ]
)
"""Columns of spreads; `start` is the instant (UTC) at which the interval begins."""

_PLACE: Final = ("log_partition", "log_offset")
_READ: Final = (*PAIR, "exchange_date", "timestamp", "timestamp_nanos", *_PLACE, *QUOTED)
_BEFORE: Final = Rule(strict=True, look_ahead=True)
_NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True)
class SpreadsWanted:
    """Spreads by `interval`; realised ones are those against the middle a `horizon` later."""

    interval: Interval
    horizon: timedelta
    how: Measuring = BY_THE_RULE

    def __post_init__(self) -> None:
        check_length("horizon", self.horizon)


@dataclass(frozen=True)
class Spreads:
    """The rows (see `SPREADS`), and how many trades had no middle of the market beside them."""

    table: pa.Table
    left_out: int


def make_spreads(market: Market, selection: Selection, wanted: SpreadsWanted) -> Spreads:
    """Of each interval in which anything was quoted or traded:

    `quoted_spread`: ask - bid, by the time for which each quote stood, of the `quoted_seconds` in
    which both sides did. `effective_spread`: 2 * |price - middle|, and `realised_spread`: 2 *
    (price - later middle) for buys, the negative for sells, both by quantity. `volume` and
    `trade_count` are of the trades that had a middle beside them.

    A quote stands until the next one, and no longer than anything is known of.
    """
    trades = read_trades(market, selection, wanted.how)
    quotes = read_columns(market.engine, market.quotes, selection, _READ)
    (of_trades, of_quotes), pairs = number_pairs(trades, quotes)
    exchanges = {**market.quotes.exchanges, **market.trades.exchanges}
    start_of_trades = interval_starts(trades, wanted.interval, exchanges)
    start_of_quotes = interval_starts(quotes, wanted.interval, exchanges)
    grid, (in_trades, in_quotes) = _grid((of_trades, start_of_trades), (of_quotes, start_of_quotes))
    names = pairs["at_exchange"].take(pa.array(grid.pair))
    lasting = interval_spans(grid.start, names, wanted.interval, exchanges)
    span = _clipped(*lasting, selection, market)
    quoted = _quoted(market, pairs, grid, span, quotes, of_quotes, in_quotes)
    groups = len(grid.pair)
    twice = pc.add(trades["price"], trades["price"])
    paid = pc.subtract(twice, middles(market, trades, wanted.how))
    effective = weighted_means(
        market.engine, in_trades, pc.abs(paid), trades["quantity"], groups=groups
    )
    (later,) = later_middles(market, trades, wanted.how, [wanted.horizon])
    earned = signed(pc.subtract(twice, later), signs(trades))
    realised = weighted_means(market.engine, in_trades, earned, trades["quantity"], groups=groups)
    columns = [
        pairs["of_symbol"].take(pa.array(grid.pair)),
        names,
        pa.array(grid.start).cast(TIMESTAMP_TYPE),
        quoted["mean"],
        quoted["weight"],
        effective["mean"],
        realised["mean"],
        effective["weight"],
        effective["count"],
    ]
    table = pa.table(columns, names=SPREADS.names).cast(SPREADS)
    order = [(name, "ascending") for name in ("symbol", "exchange", "start")]
    return Spreads(table.sort_by(order), paid.null_count)


@dataclass(frozen=True)
class _Grid:
    """The intervals in which there is anything, by pair and start (microseconds)."""

    pair: Column
    start: Column


@dataclass(frozen=True)
class _Span:
    """From when to when (microseconds) quotes count in each interval."""

    begin: Column
    end: Column


def _grid(*parts: tuple[Column, Column]) -> tuple[_Grid, list[Column]]:
    """The intervals of all these records (pairs and starts), and the number of each one's own."""
    pair, start = (np.concatenate(each) for each in zip(*parts, strict=True))
    starts, rank = np.unique(start, return_inverse=True)
    keys, number = np.unique(pair * max(1, len(starts)) + rank, return_inverse=True)
    width = max(1, len(starts))
    grid = _Grid(keys // width, starts[keys % width] if len(starts) else starts)
    return grid, np.split(number, np.cumsum([len(of) for of, _ in parts])[:-1])


def _clipped(begins: Column, ends: Column, selection: Selection, market: Market) -> _Span:
    """The intervals within the range that was asked for and what is known. Dates begin intervals:
    only times can cut one.
    """
    if isinstance(selection.start, datetime):
        begins = np.maximum(begins, to_us(selection.start))
    if isinstance(selection.end, datetime):
        ends = np.minimum(ends, to_us(selection.end))
    if market.held is not None:
        ends = np.minimum(ends, to_us(market.held))
    return _Span(begins, ends)


def _quoted(
    market: Market,
    pairs: pa.Table,
    grid: _Grid,
    span: _Span,
    quotes: pa.Table,
    of_quotes: Column,
    in_quotes: Column,
) -> pa.Table:
    """The mean of ask - bid in each interval, weighted by the seconds for which each stood."""
    first = np.flatnonzero(np.diff(grid.pair, prepend=-1))
    stood = _before(market, pairs, grid.pair[first], span.begin[first])
    rows = pa.concat_tables([stood.select(QUOTED), quotes.select(QUOTED)])
    pair = np.concatenate([grid.pair[first], of_quotes])
    # What stood before the first interval begins comes before all else, and is in none.
    at = np.concatenate([span.begin[first] - 1, micros(quotes["timestamp"])])
    place = (quotes[_PLACE[0]].to_numpy().astype(np.int64) << 48) + quotes[_PLACE[1]].to_numpy()
    nanos = np.concatenate([np.zeros(len(first), np.int64), quotes["timestamp_nanos"].to_numpy()])
    own = np.concatenate([np.full(len(first), -1), in_quotes])
    order = np.lexsort((np.concatenate([np.zeros(len(first), np.int64), place]), nanos, at, pair))
    pair, at, own = pair[order], at[order], own[order]
    spread = pc.subtract(rows["ask_price"], rows["bid_price"]).take(pa.array(order))
    next_at = np.append(at[1:], _NEVER)
    next_at[np.append(np.diff(pair) != 0, True)] = _NEVER
    inside = own >= 0
    stands = np.minimum(next_at[inside], span.end[own[inside]]) - at[inside]
    # Each interval begins with the quote that stood before it.
    behind = _first_at(pair, at, grid.pair, span.begin)
    until = np.append(at, _NEVER)[behind]
    ended = np.append(pair, -1)[behind] != grid.pair
    begins = np.minimum(np.where(ended, _NEVER, until), span.end) - span.begin
    values = pa.chunked_array(
        [
            *spread.filter(pa.array(inside)).chunks,
            *spread.take(pa.array(behind - 1)).chunks,
        ],
        spread.type,
    )
    microseconds = np.maximum(np.concatenate([stands, begins]), 0)
    number = np.concatenate([own[inside], np.arange(len(grid.pair))])
    weights = to_decimals(microseconds * 100)
    return weighted_means(market.engine, number, values, weights, groups=len(grid.pair))


def _first_at(pair: Column, at: Column, pairs: Column, begins: Column) -> npt.NDArray[np.intp]:
    """Of each interval, the index of the first quote at or after its beginning, or of the first of
    another pair.
    """
    low = min(at.min(), begins.min()) if len(at) else 0
    span = int(max(at.max(), begins.max()) - low) + 1 if len(at) else 1
    if (int(pair.max(initial=0)) + 1) * span < 2**62:
        return np.searchsorted(pair * span + (at - low), pairs * span + (begins - low))
    times = np.unique(np.concatenate([at, begins]))
    ranks = np.searchsorted(times, at), np.searchsorted(times, begins)
    return np.searchsorted(pair * len(times) + ranks[0], pairs * len(times) + ranks[1])


def _before(market: Market, pairs: pa.Table, pair: Column, begins: Column) -> pa.Table:
    """The quote of each pair that stood when its first interval began; null where none did."""
    zeros = np.zeros(len(pair), np.int64)
    asking = Askers(Keys(pair, begins * 1000, zeros, zeros), pairs)
    return find_beside(market.engine, market.quotes, asking, QUOTED, _BEFORE).rows

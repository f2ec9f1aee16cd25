"""Trades with the market beside them: what spreads and markouts are measured on.

Comes in: views of trades and quotes. Goes out: trades, the middle of the market when each printed,
and later. Middles are doubled (bid + ask), since that is exact to the same eight decimals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.query.asof import KNOWN_BY_THEN, Rule
from k2.query.beside import KEY_COLUMNS, PAIR, Askers, askers, find_beside, to_nanos
from k2.query.port import Engine
from k2.query.predicate import bounds, predicate, quoted
from k2.query.selection import Selection, check_length
from k2.query.statements import statement
from k2.query.view import View
from k2.query.zones import to_us

QUOTED: Final = ("bid_price", "ask_price")
_TRADED: Final = (*PAIR, *KEY_COLUMNS, "exchange_date", "price", "quantity", "side")
_SIGNS: Final = {"BUY": 1, "SELL": -1, "SELL_SHORT": -1}
_LATER: Final = Rule(look_ahead=True)


@dataclass(frozen=True)
class Measuring:
    """How trades meet quotes: by the rule of a join, none older than `max_age`; `all_trades` takes
    trades in that form no price.
    """

    rule: Rule = KNOWN_BY_THEN
    max_age: timedelta | None = None
    all_trades: bool = False

    def __post_init__(self) -> None:
        if self.max_age is not None:
            check_length("max_age", self.max_age)


BY_THE_RULE: Final = Measuring()
"""By what was known when each trade printed, from trades that form prices."""


@dataclass(frozen=True)
class Market:
    """The engine and the views that are measured, of one moment."""

    engine: Engine
    trades: View
    quotes: View

    @property
    def held(self) -> datetime | None:
        """The newest time of which anything is known; None if nothing is."""
        spans = [view.span(view.select()) for view in (self.trades, self.quotes)]
        newest = max((span[1] for span in spans if span is not None), default=None)
        known = self.quotes.known_at
        return newest if newest is None or known is None else min(newest, known)


def read_columns(
    engine: Engine,
    view: View,
    selection: Selection,
    columns: tuple[str, ...],
    *also: str,
) -> pa.Table:
    """These columns of the selected records, in no order; `also` are conditions of SQL."""
    edge = bounds(selection, view.exchanges)
    files = view.select(selection.symbols, times=(edge.start, edge.end))
    made = predicate(selection, view.columns, view.time, view.exchanges)
    for term in also:
        made.add(term)
    return engine.run(
        statement(
            "columns",
            made.values,
            columns=", ".join(quoted(name) for name in columns),
            source="{rows}",
            predicate=made.text,
        ),
        {"rows": view.source(files)},
    )


def read_trades(market: Market, selection: Selection, how: Measuring) -> pa.Table:
    """The trades that are measured, in no order."""
    also = () if how.all_trades else ("price_forming",)
    return read_columns(market.engine, market.trades, selection, _TRADED, *also)


def middles(market: Market, trades: pa.Table, how: Measuring) -> pa.ChunkedArray:
    """Twice the middle of the market when each trade printed; null where a side was empty."""
    return _middles(market, askers(trades), how)


def later_middles(
    market: Market, trades: pa.Table, how: Measuring, horizons: Sequence[timedelta]
) -> list[pa.ChunkedArray]:
    """For each horizon, twice the middle of the market so long after each trade, whenever it was
    known: it is looked at from afterwards. Null where a side was empty, or where nothing is known
    of that time yet.
    """
    asking, held, count = askers(trades), market.held, trades.num_rows
    # All at once, so that the quotes are read once.
    at = np.concatenate([asking.keys.time + to_nanos(horizon) for horizon in horizons])
    every = asking.keys.take(np.tile(np.arange(count), len(horizons)))
    later = Askers(replace(every, time=at), asking.pairs)
    found = _middles(market, later, replace(how, rule=_LATER))
    if held is not None:
        found = pc.if_else(pa.array(at <= to_us(held) * 1000 + 999), found, _null(found))
    return [found.slice(number * count, count) for number in range(len(horizons))]


def _middles(market: Market, asking: Askers, how: Measuring) -> pa.ChunkedArray:
    quotes = find_beside(market.engine, market.quotes, asking, QUOTED, how.rule, how.max_age).rows
    return pc.add(quotes["bid_price"], quotes["ask_price"])


def signs(trades: pa.Table) -> npt.NDArray[np.int64]:
    """1 where the aggressor bought, -1 where it sold, 0 where nobody knows."""
    found = np.zeros(trades.num_rows, np.int64)
    for side, sign in _SIGNS.items():
        found[pc.equal(trades["side"], side).to_numpy(zero_copy_only=False)] = sign
    return found


def signed(values: pa.ChunkedArray, sign: npt.NDArray[np.int64]) -> pa.ChunkedArray:
    """The values by their signs; null where the sign is 0."""
    turned = pc.if_else(pa.array(sign < 0), pc.negate(values), values)
    return pc.if_else(pa.array(sign != 0), turned, _null(values))


def _null(values: pa.ChunkedArray) -> pa.Scalar:
    return pa.scalar(None, values.type)

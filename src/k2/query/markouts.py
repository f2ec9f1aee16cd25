"""Markouts: how the middle of the market moved after trades, by the aggressor's side.

Comes in: views of trades and quotes, and a selection. Goes out: one row per symbol, exchange, side
and horizon. Means are exact, rounded half-even to eight decimals.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput
from k2.model import PRICE_TYPE
from k2.query.beside import number_pairs
from k2.query.means import SUM_TYPE, weighted_means
from k2.query.middles import (
    BY_THE_RULE,
    Market,
    Measuring,
    later_middles,
    middles,
    read_trades,
    signed,
    signs,
)
from k2.query.selection import Selection, check_length
from k2.query.times import to_span

MARKOUTS: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("exchange", pa.string()),
        ("side", pa.string()),
        ("horizon", pa.string()),
        ("markout", PRICE_TYPE),
        ("volume", SUM_TYPE),
        ("trade_count", pa.int64()),
    ]
)
"""Columns of markouts."""

MOST_HORIZONS: Final = 20
_SIDES: Final = ("BUY", "SELL")


@dataclass(frozen=True)
class MarkoutsWanted:
    """The horizons at which the market is looked at, and how trades meet quotes."""

    horizons: tuple[timedelta, ...]
    how: Measuring = BY_THE_RULE

    def __post_init__(self) -> None:
        if not 1 <= len(self.horizons) <= MOST_HORIZONS:
            raise BadInput(
                "so many horizons cannot be",
                found=str(len(self.horizons)),
                expected=f"1 to {MOST_HORIZONS}",
            )
        for horizon in self.horizons:
            check_length("a horizon", horizon)


@dataclass(frozen=True)
class Markouts:
    """The rows (see `MARKOUTS`), and of how many trades nobody knows the side, or what stood."""

    table: pa.Table
    sideless: int
    left_out: int


def make_markouts(market: Market, selection: Selection, wanted: MarkoutsWanted) -> Markouts:
    """The mean of (middle a horizon later - middle when the trade printed), by quantity; for sells
    its negative: above zero the market went the aggressor's way.

    `volume` and `trade_count` are of the trades of which both middles are known, both sides quoted.
    """
    trades = read_trades(market, selection, wanted.how)
    sign = signs(trades)
    sided = trades.filter(pa.array(sign != 0))
    sign = sign[sign != 0]
    (of_trades,), pairs = number_pairs(sided)
    first = middles(market, sided, wanted.how)
    groups = len(_SIDES) * pairs.num_rows
    parts = []
    afterwards = later_middles(market, sided, wanted.how, wanted.horizons)
    for number, (horizon, later) in enumerate(zip(wanted.horizons, afterwards, strict=True)):
        means = weighted_means(
            market.engine,
            of_trades * len(_SIDES) + (sign < 0),
            signed(pc.subtract(later, first), sign),
            sided["quantity"],
            groups=groups,
            divisor=2,
        )
        parts.append(_rows(pairs, means, number, horizon))
    found = pa.concat_tables(parts).filter(pc.field("trade_count") > 0)
    order = [(name, "ascending") for name in ("symbol", "exchange", "side", "number")]
    return Markouts(
        found.sort_by(order).select(MARKOUTS.names),
        trades.num_rows - sided.num_rows,
        first.null_count,
    )


def _rows(pairs: pa.Table, means: pa.Table, number: int, horizon: timedelta) -> pa.Table:
    """A row for each pair and side."""
    pair = pa.array(np.repeat(np.arange(pairs.num_rows), len(_SIDES)))
    count = len(pair)
    columns = [
        pairs["of_symbol"].take(pair),
        pairs["at_exchange"].take(pair),
        pa.array(list(_SIDES) * pairs.num_rows, pa.string()),
        pa.array([to_span(horizon)] * count, pa.string()),
        means["mean"],
        means["weight"],
        means["count"],
    ]
    table = pa.table(columns, names=MARKOUTS.names).cast(MARKOUTS)
    return table.append_column("number", pa.array([number] * count, pa.int64()))

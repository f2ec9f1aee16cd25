"""Several measures of what traded in each interval, side by side.

Comes in: a view of trades, a selection and the names of measures. Goes out: one row per symbol,
exchange and interval that has trades, with the columns of each measure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import pyarrow as pa

from k2.errors import BadInput, Broken
from k2.query.bars import BarsWanted, make_bars
from k2.query.frame import Framing
from k2.query.interval import Interval
from k2.query.port import Engine
from k2.query.profile import make_profile
from k2.query.selection import Selection
from k2.query.twap import make_twap
from k2.query.view import View

METRICS: Final[Mapping[str, tuple[str, ...]]] = {
    "ohlcv": ("open", "high", "low", "close", "volume"),
    "trade_count": ("trade_count",),
    "vwap": ("vwap",),
    "twap": ("twap",),
    "volume_profile": ("volume_profile",),
}
"""What can be measured, and its columns."""

KEYS: Final = ("symbol", "exchange", "start")
_OF_BARS: Final = ("ohlcv", "trade_count", "vwap")


@dataclass(frozen=True)
class Measures:
    """`metrics` (of `METRICS`) of each interval; `all_trades` takes those in that form no price;
    `bin_size` is the width of a level of the volume profile, None: each price is one.
    """

    metrics: tuple[str, ...]
    interval: Interval
    all_trades: bool = False
    bin_size: Decimal | None = None


def check_metrics(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each once, in the order of `METRICS`. Raises `BadInput` for none, or an unknown one."""
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        raise BadInput(
            "there is no such metric" if unknown else "no metric is asked for",
            place="metrics",
            found=unknown[0] if unknown else None,
            expected=", ".join(METRICS),
        )
    return tuple(name for name in METRICS if name in names)


def aggregate(engine: Engine, view: View, selection: Selection, wanted: Measures) -> pa.Table:
    """Columns symbol, exchange, start and those of the metrics. Raises `BadInput`, `Refused`."""
    parts = list(_parts(engine, view, selection, wanted))
    keys = parts[0].select(KEYS)
    if any(not part.select(KEYS).equals(keys) for part in parts[1:]):
        raise Broken("measures of the same trades are of different intervals")
    columns = {name: part[name] for part in parts for name in part.column_names}
    shown = [name for metric in wanted.metrics for name in METRICS[metric]]
    return pa.table({name: columns[name] for name in (*KEYS, *shown)})


def _parts(
    engine: Engine, view: View, selection: Selection, wanted: Measures
) -> Iterator[pa.Table]:
    if any(metric in _OF_BARS for metric in wanted.metrics):
        bars = BarsWanted(wanted.interval, all_trades=wanted.all_trades)
        yield make_bars(engine, view, selection, bars)
    if "twap" in wanted.metrics:
        yield make_twap(engine, view, selection, wanted.interval, all_trades=wanted.all_trades)
    if "volume_profile" in wanted.metrics:
        framing = Framing(wanted.interval, wanted.all_trades)
        yield make_profile(engine, view, selection, framing, wanted.bin_size)
